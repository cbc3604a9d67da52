//! What can go wrong with an input file, always naming the file, row group and column.

use tally_dataset::DatasetError;

use crate::stores::explain;

/// A file of the input, or a place in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The file's URL or path.
    pub file: String,
    /// The row group, from 0.
    pub row_group: Option<usize>,
    /// The column's dotted path.
    pub column: Option<String>,
}

impl std::fmt::Display for Place {
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
    /// The bytes are not what the format says; the same everywhere.
    #[error("{place}: {what}; replace the file or leave it out")]
    Corrupt {
        /// Where.
        place: Place,
        /// What was found.
        what: String,
    },
    /// The file went or changed since the job was planned; the same everywhere.
    #[error("{place}: {what}; run the job again when nobody writes to its input")]
    Changed {
        /// Where.
        place: Place,
        /// What the store said.
        what: String,
    },
    /// The store failed; another try may not.
    #[error("{place}: cannot be read: {what}")]
    Io {
        /// Where.
        place: Place,
        /// What the store said.
        what: String,
    },
    /// Something in the file needs more memory than there is.
    #[error("{place}: {what}; raise --memory-limit")]
    Limit {
        /// Where.
        place: Place,
        /// What is too large.
        what: String,
    },
    /// The dataset could not take a value.
    #[error("{place}: {source}")]
    Dataset {
        /// Where.
        place: Place,
        /// Why.
        source: DatasetError,
    },
    /// The task was told to stop.
    #[error("cancelled")]
    Cancelled,
}

/// An error of the page or value level, before its place is known.
#[derive(Debug)]
pub(crate) enum Fault {
    Corrupt(String),
    Changed(String),
    Io(String),
    Limit(String),
    Dataset(DatasetError),
    Cancelled,
}

impl Fault {
    /// The same fault of a fetch, for another reader of what it was to bring.
    pub(crate) fn again(&self) -> Fault {
        match self {
            Fault::Changed(what) => Fault::Changed(what.clone()),
            Fault::Corrupt(what) => Fault::Corrupt(what.clone()),
            Fault::Limit(what) | Fault::Io(what) => Fault::Io(what.clone()),
            Fault::Dataset(source) => Fault::Io(source.to_string()),
            Fault::Cancelled => Fault::Cancelled,
        }
    }

    pub(crate) fn corrupt<T>(what: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::Corrupt(what.into()))
    }

    pub(crate) fn at(self, place: Place) -> ScanError {
        match self {
            Fault::Corrupt(what) => ScanError::Corrupt { place, what },
            Fault::Changed(what) => ScanError::Changed { place, what },
            Fault::Io(what) => ScanError::Io { place, what },
            Fault::Limit(what) => ScanError::Limit { place, what },
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
            NotFound { .. } => Fault::Changed("the file is gone".into()),
            Precondition { .. } => Fault::Changed("the file changed while the job ran".into()),
            other => Fault::Io(explain(&other)),
        }
    }
}
