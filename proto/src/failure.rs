//! Why a task attempt ended without a result. The scheduler decides by the variant, and people read the reason.
//!
//! Not here: which errors become which failure (the error tables of `tally-shuffle` and of the coordinator).

use crate::ids::{TaskId, WorkerId};

/// Why an attempt has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The output of a finished task could not be fetched from its worker. That task must run again before this one.
    #[error("the output of task {task} could not be fetched from worker {worker}: {reason}")]
    FetchLost {
        /// The worker that stores the output.
        worker: WorkerId,
        /// The task that made the output.
        task: TaskId,
        /// Why the reader could not fetch it.
        reason: String,
    },
    /// A retry may succeed, preferably on another worker (I/O errors, panics).
    #[error("{reason}")]
    Retryable {
        /// What happened.
        reason: String,
    },
    /// The worker has no free memory or disk space for the task now. The attempt did not start, or it gave up and released
    /// everything. The failure does not count against the task, which is retried later.
    #[error("{reason}")]
    Refused {
        /// What does not fit, and what to do.
        reason: String,
    },
    /// The same input fails in the same way on every worker. The job fails with this reason.
    #[error("{reason}")]
    Fatal {
        /// What happened, with the name of the input.
        reason: String,
    },
    /// The attempt was cancelled.
    #[error("cancelled")]
    Cancelled,
}
