//! The driver: a state machine around the scheduler. [`Driver::step`] takes one input at a time and returns what has to be
//! done: records for the journal, I/O of jobs. The scheduler's commands are carried out here.
//!
//! The driver does no I/O and reads no clock. The journal and long work (planning, publishing) are outputs that come back
//! as inputs; `shell` runs all this on tokio. Answers to clients and messages to workers go straight into their bounded
//! channels, which never wait.
//! The state is grouped: `workers` (with `drain`), `live_jobs` of `job_run`s, `outputs`, `metrics`, `timers`. The steps that
//! need several groups are in `submit` (begin and end of jobs), `planning`, `attempts`, `publishing`, `members` (reports of
//! workers) and `resume` (jobs of earlier leaders). Not here: which task runs where (`tally-scheduler`).

mod answers;
mod attempts;
pub(crate) mod describe;
mod drain;
mod job_events;
mod job_run;
mod live_jobs;
mod members;
mod metrics;
mod numbering;
mod output;
mod planning;
mod publish_check;
mod publishing;
mod resume;
mod shell;
mod submit;
mod timers;
mod work;
mod workers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_proto::report::Report;
use tally_proto::{AttemptId, JobId, TaskId, WorkerId, v1};
use tally_scheduler::{Command, Config, ConfigError, Event, FoundTask, Millis, Scheduler};
use tokio::sync::oneshot;

use crate::attempt_log::AttemptPage;
use crate::cluster::{STALL, WorkerInput};
use crate::fleet::Fleet;
use crate::history::Registry;
use crate::journal::JournalError;
use crate::publish::Finished;
use crate::publish::staging::{Staging, StagingError};
pub use answers::{Accepted, Ended, Refusal, Submit};
pub use describe::recorded_detail;
use job_events::NoteTimes;
use live_jobs::LiveJobs;
pub use metrics::JobView;
use metrics::Metrics;
pub use numbering::first_attempt;
use output::Outputs;
pub use output::{AfterRecord, Output};
pub use publish_check::{CheckError, PublishCheck};
pub use resume::{Resumed, show_history};
pub use shell::{Handle, Inbox, Shell, ShellParts, inbox};
pub use timers::Intervals;
use timers::{EpochChecks, Timers};
pub use work::{Planned, PlanningError, StageError, Staged, UploadResult, Work};
use workers::Workers;

/// The time of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// The time since a fixed moment, see [`DriverParts::started`]. It never runs backwards.
    pub elapsed: Duration,
    /// The time in milliseconds since 1970, which may jump. It is only recorded and shown.
    pub unix_millis: u64,
}

/// An input of the driver.
pub enum DriverInput {
    /// A new job.
    Submit(Box<Submit>),
    /// A job to stop. The answer comes when the cancellation, or the job's end, is in the journal; at once if the job is
    /// unknown or is being published.
    Cancel(JobId, oneshot::Sender<()>),
    /// A client asks what a live job does; `None` if the job is not live.
    Describe(JobId, oneshot::Sender<Option<v1::JobDetail>>),
    /// A client asks for the events of a live job with larger numbers than the given one; `None` if the job is not live.
    Events(JobId, u64, oneshot::Sender<Option<v1::EventPage>>),
    /// A client asks for the ended attempts of a live job with larger numbers than the given one; `None` if the job is not
    /// live.
    Attempts(JobId, u64, oneshot::Sender<Option<AttemptPage>>),
    /// A worker in this process, with its number of slots.
    Joined(WorkerId, u32),
    /// The end of an attempt in this process.
    Report(Box<Report>),
    /// A report of a worker in another process.
    Worker(Box<WorkerInput>),
    /// The inputs of a job were planned, or not.
    Planned(JobId, Result<Box<Planned>, PlanningError>),
    /// The part files of a job are prepared, or not.
    Staged(JobId, Result<Box<Staged>, StageError>),
    /// The day of a job was published, or not.
    Published(JobId, Result<(), StagingError>),
    /// The upload of a write attempt began, or not.
    UploadBegun(AttemptId, UploadResult),
    /// The staged files of an ended job are removed.
    Discarded(JobId),
    /// A receiver of that name has the notice of a job's end.
    Notified(JobId, &'static str),
    /// A record is durable.
    Written(AfterRecord),
    /// The highest epoch that was claimed, if the journal could be read.
    HighestEpoch(Result<u64, JournalError>),
    /// Time passed: see [`Driver::next_wakeup`].
    Tick,
    /// The decision to publish of an earlier leader was carried out, or not.
    Recovered(JobId, Result<Finished, StagingError>),
    /// The term ends.
    Stop(TermEnd),
}

/// The reason for which a driver ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TermEnd {
    /// It was asked to.
    Asked,
    /// Another coordinator leads; the text names it.
    Deposed(String),
    /// The journal cannot be written.
    Journal(String),
}

