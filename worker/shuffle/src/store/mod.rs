//! Task outputs, readable until their job is released: in memory while they fit, otherwise on disk.
//!
//! A map output is a list of runs. Each run is sorted by partition and has its own dictionary, so that a reader needs
//! only the run. A reduce output is an encoded Parquet file. The result of the task is stored with each output, so that
//! a worker can describe its outputs completely. Each job has a key. Not here: which outputs are needed (the
//! scheduler), how outputs are transferred (`flight`).

pub mod cut;
mod file;
mod rebuild;
mod run;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::ArrowError;
use bytes::Bytes;
use parking_lot::Mutex;
use tally_common::budget::Budget;
use tally_proto::{AttemptId, JobId, v1};

use crate::reclaim::Reclaimer;
use crate::spill::{SpillDir, SpillError};

pub use file::{FileOutput, FileWriter};
pub use rebuild::{Rebuild, RebuildError, RunPart, RunParts};
pub use run::{MapOutput, MapWriter, Run, RunSums, dictionary_schema, join_strings, partial_checksum};

/// How long the end of a store waits for the removal of its files.
const LAST_REMOVALS: Duration = Duration::from_secs(5);

/// An output cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An error of the spill directory.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// A batch cannot be encoded or decoded.
    #[error("a shuffled batch cannot be encoded or decoded: {0}")]
    Arrow(#[from] ArrowError),
}

/// The outputs of one worker.
pub struct Store {
    budget: Budget,
    spill: Arc<SpillDir>,
    jobs: Mutex<HashMap<JobId, Job>>,
    /// Frees the memory of dropped outputs. Files have a thread of their own, so that memory does not wait for a disk.
    reclaimer: Reclaimer,
}

/// The state of a job.
struct Job {
    /// The key that readers must present; empty if no other process may read.
    key: Bytes,
    outputs: HashMap<AttemptId, StoredOutput>,
}

struct StoredOutput {
    output: Output,
    result: v1::TaskResult,
    /// Another worker has it as well.
    migrated: bool,
}

/// The output of a finished task.
#[derive(Clone)]
pub enum Output {
    /// Of a map task.
    Map(Arc<MapOutput>),
    /// Of a reduce task.
    File(Arc<FileOutput>),
}

impl Store {
    /// A store that keeps outputs up to `budget` in memory, and others in `spill`.
    pub fn new(budget: Budget, spill: Arc<SpillDir>) -> Self {
        Store { budget, spill, jobs: Mutex::default(), reclaimer: Reclaimer::default() }
    }

    /// Bytes written to disk so far.
    pub fn spilled(&self) -> u64 {
        self.spill.written()
    }

    /// The spill directory.
    pub fn spill(&self) -> &SpillDir {
        &self.spill
    }

    /// The budget of outputs in memory.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Removes spilled outputs from the disk. For a process that is about to exit and no longer reads outputs.
    pub fn remove_spilled(&self) {
        self.spill.remove();
    }

