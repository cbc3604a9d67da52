//! What a job's tasks reported, by attempt, and what follows from it: totals, row groups, orders.
//!
//! Results are kept by attempt, and read through the scheduler's list of current outputs, so that
//! a late report of a loser changes nothing.

use std::collections::HashMap;

use tally_dataset::Totals;
use tally_proto::{AttemptId, Failure, JobId, StageId, TaskId, WorkerId, v1};
use tally_scheduler::Scheduler;

use crate::job::{MAP, REDUCE, WRITE};
use crate::plan::files::Encoded;

/// The results of a job so far.
#[derive(Debug, Default)]
pub struct Results {
    map: HashMap<AttemptId, v1::MapResult>,
    reduce: HashMap<AttemptId, v1::ReduceResult>,
    write: HashMap<AttemptId, v1::WriteResult>,
    /// What reduce attempts were to read, as far as it was known.
    expected: HashMap<AttemptId, v1::Sums>,
    /// The first attempt of each reduce task that told what its rows are.
    first: HashMap<u32, AttemptId>,
    /// Two attempts of a reduce task gave different rows.
    contradiction: Option<String>,
}

/// What a reduce attempt told of a row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowGroup {
    /// Its rows.
    pub rows: u64,
    /// Checksum of its content, and CRC-32 of its bytes, if they were told.
    pub sums: Option<(u64, u32)>,
}

/// A checksum as people and footers have it.
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

/// An attempt whose output stands for its task, and who holds it.
#[derive(Debug, Clone)]
pub struct Winner {
    /// The attempt.
    pub attempt: AttemptId,
    /// Who holds its output.
    pub worker: WorkerId,
}

/// The current outputs of a stage, in the order of its tasks.
pub fn winners(scheduler: &Scheduler, job: &JobId, stage: u32) -> Vec<Winner> {
    let outputs = scheduler.outputs(job, StageId(stage));
    outputs
        .map(|(index, worker, attempt)| {
            let task = TaskId { job: job.clone(), stage: StageId(stage), index };
            Winner { attempt: AttemptId { task, attempt }, worker: worker.clone() }
        })
        .collect()
}

/// Those who hold an order's inputs, each named once however much it holds.
#[derive(Default)]
pub struct Holders {
    list: Vec<v1::Holder>,
    places: HashMap<WorkerId, u32>,
}

impl Holders {
    /// A reference to a winner's output, as the order carries it; `address` says where a worker
    /// is reached.
    pub fn reference(&mut self, winner: &Winner, address: impl Fn(&WorkerId) -> String) -> v1::OutputRef {
        let holder = *self.places.entry(winner.worker.clone()).or_insert_with(|| {
            let worker = winner.worker.to_string();
            self.list.push(v1::Holder { worker, address: address(&winner.worker) });
            self.list.len() as u32 - 1
        });
        let AttemptId { task, attempt } = &winner.attempt;
        v1::OutputRef { holder, stage: task.stage.0, index: task.index, attempt: *attempt }
    }

    /// The order's list of them.
    pub fn into_list(self) -> Vec<v1::Holder> {
        self.list
    }
}

/// Whether sums of partitions are of so many partials.
fn adds_up(sums: &v1::PartitionSums, partials: u64) -> bool {
    let listed: u64 = sums.partitions.iter().map(|run| u64::from(run.count)).sum();
    let rows = sums.rows.iter().try_fold(0u64, |all, rows| all.checked_add(*rows));
    [sums.rows.len() as u64, sums.checksums.len() as u64] == [listed; 2] && rows == Some(partials)
}

/// What the rows of a reduce attempt are, in whatever order, if it told.
fn content(result: &v1::ReduceResult) -> Option<(v1::Totals, u64)> {
    let checksum = result.checksums.iter().fold(0u64, |all, sum| all.wrapping_add(*sum));
    result.order.map(|_| (result.totals.unwrap_or_default(), checksum))
}

