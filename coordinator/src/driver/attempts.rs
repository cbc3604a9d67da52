//! Attempts from the scheduler's command to their end: upload, task message, report.
//!
//! A write attempt in an object store needs an upload, which begins and is on record before the task message is sent.
//! Until then the scheduler counts the attempt as running; a stop in that time is answered at once.

use tally_proto::{AttemptId, Failure, WorkerId, v1};
use tally_scheduler::Event;

use super::Driver;
use super::work::{UploadResult, Work};
use crate::failures::AttemptError;
use crate::fleet::DispatchError;

impl Driver {
    /// Dispatches an attempt, for the first time or again. It is returned to the scheduler if its inputs are no longer
    /// those that the scheduler started it on, or if it is no longer wanted.
    pub(super) fn start(&mut self, worker: WorkerId, attempt: AttemptId) -> Option<Event> {
        let Some(inputs) = self.scheduler.inputs_of(&attempt) else {
            tracing::info!(%attempt, %worker, "an attempt was not started: its inputs changed");
            return Some(Event::NotStarted { worker, attempt });
        };
        let run = self.jobs.get_mut(&attempt.task.job)?;
        if let Some(staging) = run.needs_upload(&attempt) {
            let folder = run.folder_of(attempt.task.index);
            self.workers.wait_for_upload(attempt.clone(), worker);
            self.outputs.work(Work::BeginUpload { staging, attempt, folder });
            return None;
        }
        let dispatch = run.dispatch(&self.scheduler, &attempt, inputs, |worker| self.workers.address(worker));
        let dispatch = match dispatch {
            Ok(dispatch) => dispatch,
            Err(error) => {
                tracing::warn!(%attempt, %worker, %error, "a task message could not be built");
                let outcome = Err(AttemptError::NoOrder(error.to_string()).into());
                return Some(Event::AttemptEnded { worker, attempt, outcome });
            }
        };
        match self.workers.start(&worker, &attempt, dispatch) {
            Ok(()) => None,
            Err(DispatchError::WorkerLost(reason)) => {
                tracing::warn!(%attempt, %worker, reason, "a task could not be sent: the worker counts as lost");
                Some(Event::WorkerLost { worker })
            }
            Err(DispatchError::Unsupported(reason)) => {
                tracing::warn!(%attempt, %worker, reason, "the worker cannot run the task: another worker will");
                let outcome = Err(AttemptError::OldWorker(reason).into());
                Some(Event::AttemptEnded { worker, attempt, outcome })
            }
            Err(DispatchError::TooLarge(excess)) => {
                let error = AttemptError::too_large(&attempt, excess);
                tracing::error!(%attempt, %worker, %error, "a task message is too large: the job fails");
                Some(Event::AttemptEnded { worker, attempt, outcome: Err(error.into()) })
            }
        }
    }

    /// Dispatches a write attempt whose upload began. If the attempt is no longer wanted, the upload is discarded with
    /// the job's others.
    pub(super) fn upload_begun(&mut self, attempt: AttemptId, upload: UploadResult) {
        let Some(worker) = self.workers.upload_begun(&attempt) else { return };
        let Some(run) = self.jobs.get_mut(&attempt.task.job) else { return };
        let answer = match upload {
            Ok(upload) => {
                run.writes.upload_begun(&attempt, upload);
                self.start(worker, attempt)
            }
            Err(error) => {
                let (what, again) = (error.to_string(), error.is_transient());
                tracing::warn!(%attempt, %error, again, "an upload could not begin");
                let outcome = Err(AttemptError::NoUpload { what, again }.into());
                Some(Event::AttemptEnded { worker, attempt, outcome })
            }
        };
        if let Some(event) = answer {
            self.apply(event);
        }
    }

    /// Stops an attempt. One that still waits for its upload ends at once.
    pub(super) fn stop(&mut self, worker: WorkerId, attempt: AttemptId) -> Option<Event> {
        if self.workers.upload_begun(&attempt).is_some() {
            return Some(Event::AttemptEnded { worker, attempt, outcome: Err(Failure::Cancelled) });
        }
        self.workers.stop(&worker, &attempt);
        None
    }

    /// A dispatched attempt ended.
    pub(super) fn report(
        &mut self,
        worker: WorkerId,
        attempt: AttemptId,
        outcome: Result<v1::TaskResult, Failure>,
    ) {
        match &outcome {
            Ok(_) | Err(Failure::Cancelled | Failure::Fatal { .. }) => {}
            Err(failure @ Failure::Refused { .. }) => {
                let run = self.jobs.get_mut(&attempt.task.job);
                if let Some(refusals) = run.and_then(|run| run.refusals.count(attempt.task.stage.0)) {
                    tracing::warn!(%attempt, %worker, %failure, refusals, "a worker had no room for a task");
                }
            }
            Err(failure) => tracing::warn!(%attempt, %worker, %failure, "a task attempt failed"),
        }
        self.metrics.count_attempt(&attempt, &outcome);
        let mut run = self.jobs.get_mut(&attempt.task.job);
        if let (Some(run), Ok(v1::TaskResult { usage: Some(usage), .. })) = (&mut run, &outcome) {
            run.notes.succeeded(attempt.task.stage.0, usage);
        }
        let outcome = outcome.and_then(|result| match run {
            Some(run) => run.keep(&attempt, result).map_err(Failure::from),
            None => Ok(()),
        });
        if let Err(Failure::Fatal { reason }) = &outcome {
            tracing::error!(%attempt, %worker, reason, "a fatal failure ends the job");
        }
        self.apply(Event::AttemptEnded { worker, attempt, outcome });
    }
}
