//! The journal in epochs. An epoch is claimed by creating its record 0; the claimant then seals
//! every earlier epoch by taking that one's next free number, reads what it says, and writes a
//! snapshot of it as record 1 of its own. An append creates the next number: where that is taken,
//! the epoch was sealed, and its writer leads no more.
//!
//! So all that was acknowledged in an epoch lies before its seal, and is read by whoever comes
//! after, whatever clocks and networks do. Claims and seals are never removed.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tally_proto::v1;
use tally_proto::v1::journal_record::Record;

use super::frame::WriterId;
use super::state::State;
use super::store::{Created, StateDir};
use super::{Journal, JournalError};

/// Who claims an epoch, and how its journal is kept.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// Where this coordinator is reached.
    pub address: String,
    /// Jobs that are over and remembered.
    pub history: usize,
    /// Records after which a snapshot replaces them.
    pub compact_after: u64,
}

/// The journal of one epoch, as its claimant writes it.
#[derive(Debug)]
pub struct EpochLog {
    dir: StateDir,
    epoch: u64,
    writer: WriterId,
    next: u64,
    /// The number of the last snapshot.
    snapshot: u64,
    /// The first record, beside the claim, that is not removed: the snapshot before the last, so
    /// that no look at the log misses both.
    kept: u64,
    compact_after: u64,
    state: State,
}

impl EpochLog {
    /// Claims the next epoch and takes over what earlier ones left.
    ///
    /// # Errors
    /// [`JournalError::Fenced`] where yet another claimed a later one meanwhile; the others where the
    /// journal cannot be read or written.
    pub async fn claim(dir: StateDir, claimant: &Claimant) -> Result<Self, JournalError> {
        let writer: WriterId = rand::random();
        let (epoch, records) = loop {
            let records = dir.list().await?;
            let epoch = records.last_key_value().map_or(0, |(epoch, _)| *epoch) + 1;
            let version = env!("CARGO_PKG_VERSION").to_string();
            let claim = Record::Claim(v1::Claim { epoch, address: claimant.address.clone(), version });
            if dir.create(epoch, 0, writer, &claim).await? == Created::Yes {
                break (epoch, records);
            }
        };
        let mut log = EpochLog {
            dir,
            epoch,
            writer,
            next: 1,
            snapshot: 1,
            kept: 1,
            compact_after: claimant.compact_after.max(1),
            state: State::new(claimant.history),
        };
        // From the latest to the first that has a snapshot: its claimant sealed those before it.
        for &earlier in records.keys().rev() {
            let last = log.seal(earlier).await?;
            if log.take_over(earlier, last).await? {
                break;
            }
        }
        let snapshot = Record::Snapshot(log.state.snapshot());
        log.create(&snapshot).await?;
        log.clean(&records).await;
        Ok(log)
    }

    /// The epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What all records so far amount to.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Ends an earlier epoch; the number of its seal.
    ///
    /// A number may be free because its record was removed, and a seal there would end nothing: the
    /// writer is past it. So a seal counts only once a look that began after it finds nothing later.
    async fn seal(&self, epoch: u64) -> Result<u64, JournalError> {
        let seal = Record::Seal(v1::Seal { by_epoch: self.epoch });
        loop {
            let last = self.dir.list_epoch(epoch).await?.last().copied().unwrap_or(0);
            match self.dir.read(epoch, last).await? {
                Some((_, Record::Seal(_))) => return Ok(last),
                Some(_) => {
                    // Whoever took that number: the next look says.
                    let _ = self.dir.create(epoch, last + 1, self.writer, &seal).await?;
                }
                // Removed meanwhile: there are later ones.
                None => {}
            }
        }
    }

    /// Reads a sealed epoch into the state; false if it never had a snapshot.
    async fn take_over(&mut self, epoch: u64, seal: u64) -> Result<bool, JournalError> {
        let mut later = vec![];
        for number in (1..seal).rev() {
            let Some((_, record)) = self.dir.read(epoch, number).await? else {
                return Err(self.missing(epoch, number).await);
            };
            let found = matches!(record, Record::Snapshot(_));
            later.push(record);
            if found {
                later.iter().rev().for_each(|record| self.state.apply(record));
                return Ok(true);
            }
        }
        match later.is_empty() {
            true => Ok(false),
            false => Err(self.missing(epoch, 1).await),
        }
    }

    /// A record is not there: it was lost, or removed by a later claimant.
    async fn missing(&self, epoch: u64, number: u64) -> JournalError {
        match self.dir.read(self.epoch, 1).await {
            Ok(Some(_)) => JournalError::Fenced { epoch: self.epoch },
            Ok(None) => JournalError::Damaged {
                path: format!("log/{epoch}/{number}"),
                what: "this record of the journal is missing".into(),
            },
            Err(error) => error,
        }
    }

    async fn create(&mut self, record: &Record) -> Result<(), JournalError> {
        match self.dir.create(self.epoch, self.next, self.writer, record).await? {
            Created::Yes => {
                self.next += 1;
                Ok(())
            }
            Created::Taken => Err(JournalError::Fenced { epoch: self.epoch }),
        }
    }

    /// Removes what this epoch's snapshot stands for.
    async fn clean(&self, records: &BTreeMap<u64, BTreeSet<u64>>) {
        for (&epoch, numbers) in records {
            // The seal is the last, perhaps one later than what was listed.
            let old = numbers.iter().copied().filter(|&number| number > 0 && Some(&number) != numbers.last());
            self.dir.remove(epoch, old).await;
        }
    }

    /// Replaces the records of this epoch by a snapshot.
    async fn compact(&mut self) -> Result<(), JournalError> {
        let at = self.next;
        let snapshot = Record::Snapshot(self.state.snapshot());
        self.create(&snapshot).await?;
        self.dir.remove(self.epoch, self.kept..self.snapshot).await;
        (self.kept, self.snapshot) = (self.snapshot, at);
        Ok(())
    }
}

#[async_trait]
impl Journal for EpochLog {
    async fn append(&mut self, record: Record) -> Result<(), JournalError> {
        self.create(&record).await?;
        self.state.apply(&record);
        if self.next - self.snapshot > self.compact_after
            && let Err(error) = self.compact().await
        {
            // What was to be appended is there; the next append says what is wrong.
            tracing::warn!(%error, "the journal could not be compacted");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
