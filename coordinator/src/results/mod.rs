//! The results that a job's tasks reported, by attempt.
//!
//! Results are kept by attempt and read through the scheduler's list of current outputs, so that a late report of a
//! losing attempt changes nothing. Of a task that is done, only the results of attempts that count are kept.
//!
//! Not here: which attempts those are (`winners`), and what their results add up to (`job_sums`).

mod by_attempt;
pub mod holders;
mod job_sums;
#[cfg(test)]
mod tests;
mod winners;

use std::collections::HashMap;

use tally_common::counts::counted;
use tally_dataset::objectives::MAX_COUNTS;
use tally_proto::{AttemptId, JobId, StageId, TaskId, v1};

use crate::failures::{AttemptError, MAX_JOB_ROW_GROUPS};
use crate::job::{MAP, REDUCE, WRITE};
pub use by_attempt::ByAttempt;
pub use winners::{OutputLocations, Winner, winners};

/// The results of a job so far.
#[derive(Debug, Default)]
pub struct Results {
    map: ByAttempt<v1::MapResult>,
    reduce: ByAttempt<v1::ReduceResult>,
    write: ByAttempt<v1::WriteResult>,
    /// The sums that reduce attempts should read, if they are known.
    expected: ByAttempt<v1::Sums>,
    /// Row groups by reduce task.
    row_groups: HashMap<u32, usize>,
    /// Rows and bytes by stage, of the tasks that have a result. A task counts once.
    amounts: [Amount; 3],
    /// Two attempts of a task read or returned different rows.
    contradiction: Option<String>,
}

/// What a reduce attempt reported of a row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowGroup {
    /// Its rows.
    pub rows: u64,
    /// Checksum of its content and CRC-32 of its bytes, if they were reported.
    pub sums: Option<(u64, u32)>,
}

/// The text form of a checksum.
pub fn checksum_text(checksum: u64) -> String {
    format!("{checksum:016x}")
}

/// Rows and bytes that a stage's tasks reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Rows read (map) or written (reduce, write).
    pub rows: u64,
    /// Bytes fetched (map) or written (reduce, write).
    pub bytes: u64,
}

/// Whether sums of partitions add up to that many partials.
fn adds_up(sums: &v1::PartitionSums, partials: u64) -> bool {
    let listed: u64 = sums.partitions.iter().map(|run| u64::from(run.count)).sum();
    let rows = sums.rows.iter().try_fold(0u64, |all, rows| all.checked_add(*rows));
    [sums.rows.len() as u64, sums.checksums.len() as u64] == [listed; 2] && rows == Some(partials)
}

/// The rows of a reduce attempt's output.
fn rows_of(result: &v1::ReduceResult) -> u64 {
    result.totals.as_ref().map_or(0, |totals| totals.rows)
}

/// The content of a reduce attempt's rows, independent of their order, if it was reported.
fn content(result: &v1::ReduceResult) -> Option<(v1::Totals, u64)> {
    let checksum = result.checksums.iter().fold(0u64, |all, sum| all.wrapping_add(*sum));
    result.order.map(|_| (result.totals.clone().unwrap_or_default(), checksum))
}

impl Results {
    /// Keeps a result.
    ///
    /// # Errors
    /// [`AttemptError`]: the result is invalid, or another attempt of the task returned other rows.
    pub fn keep(&mut self, attempt: &AttemptId, result: v1::TaskResult) -> Result<(), AttemptError> {
        use v1::task_result::Result as Done;
        let bad = |what| AttemptError::BadResult { attempt: attempt.clone(), what };
        match (attempt.task.stage.0, result.result) {
            (MAP, Some(Done::Map(result))) => {
                if !result.sums.as_ref().is_none_or(|sums| adds_up(sums, result.partials)) {
                    return Err(bad("sums of partitions that do not match its partials"));
                }
                self.compare_read(attempt, &result)?;
                let amount = Amount { rows: result.rows, bytes: result.bytes_read };
                let known = self.map.of_task(attempt.task.index).next().is_some();
                self.count(attempt, known, amount);
                self.map.insert(attempt, result);
            }
            (REDUCE, Some(Done::Reduce(result))) => {
                let rows = result.row_group_rows.iter().try_fold(0u64, |sum, rows| sum.checked_add(*rows));
                if rows != Some(rows_of(&result)) {
                    return Err(bad("row groups that do not match its rows"));
                }
                let groups = result.row_group_rows.len();
                if result.order.is_some() && [result.checksums.len(), result.crc32s.len()] != [groups; 2] {
                    return Err(bad("another number of checksums than row groups"));
                }
                if result.objectives.len() > MAX_COUNTS {
                    return Err(bad("too many counts of objectives"));
                }
                self.compare(attempt, &result)?;
                self.count_row_groups(attempt.task.index, groups)?;
                let amount = Amount { rows: rows_of(&result), bytes: result.bytes };
                let known = self.reduce.of_task(attempt.task.index).next().is_some();
                self.count(attempt, known, amount);
                self.reduce.insert(attempt, result);
            }
            (WRITE, Some(Done::Write(result))) => {
                let amount = Amount { rows: result.rows, bytes: result.bytes };
                let known = self.write.of_task(attempt.task.index).next().is_some();
                self.count(attempt, known, amount);
                self.write.insert(attempt, result);
            }
            _ => return Err(bad("a result of another stage")),
        }
        Ok(())
    }

