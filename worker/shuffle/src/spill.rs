//! Files for task outputs that do not fit into memory.
//!
//! Each process has its own directory under the spill directory, and locks it while it runs. Directories without a
//! locked lock file belong to dead processes and are removed at start. Files are readable only by their owner and are
//! removed after they are dropped, on the thread of [`crate::reclaim`]. Their total size is limited: a write beyond the
//! limit is refused before the disk is full.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tally_common::disk::is_full;
use tally_common::environment;
use tally_common::size;
use tally_common::waits::{self, WaitKind};

use crate::reclaim::Reclaimer;

const PREFIX: &str = "tally-spill-";
const LOCK: &str = ".lock";
const REMOVE_TRIES: usize = 3;
/// How long a write at the limit waits for the removal of dropped files.
const REMOVAL_WAIT: Duration = Duration::from_secs(10);

/// An error of the spill directory.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    /// An operation failed.
    #[error("{path}: {what}: {source}; check the disk, or choose another --spill-dir")]
    Disk {
        /// The directory or file.
        path: String,
        /// The operation that failed.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The disk is full.
    #[error(
        "{path}: {what}: {source}; free space there, choose a larger disk with --spill-dir, or raise --memory-limit"
    )]
    NoSpace {
        /// The directory or file.
        path: String,
        /// The operation that failed.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The spill limit is reached.
    #[error(
        "{path}: {} of the {} that --spill-limit allows are in use: add workers, or set --spill-limit to {} or more",
        size::text(*used), size::text(*limit), size::option_above(limit.saturating_add((*more).max(limit / 4)))
    )]
    Limit {
        /// The directory.
        path: String,
        /// Bytes on disk.
        used: u64,
        /// Additional bytes that were requested.
        more: u64,
        /// Bytes allowed.
        limit: u64,
    },
}

impl SpillError {
    /// The error of an operation on a path.
    pub(crate) fn disk(path: &Path, what: &'static str, source: io::Error) -> Self {
        let path = path.display().to_string();
        if is_full(&source) {
            SpillError::NoSpace { path, what, source }
        } else {
            SpillError::Disk { path, what, source }
        }
    }
}

/// The default spill directory. It avoids `/tmp`, which is in memory on many machines.
pub fn default_dir() -> PathBuf {
    let disk = PathBuf::from("/var/tmp");
    match environment::os("TMPDIR") {
        Some(dir) => dir.into(),
        None if disk.is_dir() => disk,
        None => "/tmp".into(),
    }
}

/// The spill directory of this process.
#[derive(Debug)]
pub struct SpillDir {
    path: PathBuf,
    next: AtomicU64,
    written: AtomicU64,
    limit: u64,
    on_disk: AtomicU64,
    /// The part of `on_disk` in files that were dropped and are not removed yet.
    dropped: AtomicU64,
    reclaimer: Reclaimer,
    /// Held while a file is removed.
    removing: Mutex<()>,
    /// The directory was removed, or its removal has started.
    removed: AtomicBool,
    /// A write was refused, and not enough space was freed since.
    full: AtomicBool,
    /// The lock, held while the directory is in use.
    _lock: File,
}

