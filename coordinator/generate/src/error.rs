//! The errors of the generator, each with a remedy. Not here: any logic.

use std::path::PathBuf;

/// Why no day was written. Files that were already written are removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// An option has an invalid value.
    #[error("option {option} is {value}: {rule}")]
    Option {
        /// The option's name as on the command line, without dashes.
        option: &'static str,
        /// The value given.
        value: String,
        /// The valid values.
        rule: &'static str,
    },
    /// The day exists; with a second one in the same folders, the totals would be unknown.
    #[error("{} already holds files: give --replace to remove them, or choose another output or date", .0.display())]
    Exists(PathBuf),
    /// The caller stopped it.
    #[error("stopped on request")]
    Stopped,
    /// A file or folder can't be made, written or removed.
    #[error("cannot {action} {}: {source}; check the folder's permissions and the disk's free space", path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The Parquet writer failed, usually because the disk is full.
    #[error("cannot write {}: {source}; check the disk's free space", path.display())]
    Parquet {
        /// The file being written.
        path: PathBuf,
        /// The error of the writer.
        source: parquet::errors::ParquetError,
    },
    /// The columns do not fit together: a bug of this crate.
    #[error("cannot build a block of rows: {0}; this is a bug, please report it with the options")]
    Block(#[from] arrow_schema::ArrowError),
}
