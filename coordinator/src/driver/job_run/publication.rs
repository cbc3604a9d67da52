//! What a job reports of its day: the manifest for the publish, and the summary.

use std::time::Duration;

use tally_dataset::DatasetError;

use super::JobRun;
use crate::driver::publish_check::PublishCheck;
use crate::expectations::DayFigures;
use crate::job::{STAGES, WRITE};
use crate::load::Day;
use crate::publish::commit_log::{Manifest, ManifestInput, ManifestPart};
use crate::publish::staging::key_of;
use crate::results::{Winner, checksum_text};
use crate::summary::{NamedTotals, StageSummary, Summary};

impl JobRun {
    /// The inputs and part files of the day. Only the publish to a store needs the part files.
    pub(in crate::driver) fn manifest(&self, written: &[Winner]) -> Manifest {
        let part = |winner: &Winner| {
            let upload = self.writes.upload(&winner.attempt)?;
            let result = self.results.written(&winner.attempt)?;
            Some(ManifestPart {
                key: key_of(upload)?,
                upload: upload.id.clone(),
                parts: result.parts.clone(),
                bytes: result.bytes,
                rows: result.rows,
                crc32: result.crc32,
                checksum: result.checksum.map(checksum_text),
            })
        };
        let pieces = self.plan.inputs.tasks.iter().flat_map(|task| &task.work.pieces);
        let mut inputs: Vec<ManifestInput> = pieces
            .map(|piece| ManifestInput {
                url: piece.url.clone(),
                bytes: piece.size,
                etag: piece.etag.clone(),
            })
            .collect();
        // Several tasks read a large file.
        inputs.dedup();
        Manifest {
            job: self.submission.spec.id.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            dataset: self.submission.spec.dataset.clone(),
            rows: self.plan.totals.rows,
            checksum: self.plan.checksum.map(checksum_text),
            ready_marker: self.submission.spec.ready_marker.clone(),
            inputs,
            files: written.iter().filter_map(part).collect(),
        }
    }

    /// The expectations of the day with its figures; `None` if there are no expectations.
    ///
    /// # Errors
    /// A total is too large.
    pub(in crate::driver) fn publish_check(&self) -> Result<Option<Box<PublishCheck>>, DatasetError> {
        let (spec, plan) = (&self.submission.spec, &self.plan);
        if spec.expectations.is_empty() {
            return Ok(None);
        }
        let (dataset, files) = (self.submission.dataset.clone(), Some(plan.files.len() as u64));
        let figures = DayFigures::new(&*dataset, &plan.totals, files, plan.nulls.as_deref())?;
        let (expectations, output) = (spec.expectations.clone(), spec.output.clone());
        Ok(Some(Box::new(PublishCheck { dataset, expectations, figures, output, date: spec.date.clone() })))
    }

    /// The size of the written day. A day that an earlier leader committed has its recorded size.
    pub(in crate::driver) fn written(&self, now: Duration) -> Day {
        let recorded = self.state.recorded_summary().and_then(|text| serde_json::from_str(text).ok());
        let summary: Summary = recorded.unwrap_or_else(|| self.summary(now));
        let write = summary.stages.iter().filter(|stage| stage.name == STAGES[WRITE as usize]);
        Day { files: summary.files as u64, rows: summary.rows, bytes: write.map(|stage| stage.bytes).sum() }
    }

    /// The largest resident memory of a process that ran tasks. Also sets that of the stages; workers in other processes
    /// report theirs, and the phases without tasks run in this process.
    fn peak_memory(&self, stages: &mut [StageSummary]) -> u64 {
        if !self.remote {
            return stages.iter().map(|stage| stage.peak_memory_bytes).max().unwrap_or(0);
        }
        let uses = self.notes.uses();
        for (stage, used) in stages.iter_mut().skip(1).zip(uses) {
            stage.peak_memory_bytes = used.peak_memory_bytes;
        }
        uses.iter().map(|used| used.peak_memory_bytes).max().unwrap_or(0)
    }

    /// The summary of the job so far.
    pub(in crate::driver) fn summary(&self, now: Duration) -> Summary {
        let (spec, plan) = (&self.submission.spec, &self.plan);
        let mut stages = self.phases.ended().to_vec();
        if let Some(planning) = stages.first_mut() {
            let (rows, _) = plan.input_size();
            (planning.tasks, planning.rows, planning.bytes) = (plan.inputs.files, rows, plan.inputs.fetched);
        }
        let peak = self.peak_memory(&mut stages);
        let reads = stages.iter().filter(|stage| stage.name == "plan" || stage.name == STAGES[0]);
        Summary {
            job_id: spec.id.to_string(),
            date: spec.date.clone(),
            rows: plan.totals.rows,
            files: plan.files.len(),
            totals: NamedTotals::new(self.submission.dataset.totals(), &plan.totals),
            bytes_read: reads.map(|stage| stage.bytes).sum(),
            shuffle_bytes: plan.shuffle_bytes,
            shuffle_network_bytes: plan.network_bytes,
            spilled_bytes: plan.spilled_bytes,
            seconds: self.phases.total_seconds(now),
            peak_memory_bytes: peak,
            stages,
            warnings: [&plan.inputs.warnings[..], &plan.deferred.warnings, &self.expectation_notes].concat(),
        }
    }
}
