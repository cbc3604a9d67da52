//! The beginning and the end of jobs: submissions, cancellations, and the journal records that precede what others see.

use std::time::{Duration, UNIX_EPOCH};

use tally_common::{secrets, traces};
use tally_proto::limits::shorten;
use tally_proto::v1::EventKind;
use tally_proto::v1::journal_record::Record;
use tally_proto::{JobId, v1};
use tally_scheduler::{Event, JobShape, Outcome};
use tokio::sync::oneshot;

use super::job_run::JobRun;
use super::job_run::notes::event;
use super::job_run::submission::Submission;
use super::live_jobs::Ending;
use super::work::Work;
use super::{AfterRecord, Driver, Ended, Refusal, Submit};
use crate::history::is_over;
use crate::job::STAGES;

impl Driver {
    pub(super) fn submit(&mut self, submit: Submit) {
        if let Some((job, run)) = self.jobs.same_day(&submit.spec)
            && run.cancelled
        {
            tracing::info!(%job, "a job is submitted again while it is being cancelled: the new one begins after its end");
            run.clients.submit_afterwards(submit);
            return;
        }
        let Some(submit) = self.jobs.wait_for_end(submit) else { return };
        let Submit { spec, key, accepted, ended } = submit;
        if let Some((job, run)) = self.jobs.same_day(&spec) {
            if run.submission.spec.same_work(&spec) {
                run.clients.wait(ended);
                run.accept(Some((accepted, true)));
            } else {
                let refusal = Refusal::OtherInputs { job: job.clone(), date: spec.date.clone() };
                // The client may have hung up.
                let _ = accepted.send(Err(refusal));
            }
            return;
        }
        if let Some(refusal) = self.jobs.refusal() {
            let _ = accepted.send(Err(refusal));
            return;
        }
        let dataset = match spec.configured() {
            Ok(dataset) => dataset,
            Err(error) => {
                let _ = accepted.send(Err(Refusal::Dataset(error.to_string())));
                return;
            }
        };
        let job = spec.id.clone();
        let submission = Submission { spec, dataset, key, submitted_at: self.now.unix_millis };
        let remote = self.workers.remote().is_some();
        let mut run = JobRun::new(submission, self.now.elapsed, self.epoch, remote);
        run.notes.add(self.now.unix_millis, event(EventKind::Accepted, "the job was accepted"));
        run.clients.wait(ended);
        run.accept(Some((accepted, false)));
        let record = Record::Submitted(run.submission.record());
        self.jobs.insert(job.clone(), run);
        self.outputs.write(record, AfterRecord::Submitted(job));
    }

    /// Stops a job as soon as the cancellation is in the journal, unless the publish has begun. Then the client gets its
    /// answer.
    pub(super) fn cancel(&mut self, job: &JobId, reply: oneshot::Sender<()>) {
        let Some(reply) = self.jobs.wait_for_record(job, reply) else { return };
        let run = self.jobs.get_mut(job).filter(|run| !run.cancelled && !run.state.is_committing());
        let Some(run) = run else {
            // It may be too late: the client sees by the status that the job is being published.
            self.show_job(job);
            // The client may have hung up.
            let _ = reply.send(());
            return;
        };
        run.cancelled = true;
        self.jobs.begin_cancel(job, reply);
        let record = Record::Cancelled(v1::JobCancelled { job: job.to_string() });
        self.outputs.write(record, AfterRecord::Cancelled(job.clone()));
    }

    /// A record is durable.
    pub(super) fn written(&mut self, then: AfterRecord) {
        self.outputs.written();
        match then {
            AfterRecord::Submitted(job) => {
                let Some(run) = self.jobs.get_mut(&job) else { return };
                self.metrics.registry.add(&job, run.first_status());
                run.state.recorded();
                run.accept(None);
                self.begin(&job);
            }
            AfterRecord::Planned(job) => self.plan_recorded(&job),
            AfterRecord::Committed(job) => self.committed(&job),
            AfterRecord::Cancelled(job) => {
                self.note(&job, event(EventKind::Cancelled, "a client cancelled the job"));
                self.show_job(&job);
                self.jobs.cancel_recorded(&job);
                if self.scheduler.status(&job).is_some() {
                    self.apply(Event::JobCancelled { job });
                }
            }
            AfterRecord::Ended(job) => self.report_end(&job),
            AfterRecord::Noted => self.note_times.open = false,
            AfterRecord::Notified => {}
        }
    }

    /// Passes a job to the scheduler.
    pub(super) fn begin(&mut self, job: &JobId) {
        let Some(run) = self.jobs.get(job) else { return };
        if run.cancelled {
            self.finish(job, Outcome::Cancelled);
            self.release(job);
            return;
        }
        // Fails only for a job without stages.
        if let Ok(shape) = JobShape::chain(STAGES.len() as u32) {
            self.apply(Event::JobSubmitted { job: job.clone(), shape });
        }
    }

