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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::Error;
    use tally_common::budget::Budget;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// The variant of an error, and its text.
    fn placed(fault: Fault) -> (&'static str, String) {
        let error =
            fault.at(FilePosition { file: "x".into(), row_group: Some(3), column: Some("a.b".into()) });
        let variant = match &error {
            ScanError::Corrupt { .. } => "corrupt",
            ScanError::Changed { .. } => "changed",
            ScanError::Io { .. } => "io",
            ScanError::Refused { .. } => "refused",
            ScanError::Memory { .. } => "memory",
            ScanError::MemoryHeld { .. } => "memory held",
            ScanError::Dataset { .. } => "dataset",
            ScanError::Cancelled => "cancelled",
        };
        (variant, error.to_string())
    }

    fn check(fault: Fault, variant: &str, said: &str) {
        let copy = fault.duplicate();
        let (found, text) = placed(fault);
        assert_eq!(found, variant, "{text}");
        assert!(text.contains(said), "no {said:?} in {text:?}");
        assert!(variant == "cancelled" || text.starts_with("x, row group 3, column a.b: "), "{text}");
        // The other readers of a fetch get the same error; an error of the dataset does not come from a fetch.
        assert!(variant == "dataset" || placed(copy) == (found, text));
    }

    #[test]
    fn an_error_of_a_store_says_whether_another_try_may_succeed() {
        let store = |error: Error| Fault::from(error);
        let (path, source) = (|| "x".to_string(), |text: &str| text.to_string().into());
        let generic = |text: &str| Error::Generic { store: "S3", source: source(text) };
        let not_found = Error::NotFound { path: path(), source: source("404") };
        check(store(not_found), "changed", "the file no longer exists; run the job again");
        let replaced = Error::Precondition { path: path(), source: source("412") };
        check(store(replaced), "changed", "the file changed while the job ran; run the job again");
        for text in ["connection reset", "Server returned non-2xx status code: 503 Service Unavailable: busy"]
        {
            check(store(generic(text)), "io", "cannot be read: ");
        }
        let denied = Error::PermissionDenied { path: path(), source: source("403") };
        check(store(denied), "refused", "cannot be read: ");
        let unknown = Error::Unauthenticated { path: path(), source: source("401") };
        check(store(unknown), "refused", "cannot be read: ");
        check(
            store(generic("Server returned non-2xx status code: 403 Forbidden: <Code>AccessDenied</Code>")),
            "refused",
            "cannot be read: ",
        );
    }

    #[test]
    fn an_error_of_a_page_names_what_to_do() {
        let parquet = parquet::errors::ParquetError::General("no such codec".into());
        check(Fault::from(parquet), "corrupt", "no such codec; replace the file or leave it out");
        check(Fault::from(DatasetError::TooManyKeys), "dataset", "--partitions");
        let budget = Budget::new(10);
        let never = budget.reserve(11).unwrap_err();
        check(Fault::Memory("a page", never), "memory", "a page: ");
        let _held = budget.for_task(CancellationToken::new()).reserve(6).unwrap();
        let waits = |token: &CancellationToken| {
            budget.for_task(token.clone()).reserve_within(6, Duration::ZERO).unwrap_err()
        };
        let token = CancellationToken::new();
        check(Fault::Memory("a page", waits(&token)), "memory held", "run fewer jobs at a time");
        token.cancel();
        check(Fault::Memory("a page", waits(&token)), "cancelled", "cancelled");
        check(Fault::Cancelled, "cancelled", "cancelled");
    }
}
