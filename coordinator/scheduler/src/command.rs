//! The scheduler's output: commands for the driver, ends of jobs, warnings. No state.

use std::time::Duration;

use tally_proto::ids::{AttemptId, JobId, StageId, TaskId, WorkerId};

/// A command for the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// All inputs of the stage exist: cut it into tasks and answer with
    /// [`crate::Event::StagePlanned`] or [`crate::Event::StagePlanFailed`]. Sent once per stage.
    PlanStage {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
    },
    /// Run an attempt on a worker. Its inputs are in [`crate::Scheduler::outputs`] while
    /// [`crate::Scheduler::inputs_of`] returns a version: at least until the next step. Afterwards the driver may have
    /// to return the attempt with [`crate::Event::NotStarted`].
    Start {
        /// The worker.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Stop an attempt whose result is no longer needed. Its slot counts as taken until the worker reports its end, with
    /// any outcome.
    Stop {
        /// The worker.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// All stages are done: publish, and answer with [`crate::Event::Published`],
    /// [`crate::Event::PublishFailed`], or [`crate::Event::Incompatible`], after which it is sent again. Otherwise sent
    /// once per job.
    Publish {
        /// The job.
        job: JobId,
    },
    /// A job ended. Sent once per job.
    FinishJob {
        /// The job.
        job: JobId,
        /// How it ended.
        outcome: Outcome,
    },
    /// All workers may drop the job's data. Follows [`Command::FinishJob`].
    ReleaseJob {
        /// The job.
        job: JobId,
    },
    /// An unexpected event was ignored.
    Warn {
        /// The reason.
        warning: Warning,
    },
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its day is published.
    Done,
    /// It failed; the old day stays.
    Failed {
        /// The reason.
        reason: JobFailure,
    },
    /// It was cancelled; the old day stays.
    Cancelled,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobFailure {
    /// A task reached its limit of failures.
    #[error("task {task} failed {tries} times, the last time on worker {worker}: {reason}")]
    TooManyTries {
        /// The task.
        task: TaskId,
        /// Its failures.
        tries: u32,
        /// The worker of the last one.
        worker: WorkerId,
        /// The reason of the last one.
        reason: String,
    },
    /// A task failed with an error that a retry does not change.
    #[error("task {task} on worker {worker}: {reason}")]
    Fatal {
        /// The task.
        task: TaskId,
        /// Its worker.
        worker: WorkerId,
        /// The error, which names the input.
        reason: String,
    },
    /// The output of one task was lost too often.
    #[error(
        "the output of task {task} could not be read {losses} times, the last time from worker {worker}: {reason}"
    )]
    OutputLost {
        /// The task.
        task: TaskId,
        /// The number of losses.
        losses: u32,
        /// The last worker that held it.
        worker: WorkerId,
        /// The error of its reader.
        reason: String,
    },
    /// No worker had memory or disk space for a task.
    #[error("no worker had room for task {task} for {} s, the last one was {worker}: {reason}", waited.as_secs())]
    Refused {
        /// The task.
        task: TaskId,
        /// The time that it waited.
        waited: Duration,
        /// The last worker that refused it.
        worker: WorkerId,
        /// The worker's reason.
        reason: String,
    },
    /// A stage could not be planned.
    #[error("{reason}")]
    Plan {
        /// The stage.
        stage: StageId,
        /// The reason.
        reason: String,
    },
    /// The day could not be replaced.
    #[error("the output could not be published: {reason}")]
    Publish {
        /// The reason.
        reason: String,
    },
    /// There were no workers.
    #[error("no worker took tasks for {} s: start workers and submit again", waited.as_secs())]
    NoWorkers {
        /// The time that the job waited.
        waited: Duration,
    },
}

/// The reason for which an event was ignored. None of these affects a job; many of them indicate a problem of the driver
/// or the network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// An existing job was submitted.
    #[error("job {job} was submitted again")]
    KnownJob {
        /// The job.
        job: JobId,
    },
    /// An event of a job that does not exist or has ended.
    #[error("job {job} is unknown or has ended")]
    UnknownJob {
        /// The job.
        job: JobId,
    },
    /// A job was cancelled while it was being published.
    #[error("job {job} is being published: too late to cancel")]
    CancelTooLate {
        /// The job.
        job: JobId,
    },
    /// A plan of a stage that does not wait for one.
    #[error("stage {} of job {job} is not being planned", stage.0)]
    UnaskedPlan {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
    },
    /// The end of a publish that was not commanded.
    #[error("job {job} is not being published")]
    UnaskedPublish {
        /// The job.
        job: JobId,
    },
    /// A worker joined that had joined before.
    #[error("worker {worker} joined again")]
    KnownWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// An event from a worker that never joined.
    #[error("worker {worker} is unknown")]
    UnknownWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// An event from a worker that counts as lost: it should stop, and join under a new id.
    #[error("worker {worker} was lost before: it must join under a new id")]
    LostWorker {
        /// The worker.
        worker: WorkerId,
    },
    /// The end of an attempt that does not run on that worker, or no longer does.
    #[error("attempt {attempt} does not run on worker {worker}")]
    UnknownAttempt {
        /// The worker.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// The migration of an output that did not exist, or to an unknown worker.
    #[error("the output of task {task} was not migrated from worker {from} to worker {to}")]
    UnknownMigration {
        /// The task.
        task: TaskId,
        /// The worker that should have held it.
        from: WorkerId,
        /// The worker that should hold it.
        to: WorkerId,
    },
}
