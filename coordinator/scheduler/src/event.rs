//! The scheduler's input. Its output is in `command`.

use tally_proto::failure::Failure;
use tally_proto::ids::{AttemptId, JobId, StageId, WorkerId};

use crate::shape::JobShape;

/// One task of a planned stage. Its index is its position in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskPlan {
    /// The amount of work, in bytes to read. The heaviest tasks of a stage start first.
    pub weight: u64,
    /// The worker on which the task reads least over the network. Others take the task only when they have no other.
    pub preferred: Option<WorkerId>,
    /// Tasks with the same number should run on the same worker, because their outputs are probably read together. Others
    /// take them only when they have no other. Only a hint: it may be wrong, and nothing but the placement depends on it.
    pub affinity: Option<u32>,
}

/// A task of an earlier coordinator that a worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTask {
    /// The task's number in its stage.
    pub index: u32,
    /// The attempt's number.
    pub attempt: u32,
    /// The worker.
    pub worker: WorkerId,
    /// The worker has its output; otherwise it runs there.
    pub done: bool,
}

/// An event outside of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A job was submitted. A known id, finished or not, is ignored with a warning.
    JobSubmitted {
        /// The new job. Ids are never reused.
        job: JobId,
        /// Its stages.
        shape: JobShape,
    },
    /// A job was cancelled. After the command to publish it is too late, and the event is ignored with a warning: the
    /// result of the publish ends the job.
    JobCancelled {
        /// The job.
        job: JobId,
    },
    /// The answer to [`crate::Command::PlanStage`]. A stage without tasks is complete.
    StagePlanned {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
        /// Its tasks, by index.
        tasks: Vec<TaskPlan>,
        /// Its tasks that workers have already, after a change of the leader.
        found: Vec<FoundTask>,
    },
    /// A worker attached that has tasks of a planned stage. Attempts that are not needed are stopped, and outputs are left
    /// in place. Tasks that do not exist, and those of unknown workers, are ignored with a warning.
    TasksFound {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
        /// The tasks.
        found: Vec<FoundTask>,
    },
    /// The other answer to [`crate::Command::PlanStage`]: the job fails.
    StagePlanFailed {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
        /// The reason, for people.
        reason: String,
    },
    /// The answer to [`crate::Command::Publish`]: the day is replaced, the job done.
    Published {
        /// The job.
        job: JobId,
    },
    /// Another answer to [`crate::Command::Publish`]: the outputs of these tasks are incompatible with the others, so the
    /// tasks run again. If that happens too often (see [`crate::Config::max_output_losses`]), the job fails.
    Incompatible {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
        /// The tasks' numbers in their stage.
        indices: Vec<u32>,
        /// The reason, for people.
        reason: String,
    },
    /// The other answer to [`crate::Command::Publish`]: the job fails.
    PublishFailed {
        /// The job.
        job: JobId,
        /// The reason, for people.
        reason: String,
    },
    /// A worker offers its slots. A lost worker must join under a new id.
    WorkerJoined {
        /// The id of this incarnation of the worker.
        worker: WorkerId,
        /// The number of attempts that it runs at a time.
        slots: u32,
        /// It drains: it takes no tasks.
        draining: bool,
    },
    /// A worker is lost, with its attempts and outputs. Also the end of a drain.
    WorkerLost {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker takes no new tasks. Its running attempts continue.
    WorkerDraining {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker is alive. Every other event from a worker shows that, too.
    Heartbeat {
        /// The worker.
        worker: WorkerId,
    },
    /// An attempt ended.
    AttemptEnded {
        /// Its worker.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
        /// On success, the worker holds its output.
        outcome: Result<(), Failure>,
    },
    /// An attempt was not started, because its inputs changed before its task message was built or sent again. The task
    /// waits for its inputs. This is not a failure of the task or the worker.
    NotStarted {
        /// Its worker.
        worker: WorkerId,
        /// The attempt.
        attempt: AttemptId,
    },
    /// The output of a done task was migrated to another worker.
    OutputMigrated {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
        /// The task's number in its stage.
        index: u32,
        /// The worker that held it.
        from: WorkerId,
        /// The worker that holds it now.
        to: WorkerId,
    },
    /// Time passed. Only this event times out workers and fails jobs without workers, so that a delayed driver can first
    /// deliver the heartbeats that waited.
    Tick,
}
