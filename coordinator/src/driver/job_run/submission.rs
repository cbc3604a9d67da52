//! What identifies a job: its specification and the facts of its submission. They never change.

use std::sync::Arc;

use tally_dataset::Dataset;
use tally_proto::v1;

use crate::job::JobSpec;

/// A submitted job.
pub(in crate::driver) struct Submission {
    pub(in crate::driver) spec: JobSpec,
    pub(in crate::driver) dataset: Arc<dyn Dataset>,
    /// The secret with which workers may fetch the job's outputs.
    pub(in crate::driver) key: Vec<u8>,
    /// The time of submission, in milliseconds since 1970.
    pub(in crate::driver) submitted_at: u64,
}

impl Submission {
    /// The journal's record of the submission.
    pub(in crate::driver) fn record(&self) -> v1::JobSubmitted {
        v1::JobSubmitted {
            job: self.spec.id.to_string(),
            spec: Some(self.spec.record()),
            key: self.key.clone(),
            submitted_at: self.submitted_at,
        }
    }
}
