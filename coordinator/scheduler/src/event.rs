//! What the scheduler is told. What it answers is in `command`.

use tally_proto::failure::Failure;
use tally_proto::ids::{AttemptId, JobId, StageId, WorkerId};

use crate::shape::JobShape;

/// One task of a stage that was just planned. Its index is its place in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskPlan {
    /// How much there is to do, in bytes to read: the heaviest tasks of a stage start first.
    pub weight: u64,
    /// Where the task reads least over the network: taken if it has a free slot.
    pub preferred: Option<WorkerId>,
}

/// Work of an earlier coordinator that a worker turned out to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The task's number in its stage.
    pub index: u32,
    /// The attempt's number.
    pub attempt: u32,
    /// Who has it.
    pub worker: WorkerId,
    /// Whether its output is there; else it runs there.
    pub done: bool,
}

/// Something that happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants a job. An id that is known, finished or not, is ignored with a warning.
    JobSubmitted {
        /// The new job; ids of runs are not used twice.
        job: JobId,
        /// Its stages.
        shape: JobShape,
    },
    /// Somebody wants a job no more. Too late, and ignored with a warning, from the moment
    /// that the publish was ordered: whether the day was replaced is then decided by the
    /// publish alone, and its answer ends the job.
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
        /// What workers have of it already, after a change of coordinators.
        found: Vec<Found>,
    },
    /// A worker came that has something of a stage that is planned. What is not wanted (any more)
    /// is stopped or left where it is; what a worker has that is not here, or of tasks that do
    /// not exist, is ignored with a warning.
    Found {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
        /// What there is.
        found: Vec<Found>,
    },
    /// The other answer to [`crate::Command::PlanStage`]: the job fails.
    StagePlanFailed {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
        /// Why, for people.
        reason: String,
    },
    /// The answer to [`crate::Command::Publish`]: the day is replaced, the job done.
    Published {
        /// The job.
        job: JobId,
    },
    /// Another answer to [`crate::Command::Publish`]: what these tasks made does not fit what the others
    /// did, and is made again. Too often (see [`crate::Config::max_output_losses`]), and the job fails.
    Unfit {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
        /// The tasks' numbers in their stage.
        indices: Vec<u32>,
        /// Why, for people.
        reason: String,
    },
    /// The other answer to [`crate::Command::Publish`]: the job fails.
    PublishFailed {
        /// The job.
        job: JobId,
        /// Why, for people.
        reason: String,
    },
    /// A worker offers its slots. A worker that was lost stays lost: it must come back under
    /// a new id.
    WorkerJoined {
        /// This life of the worker.
        worker: WorkerId,
        /// How many attempts it runs at once.
        slots: u32,
        /// It is about to go: it takes no new tasks from the start.
        draining: bool,
    },
    /// A worker is gone, with its attempts and outputs. Also the end of a drain.
    WorkerLost {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker takes no new tasks; those running end.
    WorkerDraining {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker is alive. Every other event from a worker says so too.
    Heartbeat {
        /// The worker.
        worker: WorkerId,
    },
    /// An attempt is over.
    AttemptEnded {
        /// Where it ran.
        worker: WorkerId,
        /// Which one.
        attempt: AttemptId,
        /// Whether its output exists, held by that worker.
        outcome: Result<(), Failure>,
    },
    /// The attempt was never started: its inputs changed before its order could be built or sent again. The
    /// task waits for its inputs. This counts as a failure of neither the task nor the worker.
    NotStarted {
        /// Where it was to run.
        worker: WorkerId,
        /// Which one.
        attempt: AttemptId,
    },
    /// The output of a done task was handed to another worker.
    OutputMoved {
        /// The job.
        job: JobId,
        /// The stage.
        stage: StageId,
        /// The task's number in its stage.
        index: u32,
        /// Who held it.
        from: WorkerId,
        /// Who holds it now.
        to: WorkerId,
    },
    /// Time passed. Workers time out, and jobs without workers fail, only here, so that a
    /// driver that was held up can first deliver the heartbeats that waited meanwhile.
    Tick,
}
