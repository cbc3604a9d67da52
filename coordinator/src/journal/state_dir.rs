//! Records as objects: `log/<epoch>/<number>`, created only if absent and never changed. Transient failures of the
//! store are tried again.
//!
//! Not here: which record is created when (`log`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use rustix::fs::{Access, access};
use tally_common::retry::RetryPolicy;
use tally_common::stores::urls::{self, Names, UrlError};
use tally_common::stores::{explain, is_transient, list_below};
use tally_proto::v1::journal_record::Record;
use tokio::sync::oneshot;

use super::JournalError;
use super::frame::{self, FrameError, WriterId};
use crate::publish::file_system::{FileSystem, sync_upwards, system};

/// The retries of a request to the journal's store.
const RETRY: RetryPolicy = RetryPolicy::listed(&[50, 200, 500, 1000, 2000, 4000]);
/// The largest size of a record: more than any record has.
const MAX_BYTES: u64 = 1 << 30;

/// A state directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    store: Arc<dyn ObjectStore>,
    log: Path,
    /// Where it is, for messages and for local checks; `None` for a store without a URL.
    url: Option<String>,
    /// The folder of the records, if it is in a file system.
    folder: Option<(Arc<dyn FileSystem>, PathBuf)>,
}

/// The result of the creation of a record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Created {
    /// The record exists and is durable.
    Yes,
    /// Another record has this number, or had it a moment ago.
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
            true => {
                let store = Arc::new(LocalFileSystem::new().with_fsync(true));
                let folder = urls::local_path(url)?;
                Ok(StateDir { url: Some(url.into()), ..Self::in_folder(store, &path, &folder, system()) })
            }
            false => Ok(StateDir { url: Some(url.into()), ..Self::of(store, &path) }),
        }
    }

    /// A state directory in a store.
    pub fn of(store: Arc<dyn ObjectStore>, root: &Path) -> Self {
        StateDir { store, log: root.clone().join("log"), url: None, folder: None }
    }

    /// A state directory in a store of files, and the same folder in the file system.
    pub fn in_folder(
        store: Arc<dyn ObjectStore>,
        root: &Path,
        folder: &std::path::Path,
        files: Arc<dyn FileSystem>,
    ) -> Self {
        StateDir { folder: Some((files, folder.join("log"))), ..Self::of(store, root) }
    }

    /// A record's path or URL, for messages.
    pub(super) fn name_of(&self, epoch: u64, number: u64) -> String {
        self.name(&self.key(epoch, number))
    }

    /// A key as a path or a URL, for messages.
    fn name(&self, key: &Path) -> String {
        let named = self.url.as_ref().and_then(|url| Names::of(url).ok()?.name(key).ok());
        named.unwrap_or_else(|| key.to_string())
    }

    /// Creates a local folder, and checks that this process may write there. Stores are checked by the first record.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub async fn require_writable(&self) -> Result<(), JournalError> {
        let Some(url) = self.url.as_ref().filter(|url| urls::is_local(url)) else { return Ok(()) };
        let name = self.name(&self.log);
        let failed = |reason: String| JournalError::Io { path: name.clone(), reason, transient: false };
        urls::local_path(url).map_err(|e| failed(e.to_string()))?;
        let folder = name.clone();
        let checked = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&folder)?;
            access(&folder, Access::WRITE_OK | Access::EXEC_OK)?;
            Ok::<_, std::io::Error>(())
        });
        match checked.await {
            Ok(Err(error)) => Err(failed(error.to_string())),
            _ => Ok(()),
        }
    }

    /// Makes the names of the epochs' folders, and of the folders above them, durable. Records are durable below them.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub(super) async fn sync_folders(&self) -> Result<(), JournalError> {
        let Some((files, folder)) = self.folder.clone() else { return Ok(()) };
        let path = folder.display().to_string();
        let (sender, synced) = oneshot::channel();
        let of = files.clone();
        let done = files.spawn(Box::new(move || drop(sender.send(sync_upwards(&*of, &folder))))).await;
        let reason = match (done, synced.await) {
            (Ok(()), Ok(Ok(()))) => return Ok(()),
            (Ok(()), Ok(Err(error))) => format!("it cannot be synced: {error}"),
            _ => "its sync did not end".into(),
        };
        Err(JournalError::Io { path, reason, transient: true })
    }

    fn key(&self, epoch: u64, number: u64) -> Path {
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
        let name = self.name(prefix);
        let listed = with_retries(&name, || list_below(&*self.store, prefix));
        let mut epochs: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for object in listed.await? {
            let mut parts = object.location.prefix_match(&self.log).into_iter().flatten();
            let number = |part: Option<object_store::path::PathPart<'_>>| part?.as_ref().parse::<u64>().ok();
            match (number(parts.next()), number(parts.next()), parts.next()) {
                (Some(epoch), Some(number), None) => {
                    epochs.entry(epoch).or_default().insert(number);
                }
                // Consoles and Hadoop create such objects for folders.
                _ if object.size == 0 => {}
                _ => {
                    let what = "this is not a record of a Tally journal".into();
                    return Err(JournalError::Damaged { path: self.name(&object.location), what });
                }
            }
        }
        Ok(epochs)
    }

    /// The highest epoch that was claimed; 0 for none.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn highest_epoch(&self) -> Result<u64, JournalError> {
        let name = self.name(&self.log);
        let listed = with_retries(&name, || async { self.store.list_with_delimiter(Some(&self.log)).await });
        let epochs = listed.await?.common_prefixes;
        let epochs = epochs.iter().filter_map(|path| path.filename()?.parse::<u64>().ok());
        Ok(epochs.max().unwrap_or(0))
    }

    /// Creates a record once. A record whose answer was lost is recognised.
    pub(super) async fn create(
        &self,
        epoch: u64,
        number: u64,
        writer: WriterId,
        record: &Record,
    ) -> Result<Created, JournalError> {
        let key = self.key(epoch, number);
        let payload = PutPayload::from(frame::encode(writer, record));
        let name = self.name(&key);
        let created = with_retries(&name, || async {
            match self.store.put_opts(&key, payload.clone(), PutMode::Create.into()).await {
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

    /// Reads a record; `None` if it does not exist.
    pub(super) async fn read(
        &self,
        epoch: u64,
        number: u64,
    ) -> Result<Option<(WriterId, Record)>, JournalError> {
        let key = self.key(epoch, number);
        let name = self.name(&key);
        let read = with_retries(&name, || async {
            let found = match self.store.get(&key).await {
                Ok(found) if found.meta.size > MAX_BYTES => return Ok(Some(bytes::Bytes::new())),
                Ok(found) => found,
                Err(Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            found.bytes().await.map(Some)
        });
        let Some(bytes) = read.await? else { return Ok(None) };
        let decoded = frame::decode(&bytes);
        let failed = |error: FrameError| {
            let (path, what) = (name.clone(), error.to_string());
            match error.is_newer() {
                true => JournalError::Newer { path, what, writer: "a newer version".into() },
                false => JournalError::Damaged { path, what },
            }
        };
        decoded.map(Some).map_err(failed)
    }

    /// Removes records that are no longer needed. A record that cannot be removed is left to the next leader.
    pub(super) async fn remove(&self, epoch: u64, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let key = self.key(epoch, number);
            match self.store.delete(&key).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => {
                    tracing::warn!(%key, error = explain(&error), "an old record cannot be removed");
                    return;
                }
            }
        }
    }
}

/// Tries an operation again after each pause, as long as it fails with a transient error.
async fn with_retries<T, F>(name: &str, mut tried: impl FnMut() -> F) -> Result<T, JournalError>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut retries = RETRY.start();
    loop {
        let error = match tried().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let transient = is_transient(&error);
        let Some(delay) = retries.next().filter(|_| transient) else {
            return Err(JournalError::Io { path: name.into(), reason: explain(&error), transient });
        };
        tracing::warn!(name, error = explain(&error), "the journal's store failed: trying again");
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn only_transient_errors_are_tried_again() {
        let denied = || Error::PermissionDenied { path: "k".into(), source: "no".into() };
        let broken = || Error::Generic { store: "S3", source: "connection reset".into() };
        let mut tried = 0;
        let done = with_retries("k", || {
            tried += 1;
            let refused = if tried == 1 { broken() } else { denied() };
            std::future::ready(Err::<(), _>(refused))
        });
        let done = done.await;
        assert!(matches!(done, Err(JournalError::Io { transient: false, .. })));
        assert_eq!(tried, 2);
    }

    #[tokio::test]
    async fn a_local_directory_is_named_by_its_path_and_must_be_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let state = root.join("state");
        StateDir::open(state.to_str().unwrap()).unwrap().require_writable().await.unwrap();
        assert!(state.is_dir());
        std::fs::write(state.join("log/old"), "x").unwrap();
        let error = StateDir::open(state.to_str().unwrap()).unwrap().list().await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("{}/log/old: ", state.display())), "{error}");
        std::fs::write(root.join("file"), "x").unwrap();
        let inside = root.join("file/state");
        let error = StateDir::open(inside.to_str().unwrap()).unwrap().require_writable().await.unwrap_err();
        assert!(
            error.is_permanent() && error.to_string().starts_with(&format!("{}/log: ", inside.display())),
            "{error}"
        );
    }

    #[tokio::test]
    async fn empty_objects_that_stand_for_folders_are_not_records() {
        let store = Arc::new(InMemory::new());
        let dir = StateDir::of(store.clone(), &Path::from("state"));
        for key in ["state/log", "state/log/1", "state/log/old", "state/log/1/x", "state/log/1_$folder$"] {
            store.put(&Path::from(key), PutPayload::default()).await.unwrap();
        }
        assert!(dir.list().await.unwrap().is_empty());
        // An object with the name of a record is a record, and here a damaged one.
        store.put(&Path::from("state/log/1/0"), PutPayload::default()).await.unwrap();
        assert_eq!(dir.list().await.unwrap(), BTreeMap::from([(1, BTreeSet::from([0]))]));
        assert!(matches!(dir.read(1, 0).await, Err(JournalError::Damaged { .. })));
        store.put(&Path::from("state/log/1/x"), PutPayload::from_static(b"x")).await.unwrap();
        assert!(matches!(dir.list().await, Err(JournalError::Damaged { .. })));
    }
}
