//! Staging part files beside the output, and making a day visible in one step.
//!
//! In a file system (`folder_staging`), the staging folder is a hidden sibling of the output's root, on the same file system.
//! The publish exchanges the day's folder with the staged one, so a reader sees either the complete old day or the complete
//! new day. Where the file system cannot do that, two renames replace it (`replace`).
//!
//! In object stores (`store_staging`), tasks fill multipart uploads, which only the publish completes, by one record
//! (`commit_log`). `staging` is either of the two, as the driver uses it. The output never contains anything but part files and the
//! ready marker. The files of a dataset with folders are in folders within the day; the day is published as a whole all the same.

mod abort;
mod begins;
pub mod commit_log;
mod day_id;
mod dead_folders;
pub mod file_system;
mod folder;
mod folder_staging;
mod probe;
mod record;
mod replace;
pub mod staging;
pub mod store_staging;
pub mod sweep;

use std::io;

use tally_common::stores::urls::UrlError;
use tally_common::stores::{explain, is_transient};

pub use folder_staging::{Commit, Finished, FolderStaging, StagedPart};

/// The output could not be staged or published. The old day stays.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The file system.
    #[error("{path}: {what}: {source}; check that the output is writable")]
    Io {
        /// The path.
        path: String,
        /// The operation that failed.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The disk is full.
    #[error("{path}: {what}: {source}; make room there, or give another --output")]
    Full {
        /// The path.
        path: String,
        /// The operation that failed.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// Another process published the day after this job's decision.
    #[error(
        "{path}: another day was published there after this one was decided, and stays; submit again to replace it"
    )]
    Replaced {
        /// The day.
        path: String,
    },
    /// An object store.
    #[error("{url}: {what}: {reason}")]
    Store {
        /// The URL.
        url: String,
        /// The operation that failed.
        what: &'static str,
        /// The error of the store.
        reason: String,
        /// Another try may succeed.
        transient: bool,
    },
}

impl PublishError {
    /// The error of a store.
    fn store(url: String, what: &'static str, error: &object_store::Error) -> Self {
        PublishError::Store { url, what, reason: explain(error), transient: is_transient(error) }
    }

    /// An error that another try does not change.
    fn lasting(url: String, what: &'static str, reason: String) -> Self {
        PublishError::Store { url, what, reason, transient: false }
    }

    /// Whether another try may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, PublishError::Store { transient: true, .. })
    }
}

#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;
