//! The errors of a task, and their conversion to the typed failure on which the scheduler decides.
//!
//! The class of each error is defined only in the table of `classes`.

pub mod classes;

use std::error::Error;
use std::io;

use parquet::errors::ParquetError;
use tally_common::budget::Shortage;
use tally_common::disk::is_full;
use tally_common::size;
use tally_common::stores::urls::UrlError;
use tally_dataset::{DatasetError, ReduceError};
use tally_proto::class::Class;
use tally_proto::convert::BadMessage;
use tally_proto::limits::MAX_ROW_GROUPS;
use tally_proto::{Failure, TaskId, WorkerId};
use tally_scan::ScanError;

use crate::spill::SpillError;
use crate::store::StoreError;

/// Why a task attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The input cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A task output cannot be kept or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A limit of the dataset is exceeded, or a partial is malformed.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The task message is malformed.
    #[error("the task message is malformed: {0}")]
    InvalidTask(String),
    /// The task message does not list all inputs. No output is made of a part of them.
    #[error(
        "the inputs of the task are not complete: {0}; the task is tried again. If this repeats, run the same release \
    on coordinators and workers"
    )]
    Incomplete(String),
    /// The output would have more row groups than the result may list.
    #[error(
        "partition {partition} needs more than {MAX_ROW_GROUPS} row groups of {rows} rows: set a larger --target-file-size"
    )]
    RowGroups {
        /// The partition.
        partition: u32,
        /// Maximum rows of a row group.
        rows: u64,
    },
    /// This worker has no settings for a bucket.
    #[error("{0}")]
    Url(#[from] UrlError),
    /// Rows cannot be encoded as Parquet.
    #[error("rows cannot be encoded as Parquet: {0}")]
    Encode(ParquetError),
    /// A part file cannot be written.
    #[error("{path}: {what}: {source}; check that the output is writable")]
    Write {
        /// The file.
        path: String,
        /// The operation that failed.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The disk of a part file is full.
    #[error("{path}: {what}: {source}; free space there, or set another --output")]
    OutputFull {
        /// The file.
        path: String,
        /// The operation that failed.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A part of an upload failed.
    #[error("{url}: a part cannot be uploaded: {what}")]
    Upload {
        /// The object.
        url: String,
        /// The store's error.
        what: String,
        /// Whether another attempt may succeed.
        again: bool,
    },
    /// The task needs more memory than this worker has.
    #[error("{what}: {why}")]
    Memory {
        /// What the memory is for.
        what: &'static str,
        /// The size, and what to change.
        why: Shortage,
    },
    /// The task needs memory that is held by other waiting tasks.
    #[error("{what}: {why}")]
    MemoryHeld {
        /// What the memory is for.
        what: &'static str,
        /// The size, and what to change.
        why: Shortage,
    },
    /// The passes of the job need larger tables than this worker has memory for.
    #[error(
        "a slot of this worker has {} for the tables of a reduce task, and the job was planned for {}: start all workers \
        with the same --memory-limit and --slots, this one with --memory-limit {raise} or more",
        size::text(*share), size::text(*wanted)
    )]
    Share {
        /// Bytes of a pass.
        wanted: u64,
        /// Bytes of a slot's tables here.
        share: u64,
        /// The value of the option that is large enough for a pass.
        raise: String,
    },
    /// The inputs or outputs differ from the expected sums, though each piece is valid.
    #[error("the sums of the task do not agree: {0}")]
    Sums(String),
    /// The job would need more checksums of partitions than a coordinator keeps.
    #[error(
        "the rows of a map task fall into more than {most} of {partitions} partitions, and the job has too many map tasks \
        to check so many: set a larger --shard-bytes, or fewer --partitions"
    )]
    SumsLimit {
        /// Partitions of the job.
        partitions: u32,
        /// The most partitions that the map task may fill.
        most: usize,
    },
    /// An input cannot be read from its worker.
    #[error("the output of task {task} is not at worker {worker}: {reason}")]
    Lost {
        /// The worker that should have it.
        worker: WorkerId,
        /// The task that made it.
        task: TaskId,
        /// The error.
        reason: String,
    },
    /// A worker has the input, but too many readers.
    #[error("worker {worker} is too busy to send its outputs: {reason}")]
    Busy {
        /// The worker.
        worker: WorkerId,
        /// Its response.
        reason: String,
    },
    /// An input has a row that is larger than a message between workers. Only workers of earlier releases make one.
    #[error("worker {worker} cannot send an input of the task: {reason}")]
    Unsendable {
        /// The worker.
        worker: WorkerId,
        /// Its response.
        reason: String,
    },
    /// More tasks were sent to the worker than it takes.
    #[error("worker {worker} has no free slot for the task")]
    NoSlot {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker cannot start the task.
    #[error("worker {worker} cannot start the task: {what}")]
    NotBegun {
        /// The worker.
        worker: WorkerId,
        /// Why.
        what: String,
    },
    /// A bug in the program.
    #[error("the task panicked: {0}")]
    Panic(String),
    /// The task was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl TaskError {
    /// The error for memory that is not available for `what`.
    pub fn memory(what: &'static str) -> impl FnOnce(Shortage) -> TaskError {
        move |why| match why {
            Shortage::Never { .. } => TaskError::Memory { what, why },
            Shortage::Now { .. } => TaskError::MemoryHeld { what, why },
            Shortage::Cancelled => TaskError::Cancelled,
        }
    }

    /// The error of an operation on a part file.
    pub fn write(path: &str, what: &'static str, source: io::Error) -> TaskError {
        let path = path.into();
        if is_full(&source) {
            TaskError::OutputFull { path, what, source }
        } else {
            TaskError::Write { path, what, source }
        }
    }
}

