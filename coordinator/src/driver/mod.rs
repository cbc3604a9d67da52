//! The loop that owns the scheduler's state: everything that happens comes in as one event after
//! another, and the commands that follow are carried out here.
//!
//! Long work (planning, journal, publishing) is spawned and comes back as an event. `submit` has
//! what begins and ends jobs, `plan` and `publish` the work between, `members` what workers say,
//! `uploads` what a write attempt in a store needs first, `drain` those that want to go, `load`
//! shows how much there is to do, `resume` what an earlier leader left. Not here: what a command
//! means for a job's data (`run`, `orders`), which task runs where (`tally-scheduler`).

mod drain;
mod load;
mod members;
mod orders;
mod plan;
mod publish;
mod resume;
mod run;
mod submit;
mod uploads;
mod verify;
mod view;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_proto::{AttemptId, Failure, JobId, WorkerId, v1};
use tally_scheduler::{Command, Config, ConfigError, Event, Millis, Scheduler};
use tally_worker::runner::Report;
use tally_worker::scan::footer::Footers;
use tokio::sync::{Notify, mpsc};

use crate::cluster::WorkerInput;
use crate::fleet::Fleet;
use crate::history::Registry;
use crate::job::STAGES;
use crate::journal::Journal;
use crate::load::Counts;
use crate::memory::PeakMeter;
use drain::Drains;
pub use plan::Planned;
pub use publish::Staged;
pub use resume::{Resumed, show_history};
use run::JobRun;
pub use submit::{Accepted, Ended, Refusal, Submit};
pub use view::JobView;
pub use writer::Then;
use writer::Writer;

/// Events that may wait for the loop.
const QUEUE: usize = 1024;
/// How often views of jobs are brought up to date: as soon as anybody who looks could see.
const SHOW: Duration = Duration::from_millis(20);

/// What happens to the driver.
pub enum Input {
    /// A job to run.
    Submit(Box<Submit>),
    /// A job to be stopped.
    Cancel(JobId),
    /// A worker in this process, with so many slots.
    Joined(WorkerId, u32),
    /// The end of an attempt in this process.
    Report(Box<Report>),
    /// A worker in another process.
    Worker(Box<WorkerInput>),
    /// A job's inputs were looked at.
    Planned(JobId, Result<Box<Planned>, String>),
    /// A job's part files lie ready, or not.
    Staged(JobId, Result<Box<Staged>, String>),
    /// A job's day was published, or not.
    Published(JobId, Result<(), String>),
    /// The upload of a write attempt began, or not.
    Begun(AttemptId, Result<v1::Upload, String>),
    /// What an ended job staged is gone.
    Discarded(JobId),
    /// A record is durable: what waited for it may follow.
    Written(Then),
    /// Workers had time to say what they hold: jobs of earlier epochs go on.
    Settled,
    /// What an earlier leader committed is published, or has to be made again.
    Recovered(JobId, Result<Option<()>, String>),
    /// This process leads no more.
    Stop(End),
}

/// Why a driver ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was asked to.
    Asked,
    /// Another coordinator leads, as this says.
    Deposed(String),
    /// Nothing can be written down.
    Journal(String),
}

/// What a driver is made of.
pub struct Parts {
    /// The scheduler's options.
    pub config: Config,
    /// The workers.
    pub fleet: Box<dyn Fleet>,
    /// Where decisions are written down.
    pub journal: Box<dyn Journal>,
    /// Footers of inputs.
    pub footers: Arc<Footers>,
    /// How jobs stand, for those who ask.
    pub registry: Arc<Registry>,
    /// The term.
    pub epoch: u64,
    /// Told when somebody speaks of a later term: the journal is to be looked at.
    pub doubt: Arc<Notify>,
    /// Jobs at a time.
    pub most_jobs: usize,
    /// How often memory is looked at, and those that drain.
    pub sample: Duration,
}

