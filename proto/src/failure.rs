//! Why a task attempt ended without a result, as data: the scheduler decides by the variant,
//! people read the reason. Never flattened to text on the way.

use crate::ids::{TaskId, WorkerId};

/// The typed end of an attempt that has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The output of a finished task could not be fetched from the worker that held it: that
    /// task must run again before this one can.
    #[error("the output of task {task} could not be fetched from worker {worker}: {reason}")]
    FetchLost {
        /// Who held the output.
        worker: WorkerId,
        /// Whose output is gone.
        task: TaskId,
        /// What the reader saw.
        reason: String,
    },
    /// Another try, best elsewhere, may well succeed (I/O, memory pressure, a panic).
    #[error("{reason}")]
    Retryable {
        /// What happened.
        reason: String,
    },
    /// The worker did not begin: it has no room for more work now. Says nothing about the task.
    #[error("{reason}")]
    Refused {
        /// What it has no room for.
        reason: String,
    },
    /// The same input will fail the same way everywhere: the job fails with this reason.
    #[error("{reason}")]
    Fatal {
        /// What happened, naming the input.
        reason: String,
    },
    /// The attempt was told to stop.
    #[error("cancelled")]
    Cancelled,
}
