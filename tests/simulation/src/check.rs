//! What must hold: after requests that remove files, at the end of a schedule, and of every queue in between.
//!
//! Not here: what single processes check where they act (`world::violated`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};

use bytes::Bytes;
use object_store::path::Path;
use tally_coordinator::driver::DriverInput;
use tally_coordinator::publish::Finished;
use tally_proto::JobId;
use tally_proto::v1::{JobState, JobStatus};

use crate::client::Client;
use crate::cluster::{Cluster, OUTPUT};
use crate::coordinator::Role;
use crate::dataset::{self, Row};
use crate::faults::Kind;
use crate::files::ROOT;
use crate::store::Object;
use crate::world::{self, Micros, World};

/// Events and futures that may wait: more than a small cluster ever has.
const MAX_WAITING: usize = 20_000;
/// Kinds of faults that may make a job fail. Whatever else happens, jobs are done or cancelled.
const MAY_FAIL: [Kind; 16] = [
    Kind::FileError,
    Kind::FileFull,
    Kind::PowerFailure,
    Kind::PowerAtIo,
    Kind::StoreUnavailable,
    Kind::StoreLost,
    Kind::StoreLate,
    Kind::StoreErrorInside,
    Kind::StoreSlow,
    Kind::UploadExpires,
    Kind::DiskFull,
    Kind::TaskFailure,
    Kind::PeerFailure,
    Kind::PeerCut,
    Kind::WorkerCrash,
    Kind::CrashAtIo,
];

/// The records of what jobs staged.
fn staged(world: &World) -> Vec<&Object> {
    let folder = Path::from(format!(".{OUTPUT}.tally-staging"));
    world.store.below(&folder).filter(|object| object.key.as_ref().contains("/jobs/")).collect()
}

/// The part files of one job in a day's folder.
#[derive(Default)]
struct Files {
    rows: Vec<Row>,
    /// The number of rows that each file says the day has.
    totals: BTreeSet<u64>,
}

/// The job of a part file, by its name. In a store, the attempt follows.
fn job_of(world: &World, key: &Path) -> Option<JobId> {
    let name = key.filename()?.strip_prefix("part-")?.strip_suffix(".snappy.parquet")?;
    let (_, rest) = name.split_once('-')?;
    let job = if world.folders.output { rest } else { rest.rsplit_once('-')?.0 };
    JobId::parse(job).ok()
}

/// Whether a file is the day before all jobs.
fn is_old(object: &Object) -> bool {
    object.key.as_ref().ends_with("-old.snappy.parquet")
}

/// The files of a day in the output.
fn objects(world: &World, date: &str) -> Vec<Object> {
    let folder = dataset::folder(date);
    if !world.folders.output {
        return world.store.below(&Path::from(format!("{OUTPUT}/{folder}"))).cloned().collect();
    }
    let files = world.files.below(&FilePath::new(ROOT).join(OUTPUT).join(folder));
    let object = |(path, bytes): (String, Bytes)| Object { key: Path::from(path), bytes, tag: 0, written: 0 };
    files.into_iter().map(object).collect()
}

/// The staging folders of the output.
fn staging_folders(world: &World) -> Vec<PathBuf> {
    let siblings = FilePath::new(ROOT).join(format!(".{OUTPUT}.tally-staging"));
    let names = world.files.list(&siblings).unwrap_or_default();
    names.into_iter().map(|name| siblings.join(name)).collect()
}

/// After a call that may change the output: each day in a folder is one whole day, and never disappears, except between two
/// renames on a file system without an exchange.
pub fn after_call() {
    let wrong = world::with(|world| {
        if !world.folders.output || !std::mem::take(&mut world.files.output_changed) {
            return None;
        }
        let dates: BTreeSet<String> = world.days.values().map(|day| day.date.clone()).collect();
        dates.into_iter().find_map(|date| day_in_folder(world, &date).err())
    });
    if let Some(wrong) = wrong {
        world::violated(|| wrong);
    }
}

