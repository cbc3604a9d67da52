//! Files that task outputs go to where memory ends.
//!
//! Each process has a folder of its own under the spill directory, locked while it lives; folders
//! whose lock nobody holds are a dead process's and are removed at start. Files belong to their
//! owner alone and are unlinked when dropped. All together may have so many bytes: what would go
//! beyond is refused before the disk is full.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

const PREFIX: &str = "tally-spill-";
const LOCK: &str = ".lock";
const REMOVE_TRIES: usize = 3;

/// A spill folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    /// The system says no.
    #[error("{path}: {what}: {source}; choose another --spill-dir or make room there")]
    Disk {
        /// The folder or file.
        path: String,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The limit.
    #[error(
        "{path}: {used} bytes are spilled, {more} more would pass the limit of {limit}; raise --spill-limit or add workers"
    )]
    Full {
        /// The folder.
        path: String,
        /// Bytes on disk.
        used: u64,
        /// Bytes wanted.
        more: u64,
        /// Bytes allowed.
        limit: u64,
    },
}

/// Where spill folders are, unless somebody says otherwise: `/tmp` is memory on many machines.
pub fn default_dir() -> PathBuf {
    let disk = PathBuf::from("/var/tmp");
    if std::env::var_os("TMPDIR").is_none() && disk.is_dir() { disk } else { std::env::temp_dir() }
}

/// This process's folder.
#[derive(Debug)]
pub struct SpillDir {
    path: PathBuf,
    next: AtomicU64,
    written: AtomicU64,
    limit: u64,
    on_disk: AtomicU64,
    /// Something did not fit, and not much has gone since.
    full: AtomicBool,
    /// Held as long as the folder is in use.
    _lock: File,
}

impl SpillDir {
    /// Makes this process's folder `name` under `parent`, for up to `limit` bytes, and removes dead
    /// processes' folders.
    ///
    /// # Errors
    /// [`SpillError`], naming the path.
    pub fn create(parent: &Path, name: &str, limit: u64) -> Result<Arc<Self>, SpillError> {
        let error = |path: &Path, what| {
            let path = path.display().to_string();
            move |source| SpillError::Disk { path, what, source }
        };
        std::fs::create_dir_all(parent).map_err(error(parent, "the folder cannot be made"))?;
        remove_dead(parent);
        let path = parent.join(format!("{PREFIX}{name}"));
        let make = || DirBuilder::new().mode(0o700).create(&path);
        make().map_err(error(&path, "the folder cannot be made"))?;
        let lock = loop {
            // Until it is locked, another process that starts now may take it for a dead one's.
            match locked(&path.join(LOCK)) {
                Ok(Some(lock)) => break lock,
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(error(&path, "its lock cannot be taken")(e));
                }
                _ => match make() {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error(&path, "the folder cannot be made")(e));
                    }
                    _ => {}
                },
            }
        };
        Ok(Arc::new(SpillDir {
            path,
            next: AtomicU64::new(0),
            written: AtomicU64::new(0),
            limit,
            on_disk: AtomicU64::new(0),
            full: AtomicBool::new(false),
            _lock: lock,
        }))
    }

    /// Whether more work would only fail: something did not fit lately, and less than a fifth of the
    /// limit is free.
    pub fn is_full(&self) -> bool {
        if self.on_disk.load(Ordering::Relaxed) < self.limit - self.limit / 5 {
            self.full.store(false, Ordering::Relaxed);
        }
        self.full.load(Ordering::Relaxed)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The most bytes that may lie here.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that lie here.
    pub fn used(&self) -> u64 {
        self.on_disk.load(Ordering::Relaxed)
    }

    /// Counts bytes that are about to be written.
    fn take(&self, bytes: u64) -> Result<(), SpillError> {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        let taken = self.on_disk.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(|_| ()).map_err(|used| {
            self.full.store(true, Ordering::Relaxed);
            let path = self.path.display().to_string();
            SpillError::Full { path, used, more: bytes, limit: self.limit }
        })
    }

    /// Bytes spilled so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// A new empty file.
    ///
    /// # Errors
    /// [`SpillError`], naming the path.
    pub fn file(self: &Arc<Self>) -> Result<SpillFile, SpillError> {
        let path = self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|source| SpillError::Disk {
            path: path.display().to_string(),
            what: "a spill file cannot be made",
            source,
        })?;
        Ok(SpillFile { file, path, end: 0, taken: 0, dir: self.clone() })
    }
}

impl SpillDir {
    /// Removes the folder and all that is in it; files in it cannot be read or made any more.
    pub fn remove(&self) {
        // Files that go at the same time may be in the way; what cannot be removed at all is removed
        // by the next process to start here.
        for _ in 0..REMOVE_TRIES {
            if std::fs::remove_dir_all(&self.path).is_ok() || !self.path.exists() {
                return;
            }
        }
    }
}

