//! A simulated environment with faults: workers that join, drain, die and become silent; attempts that end in all ways;
//! reports that are late, duplicated, reordered or lost. All events and commands are logged, and `check` verifies the rules
//! after every step.

mod check;
mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::test_runner::TestCaseError;
use tally_proto::ids::{AttemptId, JobId, StageId, TaskId, WorkerId};
use tally_scheduler::{
    Command, Config, Event, JobShape, Millis, Outcome, Scheduler, Speculation, StageShape, TaskPlan, Warning,
};

pub const WORKER_TIMEOUT: u64 = 1000;

/// One action. The numbers choose among the existing workers, jobs and attempts.
#[derive(Debug, Clone)]
pub enum Action {
    Submit(u8),
    Cancel(u8),
    Join(u8),
    /// The worker dies, and a report of that is on its way.
    Die(u8),
    /// The worker hangs or is cut off: it sends no further reports.
    Vanish(u8),
    Drain(u8),
    /// An attempt ends, the second number says how.
    End(u8, u8),
    /// A report arrives; any of those on their way.
    Deliver(u8),
    Duplicate(u8),
    /// A report is lost for good; so is its worker.
    Lose(u8),
    /// An output is migrated.
    Move(u8, u8),
    /// A task message does not arrive: the worker's stream is broken.
    Miss(u8),
    /// The worker of such a message attaches again: the message is sent again, or the attempt is returned.
    Resume(u8),
    /// The coordinator dies, and another one takes over.
    Restart,
    Advance(u16),
}

#[derive(Debug)]
pub struct SimWorker {
    id: WorkerId,
    /// Whether it runs and reports.
    well: bool,
    slots: u32,
    running: BTreeSet<AttemptId>,
    /// Outputs of attempts that succeeded there, and outputs that were migrated there.
    held: BTreeSet<AttemptId>,
}

/// The expected state of a worker.
#[derive(Debug)]
pub struct Believed {
    slots: u32,
    draining: bool,
    last_seen: u64,
    busy: BTreeSet<AttemptId>,
}

#[derive(Debug, Default)]
pub struct SimJob {
    reads: Vec<Vec<StageId>>,
    /// The tasks of planned stages, as in a coordinator's journal.
    plans: BTreeMap<StageId, Vec<TaskPlan>>,
    finished: Vec<Outcome>,
    released: u32,
    publishing: bool,
}

impl SimJob {
    /// Whether no other stage reads that one's outputs.
    fn is_result(&self, stage: StageId) -> bool {
        !self.reads.iter().flatten().any(|read| *read == stage)
    }
}

/// Counters, to show that the faults happened.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub done: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub reruns: u64,
    pub speculative_attempts: u64,
    pub timed_out: u64,
    pub warnings: u64,
    pub restarts: u64,
    pub adopted: u64,
    /// Task messages that were sent again, and those that could not be.
    pub resent: u64,
    pub given_back: u64,
    pub steps: u64,
}

pub struct World {
    scheduler: Scheduler,
    now: u64,
    dice: u64,
    log: Vec<String>,
    workers: Vec<SimWorker>,
    believed: BTreeMap<WorkerId, Believed>,
    lost: BTreeSet<WorkerId>,
    jobs: BTreeMap<JobId, SimJob>,
    /// Jobs that ended before the last change of coordinators.
    past: BTreeMap<JobId, SimJob>,
    mail: Vec<Event>,
    started: BTreeSet<AttemptId>,
    /// The inputs of each attempt of this coordinator at its start.
    reads: BTreeMap<AttemptId, Vec<Read>>,
    /// Task messages that did not arrive, with their workers.
    missed: Vec<(WorkerId, AttemptId)>,
    /// Attempts that run for a task: not ended, stopped or lost.
    wanted: BTreeSet<AttemptId>,
    succeeded: BTreeSet<AttemptId>,
    epoch: u32,
    /// The last attempt that won each task.
    winners: BTreeMap<TaskId, u32>,
    /// The outputs after the last step.
    present: BTreeMap<TaskId, u32>,
    pub tally: Tally,
}

/// An input: its stage and number, the worker that holds it, and the attempt that made it.
pub type Read = (StageId, u32, WorkerId, u32);

pub type Checked = Result<(), TestCaseError>;

fn config(first_attempt: u32) -> Config {
    let rule = Speculation { quantile: 0.5, multiplier: 1.5, minimum: Duration::from_millis(100) };
    Config {
        max_attempts: 3,
        first_attempt,
        retry_backoff: Duration::from_millis(50),
        retry_backoff_max: Duration::from_millis(200),
        max_excused: 3,
        max_output_losses: 3,
        max_holder_losses: 2,
        worker_timeout: Some(Duration::from_millis(WORKER_TIMEOUT)),
        no_workers_timeout: Duration::from_millis(5000),
        speculation: Some(rule),
    }
}

