//! The outputs that a simulated worker holds, with the rules of the real store: an output is kept only for a job that was
//! admitted or whose task was started, and it is read only with the job's key.
//!
//! Not here: who makes outputs (`tasks`), who reads them (`fetch`).

use std::collections::BTreeMap;
use std::rc::Rc;

use tally_proto::{AttemptId, JobId, v1};

use crate::dataset::Row;

/// Encoded rows of a reduce task.
#[derive(Debug, Clone)]
pub struct Group {
    /// The rows.
    pub rows: Vec<Row>,
    /// The sum of their hashes.
    pub checksum: u64,
    /// The CRC-32 of their bytes.
    pub crc32: u32,
}

/// The output of a task.
#[derive(Debug)]
pub enum Output {
    /// Of a map task: rows by partition.
    Map(Vec<Vec<Row>>),
    /// Of a reduce task.
    File(Vec<Group>),
}

impl Output {
    /// Its bytes.
    pub fn bytes(&self) -> u64 {
        let rows: usize = match self {
            Output::Map(partitions) => partitions.iter().map(Vec::len).sum(),
            Output::File(groups) => groups.iter().map(|group| group.rows.len()).sum(),
        };
        rows as u64 * 16
    }
}

/// An output that is held.
#[derive(Debug, Clone)]
pub struct Held {
    /// The output.
    pub output: Rc<Output>,
    /// The result of its task.
    pub result: v1::TaskResult,
    /// Another worker has it as well.
    pub migrated: bool,
}

#[derive(Debug, Default)]
struct JobOutputs {
    key: Vec<u8>,
    held: BTreeMap<AttemptId, Held>,
}

/// All outputs of one incarnation.
#[derive(Debug, Default)]
pub struct Outputs {
    jobs: BTreeMap<JobId, JobOutputs>,
    /// Reads under way.
    pub serving: u32,
}

impl Outputs {
    /// Admits a job. Outputs of the job with another key are dropped.
    pub fn admit(&mut self, job: &JobId, key: &[u8]) {
        let known = self.jobs.entry(job.clone()).or_default();
        if known.key != key {
            *known = JobOutputs { key: key.into(), held: BTreeMap::new() };
        }
    }

    /// Keeps an output; false if its job is not admitted.
    pub fn put(&mut self, attempt: AttemptId, held: Held) -> bool {
        let job = self.jobs.get_mut(&attempt.task.job);
        job.map(|job| job.held.insert(attempt, held)).is_some()
    }

    /// The same for an output of another worker, with its job's key.
    pub fn put_migrated(&mut self, attempt: AttemptId, held: Held, key: &[u8]) -> bool {
        let admitted = self.jobs.get(&attempt.task.job).is_some_and(|job| job.key == key);
        admitted && self.put(attempt, held)
    }

    /// Drops a job.
    pub fn release(&mut self, job: &JobId) {
        self.jobs.remove(job);
    }

    /// An output.
    pub fn get(&self, attempt: &AttemptId) -> Option<&Held> {
        self.jobs.get(&attempt.task.job)?.held.get(attempt)
    }

    /// An output, for a reader with the job's key.
    pub fn read(&self, attempt: &AttemptId, key: &[u8]) -> Option<&Held> {
        self.jobs.get(&attempt.task.job).filter(|job| job.key == key)?.held.get(attempt)
    }

    /// The key of a job.
    pub fn key(&self, job: &JobId) -> Option<&[u8]> {
        self.jobs.get(job).map(|job| &job.key[..])
    }

    /// Notes that another worker has an output as well.
    pub fn note_migrated(&mut self, attempt: &AttemptId) {
        if let Some(held) = self.jobs.get_mut(&attempt.task.job).and_then(|job| job.held.get_mut(attempt)) {
            held.migrated = true;
        }
    }

    /// The jobs of which anything is held, even if that is only the key.
    pub fn jobs(&self) -> impl Iterator<Item = &JobId> {
        self.jobs.keys()
    }

    /// All outputs, in the order of their attempts.
    pub fn iter(&self) -> impl Iterator<Item = (&AttemptId, &Held)> {
        self.jobs.values().flat_map(|job| &job.held)
    }
}
