//! Carrying a decision out: its uploads are completed, its outcome is put on record, and the objects that it replaces
//! are removed.
//!
//! Every step may be repeated, by several processes at once. Not here: which decision counts (the parent module).

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutPayload};
use tally_common::retry::RetryPolicy;
use tally_common::stores::{explain, find, list_below, read as read_object};

use super::{CommitLog, ManifestPart, Record, key_of};
use crate::publish::PublishError;

/// The delays before each try to record an outcome, while it is missing afterwards.
const RECORD_TRIES: RetryPolicy = RetryPolicy::listed(&[0, 200, 500, 1000, 2000]);
/// The delays before each check for the object of a missing upload: another process may be completing it.
const OBJECT_CHECKS: RetryPolicy = RetryPolicy::listed(&[200, 300, 500, 1000, 2000, 4000, 4000]);
/// The error if a part file cannot be made.
const CANNOT_COMPLETE: &str = "the part file cannot be completed";
/// The texts of an outcome's record.
const PUBLISHED: &str = "published";
const UNDONE: &str = "undone";
/// Uploads completed at a time.
const CONCURRENT: usize = 8;

/// The result of carrying a decision out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CarryOutcome {
    /// The day is published.
    Done,
    /// One of the uploads no longer exists: the decision was undone.
    Undone,
    /// A later record exists. This decision was carried out, or undone, before that record was created.
    Superseded,
}

impl CommitLog {
    pub(super) async fn carry_out(&self, number: u64, record: &Record) -> Result<CarryOutcome, PublishError> {
        let files = &record.manifest.files;
        self.retract_markers(record).await?;
        let completed = self.complete_all(files).await?;
        let whole = !completed.contains(&false);
        // Without a later decision, a missing upload never made its object.
        if !whole && self.is_superseded(number).await? {
            return Ok(CarryOutcome::Superseded);
        }
        let is_published = self.conclude(number, if whole { PUBLISHED } else { UNDONE }).await? == PUBLISHED;
        // The outcome may be missing because another process carried the decision out and removed the outcome.
        let found = self.list().await?;
        if found.keys().any(|&later| later > number) {
            return Ok(CarryOutcome::Superseded);
        }
        if found.get(&number).is_some_and(|found| found.done) && !self.is_undone(number).await? {
            // This process may have removed the marker that the other one had created.
            self.create_marker(number, record).await?;
            return Ok(CarryOutcome::Done);
        }
        match (is_published, whole) {
            (true, true) => {
                self.remove(record.old.iter().map(|key| key_of(key)).collect()).await?;
                self.create_marker(number, record).await?;
                self.set_mark(number, "").await?;
                self.forget_before(number).await;
                Ok(CarryOutcome::Done)
            }
            // Another program removed files of a published day: the others stay until the next publish replaces them.
            (true, false) => {
                let missing = files.iter().zip(&completed).filter(|(_, there)| !**there);
                let missing: Vec<&str> = missing.map(|(part, _)| part.key.as_str()).collect();
                tracing::warn!(day = %self.day, ?missing, "files of a published day no longer exist");
                self.set_mark(number, UNDONE).await?;
                Ok(CarryOutcome::Undone)
            }
            (false, _) => {
                self.remove(files.iter().map(|part| key_of(&part.key)).collect()).await?;
                self.restore_markers(record).await?;
                self.set_mark(number, UNDONE).await?;
                Ok(CarryOutcome::Undone)
            }
        }
    }

