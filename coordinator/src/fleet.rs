//! The workers as the driver uses them: a fleet that takes tasks.
//!
//! Not here: which worker runs which task (`tally-scheduler`); workers in other processes (`cluster`).

use tally_proto::limits::TooLarge;
use tally_proto::{AttemptId, JobId, WorkerId};

use crate::cluster::RemoteFleet;
use crate::dispatch::TaskDispatch;

/// The capacity of a fleet, for planning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Slots of all workers.
    pub slots: usize,
    /// Bytes of tables that a reduce task may use on every worker.
    pub reduce_table_bytes: u64,
    /// Every worker can read the footers of small files and report them. False for an empty fleet: workers that attach
    /// later may be older than the coordinator.
    pub reads_footers: bool,
    /// Workers fetch outputs from each other over a network. True for an empty fleet.
    pub apart: bool,
}

/// A task was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DispatchError {
    /// The worker counts as lost.
    #[error("{0}")]
    WorkerLost(String),
    /// The worker cannot run this task, but can run others.
    #[error("{0}")]
    Unsupported(String),
    /// The task message, or the message with its inputs, is too large for every worker.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// Sends tasks to workers. Reports come back as inputs of the driver.
pub trait Fleet: Send {
    /// Sends a task to a worker.
    ///
    /// # Errors
    /// [`DispatchError`].
    fn start(
        &mut self,
        worker: &WorkerId,
        attempt: &AttemptId,
        dispatch: TaskDispatch,
    ) -> Result<(), DispatchError>;

    /// The address at which other workers fetch this worker's outputs; empty if they need none.
    fn address(&self, worker: &WorkerId) -> String;

    /// Tells a worker to stop an attempt.
    fn stop(&mut self, worker: &WorkerId, attempt: &AttemptId);

    /// Tells all workers to drop a job's data.
    fn release(&mut self, job: &JobId);

    /// The current capacity.
    fn capacity(&self) -> Capacity;

    /// This fleet as one of workers in other processes, if it is one. Only such workers attach, detach and drain.
    fn remote(&mut self) -> Option<&mut RemoteFleet> {
        None
    }
}
