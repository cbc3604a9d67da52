//! What write attempts were given: their uploads, and the attempts of reduce tasks that they read.

use std::collections::{BTreeMap, BTreeSet};

use tally_proto::{AttemptId, v1};

use crate::results::{ByAttempt, Winner};

/// The write attempts of a job.
#[derive(Default)]
pub(in crate::driver) struct WriteAttempts {
    uploads: ByAttempt<v1::Upload>,
    /// By write attempt: the attempt that it reads of each reduce task.
    reads: ByAttempt<BTreeMap<u32, u32>>,
}

impl WriteAttempts {
    /// Keeps the upload of an attempt.
    pub(in crate::driver) fn upload_begun(&mut self, attempt: &AttemptId, upload: v1::Upload) {
        self.uploads.insert(attempt, upload);
    }

    pub(super) fn has_upload(&self, attempt: &AttemptId) -> bool {
        self.uploads.get(attempt).is_some()
    }

    pub(super) fn upload(&self, attempt: &AttemptId) -> Option<&v1::Upload> {
        self.uploads.get(attempt)
    }

    /// Notes what an attempt reads.
    pub(super) fn set_reads(&mut self, attempt: &AttemptId, reads: BTreeMap<u32, u32>) {
        self.reads.insert(attempt, reads);
    }

    /// What an attempt reads: the attempt of each reduce task.
    pub(super) fn reads(&self, attempt: &AttemptId) -> Option<&BTreeMap<u32, u32>> {
        self.reads.get(attempt)
    }

    /// Keeps of a part file that is written only what its current attempt was given.
    pub(super) fn settle(&mut self, file: u32, counts: impl Fn(u32) -> bool) {
        self.uploads.retain(file, &counts);
        self.reads.retain(file, counts);
    }

    /// The attempts of a reduce task that write attempts read.
    pub(super) fn read_of(&self, task: u32) -> BTreeSet<u32> {
        self.reads.iter().filter_map(|(_, reads)| reads.get(&task).copied()).collect()
    }

    /// By reduce task: the part files that read it, and the attempt that each of them read.
    pub(super) fn readers(&self, written: &[Winner]) -> BTreeMap<u32, Vec<(u32, u32)>> {
        let mut readers: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
        for winner in written {
            for (&task, &attempt) in self.reads.get(&winner.attempt).into_iter().flatten() {
                readers.entry(task).or_default().push((winner.attempt.task.index, attempt));
            }
        }
        readers
    }
}
