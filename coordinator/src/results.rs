//! What a job's tasks reported, by attempt, and what follows from it: totals, row groups, orders.
//!
//! Results are kept by attempt, and read through the scheduler's list of current outputs, so that
//! a late report of a loser changes nothing.

use std::collections::HashMap;

use tally_dataset::Totals;
use tally_proto::{AttemptId, JobId, StageId, TaskId, WorkerId, v1};
use tally_scheduler::Scheduler;

use crate::job::{MAP, REDUCE, WRITE};
use crate::plan::files::Encoded;

/// The results of a job so far.
#[derive(Debug, Default)]
pub struct Results {
    map: HashMap<AttemptId, v1::MapResult>,
    reduce: HashMap<AttemptId, v1::ReduceResult>,
    write: HashMap<AttemptId, v1::WriteResult>,
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

impl Results {
    /// Keeps a result.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn keep(&mut self, attempt: &AttemptId, result: v1::TaskResult) -> Result<(), &'static str> {
        use v1::task_result::Result as Done;
        match (attempt.task.stage.0, result.result) {
            (MAP, Some(Done::Map(result))) => drop(self.map.insert(attempt.clone(), result)),
            (REDUCE, Some(Done::Reduce(result))) => {
                let rows = result.row_group_rows.iter().try_fold(0u64, |sum, rows| sum.checked_add(*rows));
                if rows != Some(result.totals.unwrap_or_default().rows) {
                    return Err("row groups that are not its rows");
                }
                self.reduce.insert(attempt.clone(), result);
            }
            (WRITE, Some(Done::Write(result))) => drop(self.write.insert(attempt.clone(), result)),
            _ => return Err("another stage's result"),
        }
        Ok(())
    }

    /// Whether two attempts of a reduce task gave the same rows in the same order.
    pub fn same_order(&self, job: &JobId, index: u32, a: u32, b: u32) -> bool {
        let task = TaskId { job: job.clone(), stage: StageId(REDUCE), index };
        let result = |attempt| self.reduce.get(&AttemptId { task: task.clone(), attempt });
        let shape = |r: &v1::ReduceResult| (r.passes, r.row_group_rows.clone(), r.totals);
        a == b || (result(a).is_some() && result(a).map(shape) == result(b).map(shape))
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
