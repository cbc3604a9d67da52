//! The checks before a day is published: the sums that each stage reported have to match those of the next stage.
//!
//! Sums that a worker of an older version does not report are not compared. Not here: what workers verify themselves.

use tally_proto::{AttemptId, StageId, TaskId};

use super::JobRun;
use crate::job::MAP;
use crate::plan::files::Encoded;
use crate::results::{Winner, checksum_text};

/// A difference between the sums of two stages.
#[derive(Debug, thiserror::Error)]
pub(in crate::driver) enum VerifyError {
    /// Two attempts of a task reported different rows, or a reduce attempt read others than the map tasks wrote.
    #[error("{0}")]
    Attempts(String),
    /// A result does not say what the check needs.
    #[error("{attempt} {what}")]
    Unreported {
        /// The attempt.
        attempt: AttemptId,
        /// What is missing.
        what: &'static str,
    },
    /// A map attempt read more or fewer rows than its shard has.
    #[error(
        "{attempt} read {rows} rows of its shard, but the footers of its {files} files, the first being {first}, say \
         {planned}"
    )]
    Scanned {
        /// The attempt.
        attempt: AttemptId,
        /// Rows that it read.
        rows: u64,
        /// Files of its shard.
        files: usize,
        /// The first of them.
        first: String,
        /// Rows by the footers.
        planned: u64,
    },
    /// A part file has no result.
    #[error("part file {0} has no result")]
    NoResult(u32),
    /// A part file has more or fewer rows than planned.
    #[error("part file {number} has {rows} rows instead of {planned}")]
    FileRows {
        /// Its number.
        number: u32,
        /// Its rows.
        rows: u64,
        /// Those that were planned.
        planned: u64,
    },
    /// A part file has other content than its reduce tasks wrote.
    #[error(
        "part file {number} has rows with the checksum {} instead of {}",
        checksum_text(*copied),
        checksum_text(*made)
    )]
    FileChecksum {
        /// Its number.
        number: u32,
        /// Checksum of its rows.
        copied: u64,
        /// Checksum of the rows that it was to copy.
        made: u64,
    },
    /// The part files together are not the day.
    #[error("{files} part files have {rows} rows instead of {all_rows} in {all_files}")]
    DayRows {
        /// Part files.
        files: usize,
        /// Their rows.
        rows: u64,
        /// Rows of the day.
        all_rows: u64,
        /// Planned part files.
        all_files: usize,
    },
    /// The part files together have other content than the reduce tasks wrote.
    #[error(
        "the part files have rows with the checksum {}, but the reduce tasks made {}",
        checksum_text(*copied),
        checksum_text(*made)
    )]
    DayChecksum {
        /// Checksum of the part files' rows.
        copied: u64,
        /// Checksum that the reduce tasks reported.
        made: u64,
    },
}

impl JobRun {
    /// Compares the sums of all stages.
    ///
    /// # Errors
    /// [`VerifyError`] names what differs.
    pub(super) fn verify(&self, reduced: &[Winner], written: &[Winner]) -> Result<(), VerifyError> {
        if let Some(contradiction) = self.results.contradiction() {
            return Err(VerifyError::Attempts(contradiction.into()));
        }
        self.verify_scanned()?;
        if let Some(misread) = self.results.misread(reduced) {
            return Err(VerifyError::Attempts(misread));
        }
        self.verify_written(written)
    }

    /// Every map attempt read as many rows as its shard has by the footers.
    fn verify_scanned(&self) -> Result<(), VerifyError> {
        let job = &self.submission.spec.id;
        for ((index, attempt), rows, footers) in self.results.scanned() {
            let Some(task) = self.plan.inputs.tasks.get(index as usize) else { continue };
            let id = TaskId { job: job.clone(), stage: StageId(MAP), index };
            let attempt = AttemptId { task: id, attempt };
            let unreported = |what| VerifyError::Unreported { attempt: attempt.clone(), what };
            let planned = task.rows_with(footers).map_err(unreported)?;
            if let Some(planned) = planned.filter(|planned| *planned != rows) {
                let first = task.work.pieces.first().map_or_else(String::new, |piece| piece.url.clone());
                let files = task.work.pieces.len();
                return Err(VerifyError::Scanned { attempt, rows, files, first, planned });
            }
        }
        Ok(())
    }

    /// Every part file has the rows of its row groups, and all of them together have the rows of the day.
    fn verify_written(&self, written: &[Winner]) -> Result<(), VerifyError> {
        let (mut rows, mut checksum) = (0u64, Some(0u64));
        for (winner, file) in written.iter().zip(&self.plan.files) {
            let number = winner.attempt.task.index;
            let result = self.results.written(&winner.attempt).ok_or(VerifyError::NoResult(number))?;
            let planned = file.rows();
            if result.rows != planned {
                return Err(VerifyError::FileRows { number, rows: result.rows, planned });
            }
            let made = self.checksum_of(&winner.attempt, &file.groups);
            if let Some((made, copied)) = made.zip(result.checksum)
                && made != copied
            {
                return Err(VerifyError::FileChecksum { number, copied, made });
            }
            rows = rows.wrapping_add(result.rows);
            checksum = checksum.zip(result.checksum).map(|(all, sum)| all.wrapping_add(sum));
        }
        let (files, all_files, all_rows) = (written.len(), self.plan.files.len(), self.plan.totals.rows);
        if (files, rows) != (all_files, all_rows) {
            return Err(VerifyError::DayRows { files, rows, all_rows, all_files });
        }
        match checksum.zip(self.plan.checksum) {
            Some((copied, made)) if copied != made => Err(VerifyError::DayChecksum { copied, made }),
            _ => Ok(()),
        }
    }

    /// The checksum of the rows that a write attempt was to copy, if all of it is known.
    fn checksum_of(&self, written: &AttemptId, file: &[Encoded]) -> Option<u64> {
        let reads = self.writes.reads(written)?;
        file.iter().try_fold(0u64, |all, group| {
            let mut attempt = written.clone();
            attempt.task.stage.0 = crate::job::REDUCE;
            (attempt.task.index, attempt.attempt) = (group.task, *reads.get(&group.task)?);
            let (checksum, _) = self.results.row_group(&attempt, group.row_group)?.sums?;
            Some(all.wrapping_add(checksum))
        })
    }
}
