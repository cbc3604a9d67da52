//! Uploads of write attempts: begun, and put on record, before the order is sent. Until then the
//! scheduler takes the attempt for running; who stops it is answered at once. If what it is to read changes
//! meanwhile it is given back, see [`Driver::start`].

use tally_proto::{AttemptId, Failure, WorkerId, v1};
use tally_scheduler::Event;

use super::{Driver, Input};
use crate::job::WRITE;
use crate::publish::stage::Stage;

impl Driver {
    /// Whether an attempt's upload has to begin first.
    pub(super) fn needs_upload(&self, attempt: &AttemptId) -> bool {
        let Some(run) = self.jobs.get(&attempt.task.job) else { return false };
        attempt.task.stage.0 == WRITE
            && matches!(run.staging, Some(Stage::Objects(_)))
            && !run.uploads.contains_key(attempt)
    }

    pub(super) fn begin_upload(&mut self, worker: WorkerId, attempt: AttemptId) {
        let Some(run) = self.jobs.get(&attempt.task.job) else { return };
        let Some(Stage::Objects(objects)) = &run.staging else { return };
        self.beginning.insert(attempt.clone(), worker);
        let (objects, sender) = (objects.clone(), self.sender.clone());
        tokio::spawn(async move {
            let upload = objects.begin(attempt.task.index, attempt.attempt).await;
            // The loop gone means that the process ends.
            let _ = sender.send(Input::Begun(attempt, upload.map_err(|e| e.to_string()))).await;
        });
    }

    /// The order can be sent, unless nobody wants it any more: then the upload goes with the job's.
    pub(super) fn begun(&mut self, attempt: AttemptId, upload: Result<v1::Upload, String>) {
        let Some(worker) = self.beginning.remove(&attempt) else { return };
        let Some(run) = self.jobs.get_mut(&attempt.task.job) else { return };
        let answer = match upload {
            Ok(upload) => {
                run.uploads.insert(attempt.clone(), upload);
                self.start(worker, attempt)
            }
            Err(reason) => {
                tracing::warn!(%attempt, reason, "an upload could not begin");
                Some(Event::AttemptEnded { worker, attempt, outcome: Err(Failure::Retryable { reason }) })
            }
        };
        if let Some(event) = answer {
            self.step(event);
        }
    }
}
