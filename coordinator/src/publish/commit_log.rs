//! Which days were decided for one folder of an output in an object store: numbered records, each
//! created if absent and never changed, of which the last one counts.
//!
//! Creating the next number is the decision to publish, and the fence: whoever finds it taken, or
//! finds a later one beside it, decided nothing. What follows may be done by anybody, and as often
//! as they like: complete the record's uploads, remove exactly the old objects that it lists, mark it
//! as done. Before a record is created the one before it is carried out to its end.
//!
//! Not here: where uploads come from (`objects`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};
use tally_worker::stores::{Bucket, explain};

use super::PublishError;

/// Records that are looked at in vain before it is given up.
const RACES: usize = 100;
/// How often it is looked for what a vanished upload made, and how long in between.
const LOOKS: usize = 4;
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Uploads completed at a time.
const CONCURRENT: usize = 8;
/// Jobs that a record remembers, so that none is published twice.
const REMEMBERED: usize = 32;

/// A part file of a day, as it was uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its object's key.
    pub key: String,
    /// The upload that makes it; empty where the store has no such ids.
    pub upload: String,
    /// The upload's parts, in order.
    pub parts: Vec<String>,
    /// Bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// CRC-32 of the file.
    pub crc32: u32,
    /// Checksum of its rows' content, in 16 hexadecimal digits; none of days that were written in part by a version that
    /// made none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// An input file, in the version that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its URL.
    pub url: String,
    /// Bytes.
    pub bytes: u64,
    /// The version.
    pub etag: Option<String>,
}

/// What a day was made of and from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The job.
    pub job: String,
    /// Of which program.
    pub version: String,
    /// Its dataset.
    pub dataset: String,
    /// Rows of the day.
    pub rows: u64,
    /// Checksum of their content: the sum of the files'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// The files read.
    pub inputs: Vec<Input>,
    /// The files written.
    pub files: Vec<Part>,
}

/// A decision to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Tells this record from one that another wrote at the same moment.
    nonce: u64,
    /// The coordinator's term.
    epoch: u64,
    /// The day.
    manifest: Manifest,
    /// Objects that the day replaces.
    old: Vec<String>,
    /// Jobs that were decided, the last ones.
    jobs: Vec<String>,
}

impl Record {
    /// Reads one as a store has it. What it would complete and remove must lie in the day's folder: whatever wrote it, no
    /// other object is touched.
    fn read(bytes: &[u8], day: &Path) -> Result<Self, String> {
        let record: Record = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let mut keys = record.manifest.files.iter().map(|part| &part.key).chain(&record.old);
        match keys.find(|key| !lies_in(day, key)) {
            None => Ok(record),
            Some(key) => Err(format!("it names {key:?}, which is no object of {day}")),
        }
    }
}

/// Whether an object lies in a folder, at whatever depth.
fn lies_in(folder: &Path, key: &str) -> bool {
    Path::parse(key).is_ok_and(|key| key.prefix_match(folder).is_some_and(|mut rest| rest.next().is_some()))
}

/// Reads a decision for the day's folder `day` as a store has it, for those who only look.
///
/// # Errors
/// What is wrong with it: no JSON of a decision, or objects beyond the day's folder.
pub fn read(bytes: &[u8], day: &str) -> Result<Manifest, String> {
    Record::read(bytes, &key_of(day)).map(|record| record.manifest)
}

/// What became of a record that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    /// The day is published.
    Done,
    /// One of its uploads is no more: it was taken back.
    Undone,
    /// A later record stands: this one was carried out, or taken back, before that was created.
    Superseded,
}

/// What became of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It was published by this call, or by somebody before it.
    Published,
    /// Nothing was decided: an upload is gone.
    Undone,
}

/// The decisions for one day's folder.
#[derive(Debug, Clone)]
pub struct CommitLog {
    bucket: Arc<Bucket>,
    /// Where the day lies.
    day: Path,
    /// Where the records lie.
    records: Path,
}

