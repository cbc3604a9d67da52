//! Operations on staging folders: create, lock, clear.
//!
//! Not here: whose folders are taken over or removed (`dead_folders`), the order of the operations (`folder_staging`), and how a
//! day is replaced (`replace`).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tally_common::disk::is_full;
use tally_common::retry::RetryPolicy;
use tally_proto::JobId;

use super::PublishError;
use super::file_system::{FileSystem, LockFile, Stat, is_gone, is_occupied};

pub(super) const LOCK: &str = "lock";
/// The folder that tasks write to.
pub(super) const PARTS: &str = "parts";
/// The folder that is exchanged with the output's day.
pub(super) const DAY: &str = "day";
/// A staged day that is being removed.
const REMOVED: &str = "removed";
/// The file with the names of the folders that were created above the output.
pub(super) const MADE: &str = "made";

/// The error of an operation on a path.
pub(super) fn failed<'a>(path: &'a Path, what: &'static str) -> impl FnOnce(io::Error) -> PublishError + 'a {
    move |source| {
        let path = path.display().to_string();
        if is_full(&source) {
            PublishError::Full { path, what, source }
        } else {
            PublishError::Io { path, what, source }
        }
    }
}

/// The retries of an operation on a full disk.
const FULL_DISK_RETRY: RetryPolicy = RetryPolicy::fixed(Duration::from_secs(5)).with_max_retries(6);

/// Tries an operation again while the disk is full. A failed operation must leave nothing behind. Blocks.
pub(super) fn retry_while_full<T>(
    files: &dyn FileSystem,
    mut work: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    for delay in FULL_DISK_RETRY.start() {
        match work() {
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "the disk of the output is full: trying again");
                files.pause(delay);
            }
            done => return done,
        }
    }
    work()
}

/// Checks that a path of the output, if it exists, is a folder on the file system of its parent. Only such a folder can be
/// exchanged.
pub(super) fn check_folder(files: &dyn FileSystem, folder: &Path, parent: &Path) -> Result<(), PublishError> {
    let Ok(found) = files.stat(folder) else { return Ok(()) };
    if !found.is_folder {
        let source = io::Error::from(io::ErrorKind::NotADirectory);
        return Err(failed(folder, "something other than a folder has the output's name")(source));
    }
    let is_elsewhere = |parent: Stat| parent.device != found.device;
    if files.is_mount(folder) || files.stat_target(parent).is_ok_and(is_elsewhere) {
        let source = io::Error::from(io::ErrorKind::CrossesDevices);
        return Err(failed(folder, "another file system begins here: give a folder below it as the output")(
            source,
        ));
    }
    Ok(())
}

/// The folder that contains all staging folders of an output.
pub(super) fn siblings_of(output: &Path) -> Option<PathBuf> {
    let name = output.file_name()?.to_string_lossy().into_owned();
    Some(output.parent()?.join(format!(".{name}.tally-staging")))
}

/// A job's staging folders of earlier epochs, latest first.
pub(super) fn folders_before(
    files: &dyn FileSystem,
    siblings: &Path,
    job: &JobId,
    epoch: u64,
) -> Vec<PathBuf> {
    named_before(files, siblings, job.as_str(), epoch)
}

/// The staging folders of earlier epochs whose name begins so, latest first.
pub(super) fn named_before(files: &dyn FileSystem, siblings: &Path, name: &str, epoch: u64) -> Vec<PathBuf> {
    let earlier = |path: PathBuf| {
        let found = path.file_name()?.to_str()?;
        let of: u64 = found.strip_prefix(name)?.strip_prefix('.')?.parse().ok()?;
        (of < epoch).then_some((std::cmp::Reverse(of), path))
    };
    let paths = files.list(siblings).unwrap_or_default();
    let mut found: Vec<_> = paths.into_iter().filter_map(earlier).collect();
    found.sort();
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// The owner of a staging folder.
pub(super) enum Hold {
    /// This process, from now on.
    Mine(Box<dyn LockFile>),
    /// Another process.
    Others,
    /// None: a process died while it removed the folder. The lock is removed last, and is missing.
    Remains,
}

pub(super) fn try_hold(files: &dyn FileSystem, folder: &Path) -> Hold {
    match files.open_lock(&folder.join(LOCK), false) {
        Ok(lock) if lock.try_lock().is_ok_and(|held| held) => Hold::Mine(lock),
        Ok(_) => Hold::Others,
        Err(e) if is_gone(&e) => Hold::Remains,
        Err(_) => Hold::Others,
    }
}

/// Removes a staging folder, its lock file last. After an incomplete removal, the next job can take the folder over. The lock
/// is released first: on NFS, a removed file that is open stays in its folder.
pub(super) fn clear(
    files: &dyn FileSystem,
    folder: &Path,
    lock: Option<Box<dyn LockFile>>,
) -> io::Result<()> {
    // No process publishes a day of which a part is removed.
    match files.rename(&folder.join(DAY), &folder.join(REMOVED)) {
        Err(e) if !is_gone(&e) && !is_occupied(&e) => return Err(e),
        _ => {}
    }
    for path in files.list(folder)? {
        if path.ends_with(LOCK) {
            continue;
        }
        let removed = match files.stat(&path) {
            Ok(stat) if stat.is_folder => files.remove_all(&path),
            Ok(_) => files.remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            // Another process removes it, too.
            Err(e) if !is_gone(&e) => return Err(e),
            _ => {}
        }
    }
    drop(lock);
    files.remove_all(folder)
}

/// Creates an empty folder.
pub(super) fn remake(files: &dyn FileSystem, folder: &Path) -> io::Result<()> {
    match files.remove_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    files.create_folder(folder)
}

/// The name of a staging folder that is being created or removed. No leader takes it over.
pub(super) fn aside(name: &str) -> String {
    format!(".{name}")
}

/// Creates a job's staging folder. It is locked before it gets its name, and its lock file is locked before that has its
/// name: another job takes a lock file without a lock as that of a dead job.
pub(super) fn make(
    files: &dyn FileSystem,
    siblings: &Path,
    name: &str,
    created: &[PathBuf],
) -> io::Result<Box<dyn LockFile>> {
    let folder = siblings.join(aside(name));
    files.create_folders(&folder.join(PARTS))?;
    let created: Vec<&[u8]> = created.iter().map(|folder| folder.as_os_str().as_encoded_bytes()).collect();
    files.write(&folder.join(MADE), &created.join(&0))?;
    let fresh = folder.join(format!("{LOCK}.new"));
    let lock = files.open_lock(&fresh, true)?;
    lock.lock()?;
    files.rename(&fresh, &folder.join(LOCK))?;
    files.rename(&folder, &siblings.join(name))?;
    Ok(lock)
}

/// The folders that `make` recorded.
pub(super) fn folders_from(made: &[u8]) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let paths = made.split(|&byte| byte == 0).filter(|path| !path.is_empty());
    paths.map(|path| PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()))).collect()
}

/// The missing folders from `path` upwards, outermost first.
pub(super) fn missing_above(files: &dyn FileSystem, path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> =
        path.ancestors().take_while(|folder| !files.exists(folder)).map(Path::to_path_buf).collect();
    missing.reverse();
    missing
}

pub(super) fn sync(files: &dyn FileSystem, folder: &Path) -> Result<(), PublishError> {
    files.sync(folder).map_err(failed(folder, "the folder cannot be synced"))
}