impl Results {
    /// Keeps a result.
    ///
    /// # Errors
    /// [`Failure::Retryable`]: what is wrong with it; [`Failure::Fatal`]: another attempt of the task gave other rows.
    pub fn keep(&mut self, attempt: &AttemptId, result: v1::TaskResult) -> Result<(), Failure> {
        use v1::task_result::Result as Done;
        let bad = |what: &str| Failure::Retryable { reason: format!("{attempt} reported {what}") };
        match (attempt.task.stage.0, result.result) {
            (MAP, Some(Done::Map(result))) => {
                if !result.sums.as_ref().is_none_or(|sums| adds_up(sums, result.partials)) {
                    return Err(bad("sums of partitions that are not its partials"));
                }
                self.map.insert(attempt.clone(), result);
            }
            (REDUCE, Some(Done::Reduce(result))) => {
                let rows = result.row_group_rows.iter().try_fold(0u64, |sum, rows| sum.checked_add(*rows));
                if rows != Some(result.totals.unwrap_or_default().rows) {
                    return Err(bad("row groups that are not its rows"));
                }
                let groups = result.row_group_rows.len();
                if result.order.is_some() && [result.checksums.len(), result.crc32s.len()] != [groups; 2] {
                    return Err(bad("checksums that are not one a row group"));
                }
                self.compare(attempt, &result)?;
                self.reduce.insert(attempt.clone(), result);
            }
            (WRITE, Some(Done::Write(result))) => drop(self.write.insert(attempt.clone(), result)),
            _ => return Err(bad("another stage's result")),
        }
        Ok(())
    }

    /// The rows of a reduce task follow from its input alone: every attempt has the same.
    fn compare(&mut self, attempt: &AttemptId, result: &v1::ReduceResult) -> Result<(), Failure> {
        let Some(mine) = content(result) else { return Ok(()) };
        let first = self.first.entry(attempt.task.index).or_insert_with(|| attempt.clone());
        let Some(others) = self.reduce.get(first).and_then(content) else { return Ok(()) };
        if others == mine {
            return Ok(());
        }
        let told = |(totals, checksum): (v1::Totals, u64)| {
            let v1::Totals { rows, clients, custom_theme_clients } = totals;
            let checksum = checksum_text(checksum);
            format!(
                "{rows} rows of {clients} clients ({custom_theme_clients} with a custom theme), checksum {checksum}"
            )
        };
        let reason = format!(
            "two attempts of a reduce task gave different rows: {first} gave {}; {attempt} gave {}",
            told(others),
            told(mine)
        );
        self.contradiction.get_or_insert(reason.clone());
        Err(Failure::Fatal { reason })
    }

    /// Two attempts that gave different rows, in a sentence.
    pub fn contradiction(&self) -> Option<&str> {
        self.contradiction.as_deref()
    }

    /// Notes what a reduce attempt is to read.
    pub fn expect(&mut self, attempt: &AttemptId, sums: Option<v1::Sums>) {
        match sums {
            Some(sums) => drop(self.expected.insert(attempt.clone(), sums)),
            None => drop(self.expected.remove(attempt)),
        }
    }

    /// What all map outputs together have in each partition; `None` where one does not tell.
    pub fn partition_sums(&self, mapped: &[Winner], partitions: u32) -> Option<Vec<v1::Sums>> {
        let mut all = vec![v1::Sums::default(); partitions as usize];
        for winner in mapped {
            let sums = self.map.get(&winner.attempt)?.sums.as_ref()?;
            let listed =
                sums.partitions.iter().flat_map(|run| (0..run.count).map(|at| run.first.wrapping_add(at)));
            for ((partition, rows), checksum) in listed.zip(&sums.rows).zip(&sums.checksums) {
                let sum = all.get_mut(partition as usize)?;
                sum.rows = sum.rows.wrapping_add(*rows);
                sum.checksum = sum.checksum.wrapping_add(*checksum);
            }
        }
        Some(all)
    }

    /// A reduce attempt that did not read what it was to read, in a sentence.
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

    /// What every map attempt says that it read.
    pub fn scanned(&self) -> impl Iterator<Item = (&AttemptId, u64)> {
        self.map.iter().map(|(attempt, result)| (attempt, result.rows))
    }

