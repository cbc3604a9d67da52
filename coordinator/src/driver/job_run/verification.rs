//! The checks before a day is published: the sums that each stage reported have to match those of the next stage.
//!
//! Sums that a worker of an older version does not report are not compared. Not here: what workers verify themselves.

use tally_common::counts::counted;
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
        "{attempt} read {} of its shard, but the footers of its {}, the first being {first}, say {planned}",
        counted(*rows, "row"), counted(*files, "file")
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
    #[error("part file {number} has {} instead of {planned}", counted(*rows, "row"))]
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
    #[error("the part files have {} in {} instead of {all_rows} in {all_files}", counted(*rows, "row"), counted(*files, "file"))]
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tally_proto::v1::task_result::Result as Done;
    use tally_proto::{ALL_ROW_GROUPS, WorkerId, v1};

    use super::super::tests::run;
    use super::*;
    use crate::job::{REDUCE, WRITE};
    use crate::plan::{InputPlan, MapTask};

    /// The reports of a day: one map task of ten rows, one reduce task with two row groups, and a part file for each of them.
    struct Reports {
        /// The row groups of the map task's file.
        row_groups: Vec<u32>,
        map: v1::MapResult,
        reduce: v1::ReduceResult,
        /// Another attempt of the reduce task.
        again: Option<v1::ReduceResult>,
        write: [Option<v1::WriteResult>; 2],
        /// The number of part files that are reported as written.
        written: usize,
        /// Whether this term dispatched the write tasks, and so knows what they read.
        has_reads: bool,
    }

    fn honest() -> Reports {
        let sums = v1::Sums { rows: 5, checksum: 77 };
        let write = |checksum| v1::WriteResult { rows: 1, checksum: Some(checksum), ..Default::default() };
        Reports {
            row_groups: vec![0],
            map: v1::MapResult { rows: 10, partials: 5, ..Default::default() },
            reduce: v1::ReduceResult {
                totals: Some(v1::Totals::new(2, &[0, 0])),
                row_group_rows: vec![1, 1],
                checksums: vec![3, 4],
                crc32s: vec![1, 2],
                order: Some(9),
                read: Some(sums),
                ..Default::default()
            },
            again: None,
            write: [Some(write(3)), Some(write(4))],
            written: 2,
            has_reads: true,
        }
    }

    fn winner(run: &JobRun, stage: u32, index: u32) -> Winner {
        let task = TaskId { job: run.submission.spec.id.clone(), stage: StageId(stage), index };
        Winner { attempt: AttemptId { task, attempt: 0 }, worker: WorkerId::parse("w").unwrap() }
    }

    fn done(result: Done) -> v1::TaskResult {
        v1::TaskResult { result: Some(result), usage: None }
    }

    /// The outcome of the checks of a day with these reports.
    fn verified(reports: Reports) -> Result<(), VerifyError> {
        let mut run = run();
        let piece = v1::InputPiece {
            url: "part-7.parquet".into(),
            row_groups: reports.row_groups,
            ..Default::default()
        };
        let work = v1::MapWork { pieces: vec![piece], ..Default::default() };
        let tasks = vec![MapTask { work, bytes: 1, rows: Some(10) }];
        run.plan.set_inputs(InputPlan { partitions: 1, tasks, ..Default::default() }, 2);
        let (mapped, reduced) = (winner(&run, MAP, 0), vec![winner(&run, REDUCE, 0)]);
        run.results.keep(&mapped.attempt, done(Done::Map(reports.map))).unwrap();
        run.results.expect(&reduced[0].attempt, Some(v1::Sums { rows: 5, checksum: 77 }));
        run.results.keep(&reduced[0].attempt, done(Done::Reduce(reports.reduce))).unwrap();
        if let Some(again) = reports.again {
            let other = AttemptId { attempt: 1, ..reduced[0].attempt.clone() };
            run.results.keep(&other, done(Done::Reduce(again))).unwrap_err();
        }
        assert_eq!(run.plan_write(&reduced).unwrap().len(), 2, "part files");
        let mut written = vec![];
        for (index, result) in (0..).zip(reports.write) {
            let winner = winner(&run, WRITE, index);
            if let Some(result) = result {
                run.results.keep(&winner.attempt, done(Done::Write(result))).unwrap();
            }
            if reports.has_reads {
                run.writes.set_reads(&winner.attempt, BTreeMap::from([(0, 0)]));
            }
            written.push(winner);
        }
        written.truncate(reports.written);
        run.verify(&reduced, &written)
    }

    #[test]
    fn a_day_whose_sums_agree_is_verified() {
        verified(honest()).unwrap();
        verified(Reports { has_reads: false, ..honest() }).unwrap();
    }

    #[test]
    fn rows_scanned_are_compared_with_the_footers() {
        for rows in [9, 11] {
            let map = v1::MapResult { rows, ..honest().map };
            let error = verified(Reports { map, ..honest() }).unwrap_err();
            assert!(matches!(error, VerifyError::Scanned { planned: 10, .. }), "{error}");
            for part in ["a-s0-t0-a0", &rows.to_string(), "part-7.parquet", "say 10"] {
                assert!(error.to_string().contains(part), "{error}");
            }
        }
        // The planner's footers and those that the worker reported count together.
        let deferred = |footers| {
            let map = v1::MapResult { rows: 14, footers, ..honest().map };
            verified(Reports { row_groups: vec![ALL_ROW_GROUPS], map, ..honest() })
        };
        let footers = |rows| Some(v1::Footers { rows, ..Default::default() });
        deferred(footers(4)).unwrap();
        let error = deferred(footers(5)).unwrap_err();
        assert!(matches!(error, VerifyError::Scanned { rows: 14, planned: 15, .. }), "{error}");
        let error = deferred(None).unwrap_err();
        assert!(matches!(error, VerifyError::Unreported { .. }), "{error}");
    }

    #[test]
    fn partials_read_are_compared_with_those_written() {
        for (rows, checksum) in [(4, 77), (5, 78)] {
            let reduce = v1::ReduceResult { read: Some(v1::Sums { rows, checksum }), ..honest().reduce };
            let error = verified(Reports { reduce, ..honest() }).unwrap_err().to_string();
            assert!(error.contains(&format!("read {rows} partials")) && error.contains("made 5"), "{error}");
        }
    }

    #[test]
    fn attempts_with_different_rows_are_not_published() {
        let again = Some(v1::ReduceResult { checksums: vec![3, 5], ..honest().reduce });
        let error = verified(Reports { again, ..honest() }).unwrap_err().to_string();
        assert!(["a-s1-t0-a0", "a-s1-t0-a1"].iter().all(|attempt| error.contains(attempt)), "{error}");
    }

    /// The outcome if the part files are reported with these rows and checksums.
    fn written(files: [(u64, u64); 2], has_reads: bool) -> VerifyError {
        let result =
            |(rows, checksum)| v1::WriteResult { rows, checksum: Some(checksum), ..Default::default() };
        let write = files.map(|file| Some(result(file)));
        verified(Reports { write, has_reads, ..honest() }).unwrap_err()
    }

    #[test]
    fn rows_of_each_part_file_are_compared_with_the_reduce_stage() {
        let error = written([(2, 3), (0, 4)], true);
        assert!(matches!(error, VerifyError::FileRows { number: 0, rows: 2, planned: 1 }), "{error}");
        let error = written([(1, 3), (0, 4)], false);
        assert!(matches!(error, VerifyError::FileRows { number: 1, rows: 0, planned: 1 }), "{error}");
    }

    #[test]
    fn checksums_of_each_part_file_are_compared_with_the_reduce_stage() {
        // Each file has the rows of the other one: the totals agree.
        let error = written([(1, 4), (1, 3)], true);
        assert!(matches!(error, VerifyError::FileChecksum { number: 0, copied: 4, made: 3 }), "{error}");
    }

    #[test]
    fn the_checksum_of_all_part_files_is_compared_with_the_reduce_stage() {
        // An earlier term dispatched the write tasks, so it is not known which attempts each file was copied from.
        let error = written([(1, 3), (1, 5)], false);
        assert!(matches!(error, VerifyError::DayChecksum { copied: 8, made: 7 }), "{error}");
    }

    #[test]
    fn all_part_files_have_to_be_written() {
        let error = verified(Reports { written: 1, ..honest() }).unwrap_err();
        assert!(matches!(error, VerifyError::DayRows { files: 1, all_files: 2, .. }), "{error}");
        let mut reports = honest();
        reports.write[1] = None;
        let error = verified(reports).unwrap_err();
        assert!(matches!(error, VerifyError::NoResult(1)), "{error}");
    }
}