fn day_in_folder(world: &mut World, date: &str) -> Result<(), String> {
    let files = objects(world, date);
    if files.is_empty() {
        let is_half_done = |folder: &PathBuf| world.files.exists(&folder.join("old"));
        // The product looks for the exchange, and does without it if that fails.
        let renames = !world.files.kind().exchanges || world.files_failed;
        let may_be_away = renames && staging_folders(world).iter().any(is_half_done);
        return match may_be_away || !world.seen_days.contains(date) {
            true => Ok(()),
            false => Err(format!("{date} has disappeared from the output")),
        };
    }
    world.seen_days.insert(date.into());
    if let [file] = &files[..]
        && is_old(file)
    {
        return Ok(());
    }
    let jobs = jobs_in(world, files.iter())?;
    let one = jobs.len() == 1 && !files.iter().any(is_old);
    match one && jobs.iter().all(|(job, files)| is_whole(world, job, files)) {
        true => Ok(()),
        false => Err(format!("{date} has parts of {:?} and no whole day", jobs.keys())),
    }
}

/// After a piece of the driver's work: a decided day is never lost, unless files fail.
pub fn worked(input: &DriverInput) {
    let DriverInput::Recovered(job, Ok(Finished::Gone)) = input else { return };
    if world::with(|world| world.folders.output && !world.files_failed) {
        world::violated(|| format!("the decided day of {job} is lost"));
    }
}

/// The jobs that have files in a day's folder; an error for a file that no job writes.
fn jobs_in<'a>(
    world: &World,
    objects: impl Iterator<Item = &'a Object>,
) -> Result<BTreeMap<JobId, Files>, String> {
    let mut jobs = BTreeMap::<JobId, Files>::new();
    for object in objects.filter(|object| !is_old(object)) {
        let job = job_of(world, &object.key).ok_or_else(|| format!("{} is not a part file", object.key))?;
        let (rows, total) =
            dataset::decode(&object.bytes).ok_or_else(|| format!("{} is not readable", object.key))?;
        let files = jobs.entry(job).or_default();
        files.rows.extend(rows);
        files.totals.insert(total);
    }
    Ok(jobs)
}

/// Compares a job's files with the truth.
fn is_whole(world: &World, job: &JobId, files: &Files) -> bool {
    let mut rows = files.rows.clone();
    rows.sort_unstable();
    let truth = world.days.get(job).map(|day| day.truth()).unwrap_or_default();
    rows == truth && files.totals == BTreeSet::from([truth.len() as u64])
}

/// A day that loses files must still be whole: the old one, or that of a job.
pub fn after_request() {
    let wrong = world::with(|world| {
        if !std::mem::take(&mut world.store.removed_output) {
            return None;
        }
        let dates: BTreeSet<String> = world.days.values().map(|day| day.date.clone()).collect();
        dates.into_iter().find_map(|date| {
            let folder = Path::from(format!("{OUTPUT}/{}", dataset::folder(&date)));
            if world.store.below(&folder).any(is_old) {
                return None;
            }
            match jobs_in(world, world.store.below(&folder)) {
                Ok(jobs) if jobs.iter().any(|(job, files)| is_whole(world, job, files)) => None,
                Ok(jobs) => Some(format!("{date} has parts of {:?} and no whole day", jobs.keys())),
                Err(error) => Some(error),
            }
        })
    });
    if let Some(wrong) = wrong {
        world::violated(|| wrong);
    }
}

impl Cluster {
    /// Whether queues are within their bounds.
    pub fn check_bounds(&self) {
        let (events, futures) = (world::with(|world| world.queued()), self.shared.tasks.len());
        let records: usize = self.coordinators.iter().flatten().map(|it| it.waiting_records()).sum();
        if events + futures + records > MAX_WAITING {
            world::violated(|| {
                format!("{events} events, {futures} futures and {records} journal records wait")
            });
        }
    }

