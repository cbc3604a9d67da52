//! How jobs begin and end: submits, cancels, and the records that stand between a decision and
//! its telling.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tally_dataset::dataset;
use tally_proto::v1::journal_record::Record;
use tally_proto::{JobId, v1};
use tally_scheduler::{Event, JobShape, Outcome};
use tally_worker::traces;
use tokio::sync::oneshot;

use super::run::JobRun;
use super::{Driver, Then};
use crate::history::is_over;
use crate::job::{JobSpec, STAGES};
use crate::summary::Summary;

/// How a job ended.
#[derive(Debug, Clone)]
pub enum Ended {
    /// Its day is published.
    Done(Box<Summary>),
    /// It failed, with a reason for people; the old day stays.
    Failed(String),
    /// It was cancelled; the old day stays.
    Cancelled,
}

/// A submit.
#[derive(Debug)]
pub struct Submit {
    /// The job, under the id that it will have if it is new.
    pub spec: JobSpec,
    /// Told when the job is on record, or not accepted.
    pub accepted: oneshot::Sender<Result<Accepted, Refusal>>,
    /// Told how it ended.
    pub ended: Option<oneshot::Sender<Ended>>,
}

/// A job that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub job: JobId,
    /// It ran before this submit.
    pub existing: bool,
}

/// Why a job is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody knows such a dataset.
    #[error("there is no dataset {0:?}")]
    Dataset(String),
    /// Another job makes the same day.
    #[error("job {job} already makes this output's day {date} from other inputs: wait for it, or cancel it")]
    OtherInputs {
        /// The one that runs.
        job: JobId,
        /// The day.
        date: String,
    },
    /// Too many at once.
    #[error("{0} jobs run already, as many as may: submit again when one is over")]
    Full(usize),
}

/// A job that is over, until that is on record.
pub(super) struct Ending {
    status: v1::JobStatus,
    ended: Ended,
    waiting: Vec<oneshot::Sender<Ended>>,
}

/// Milliseconds since 1970.
pub(super) fn clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Driver {
    pub(super) fn submit(&mut self, submit: Submit) {
        let Submit { spec, accepted, ended } = submit;
        let same_day = self.jobs.iter_mut().find(|(_, run)| run.spec.same_day(&spec));
        if let Some((job, run)) = same_day {
            let refusal = || Refusal::OtherInputs { job: job.clone(), date: spec.date.clone() };
            if run.spec.same_work(&spec) {
                run.waiting.extend(ended);
                run.accept(Some((accepted, true)));
            } else {
                // Who asked may have gone.
                let _ = accepted.send(Err(refusal()));
            }
            return;
        }
        let refusal = if self.jobs.len() >= self.most_jobs {
            Some(Refusal::Full(self.most_jobs))
        } else if dataset(&spec.dataset).is_none() {
            Some(Refusal::Dataset(spec.dataset.clone()))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let _ = accepted.send(Err(refusal));
            return;
        }
        let Some(dataset) = dataset(&spec.dataset) else { return };
        let job = spec.id.clone();
        let mut run = JobRun::new(spec, dataset, rand::random::<[u8; 16]>().to_vec(), clock());
        run.waiting.extend(ended);
        run.accept(Some((accepted, false)));
        let record = Record::Submitted(run.record());
        self.jobs.insert(job.clone(), run);
        self.write(record, Then::Submitted(job));
    }

    /// Stops a job as soon as that is on record, unless it is too late.
    pub(super) fn cancel(&mut self, job: &JobId) {
        let Some(run) = self.jobs.get_mut(job) else { return };
        if run.cancelled || run.committing {
            return;
        }
        run.cancelled = true;
        self.write(
            Record::Cancelled(v1::JobCancelled { job: job.to_string() }),
            Then::Cancelled(job.clone()),
        );
    }

    /// Writes a record down, or stops leading.
    pub(super) fn write(&mut self, record: Record, then: Then) {
        if let Err(end) = self.writer.write(record, then) {
            self.end.get_or_insert(end);
        }
    }

    pub(super) fn written(&mut self, then: Then) {
        match then {
            Then::Submitted(job) => {
                let Some(run) = self.jobs.get_mut(&job) else { return };
                self.registry.add(&job, run.first_status());
                run.recorded = true;
                run.accept(None);
                self.begin(&job);
            }
            Then::Planned(job) => self.plan_recorded(&job),
            Then::Committed(job) => self.committed(&job),
            Then::Cancelled(job) => {
                if self.scheduler.status(&job).is_some() {
                    self.step(Event::JobCancelled { job });
                }
            }
            Then::Ended(job) => self.told(&job),
        }
    }

    /// Hands a job to the scheduler.
    pub(super) fn begin(&mut self, job: &JobId) {
        let Some(run) = self.jobs.get(job) else { return };
        if run.cancelled {
            self.finish(job, Outcome::Cancelled);
            self.fleet.release(job);
            self.jobs.remove(job);
            return;
        }
        // Fails only for a job without stages.
        if let Ok(shape) = JobShape::chain(STAGES.len() as u32) {
            self.step(Event::JobSubmitted { job: job.clone(), shape });
        }
    }

    /// Puts a job's end on record.
    pub(super) fn finish(&mut self, job: &JobId, outcome: Outcome) {
        let Some(run) = self.jobs.get_mut(job) else { return };
        let ended = match outcome {
            Outcome::Done => Ended::Done(Box::new(run.summary())),
            Outcome::Failed { .. } if run.cancelled => Ended::Cancelled,
            Outcome::Cancelled => Ended::Cancelled,
            Outcome::Failed { reason } => Ended::Failed(reason.to_string()),
        };
        self.end_as(job, ended);
    }

    pub(super) fn end_as(&mut self, job: &JobId, ended: Ended) {
        self.show_job(job);
        let Some(run) = self.jobs.get_mut(job) else { return };
        run.discard();
        let mut status = self.registry.get(job).unwrap_or_else(|| run.first_status());
        status.ended_at = clock();
        status.phase = String::new();
        let state = match &ended {
            Ended::Done(summary) => {
                status.summary = match &run.committed_summary {
                    Some(summary) => summary.clone(),
                    None => serde_json::to_string(summary).unwrap_or_default(),
                };
                v1::JobState::Done
            }
            Ended::Failed(reason) => {
                status.reason.clone_from(reason);
                v1::JobState::Failed
            }
            Ended::Cancelled => v1::JobState::Cancelled,
        };
        status.set_state(state);
        let waiting = std::mem::take(&mut run.waiting);
        let record = Record::Ended(v1::JobEnded { status: Some(status.clone()) });
        self.ending.insert(job.clone(), Ending { status, ended, waiting });
        self.write(record, Then::Ended(job.clone()));
    }

    /// Tells a job's end to those who wait.
    fn told(&mut self, job: &JobId) {
        let Some(Ending { status, ended, waiting }) = self.ending.remove(job) else { return };
        tracing::info!(%job, state = status.state().as_str_name(), reason = status.reason, "a job is over");
        debug_assert!(is_over(&status));
        self.count_job(status.state());
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let outcome = match status.state() {
            v1::JobState::Done => Ok(()),
            v1::JobState::Cancelled => Err("cancelled"),
            _ => Err(status.reason.as_str()),
        };
        traces::job(job, at(status.submitted_at), at(status.ended_at), outcome);
        self.registry.update(job, |shown| {
            *shown = status;
            true
        });
        self.forgettable.push(job.clone());
        for reply in waiting {
            // Whoever waited may have gone.
            let _ = reply.send(ended.clone());
        }
    }
}
