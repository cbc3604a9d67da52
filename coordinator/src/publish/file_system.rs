//! The file system of outputs: the calls on folders and files, what their errors mean on different file systems, and where
//! work that waits for them runs. The only file of `publish` that calls the operating system.
//!
//! | error | file systems | meaning |
//! |---|---|---|
//! | `ENOTEMPTY` | ext4, btrfs, tmpfs, overlay | the target of a rename is a folder with content |
//! | `EEXIST` | XFS, NFS | the same |
//! | `ENOENT`; `ESTALE` | all; NFS | another process moved or removed the folder |
//! | `EINVAL`, `ENOSYS`, `EOPNOTSUPP`, `EPERM` | NFS, CIFS, 9p, FUSE; old kernels; filters of system calls | there is no exchange |
//! | `EXDEV` | all | source and target are on different mounts, in different quota projects, or in a lower overlay layer |
//! | `EBUSY` | all | the folder is a mount point |
//!
//! Not here: which folder is moved when (`replace`, `folder`).

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::fs::{AtFlags, CWD, RenameFlags, StatxAttributes, StatxFlags, renameat_with, statx};
use tally_common::retry::RetryPolicy;
use tokio::task::{JoinError, spawn_blocking};

/// What a file system tells of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// It is a folder.
    pub is_folder: bool,
    /// Bytes of a file.
    pub bytes: u64,
    /// The number of its device on this machine.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// The time since its last change, by this machine's clock; unknown if that lies in the future.
    pub age: Option<Duration>,
}

/// An open lock file. Dropping it releases the lock.
pub trait LockFile: Debug + Send + Sync {
    /// Waits for the lock.
    ///
    /// # Errors
    /// The file system has no locks.
    fn lock(&self) -> io::Result<()>;

    /// Takes the lock; false if another process, or another open file of this one, holds it.
    ///
    /// # Errors
    /// The file system has no locks.
    fn try_lock(&self) -> io::Result<bool>;

    /// Whether the path still leads to this file.
    fn is_at(&self, path: &Path) -> bool;
}

/// The calls on files and folders. All of them block, except `spawn`. Every method is the call of this machine's file
/// system, unless an implementation replaces it by that of another one.
pub trait FileSystem: Debug + Send + Sync {
    /// Runs work that waits for this file system, on a thread that may block.
    fn spawn(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<(), JoinError>> {
        spawn_blocking(work).boxed()
    }

    /// Waits.
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Creates a folder.
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir(folder)
    }

    /// Creates a folder and all missing folders above it.
    fn create_folders(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)
    }

    /// Creates a file, or replaces its content.
    fn write(&self, file: &Path, content: &[u8]) -> io::Result<()> {
        fs::write(file, content)
    }

    /// The content of a file.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        fs::read(file)
    }

    /// Makes the content of a file, or the names in a folder, durable.
    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Renames a file or folder. The target of a folder does not exist or is an empty folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Exchanges two folders in one step.
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
    }

    /// Removes a file.
    fn remove_file(&self, file: &Path) -> io::Result<()> {
        fs::remove_file(file)
    }

    /// Removes an empty folder.
    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir(folder)
    }

    /// Removes a folder with everything in it.
    fn remove_all(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir_all(folder)
    }

    /// The paths in a folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.refresh(folder);
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    /// Whether a path exists, and is no broken link.
    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    /// The state of a file or folder, or of a symbolic link itself.
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        fs::symlink_metadata(path).map(stat)
    }

    /// The state of the file or folder to which a path leads.
    fn stat_target(&self, path: &Path) -> io::Result<Stat> {
        fs::metadata(path).map(stat)
    }

    /// Whether a path is the root of a mount. Mounts of a part of the same file system have the device number of their
    /// parent.
    fn is_mount(&self, path: &Path) -> bool {
        statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()).is_ok_and(|found| {
            (found.stx_attributes & found.stx_attributes_mask).contains(StatxAttributes::MOUNT_ROOT)
        })
    }

    /// Asks the server of a network file system for the state of a folder, which it may have cached before another machine
    /// changed it.
    fn refresh(&self, folder: &Path) {
        // Without an answer, the next call on the folder fails or uses the cache.
        let _ = statx(CWD, folder, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS);
    }

    /// Opens a file to lock it; with `create`, creates it or empties it.
    fn open_lock(&self, file: &Path, create: bool) -> io::Result<Box<dyn LockFile>> {
        // NFS gives exclusive locks only on files that are open for writing.
        let opened = match create {
            true => File::create(file)?,
            false => OpenOptions::new().read(true).write(true).open(file)?,
        };
        Ok(Box::new(opened))
    }

    /// The wait for other publishers where there is no exchange. A publisher that hangs is not waited for any longer.
    fn turn_retry(&self) -> RetryPolicy {
        TURN_RETRY
    }
}

const TURN_RETRY: RetryPolicy = RetryPolicy::fixed(Duration::from_millis(20)).with_max_retries(500);

/// The file system of this machine.
#[derive(Debug)]
pub struct System;

impl FileSystem for System {}

/// The file system of this machine.
pub fn system() -> Arc<dyn FileSystem> {
    Arc::new(System)
}

impl LockFile for File {
    fn lock(&self) -> io::Result<()> {
        File::lock(self)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match File::try_lock(self) {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn is_at(&self, path: &Path) -> bool {
        let inodes = || Some((fs::metadata(path).ok()?.ino(), self.metadata().ok()?.ino()));
        inodes().is_some_and(|(found, own)| found == own)
    }
}

fn stat(found: fs::Metadata) -> Stat {
    Stat {
        is_folder: found.is_dir(),
        bytes: found.len(),
        device: found.dev(),
        inode: found.ino(),
        age: found.modified().ok().and_then(|at| at.elapsed().ok()),
    }
}

/// Makes the names in a folder, and those of all folders above it, durable. Another process may have created some of them a
/// moment ago, and may die before it syncs them. A folder that this process cannot sync is not one that it created.
///
/// # Errors
/// The disk fails, or a folder does not exist.
pub fn sync_upwards(files: &dyn FileSystem, folder: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    for folder in folder.ancestors() {
        match files.sync(folder) {
            Err(e)
                if matches!(e.kind(), PermissionDenied | ReadOnlyFilesystem | Unsupported | InvalidInput) => {
            }
            done => done?,
        }
    }
    Ok(())
}

/// Whether a rename failed because its target is a folder with content.
pub(super) fn is_occupied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

/// Whether a call failed because a path does not exist, perhaps only since a moment ago.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle)
}

/// Whether `folder`'s file system exchanges folders. Any other answer than success means that it does not.
///
/// # Errors
/// The folders for the test cannot be created or removed.
pub(super) fn can_exchange(files: &dyn FileSystem, folder: &Path) -> io::Result<bool> {
    let pair = [folder.join("exchange.a"), folder.join("exchange.b")];
    for path in &pair {
        match files.create_folder(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let done = files.exchange(&pair[0], &pair[1]);
    pair.iter().try_for_each(|path| files.remove_folder(path))?;
    if let Err(error) = &done {
        tracing::info!(folder = %folder.display(), %error, "no exchange of folders here: days are replaced by two renames");
    }
    Ok(done.is_ok())
}
