//! The coordinator's log of what no worker can tell: which jobs were asked for, how their inputs
//! were cut, what was decided. A coordinator that succeeds another goes on from it.
//!
//! `state` folds records to live jobs and history; `frame` is one record as bytes, `store` many of
//! them as objects; `log` orders them in epochs that fence an earlier leader. Not here: what follows
//! from a record (the driver).

pub mod frame;
pub mod log;
pub mod state;
pub mod store;

use async_trait::async_trait;
use tally_proto::v1::journal_record::Record;

/// A record could not be written, or the journal not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A later epoch ended this one: whatever is in doubt was not written.
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
        /// What the store said.
        reason: String,
    },
    /// A record that is torn, foreign or missing.
    #[error("{path}: {what}; restore it, or give another --state-dir")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong with it.
        what: String,
    },
}

/// Where decisions are written down before they are acted upon.
#[async_trait]
pub trait Journal: Send {
    /// Writes a record down; it is durable when this returns.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] where another leads by now; [`JournalError::Io`] where it is not
    /// known whether the record was written: only a successor can tell.
    async fn append(&mut self, record: Record) -> Result<(), JournalError>;
}

/// The journal of a process that nobody succeeds: it keeps nothing.
pub struct Forgetful;

#[async_trait]
impl Journal for Forgetful {
    async fn append(&mut self, _: Record) -> Result<(), JournalError> {
        Ok(())
    }
}
