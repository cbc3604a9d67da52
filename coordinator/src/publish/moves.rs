//! The system calls that move folders, what their errors mean on different file systems, and what is asked before any work.
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
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, RenameFlags, StatxAttributes, StatxFlags, renameat_with, statx};
use tally_common::retry::RetryPolicy;

/// The system calls on folders. Tests have others, with the errors of other file systems.
pub(super) trait Moves: Debug + Send + Sync {
    /// Renames a folder. The target does not exist or is an empty folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Exchanges two folders in one step.
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()>;

    /// The paths in a folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// The wait for other publishers where there is no exchange. A publisher that hangs is not waited for any longer.
    fn turn_retry(&self) -> RetryPolicy {
        TURN_RETRY
    }
}

const TURN_RETRY: RetryPolicy = RetryPolicy::fixed(Duration::from_millis(20)).with_max_retries(500);

/// The system calls of this machine.
#[derive(Debug)]
pub(super) struct System;

impl Moves for System {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        refresh(folder);
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }
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
pub(super) fn can_exchange(moves: &dyn Moves, folder: &Path) -> io::Result<bool> {
    let pair = [folder.join("exchange.a"), folder.join("exchange.b")];
    for path in &pair {
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let done = moves.exchange(&pair[0], &pair[1]);
    pair.iter().try_for_each(fs::remove_dir)?;
    if let Err(error) = &done {
        tracing::info!(folder = %folder.display(), %error, "no exchange of folders here: days are replaced by two renames");
    }
    Ok(done.is_ok())
}

/// Whether a path is the root of a mount. Mounts of a part of the same file system have the device number of their parent.
pub(super) fn is_mount(path: &Path) -> bool {
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()).is_ok_and(|found| {
        (found.stx_attributes & found.stx_attributes_mask).contains(StatxAttributes::MOUNT_ROOT)
    })
}

/// Asks the server of a network file system for the state of a folder, which it may have cached before another machine
/// changed it.
pub(super) fn refresh(folder: &Path) {
    // Without an answer, the next call on the folder fails or uses the cache.
    let _ = statx(CWD, folder, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS);
}