impl Drop for SpillDir {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The lock file, locked; `None` where its folder was removed before it was.
fn locked(path: &Path) -> io::Result<Option<File>> {
    let lock = File::create(path)?;
    lock.lock()?;
    let there = path.metadata()?;
    let ours = lock.metadata()?;
    Ok((there.dev() == ours.dev() && there.ino() == ours.ino()).then_some(lock))
}

fn remove_dead(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Others may write here too: only a plain file is opened, which cannot block.
        let lock = entry.path().join(LOCK);
        if !ours || !lock.symlink_metadata().is_ok_and(|found| found.is_file()) {
            continue;
        }
        let Ok(lock) = File::open(lock) else { continue };
        if !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            tracing::info!(folder = %entry.path().display(), "removing a dead process's spill folder");
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A range of a spill file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    at: u64,
    length: u64,
}

impl Extent {
    /// Bytes in the range.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// A file that is appended to, then read in ranges; removed when dropped.
#[derive(Debug)]
pub struct SpillFile {
    file: File,
    path: PathBuf,
    end: u64,
    /// Bytes counted for it; more than `end` where a write failed in the middle.
    taken: u64,
    dir: Arc<SpillDir>,
}

impl SpillFile {
    /// Bytes in the file.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    fn error(&self, what: &'static str) -> impl Fn(io::Error) -> SpillError {
        let path = self.path.display().to_string();
        move |source| SpillError::Disk { path: path.clone(), what, source }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`SpillError`]: the disk is full, or fails.
    pub fn append(&mut self, bytes: &[u8]) -> Result<Extent, SpillError> {
        let extent = Extent { at: self.end, length: bytes.len() as u64 };
        self.dir.take(extent.length)?;
        self.taken += extent.length;
        self.file.write_all_at(bytes, self.end).map_err(self.error("spilling failed"))?;
        self.end += extent.length;
        self.dir.written.fetch_add(extent.length, Ordering::Relaxed);
        Ok(extent)
    }

    /// Reads a range that was appended.
    ///
    /// # Errors
    /// [`SpillError`]: the disk fails.
    pub fn read(&self, extent: Extent) -> Result<Vec<u8>, SpillError> {
        let mut bytes = vec![0; usize::try_from(extent.length).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, extent.at).map_err(self.error("a spill file cannot be read"))?;
        Ok(bytes)
    }

    /// Reads `length` bytes from `at`.
    ///
    /// # Errors
    /// [`SpillError`]: the range is not there, or the disk fails.
    pub fn read_at(&self, at: u64, length: usize) -> Result<Bytes, SpillError> {
        self.read(Extent { at, length: length as u64 }).map(Bytes::from)
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        // Its folder goes in any case when the process ends.
        let _ = std::fs::remove_file(&self.path);
        self.dir.on_disk.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_process_folder_goes_and_a_living_one_stays() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join("tally-spill-dead");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), "").unwrap();
        let living = SpillDir::create(parent.path(), "one", u64::MAX).unwrap();
        assert!(!dead.exists());
        let other = SpillDir::create(parent.path(), "two", u64::MAX).unwrap();
        assert!(living.path.exists());
        drop(other);
        assert!(!parent.path().join("tally-spill-two").exists());
    }

    #[test]
    fn extents_are_read_back_and_files_go() {
        let parent = tempfile::tempdir().unwrap();
        let dir = SpillDir::create(parent.path(), "x", u64::MAX).unwrap();
        let mut file = dir.file().unwrap();
        let first = file.append(b"hello").unwrap();
        let second = file.append(b" world").unwrap();
        assert_eq!(file.read(second).unwrap(), b" world");
        assert_eq!(file.read(first).unwrap(), b"hello");
        assert_eq!(dir.written(), 11);
        let path = file.path.clone();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        assert_eq!((mode(&dir.path), mode(&path)), (0o700, 0o600), "nobody else reads what is spilled");
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn what_would_pass_the_limit_is_refused_until_there_is_room_again() {
        let parent = tempfile::tempdir().unwrap();
        let dir = SpillDir::create(parent.path(), "x", 10).unwrap();
        let mut file = dir.file().unwrap();
        file.append(b"12345678").unwrap();
        assert!(!dir.is_full(), "nothing was refused yet");
        let mut other = dir.file().unwrap();
        let refused = other.append(b"123").unwrap_err();
        assert!(matches!(refused, SpillError::Full { used: 8, more: 3, limit: 10, .. }), "{refused}");
        assert!(dir.is_full());
        other.append(b"12").unwrap();
        drop(file);
        assert!(!dir.is_full());
        other.append(b"12345678").unwrap();
    }

    #[test]
    fn many_processes_may_start_in_one_folder_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let start = |name: usize| {
                let parent = parent.path();
                scope.spawn(move || {
                    for round in 0..20 {
                        let dir = SpillDir::create(parent, &format!("{name}-{round}"), 100).unwrap();
                        let file = dir.file();
                        assert!(file.is_ok(), "another process removed a living one's folder: {file:?}");
                    }
                })
            };
            let threads: Vec<_> = (0..4).map(start).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}
