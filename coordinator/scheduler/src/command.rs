//! What the scheduler answers: orders for the driver, ends of jobs, warnings. No state.

use std::time::Duration;

use tally_proto::ids::{AttemptId, JobId, StageId, TaskId, WorkerId};

/// Something that the driver must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// All inputs of the stage exist: cut it into tasks and answer with
    /// [`crate::Event::StagePlanned`] or [`crate::Event::StagePlanFailed`]. Sent once a stage.
    PlanStage {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
    },
    /// Run this attempt there. Its inputs are in [`crate::Scheduler::outputs`] as long as
    /// [`crate::Scheduler::inputs_of`] says so: in any case until the next step. Afterwards it may have to be
    /// given back, by [`crate::Event::NotStarted`].
    Start {
        /// Where.
        worker: WorkerId,
        /// Which.
        attempt: AttemptId,
    },
    /// The attempt's result is no longer wanted. Its slot counts as taken until the worker
    /// reports its end, with whatever outcome.
    Stop {
        /// Where.
        worker: WorkerId,
        /// Which.
        attempt: AttemptId,
    },
    /// All stages are done: publish, and answer with [`crate::Event::Published`],
    /// [`crate::Event::PublishFailed`], or [`crate::Event::Unfit`], after which it is sent again. Else
    /// sent once a job.
    Publish {
        /// The job.
        job: JobId,
    },
    /// The job is over. Sent once a job.
    FinishJob {
        /// The job.
        job: JobId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Everybody may drop the job's data. Follows [`Command::FinishJob`].
    ReleaseJob {
        /// The job.
        job: JobId,
    },
    /// An event was not what was expected, and was ignored.
    Warn {
        /// What was wrong with it.
        warning: Warning,
    },
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its day is published.
    Done,
    /// It gave up; the old day stays.
    Failed {
        /// Why.
        reason: JobFailure,
    },
    /// Somebody cancelled it; the old day stays.
    Cancelled,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobFailure {
    /// A task collected all the strikes that it may.
    #[error("task {task} failed {tries} times, the last time on worker {worker}: {reason}")]
    TooManyTries {
        /// The task.
        task: TaskId,
        /// Its strikes.
        tries: u32,
        /// Where the last one was.
        worker: WorkerId,
        /// The last one's reason.
        reason: String,
    },
    /// A task failed in a way that no retry mends.
    #[error("task {task} on worker {worker}: {reason}")]
    Fatal {
        /// The task.
        task: TaskId,
        /// Where it ran.
        worker: WorkerId,
        /// What it said, naming the input.
        reason: String,
    },
    /// The output of one task was lost again and again.
    #[error(
        "the output of task {task} could not be read {losses} times, the last time from worker {worker}: {reason}"
    )]
    OutputLost {
        /// The producer.
        task: TaskId,
        /// How often.
        losses: u32,
        /// Who held it last.
        worker: WorkerId,
        /// What its reader saw.
        reason: String,
    },
    /// No worker had room for a task.
    #[error("no worker had room for task {task} for {} s, the last one was {worker}: {reason}", waited.as_secs())]
    Refused {
        /// The task.
        task: TaskId,
        /// How long it waited.
        waited: Duration,
        /// Who refused last.
        worker: WorkerId,
        /// Its reason.
        reason: String,
    },
    /// A stage could not be cut into tasks.
    #[error("stage {} could not be planned: {reason}", stage.0)]
    Plan {
        /// The stage.
        stage: StageId,
        /// Why.
        reason: String,
    },
    /// The day could not be replaced.
    #[error("the output could not be published: {reason}")]
    Publish {
        /// Why.
        reason: String,
    },
    /// Nobody was there to do the work.
    #[error("no worker took tasks for {} s: start workers and submit again", waited.as_secs())]
    NoWorkers {
        /// How long the job waited.
        waited: Duration,
    },
}

/// Why an event was ignored. None of these harms a job; many of them point at a driver or a
/// network in trouble.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A submit of a job that exists.
    #[error("job {job} was submitted again")]
    KnownJob {
        /// The job.
        job: JobId,
    },
    /// An order or answer about a job that does not exist or is over.
    #[error("job {job} is unknown or over")]
    UnknownJob {
        /// The job.
        job: JobId,
    },
    /// A cancellation while the job publishes.
    #[error("job {job} is being published: too late to cancel")]
    CancelTooLate {
        /// The job.
        job: JobId,
    },
    /// A plan that nobody waits for.
    #[error("stage {} of job {job} is not being planned", stage.0)]
    UnaskedPlan {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
    },
    /// The end of a publish that was not ordered.
    #[error("job {job} is not being published")]
    UnaskedPublish {
        /// The job.
        job: JobId,
    },
    /// A join of a worker that is here.
    #[error("worker {worker} joined again")]
    KnownWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// A word from a worker that never joined.
    #[error("worker {worker} is unknown")]
    UnknownWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// A word from a worker that is considered lost: it should stop and come back anew.
    #[error("worker {worker} was lost before: it must join under a new id")]
    LostWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// The end of an attempt that does not run there (any more).
    #[error("attempt {attempt} does not run on worker {worker}")]
    UnknownAttempt {
        /// Who said so.
        worker: WorkerId,
        /// About what.
        attempt: AttemptId,
    },
    /// A hand-over of an output that was not there, or to a worker that is not here.
    #[error("the output of task {task} was not moved from worker {from} to worker {to}")]
    UnknownMove {
        /// Whose output.
        task: TaskId,
        /// Who should have held it.
        from: WorkerId,
        /// Who should hold it.
        to: WorkerId,
    },
}