/// The error of this crate inside an error of the Parquet crate or of a `Write`.
fn carried(error: Box<dyn Error + Send + Sync>) -> Result<TaskError, Box<dyn Error + Send + Sync>> {
    let error = match error.downcast::<TaskError>() {
        Ok(error) => return Ok(*error),
        Err(error) => error,
    };
    let error = match error.downcast::<ParquetError>() {
        Ok(error) => return Ok(TaskError::from(*error)),
        Err(error) => error,
    };
    let error = match error.downcast::<SpillError>() {
        Ok(error) => return Ok(TaskError::Store(StoreError::Spill(*error))),
        Err(error) => error,
    };
    let error = match error.downcast::<DatasetError>() {
        Ok(error) => return Ok(TaskError::Dataset(*error)),
        Err(error) => error,
    };
    let error = error.downcast::<io::Error>()?;
    match error.get_ref() {
        None => Err(error),
        Some(_) => match error.into_inner() {
            Some(inner) => carried(inner),
            None => Err("the error has no cause".into()),
        },
    }
}

impl From<ParquetError> for TaskError {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(inner) => {
                carried(inner).unwrap_or_else(|inner| TaskError::Encode(ParquetError::External(inner)))
            }
            other => TaskError::Encode(other),
        }
    }
}

impl From<BadMessage> for TaskError {
    fn from(error: BadMessage) -> Self {
        TaskError::InvalidTask(error.to_string())
    }
}

impl From<ReduceError> for TaskError {
    fn from(error: ReduceError) -> Self {
        match error {
            ReduceError::Dataset(error) => TaskError::Dataset(error),
            ReduceError::Sink(error) => {
                carried(error).unwrap_or_else(|other| TaskError::Encode(ParquetError::External(other)))
            }
        }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        let reason = error.to_string();
        match (classes::row(&error).class, error) {
            (Class::InputAgain, TaskError::Lost { worker, task, reason }) => {
                Failure::FetchLost { worker, task, reason }
            }
            (Class::Elsewhere | Class::InputAgain, _) => Failure::Retryable { reason },
            (Class::AfterWaiting, _) => Failure::Refused { reason },
            (Class::Fatal, _) => Failure::Fatal { reason },
            (Class::Stopped, _) => Failure::Cancelled,
        }
    }
}
