//! What a seed decides before a schedule begins: the processes, the jobs, the kinds of faults and their times.
//!
//! Not here: random decisions while a schedule runs (`world`).

use tally_worker::agent::PAGE_BYTES;

use crate::dataset::Day;
use crate::faults::{Fault, KINDS, Kind, Kinds, PowerAt, Rates};
use crate::files::{Kind as FileKind, errno};
use crate::rng::Rng;
use crate::world::{MILLISECOND, Micros, SECOND};

/// Limits of a schedule, below those that its seed chooses: for replays that are easier to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The kinds of faults.
    pub kinds: Kinds,
    /// Coordinators.
    pub coordinators: usize,
    /// Workers.
    pub workers: usize,
    /// Jobs.
    pub jobs: usize,
    /// Files of a table.
    pub files: u32,
    /// Partitions.
    pub partitions: u32,
    /// Of the faults at certain times, the first ones that happen.
    pub faults: usize,
    /// Journals and outputs may be in folders.
    pub folders: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            kinds: Kinds::ALL,
            coordinators: usize::MAX,
            workers: usize::MAX,
            jobs: usize::MAX,
            files: u32::MAX,
            partitions: u32::MAX,
            faults: usize::MAX,
            folders: true,
        }
    }
}

/// What is in folders in place of the object store, and on which kind of file system.
#[derive(Debug, Clone, Copy)]
pub struct Folders {
    /// The journal.
    pub journal: bool,
    /// The output.
    pub output: bool,
    /// Its days exist before all jobs.
    pub has_old_days: bool,
    /// The folder above both exists before all jobs.
    pub has_root: bool,
    /// The file system.
    pub kind: FileKind,
}

impl Folders {
    /// The choice of a seed.
    fn new(seed: u64, allowed: bool) -> Self {
        let mut rng = Rng::new(seed, 4);
        let [journal, output] = match rng.below(100) {
            _ if !allowed => [false, false],
            0..30 => [true, true],
            30..40 => [false, true],
            40..50 => [true, false],
            _ => [false, false],
        };
        let kind = FileKind {
            is_network: rng.chance(500),
            exchanges: rng.chance(500),
            occupied: if rng.chance(500) { errno::EXIST } else { errno::NOTEMPTY },
        };
        let has_old_days = rng.chance(700);
        let has_root = rng.chance(500) || (output && has_old_days);
        Folders { journal, output, has_old_days, has_root, kind }
    }

    /// Something is in folders.
    pub fn any(&self) -> bool {
        self.journal || self.output
    }
}

/// A job that a client submits.
#[derive(Debug, Clone)]
pub struct JobPlan {
    /// Its day and inputs.
    pub day: Day,
    /// When.
    pub at: Micros,
    /// The client waits for the end.
    pub waits: bool,
    /// When the client cancels it.
    pub cancel_at: Option<Micros>,
    /// Partitions.
    pub partitions: u32,
    /// Rows of an encoded row group.
    pub group_rows: u64,
}

