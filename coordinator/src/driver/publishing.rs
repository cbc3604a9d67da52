//! From the last written part file to the published day: the part files are prepared, the decision goes to the journal,
//! then the day is made visible.

use tally_common::counts::counted;
use tally_proto::v1::EventKind;
use tally_proto::v1::journal_record::Record;
use tally_proto::{JobId, StageId, v1};
use tally_scheduler::Event;

use super::job_run::NotReady;
use super::job_run::notes::stage_event;
use super::publish_check::CheckError;
use super::work::{StageError, Staged, Work};
use super::{AfterRecord, Driver};
use crate::job::{MAP, REDUCE, WRITE};
use crate::publish::StagedPart;
use crate::publish::staging::StagingError;
use crate::results::{Winner, winners};

impl Driver {
    pub(super) fn publish(&mut self, job: JobId) -> Option<Event> {
        let run = self.jobs.get_mut(&job)?;
        run.end_stage(self.now, &mut self.metrics.memory);
        if run.cancelled {
            return Some(Event::PublishFailed { job, reason: "cancelled".into() });
        }
        let check = match run.publish_check() {
            Ok(check) => check,
            Err(error) => return Some(Event::PublishFailed { job, reason: error.to_string() }),
        };
        let outputs = [MAP, REDUCE, WRITE].map(|stage| winners(&self.scheduler, &job, stage));
        let staging = match run.ready_to_publish(&outputs) {
            Ok(staging) => staging,
            Err(NotReady::Incompatible { files }) => {
                let reason =
                    "part files were written from attempts of reduce tasks that differ in their order";
                tracing::warn!(%job, ?files, reason, "part files are written again");
                run.phases.resume_last();
                let text = format!("to write again: {}: {reason}", counted(files.len(), "part file"));
                run.notes.add(self.now.unix_millis, stage_event(EventKind::StageBegun, "write", text));
                let reason = reason.into();
                return Some(Event::Incompatible { job, stage: StageId(WRITE), indices: files, reason });
            }
            Err(error) => return Some(Event::PublishFailed { job, reason: error.to_string() }),
        };
        let [.., written] = outputs;
        let part = |winner: &Winner| {
            let (index, attempt) = (winner.attempt.task.index, winner.attempt.attempt);
            StagedPart { index, attempt, folder: run.folder_of(index) }
        };
        let parts: Vec<StagedPart> = written.iter().map(part).collect();
        let manifest = run.manifest(&written);
        let text = format!("to publish: {}", counted(parts.len(), "part file"));
        run.notes.add(self.now.unix_millis, stage_event(EventKind::Publish, "publish", text));
        self.outputs.work(Work::StageDay { job, staging, parts, manifest, check });
        None
    }

    /// The part files are prepared, or not.
    pub(super) fn staged(&mut self, job: JobId, staged: Result<Box<Staged>, StageError>) {
        let Some(run) = self.jobs.get_mut(&job) else {
            // The job ended meanwhile.
            if let Ok(staged) = staged {
                self.outputs.work(Work::Discard { job, staging: staged.staging });
            }
            return;
        };
        match staged {
            Err(error) => {
                let reason = error.to_string();
                run.is_unmet = matches!(error, StageError::Check(CheckError::Unmet(_)));
                self.metrics.count_publish(self.now, &job, run, Err(&reason));
                self.apply(Event::PublishFailed { job, reason });
            }
            Ok(staged) => {
                let Staged { staging, ready, notes } = *staged;
                notes.iter().for_each(|note| tracing::warn!(%job, "{note}"));
                run.expectation_notes = notes;
                let commit = ready.record();
                run.state.decided(staging, ready);
                let record = v1::JobCommitted {
                    job: job.to_string(),
                    device: commit.device,
                    inode: commit.inode,
                    summary: serde_json::to_string(&run.summary(self.now.elapsed)).unwrap_or_default(),
                    parts: commit.parts,
                    replaces: commit.replaces,
                };
                self.outputs.write(Record::Committed(record), AfterRecord::Committed(job));
            }
        }
    }

    /// The decision is in the journal: the day is made visible.
    pub(super) fn committed(&mut self, job: &JobId) {
        let Some(run) = self.jobs.get_mut(job) else { return };
        if let Some((staging, ready)) = run.state.take_decided() {
            let text = "the decision to publish is in the journal";
            run.notes.add(self.now.unix_millis, stage_event(EventKind::Publish, "publish", text));
            let spec = Box::new(run.submission.spec.clone());
            self.outputs.work(Work::Publish { spec, staging, ready });
        }
    }

    pub(super) fn published(&mut self, job: JobId, result: Result<(), StagingError>) {
        let result = result.map_err(|error| error.to_string());
        if let Some(run) = self.jobs.get_mut(&job) {
            self.metrics.count_publish(self.now, &job, run, result.as_ref().copied().map_err(String::as_str));
            if result.is_ok() {
                run.phases.end(self.now.elapsed, &mut self.metrics.memory);
                let text = "the day is visible";
                run.notes.add(self.now.unix_millis, stage_event(EventKind::Publish, "publish", text));
            }
        }
        self.apply(match result {
            Ok(()) => Event::Published { job },
            Err(reason) => Event::PublishFailed { job, reason },
        });
    }
}