/// The driver: see the module's head.
pub struct Driver {
    scheduler: Scheduler,
    fleet: Box<dyn Fleet>,
    footers: Arc<Footers>,
    registry: Arc<Registry>,
    writer: Writer,
    epoch: u64,
    doubt: Arc<Notify>,
    most_jobs: usize,
    sample: Duration,
    jobs: BTreeMap<JobId, JobRun>,
    /// Jobs that are over, but not yet on record as such.
    ending: BTreeMap<JobId, submit::Ending>,
    /// Jobs that the scheduler is to forget as soon as it can.
    forgettable: Vec<JobId>,
    /// Write attempts that wait for their upload to begin, and who is to run them.
    beginning: BTreeMap<AttemptId, WorkerId>,
    drains: Drains,
    inbox: mpsc::Receiver<Input>,
    sender: mpsc::Sender<Input>,
    started: Instant,
    memory: PeakMeter,
    counts: Counts,
    end: Option<End>,
}

/// The way to talk to a driver.
#[derive(Clone)]
pub struct Handle {
    sender: mpsc::Sender<Input>,
}

impl Handle {
    /// Where events go.
    pub fn sender(&self) -> &mpsc::Sender<Input> {
        &self.sender
    }
}

/// A driver's inbox, made before its fleet, which needs somewhere to report to.
pub struct Inbox {
    receiver: mpsc::Receiver<Input>,
}

/// A way to talk to a driver that is about to be made.
pub fn inbox() -> (Handle, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Handle { sender }, Inbox { receiver })
}

