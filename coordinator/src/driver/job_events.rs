//! What the driver notes of jobs, and when: events of attempts and workers, and the records of the notes in the journal.
//!
//! A record of notes is not a decision: nothing waits for it. Not here: the list of a job's events (`job_run::notes`).

use std::time::Duration;

use tally_common::counts::counted;
use tally_proto::v1::journal_record::Record;
use tally_proto::v1::{EventKind, JobEvent};
use tally_proto::{AttemptId, Failure, JobId, WorkerId, v1};
use tally_scheduler::{Event, RunningAttempt};

use super::job_run::notes::{attempt_event, event};
use super::{AfterRecord, Driver};
use crate::attempt_log::AttemptEnd;
use crate::cluster::Removal;

/// The shortest time between two records of notes.
const INTERVAL: Duration = Duration::from_secs(1);

/// When notes are recorded.
#[derive(Debug, Default)]
pub(super) struct NoteTimes {
    /// A record is on its way to the journal.
    pub(super) open: bool,
    /// When the next record may be written.
    due: Duration,
}

impl Driver {
    /// Adds an event to a job's list, if the job is live.
    pub(super) fn note(&mut self, job: &JobId, event: JobEvent) {
        let now = self.now.unix_millis;
        if let Some(run) = self.jobs.get_mut(job) {
            run.notes.add(now, event);
        }
    }

    /// Adds an event about a worker to the lists of all live jobs.
    pub(super) fn note_worker(&mut self, kind: EventKind, worker: &WorkerId, text: &str) {
        let now = self.now.unix_millis;
        for (_, run) in self.jobs.iter_mut() {
            run.notes.add(now, JobEvent { worker: worker.to_string(), ..event(kind, text) });
        }
    }

    /// Notes the end of an attempt that the scheduler is about to hear of.
    pub(super) fn note_end(&mut self, ended: &Event) {
        match ended {
            Event::AttemptEnded { worker, attempt, outcome } => {
                let started = self.scheduler.started(attempt).map(|(started, _)| started);
                let time = started.map_or(0, |started| self.millis().0.saturating_sub(started.0));
                let now = self.now.unix_millis;
                let Some(run) = self.jobs.get_mut(&attempt.task.job) else { return };
                let end = match outcome {
                    Ok(()) => AttemptEnd::Done,
                    // Without a command to stop, which is noted when it is sent.
                    Err(Failure::Cancelled) => AttemptEnd::Stopped,
                    Err(_) => AttemptEnd::Failed,
                };
                // Unknown for an attempt that the scheduler does not expect any more.
                if started.is_some() {
                    run.notes.attempts.push(worker, attempt, (now, time), end);
                }
                let Err(failure) = outcome else { return };
                run.notes.failed(attempt.task.stage.0, time);
                if *failure != Failure::Cancelled {
                    let event = attempt_event(
                        EventKind::AttemptFailed,
                        worker,
                        attempt,
                        tally_common::secrets::cut(&failure.to_string()),
                    );
                    run.notes.add(now, event);
                }
            }
            Event::WorkerLost { worker } => self.note_lost(worker),
            _ => {}
        }
    }

    /// Notes what each job loses with a worker.
    fn note_lost(&mut self, worker: &WorkerId) {
        let why = self.workers.member(worker).and_then(|member| member.removed_because.take());
        let why = why.unwrap_or(Removal::Lost("it counts as lost"));
        let jobs: Vec<JobId> = self.jobs.iter().map(|(job, _)| job.clone()).collect();
        for job in jobs {
            let running: Vec<RunningAttempt> =
                self.scheduler.running(&job).filter(|running| running.worker == *worker).collect();
            let outputs = self.scheduler.outputs_of_job_held_by(&job, worker);
            let noted = match why {
                Removal::Drained if running.is_empty() && outputs == 0 => {
                    event(EventKind::WorkerLeft, why.as_str())
                }
                _ => {
                    let attempts = counted(running.len(), "running attempt");
                    let outputs = counted(outputs, "output");
                    event(EventKind::WorkerLost, format!("{}; lost: {attempts}, {outputs}", why.as_str()))
                }
            };
            self.note(&job, JobEvent { worker: worker.to_string(), ..noted });
            let (now, since) = (self.now.unix_millis, self.millis().0);
            for RunningAttempt { attempt, started, .. } in running {
                let event = attempt_event(EventKind::AttemptFailed, worker, &attempt, "the worker was lost");
                self.note(&job, event);
                if let Some(run) = self.jobs.get_mut(&job) {
                    let times = (now, since.saturating_sub(started.0));
                    run.notes.attempts.push(worker, &attempt, times, AttemptEnd::Failed);
                }
            }
        }
    }

    /// Notes an attempt that is asked to stop, because another one was faster or its job ended. Its later end is not noted.
    pub(super) fn note_stop(&mut self, worker: &WorkerId, attempt: &AttemptId) {
        let Some(started) = self.scheduler.stopped_since(worker, attempt) else { return };
        let times = (self.now.unix_millis, self.millis().0.saturating_sub(started.0));
        // The commands of a job's end stop its attempts before they end the job.
        if let Some(run) = self.jobs.get_mut(&attempt.task.job) {
            run.notes.attempts.push(worker, attempt, times, AttemptEnd::Stopped);
        }
    }

    /// Notes an attempt that starts beside a slow one.
    pub(super) fn note_start(&mut self, worker: &WorkerId, attempt: &AttemptId) {
        let Some((_, true)) = self.scheduler.started(attempt) else { return };
        let first = self.scheduler.running(&attempt.task.job);
        let first = first.filter(|running| running.attempt.task == attempt.task && !running.speculative);
        let slow = first.map(|first| (first.worker, self.millis().since(first.started))).next();
        let text = match slow {
            Some((slow, age)) => {
                format!("the attempt on worker {slow} runs for {:.1} s already", age.as_secs_f64())
            }
            None => "another attempt is slow".into(),
        };
        let event = attempt_event(EventKind::SpeculativeAttempt, worker, attempt, text);
        self.note(&attempt.task.job, event);
    }

    /// Has the notes recorded that are not in the journal yet. A job's end records all of its notes.
    pub(super) fn record_notes(&mut self) {
        let now = self.now.elapsed;
        if self.note_times.open || now < self.note_times.due || self.workers.remote().is_none() {
            return;
        }
        let mut notes = vec![];
        for (job, run) in self.jobs.iter_mut() {
            if run.notes.has_unrecorded() && run.state.is_recorded() && !run.state.is_committing() {
                let phases = run.phases.notes(now);
                notes.push(v1::JobNotes {
                    phase: phases.0,
                    phase_millis: phases.1,
                    ..run.notes.take_unrecorded(job.as_str())
                });
            }
        }
        if notes.is_empty() {
            return;
        }
        (self.note_times.open, self.note_times.due) = (true, now.saturating_add(INTERVAL));
        let version = env!("CARGO_PKG_VERSION").to_string();
        let claim = v1::Claim { epoch: self.epoch, version, notes, ..v1::Claim::default() };
        self.outputs.write(Record::Claim(claim), AfterRecord::Noted);
    }

    /// Has it recorded that a receiver has the notice of a job's end, so that no later leader sends it again.
    pub(super) fn notified(&mut self, job: &JobId, receiver: &str) {
        let notified = vec![v1::JobNotified { job: job.to_string(), receiver: receiver.into() }];
        let version = env!("CARGO_PKG_VERSION").to_string();
        let claim = v1::Claim { epoch: self.epoch, version, notified, ..v1::Claim::default() };
        self.outputs.write(Record::Claim(claim), AfterRecord::Notified);
    }
}
