//! Files that task outputs go to where memory ends.
//!
//! Each process has a folder of its own under the spill directory, locked while it lives; folders
//! whose lock nobody holds are a dead process's and are removed at start. Files belong to their
//! owner alone and are unlinked when dropped.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

const PREFIX: &str = "tally-spill-";
const LOCK: &str = ".lock";
const REMOVE_TRIES: usize = 3;

/// A spill folder could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}: {source}; choose another --spill-dir or make room there")]
pub struct SpillError {
    path: String,
    what: &'static str,
    source: io::Error,
}

/// This process's folder.
#[derive(Debug)]
pub struct SpillDir {
    path: PathBuf,
    next: AtomicU64,
    written: AtomicU64,
    /// Held as long as the folder is in use.
    _lock: File,
}

impl SpillDir {
    /// Makes this process's folder `name` under `parent`, and removes dead processes' folders.
    ///
    /// # Errors
    /// [`SpillError`], naming the path.
    pub fn create(parent: &Path, name: &str) -> Result<Arc<Self>, SpillError> {
        let error = |path: &Path, what| {
            let path = path.display().to_string();
            move |source| SpillError { path, what, source }
        };
        std::fs::create_dir_all(parent).map_err(error(parent, "the folder cannot be made"))?;
        remove_dead(parent);
        let path = parent.join(format!("{PREFIX}{name}"));
        DirBuilder::new().mode(0o700).create(&path).map_err(error(&path, "the folder cannot be made"))?;
        let lock = File::create(path.join(LOCK)).map_err(error(&path, "its lock cannot be made"))?;
        lock.lock().map_err(error(&path, "its lock cannot be taken"))?;
        Ok(Arc::new(SpillDir { path, next: AtomicU64::new(0), written: AtomicU64::new(0), _lock: lock }))
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
        let file = file.map_err(|source| SpillError {
            path: path.display().to_string(),
            what: "a spill file cannot be made",
            source,
        })?;
        Ok(SpillFile { file, path, end: 0, dir: self.clone() })
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
        move |source| SpillError { path: path.clone(), what, source }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`SpillError`]: the disk is full, or fails.
    pub fn append(&mut self, bytes: &[u8]) -> Result<Extent, SpillError> {
        self.file.write_all_at(bytes, self.end).map_err(self.error("spilling failed"))?;
        let extent = Extent { at: self.end, length: bytes.len() as u64 };
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
        let living = SpillDir::create(parent.path(), "one").unwrap();
        assert!(!dead.exists());
        let other = SpillDir::create(parent.path(), "two").unwrap();
        assert!(living.path.exists());
        drop(other);
        assert!(!parent.path().join("tally-spill-two").exists());
    }

    #[test]
    fn extents_are_read_back_and_files_go() {
        let parent = tempfile::tempdir().unwrap();
        let dir = SpillDir::create(parent.path(), "x").unwrap();
        let mut file = dir.file().unwrap();
        let first = file.append(b"hello").unwrap();
        let second = file.append(b" world").unwrap();
        assert_eq!(file.read(second).unwrap(), b" world");
        assert_eq!(file.read(first).unwrap(), b"hello");
        assert_eq!(dir.written(), 11);
        let path = file.path.clone();
        drop(file);
        assert!(!path.exists());
    }
}