/// The plan of a schedule.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The kinds of faults.
    pub kinds: Kinds,
    /// Coordinators.
    pub coordinators: usize,
    /// Workers, with their slots.
    pub workers: Vec<usize>,
    /// Workers that start with the schedule; the others start a little later.
    pub workers_late: bool,
    /// The coordinators elect a leader in Consul.
    pub consul: bool,
    /// The jobs.
    pub jobs: Vec<JobPlan>,
    /// The longest time of a usual task.
    pub task_time: Micros,
    /// How long a drain may take.
    pub drain_timeout: Micros,
    /// Bytes of a page of a worker's inventory. With few bytes, inventories have several pages.
    pub page_bytes: usize,
    /// Records after which the journal is compacted.
    pub compact_after: u64,
    /// What is in folders.
    pub folders: Folders,
    /// Faults at certain times, in their order.
    pub faults: Vec<(Micros, Fault)>,
    /// A process dies at its n-th request to the store.
    pub crash_at_io: Vec<(usize, u32)>,
    /// The power fails after these calls on files.
    pub power_at_io: Vec<PowerAt>,
    /// How often requests and tasks fail.
    pub rates: Rates,
    /// When faults end.
    pub calm_at: Micros,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn new(seed: u64, limits: &Limits) -> Self {
        let mut rng = Rng::new(seed, 1);
        let rng = &mut rng;
        let mut kinds = kinds(rng, limits.kinds);
        // What was added later has generators of its own: the seeds keep their other decisions.
        if limits.kinds.has(Kind::Unsolicited) && Rng::new(seed, 2).chance(100) {
            kinds = kinds.with(Kind::Unsolicited);
        }
        let folders = Folders::new(seed, limits.folders);
        if folders.any() {
            kinds = file_kinds(seed, kinds, limits.kinds);
        }
        let coordinators = (1 + rng.below(3) as usize).min(limits.coordinators);
        let workers: Vec<usize> =
            (0..1 + rng.below(4)).map(|_| 1 + rng.below(3) as usize).take(limits.workers).collect();
        let horizon = *rng.pick(&[SECOND, 3 * SECOND, 10 * SECOND, 40 * SECOND]).unwrap_or(&SECOND);
        let task_time = *rng.pick(&[20 * MILLISECOND, 200 * MILLISECOND, 2 * SECOND]).unwrap_or(&SECOND);
        let jobs = jobs(rng, kinds, limits, horizon);
        let mut scenario = Scenario {
            kinds,
            coordinators,
            workers_late: rng.chance(200),
            consul: coordinators > 1 || rng.chance(300),
            jobs,
            task_time,
            drain_timeout: rng.between(5, 60) * SECOND,
            page_bytes: if Rng::new(seed, 3).chance(250) { 200 } else { PAGE_BYTES },
            compact_after: rng.between(1, 12),
            folders,
            faults: vec![],
            crash_at_io: vec![],
            power_at_io: vec![],
            rates: file_rates(seed, rates(rng, kinds), kinds),
            calm_at: horizon,
            workers,
        };
        scenario.add_faults(seed, horizon);
        scenario.faults.truncate(limits.faults);
        scenario
    }

    /// The processes that run workers.
    pub fn worker_processes(&self) -> std::ops::Range<usize> {
        self.coordinators..self.coordinators + self.workers.len()
    }

    fn add_faults(&mut self, seed: u64, horizon: Micros) {
        for (kind, _) in KINDS.iter().filter(|(kind, _)| self.kinds.has(*kind)) {
            // A generator for each kind, so that one that is turned off does not change the others.
            let rng = &mut Rng::new(seed, 100 + *kind as u64);
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(horizon);
                let time = *rng.pick(&[SECOND, 5 * SECOND, 15 * SECOND]).unwrap_or(&SECOND);
                let time = rng.between(MILLISECOND, time);
                let (worker, coordinator) = (
                    self.coordinators + rng.below(self.workers.len() as u64) as usize,
                    rng.below(self.coordinators as u64) as usize,
                );
                let process = if rng.chance(400) { coordinator } else { worker };
                let learns = |rng: &mut Rng| Some(rng.between(MILLISECOND, 500 * MILLISECOND));
                let fault = match kind {
                    Kind::Break => {
                        Fault::Break { worker, worker_learns: learns(rng), coordinator_learns: learns(rng) }
                    }
                    Kind::HalfOpen => {
                        let one = rng.below(3);
                        Fault::Break {
                            worker,
                            worker_learns: if one == 0 { learns(rng) } else { None },
                            coordinator_learns: if one == 1 { learns(rng) } else { None },
                        }
                    }
                    Kind::Pause => Fault::Pause { process, time },
                    Kind::WorkerCrash => {
                        Fault::Crash { process: worker, back: time, silent: rng.chance(300) }
                    }
                    Kind::CoordinatorCrash => {
                        Fault::Crash { process: coordinator, back: time, silent: rng.chance(300) }
                    }
                    Kind::CrashAtIo => {
                        self.crash_at_io.push((process, 1 + rng.below(80) as u32));
                        continue;
                    }
                    Kind::PowerAtIo => {
                        // The server of a network file system does not lose its power.
                        if !self.folders.kind.is_network {
                            self.power_at_io.push(match rng.chance(600) {
                                true => PowerAt::OutputChange(1 + rng.below(8) as u32),
                                false => PowerAt::Call(1 + rng.below(300) as u32),
                            });
                        }
                        continue;
                    }
                    Kind::Session => Fault::Session,
                    Kind::ConsulAway => Fault::ConsulAway { process: coordinator, time },
                    Kind::UploadExpires => Fault::UploadExpires { number: rng.below(3) },
                    Kind::DiskFull => Fault::DiskFull { process: worker, time },
                    Kind::Drain => Fault::Drain { process: worker, at_once: rng.chance(200) },
                    Kind::PeerCut => {
                        let other = self.coordinators + rng.below(self.workers.len() as u64) as usize;
                        Fault::Cut { one: worker, other, time }
                    }
                    Kind::Unsolicited => Fault::Unsolicited { process: worker },
                    Kind::FileFull => Fault::FilesFull { time: 3 * time },
                    Kind::PowerFailure if !self.folders.kind.is_network => Fault::PowerFailure { back: time },
                    Kind::Clock => Fault::Clock { process, by: rng.below(200_000).cast_signed() - 100_000 },
                    _ => continue,
                };
                self.faults.push((at, fault));
            }
        }
        self.faults.sort_by_key(|(at, _)| *at);
    }
}