impl SpillDir {
    /// Creates the directory `name` of this process under `parent`, limited to `limit` bytes, and removes the
    /// directories of dead processes.
    ///
    /// # Errors
    /// [`SpillError`], naming the path.
    pub fn create(parent: &Path, name: &str, limit: u64) -> Result<Arc<Self>, SpillError> {
        let error = |path: &Path, what| {
            let path = path.to_path_buf();
            move |source| SpillError::disk(&path, what, source)
        };
        std::fs::create_dir_all(parent).map_err(error(parent, "the directory cannot be created"))?;
        remove_dead(parent);
        let path = parent.join(format!("{PREFIX}{name}"));
        let make = || DirBuilder::new().mode(0o700).create(&path);
        make().map_err(error(&path, "the directory cannot be created"))?;
        let lock = loop {
            // Until it is locked, another process that starts now may remove it as one of a dead process.
            match locked(&path.join(LOCK)) {
                Ok(Some(lock)) => break lock,
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(error(&path, "its lock file cannot be locked")(e));
                }
                _ => match make() {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error(&path, "the directory cannot be created")(e));
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
            dropped: AtomicU64::new(0),
            reclaimer: Reclaimer::default(),
            removing: Mutex::default(),
            removed: AtomicBool::new(false),
            full: AtomicBool::new(false),
            _lock: lock,
        }))
    }

    /// Whether more work would fail: a write was refused, and less than a fifth of the limit is free since. Dropped files
    /// count as free, because a write waits for their removal.
    pub fn is_full(&self) -> bool {
        let kept = self.used().saturating_sub(self.dropped.load(Ordering::Relaxed));
        if kept < self.limit - self.limit / 5 {
            self.full.store(false, Ordering::Relaxed);
        }
        self.full.load(Ordering::Relaxed)
    }

    /// Why new work is refused, if it is.
    pub fn refusal(&self) -> Option<SpillError> {
        self.is_full().then(|| self.limit_reached(self.used(), 0))
    }

    fn limit_reached(&self, used: u64, more: u64) -> SpillError {
        SpillError::Limit { path: self.path.display().to_string(), used, more, limit: self.limit }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Maximum bytes on disk.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes on disk, including dropped files that are not removed yet.
    pub fn used(&self) -> u64 {
        self.on_disk.load(Ordering::Relaxed)
    }

    /// Removes dropped files.
    pub fn reclaimer(&self) -> &Reclaimer {
        &self.reclaimer
    }

    /// While the returned guard lives, removals of files hang, as on a file system that does not respond. For tests.
    pub fn hold_removals(&self) -> RemovalsHeld<'_> {
        RemovalsHeld { _removing: self.removing.lock() }
    }

    /// Counts bytes that are about to be written. At the limit, it waits for the removal of dropped files.
    fn take(&self, bytes: u64) -> Result<(), SpillError> {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        let take = || self.on_disk.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        if take().is_ok() {
            return Ok(());
        }
        let deadline = Instant::now() + REMOVAL_WAIT;
        loop {
            let freed = self.reclaimer.freed();
            let Err(used) = take() else { return Ok(()) };
            if !self.reclaimer.wait_for_more(freed, deadline) {
                self.full.store(true, Ordering::Relaxed);
                return Err(self.limit_reached(used, bytes));
            }
        }
    }

    /// Bytes written so far.
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
        let file =
            file.map_err(|source| SpillError::disk(&path, "a spill file cannot be created", source))?;
        Ok(SpillFile { file: Some(file), path, end: 0, taken: 0, dir: self.clone() })
    }
}

impl SpillDir {
    /// Removes the directory and its contents. Files in it can no longer be read or created.
    pub fn remove(&self) {
        // Concurrent removals of files may interfere. If the directory cannot be removed, the next process that starts
        // here removes it.
        if self.removed.swap(true, Ordering::Relaxed) {
            return;
        }
        let _removing = self.removing.lock();
        let mut removed =
            (0..REMOVE_TRIES).map(|_| std::fs::remove_dir_all(&self.path).is_ok() || !self.path.exists());
        let removed = removed.any(|removed| removed);
        self.removed.store(removed, Ordering::Relaxed);
    }
}

impl Drop for SpillDir {
    fn drop(&mut self) {
        self.remove();
    }
}

/// See [`SpillDir::hold_removals`].
pub struct RemovalsHeld<'a> {
    _removing: MutexGuard<'a, ()>,
}

/// The lock file, locked. `None` if its directory was removed before it was locked.
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
        // Other users may write here, too: only a regular file is opened, which cannot block.
        let lock = entry.path().join(LOCK);
        if !ours || !lock.symlink_metadata().is_ok_and(|found| found.is_file()) {
            continue;
        }
        let Ok(lock) = File::open(lock) else { continue };
        if !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            tracing::info!(folder = %entry.path().display(), "removing the spill directory of a dead process");
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

