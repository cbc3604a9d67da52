//! What one incarnation of a worker runs and holds, as the state machine sees it.
//!
//! Not here: the real one (`incarnation`).

use std::collections::BTreeSet;

use tally_proto::dispatch::Dispatch;
use tally_proto::{AttemptId, Failure, JobId, WorkerId, v1};

/// The tasks and outputs of one incarnation. No method waits: not for a disk, a network or a task.
pub trait TaskHost {
    /// The id of the incarnation.
    fn id(&self) -> &WorkerId;

    /// The hello message. The state machine sets the epoch and whether the worker drains.
    fn hello(&self) -> v1::Hello;

    /// The heartbeat message.
    fn heartbeat(&self) -> v1::Heartbeat;

    /// Starts a task. If it succeeds, the end of the attempt is passed as [`AgentInput::Ended`] after this step, and the
    /// output of a successful attempt is held before that.
    ///
    /// # Errors
    /// The failure to report: the task cannot be started here.
    ///
    /// [`AgentInput::Ended`]: super::AgentInput::Ended
    fn start(&mut self, dispatch: Dispatch) -> Result<(), Failure>;

    /// Cancels a running attempt. It still ends.
    fn stop(&mut self, attempt: &AttemptId);

    /// Admits a job whose outputs may be migrated here. Outputs of the job with another key are dropped.
    fn admit(&mut self, job: &JobId, key: &[u8]);

    /// Drops all outputs of a job at once, and begins to free their memory and files. An output of the job that is made
    /// later is kept only if the job is admitted or a task of it is started again.
    fn release(&mut self, job: &JobId);

    /// The jobs that were admitted, or of which a task was started, and that were not released since.
    fn jobs(&self) -> BTreeSet<JobId>;

    /// The result of an attempt whose output is held.
    fn result(&self, attempt: &AttemptId) -> Option<v1::TaskResult>;

    /// All outputs that are held with their tasks' results, sorted by attempt.
    fn inventory(&self) -> Vec<(AttemptId, v1::TaskResult)>;

    /// The number of outputs that are held.
    fn held(&self) -> HeldOutputs;

    /// Records that another worker has an output as well.
    fn note_migrated(&mut self, attempt: &AttemptId);
}

/// Numbers of outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldOutputs {
    /// All outputs.
    pub all: usize,
    /// Outputs that another worker has as well.
    pub migrated: usize,
}
