//! Audits of published days: whether a day is what its job published ([`verify`]), and whether two days have the same rows
//! ([`compare`]). Both read all part files once, in bounded memory; what does not fit is stored in a temporary file.
//!
//! Not here: the rules of a dataset (`tally_dataset`), and how differences are shown (`coordinator/cli`).

mod buckets;
mod comparison;
mod day_audit;
mod differences;
mod findings;
mod local_copy;
mod part_rows;
mod row_hashes;
mod row_values;

use std::path::PathBuf;

use crate::plan::listing::ListError;
use crate::publish::PublishError;
use tally_common::counts::counted;

pub use comparison::{Comparison, ConstantDifference, DayLocation, KeyDifference, Side, compare};
pub use day_audit::{DayReport, verify};
pub use findings::Finding;
pub use row_values::RowValues;

/// The name of an output in errors, where inputs have the name of their table.
const OUTPUT: &str = "output";

/// What an audit may use.
#[derive(Debug, Clone)]
pub struct AuditLimits {
    /// Maximum bytes of memory.
    pub memory: u64,
    /// Part files that are read at a time.
    pub threads: usize,
    /// Folder for what does not fit into memory, and for copies of objects.
    pub spill_dir: PathBuf,
}

/// An audit could not be completed: it says nothing about the day.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The part files cannot be listed, or there are none.
    #[error(transparent)]
    List(#[from] ListError),
    /// The records of a publish cannot be read.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A part file cannot be read.
    #[error("{file} cannot be read: {why}")]
    Read {
        /// The file.
        file: String,
        /// The error of the system or the store.
        why: String,
    },
    /// A part file cannot be decoded.
    #[error("{file} is not a part file of {dataset}: {why}")]
    Decode {
        /// The file.
        file: String,
        /// The dataset.
        dataset: &'static str,
        /// The reason.
        why: String,
    },
    /// A file was replaced meanwhile.
    #[error("{0} was replaced while it was read: run the command again")]
    Replaced(String),
    /// A folder has several days.
    #[error("{url} has folders of several days: give the URL of a day, or --date")]
    SeveralDays {
        /// The folder.
        url: String,
    },
    /// The temporary file cannot be used.
    #[error("a temporary file in {}: {source}; give another --spill-dir", dir.display())]
    Spill {
        /// Its folder.
        dir: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The rows of one bucket do not fit into memory.
    #[error("{} with similar keys do not fit into memory: raise --memory-limit", counted(*rows, "row"))]
    Memory {
        /// Rows in the bucket.
        rows: u64,
    },
    /// A bug of the program.
    #[error("the audit panicked; the log says where")]
    Panic,
}
