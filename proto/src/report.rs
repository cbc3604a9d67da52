//! How an attempt ended, as a slot of a worker reports it, and the names of outcomes in metrics.
//!
//! Not here: how reports are sent (the worker's `agent`, or the coordinator within one process).

use crate::failure::Failure;
use crate::ids::{AttemptId, WorkerId};
use crate::v1;

/// How an attempt ended.
#[derive(Debug)]
pub struct Report {
    /// The worker that ran it.
    pub worker: WorkerId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The result or the failure.
    pub outcome: Result<v1::TaskResult, Failure>,
}

/// The names of outcomes in metrics.
pub const OUTCOMES: [&str; 6] = ["done", "cancelled", "fetch_lost", "retryable", "refused", "fatal"];

/// The name of an outcome in metrics.
pub fn outcome_name<T>(outcome: &Result<T, Failure>) -> &'static str {
    let [done, cancelled, fetch_lost, retryable, refused, fatal] = OUTCOMES;
    match outcome {
        Ok(_) => done,
        Err(Failure::Cancelled) => cancelled,
        Err(Failure::FetchLost { .. }) => fetch_lost,
        Err(Failure::Retryable { .. }) => retryable,
        Err(Failure::Refused { .. }) => refused,
        Err(Failure::Fatal { .. }) => fatal,
    }
}
