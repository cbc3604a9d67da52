//! The decisions to publish to one day's folder in an object store: numbered records, created only if absent and never
//! changed. The last one counts.
//!
//! Creating the next number is the decision, and the fence: a process that finds the number taken, or a later number
//! beside its own, has decided nothing. Any process may then carry the decision out (`outcomes`), any number of times:
//! complete the record's uploads, remove exactly the old objects that it lists, mark it as done. The previous record is
//! carried out completely before a record is created.
//!
//! An upload may disappear before it made its object; then the decision is undone. Processes that carry out one
//! decision at the same time may see this differently while an upload is being completed. So no process removes an
//! object, old or new, before the outcome of the decision is on record. The outcome, too, is created only if absent:
//! the first one counts for all.
//!
//! Not here: the content of a record (`record`); where uploads come from (`store_staging`); when the ready marker is removed
//! and created (`ready_object`).

mod outcomes;
mod ready_object;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, PutMode, PutPayload};
use tally_common::stores::{Bucket, list_below, read as read_object};

use super::PublishError;
use super::record::Record;
pub(super) use super::record::key_of;
pub use super::record::{Manifest, ManifestInput, ManifestPart, RecordError, read};
use outcomes::CarryOutcome;

/// Tries to create a record while other publishes come in between.
const RACES: usize = 100;
/// Jobs that a record remembers, so that no job is published twice.
const REMEMBERED: usize = 32;

/// The result of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// The day is published, by this call or an earlier one.
    Published,
    /// Nothing was decided: an upload no longer exists.
    Undone,
}

/// The decisions for one day's folder.
#[derive(Debug, Clone)]
pub struct CommitLog {
    bucket: Arc<Bucket>,
    /// The day's folder.
    day: Path,
    /// The folder of the records.
    records: Path,
}

/// The last number, and what is stored under it.
struct LastEntry {
    number: u64,
    /// The record exists. A damaged record that was removed leaves its mark and its outcome.
    has_record: bool,
    done: bool,
    /// When the record, or its outcome, was written.
    at: DateTime<Utc>,
}

/// What is stored under one number.
#[derive(Debug, Clone, Copy, Default)]
struct LogEntry {
    has_record: bool,
    done: bool,
    at: DateTime<Utc>,
}

/// The log after all decisions were carried out.
#[derive(Debug, Default)]
pub struct Settled {
    /// The last number.
    number: u64,
    /// The last published jobs.
    pub jobs: Vec<String>,
    /// The part files of the last decision, if that was undone.
    undone: Vec<ManifestPart>,
    /// The ready markers that the day may have.
    markers: Vec<String>,
}

impl Settled {
    /// Whether a day shares part files with the undone decision: a process that still carries that out may remove them.
    fn may_lose(&self, manifest: &Manifest) -> bool {
        self.undone.iter().any(|undone| manifest.files.iter().any(|part| part.key == undone.key))
    }
}

/// A decision that is not carried out yet.
#[derive(Debug)]
pub struct Pending {
    /// The day.
    pub manifest: Manifest,
    /// When it was decided, or its outcome was.
    pub at: DateTime<Utc>,
}

impl CommitLog {
    /// The log of the day's folder, with its records below `records`.
    pub fn new(bucket: Arc<Bucket>, day: Path, records: Path) -> Self {
        CommitLog { bucket, day, records }
    }

