//! Errors of reading an input file. Each names the file, and the row group and column if they are known.

use tally_common::budget::Shortage;
use tally_common::stores::{concerns_credentials, explain, is_transient};
use tally_dataset::DatasetError;

/// An input file, or a position in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilePosition {
    /// The file's URL or path.
    pub file: String,
    /// The row group, from 0.
    pub row_group: Option<usize>,
    /// The column's dotted path.
    pub column: Option<String>,
}

impl std::fmt::Display for FilePosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(row_group) = self.row_group {
            write!(f, ", row group {row_group}")?;
        }
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        Ok(())
    }
}

/// Why a scan failed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The bytes violate the format. A retry on another worker fails in the same way.
    #[error("{place}: {what}; replace the file or leave it out")]
    Corrupt {
        /// Where.
        place: FilePosition,
        /// What was found.
        what: String,
    },
    /// The file was removed or changed after the job was planned. A retry on another worker fails in the same way.
    #[error("{place}: {what}; run the job again when no other process writes to its input")]
    Changed {
        /// Where.
        place: FilePosition,
        /// The error of the store.
        what: String,
    },
    /// The store failed. A retry may succeed.
    #[error("{place}: cannot be read: {what}")]
    Io {
        /// Where.
        place: FilePosition,
        /// The error of the store.
        what: String,
    },
    /// The store refuses access. A retry on another worker fails in the same way.
    #[error("{place}: cannot be read: {what}")]
    Refused {
        /// Where.
        place: FilePosition,
        /// The error of the store.
        what: String,
    },
    /// An item in the file needs more memory than the worker has.
    #[error("{place}: {what}: {why}")]
    Memory {
        /// Where.
        place: FilePosition,
        /// The item that is too large.
        what: &'static str,
        /// The size, and what to change.
        why: Shortage,
    },
    /// An item in the file needs memory that is held by other waiting tasks.
    #[error("{place}: {what}: {why}")]
    MemoryHeld {
        /// Where.
        place: FilePosition,
        /// The item that is too large.
        what: &'static str,
        /// The size, and what to change.
        why: Shortage,
    },
    /// The dataset rejects a value.
    #[error("{place}: {source}")]
    Dataset {
        /// Where.
        place: FilePosition,
        /// Why.
        source: DatasetError,
    },
    /// The task was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// An error of a page or value, before its position is known.
#[derive(Debug)]
pub(crate) enum Fault {
    Corrupt(String),
    Changed(String),
    Io(String),
    Refused(String),
    Memory(&'static str, Shortage),
    Dataset(DatasetError),
    Cancelled,
}

impl Fault {
    /// The same fault, for another reader of the same fetch.
    pub(crate) fn duplicate(&self) -> Fault {
        match self {
            Fault::Changed(what) => Fault::Changed(what.clone()),
            Fault::Corrupt(what) => Fault::Corrupt(what.clone()),
            Fault::Refused(what) => Fault::Refused(what.clone()),
            Fault::Io(what) => Fault::Io(what.clone()),
            Fault::Memory(what, why) => Fault::Memory(what, why.clone()),
            Fault::Dataset(source) => Fault::Io(source.to_string()),
            Fault::Cancelled => Fault::Cancelled,
        }
    }

    pub(crate) fn corrupt<T>(what: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::Corrupt(what.into()))
    }

    pub(crate) fn at(self, place: FilePosition) -> ScanError {
        match self {
            Fault::Corrupt(what) => ScanError::Corrupt { place, what },
            Fault::Changed(what) => ScanError::Changed { place, what },
            Fault::Io(what) => ScanError::Io { place, what },
            Fault::Refused(what) => ScanError::Refused { place, what },
            Fault::Memory(_, Shortage::Cancelled) => ScanError::Cancelled,
            Fault::Memory(what, why @ Shortage::Never { .. }) => ScanError::Memory { place, what, why },
            Fault::Memory(what, why @ Shortage::Now { .. }) => ScanError::MemoryHeld { place, what, why },
            Fault::Dataset(source) => ScanError::Dataset { place, source },
            Fault::Cancelled => ScanError::Cancelled,
        }
    }
}

impl From<parquet::errors::ParquetError> for Fault {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Fault::Corrupt(error.to_string())
    }
}

impl From<DatasetError> for Fault {
    fn from(error: DatasetError) -> Self {
        Fault::Dataset(error)
    }
}

impl From<object_store::Error> for Fault {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error::{NotFound, Precondition};
        match error {
            NotFound { .. } => Fault::Changed("the file no longer exists".into()),
            Precondition { .. } => Fault::Changed("the file changed while the job ran".into()),
            other if is_transient(&other) || concerns_credentials(&other) => Fault::Io(explain(&other)),
            other => Fault::Refused(explain(&other)),
        }
    }
}