    /// Whether all jobs have ended, as the leader knows and the journal says.
    pub fn is_quiet(&self) -> bool {
        let clients = self.clients.iter().all(|client| client.is_done());
        // Attempts that still run do not belong to a job: `verify_workers` says so if they are not stopped.
        let attempts =
            self.workers.iter().flatten().map(|worker| worker.host.running().count()).sum::<usize>();
        let Some(leader) = self.leader().filter(|_| clients && self.shared.tasks.len() == attempts) else {
            return false;
        };
        let Some(coordinator) = &self.coordinators[leader] else { return false };
        world::with(|world| world.ops.under_way()) == 0
            && world::with(|world| world.fibers.len()) == 0
            && coordinator.waiting_records() == 0
            && coordinator.log().is_some_and(|log| log.state().live().is_empty())
    }

    /// What the schedule waits for.
    pub fn pending(&self) -> String {
        let requests = world::with(|world| world.ops.under_way());
        let mut pending = vec![format!("{} futures and {requests} requests run", self.shared.tasks.len())];
        let clients = self.clients.iter().enumerate().filter(|(_, client)| !client.is_done());
        pending.extend(clients.map(|(number, client)| format!("client {number} waits for {:?}", client.job)));
        for coordinator in self.coordinators.iter().flatten() {
            let role = match &coordinator.role {
                Role::Standby => "stands by".into(),
                Role::Claiming => "claims".into(),
                Role::Leading(term) => format!("leads in epoch {}", term.epoch),
            };
            let live: Vec<String> = coordinator.log().map_or_else(Vec::new, |log| {
                let jobs = log.state().live().into_iter().filter_map(|job| job.submitted.as_ref());
                jobs.map(|job| job.job.clone()).collect()
            });
            let owner = coordinator.owner.process;
            pending.push(format!("coordinator {owner} {role}, with the live jobs {live:?}"));
        }
        pending.join("; ")
    }

    /// The checks at the end.
    pub fn check_end(&self) {
        if let Err(wrong) = self.verify() {
            world::violated(|| wrong);
        }
    }

    fn verify(&self) -> Result<(), String> {
        let log = self.leader().and_then(|leader| self.coordinators[leader].as_ref()?.log());
        let log = log.ok_or("no coordinator leads at the end")?;
        let history: Vec<&JobStatus> = log.state().history().collect();
        self.verify_clients(&history)?;
        self.verify_outcomes(&history)?;
        self.verify_days(&history)?;
        self.verify_store()
    }

    /// No accepted job is lost, and clients were told what the journal says.
    fn verify_clients(&self, history: &[&JobStatus]) -> Result<(), String> {
        for (number, client) in self.clients.iter().enumerate() {
            let Some(job) = &client.job else { continue };
            let ended = history.iter().filter(|status| status.job == job.as_str()).collect::<Vec<_>>();
            let [status] = ended[..] else {
                return Err(format!("{job}, accepted for client {number}, has {} ends", ended.len()));
            };
            if client.promised && status.state() != JobState::Cancelled {
                return Err(format!(
                    "client {number} was told that {job} is cancelled: it ended as {status:?}"
                ));
            }
            if status.state() == JobState::Cancelled && !self.was_cancelled_after(client.submitted_at, job) {
                return Err(format!("{job} was given to client {number} after it was cancelled"));
            }
            if client.told.is_some_and(|told| told != status.state()) {
                return Err(format!(
                    "client {number} was told {:?} of {job}, which ended as {status:?}",
                    client.told
                ));
            }
        }
        Ok(())
    }

    /// Whether a client asked at that time or later to cancel a job.
    fn was_cancelled_after(&self, time: Micros, job: &JobId) -> bool {
        let asked = |client: &Client| client.cancelled && client.cancelled_at >= time;
        self.clients.iter().any(|client| asked(client) && client.job.as_ref() == Some(job))
    }

    /// Jobs fail and are cancelled only for a reason.
    fn verify_outcomes(&self, history: &[&JobStatus]) -> Result<(), String> {
        let may_fail = MAY_FAIL.iter().any(|kind| self.scenario.kinds.has(*kind));
        let cancelled =
            self.clients.iter().filter(|client| client.cancelled).filter_map(|it| it.job.as_ref());
        let cancelled: BTreeSet<&str> = cancelled.map(JobId::as_str).collect();
        for status in history {
            let fine = match status.state() {
                JobState::Done => true,
                JobState::Failed => may_fail,
                JobState::Cancelled => cancelled.contains(status.job.as_str()),
                _ => false,
            };
            if !fine {
                return Err(format!(
                    "{} ended as {:?} without a reason: {}",
                    status.job,
                    status.state(),
                    status.reason
                ));
            }
        }
        Ok(())
    }

