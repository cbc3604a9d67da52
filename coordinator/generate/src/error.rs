//! What can go wrong while a day is generated, each with what to do about it. No logic.

use std::path::PathBuf;

/// Why no day was written. Whatever part of the day had been written before is removed again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// An option has a value that makes no day.
    #[error("option {option} is {value}: {rule}")]
    Option {
        /// The option's name as on the command line, without dashes.
        option: &'static str,
        /// The value given.
        value: String,
        /// What it must be instead.
        rule: &'static str,
    },
    /// The day exists; a second one beside it would make totals that no one knows.
    #[error("{} already holds files: remove it, or choose another output or date", .0.display())]
    Exists(PathBuf),
    /// A file or folder can't be made, written or removed.
    #[error("cannot {action} {}: {source}; check the folder's rights and the disk's free space", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The Parquet writer failed, mostly for a full disk.
    #[error("cannot write {}: {source}; check the disk's free space", path.display())]
    Parquet {
        /// The file being written.
        path: PathBuf,
        /// The writer's reason.
        source: parquet::errors::ParquetError,
    },
    /// Columns did not fit together: a fault of this crate.
    #[error("cannot build a block of rows: {0}; this is a bug, please report it with the options")]
    Block(#[from] arrow::error::ArrowError),
}