/// A file that is appended to, and read in ranges. It is removed after it is dropped.
#[derive(Debug)]
pub struct SpillFile {
    /// `Some` until it is dropped.
    file: Option<File>,
    path: PathBuf,
    end: u64,
    /// Bytes counted for it. They exceed `end` if a write failed halfway.
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

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::Error::other("the file is closed"))
    }

    fn error(&self, what: &'static str) -> impl Fn(io::Error) -> SpillError {
        move |source| SpillError::disk(&self.path, what, source)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`SpillError`]: the disk is full, the limit is reached, or the write failed.
    pub fn append(&mut self, bytes: &[u8]) -> Result<Extent, SpillError> {
        let _waiting = waits::begin(WaitKind::Store, &self.path.to_string_lossy());
        let extent = Extent { at: self.end, length: bytes.len() as u64 };
        self.dir.take(extent.length)?;
        self.taken += extent.length;
        let written = self.file().and_then(|file| file.write_all_at(bytes, self.end));
        written.map_err(self.error("the spill file cannot be written"))?;
        self.end += extent.length;
        self.dir.written.fetch_add(extent.length, Ordering::Relaxed);
        Ok(extent)
    }

    /// Reads an appended range.
    ///
    /// # Errors
    /// [`SpillError`]: the read failed.
    pub fn read(&self, extent: Extent) -> Result<Vec<u8>, SpillError> {
        let _waiting = waits::begin(WaitKind::Store, &self.path.to_string_lossy());
        let mut bytes = vec![0; usize::try_from(extent.length).unwrap_or(usize::MAX)];
        let read = self.file().and_then(|file| file.read_exact_at(&mut bytes, extent.at));
        read.map_err(self.error("a spill file cannot be read"))?;
        Ok(bytes)
    }

    /// Reads `length` bytes from offset `at`.
    ///
    /// # Errors
    /// [`SpillError`]: the range does not exist, or the read failed.
    pub fn read_at(&self, at: u64, length: usize) -> Result<Bytes, SpillError> {
        self.read(Extent { at, length: length as u64 }).map(Bytes::from)
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.dir.dropped.fetch_add(self.taken, Ordering::Relaxed);
        self.dir.reclaimer.reclaim(DroppedFile {
            file: self.file.take(),
            path: std::mem::take(&mut self.path),
            taken: self.taken,
            dir: self.dir.clone(),
        });
    }
}

/// A spill file that is no longer used. Its drop removes it, and may block.
struct DroppedFile {
    file: Option<File>,
    path: PathBuf,
    taken: u64,
    dir: Arc<SpillDir>,
}

impl Drop for DroppedFile {
    fn drop(&mut self) {
        if !self.dir.removed.load(Ordering::Relaxed) {
            let _removing = self.dir.removing.lock();
            // Its directory is removed in any case when the process ends.
            let _ = std::fs::remove_file(&self.path);
        }
        // The space is free after the last handle is closed.
        self.file = None;
        self.dir.on_disk.fetch_sub(self.taken, Ordering::Relaxed);
        self.dir.dropped.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn the_directories_of_dead_processes_are_removed() {
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
    fn extents_are_readable_and_files_are_removed() {
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
        assert_eq!((mode(&dir.path), mode(&path)), (0o700, 0o600), "other users cannot read spilled data");
        drop(file);
        assert!(dir.reclaimer().wait_until_idle(PATIENCE));
        assert!(!path.exists());
    }

    #[test]
    fn a_drop_does_not_wait_for_the_disk_and_bytes_count_until_they_are_freed() {
        let parent = tempfile::tempdir().unwrap();
        let dir = SpillDir::create(parent.path(), "x", 10).unwrap();
        let mut file = dir.file().unwrap();
        file.append(b"12345678").unwrap();
        let path = file.path.clone();
        let held = dir.hold_removals();
        drop(file);
        assert!(path.exists());
        assert_eq!((dir.used(), dir.is_full(), dir.refusal().is_some()), (8, false, false));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| dir.file().unwrap().append(b"123").map(|extent| extent.len()));
            drop(held);
            assert_eq!(writer.join().unwrap().unwrap(), 3, "the write waits for the removal");
        });
        assert!(dir.reclaimer().wait_until_idle(PATIENCE));
        assert_eq!((dir.used(), dir.dropped.load(Ordering::Relaxed), path.exists()), (0, 0, false));
    }

    #[test]
    fn writes_beyond_the_limit_are_refused_until_space_is_freed() {
        let parent = tempfile::tempdir().unwrap();
        let dir = SpillDir::create(parent.path(), "x", 10).unwrap();
        let mut file = dir.file().unwrap();
        file.append(b"12345678").unwrap();
        assert!(!dir.is_full(), "nothing was refused yet");
        let mut other = dir.file().unwrap();
        let refused = other.append(b"123").unwrap_err();
        assert!(matches!(refused, SpillError::Limit { used: 8, more: 3, limit: 10, .. }), "{refused}");
        assert!(dir.is_full());
        other.append(b"12").unwrap();
        drop(file);
        assert!(!dir.is_full());
        other.append(b"12345678").unwrap();
    }

    #[test]
    fn many_processes_may_start_in_one_directory_at_once() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let start = |name: usize| {
                let parent = parent.path();
                scope.spawn(move || {
                    for round in 0..20 {
                        let dir = SpillDir::create(parent, &format!("{name}-{round}"), 100).unwrap();
                        let file = dir.file();
                        assert!(
                            file.is_ok(),
                            "another process removed the directory of a running one: {file:?}"
                        );
                    }
                })
            };
            let threads: Vec<_> = (0..4).map(start).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}