/// The last record.
struct Last {
    number: u64,
    done: bool,
}

impl CommitLog {
    /// The log of the day's folder, whose records lie under `records`.
    pub fn new(bucket: Arc<Bucket>, day: Path, records: Path) -> Self {
        CommitLog { bucket, day, records }
    }

    fn failed<'a>(&'a self, key: &'a Path, what: &'static str) -> impl FnOnce(Error) -> PublishError + 'a {
        move |error| PublishError::Store { url: self.bucket.name_of(key), what, reason: explain(&error) }
    }

    fn record(&self, number: u64) -> Path {
        self.records.clone().join(format!("{number:08}"))
    }

    fn mark(&self, number: u64) -> Path {
        self.records.clone().join(format!("{number:08}.done"))
    }

    async fn list(&self) -> Result<BTreeMap<u64, bool>, PublishError> {
        let listed = self.bucket.objects.list(Some(&self.records)).try_collect::<Vec<_>>().await;
        let mut found = BTreeMap::new();
        for object in listed.map_err(self.failed(&self.records, "its records cannot be listed"))? {
            let name = object.location.filename().unwrap_or_default();
            let (number, done) = name.strip_suffix(".done").map_or((name, false), |number| (number, true));
            if let Ok(number) = number.parse() {
                *found.entry(number).or_insert(false) |= done;
            }
        }
        Ok(found)
    }

    async fn last(&self) -> Result<Option<Last>, PublishError> {
        let found = self.list().await?;
        Ok(found.last_key_value().map(|(&number, &done)| Last { number, done }))
    }

    async fn read(&self, number: u64) -> Result<Option<Record>, PublishError> {
        let key = self.record(number);
        let bytes = match self.bucket.objects.get(&key).await {
            Ok(found) => found.bytes().await,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => Err(error),
        };
        let bytes = bytes.map_err(self.failed(&key, "the record of a publish cannot be read"))?;
        let record = Record::read(&bytes, &self.day).map_err(|reason| PublishError::Store {
            url: self.bucket.name_of(&key),
            what: "the record of a publish is damaged",
            reason,
        })?;
        Ok(Some(record))
    }

    /// Carries the last decision out, if that is still to be done; its number, and the jobs that were
    /// decided by then.
    ///
    /// # Errors
    /// [`PublishError`]: it is not done yet; anybody may try again.
    pub async fn settle(&self) -> Result<(u64, Vec<String>), PublishError> {
        for _ in 0..RACES {
            let Some(last) = self.last().await? else { return Ok((0, vec![])) };
            // A record that was removed meanwhile has a later one.
            let Some(mut record) = self.read(last.number).await? else { continue };
            let carried = match last.done {
                true if self.is_undone(last.number).await? => Carried::Undone,
                true => Carried::Done,
                false => self.carry_out(last.number, &record).await?,
            };
            match carried {
                Carried::Superseded => continue,
                Carried::Undone => record.jobs.retain(|job| *job != record.manifest.job),
                Carried::Done => {}
            }
            return Ok((last.number, record.jobs));
        }
        Err(self.busy())
    }

    fn busy(&self) -> PublishError {
        PublishError::Store {
            url: self.bucket.name_of(&self.day),
            what: "the day cannot be replaced",
            reason: format!("{RACES} other publishes came in between"),
        }
    }

    /// The day of a decision that waits for somebody to carry it out.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn pending(&self) -> Result<Option<Manifest>, PublishError> {
        match self.last().await? {
            Some(Last { number, done: false }) => Ok(self.read(number).await?.map(|record| record.manifest)),
            _ => Ok(None),
        }
    }

    /// Whether a decision was taken back.
    async fn is_undone(&self, number: u64) -> Result<bool, PublishError> {
        let key = self.mark(number);
        match self.bucket.objects.head(&key).await {
            Ok(mark) => Ok(mark.size > 0),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed(&key, "the record of a publish cannot be read")(error)),
        }
    }

    /// Decides to publish a day, once a job, and carries it out.
    ///
    /// # Errors
    /// [`PublishError`]. Where [`CommitLog::settle`] would find the decision it may still be carried
    /// out; the caller must not give the uploads up.
    pub async fn publish(&self, manifest: &Manifest, epoch: u64) -> Result<Decided, PublishError> {
        for _ in 0..RACES {
            let (last, mut jobs) = self.settle().await?;
            if jobs.contains(&manifest.job) {
                return Ok(Decided::Published);
            }
            jobs.push(manifest.job.clone());
            jobs.drain(..jobs.len().saturating_sub(REMEMBERED));
            let old = self.old(manifest).await?;
            let record = Record { nonce: rand::random(), epoch, manifest: manifest.clone(), old, jobs };
            let number = last + 1;
            if !self.create(number, &record).await? {
                continue;
            }
            // A number may be free because its record was removed: then a later one is there.
            if self.last().await?.is_some_and(|last| last.number > number) {
                self.remove(vec![self.record(number)]).await?;
                continue;
            }
            match self.carry_out(number, &record).await? {
                Carried::Done => return Ok(Decided::Published),
                Carried::Undone => return Ok(Decided::Undone),
                // The later one's jobs tell what became of it.
                Carried::Superseded => {}
            }
        }
        Err(self.busy())
    }

    /// What the day's folder holds, but for the day's own files.
    async fn old(&self, manifest: &Manifest) -> Result<Vec<String>, PublishError> {
        let listed = self.bucket.objects.list(Some(&self.day)).try_collect::<Vec<_>>().await;
        let listed = listed.map_err(self.failed(&self.day, "the old day cannot be listed"))?;
        let new = |key: &String| manifest.files.iter().any(|part| part.key == *key);
        Ok(listed.into_iter().map(|object| object.location.to_string()).filter(|key| !new(key)).collect())
    }

    /// Creates a record; false where the number is another's. Where the store's answer was lost, or it
    /// knows no conditions, what stands there tells.
    async fn create(&self, number: u64, record: &Record) -> Result<bool, PublishError> {
        let key = self.record(number);
        let json = serde_json::to_vec(record).map_err(|e| PublishError::Store {
            url: self.bucket.name_of(&key),
            what: "the record of a publish cannot be made",
            reason: e.to_string(),
        })?;
        let payload = PutPayload::from(json);
        let created = self.bucket.objects.put_opts(&key, payload, PutMode::Create.into()).await;
        let found = self.read(number).await?;
        match (found, created) {
            (Some(found), _) if found.nonce == record.nonce => Ok(true),
            (_, Ok(_) | Err(Error::AlreadyExists { .. })) => Ok(false),
            (_, Err(error)) => Err(self.failed(&key, "the decision cannot be written")(error)),
        }
    }

    async fn carry_out(&self, number: u64, record: &Record) -> Result<Carried, PublishError> {
        let files = &record.manifest.files;
        let completions: Vec<_> = files.iter().map(|part| self.complete(part)).collect();
        let completed = futures::stream::iter(completions).buffered(CONCURRENT);
        let completed: Vec<bool> = completed.try_collect().await?;
        if completed.contains(&false) {
            // Only where nobody decided since is it known that the upload never made its object.
            if self.last().await?.is_some_and(|last| last.number > number) {
                return Ok(Carried::Superseded);
            }
            let made = files.iter().zip(completed).filter(|(_, made)| *made);
            self.remove(made.map(|(part, _)| key_of(&part.key)).collect()).await?;
            self.set_mark(number, "undone").await?;
            return Ok(Carried::Undone);
        }
        self.remove(record.old.iter().map(|key| key_of(key)).collect()).await?;
        self.set_mark(number, "").await?;
        self.forget_before(number).await;
        Ok(Carried::Done)
    }

    async fn set_mark(&self, number: u64, text: &'static str) -> Result<(), PublishError> {
        let key = self.mark(number);
        let put = self.bucket.objects.put(&key, PutPayload::from(Bytes::from_static(text.as_bytes()))).await;
        put.map(drop).map_err(self.failed(&key, "a publish cannot be marked as done"))
    }

    /// Completes an upload, or finds that it was; false where it is gone and made nothing.
    async fn complete(&self, part: &Part) -> Result<bool, PublishError> {
        let key = key_of(&part.key);
        let ids = part.parts.iter().map(|id| PartId { content_id: id.clone() }).collect();
        let Err(error) = self.bucket.uploads.complete_multipart(&key, &part.upload, ids).await else {
            return Ok(true);
        };
        // The key is used by this upload alone: what lies there is what it made. Somebody else may be
        // completing it just now.
        for _ in 0..LOOKS {
            match self.bucket.objects.head(&key).await {
                Ok(found) if found.size == part.bytes => return Ok(true),
                Ok(_) | Err(Error::NotFound { .. }) if is_gone(&error) => {
                    tokio::time::sleep(LOOK_AGAIN).await
                }
                _ => return Err(self.failed(&key, "the part file cannot be completed")(error)),
            }
        }
        Ok(false)
    }

    async fn remove(&self, keys: Vec<Path>) -> Result<(), PublishError> {
        let keys = futures::stream::iter(keys).map(Ok).boxed();
        let mut removed = self.bucket.objects.delete_stream(keys);
        while let Some(removed) = removed.next().await {
            match removed {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed(&self.day, "the old files cannot be removed")(error)),
            }
        }
        Ok(())
    }

    /// Removes earlier records: the last one stands for all. What stays is for the next to remove.
    async fn forget_before(&self, number: u64) {
        let Ok(found) = self.list().await else { return };
        let earlier = found.into_keys().filter(|&earlier| earlier < number);
        let keys = earlier.flat_map(|earlier| [self.record(earlier), self.mark(earlier)]).collect();
        if let Err(error) = self.remove(keys).await {
            tracing::warn!(%error, "old records of publishes stay");
        }
    }
}

