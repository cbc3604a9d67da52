//! The clients of a live job: those that wait for its acceptance, and those that wait for its end.

use tally_proto::JobId;
use tokio::sync::oneshot;

use crate::driver::answers::{Accepted, Ended, MAX_SUBMITS, Refusal, Submit};

/// A client that waits for acceptance, and whether the job existed before it asked.
pub(in crate::driver) type PendingAccept = (oneshot::Sender<Result<Accepted, Refusal>>, bool);

/// The clients of a job.
#[derive(Default)]
pub(in crate::driver) struct Clients {
    submitted: Vec<PendingAccept>,
    waiting: Vec<oneshot::Sender<Ended>>,
    /// Submissions of the same day, which begin after the end of this job.
    afterwards: Vec<Submit>,
}

impl Clients {
    /// Adds a client that submitted the job.
    pub(in crate::driver) fn submitted(&mut self, client: Option<PendingAccept>) {
        self.submitted.extend(client);
    }

    /// Adds a client that waits for the end.
    pub(in crate::driver) fn wait(&mut self, client: Option<oneshot::Sender<Ended>>) {
        self.waiting.extend(client);
    }

    /// Tells all clients that submitted the job that it is accepted.
    pub(in crate::driver) fn accept(&mut self, job: &JobId) {
        for (reply, existing) in self.submitted.drain(..) {
            // The client may have hung up.
            let _ = reply.send(Ok(Accepted { job: job.clone(), existing }));
        }
    }

    /// Keeps a submission until this job, which is being cancelled, has ended.
    pub(in crate::driver) fn submit_afterwards(&mut self, submit: Submit) {
        if self.afterwards.len() < MAX_SUBMITS {
            self.afterwards.push(submit);
            return;
        }
        // The client may have hung up.
        let _ = submit.accepted.send(Err(Refusal::BeingCancelled(MAX_SUBMITS)));
    }

    /// The submissions that waited for the end.
    pub(in crate::driver) fn take_submits(&mut self) -> Vec<Submit> {
        std::mem::take(&mut self.afterwards)
    }

    /// The clients that wait for the end.
    pub(in crate::driver) fn take_waiting(&mut self) -> Vec<oneshot::Sender<Ended>> {
        std::mem::take(&mut self.waiting)
    }
}
