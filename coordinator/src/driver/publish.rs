//! From the last written part file to the published day: part files are laid ready, the decision
//! is put on record, then the day is exchanged.

use std::time::Duration;

use tally_proto::v1::journal_record::Record;
use tally_proto::{JobId, StageId, v1};
use tally_scheduler::Event;
use tally_worker::traces;

use super::run::Unready;
use super::{Driver, Input, Then};
use crate::job::{MAP, REDUCE, WRITE};
use crate::publish::stage::{Published, Ready, Stage};
use crate::results::winners;

/// A day that only needs to be exchanged.
#[derive(Debug)]
pub struct Staged {
    /// Where it lies.
    pub staging: Stage,
    /// What identifies it.
    pub ready: Ready,
}

/// How often a store that fails is asked again to publish what may be decided, and after how long.
pub(super) const PUBLISH_TRIES: u32 = 10;
pub(super) const PUBLISH_AGAIN: Duration = Duration::from_secs(5);

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
        let manifest = run.manifest(&written);
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let staged = staging.ready(parts, manifest).await;
            let staged = staged.map(|(staging, ready)| Box::new(Staged { staging, ready }));
            let _ = sender.send(Input::Staged(job, staged)).await;
        });
        None
    }

    pub(super) fn staged(&mut self, job: JobId, staged: Result<Box<Staged>, String>) {
        let Some(run) = self.jobs.get_mut(&job) else { return };
        match staged {
            Err(reason) => {
                self.publish_ended(&job, Err(&reason));
                self.step(Event::PublishFailed { job, reason });
            }
            Ok(staged) => {
                let Staged { staging, ready } = *staged;
                let commit = ready.record();
                run.staging = Some(staging);
                run.ready = Some(ready);
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
        let Some((staging, ready)) = run.staging.take().zip(run.ready.take()) else { return };
        let (sender, job) = (self.sender.clone(), job.clone());
        tokio::spawn(async move {
            let done = publish(staging, ready).await;
            let _ = sender.send(Input::Published(job, done)).await;
        });
    }

    /// Counts a publish that is over, and tells it as part of the job's trace.
    pub(super) fn publish_ended(&mut self, job: &JobId, outcome: Result<(), &str>) {
        let Some(run) = self.jobs.get(job) else { return };
        let took = run.stage_took();
        traces::step(job, "publish", took, outcome);
        self.counts.publish.count(took, outcome.is_ok().then(|| run.written()));
    }

    pub(super) fn published(&mut self, job: JobId, result: Result<(), String>) {
        self.publish_ended(&job, result.as_ref().copied().map_err(String::as_str));
        if let (Ok(()), Some(run)) = (&result, self.jobs.get_mut(&job)) {
            run.stage_ended(&mut self.memory);
        }
        self.step(match result {
            Ok(()) => Event::Published { job },
            Err(reason) => Event::PublishFailed { job, reason },
        });
    }
}

async fn publish(mut staging: Stage, mut ready: Ready) -> Result<(), String> {
    for tried in 1.. {
        let (objects, manifest, reason) = match staging.publish(ready).await {
            Published::Done => return Ok(()),
            Published::Failed(reason) => return Err(reason),
            Published::Again(objects, manifest, reason) => (objects, manifest, reason),
        };
        if tried == PUBLISH_TRIES {
            let url = objects.url();
            return Err(format!("{reason}; if {url} was decided, the next job or `tally gc` carries it out"));
        }
        tracing::warn!(reason, "the day cannot be published: tried again");
        tokio::time::sleep(PUBLISH_AGAIN).await;
        (staging, ready) = (Stage::Objects(objects), Ready::Objects(manifest));
    }
    Err("the day was not published".into())
}