impl Driver {
    /// A driver without jobs.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(parts: Parts, handle: &Handle, inbox: Inbox) -> Result<Self, ConfigError> {
        let sender = handle.sender.clone();
        Ok(Driver {
            scheduler: Scheduler::new(parts.config)?,
            fleet: parts.fleet,
            footers: parts.footers,
            registry: parts.registry,
            writer: Writer::start(parts.journal, sender.clone()),
            epoch: parts.epoch,
            doubt: parts.doubt,
            most_jobs: parts.most_jobs,
            sample: parts.sample,
            jobs: BTreeMap::new(),
            ending: BTreeMap::new(),
            forgettable: vec![],
            beginning: BTreeMap::new(),
            drains: Drains::default(),
            inbox: inbox.receiver,
            sender,
            started: Instant::now(),
            memory: PeakMeter::default(),
            counts: Counts::new(&STAGES),
            end: None,
        })
    }

    /// Runs until `until` says that it is enough, or it must not go on. What is staged of jobs that
    /// are not over stays for who goes on with them.
    pub async fn run(mut self, until: impl Future<Output = ()>) -> End {
        tokio::pin!(until);
        let mut sample = tokio::time::interval(self.sample);
        let mut show = tokio::time::interval(SHOW);
        for interval in [&mut sample, &mut show] {
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        let end = loop {
            let now = self.now();
            let wait = self.scheduler.next_wakeup().map(|at| at.since(now));
            tokio::select! {
                input = self.inbox.recv() => match input {
                    Some(input) => self.take(input),
                    None => break End::Asked,
                },
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)), if wait.is_some() => {
                    self.step(Event::Tick);
                }
                _ = sample.tick() => self.look(),
                _ = show.tick(), if !self.jobs.is_empty() => self.show(),
                () = &mut until => break End::Asked,
            }
            if let Some(end) = self.end.take() {
                break end;
            }
        };
        let deposed = matches!(end, End::Deposed(_));
        self.jobs.into_values().for_each(|run| run.leave(deposed));
        end
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// What is done now and then.
    fn look(&mut self) {
        self.memory.sample();
        self.show_load();
        self.forgettable.retain(|job| self.scheduler.status(job).is_some() && !self.scheduler.forget(job));
        self.drain();
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Submit(submit) => self.submit(*submit),
            Input::Cancel(job) => self.cancel(&job),
            Input::Joined(worker, slots) => self.step(Event::WorkerJoined { worker, slots, draining: false }),
            Input::Report(report) => {
                let Report { worker, attempt, outcome } = *report;
                self.report(worker, attempt, outcome);
            }
            Input::Worker(input) => self.worker(*input),
            Input::Planned(job, planned) => self.planned(job, planned),
            Input::Staged(job, staged) => self.staged(job, staged),
            Input::Published(job, result) => self.published(job, result),
            Input::Written(then) => self.written(then),
            Input::Begun(attempt, upload) => self.begun(attempt, upload),
            Input::Discarded(job) => self.discarded(&job),
            Input::Settled => self.settled(),
            Input::Recovered(job, result) => self.recovered(&job, result),
            Input::Stop(end) => self.end = Some(end),
        }
    }

    /// An attempt that was ordered there is over.
    fn report(&mut self, worker: WorkerId, attempt: AttemptId, outcome: Result<v1::TaskResult, Failure>) {
        if let Err(failure) = &outcome
            && *failure != Failure::Cancelled
        {
            tracing::warn!(%attempt, %worker, %failure, "a task attempt failed");
        }
        self.count_attempt(&attempt, &outcome);
        let run = self.jobs.get_mut(&attempt.task.job);
        let outcome = outcome.and_then(|result| run.map_or(Ok(()), |run| run.results.keep(&attempt, result)));
        if let Err(Failure::Fatal { reason }) = &outcome {
            tracing::error!(%attempt, %worker, reason, "an attempt ends its job");
        }
        self.step(Event::AttemptEnded { worker, attempt, outcome });
    }

    /// Tells the scheduler, and carries out what follows. One event after another: commands are carried out
    /// before anything changes the state that they were decided on, and what can be answered at once waits
    /// for its turn.
    fn step(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if let Event::WorkerLost { worker } = &event {
                self.forget_worker(worker);
            }
            for command in self.scheduler.step(self.now(), event) {
                events.extend(self.carry_out(command));
            }
        }
    }

    fn carry_out(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::PlanStage { job, stage } => self.plan_stage(job, stage),
            Command::Start { worker, attempt } => self.start(worker, attempt),
            Command::Stop { worker, attempt } => {
                if self.beginning.remove(&attempt).is_some() {
                    return Some(Event::AttemptEnded { worker, attempt, outcome: Err(Failure::Cancelled) });
                }
                self.fleet.stop(&worker, &attempt);
                None
            }
            Command::Publish { job } => self.publish(job),
            Command::FinishJob { job, outcome } => {
                self.finish(&job, outcome);
                None
            }
            Command::ReleaseJob { job } => {
                self.fleet.release(&job);
                self.beginning.retain(|attempt, _| attempt.task.job != job);
                self.jobs.remove(&job);
                None
            }
            Command::Warn { warning } => {
                tracing::warn!(%warning, "an event was ignored");
                None
            }
        }
    }

    /// Sends an attempt's order, for the first time or again. If its inputs are no longer those that the
    /// scheduler started it on, or the attempt is no longer wanted, it is returned to the scheduler.
    fn start(&mut self, worker: WorkerId, attempt: AttemptId) -> Option<Event> {
        let Some(inputs) = self.scheduler.inputs_of(&attempt) else {
            tracing::info!(%attempt, %worker, "given back: what it was to read is no longer there");
            return Some(Event::NotStarted { worker, attempt });
        };
        if self.needs_upload(&attempt) {
            self.begin_upload(worker, attempt);
            return None;
        }
        let run = self.jobs.get_mut(&attempt.task.job)?;
        let order = run.order(&self.scheduler, &attempt, inputs, |worker| self.fleet.address(worker));
        let order = match order {
            Ok(order) => order,
            Err(reason) => {
                tracing::warn!(%attempt, %worker, reason, "an order could not be made");
                let outcome = Err(Failure::Retryable { reason });
                return Some(Event::AttemptEnded { worker, attempt, outcome });
            }
        };
        let reason = self.fleet.start(&worker, &attempt, order).err()?;
        tracing::warn!(%attempt, %worker, reason, "an order could not be sent: the worker counts as lost");
        Some(Event::WorkerLost { worker })
    }
}
