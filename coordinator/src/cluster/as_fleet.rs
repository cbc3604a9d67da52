//! The attached workers as a [`Fleet`] of the driver.

use tally_proto::{AttemptId, JobId, WorkerId};

use super::RemoteFleet;
use super::member::{READS_FOOTERS, SendError};
use crate::dispatch::TaskDispatch;
use crate::fleet::{Capacity, DispatchError, Fleet};
use crate::job::REDUCE;

/// The slots that a plan assumes while no worker is attached.
pub(super) const EXPECTED_SLOTS: usize = 16;
/// The table bytes of the smallest worker.
pub(super) const MIN_TABLE_BYTES: u64 = 24 << 20;

impl Fleet for RemoteFleet {
    fn start(
        &mut self,
        worker: &WorkerId,
        attempt: &AttemptId,
        dispatch: TaskDispatch,
    ) -> Result<(), DispatchError> {
        let epoch = self.epoch;
        let unknown = || DispatchError::WorkerLost(format!("there is no worker {worker}"));
        let member = self.members.get_mut(worker).ok_or_else(unknown)?;
        member.check_support(&dispatch)?;
        member.running.insert(attempt.clone());
        member.stopped.remove(attempt);
        // A detached worker gets the task when it attaches again: then its running attempts are compared.
        let sent = member.dispatch(epoch, &attempt.task.job, dispatch);
        sent.map_err(|error| match error {
            SendError::TooLarge { excess, .. } => {
                member.running.remove(attempt);
                if attempt.task.stage.0 == REDUCE && !member.shares_inputs() {
                    return DispatchError::Unsupported(format!(
                        "worker {worker} speaks protocol version {}, which has all inputs in a task message: {excess}; upgrade it",
                        member.hello.protocol
                    ));
                }
                DispatchError::TooLarge(excess)
            }
            error => DispatchError::WorkerLost(error.to_string()),
        })
    }

    fn address(&self, worker: &WorkerId) -> String {
        self.members.get(worker).map(|member| member.hello.flight_address.clone()).unwrap_or_default()
    }

    fn stop(&mut self, worker: &WorkerId, attempt: &AttemptId) {
        let epoch = self.epoch;
        let Some(member) = self.members.get_mut(worker) else { return };
        if let Err(error) = member.stop(epoch, attempt) {
            tracing::warn!(%worker, %attempt, %error, "cannot send the worker a request to stop an attempt");
        }
    }

    fn release(&mut self, job: &JobId) {
        for member in self.members.values_mut() {
            member.release(self.epoch, job.clone());
        }
    }

    fn capacity(&self) -> Capacity {
        let serving = || self.members.values().filter(|member| !member.draining).map(|member| &member.hello);
        let slots: usize = serving().map(|hello| hello.slots as usize).sum();
        let smallest = serving().map(|hello| hello.reduce_table_bytes).min();
        Capacity {
            slots: if slots == 0 { EXPECTED_SLOTS } else { slots },
            reduce_table_bytes: smallest.filter(|&bytes| bytes > 0).unwrap_or(MIN_TABLE_BYTES),
            apart: serving().count() != 1,
            reads_footers: slots > 0 && serving().all(|hello| hello.protocol >= READS_FOOTERS),
        }
    }

    fn remote(&mut self) -> Option<&mut RemoteFleet> {
        Some(self)
    }
}
