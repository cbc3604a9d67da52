//! A submission, and the driver's answers to it: the job's id, a refusal, the job's end.

use tally_common::counts::counted;
use tally_proto::JobId;
use tokio::sync::oneshot;

use crate::job::JobSpec;
use crate::summary::Summary;

/// Submissions that may wait for the end of a job of the same day.
pub(super) const MAX_SUBMITS: usize = 64;

/// How a job ended.
#[derive(Debug, Clone)]
pub enum Ended {
    /// Its day is published.
    Done(Box<Summary>),
    /// It failed for the given reason; the old day stays.
    Failed(String),
    /// Its day does not meet an expectation, as the text says; the old day stays.
    Unmet(String),
    /// It was cancelled; the old day stays.
    Cancelled,
}

/// A submission.
#[derive(Debug)]
pub struct Submit {
    /// The job. A new job gets the id that the specification has.
    pub spec: JobSpec,
    /// The secret with which workers may fetch the outputs of a new job: random bytes.
    pub key: Vec<u8>,
    /// Receives the answer: the job is in the journal, or not accepted.
    pub accepted: oneshot::Sender<Result<Accepted, Refusal>>,
    /// Receives the end of the job.
    pub ended: Option<oneshot::Sender<Ended>>,
}

/// An accepted job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub job: JobId,
    /// The job existed before this submission.
    pub existing: bool,
}

/// The reason for which a job is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The dataset is unknown, or refuses its options.
    #[error("{0}")]
    Dataset(String),
    /// Another job writes the same day.
    #[error(
        "job {job} already makes this output's day {date} from other inputs, with other options or expectations, or with another ready marker: wait for it, or cancel it"
    )]
    OtherInputs {
        /// The running job.
        job: JobId,
        /// The day.
        date: String,
    },
    /// Too many submissions wait for the end of a job that is being cancelled, or that ended a moment ago.
    #[error("the day's last job is about to end, and {0} submissions wait for that: submit again later")]
    BeingCancelled(usize),
    /// The limit of jobs at a time is reached.
    #[error("the cluster runs {}, which is the limit: submit again when one of them has ended", counted(*.0, "job"))]
    Full(usize),
}