/// The worker that reported an event, if a worker did.
fn reporter(event: &Event) -> Option<&WorkerId> {
    match event {
        Event::WorkerDraining { worker }
        | Event::Heartbeat { worker }
        | Event::AttemptEnded { worker, .. }
        | Event::WorkerJoined { worker, .. } => Some(worker),
        _ => None,
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            scheduler: Scheduler::new(config(0)).expect("valid options"),
            now: 0,
            dice: seed | 1,
            log: Vec::new(),
            workers: Vec::new(),
            believed: BTreeMap::new(),
            lost: BTreeSet::new(),
            jobs: BTreeMap::new(),
            past: BTreeMap::new(),
            mail: Vec::new(),
            started: BTreeSet::new(),
            reads: BTreeMap::new(),
            missed: Vec::new(),
            wanted: BTreeSet::new(),
            succeeded: BTreeSet::new(),
            epoch: 0,
            winners: BTreeMap::new(),
            present: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// A number below `sides`; the same for the same seed and actions.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % sides
    }

    pub fn act(&mut self, action: &Action) -> Checked {
        match *action {
            Action::Submit(shape) => self.submit(shape),
            Action::Cancel(n) => self.cancel(n),
            Action::Join(slots) => self.join(u32::from(slots % 4)),
            Action::Die(n) => {
                if let Some(at) = self.choose_worker(n) {
                    let worker = self.fall(at);
                    self.mail.push(Event::WorkerLost { worker });
                }
                Ok(())
            }
            Action::Vanish(n) => {
                if let Some(at) = self.choose_worker(n) {
                    self.fall(at);
                }
                Ok(())
            }
            Action::Drain(n) => {
                if let Some(at) = self.choose_worker(n) {
                    let worker = self.workers[at].id.clone();
                    self.mail.push(Event::WorkerDraining { worker });
                }
                Ok(())
            }
            Action::End(n, how) => {
                self.end_one(n, how);
                Ok(())
            }
            Action::Deliver(n) => self.deliver(n),
            Action::Duplicate(n) => {
                if let Some(at) = choose(self.mail.len(), n) {
                    let copy = self.mail[at].clone();
                    self.mail.push(copy);
                }
                Ok(())
            }
            Action::Lose(n) => {
                self.lose(n);
                Ok(())
            }
            Action::Move(n, to) => {
                self.migrate(n, to);
                Ok(())
            }
            Action::Miss(n) => {
                self.miss(n);
                Ok(())
            }
            Action::Resume(n) => self.dispatch_again(n),
            Action::Restart => self.restart(),
            Action::Advance(by) => self.advance(u64::from(by % 400)),
        }
    }

    /// Without further faults, reports arrive, attempts succeed, and two healthy workers join. Every job must end within a
    /// bounded number of rounds.
    pub fn settle(&mut self) -> Checked {
        self.join(2)?;
        self.join(2)?;
        for _ in 0..200 {
            while !self.missed.is_empty() {
                self.dispatch_again(0)?;
            }
            while !self.mail.is_empty() {
                self.deliver(0)?;
            }
            if self.jobs.values().all(|job| job.released > 0) && self.wanted.is_empty() {
                return self.all_is_over();
            }
            for at in 0..self.workers.len() {
                if self.workers[at].well {
                    let worker = self.workers[at].id.clone();
                    let ended = std::mem::take(&mut self.workers[at].running);
                    self.workers[at].held.extend(ended.iter().cloned());
                    let report =
                        |attempt| Event::AttemptEnded { worker: worker.clone(), attempt, outcome: Ok(()) };
                    self.mail.extend(ended.into_iter().map(report));
                }
            }
            self.advance(300)?;
        }
        self.wrong("a job does not end though faults have stopped")
    }

    fn all_is_over(&mut self) -> Checked {
        for (id, job) in self.jobs.iter().chain(&self.past) {
            match job.finished.as_slice() {
                [Outcome::Done] => self.tally.done += 1,
                [Outcome::Failed { .. }] => self.tally.failed += 1,
                [Outcome::Cancelled] => self.tally.cancelled += 1,
                other => return Err(TestCaseError::fail(format!("job {id} ended as {other:?}"))),
            }
            let stages = self.scheduler.status(id).map(|status| status.stages).unwrap_or_default();
            self.tally.reruns += stages.iter().map(|stage| stage.reruns).sum::<u64>();
            self.tally.speculative_attempts +=
                stages.iter().map(|stage| stage.speculative_attempts).sum::<u64>();
        }
        Ok(())
    }

    fn submit(&mut self, shape: u8) -> Checked {
        let job = JobId::parse(&format!("job{}", self.jobs.len() + self.past.len())).expect("a job id");
        let reads = |list: &[u32]| StageShape { reads: list.iter().copied().map(StageId).collect() };
        let stages = match shape % 4 {
            0 => vec![reads(&[])],
            1 => vec![reads(&[]), reads(&[0])],
            2 => vec![reads(&[]), reads(&[0]), reads(&[1])],
            _ => vec![reads(&[]), reads(&[]), reads(&[0, 1]), reads(&[0]), reads(&[2])],
        };
        let reads = stages.iter().map(|stage| stage.reads.clone()).collect();
        self.jobs.insert(job.clone(), SimJob { reads, ..SimJob::default() });
        let shape = JobShape::new(stages).expect("a shape");
        self.tell(Event::JobSubmitted { job, shape })
    }

    fn cancel(&mut self, n: u8) -> Checked {
        match choose(self.jobs.len(), n).and_then(|at| self.jobs.keys().nth(at)).cloned() {
            Some(job) => self.tell(Event::JobCancelled { job }),
            None => Ok(()),
        }
    }

    fn join(&mut self, slots: u32) -> Checked {
        let worker = WorkerId::parse(&format!("w{}", self.workers.len())).expect("a worker id");
        let (running, held) = (BTreeSet::new(), BTreeSet::new());
        self.workers.push(SimWorker { id: worker.clone(), well: true, slots, running, held });
        self.tell(Event::WorkerJoined { worker, slots, draining: false })
    }

    fn choose_worker(&self, n: u8) -> Option<usize> {
        let well: Vec<_> = (0..self.workers.len()).filter(|at| self.workers[*at].well).collect();
        choose(well.len(), n).map(|at| well[at])
    }

    fn deliver(&mut self, n: u8) -> Checked {
        match choose(self.mail.len(), n) {
            Some(at) => {
                let event = self.mail.remove(at);
                self.tell(event)
            }
            None => Ok(()),
        }
    }

    /// Time passes; healthy workers send heartbeats.
    fn advance(&mut self, by: u64) -> Checked {
        self.now += by;
        let well: Vec<_> = self.workers.iter().filter(|worker| worker.well).map(|w| w.id.clone()).collect();
        for worker in well {
            self.tell(Event::Heartbeat { worker })?;
        }
        self.tell(Event::Tick)?;
        self.tick_again()
    }

    /// Carries out a command.
    fn carry_out(&mut self, command: &Command) {
        match command {
            Command::Start { worker, attempt } => {
                let known = self.workers.iter_mut().find(|known| known.id == *worker && known.well);
                if let Some(worker) = known {
                    worker.running.insert(attempt.clone());
                }
            }
            Command::PlanStage { job, stage } => {
                let (job, stage) = (job.clone(), *stage);
                if let Some(tasks) = self.jobs[&job].plans.get(&stage).cloned() {
                    return self.mail.push(Event::StagePlanned { job, stage, tasks, found: vec![] });
                }
                let tasks = self.roll(7);
                let answer = if self.roll(50) == 0 {
                    Event::StagePlanFailed { job, stage, reason: "no files".into() }
                } else {
                    let task = |world: &mut Self| TaskPlan {
                        weight: world.roll(9),
                        preferred: choose(world.workers.len(), world.now as u8)
                            .map(|at| world.workers[at].id.clone())
                            .filter(|_| world.roll(2) == 0),
                        affinity: (world.roll(3) > 0).then(|| world.roll(3) as u32),
                    };
                    let tasks: Vec<_> = (0..tasks).map(|_| task(self)).collect();
                    if let Some(known) = self.jobs.get_mut(&job) {
                        known.plans.insert(stage, tasks.clone());
                    }
                    Event::StagePlanned { job, stage, tasks, found: vec![] }
                };
                self.mail.push(answer);
            }
            Command::Publish { job } => {
                let job = job.clone();
                let last = StageId(self.jobs[&job].reads.len() as u32 - 1);
                let answer = match self.roll(10) {
                    1 => {
                        Event::Incompatible { job, stage: last, indices: vec![0, 2], reason: "order".into() }
                    }
                    0 => Event::PublishFailed { job, reason: "a newer epoch".into() },
                    _ => Event::Published { job },
                };
                self.mail.push(answer);
            }
            // An attempt that was asked to stop ends later, by `Action::End`.
            Command::Stop { .. }
            | Command::FinishJob { .. }
            | Command::ReleaseJob { .. }
            | Command::Warn { .. } => {}
        }
    }

    fn tell(&mut self, mut event: Event) -> Checked {
        // A driver updates inventories with every report, so it adds the found tasks of this moment to the plan, not those at
        // the time of the command.
        if let Event::StagePlanned { job, stage, found, .. } = &mut event {
            *found = self.inventory(job, *stage);
        }
        if let Event::Incompatible { job, .. } = &event
            && let Some(known) = self.jobs.get_mut(job)
        {
            known.publishing = false;
        }
        self.tally.steps += 1;
        let commands = self.scheduler.step(Millis(self.now), event.clone());
        self.log.push(format!("{} {event:?}\n    -> {commands:?}", self.now));
        let unasked = |c: &Command| matches!(c, Command::Warn { warning: Warning::UnaskedPlan { .. } });
        if !commands.iter().any(unasked) {
            self.believe(&event);
        }
        for command in &commands {
            self.check_command(command)?;
            self.carry_out(command);
        }
        self.check_state()
    }

    /// Reports a violated rule, with the log.
    fn wrong<T>(&self, what: &str) -> Result<T, TestCaseError> {
        Err(TestCaseError::fail(format!("{}\n{what}", self.log.join("\n"))))
    }
}

fn choose(len: usize, n: u8) -> Option<usize> {
    (len > 0).then(|| usize::from(n) % len)
}
