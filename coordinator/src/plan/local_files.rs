//! The data files of a local folder, in one walk with one look at each file. Files that a store would silently omit are
//! errors: those that it cannot name (`a#1`) or open (a broken link), and those that are not regular files. Without them
//! the result would be wrong.
//!
//! All of it blocks. Not here: objects in stores, and what follows from the list (`listing`).

use std::fs::{DirEntry, FileType, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use tally_scan::InputFile;

/// A file or folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A folder cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The folder.
        path: String,
        /// The error of the system.
        source: io::Error,
    },
    /// Something is not a file, or cannot be read as one.
    #[error("{path} {what}")]
    Unreadable {
        /// Its path.
        path: String,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// A path that no object can have.
    #[error("{path}: {source}")]
    Name {
        /// The path, as far as it can be shown.
        path: String,
        /// Why.
        source: object_store::Error,
    },
}

/// A data file, and its times.
#[derive(Debug)]
pub struct DataFile {
    /// The file.
    pub file: InputFile,
    /// Its last modification.
    pub modified: DateTime<Utc>,
    /// Its last modification, or a later rename to its place.
    pub arrived: DateTime<Utc>,
}

/// Device and inode.
type Identity = (u64, u64);

/// A folder, with those above it up to the first one.
struct Folder {
    path: PathBuf,
    identity: Identity,
    above: Option<Arc<Folder>>,
}

impl Folder {
    /// Whether it is that folder, or in it.
    fn is_in(&self, identity: Identity) -> bool {
        let mut folder = Some(self);
        while let Some(at) = folder {
            if at.identity == identity {
                return true;
            }
            folder = at.above.as_deref();
        }
        false
    }
}

/// The data files below a folder, in no order; none if there is no such folder. Links are followed. Files that disappear
/// meanwhile are omitted. Blocks.
///
/// # Errors
/// [`WalkError`].
pub fn data_files(store: &Arc<dyn ObjectStore>, folder: PathBuf) -> Result<Vec<DataFile>, WalkError> {
    let mut files = vec![];
    let found = match std::fs::metadata(&folder) {
        Ok(found) if found.is_dir() => found,
        Ok(_) => return Ok(files),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(files);
        }
        Err(source) => return Err(WalkError::Read { path: folder.display().to_string(), source }),
    };
    let first = Folder { path: folder, identity: identity(&found), above: None };
    let mut folders = vec![Arc::new(first)];
    while let Some(folder) = folders.pop() {
        let failed = |source| WalkError::Read { path: folder.path.display().to_string(), source };
        let entries = match std::fs::read_dir(&folder.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if is_hidden(entry.file_name().as_encoded_bytes()) {
                continue;
            }
            match look_at(&entry)? {
                Some(found) if found.is_dir() => {
                    let identity = identity(&found);
                    if folder.is_in(identity) {
                        return Err(unreadable(
                            &entry.path(),
                            "is a link to a folder that contains it: remove it",
                        ));
                    }
                    let above = Some(folder.clone());
                    folders.push(Arc::new(Folder { path: entry.path(), identity, above }));
                }
                Some(found) => files.push(file(store, &entry.path(), &found)?),
                None => {}
            }
        }
    }
    Ok(files)
}

fn identity(found: &Metadata) -> Identity {
    (found.dev(), found.ino())
}

fn unreadable(path: &FsPath, what: &'static str) -> WalkError {
    WalkError::Unreadable { path: path.display().to_string(), what }
}

/// The metadata of an entry, or of the target of a link; `None` if it no longer exists.
fn look_at(entry: &DirEntry) -> Result<Option<Metadata>, WalkError> {
    let path = entry.path();
    let found = match std::fs::metadata(&path) {
        Ok(found) => found,
        Err(_) if std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) => {
            return Err(unreadable(
                &path,
                "is a link whose target cannot be opened: remove the link, or restore its target",
            ));
        }
        // It was removed after the folder was read.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(_) => {
            return Err(unreadable(&path, "cannot be opened: check the permissions of its folder"));
        }
    };
    match what_else(found.file_type()) {
        Some(what) => Err(unreadable(&path, what)),
        None => Ok(Some(found)),
    }
}

/// What something is that is neither a file nor a folder.
fn what_else(kind: FileType) -> Option<&'static str> {
    if kind.is_file() || kind.is_dir() {
        return None;
    }
    if kind.is_fifo() {
        return Some("is a FIFO (named pipe), not a file: remove it, or move it out of the day's folder");
    }
    if kind.is_socket() {
        return Some("is a socket, not a file: remove it, or move it out of the day's folder");
    }
    Some("is a device, not a file: remove it, or move it out of the day's folder")
}

