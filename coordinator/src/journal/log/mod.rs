//! The journal in epochs. A coordinator claims an epoch by creating its record 0. The claimant then seals every earlier
//! epoch by taking that epoch's next free number, reads its records, and writes a snapshot of them as record 1 of its
//! own epoch. An append creates the next number: if that is taken, the epoch was sealed, and its writer no longer leads.
//!
//! So every acknowledged record of an epoch comes before its seal, and every later leader reads it, independently of
//! clocks and networks. Claims and seals are never removed.
//!
//! A claimant first reads what it would take over. If it cannot read a record, it creates nothing, and does not end the
//! epoch of a newer version. Not here: which records a version can read (`frame`).

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use tally_proto::v1;
use tally_proto::v1::journal_record::Record;

use super::frame::WriterId;
use super::state::State;
use super::state_dir::{Created, StateDir};
use super::{Journal, JournalError};

/// The claimant of an epoch, and the options of its journal.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The address of this coordinator.
    pub address: String,
    /// Ended jobs that are remembered.
    pub history: usize,
    /// Records after which a snapshot replaces them.
    pub compact_after: u64,
}

/// Reads of records at a time.
const READS: usize = 16;

/// Records by epoch and number. A record never changes.
type Tail = BTreeMap<(u64, u64), Record>;

/// Reads the listed records back to the latest snapshot. Records that were removed meanwhile are left out.
async fn read_tail(dir: &StateDir, records: &BTreeMap<u64, BTreeSet<u64>>) -> Result<Tail, JournalError> {
    let listed = |(&epoch, numbers): (&u64, &BTreeSet<u64>)| {
        numbers.iter().rev().map(|&number| (epoch, number)).collect::<Vec<_>>()
    };
    let latest_first: Vec<_> = records.iter().rev().flat_map(listed).collect();
    let reads = latest_first.into_iter().map(|(epoch, number)| async move {
        let read = dir.read(epoch, number).await;
        (epoch, number, read)
    });
    let mut reads = stream::iter(reads).buffered(READS);
    let mut tail = Tail::new();
    while let Some((epoch, number, read)) = reads.next().await {
        let record = match read {
            Ok(Some((_, record))) => record,
            Ok(None) => continue,
            Err(error) => return Err(name_writer(dir, epoch, error).await),
        };
        let is_snapshot = matches!(record, Record::Snapshot(_));
        tail.insert((epoch, number), record);
        if is_snapshot {
            break;
        }
    }
    Ok(tail)
}

/// Adds the version of an epoch's claimant to the error that its record is newer.
async fn name_writer(dir: &StateDir, epoch: u64, error: JournalError) -> JournalError {
    let JournalError::Newer { path, what, writer } = error else { return error };
    let writer = match dir.read(epoch, 0).await {
        Ok(Some((_, Record::Claim(claim)))) => format!("version {}", claim.version),
        _ => writer,
    };
    JournalError::Newer { path, what, writer }
}

/// The journal of one epoch, which its claimant writes.
#[derive(Debug)]
pub struct EpochLog {
    dir: StateDir,
    epoch: u64,
    writer: WriterId,
    next: u64,
    /// The number of the last snapshot.
    snapshot: u64,
    /// The first record after the claim that is kept: the snapshot before the last one. A reader of the log always finds
    /// one of the two.
    kept: u64,
    compact_after: u64,
    state: State,
}

impl EpochLog {
    /// Checks that this version can read the journal. Changes nothing.
    ///
    /// # Errors
    /// [`JournalError::Newer`]: a newer version wrote it. The others: the journal cannot be read.
    pub async fn check(dir: &StateDir) -> Result<(), JournalError> {
        let records = dir.list().await?;
        read_tail(dir, &records).await.map(drop)
    }

    /// Claims the next epoch and reads the earlier ones.
    ///
    /// # Errors
    /// [`JournalError::Fenced`]: another coordinator claimed a later epoch meanwhile. [`JournalError::Newer`]: a newer
    /// version wrote the journal. The others: the journal cannot be read or written.
    pub async fn claim(dir: StateDir, claimant: &Claimant) -> Result<Self, JournalError> {
        let writer: WriterId = rand::random();
        let (epoch, records, mut tail) = loop {
            let records = dir.list().await?;
            let tail = read_tail(&dir, &records).await?;
            let epoch = records.last_key_value().map_or(0, |(epoch, _)| *epoch) + 1;
            let version = env!("CARGO_PKG_VERSION").to_string();
            let claim = Record::Claim(v1::Claim {
                epoch,
                address: claimant.address.clone(),
                version,
                ..v1::Claim::default()
            });
            if dir.create(epoch, 0, writer, &claim).await? == Created::Yes {
                break (epoch, records, tail);
            }
        };
        // Another claimant may have created the epoch's folder, or one above it, and have died before it synced them.
        dir.sync_folders().await?;
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
        // Back to the latest epoch with a snapshot: its claimant sealed the epochs before it.
        for &earlier in records.keys().rev() {
            let last = log.seal(earlier).await?;
            if log.take_over(earlier, last, &mut tail).await? {
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

    /// The fold of all records so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Seals an earlier epoch and returns the number of its seal.
    ///
    /// A number may be free because its record was removed. A seal there would end nothing, because the writer has
    /// passed that number. So a seal counts only when a listing that began after it finds no later record.
    async fn seal(&self, epoch: u64) -> Result<u64, JournalError> {
        let seal = Record::Seal(v1::Seal { by_epoch: self.epoch });
        loop {
            let last = self.dir.list_epoch(epoch).await?.last().copied().unwrap_or(0);
            match self.dir.read(epoch, last).await? {
                Some((_, Record::Seal(_))) => return Ok(last),
                Some(_) => {
                    // The next listing shows which process took that number.
                    let _ = self.dir.create(epoch, last + 1, self.writer, &seal).await?;
                }
                // The record was removed meanwhile: later ones exist.
                None => {}
            }
        }
    }

    /// Applies a sealed epoch to the state; false if it never had a snapshot. Records that are not in `tail` are read.
    async fn take_over(&mut self, epoch: u64, seal: u64, tail: &mut Tail) -> Result<bool, JournalError> {
        let mut later = vec![];
        for number in (1..seal).rev() {
            let record = match tail.remove(&(epoch, number)) {
                Some(record) => record,
                None => match self.dir.read(epoch, number).await? {
                    Some((_, record)) => record,
                    None => return Err(self.missing(epoch, number).await),
                },
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

    /// The error for a missing record: it was lost, or a later claimant removed it.
    async fn missing(&self, epoch: u64, number: u64) -> JournalError {
        match self.dir.read(self.epoch, 1).await {
            Ok(Some(_)) => JournalError::Fenced { epoch: self.epoch },
            Ok(None) => JournalError::Damaged {
                path: self.dir.name_of(epoch, number),
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

    /// Removes the records that this epoch's snapshot replaces.
    async fn clean(&self, records: &BTreeMap<u64, BTreeSet<u64>>) {
        for (&epoch, numbers) in records {
            // The seal is the last record, or one after the last listed record.
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
            // The record itself was appended. The next append reports the error.
            tracing::warn!(%error, "the journal could not be compacted");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