/// Kinds that were added later. They are chosen by generators of their own.
const LATER: [Kind; 7] = [
    Kind::Unsolicited,
    Kind::FileError,
    Kind::FileFull,
    Kind::FileSlow,
    Kind::FileLate,
    Kind::PowerFailure,
    Kind::PowerAtIo,
];

fn file_kinds(seed: u64, mut kinds: Kinds, allowed: Kinds) -> Kinds {
    let rng = &mut Rng::new(seed, 5);
    let per_mille = *rng.pick(&[0, 100, 300, 500]).unwrap_or(&0);
    for kind in LATER.into_iter().filter(|kind| *kind != Kind::Unsolicited) {
        if rng.chance(per_mille) && allowed.has(kind) {
            kinds = kinds.with(kind);
        }
    }
    // After a sync that failed, nothing is known of what is on the disk.
    let loses_power = kinds.has(Kind::PowerFailure) || kinds.has(Kind::PowerAtIo);
    if loses_power { kinds.without(Kind::FileError) } else { kinds }
}

fn file_rates(seed: u64, rates: Rates, kinds: Kinds) -> Rates {
    let rng = &mut Rng::new(seed, 6);
    let mut rate = |kind, choices: &[u32]| {
        let rate = rng.pick(choices).copied().unwrap_or(0);
        if kinds.has(kind) { rate } else { 0 }
    };
    Rates {
        file_error: rate(Kind::FileError, &[2, 10, 50]),
        file_slow: rate(Kind::FileSlow, &[2, 10, 50]),
        file_late: rate(Kind::FileLate, &[2, 10, 50]),
        ..rates
    }
}

fn kinds(rng: &mut Rng, allowed: Kinds) -> Kinds {
    // Few kinds at a time show more than all of them at once: some hide others.
    let per_mille = *rng.pick(&[0, 60, 150, 150, 300, 500]).unwrap_or(&0);
    let mut kinds = Kinds::NONE;
    for (kind, _) in KINDS.into_iter().filter(|(kind, _)| !LATER.contains(kind)) {
        if rng.chance(per_mille) && allowed.has(kind) {
            kinds = kinds.with(kind);
        }
    }
    kinds
}

fn rates(rng: &mut Rng, kinds: Kinds) -> Rates {
    let mut rate = |kind, choices: &[u32]| {
        let rate = rng.pick(choices).copied().unwrap_or(0);
        if kinds.has(kind) { rate } else { 0 }
    };
    Rates {
        message_late: rate(Kind::Delay, &[20, 200]),
        store_unavailable: rate(Kind::StoreUnavailable, &[5, 50, 300]),
        store_lost: rate(Kind::StoreLost, &[5, 50, 200]),
        store_late: rate(Kind::StoreLate, &[5, 50]),
        store_error_inside: rate(Kind::StoreErrorInside, &[100, 500]),
        store_slow: rate(Kind::StoreSlow, &[5, 50]),
        task_failure: rate(Kind::TaskFailure, &[20, 200]),
        slow_task: rate(Kind::SlowTask, &[50, 300]),
        peer_failure: rate(Kind::PeerFailure, &[20, 200]),
        other_order: rate(Kind::OtherOrder, &[200, 500]),
        ..Rates::default()
    }
}

fn jobs(rng: &mut Rng, kinds: Kinds, limits: &Limits, horizon: Micros) -> Vec<JobPlan> {
    let mut jobs: Vec<JobPlan> = vec![];
    let count = 1 + usize::from(rng.chance(350)) + usize::from(kinds.has(Kind::Again));
    for number in 0..count.min(limits.jobs) {
        let files = [(); 2].map(|()| (1 + rng.below(3) as u32).min(limits.files));
        let mut day = Day { version: number as u32 + 1, date: format!("201702{:02}", 10 + number), files };
        let mut at = rng.below(horizon / 2 + 1);
        if number == 0 {
            at /= 8;
        } else if kinds.has(Kind::Again)
            && let Some(first) = jobs.first()
        {
            // The same day: from the same inputs, or from others.
            match rng.chance(500) {
                true => day = first.day.clone(),
                false => day.date = first.day.date.clone(),
            }
        }
        let cancels = kinds.has(Kind::Cancel) && rng.chance(700);
        let cancel_after = rng.below(horizon);
        jobs.push(JobPlan {
            day,
            at,
            waits: rng.chance(600),
            cancel_at: cancels.then_some(at + cancel_after),
            partitions: (1 + rng.below(3) as u32).min(limits.partitions),
            group_rows: rng.between(2, 6),
        });
    }
    jobs
}