    /// A writer for a map output.
    pub fn map_writer(&self) -> MapWriter<'_> {
        MapWriter { store: self, runs: vec![], file: None, bytes: 0 }
    }

    /// A writer for a reduce output.
    pub fn file_writer(&self) -> FileWriter<'_> {
        FileWriter { store: self, bytes: vec![], held: vec![], file: None }
    }

    /// Adds a job with its key. Outputs of the job with another key are dropped.
    pub fn admit(&self, job: &JobId, key: &[u8]) {
        let mut jobs = self.jobs.lock();
        match jobs.get_mut(job) {
            Some(known) if known.key == key => {}
            Some(known) => {
                let job = Job { key: Bytes::copy_from_slice(key), outputs: HashMap::new() };
                self.reclaim(std::mem::replace(known, job));
            }
            None => {
                let key = Bytes::copy_from_slice(key);
                jobs.insert(job.clone(), Job { key, outputs: HashMap::new() });
            }
        }
    }

    /// The key of a job, if the job is known.
    pub fn key(&self, job: &JobId) -> Option<Bytes> {
        self.jobs.lock().get(job).map(|known| known.key.clone())
    }

    /// The jobs that were admitted and not released.
    pub fn jobs(&self) -> BTreeSet<JobId> {
        self.jobs.lock().keys().cloned().collect()
    }

    /// Makes an attempt's output readable. Returns false and keeps nothing if the job was released or never admitted,
    /// because a task may end after its job.
    pub fn put(&self, attempt: AttemptId, output: Output, result: v1::TaskResult) -> bool {
        let mut jobs = self.jobs.lock();
        let job = jobs.get_mut(&attempt.task.job);
        job.map(|job| job.outputs.insert(attempt, StoredOutput { output, result, migrated: false })).is_some()
    }

    /// Like [`Store::put`], for an output that was migrated from another worker with the key of its job. Returns false
    /// and keeps nothing also if the job now has another key.
    pub fn put_migrated(
        &self,
        attempt: &AttemptId,
        output: Output,
        result: v1::TaskResult,
        key: &[u8],
    ) -> bool {
        let mut jobs = self.jobs.lock();
        let job = jobs.get_mut(&attempt.task.job).filter(|job| job.key == key);
        job.map(|job| job.outputs.insert(attempt.clone(), StoredOutput { output, result, migrated: false }))
            .is_some()
    }

    /// Records that another worker has an output as well.
    pub fn note_migrated(&self, attempt: &AttemptId) {
        let mut jobs = self.jobs.lock();
        let kept = jobs.get_mut(&attempt.task.job).and_then(|job| job.outputs.get_mut(attempt));
        if let Some(kept) = kept {
            kept.migrated = true;
        }
    }

    /// Number of outputs that another worker has as well.
    pub fn migrated(&self) -> usize {
        let jobs = self.jobs.lock();
        jobs.values().flat_map(|job| job.outputs.values()).filter(|kept| kept.migrated).count()
    }

    /// An attempt's output, if it is here.
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

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.jobs.lock().values().map(|job| job.outputs.len()).sum()
    }

    /// All outputs with their tasks' results, sorted by attempt.
    pub fn inventory(&self) -> Vec<(AttemptId, v1::TaskResult)> {
        let jobs = self.jobs.lock();
        let all = jobs.values().flat_map(|job| &job.outputs);
        let mut held: Vec<_> = all.map(|(attempt, kept)| (attempt.clone(), kept.result.clone())).collect();
        held.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        held
    }

    /// Drops a job's map outputs.
    pub fn release_maps(&self, job: &JobId) {
        let is_map = |_: &AttemptId, kept: &mut StoredOutput| matches!(kept.output, Output::Map(_));
        let mut jobs = self.jobs.lock();
        let dropped: Vec<_> =
            jobs.get_mut(job).into_iter().flat_map(|job| job.outputs.extract_if(is_map)).collect();
        drop(jobs);
        // Freed without the lock, because this may take long.
        drop(dropped);
    }

    /// Drops all outputs of a job, and its key. Their memory and files are freed later; see [`Store::reclaim`].
    pub fn release(&self, job: &JobId) {
        let dropped = self.jobs.lock().remove(job);
        self.reclaim(dropped);
    }

    /// Drops a value on the thread that frees the memory of outputs, because this may take long.
    pub fn reclaim(&self, value: impl Send + 'static) {
        self.reclaimer.reclaim(value);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.jobs.get_mut().clear();
        // Afterwards, the spill directory is removed. If the disk hangs, this is left to the thread.
        self.reclaimer.wait_until_idle(LAST_REMOVALS);
        if !self.spill.reclaimer().wait_until_idle(LAST_REMOVALS) {
            tracing::warn!(folder = %self.spill.path().display(), "spilled outputs are still being removed");
        }
    }
}
