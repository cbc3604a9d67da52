//! How the errors of a task become the typed failure that the scheduler decides by.

use tally_dataset::{DatasetError, ReduceError};
use tally_proto::convert::BadMessage;
use tally_proto::{Failure, TaskId, WorkerId};

use crate::scan::ScanError;
use crate::store::StoreError;

/// Why a task attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Reading the input.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// Keeping or reading task outputs.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A limit of the dataset, or a malformed partial.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// An order that cannot be carried out as it stands.
    #[error("the task order is malformed: {0}")]
    Order(String),
    /// An order whose inputs are not all that it says there are: nothing is made of a part of them.
    #[error(
        "the inputs of the task are not complete: {0}; it is tried again, and where that does not help, give \
         coordinators and workers the same release"
    )]
    Incomplete(String),
    /// Encoding rows as Parquet.
    #[error("encoding rows: {0}")]
    Encode(#[from] parquet::errors::ParquetError),
    /// Writing a part file.
    #[error("{path}: {what}: {source}; make room or give another --output")]
    Write {
        /// The file.
        path: String,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Uploading a part file.
    #[error("{url}: a part cannot be uploaded: {what}")]
    Upload {
        /// The object.
        url: String,
        /// What the store said.
        what: String,
    },
    /// The budget has no room for what cannot be made smaller.
    #[error("{what} need {bytes} bytes more than --memory-limit leaves; raise it")]
    Memory {
        /// What for.
        what: &'static str,
        /// How much.
        bytes: usize,
    },
    /// The order's passes are cut larger than this worker's tables may be.
    #[error(
        "reduce passes of {wanted} bytes of tables were ordered, and a slot here has {share}: give this \
         worker more --memory-limit or fewer --slots"
    )]
    Share {
        /// Bytes of a pass.
        wanted: u64,
        /// Bytes of a slot's tables here.
        share: u64,
    },
    /// What was read or made is not what it should be, though each piece of it is.
    #[error("the sums of the task do not agree: {0}")]
    Sums(String),
    /// An input that is not where it should be.
    #[error("the output of task {task} is not at worker {worker}: {reason}")]
    Lost {
        /// Who should have it.
        worker: WorkerId,
        /// Whose output it is.
        task: TaskId,
        /// What was seen.
        reason: String,
    },
    /// A worker that has what is wanted, but too many readers.
    #[error("worker {worker} is too busy to send its outputs: {reason}")]
    Busy {
        /// Who.
        worker: WorkerId,
        /// What it said.
        reason: String,
    },
    /// Told to stop.
    #[error("cancelled")]
    Cancelled,
}

impl From<BadMessage> for TaskError {
    fn from(error: BadMessage) -> Self {
        TaskError::Order(error.to_string())
    }
}

impl From<ReduceError> for TaskError {
    fn from(error: ReduceError) -> Self {
        match error {
            ReduceError::Dataset(error) => TaskError::Dataset(error),
            ReduceError::Sink(error) => match error.downcast::<TaskError>() {
                Ok(error) => *error,
                Err(other) => TaskError::Order(other.to_string()),
            },
        }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        let reason = error.to_string();
        match error {
            TaskError::Cancelled | TaskError::Scan(ScanError::Cancelled) => Failure::Cancelled,
            TaskError::Lost { worker, task, reason } => Failure::FetchLost { worker, task, reason },
            TaskError::Scan(ScanError::Io { .. })
            | TaskError::Store(_)
            | TaskError::Incomplete(_)
            | TaskError::Encode(_)
            | TaskError::Share { .. }
            | TaskError::Busy { .. }
            | TaskError::Sums(_)
            | TaskError::Upload { .. }
            | TaskError::Write { .. } => Failure::Retryable { reason },
            TaskError::Scan(_) | TaskError::Dataset(_) | TaskError::Order(_) | TaskError::Memory { .. } => {
                Failure::Fatal { reason }
            }
        }
    }
}