    /// Keeps of a task that is done only what counts: the result of its current output, and for a reduce task those of the
    /// attempts that part files were written from.
    pub fn settle(&mut self, task: &TaskId, counts: impl Fn(u32) -> bool) {
        match task.stage.0 {
            MAP => self.map.retain(task.index, counts),
            REDUCE => {
                self.reduce.retain(task.index, &counts);
                self.expected.retain(task.index, counts);
            }
            _ => self.write.retain(task.index, counts),
        }
    }

    /// Whether the result of a map or reduce attempt is kept.
    pub fn has(&self, attempt: &AttemptId) -> bool {
        match attempt.task.stage.0 {
            MAP => self.map.get(attempt).is_some(),
            REDUCE => self.reduce.get(attempt).is_some(),
            _ => false,
        }
    }

    /// Bounds the row groups of all reduce tasks, which are listed in memory.
    fn count_row_groups(&mut self, task: u32, groups: usize) -> Result<(), AttemptError> {
        self.row_groups.insert(task, groups);
        let all: usize = self.row_groups.values().sum();
        if all > MAX_JOB_ROW_GROUPS { Err(AttemptError::TooManyRowGroups(all)) } else { Ok(()) }
    }

    /// Every attempt of a map task reads the same files.
    fn compare_read(&mut self, attempt: &AttemptId, result: &v1::MapResult) -> Result<(), AttemptError> {
        let differs = |other: &v1::MapResult| {
            // An older worker does not report footers.
            let footers = other.footers.as_ref().zip(result.footers.as_ref());
            other.rows != result.rows || footers.is_some_and(|(others, mine)| others != mine)
        };
        let mine = |number: u32| number == attempt.attempt;
        let others = self.map.of_task(attempt.task.index);
        let other = others.filter(|(number, _)| !mine(*number)).find(|(_, other)| differs(other));
        let Some((number, other)) = other else { return Ok(()) };
        let describe = |result: &v1::MapResult| {
            let footers = result.footers.as_ref();
            let footers = footers.map(|footers| format!(" and footers of small files with {}", footers.rows));
            counted(result.rows, "row") + &footers.unwrap_or_default()
        };
        let first = AttemptId { attempt: number, ..attempt.clone() };
        let others = format!("{first} read {}; {attempt} read {}", describe(other), describe(result));
        Err(self.contradicted(others))
    }

    fn contradicted(&mut self, difference: String) -> AttemptError {
        let error = AttemptError::OtherRows(difference);
        self.contradiction.get_or_insert(error.to_string());
        error
    }

    /// Drops the result of a map attempt that cannot be used.
    pub fn forget_read(&mut self, attempt: &AttemptId) {
        self.map.remove(attempt);
    }

    /// The result of a map attempt.
    pub fn mapped(&self, attempt: &AttemptId) -> Option<&v1::MapResult> {
        self.map.get(attempt)
    }

    /// The rows of a reduce task depend on its input only, so every attempt has the same rows.
    fn compare(&mut self, attempt: &AttemptId, result: &v1::ReduceResult) -> Result<(), AttemptError> {
        let Some(mine) = content(result) else { return Ok(()) };
        let others = self.reduce.of_task(attempt.task.index);
        let others = others.filter(|(number, _)| *number != attempt.attempt);
        let others: Vec<_> = others.filter(|(_, other)| content(other).is_some()).collect();
        // Without counts, it is an older worker's.
        let other_objectives = others.iter().find(|(_, other)| {
            !other.objectives.is_empty()
                && !result.objectives.is_empty()
                && other.objectives != result.objectives
        });
        if let Some(&(number, _)) = other_objectives {
            let first = AttemptId { attempt: number, ..attempt.clone() };
            let others = format!("{first} and {attempt} counted different objectives");
            return Err(self.contradicted(others));
        }
        let mut others = others.into_iter().filter_map(|(number, other)| Some((number, content(other)?)));
        let other = others.find(|(_, other)| *other != mine);
        let Some((number, other)) = other else { return Ok(()) };
        let describe = |(totals, checksum): (v1::Totals, u64)| {
            let counters = totals.counters(totals.more_counters.len() + 2);
            let checksum = checksum_text(checksum);
            format!("{} with the totals {counters:?}, checksum {checksum}", counted(totals.rows, "row"))
        };
        let first = AttemptId { attempt: number, ..attempt.clone() };
        let others = format!("{first} returned {}; {attempt} returned {}", describe(other), describe(mine));
        Err(self.contradicted(others))
    }