fn file(store: &Arc<dyn ObjectStore>, path: &FsPath, found: &Metadata) -> Result<DataFile, WalkError> {
    let unnamed = |source| WalkError::Name { path: path.display().to_string(), source };
    let key = match path.to_str() {
        Some(path) => Path::parse(path),
        // Names the error.
        None => Path::from_absolute_path(path),
    };
    let key = key.map_err(object_store::Error::from).map_err(unnamed)?;
    // A number sign and digits at the end mark the store's unfinished files.
    if key.as_ref().contains('#')
        && !LocalFileSystem::new().path_to_filesystem(&key).is_ok_and(|named| named == path)
    {
        return Err(unreadable(path, "has a name that object stores do not support (like a#1): rename it"));
    }
    // All systems with these file types know the time.
    let modified = found.modified().map_or(DateTime::UNIX_EPOCH, DateTime::from);
    // A rename keeps the time of modification and sets that of the change.
    let nanos = u32::try_from(found.ctime_nsec()).unwrap_or_default();
    let changed = DateTime::from_timestamp(found.ctime(), nanos).unwrap_or(modified);
    let file = InputFile::local(store.clone(), key, path.display().to_string(), found);
    Ok(DataFile { file, modified, arrived: changed.max(modified) })
}

/// Whether files and folders of this name are not data.
pub fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(b".")
        || (name.starts_with(b"_") && !name.contains(&b'='))
        || name.ends_with(b"._COPYING_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use object_store::ObjectMeta;

    use super::*;

    fn store() -> Arc<dyn ObjectStore> {
        Arc::new(LocalFileSystem::new())
    }

    /// A folder with two files, one of them below another folder.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("day=1");
        std::fs::create_dir_all(root.join("sample id=1")).unwrap();
        std::fs::write(root.join("a b%20ü.parquet"), "four").unwrap();
        std::fs::write(root.join("sample id=1/part#x"), "").unwrap();
        (folder, root)
    }

    #[tokio::test]
    async fn files_are_those_that_the_store_lists_in_the_same_version() {
        let (_folder, root) = folder();
        for hidden in ["_SUCCESS", ".part.crc", "x._COPYING_"] {
            std::fs::write(root.join(hidden), "hidden").unwrap();
        }
        symlink(root.join("a b%20ü.parquet"), root.join("sample id=1/link")).unwrap();
        std::fs::create_dir(root.join("empty")).unwrap();
        symlink(root.join("empty"), root.join("linked")).unwrap();
        let mut found = data_files(&store(), root.clone()).unwrap();
        found.sort_by(|a, b| a.file.path.cmp(&b.file.path));
        let prefix = Path::from_absolute_path(&root).unwrap();
        let mut listed = tally_common::stores::list_below(&*store(), &prefix).await.unwrap();
        listed.retain(|meta| !is_hidden(meta.location.filename().unwrap().as_bytes()));
        listed.sort_by(|a, b| a.location.cmp(&b.location));
        let version = |meta: ObjectMeta| (meta.location, meta.size, meta.e_tag, meta.last_modified);
        let listed: Vec<_> = listed.into_iter().map(version).collect();
        let names: Vec<_> = found.iter().map(|data| data.file.name.clone()).collect();
        let version = |DataFile { file, modified, .. }: DataFile| (file.path, file.size, file.etag, modified);
        let found: Vec<_> = found.into_iter().map(version).collect();
        assert_eq!(found, listed);
        assert_eq!(found.len(), 3);
        assert!(names.iter().all(|name| FsPath::new(name).is_file()), "{names:?}");
        assert!(data_files(&store(), root.join("missing")).unwrap().is_empty());
        assert!(data_files(&store(), root.join("_SUCCESS")).unwrap().is_empty(), "it is a file");
    }

    #[test]
    fn what_a_store_would_omit_is_an_error() {
        let check = |name: &str, make: &dyn Fn(&FsPath), words: &str| {
            let (_folder, root) = folder();
            let path = root.join("sample id=1").join(name);
            make(&path);
            let error = data_files(&store(), root).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(name), "{name}: {error}");
        };
        check("a#1", &|path| std::fs::write(path, "x").unwrap(), "rename it");
        check(
            "link",
            &|path| symlink(path.with_file_name("nothing"), path).unwrap(),
            "target cannot be opened",
        );
        check("loop", &|path| symlink(path, path).unwrap(), "target cannot be opened");
        check("up", &|path| symlink("..", path).unwrap(), "a folder that contains it");
        check("null", &|path| symlink("/dev/null", path).unwrap(), "is a device");
        check("bell\u{7}", &|path| std::fs::write(path, "x").unwrap(), "illegal character");
        let socket = |path: &FsPath| drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        check("socket", &socket, "is a socket");
    }

    /// The size of a file that appears: its number is in its name.
    fn size_of(number: usize) -> u64 {
        number as u64 % 5 + 1
    }

    /// Adds a file, a file in a folder of its own, and a link. Each appears whole.
    fn add(root: &FsPath, number: usize) {
        let content = vec![b'x'; usize::try_from(size_of(number)).unwrap()];
        let sample = root.join(format!("sample_id={number}"));
        std::fs::create_dir(&sample).unwrap();
        for place in [root.join(format!("part={number}")), sample.join(format!("part={number}"))] {
            std::fs::write(root.join(".new"), &content).unwrap();
            std::fs::rename(root.join(".new"), place).unwrap();
        }
        symlink(root.join("stays=0"), root.join(format!("link={number}"))).unwrap();
    }

    fn remove(root: &FsPath, number: usize) {
        std::fs::remove_file(root.join(format!("link={number}"))).unwrap();
        std::fs::remove_file(root.join(format!("part={number}"))).unwrap();
        std::fs::remove_dir_all(root.join(format!("sample_id={number}"))).unwrap();
    }

    /// What listings met.
    #[derive(Default, Debug)]
    struct Met {
        /// Listings during which a file appeared or disappeared.
        changed: usize,
        /// The numbers of all listed files that appeared.
        numbers: BTreeSet<usize>,
        /// Listings without a file that an earlier one has.
        missed: usize,
        errors: usize,
    }

    impl Met {
        /// Checks a listing.
        fn listed(&mut self, found: Result<Vec<DataFile>, WalkError>, stay: usize) {
            let files = match found {
                Ok(files) => files,
                Err(error) => {
                    assert!(error.to_string().contains("/day=1"), "it names no file: {error}");
                    self.errors += 1;
                    return;
                }
            };
            let (mut stayed, mut numbers) = (0, BTreeSet::new());
            for DataFile { file, .. } in files {
                let (kind, number) = file.name.rsplit_once('/').unwrap().1.split_once('=').unwrap();
                let number: usize = number.parse().unwrap();
                let size = match kind {
                    "stays" => {
                        stayed += 1;
                        7
                    }
                    "link" => 7,
                    _ => size_of(number),
                };
                assert!(file.size == size && file.etag.is_some(), "{size} bytes: {file:?}");
                numbers.extend((kind != "stays").then_some(number));
            }
            assert_eq!(stayed, stay, "files that stay");
            self.missed += usize::from(!self.numbers.is_subset(&numbers));
            self.numbers.extend(numbers);
        }

        fn is_enough(&self) -> bool {
            self.changed >= 20 && self.numbers.len() >= 5 && self.missed >= 1
        }
    }

    #[test]
    fn files_that_appear_or_disappear_during_a_listing_are_in_it_whole_or_not_at_all() {
        // Enough that a listing takes longer than a change.
        const STAY: usize = 200;
        const MAX_LISTINGS: usize = 1000;
        // Files that exist at a time.
        const LIVE: usize = 3;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("day=1");
        std::fs::create_dir(&root).unwrap();
        for number in 0..STAY {
            std::fs::write(root.join(format!("stays={number}")), "7 bytes").unwrap();
        }
        let changes = AtomicUsize::new(0);
        let met = std::thread::scope(|scope| {
            let listings = scope.spawn(|| {
                let mut met = Met::default();
                for _ in 0..MAX_LISTINGS {
                    let before = changes.load(Ordering::SeqCst);
                    let found = data_files(&store(), root.clone());
                    met.changed += usize::from(changes.load(Ordering::SeqCst) != before);
                    met.listed(found, STAY);
                    if met.is_enough() {
                        break;
                    }
                }
                met
            });
            let mut number = 0;
            while !listings.is_finished() {
                add(&root, number);
                if number >= LIVE {
                    remove(&root, number - LIVE);
                }
                number += 1;
                changes.store(number, Ordering::SeqCst);
            }
            listings.join().unwrap()
        });
        assert!(met.is_enough(), "the race was not met: {met:?}");
    }

    #[test]
    fn names_that_are_not_utf_8_are_an_error() {
        use std::os::unix::ffi::OsStrExt;
        let (_folder, root) = folder();
        let name = std::ffi::OsStr::from_bytes(b"part-\xff");
        // Some file systems refuse such names.
        if std::fs::write(root.join(name), "x").is_ok() {
            let error = data_files(&store(), root).unwrap_err();
            assert!(matches!(error, WalkError::Name { .. }), "{error}");
        }
    }
}
