//! From the last written part file to the published day: part files are laid ready, the decision
//! is put on record, then the day is exchanged.

use tally_proto::v1::journal_record::Record;
use tally_proto::{JobId, StageId, v1};
use tally_scheduler::Event;

use super::run::Unready;
use super::{Driver, Input, Then};
use crate::job::{MAP, REDUCE, WRITE};
use crate::publish::{Commit, Staging};
use crate::results::winners;

/// A day that only needs to be exchanged.
#[derive(Debug)]
pub struct Staged {
    /// Where it lies.
    pub staging: Staging,
    /// What identifies it.
    pub commit: Commit,
}

impl Driver {
    pub(super) fn publish(&mut self, job: JobId) -> Option<Event> {
        let run = self.jobs.get_mut(&job)?;
        run.stage_ended(&mut self.memory);
        if run.cancelled {
            return Some(Event::PublishFailed { job, reason: "cancelled".into() });
        }
        let outputs = [MAP, REDUCE, WRITE].map(|stage| winners(&self.scheduler, &job, stage));
        let staging = match run.ready_to_publish(&outputs) {
            Ok(staging) => staging,
            Err(Unready::Failed(reason)) => return Some(Event::PublishFailed { job, reason }),
            Err(Unready::Unfit { files, reason }) => {
                tracing::warn!(%job, ?files, reason, "part files are written again");
                run.write_again();
                return Some(Event::Unfit { job, stage: StageId(WRITE), indices: files, reason });
            }
        };
        run.committing = true;
        let [.., written] = outputs;
        let parts = written.iter().map(|w| (w.attempt.task.index, w.attempt.attempt)).collect::<Vec<_>>();
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let staged = tokio::task::spawn_blocking(move || {
                let commit = staging.commit(&parts)?;
                Ok(Box::new(Staged { staging, commit }))
            });
            let staged = match staged.await {
                Ok(staged) => staged.map_err(|e: crate::publish::PublishError| e.to_string()),
                Err(panic) => Err(panic.to_string()),
            };
            let _ = sender.send(Input::Staged(job, staged)).await;
        });
        None
    }

    pub(super) fn staged(&mut self, job: JobId, staged: Result<Box<Staged>, String>) {
        let Some(run) = self.jobs.get_mut(&job) else { return };
        match staged {
            Err(reason) => self.step(Event::PublishFailed { job, reason }),
            Ok(staged) => {
                let Staged { staging, commit } = *staged;
                run.staging = Some(staging);
                let record = v1::JobCommitted {
                    job: job.to_string(),
                    device: commit.device,
                    inode: commit.inode,
                    summary: serde_json::to_string(&run.summary()).unwrap_or_default(),
                    parts: commit.parts,
                };
                self.write(Record::Committed(record), Then::Committed(job));
            }
        }
    }

    pub(super) fn committed(&mut self, job: &JobId) {
        let Some(run) = self.jobs.get_mut(job) else { return };
        let Some(staging) = run.staging.take() else { return };
        let (sender, job) = (self.sender.clone(), job.clone());
        tokio::spawn(async move {
            let done = tokio::task::spawn_blocking(move || staging.publish()).await;
            let done = match done {
                Ok(done) => done.map_err(|e| e.to_string()),
                Err(panic) => Err(panic.to_string()),
            };
            let _ = sender.send(Input::Published(job, done)).await;
        });
    }

    pub(super) fn published(&mut self, job: JobId, result: Result<(), String>) {
        if let (Ok(()), Some(run)) = (&result, self.jobs.get_mut(&job)) {
            run.stage_ended(&mut self.memory);
        }
        self.step(match result {
            Ok(()) => Event::Published { job },
            Err(reason) => Event::PublishFailed { job, reason },
        });
    }
}