    /// A sentence about two attempts that read or returned different rows, if there are such.
    pub fn contradiction(&self) -> Option<&str> {
        self.contradiction.as_deref()
    }

    /// Notes what a reduce attempt should read.
    pub fn expect(&mut self, attempt: &AttemptId, sums: Option<v1::Sums>) {
        match sums {
            Some(sums) => drop(self.expected.insert(attempt, sums)),
            None => drop(self.expected.remove(attempt)),
        }
    }

    /// A sentence about a reduce attempt that did not read what it should have read, if there is one.
    pub fn misread(&self, reduced: &[Winner]) -> Option<String> {
        reduced.iter().find_map(|Winner { attempt, worker }| {
            let expected = self.expected.get(attempt)?;
            let read = self.reduce.get(attempt)?.read.filter(|read| read != expected)?;
            Some(format!(
                "{attempt} on worker {worker} read {} partials with the checksum {}, but the map tasks made {} with {}",
                read.rows,
                checksum_text(read.checksum),
                expected.rows,
                checksum_text(expected.checksum)
            ))
        })
    }

    /// The rows that each map attempt read, and the footers that it reported, by the numbers of task and attempt.
    pub fn scanned(&self) -> impl Iterator<Item = ((u32, u32), u64, Option<&v1::Footers>)> {
        self.map.iter().map(|(numbers, result)| (numbers, result.rows, result.footers.as_ref()))
    }

    /// The footers that a map attempt reported.
    pub fn footers(&self, attempt: &AttemptId) -> Option<&v1::Footers> {
        self.mapped(attempt)?.footers.as_ref()
    }

    /// Whether two attempts of a reduce task returned the same rows in the same order, with the same row groups.
    pub fn same_order(&self, job: &JobId, index: u32, a: u32, b: u32) -> bool {
        let task = TaskId { job: job.clone(), stage: StageId(REDUCE), index };
        let result = |attempt| self.reduce.get(&AttemptId { task: task.clone(), attempt });
        // Older workers do not report the order.
        let order = |r: &v1::ReduceResult| Some((r.order?, r.row_group_rows.clone()));
        let order = |attempt| result(attempt).and_then(order);
        a == b || (order(a).is_some() && order(a) == order(b))
    }

    /// What a reduce attempt reported of one of its row groups.
    pub fn row_group(&self, attempt: &AttemptId, number: u32) -> Option<RowGroup> {
        let (result, at) = (self.reduce.get(attempt)?, number as usize);
        let sums = result.checksums.get(at).copied().zip(result.crc32s.get(at).copied());
        Some(RowGroup {
            rows: *result.row_group_rows.get(at)?,
            sums: sums.filter(|_| result.order.is_some()),
        })
    }

    /// The CRC-32 of a reduce output's footer, if it was reported.
    pub fn footer_crc32(&self, attempt: &AttemptId) -> Option<u32> {
        let result = self.reduce.get(attempt)?;
        result.order.map(|_| result.footer_crc32)
    }

    /// The result of a reduce attempt.
    pub fn reduced(&self, attempt: &AttemptId) -> Option<&v1::ReduceResult> {
        self.reduce.get(attempt)
    }

    /// The passes of an attempt of a reduce task that has a result; 0 if there is none.
    pub fn passes(&self, task: u32) -> u32 {
        self.reduce.of_task(task).map(|(_, result)| result.passes).find(|&passes| passes > 0).unwrap_or(0)
    }

    /// The result of a write attempt.
    pub fn written(&self, attempt: &AttemptId) -> Option<&v1::WriteResult> {
        self.write.get(attempt)
    }

    /// Rows and bytes by stage, of all tasks that have a result.
    pub fn amounts(&self) -> [Amount; 3] {
        self.amounts
    }

    /// Counts a result, unless the task has another one.
    fn count(&mut self, attempt: &AttemptId, known: bool, amount: Amount) {
        if let Some(sum) = self.amounts.get_mut(attempt.task.stage.0 as usize).filter(|_| !known) {
            sum.rows = sum.rows.saturating_add(amount.rows);
            sum.bytes = sum.bytes.saturating_add(amount.bytes);
        }
    }
}
