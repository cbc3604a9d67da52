//! The ready marker of a day in a store. It is an object with a fixed key, so it is removed before the first object of the
//! next day appears, and created after the last old object is removed. Every process that carries a decision out does both;
//! each step may be repeated.
//!
//! The marker is created before the decision is marked as done, and the next decision needs that mark. So of the processes
//! that publish one after another, none changes the marker of a later day. A process that carries out the decision of
//! another one may hang in its request meanwhile; `deploy/docs/architecture/publishing.md` says what that can do.
//!
//! Not here: names of markers (`crate::ready_marker`).

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::{CommitLog, LastEntry, Manifest, Record, key_of};
use crate::publish::PublishError;

const CANNOT_CREATE: &str = "the ready marker cannot be written";

impl CommitLog {
    /// The key of a day's marker.
    pub(super) fn marker(&self, manifest: &Manifest) -> Option<Path> {
        manifest.ready_marker.as_ref().map(|marker| self.day.clone().join(marker.name()))
    }

    /// Takes the markers out of the old day's objects: those of the last decision, and the one that the new day has, too.
    pub(super) fn split_markers(
        &self,
        old: Vec<String>,
        known: Vec<String>,
        manifest: &Manifest,
    ) -> (Vec<String>, Vec<String>) {
        let new = self.marker(manifest).map(|marker| marker.to_string());
        let (markers, old) =
            old.into_iter().partition(|key| new.as_ref() == Some(key) || known.contains(key));
        (old, markers)
    }

    /// Removes the markers of the old day. From here on the day is not whole.
    pub(super) async fn retract_markers(&self, record: &Record) -> Result<(), PublishError> {
        match record.markers.is_empty() {
            true => Ok(()),
            false => self.remove(record.markers.iter().map(|key| key_of(key)).collect()).await,
        }
    }

    /// Creates the marker of the new day, if it has one, and no later day is decided.
    pub(super) async fn create_marker(&self, number: u64, record: &Record) -> Result<(), PublishError> {
        match self.marker(&record.manifest) {
            Some(marker) if !self.is_superseded(number).await? => self.put_marker(&marker).await,
            _ => Ok(()),
        }
    }

    /// Creates the marker of the last day again, because this process may have removed it: it carried out `superseded`, which
    /// another process had carried out meanwhile.
    pub(super) async fn repair_marker(&self, superseded: &Record) -> Result<(), PublishError> {
        if superseded.markers.is_empty() {
            return Ok(());
        }
        match self.last().await? {
            Some(LastEntry { number, has_record: true, done: true, .. })
                if !self.is_undone(number).await? =>
            {
                match self.read(number).await? {
                    Some(last) => self.create_marker(number, &last).await,
                    None => Ok(()),
                }
            }
            // A day that is not carried out gets its marker from the process that does it.
            _ => Ok(()),
        }
    }

    /// Creates the markers of the old day again: the day stays.
    pub(super) async fn restore_markers(&self, record: &Record) -> Result<(), PublishError> {
        for marker in &record.markers {
            self.put_marker(&key_of(marker)).await?;
        }
        Ok(())
    }

    async fn put_marker(&self, key: &Path) -> Result<(), PublishError> {
        let put = self.bucket.objects.put(key, PutPayload::new()).await;
        put.map(drop).map_err(self.failed(key, CANNOT_CREATE))
    }
}