/// What a driver is built from.
pub struct DriverParts {
    /// The scheduler's options.
    pub config: Config,
    /// The workers.
    pub fleet: Box<dyn Fleet>,
    /// Statuses of jobs, for clients.
    pub registry: Arc<Registry>,
    /// The term.
    pub epoch: u64,
    /// Jobs at a time.
    pub max_jobs: usize,
    /// The time without a message after which a worker is lost that has not attached yet. The watch of its stream
    /// reports the silence of an attached one.
    pub silence: Duration,
    /// The time from the end of a worker's stream until the worker is lost.
    pub grace: Duration,
    /// The time without a heartbeat after which an attached worker is shown as silent.
    pub silent_after: Duration,
    /// Intervals of what is done again and again.
    pub intervals: Intervals,
    /// The moment that [`Now::elapsed`] counts from.
    pub started: Instant,
    /// Reads the resident bytes of this process, now and at most so far: [`crate::peak_memory::resident`].
    pub resident: fn() -> (u64, u64),
}

/// The driver: see the module's head.
pub struct Driver {
    now: Now,
    scheduler: Scheduler,
    workers: Workers,
    jobs: LiveJobs,
    outputs: Outputs,
    metrics: Metrics,
    timers: Timers,
    note_times: NoteTimes,
    silent_after: Duration,
    epoch: u64,
    first_attempt: u32,
    silence: Duration,
    grace: Duration,
}