    /// Drops a job and its data on all workers.
    pub(super) fn release(&mut self, job: &JobId) {
        self.workers.release(job);
        let submits = self.jobs.remove(job).map(|mut run| run.clients.take_submits());
        submits.into_iter().flatten().for_each(|submit| self.submit(submit));
    }

    /// Ends a job as the scheduler decided.
    pub(super) fn finish(&mut self, job: &JobId, outcome: Outcome) {
        let Some(run) = self.jobs.get_mut(job) else { return };
        let ended = match outcome {
            Outcome::Done => Ended::Done(Box::new(run.summary(self.now.elapsed))),
            Outcome::Failed { .. } if run.cancelled => Ended::Cancelled,
            Outcome::Cancelled => Ended::Cancelled,
            // The reason is stored and shown, so secrets that a store's message may contain are removed here.
            Outcome::Failed { reason } => {
                let reason = shorten(&secrets::cut(&reason.to_string())).into_owned();
                if run.is_unmet { Ended::Unmet(reason) } else { Ended::Failed(reason) }
            }
        };
        self.end_as(job, ended);
    }

    /// Ends a job: discards what it staged, then writes the end to the journal, then reports it.
    pub(super) fn end_as(&mut self, job: &JobId, ended: Ended) {
        self.show_job(job);
        let Some(run) = self.jobs.get_mut(job) else { return };
        let mut status = self.metrics.registry.get(job).unwrap_or_else(|| run.first_status());
        status.ended_at = self.now.unix_millis;
        status.phase = String::new();
        (status.cancelling, status.waits) = (false, None);
        let state = match &ended {
            Ended::Done(summary) => {
                status.summary = match run.state.recorded_summary() {
                    Some(summary) => summary.into(),
                    None => serde_json::to_string(summary).unwrap_or_default(),
                };
                v1::JobState::Done
            }
            Ended::Failed(reason) | Ended::Unmet(reason) => {
                status.reason.clone_from(reason);
                status.unmet_expectation = matches!(ended, Ended::Unmet(_));
                v1::JobState::Failed
            }
            Ended::Cancelled => v1::JobState::Cancelled,
        };
        status.set_state(state);
        let text = match &ended {
            Ended::Done(_) => "done: the day is published".into(),
            Ended::Failed(reason) | Ended::Unmet(reason) => format!("failed: {reason}"),
            Ended::Cancelled => "cancelled: the output is unchanged".into(),
        };
        run.notes.add(self.now.unix_millis, event(EventKind::Ended, text));
        let (phase, phase_millis) = run.phases.notes(self.now.elapsed);
        let notes = v1::JobNotes { phase, phase_millis, ..run.notes.all(job.as_str()) };
        let attempts = std::mem::take(&mut run.notes.attempts);
        let staging = run.state.take_staging();
        let (waiting, spec) = (run.clients.take_waiting(), run.submission.spec.clone());
        let (cancels, afterwards) = (vec![], vec![]);
        let ending =
            Ending { status, notes, attempts, ended, waiting, spec, afterwards, cancels, recorded: false };
        self.jobs.keep_ending(job, ending);
        match staging {
            Some(staging) => self.outputs.work(Work::Discard { job: job.clone(), staging }),
            None => self.discarded(job),
        }
    }

    /// The staged files of an ended job are removed, or the time limit for that is over: its end goes to the journal.
    pub(super) fn discarded(&mut self, job: &JobId) {
        let Some((status, notes)) = self.jobs.end_to_record(job) else { return };
        let undelivered = self.metrics.registry.receivers();
        let record = Record::Ended(v1::JobEnded { status: Some(status), notes: Some(notes), undelivered });
        self.outputs.write(record, AfterRecord::Ended(job.clone()));
    }

    /// Reports a job's end, which is in the journal now.
    fn report_end(&mut self, job: &JobId) {
        let Some(ending) = self.jobs.take_ending(job) else { return };
        let Ending { status, notes, attempts, ended, waiting, cancels, afterwards, .. } = ending;
        tracing::info!(%job, state = status.state().as_str_name(), reason = status.reason, "a job ended");
        debug_assert!(is_over(&status));
        self.metrics.count_job(status.state());
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let outcome = match status.state() {
            v1::JobState::Done => Ok(()),
            v1::JobState::Cancelled => Err("cancelled"),
            _ => Err(status.reason.as_str()),
        };
        traces::job(job, at(status.submitted_at), at(status.ended_at), outcome);
        self.metrics.registry.keep_notes(job, notes);
        self.metrics.registry.keep_attempts(job, attempts);
        self.metrics.registry.update(job, |shown| {
            *shown = status;
            true
        });
        for reply in cancels {
            // The client may have hung up.
            let _ = reply.send(());
        }
        for reply in waiting {
            // The client may have hung up.
            let _ = reply.send(ended.clone());
        }
        afterwards.into_iter().for_each(|submit| self.submit(submit));
    }
}
