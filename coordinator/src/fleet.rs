//! The workers as the driver sees them: somebody that takes orders.
//!
//! Not here: which worker gets which order (`tally-scheduler`).

use tally_proto::{AttemptId, JobId, WorkerId, v1};

/// Carries the driver's orders to workers. Reports come back as the driver's events.
pub trait Fleet: Send {
    /// Sends a worker an order. Where that is not possible the worker counts as lost.
    fn start(&mut self, worker: &WorkerId, order: v1::TaskOrder) -> Result<(), String>;

    /// Where other workers reach this one's outputs; empty where they need no address.
    fn address(&self, worker: &WorkerId) -> String;

    /// Tells a worker to stop an attempt.
    fn stop(&mut self, worker: &WorkerId, attempt: &AttemptId);

    /// Tells all workers to drop a job's data.
    fn release(&mut self, job: &JobId);
}
