//! The storage of a demo's day and its result: a folder, or a folder in an object store. For a store, the command keeps a
//! local copy while it runs, because the generator writes files.
//!
//! Not here: the contents (`demo`).

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::ready;
use futures::{StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use object_store::{Error, ObjectMeta};
use tally_common::runtime::block_on;
use tally_common::stores::urls;
use tally_common::stores::{Bucket, explain};
use tally_coordinator::job_id::new_id;
use tally_shuffle::spill::SpillDir;
use tokio::io::AsyncWriteExt;

use crate::Stop;
use crate::connect::runtime;

/// Requests at a time.
const CONCURRENT: usize = 8;
/// Bytes of a read.
const CHUNK: u64 = 1 << 20;
/// Size of the parts of an upload; smaller files are sent in one request.
const PART: usize = 8 << 20;

/// A new folder.
pub(crate) enum Place {
    /// A local folder, absolute or not.
    Folder(PathBuf),
    /// A folder in a bucket, and its local copy.
    Store { bucket: Arc<Bucket>, root: Key, copy: Arc<SpillDir> },
}

/// The error for a local file or folder.
fn here(path: &Path) -> impl Fn(std::io::Error) -> Stop + '_ {
    move |error| Stop::Failed(format!("{}: {error}", path.display()))
}

impl Place {
    /// A folder that does not exist, or one in a store without objects below it; local copies are stored in `copies`.
    ///
    /// # Errors
    /// [`Stop`]: it exists, or cannot be listed.
    pub(crate) fn new(wanted: Option<&str>, copies: &Path) -> Result<Self, Stop> {
        let fresh = || (1..1000).map(|n| format!("tally-demo-{n}")).find(|name| !Path::new(name).exists());
        let Some(wanted) = wanted.map(str::to_string).or_else(fresh) else {
            return Err(Stop::Usage("give --dir: there are too many tally-demo folders here".into()));
        };
        let wrong = |e: &dyn std::fmt::Display| Stop::Usage(format!("--dir {e}"));
        let opened = urls::open_bucket(&wanted).map_err(|e| wrong(&e))?;
        let Some((bucket, root)) = opened else {
            let folder = match wanted.starts_with("file://") {
                true => urls::local_path(&wanted).map_err(|e| wrong(&e))?,
                false => PathBuf::from(&wanted),
            };
            return match folder.exists() {
                true => Err(Stop::Usage(format!("{wanted} exists: remove it, or give another --dir"))),
                false => Ok(Place::Folder(folder)),
            };
        };
        if root.as_ref().is_empty() {
            return Err(Stop::Usage(format!("--dir {wanted} is a bucket: give a folder in it")));
        }
        let name = new_id("demo").map_err(|e| Stop::Failed(e.to_string()))?;
        let copy = SpillDir::create(copies, name.as_str(), u64::MAX);
        let copy = copy.map_err(|e| Stop::Failed(e.to_string()))?;
        let place = Place::Store { bucket: bucket.clone(), root: root.clone(), copy };
        // A console may have created an object for the folder itself.
        let below =
            |found: &Result<ObjectMeta, _>| ready(found.as_ref().map_or(true, |meta| meta.location != root));
        match block_on(&runtime()?, bucket.objects.list(Some(&root)).filter(below).next()) {
            None => Ok(place),
            Some(Ok(_)) => Err(Stop::Usage(format!("there are objects below {wanted}: give another --dir"))),
            Some(Err(error)) => Err(failed(&bucket, &root)(error)),
        }
    }

    /// The folder as an absolute path.
    ///
    /// # Errors
    /// [`Stop`]: this process has no current folder.
    pub(crate) fn absolute(self) -> Result<Self, Stop> {
        match self {
            Place::Folder(folder) => {
                let absolute = std::path::absolute(&folder).map_err(here(&folder))?;
                Ok(Place::Folder(absolute))
            }
            store => Ok(store),
        }
    }

    /// The path or URL of something below it; of the folder itself for an empty name.
    pub(crate) fn name(&self, below: &str) -> String {
        match self {
            Place::Folder(folder) if below.is_empty() => folder.display().to_string(),
            Place::Folder(folder) => folder.join(below).display().to_string(),
            Place::Store { bucket, root, .. } => bucket.name_of(&under(root, below)),
        }
    }

    /// The local files of something below it.
    pub(crate) fn files(&self, below: &str) -> PathBuf {
        match self {
            Place::Folder(folder) => folder.join(below),
            Place::Store { copy, .. } => copy.path().join(below),
        }
    }

    /// Uploads what was written to [`Self::files`], for a store.
    ///
    /// # Errors
    /// [`Stop`], naming the file or object.
    pub(crate) fn put(&self, below: &str) -> Result<(), Stop> {
        let Place::Store { bucket, root, copy } = self else { return Ok(()) };
        let mut sent = vec![];
        for file in tree(&copy.path().join(below))? {
            let name = file.strip_prefix(copy.path()).unwrap_or(&file).to_string_lossy().into_owned();
            sent.push(send(bucket, file, under(root, &name)));
        }
        block_on(&runtime()?, futures::stream::iter(sent).buffer_unordered(CONCURRENT).try_collect())
    }

    /// Removes it with everything below.
    ///
    /// # Errors
    /// [`Stop`], naming what cannot be removed.
    pub(crate) fn remove(&self) -> Result<(), Stop> {
        let (bucket, root) = match self {
            Place::Folder(folder) => {
                let removed = fs::remove_dir_all(folder);
                return removed
                    .map_err(|e| Stop::Failed(format!("{} cannot be removed: {e}", folder.display())));
            }
            Place::Store { bucket, root, .. } => (bucket, root),
        };
        let listed = bucket.objects.list(Some(root)).map_ok(|object| object.location).boxed();
        let removed = bucket.objects.delete_stream(listed).try_for_each(|_| async { Ok(()) });
        block_on(&runtime()?, removed).map_err(failed(bucket, root))
    }
}

/// A key below another.
fn under(root: &Key, below: &str) -> Key {
    below.split('/').filter(|part| !part.is_empty()).fold(root.clone(), |key, part| key.join(part))
}

/// An error of a store, at a key.
fn failed<'a>(bucket: &'a Bucket, key: &'a Key) -> impl Fn(Error) -> Stop + 'a {
    move |error| Stop::Failed(format!("{}: {}", bucket.name_of(key), explain(&error)))
}

/// All files below a folder.
fn tree(folder: &Path) -> Result<Vec<PathBuf>, Stop> {
    let (mut files, mut folders) = (vec![], vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(here(&folder))? {
            let path = entry.map_err(here(&folder))?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    Ok(files)
}

async fn send(bucket: &Bucket, path: PathBuf, key: Key) -> Result<(), Stop> {
    let mut file = File::open(&path).map_err(here(&path))?;
    let writer = BufWriter::with_capacity(bucket.objects.clone(), key.clone(), PART);
    let mut writer = writer.with_max_concurrency(1);
    loop {
        let mut chunk = Vec::new();
        (&mut file).take(CHUNK).read_to_end(&mut chunk).map_err(here(&path))?;
        if chunk.is_empty() {
            break;
        }
        writer.put(chunk.into()).await.map_err(failed(bucket, &key))?;
    }
    writer.shutdown().await.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => failed(bucket, &key)(error),
        Err(error) => Stop::Failed(format!("{}: {error}", bucket.name_of(&key))),
    })
}