/// The key of an object as a record names it.
pub(super) fn key_of(name: &str) -> Path {
    Path::parse(name).unwrap_or_else(|_| Path::from(name))
}

/// Whether an upload is no more, going by what the store says to its completion.
fn is_gone(error: &Error) -> bool {
    let said = explain(error);
    matches!(error, Error::NotFound { .. })
        || ["NoSuchUpload", "InvalidPart", "InvalidBlockList"].iter().any(|code| said.contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_speaks_of_its_day_alone() {
        let day = "agg/v1/submission_date_s3=20170227";
        let text = |key: &str, old: &str| {
            let part = Part {
                key: key.into(),
                upload: "u".into(),
                parts: vec!["p".into()],
                bytes: 9,
                rows: 1,
                crc32: 7,
                checksum: None,
            };
            let manifest = Manifest { files: vec![part], ..Manifest::default() };
            let record = Record { nonce: 1, epoch: 2, manifest, old: vec![old.into()], jobs: vec![] };
            serde_json::to_vec(&record).unwrap()
        };
        let (new, old) = (format!("{day}/part-00000-j-1.snappy.parquet"), format!("{day}/a/old.parquet"));
        assert_eq!(read(&text(&new, &old), day).unwrap().files[0].key, new);
        for stray in [
            day,
            "agg/v1/submission_date_s3=20170228/x",
            "x",
            "",
            &format!("{day}0/x"),
            &format!("{day}/../x"),
        ] {
            assert!(read(&text(stray, &old), day).unwrap_err().contains("no object of"), "{stray}");
            assert!(read(&text(&new, stray), day).unwrap_err().contains("no object of"), "{stray}");
        }
        assert!(read(b"{}", day).is_err() && read(b"", day).is_err());
    }
}
