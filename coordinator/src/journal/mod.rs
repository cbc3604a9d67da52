//! The coordinator's log of what no worker knows: submitted jobs, plans of their inputs, decisions. The next leader
//! continues from it.
//!
//! `state` folds records to live jobs and history; `frame` encodes one record, `state_dir` stores records as objects;
//! `log` orders them in epochs that fence earlier leaders. Not here: what follows from a record (the driver).

pub mod frame;
pub mod log;
pub mod state;
pub mod state_dir;

use async_trait::async_trait;
use tally_proto::v1::journal_record::Record;

/// The journal could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A later epoch ended this one. A record whose write was in doubt was not written.
    #[error("epoch {epoch} was ended by a later one: another coordinator leads")]
    Fenced {
        /// The epoch that was ended.
        epoch: u64,
    },
    /// The store.
    #[error("{path}: {reason}; check that --state-dir can be reached and written")]
    Io {
        /// The object.
        path: String,
        /// The error of the store.
        reason: String,
        /// Whether a later request may succeed.
        transient: bool,
    },
    /// A newer version wrote a record that this version cannot read. Nothing was changed, unless the record was written
    /// while this coordinator claimed its epoch.
    #[error(
        "{path}: {what}; {writer} wrote the journal: run that version or a later one, or give an empty --state-dir"
    )]
    Newer {
        /// The object.
        path: String,
        /// Why it cannot be read.
        what: String,
        /// The version that wrote it, as far as it is known.
        writer: String,
    },
    /// A record is truncated, foreign or missing.
    #[error("{path}: {what}; restore it, or give another --state-dir")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong with it.
        what: String,
    },
}

impl JournalError {
    /// Whether the journal stays unusable until someone changes something. A damaged one may be one that its leader changes
    /// at this moment.
    pub fn is_permanent(&self) -> bool {
        matches!(self, JournalError::Io { transient: false, .. } | JournalError::Newer { .. })
    }
}

/// The log to which decisions are written before they are carried out.
#[async_trait]
pub trait Journal: Send {
    /// Appends a record. The record is durable when this returns.
    ///
    /// # Errors
    /// [`JournalError::Fenced`]: another coordinator leads. [`JournalError::Io`]: it is not known whether the record was
    /// written; the next leader finds out.
    async fn append(&mut self, record: Record) -> Result<(), JournalError>;
}

/// A journal that keeps nothing, for a process without a successor.
pub struct NoopJournal;

#[async_trait]
impl Journal for NoopJournal {
    async fn append(&mut self, _: Record) -> Result<(), JournalError> {
        Ok(())
    }
}