    fn failed<'a>(&'a self, key: &'a Path, what: &'static str) -> impl FnOnce(Error) -> PublishError + 'a {
        move |error| PublishError::store(self.bucket.name_of(key), what, &error)
    }

    fn record(&self, number: u64) -> Path {
        self.records.clone().join(format!("{number:08}"))
    }

    /// The key that marks a decision as carried out.
    fn mark(&self, number: u64) -> Path {
        self.records.clone().join(format!("{number:08}.done"))
    }

    /// The key of a decision's outcome.
    fn outcome(&self, number: u64) -> Path {
        self.records.clone().join(format!("{number:08}.outcome"))
    }

    /// The entries by number.
    async fn list(&self) -> Result<BTreeMap<u64, LogEntry>, PublishError> {
        let listed = list_below(&*self.bucket.objects, &self.records).await;
        Ok(by_number(listed.map_err(self.failed(&self.records, "its records cannot be listed"))?))
    }

    async fn last(&self) -> Result<Option<LastEntry>, PublishError> {
        let found = self.list().await?;
        let last = |(&number, &LogEntry { has_record, done, at })| LastEntry { number, has_record, done, at };
        Ok(found.last_key_value().map(last))
    }

    async fn is_superseded(&self, number: u64) -> Result<bool, PublishError> {
        Ok(self.last().await?.is_some_and(|last| last.number > number))
    }

    /// The jobs that the last existing record remembers.
    async fn remembered(&self) -> Result<Vec<String>, PublishError> {
        let found = self.list().await?;
        let Some((&number, _)) = found.iter().rfind(|(_, found)| found.has_record) else { return Ok(vec![]) };
        Ok(self.read(number).await?.map(|record| record.jobs).unwrap_or_default())
    }

    async fn read(&self, number: u64) -> Result<Option<Record>, PublishError> {
        let key = self.record(number);
        let found = read_object(&*self.bucket.objects, &key).await;
        let found = found.map_err(self.failed(&key, "the record of a publish cannot be read"))?;
        let Some(bytes) = found else { return Ok(None) };
        let damaged = |error: RecordError| {
            let what = "the record of a publish is damaged";
            PublishError::lasting(self.bucket.name_of(&key), what, error.to_string())
        };
        Record::read(&bytes, &self.day).map(Some).map_err(damaged)
    }

    /// Carries the last decision out, unless that is done.
    ///
    /// # Errors
    /// [`PublishError`]: the decision is not carried out yet; any process may try again.
    pub async fn settle(&self) -> Result<Settled, PublishError> {
        for _ in 0..RACES {
            let Some(last) = self.last().await? else { return Ok(Settled::default()) };
            let number = last.number;
            // An operator removed a damaged record: its number stays taken, and nothing of it is carried out.
            if !last.has_record && self.read(number).await?.is_none() {
                return Ok(Settled { number, jobs: self.remembered().await?, ..Settled::default() });
            }
            // A record that was removed meanwhile has a later one.
            let Some(mut record) = self.read(number).await? else { continue };
            let carried = match last.done {
                true if self.is_undone(number).await? => {
                    self.remove_late(number, &record).await?;
                    CarryOutcome::Undone
                }
                true => CarryOutcome::Done,
                false => self.carry_out(number, &record).await?,
            };
            let marker = self.marker(&record.manifest).map(|marker| marker.to_string());
            let (undone, markers) = match carried {
                CarryOutcome::Superseded => {
                    self.repair_marker(&record).await?;
                    continue;
                }
                CarryOutcome::Undone => {
                    record.jobs.retain(|job| *job != record.manifest.job);
                    (record.manifest.files, record.markers)
                }
                CarryOutcome::Done => (vec![], marker.into_iter().collect()),
            };
            return Ok(Settled { number, jobs: record.jobs, undone, markers });
        }
        Err(self.busy())
    }

    fn busy(&self) -> PublishError {
        PublishError::Store {
            url: self.bucket.name_of(&self.day),
            what: "the day cannot be replaced",
            reason: format!("{RACES} other publishes came in between"),
            transient: true,
        }
    }

    /// The decision that is not carried out yet.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn pending(&self) -> Result<Option<Pending>, PublishError> {
        match self.last().await? {
            Some(LastEntry { number, has_record: true, done: false, at }) => {
                Ok(self.read(number).await?.map(|record| Pending { manifest: record.manifest, at }))
            }
            _ => Ok(None),
        }
    }

    /// The day of the last decision, if that was carried out.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn published(&self) -> Result<Option<Manifest>, PublishError> {
        match self.last().await? {
            Some(LastEntry { number, has_record: true, done: true, .. })
                if !self.is_undone(number).await? =>
            {
                Ok(self.read(number).await?.map(|record| record.manifest))
            }
            _ => Ok(None),
        }
    }

    /// Whether the publish of a job was decided, carried out or not.
    ///
    /// # Errors
    /// [`PublishError`]: it is not known.
    pub async fn is_decided(&self, job: &str) -> Result<bool, PublishError> {
        let Some(last) = self.last().await? else { return Ok(false) };
        if !last.has_record {
            return Ok(self.remembered().await?.iter().any(|decided| decided == job));
        }
        let record = self.read(last.number).await?;
        // A record that was removed meanwhile has a later one, which remembers the job.
        Ok(record.is_none_or(|record| record.jobs.iter().any(|decided| decided == job)))
    }

    /// Removes objects that a completion made after the last decision was undone.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn tidy(&self) -> Result<(), PublishError> {
        if let Some(LastEntry { number, has_record: true, done: true, .. }) = self.last().await?
            && self.is_undone(number).await?
            && let Some(record) = self.read(number).await?
        {
            self.remove_late(number, &record).await?;
        }
        Ok(())
    }

    /// Decides to publish a day, once per job, and carries the decision out.
    ///
    /// # Errors
    /// [`PublishError`]. If [`CommitLog::settle`] finds the decision, it may still be carried out, so the caller must not
    /// abort the uploads.
    pub async fn publish(&self, manifest: &Manifest, epoch: u64) -> Result<Decided, PublishError> {
        for _ in 0..RACES {
            let settled = self.settle().await?;
            if settled.jobs.contains(&manifest.job) {
                return Ok(Decided::Published);
            }
            // A decision of an earlier term, whose uploads this term aborted, shares no part file with this day.
            if settled.may_lose(manifest) {
                return Ok(Decided::Undone);
            }
            let Settled { number: last, mut jobs, markers, .. } = settled;
            jobs.push(manifest.job.clone());
            jobs.drain(..jobs.len().saturating_sub(REMEMBERED));
            let (old, markers) = self.split_markers(self.old(manifest).await?, markers, manifest);
            let record =
                Record { nonce: rand::random(), epoch, manifest: manifest.clone(), old, markers, jobs };
            let number = last + 1;
            if !self.create(number, &record).await? {
                continue;
            }
            // The number may have been free because its record was removed: then a later record exists.
            if self.is_superseded(number).await? {
                self.remove(vec![self.record(number)]).await?;
                continue;
            }
            match self.carry_out(number, &record).await? {
                CarryOutcome::Done => return Ok(Decided::Published),
                CarryOutcome::Undone => return Ok(Decided::Undone),
                // The jobs of the later record say whether this one was published.
                CarryOutcome::Superseded => self.repair_marker(&record).await?,
            }
        }
        Err(self.busy())
    }

    /// The objects in the day's folder, except the part files of the new day, and the markers of folders that have some of these.
    async fn old(&self, manifest: &Manifest) -> Result<Vec<String>, PublishError> {
        let listed = list_below(&*self.bucket.objects, &self.day).await;
        let listed = listed.map_err(self.failed(&self.day, "the old day cannot be listed"))?;
        let is_or_has = |part: &ManifestPart, key: &str| {
            part.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let new = |key: &String| manifest.files.iter().any(|part| is_or_has(part, key));
        Ok(listed.into_iter().map(|object| object.location.to_string()).filter(|key| !new(key)).collect())
    }

    /// Creates a record; false if the number is taken. The record is read back, because the store's answer may be lost
    /// and the store may not support conditional writes.
    async fn create(&self, number: u64, record: &Record) -> Result<bool, PublishError> {
        let key = self.record(number);
        let cannot = |error: RecordError| {
            let what = "the decision cannot be made";
            PublishError::lasting(self.bucket.name_of(&key), what, error.to_string())
        };
        let json = record.write(&self.day).map_err(cannot)?;
        let payload = PutPayload::from(json);
        let created = self.bucket.objects.put_opts(&key, payload, PutMode::Create.into()).await;
        let found = self.read(number).await?;
        match (found, created) {
            (Some(found), _) if found.nonce == record.nonce => Ok(true),
            (_, Ok(_) | Err(Error::AlreadyExists { .. })) => Ok(false),
            (_, Err(error)) => Err(self.failed(&key, "the decision cannot be written")(error)),
        }
    }
}