    /// Each day is that of the last job that is done, or the old day.
    fn verify_days(&self, history: &[&JobStatus]) -> Result<(), String> {
        let dates: BTreeSet<&str> = self.clients.iter().map(|client| client.plan.day.date.as_str()).collect();
        for date in dates {
            let of_day = |status: &&&JobStatus| status.job.starts_with(date);
            let ended: Vec<&JobStatus> = history.iter().filter(of_day).copied().collect();
            let last = ended.iter().rposition(|status| status.state() == JobState::Done);
            // A publish that was decided and then failed is carried out by the collection of garbage. Reasons say so.
            let says = ["decided", "completed later", "the new day is visible"];
            let decided = |status: &&&JobStatus| says.iter().any(|it| status.reason.contains(it));
            let later = ended[last.map_or(0, |last| last + 1)..].iter().filter(decided);
            let mut allowed = BTreeSet::from([last.map(|last| ended[last].job.as_str())]);
            allowed.extend(later.map(|status| Some(status.job.as_str())));
            world::with(|world| {
                let files = objects(world, date);
                let old = files.iter().filter(|object| is_old(object)).count();
                let jobs = jobs_in(world, files.iter())?;
                let found = match (old, jobs.len()) {
                    (1, 0) => None,
                    (0, 0) if world.folders.output && !world.folders.has_old_days => None,
                    (0, 1) => jobs.keys().next().map(JobId::as_str),
                    _ => return Err(format!("{date} has files of {:?} and {old} old ones", jobs.keys())),
                };
                if !allowed.contains(&found) {
                    return Err(format!("{date} is that of {found:?} instead of {allowed:?}"));
                }
                match jobs.iter().find(|(job, files)| !is_whole(world, job, files)) {
                    Some((job, files)) => Err(format!("{date} of {job} has the rows {:?}", files.rows)),
                    None => Ok(()),
                }
            })?;
        }
        Ok(())
    }

    /// Nothing is left of ended jobs in the store.
    fn verify_store(&self) -> Result<(), String> {
        if let Some(failed) = self.swept.as_ref().filter(|failed| !failed.is_empty()) {
            return Err(format!("the collection of garbage failed: {failed:?}"));
        }
        world::with(|world| {
            if let Some((id, upload)) = world.store.uploads().iter().next() {
                return Err(format!("the upload {id} of {} is left open", upload.key));
            }
            if let Some(folder) = staging_folders(world).first() {
                return Err(format!("{} is left", folder.display()));
            }
            match staged(world).first() {
                Some(object) => Err(format!("{} is left", object.key)),
                None => Ok(()),
            }
        })
    }

    /// Whether a job staged something at that time or later, and the collection of garbage reported no error.
    pub fn staged_since(&self, since: Micros) -> bool {
        let fine = self.swept.as_ref().is_some_and(Vec::is_empty);
        fine && world::with(|world| {
            let changed = |folder: &PathBuf| world.files.find(folder).is_ok_and(|it| it.changed >= since);
            if staging_folders(world).iter().any(changed) {
                return true;
            }
            let uploads = world.store.uploads().values();
            staged(world)
                .iter()
                .map(|object| object.written)
                .chain(uploads.map(|it| it.begun))
                .any(|at| at >= since)
        })
    }

    /// No worker runs or holds anything of an ended job.
    ///
    /// # Errors
    /// What a worker has.
    pub fn verify_workers(&self) -> Result<(), String> {
        for worker in self.workers.iter().flatten() {
            if let Some(attempt) = worker.host.running().next() {
                return Err(format!("worker {} still runs {attempt}", worker.owner.process));
            }
            let held = world::with(|world| {
                let outputs = &world.processes[worker.owner.process].outputs;
                outputs.jobs().next().cloned()
            });
            if let Some(job) = held {
                return Err(format!("worker {} still holds {job}", worker.owner.process));
            }
        }
        Ok(())
    }
}