impl Driver {
    /// A driver without jobs.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(parts: DriverParts, now: Now) -> Result<Self, ConfigError> {
        let first_attempt = parts.config.first_attempt;
        Ok(Driver {
            now,
            scheduler: Scheduler::new(parts.config)?,
            workers: Workers::new(parts.fleet),
            jobs: LiveJobs::new(parts.max_jobs),
            outputs: Outputs::default(),
            metrics: Metrics::new(parts.registry, parts.started, parts.resident),
            timers: Timers::new(parts.intervals, now.elapsed),
            note_times: NoteTimes::default(),
            silent_after: parts.silent_after,
            epoch: parts.epoch,
            first_attempt,
            silence: parts.silence,
            grace: parts.grace,
        })
    }

    /// Takes an input; returns what has to be done, in this order.
    pub fn step(&mut self, now: Now, input: DriverInput) -> Vec<Output> {
        self.set_now(now);
        self.take(input);
        self.outputs.take()
    }

    /// The value of [`Now::elapsed`] at which the driver needs a [`DriverInput::Tick`] at the latest.
    pub fn next_wakeup(&self) -> Duration {
        let scheduler = self.scheduler.next_wakeup().map(|at| Duration::from_millis(at.0));
        let next = self.timers.next(self.jobs.len() > 0);
        scheduler.map_or(next, |at| at.min(next))
    }

    /// Ends the term. The staged files of live jobs stay for the next leader; `deposed`: another coordinator leads already.
    /// Returns what is to be dropped on a thread that may block, because that removes files.
    #[must_use]
    pub fn leave(self, deposed: bool) -> Vec<Staging> {
        self.jobs.leave(deposed)
    }

    fn set_now(&mut self, now: Now) {
        self.now = Now { elapsed: now.elapsed.max(self.now.elapsed), ..now };
    }

    fn millis(&self) -> Millis {
        Millis(u64::try_from(self.now.elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    fn tick(&mut self) {
        let now = self.now.elapsed;
        if self.scheduler.next_wakeup().is_some_and(|at| at <= self.millis()) {
            self.apply(Event::Tick);
        }
        if self.timers.settled.take_if(|at| *at <= now).is_some() {
            self.settled();
        }
        if self.timers.epochs.as_mut().is_some_and(|checks| checks.elapsed(now)) {
            self.outputs.check_epoch();
        }
        if let Some(late) = self.timers.sample.elapsed(now) {
            self.sample(late);
        }
        if self.jobs.len() > 0 && self.timers.show.elapsed(now).is_some() {
            self.show_jobs();
        }
    }

    /// What is done at every sample. A sample that is very late was not due to the workers.
    fn sample(&mut self, late: Duration) {
        if late > STALL
            && let Some(fleet) = self.workers.remote()
        {
            fleet.postpone(late);
        }
        self.lose_overdue();
        if let Some(fleet) = self.workers.remote() {
            fleet.send_releases();
        }
        self.metrics.memory.sample();
        self.workers.hear(self.now.elapsed);
        self.workers.show_waits(self.now.elapsed, self.silent_after, &mut self.jobs);
        self.record_notes();
        self.metrics.show_load(self.now, &mut self.jobs, &self.scheduler, &mut self.workers);
        self.jobs.forget_ended(&mut self.scheduler);
        self.workers.drain(self.now.elapsed, &self.scheduler, &self.jobs);
    }

    /// A worker reports a later epoch: the journal has to be checked.
    fn question_epoch(&mut self) {
        if self.timers.epochs.as_mut().is_some_and(EpochChecks::question) {
            self.outputs.check_epoch();
        }
    }

    fn highest_epoch(&mut self, highest: Result<u64, JournalError>) {
        match highest {
            Ok(highest) if highest > self.epoch => {
                let why = format!("epoch {highest} was claimed after this coordinator's, {}", self.epoch);
                self.outputs.end(TermEnd::Deposed(why));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the journal cannot be checked for later epochs"),
        }
        if self.timers.epochs.as_mut().is_some_and(|checks| checks.ended(self.now.elapsed)) {
            self.outputs.check_epoch();
        }
    }

    fn show_jobs(&self) {
        for (job, run) in self.jobs.iter() {
            self.metrics.show_job(job, run, self.scheduler.status(job));
        }
    }

    fn show_job(&self, job: &JobId) {
        if let Some(run) = self.jobs.get(job) {
            self.metrics.show_job(job, run, self.scheduler.status(job));
        }
    }

    fn take(&mut self, input: DriverInput) {
        match input {
            DriverInput::Submit(submit) => self.submit(*submit),
            DriverInput::Cancel(job, reply) => self.cancel(&job, reply),
            DriverInput::Describe(job, reply) => {
                // The client may have hung up.
                let _ = reply.send(self.describe(&job));
            }
            DriverInput::Events(job, after, reply) => {
                let page = self.jobs.get(&job).map(|run| run.events(after));
                let _ = reply.send(page);
            }
            DriverInput::Attempts(job, after, reply) => {
                let page = self.jobs.get(&job).map(|run| run.notes.attempts.after(after));
                let _ = reply.send(page);
            }
            DriverInput::Joined(worker, slots) => {
                self.apply(Event::WorkerJoined { worker, slots, draining: false });
            }
            DriverInput::Report(report) => {
                let Report { worker, attempt, outcome } = *report;
                self.report(worker, attempt, outcome);
            }
            DriverInput::Worker(input) => self.worker(*input),
            DriverInput::Planned(job, planned) => self.planned(job, planned),
            DriverInput::Staged(job, staged) => self.staged(job, staged),
            DriverInput::Published(job, result) => self.published(job, result),
            DriverInput::Notified(job, receiver) => self.notified(&job, receiver),
            DriverInput::Written(then) => self.written(then),
            DriverInput::UploadBegun(attempt, upload) => self.upload_begun(attempt, upload),
            DriverInput::Discarded(job) => self.discarded(&job),
            DriverInput::HighestEpoch(highest) => self.highest_epoch(highest),
            DriverInput::Tick => self.tick(),
            DriverInput::Recovered(job, result) => self.recovered(&job, result),
            DriverInput::Stop(end) => self.outputs.end(end),
        }
    }

    /// Passes an event to the scheduler and carries out the commands that follow. Events are queued: the commands of one
    /// event are carried out before the next event changes the state that they were decided on.
    fn apply(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.note_end(&event);
            if let Event::WorkerLost { worker } = &event {
                self.on_worker_lost(worker);
            }
            let tasks = with_outputs(&event);
            for command in self.scheduler.step(self.millis(), event) {
                events.extend(self.carry_out(command));
            }
            tasks.iter().for_each(|task| self.settle(task));
        }
    }

    /// Drops the results of a task that do not count, if the task is done.
    fn settle(&mut self, task: &TaskId) {
        if let Some((_, current)) = self.scheduler.output(task)
            && let Some(run) = self.jobs.get_mut(&task.job)
        {
            run.settle(task, current);
        }
    }

    fn carry_out(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::PlanStage { job, stage } => return self.plan_stage(job, stage),
            Command::Start { worker, attempt } => {
                self.note_start(&worker, &attempt);
                return self.start(worker, attempt);
            }
            Command::Stop { worker, attempt } => {
                self.note_stop(&worker, &attempt);
                return self.stop(worker, attempt);
            }
            Command::Publish { job } => return self.publish(job),
            Command::FinishJob { job, outcome } => self.finish(&job, outcome),
            Command::ReleaseJob { job } => self.release(&job),
            Command::Warn { warning } => tally_common::warn_limited!(%warning, "an event was ignored"),
        }
        None
    }
}

/// The tasks whose results an event reports.
fn with_outputs(event: &Event) -> Vec<TaskId> {
    match event {
        Event::AttemptEnded { attempt, outcome: Ok(()), .. } => vec![attempt.task.clone()],
        Event::StagePlanned { job, stage, found, .. } | Event::TasksFound { job, stage, found } => {
            let task = |found: &FoundTask| TaskId { job: job.clone(), stage: *stage, index: found.index };
            found.iter().filter(|found| found.done).map(task).collect()
        }
        _ => vec![],
    }
}
