//! Task outputs, readable until their job is released: in memory while they fit, on disk after.
//!
//! A map output is a list of runs, each sorted by partition with a dictionary of its own, so that
//! a reader needs nothing but the run. A reduce output is an encoded Parquet file. Beside each
//! stands its task's result, so that who has the output can say all about it; jobs are known by
//! their keys. Not here: who needs what (the scheduler), how outputs travel (`flight`).

pub mod cut;
mod file;
mod rebuild;
mod run;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::error::ArrowError;
use bytes::Bytes;
use parking_lot::Mutex;
use tally_proto::{AttemptId, JobId, v1};

use crate::budget::Budget;
use crate::spill::{SpillDir, SpillError};

pub use file::{FileOutput, FileWriter};
pub use rebuild::{Part, Rebuild, RebuildError, RunParts};
pub use run::{MapOutput, MapWriter, Run, RunSums, dictionary_schema, join_texts, partial_checksum};

/// An output could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// A batch that cannot be encoded or decoded.
    #[error("a shuffled batch: {0}")]
    Arrow(#[from] ArrowError),
}

/// The outputs of one worker.
pub struct Store {
    budget: Budget,
    spill: Arc<SpillDir>,
    jobs: Mutex<HashMap<JobId, Job>>,
}

/// What is kept of a job.
struct Job {
    /// Who shows it may read the job's outputs; empty where nobody else may.
    key: Bytes,
    outputs: HashMap<AttemptId, Kept>,
}

struct Kept {
    output: Output,
    result: v1::TaskResult,
    /// Another worker has taken it over.
    given: bool,
}

/// A finished task's output.
#[derive(Clone)]
pub enum Output {
    /// Of a map task.
    Map(Arc<MapOutput>),
    /// Of a reduce task.
    File(Arc<FileOutput>),
}

impl Store {
    /// A store that keeps up to `budget` in memory and the rest in `spill`.
    pub fn new(budget: Budget, spill: Arc<SpillDir>) -> Self {
        Store { budget, spill, jobs: Mutex::default() }
    }

    /// Bytes written to disk so far.
    pub fn spilled(&self) -> u64 {
        self.spill.written()
    }

    /// Where outputs go that memory has no room for.
    pub fn spill(&self) -> &SpillDir {
        &self.spill
    }

    /// What outputs in memory are reserved from.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Removes what was spilled from the disk: for a process that is about to exit and reads no output
    /// any more.
    pub fn remove_spilled(&self) {
        self.spill.remove();
    }

    /// A writer of a map output.
    pub fn map_writer(&self) -> MapWriter<'_> {
        MapWriter { store: self, runs: vec![], file: None, bytes: 0 }
    }

    /// A writer of a reduce output.
    pub fn file_writer(&self) -> FileWriter<'_> {
        FileWriter { store: self, bytes: vec![], held: vec![], file: None }
    }

    /// Takes a job in, with the key of its orders. Outputs under another key are dropped.
    pub fn admit(&self, job: &JobId, key: &[u8]) {
        let mut jobs = self.jobs.lock();
        match jobs.get_mut(job) {
            Some(known) if known.key == key => {}
            Some(known) => *known = Job { key: Bytes::copy_from_slice(key), outputs: HashMap::new() },
            None => {
                let key = Bytes::copy_from_slice(key);
                jobs.insert(job.clone(), Job { key, outputs: HashMap::new() });
            }
        }
    }

    /// The key of a job, if anything is known of it.
    pub fn key(&self, job: &JobId) -> Option<Bytes> {
        self.jobs.lock().get(job).map(|known| known.key.clone())
    }

    /// Makes an attempt's output readable. False, and nothing kept, where the job was released (or
    /// never admitted): a task may end after its job.
    pub fn put(&self, attempt: AttemptId, output: Output, result: v1::TaskResult) -> bool {
        let mut jobs = self.jobs.lock();
        let job = jobs.get_mut(&attempt.task.job);
        job.map(|job| job.outputs.insert(attempt, Kept { output, result, given: false })).is_some()
    }

    /// Like [`Store::put`], for an output that another worker gave away with its job's key: false,
    /// and nothing kept, also where the job has another key now.
    pub fn put_handed_over(
        &self,
        attempt: &AttemptId,
        output: Output,
        result: v1::TaskResult,
        key: &[u8],
    ) -> bool {
        let mut jobs = self.jobs.lock();
        let job = jobs.get_mut(&attempt.task.job).filter(|job| job.key == key);
        job.map(|job| job.outputs.insert(attempt.clone(), Kept { output, result, given: false })).is_some()
    }

    /// Notes that another worker has an output as well.
    pub fn note_given(&self, attempt: &AttemptId) {
        let mut jobs = self.jobs.lock();
        let kept = jobs.get_mut(&attempt.task.job).and_then(|job| job.outputs.get_mut(attempt));
        if let Some(kept) = kept {
            kept.given = true;
        }
    }

    /// How many of the outputs held another worker has as well.
    pub fn given(&self) -> usize {
        let jobs = self.jobs.lock();
        jobs.values().flat_map(|job| job.outputs.values()).filter(|kept| kept.given).count()
    }

    /// An attempt's output, if it is (still) here.
    pub fn get(&self, attempt: &AttemptId) -> Option<Output> {
        let jobs = self.jobs.lock();
        jobs.get(&attempt.task.job)?.outputs.get(attempt).map(|kept| kept.output.clone())
    }

    /// An attempt's output and its task's result.
    pub fn get_with_result(&self, attempt: &AttemptId) -> Option<(Output, v1::TaskResult)> {
        let jobs = self.jobs.lock();
        let kept = jobs.get(&attempt.task.job)?.outputs.get(attempt)?;
        Some((kept.output.clone(), kept.result.clone()))
    }

    /// How many outputs are held.
    pub fn outputs(&self) -> usize {
        self.jobs.lock().values().map(|job| job.outputs.len()).sum()
    }

    /// All outputs held and their tasks' results, by attempt.
    pub fn inventory(&self) -> Vec<(AttemptId, v1::TaskResult)> {
        let jobs = self.jobs.lock();
        let all = jobs.values().flat_map(|job| &job.outputs);
        let mut held: Vec<_> = all.map(|(attempt, kept)| (attempt.clone(), kept.result.clone())).collect();
        held.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        held
    }

    /// Drops a job's map outputs.
    pub fn release_maps(&self, job: &JobId) {
        let is_map = |_: &AttemptId, kept: &mut Kept| matches!(kept.output, Output::Map(_));
        let mut jobs = self.jobs.lock();
        let dropped: Vec<_> =
            jobs.get_mut(job).into_iter().flat_map(|job| job.outputs.extract_if(is_map)).collect();
        drop(jobs);
        // Freed outside of the lock: there may be much of it.
        drop(dropped);
    }

    /// Drops all outputs of a job, and its key.
    pub fn release(&self, job: &JobId) {
        let dropped = self.jobs.lock().remove(job);
        // Freed outside of the lock: there may be much of it.
        drop(dropped);
    }
}