    /// Whether two attempts of a reduce task gave the same rows in the same order, cut alike.
    pub fn same_order(&self, job: &JobId, index: u32, a: u32, b: u32) -> bool {
        let task = TaskId { job: job.clone(), stage: StageId(REDUCE), index };
        let result = |attempt| self.reduce.get(&AttemptId { task: task.clone(), attempt });
        // Workers that tell no order give no word on it.
        let order = |r: &v1::ReduceResult| Some((r.order?, r.row_group_rows.clone()));
        let order = |attempt| result(attempt).and_then(order);
        a == b || (order(a).is_some() && order(a) == order(b))
    }

    /// What a reduce attempt told of one of its row groups.
    pub fn row_group(&self, attempt: &AttemptId, number: u32) -> Option<RowGroup> {
        let (result, at) = (self.reduce.get(attempt)?, number as usize);
        let sums = result.checksums.get(at).copied().zip(result.crc32s.get(at).copied());
        Some(RowGroup {
            rows: *result.row_group_rows.get(at)?,
            sums: sums.filter(|_| result.order.is_some()),
        })
    }

    /// The CRC-32 of a reduce output's footer, if it was told.
    pub fn footer_crc32(&self, attempt: &AttemptId) -> Option<u32> {
        let result = self.reduce.get(attempt)?;
        result.order.map(|_| result.footer_crc32)
    }

    /// The checksum of all rows, if every reduce task told its own.
    pub fn checksum(&self, reduced: &[Winner]) -> Option<u64> {
        let told = |winner: &Winner| Some(content(self.reduce.get(&winner.attempt)?)?.1);
        reduced.iter().map(told).try_fold(0u64, |all, sum| Some(all.wrapping_add(sum?)))
    }

    /// The job's totals, from all reduce outputs.
    pub fn totals(&self, reduced: &[Winner]) -> Totals {
        let mut totals = Totals::default();
        for result in reduced.iter().filter_map(|winner| self.reduce.get(&winner.attempt)) {
            let part = result.totals.unwrap_or_default();
            totals += Totals {
                rows: part.rows,
                clients: part.clients,
                custom_theme_clients: part.custom_theme_clients,
            };
        }
        totals
    }

    /// All encoded row groups, in the order of the reduce tasks.
    pub fn row_groups(&self, reduced: &[Winner]) -> Vec<Encoded> {
        let mut groups = vec![];
        for winner in reduced {
            let Some(result) = self.reduce.get(&winner.attempt) else { continue };
            let task = winner.attempt.task.index;
            groups.extend((0..).zip(&result.row_group_rows).map(|(row_group, &rows)| Encoded {
                task,
                row_group,
                rows,
            }));
        }
        groups
    }

    /// What a reduce attempt reported.
    pub fn reduced(&self, attempt: &AttemptId) -> Option<&v1::ReduceResult> {
        self.reduce.get(attempt)
    }

    /// What a write attempt reported.
    pub fn written(&self, attempt: &AttemptId) -> Option<&v1::WriteResult> {
        self.write.get(attempt)
    }

    /// What a stage's winners reported.
    pub fn amount(&self, stage: u32, winners: &[Winner]) -> Amount {
        let mut sum = Amount::default();
        for winner in winners {
            let attempt = &winner.attempt;
            let (rows, bytes) = match stage {
                MAP => self.map.get(attempt).map(|r| (r.rows, r.bytes_read)),
                REDUCE => self.reduce.get(attempt).map(|r| (r.totals.unwrap_or_default().rows, r.bytes)),
                _ => self.write.get(attempt).map(|r| (r.rows, r.bytes)),
            }
            .unwrap_or_default();
            sum.rows += rows;
            sum.bytes += bytes;
        }
        sum
    }

    /// Bytes that the maps put into the shuffle.
    pub fn shuffle_bytes(&self, mapped: &[Winner]) -> u64 {
        mapped.iter().filter_map(|winner| self.map.get(&winner.attempt)).map(|r| r.shuffle_bytes).sum()
    }
}