    /// Records the outcome of a decision, unless an outcome is on record. Returns the outcome on record.
    async fn conclude(&self, number: u64, outcome: &'static str) -> Result<&'static str, PublishError> {
        let key = self.outcome(number);
        let payload = PutPayload::from(Bytes::from_static(outcome.as_bytes()));
        let failed = || self.failed(&key, "the outcome of a publish cannot be recorded");
        for delay in RECORD_TRIES.start() {
            tokio::time::sleep(delay).await;
            match self.bucket.objects.put_opts(&key, payload.clone(), PutMode::Create.into()).await {
                Ok(_) | Err(Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(failed()(error)),
            }
            // Read back: the stored outcome counts, also in a store without conditional writes.
            match read_object(&*self.bucket.objects, &key).await.map_err(failed())? {
                Some(found) if found == UNDONE.as_bytes() => return Ok(UNDONE),
                Some(_) => return Ok(PUBLISHED),
                // A process that carried out a later decision removed it.
                None if self.is_superseded(number).await? => return Ok(outcome),
                None => {}
            }
        }
        Err(self.busy())
    }

    async fn set_mark(&self, number: u64, text: &'static str) -> Result<(), PublishError> {
        let key = self.mark(number);
        let put = self.bucket.objects.put(&key, PutPayload::from(Bytes::from_static(text.as_bytes()))).await;
        put.map(drop).map_err(self.failed(&key, "a publish cannot be marked as done"))
    }

    /// Whether a decision was undone.
    pub(super) async fn is_undone(&self, number: u64) -> Result<bool, PublishError> {
        let key = self.mark(number);
        let mark = find(&*self.bucket.objects, &key).await;
        let mark = mark.map_err(self.failed(&key, "the record of a publish cannot be read"))?;
        Ok(mark.is_some_and(|mark| mark.size > 0))
    }

    /// Removes objects of an undone decision that a late completion made. Only one upload ever uses a key, so no other
    /// object is removed.
    pub(super) async fn remove_late(&self, number: u64, record: &Record) -> Result<(), PublishError> {
        let key = self.outcome(number);
        let outcome = read_object(&*self.bucket.objects, &key).await;
        let outcome = outcome.map_err(self.failed(&key, "the record of a publish cannot be read"))?;
        // The files of a published day that lost some of them stay.
        if outcome.is_none_or(|outcome| outcome != UNDONE.as_bytes()) {
            return Ok(());
        }
        let listed = list_below(&*self.bucket.objects, &self.day).await;
        let listed = listed.map_err(self.failed(&self.day, "the day cannot be listed"))?;
        let late = |key: &Path| record.manifest.files.iter().any(|part| key_of(&part.key) == *key);
        let late: Vec<Path> = listed.into_iter().map(|object| object.location).filter(late).collect();
        if late.is_empty() { Ok(()) } else { self.remove(late).await }
    }

    /// Completes all uploads, unless that was done before. Returns which part files exist. Where an upload is missing,
    /// another process may be completing it, so its object is waited for.
    async fn complete_all(&self, files: &[ManifestPart]) -> Result<Vec<bool>, PublishError> {
        let completions: Vec<_> = files.iter().map(|part| self.complete(part)).collect();
        let mut there: Vec<bool> =
            futures::stream::iter(completions).buffered(CONCURRENT).try_collect().await?;
        for delay in OBJECT_CHECKS.start() {
            if !there.contains(&false) {
                break;
            }
            tokio::time::sleep(delay).await;
            let seen = files.iter().zip(&there).map(|(part, &there)| async move {
                Ok::<_, PublishError>(there || self.is_there(part).await?)
            });
            let seen: Vec<_> = seen.collect();
            there = futures::stream::iter(seen).buffered(CONCURRENT).try_collect().await?;
        }
        Ok(there)
    }

    /// Completes an upload. Returns whether its object exists; false only if the upload no longer exists or the object is
    /// not visible yet.
    async fn complete(&self, part: &ManifestPart) -> Result<bool, PublishError> {
        let key = key_of(&part.key);
        let ids = part.parts.iter().map(|id| PartId { content_id: id.clone() }).collect();
        let refused = self.bucket.uploads.complete_multipart(&key, &part.upload, ids).await.err();
        match (self.is_there(part).await, refused) {
            (Ok(true), _) => Ok(true),
            (_, Some(refused)) if !is_missing(&refused) => Err(self.failed(&key, CANNOT_COMPLETE)(refused)),
            (found, _) => found,
        }
    }

    /// Whether the object of a part file exists. Only one upload ever uses the key, so the object is that upload's.
    async fn is_there(&self, part: &ManifestPart) -> Result<bool, PublishError> {
        let key = key_of(&part.key);
        let found = find(&*self.bucket.objects, &key).await.map_err(self.failed(&key, CANNOT_COMPLETE))?;
        Ok(found.is_some_and(|found| found.size == part.bytes))
    }

    pub(super) async fn remove(&self, keys: Vec<Path>) -> Result<(), PublishError> {
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

    /// Removes earlier records, which the last one replaces. A record that cannot be removed is left to the next publish.
    async fn forget_before(&self, number: u64) {
        let Ok(found) = self.list().await else { return };
        let earlier = found.into_keys().filter(|&earlier| earlier < number);
        let of = |earlier| [self.record(earlier), self.mark(earlier), self.outcome(earlier)];
        let keys = earlier.flat_map(of).collect();
        if let Err(error) = self.remove(keys).await {
            tracing::warn!(%error, "old records of publishes cannot be removed");
        }
    }
}

/// Whether an upload no longer exists, by the store's answer to its completion.
fn is_missing(error: &Error) -> bool {
    let said = explain(error);
    matches!(error, Error::NotFound { .. })
        || ["NoSuchUpload", "InvalidPart", "InvalidBlockList"].iter().any(|code| said.contains(code))
}
