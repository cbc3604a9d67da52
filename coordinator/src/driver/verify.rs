//! What must agree before a day may be published: each stage's word on its rows with what the next one counted.
//!
//! What a worker of an older version does not tell is not compared. Not here: what workers compare themselves.

use tally_proto::AttemptId;

use super::run::JobRun;
use crate::plan::files::Encoded;
use crate::results::{Winner, checksum_text};

impl JobRun {
    /// Compares the sums of all stages.
    ///
    /// # Errors
    /// A sentence that names what differs.
    pub(super) fn verify(&self, reduced: &[Winner], written: &[Winner]) -> Result<(), String> {
        if let Some(contradiction) = self.results.contradiction() {
            return Err(contradiction.into());
        }
        self.verify_scanned()?;
        if let Some(misread) = self.results.misread(reduced) {
            return Err(misread);
        }
        self.verify_written(written)
    }

    /// Every map attempt read as many rows as the footers say that its shard has.
    fn verify_scanned(&self) -> Result<(), String> {
        for (attempt, rows) in self.results.scanned() {
            let Some(task) = self.plan.tasks.get(attempt.task.index as usize) else { continue };
            if task.rows.is_some_and(|planned| planned != rows) {
                let first = task.work.pieces.first().map_or("", |piece| &piece.url);
                let planned = task.rows.unwrap_or(0);
                return Err(format!(
                    "{attempt} read {rows} rows of its shard, but the footers of its {} files, the first being \
                     {first}, say {planned}",
                    task.work.pieces.len()
                ));
            }
        }
        Ok(())
    }

    /// Every part file has the rows of the row groups that it was to have, and all of them those of the day.
    fn verify_written(&self, written: &[Winner]) -> Result<(), String> {
        let (mut rows, mut checksum) = (0u64, Some(0u64));
        for (winner, file) in written.iter().zip(&self.files) {
            let number = winner.attempt.task.index;
            let Some(result) = self.results.written(&winner.attempt) else {
                return Err(format!("nothing is known of part file {number}"));
            };
            let planned: u64 = file.iter().map(|group| group.rows).sum();
            if result.rows != planned {
                return Err(format!("part file {number} has {} rows instead of {planned}", result.rows));
            }
            let made = self.checksum_of(&winner.attempt, file);
            if let Some((made, copied)) = made.zip(result.checksum)
                && made != copied
            {
                let (made, copied) = (checksum_text(made), checksum_text(copied));
                return Err(format!(
                    "part file {number} has rows with the checksum {copied} instead of {made}"
                ));
            }
            rows = rows.wrapping_add(result.rows);
            checksum = checksum.zip(result.checksum).map(|(all, sum)| all.wrapping_add(sum));
        }
        if (written.len(), rows) != (self.files.len(), self.totals.rows) {
            return Err(format!(
                "{} part files have {rows} rows instead of {} in {}",
                written.len(),
                self.totals.rows,
                self.files.len()
            ));
        }
        match checksum.zip(self.checksum) {
            Some((copied, made)) if copied != made => {
                let (made, copied) = (checksum_text(made), checksum_text(copied));
                Err(format!(
                    "the part files have rows with the checksum {copied}, but the reduce tasks made {made}"
                ))
            }
            _ => Ok(()),
        }
    }

    /// The checksum of the rows that a write attempt was to copy, if all of it is known.
    fn checksum_of(&self, written: &AttemptId, file: &[Encoded]) -> Option<u64> {
        let read = self.read_by.get(written)?;
        file.iter().try_fold(0u64, |all, group| {
            let mut attempt = written.clone();
            attempt.task.stage.0 = crate::job::REDUCE;
            (attempt.task.index, attempt.attempt) = (group.task, *read.get(&group.task)?);
            let (checksum, _) = self.results.row_group(&attempt, group.row_group)?.sums?;
            Some(all.wrapping_add(checksum))
        })
    }
}