/// The entries by number. An object without an ending and without bytes is not a record: a store shows an object
/// completely or not at all, and every record has bytes. Such an object stands for a folder; its key ends in a slash,
/// which listings drop, and the number's own key is free. If an empty object has exactly that key, a decision with the
/// number fails, with an error that names the object.
fn by_number(listed: Vec<ObjectMeta>) -> BTreeMap<u64, LogEntry> {
    let mut found: BTreeMap<u64, LogEntry> = BTreeMap::new();
    for object in listed {
        let name = object.location.filename().unwrap_or_default();
        let (number, ending) = name.split_once('.').unwrap_or((name, ""));
        let Ok(number) = number.parse() else { continue };
        if !matches!((ending, object.size), ("", 1..) | ("done" | "outcome", _)) {
            continue;
        }
        let found = found.entry(number).or_default();
        found.has_record |= ending.is_empty();
        found.done |= ending == "done";
        found.at = found.at.max(object.last_modified);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_named_by_a_number_is_not_a_decision() {
        let listed = [
            ("commits/00000003", 700),
            ("commits/00000003.done", 0),
            ("commits/00000004", 0),
            ("commits/00000005.outcome", 6),
            ("commits/00000005", 0),
            ("commits/00000006/x", 9),
            ("commits/00000009", 0),
        ];
        let listed = listed.map(|(key, size)| ObjectMeta {
            location: Path::from(key),
            last_modified: DateTime::UNIX_EPOCH,
            size,
            e_tag: None,
            version: None,
        });
        let found = by_number(listed.into());
        let found: Vec<_> =
            found.iter().map(|(number, found)| (*number, found.has_record, found.done)).collect();
        assert_eq!(found, [(3, true, true), (5, false, false)]);
    }
}
