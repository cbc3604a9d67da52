//! The store of a journal in a folder: the calls of object_store's `LocalFileSystem` with `fsync`, in its order.
//!
//! Not here: what the calls do (`mount`).

use std::fmt;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tally_coordinator::publish::file_system::FileSystem;

use super::mount::Mount;
use crate::store::client::date;

/// A journal's store in the file system of a process.
#[derive(Debug, Clone, Copy)]
pub struct FolderStore(pub Mount);

impl fmt::Display for FolderStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated folder")
    }
}

fn failed(key: &Path) -> impl Fn(io::Error) -> Error {
    let path = key.to_string();
    move |source| match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: path.clone(), source: source.into() },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path: path.clone(), source: source.into() },
        _ => Error::Generic { store: "LocalFileSystem", source: source.into() },
    }
}

fn other(error: io::Error) -> Error {
    Error::Generic { store: "LocalFileSystem", source: error.into() }
}

fn path_of(key: &Path) -> PathBuf {
    PathBuf::from(format!("/{key}"))
}

fn unsupported() -> Error {
    Error::NotSupported { source: "journals do not need it".into() }
}

/// Creates the missing folders above a file, and syncs each folder that changed.
fn create_parents(mount: &Mount, path: &std::path::Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    let existing = parent.ancestors().find(|folder| mount.exists(folder)).unwrap_or(parent);
    mount.create_folders(parent)?;
    for folder in parent.ancestors() {
        mount.sync(folder)?;
        if folder == existing {
            break;
        }
    }
    Ok(())
}

/// Creates a file once, with all of its content.
fn create(mount: &Mount, key: &Path, content: &[u8]) -> Result<()> {
    let path = path_of(key);
    let mut number = 1;
    let (staged, inode) = loop {
        let staged = PathBuf::from(format!("{}#{number}", path.display()));
        match mount.create_new(&staged) {
            Ok(inode) => break (staged, inode),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_parents(mount, &path).map_err(other)?;
            }
            Err(error) => return Err(other(error)),
        }
    };
    let linked = (|| {
        mount.append(inode, content).map_err(other)?;
        mount.sync_open(inode).map_err(other)?;
        mount.link(&staged, &path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => failed(key)(error),
            _ => other(error),
        })?;
        mount.sync(path.parent().unwrap_or(&path)).map_err(other)
    })();
    // A file that stays is not a record, by its name.
    let _ = mount.remove_file(&staged);
    linked
}

/// Whether a name is that of a file that is being created.
fn is_staged(name: &str) -> bool {
    name.split_once('#').is_some_and(|(_, number)| number.bytes().all(|digit| digit.is_ascii_digit()))
}

/// The files and folders in a folder, at any depth or not; nothing if it does not exist.
fn walk(mount: &Mount, folder: PathBuf, deep: bool) -> io::Result<(Vec<ObjectMeta>, Vec<Path>)> {
    let key = |path: &std::path::Path| Path::from(path.display().to_string());
    let (mut files, mut found, mut folders) = (vec![], vec![], vec![folder]);
    while let Some(folder) = folders.pop() {
        let paths = match mount.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            paths => paths?,
        };
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match mount.stat(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(stat) if stat.is_folder && deep => folders.push(path),
                Ok(stat) if stat.is_folder => found.push(key(&path)),
                Ok(_) if is_staged(&name) => {}
                Ok(stat) => files.push(ObjectMeta {
                    location: key(&path),
                    last_modified: date(0),
                    size: stat.bytes,
                    e_tag: None,
                    version: None,
                }),
            }
        }
    }
    Ok((files, found))
}

impl FolderStore {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(Mount) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self.0.run(work).await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl ObjectStore for FolderStore {
    async fn put_opts(&self, key: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if !matches!(options.mode, PutMode::Create) {
            return Err(unsupported());
        }
        let (key, content) = (key.clone(), Bytes::from(payload));
        self.run(move |mount| create(&mount, &key, &content)).await?;
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported())
    }

    async fn get_opts(&self, key: &Path, _: GetOptions) -> Result<GetResult> {
        let of = key.clone();
        let content = self.run(move |mount| mount.read(&path_of(&of)).map_err(failed(&of))).await?;
        let size = content.len() as u64;
        let meta =
            ObjectMeta { location: key.clone(), last_modified: date(0), size, e_tag: None, version: None };
        let bytes = Bytes::from(content);
        let payload = GetResultPayload::Stream(stream::once(std::future::ready(Ok(bytes))).boxed());
        Ok(GetResult {
            payload,
            meta,
            range: 0..size,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = *self;
        keys.and_then(move |key| async move {
            let of = key.clone();
            store.run(move |mount| mount.remove_file(&path_of(&of)).map_err(failed(&of))).await?;
            Ok(key)
        })
        .boxed()
    }

    fn list(&self, folder: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, folder) = (*self, folder.cloned().unwrap_or_default());
        let listed = async move {
            let walked = store.run(move |mount| walk(&mount, path_of(&folder), true).map_err(other));
            Ok::<_, Error>(stream::iter(walked.await?.0.into_iter().map(Ok)))
        };
        listed.into_stream().try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, folder: Option<&Path>) -> Result<ListResult> {
        let folder = folder.cloned().unwrap_or_default();
        let (objects, common_prefixes) =
            self.run(move |mount| walk(&mount, path_of(&folder), false).map_err(other)).await?;
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unsupported())
    }
}
