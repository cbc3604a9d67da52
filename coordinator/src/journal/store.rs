//! Records as objects: `log/<epoch>/<number>`, created if absent and never changed. Tries again
//! where the store fails for a moment.
//!
//! Not here: which record is created when (`log`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tally_proto::v1::journal_record::Record;
use tally_worker::stores::explain;
use tally_worker::urls::{self, UrlError};

use super::JournalError;
use super::frame::{self, WriterId};

/// Waits between tries, in milliseconds.
const WAITS: [u64; 6] = [50, 200, 500, 1000, 2000, 4000];
/// More bytes than any record has.
const MOST_BYTES: u64 = 1 << 30;

/// A state directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    store: Arc<dyn ObjectStore>,
    log: Path,
}

/// What became of the creation of a record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Created {
    /// It is there and durable.
    Yes,
    /// Another one has its place, or had it a moment ago.
    Taken,
}

impl StateDir {
    /// The state directory of a path or URL; it need not exist.
    ///
    /// # Errors
    /// [`UrlError`] for schemes that are not supported.
    pub fn open(url: &str) -> Result<Self, UrlError> {
        let (store, path) = urls::open(url)?;
        match urls::is_local(url) {
            true => Ok(Self::of(Arc::new(LocalFileSystem::new().with_fsync(true)), &path)),
            false => Ok(Self::of(store, &path)),
        }
    }

    /// A state directory in a store.
    pub fn of(store: Arc<dyn ObjectStore>, root: &Path) -> Self {
        StateDir { store, log: root.clone().join("log") }
    }

    fn place(&self, epoch: u64, number: u64) -> Path {
        self.log.clone().join(epoch.to_string()).join(number.to_string())
    }

    /// All records, by epoch and number.
    pub(super) async fn list(&self) -> Result<BTreeMap<u64, BTreeSet<u64>>, JournalError> {
        self.list_below(&self.log).await
    }

    /// The numbers of an epoch's records.
    pub(super) async fn list_epoch(&self, epoch: u64) -> Result<BTreeSet<u64>, JournalError> {
        let mut found = self.list_below(&self.log.clone().join(epoch.to_string())).await?;
        Ok(found.remove(&epoch).unwrap_or_default())
    }

    async fn list_below(&self, prefix: &Path) -> Result<BTreeMap<u64, BTreeSet<u64>>, JournalError> {
        let listed =
            with_patience(prefix, || async { self.store.list(Some(prefix)).try_collect::<Vec<_>>().await });
        let mut epochs: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for object in listed.await? {
            let mut parts = object.location.prefix_match(&self.log).into_iter().flatten();
            let number = |part: Option<object_store::path::PathPart<'_>>| part?.as_ref().parse::<u64>().ok();
            match (number(parts.next()), number(parts.next()), parts.next()) {
                (Some(epoch), Some(number), None) => epochs.entry(epoch).or_default().insert(number),
                _ => {
                    let what = "this is no record of a Tally journal".into();
                    return Err(JournalError::Damaged { path: object.location.to_string(), what });
                }
            };
        }
        Ok(epochs)
    }

    /// The highest epoch that was claimed; 0 for none.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn highest_epoch(&self) -> Result<u64, JournalError> {
        let listed =
            with_patience(&self.log, || async { self.store.list_with_delimiter(Some(&self.log)).await });
        let epochs = listed.await?.common_prefixes;
        let epochs = epochs.iter().filter_map(|path| path.filename()?.parse::<u64>().ok());
        Ok(epochs.max().unwrap_or(0))
    }

    /// Creates a record, once: a try whose answer was lost is recognised.
    pub(super) async fn create(
        &self,
        epoch: u64,
        number: u64,
        writer: WriterId,
        record: &Record,
    ) -> Result<Created, JournalError> {
        let place = self.place(epoch, number);
        let payload = PutPayload::from(frame::encode(writer, record));
        let created = with_patience(&place, || async {
            match self.store.put_opts(&place, payload.clone(), PutMode::Create.into()).await {
                Ok(_) => Ok(true),
                Err(Error::AlreadyExists { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        });
        if created.await? {
            return Ok(Created::Yes);
        }
        match self.read(epoch, number).await? {
            Some((by, found)) if by == writer && found == *record => Ok(Created::Yes),
            _ => Ok(Created::Taken),
        }
    }

    /// Reads a record; `None` where there is none.
    pub(super) async fn read(
        &self,
        epoch: u64,
        number: u64,
    ) -> Result<Option<(WriterId, Record)>, JournalError> {
        let place = self.place(epoch, number);
        let read = with_patience(&place, || async {
            let found = match self.store.get(&place).await {
                Ok(found) if found.meta.size > MOST_BYTES => return Ok(Some(bytes::Bytes::new())),
                Ok(found) => found,
                Err(Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            found.bytes().await.map(Some)
        });
        let Some(bytes) = read.await? else { return Ok(None) };
        let decoded = frame::decode(&bytes);
        decoded.map(Some).map_err(|what| JournalError::Damaged { path: place.to_string(), what })
    }

    /// Removes records that nobody needs. What cannot be removed stays for the next.
    pub(super) async fn remove(&self, epoch: u64, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let place = self.place(epoch, number);
            match self.store.delete(&place).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => {
                    tracing::warn!(%place, %error, "an old record cannot be removed");
                    return;
                }
            }
        }
    }
}

/// Tries until it works, or all waits are over.
async fn with_patience<T, F>(place: &Path, mut tried: impl FnMut() -> F) -> Result<T, JournalError>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut waits = WAITS.iter();
    loop {
        let error = match tried().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let Some(&wait) = waits.next() else {
            return Err(JournalError::Io { path: place.to_string(), reason: explain(&error) });
        };
        tracing::warn!(%place, %error, "the journal's store fails; tried again");
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}
