//! The folders of a staging: made, locked, taken over, exchanged, removed.
//!
//! Not here: which of that happens when (`publish`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tally_proto::JobId;

use super::PublishError;

pub(super) const LOCK: &str = "lock";
/// Where tasks write.
pub(super) const PARTS: &str = "parts";
/// What is exchanged.
pub(super) const DAY: &str = "day";
/// Names of the folders that were made above the output.
pub(super) const MADE: &str = "made";
pub(super) const OLD: &str = "old";
pub(super) const INTENT: &str = "intent";
/// After so long a folder in the making is a dead job's.
pub(super) const MAKING_TIME: Duration = Duration::from_secs(3600);

/// An error at a path, of something that was tried.
pub(super) fn failed<'a>(path: &'a Path, what: &'static str) -> impl FnOnce(io::Error) -> PublishError + 'a {
    move |source| PublishError::Io { path: path.display().to_string(), what, source }
}

/// Checks that a folder of the output, if it is there, is one, and lies on its parent's file system:
/// only there can it be exchanged.
pub(super) fn check_place(folder: &Path, parent: &Path) -> Result<(), PublishError> {
    let Ok(found) = fs::symlink_metadata(folder) else { return Ok(()) };
    if !found.is_dir() {
        let source = io::Error::from(io::ErrorKind::NotADirectory);
        return Err(failed(folder, "something else is where the output goes")(source));
    }
    if fs::metadata(parent).is_ok_and(|parent| parent.dev() != found.dev()) {
        let source = io::Error::from(io::ErrorKind::CrossesDevices);
        return Err(failed(folder, "another file system begins here: give a folder below it as the output")(
            source,
        ));
    }
    Ok(())
}

/// The folder of all staging folders of an output.
pub(super) fn siblings_of(output: &Path) -> Option<PathBuf> {
    let name = output.file_name()?.to_string_lossy().into_owned();
    Some(output.parent()?.join(format!(".{name}.tally-staging")))
}

/// A job's staging folders of epochs before this one, the latest first.
pub(super) fn folders_before(siblings: &Path, job: &JobId, epoch: u64) -> Vec<PathBuf> {
    named_before(siblings, job.as_str(), epoch)
}

/// Removes what earlier epochs of a job left, locked or not: they have nothing to do there any more.
pub(super) fn sweep(siblings: &Path, job: &JobId, epoch: u64) {
    let hidden = named_before(siblings, &aside(job.as_str()), epoch);
    for folder in folders_before(siblings, job, epoch).into_iter().chain(hidden) {
        remove(&folder, siblings, &[]);
    }
}

fn named_before(siblings: &Path, name: &str, epoch: u64) -> Vec<PathBuf> {
    let earlier = |entry: fs::DirEntry| {
        let found = entry.file_name();
        let of: u64 = found.to_str()?.strip_prefix(name)?.strip_prefix('.')?.parse().ok()?;
        (of < epoch).then(|| (std::cmp::Reverse(of), entry.path()))
    };
    let entries = fs::read_dir(siblings).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.filter_map(earlier).collect();
    found.sort();
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// Whose a staging folder is.
pub(super) enum Hold {
    /// This process's, from now on.
    Mine(File),
    /// Somebody else has it in hand.
    Others,
    /// Nobody's: its lock went, as it does last, by somebody who died while he removed it.
    Remains,
}

pub(super) fn try_hold(folder: &Path) -> Hold {
    match File::open(folder.join(LOCK)) {
        Ok(lock) => lock.try_lock().map_or(Hold::Others, |()| Hold::Mine(lock)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Hold::Remains,
        Err(_) => Hold::Others,
    }
}

/// Takes a staging folder over under another name, and gives its lock. One that is held gets another
/// lock: its holder led in an earlier epoch, and may never let go. By the old name he finds nothing.
pub(super) fn take(folder: &Path, siblings: &Path, name: &str, epoch: u64) -> io::Result<File> {
    let lock = match try_hold(folder) {
        Hold::Mine(lock) => lock,
        Hold::Others => {
            let fresh = folder.join(format!("{LOCK}.{epoch}"));
            let lock = File::create(&fresh)?;
            lock.lock()?;
            fs::rename(&fresh, folder.join(LOCK))?;
            lock
        }
        // Only what was exchanged, or given up, is removed.
        Hold::Remains => {
            remove(folder, siblings, &[]);
            return Err(io::ErrorKind::NotFound.into());
        }
    };
    fs::rename(folder, siblings.join(name))?;
    Ok(lock)
}

/// Removes a staging folder, its lock last: a removal that breaks off leaves a folder that the next
/// can take over.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        let path = entry.path();
        let removed = match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        };
        match removed {
            // Somebody else removes it, too.
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    fs::remove_dir_all(folder)
}

/// Makes a folder that is empty.
pub(super) fn remake(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::create_dir(folder)
}

/// The name of a staging folder that is being made or removed: nobody takes that over.
pub(super) fn aside(name: &str) -> String {
    format!(".{name}")
}

/// Makes a job's staging folder, locked from the moment that it is seen under its name.
pub(super) fn make(siblings: &Path, name: &str, created: &[PathBuf]) -> io::Result<File> {
    let folder = siblings.join(aside(name));
    fs::create_dir_all(folder.join(PARTS))?;
    let created: Vec<&[u8]> = created.iter().map(|folder| folder.as_os_str().as_encoded_bytes()).collect();
    fs::write(folder.join(MADE), created.join(&0))?;
    let lock = File::create(folder.join(LOCK))?;
    lock.lock()?;
    fs::rename(&folder, siblings.join(name))?;
    Ok(lock)
}

/// What `make` wrote down of the folders above.
pub(super) fn folders_from(made: &[u8]) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let paths = made.split(|&byte| byte == 0).filter(|path| !path.is_empty());
    paths.map(|path| PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()))).collect()
}

/// Folders from `path` upwards that do not exist, outermost first.
pub(super) fn missing_above(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> =
        path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_path_buf).collect();
    missing.reverse();
    missing
}

/// Best effort: what stays is a dead job's, and the next job removes it.
pub(super) fn remove(folder: &Path, siblings: &Path, created: &[PathBuf]) {
    // Under another name first, so that nobody takes over what is half removed.
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let hidden = if name.starts_with('.') { folder.to_path_buf() } else { siblings.join(aside(&name)) };
    let folder = match fs::rename(folder, &hidden) {
        Ok(()) => &hidden,
        // Somebody took it over, or removes it, too.
        Err(e) if e.kind() == io::ErrorKind::NotFound => &hidden,
        Err(_) => folder,
    };
    let quiet = |result: io::Result<()>, path: &Path| match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound && e.kind() != io::ErrorKind::DirectoryNotEmpty => {
            tracing::warn!(path = %path.display(), error = %e, "cannot be removed");
        }
        _ => {}
    };
    quiet(clear(folder), folder);
    // Only empty folders go: another job may have its own there.
    quiet(fs::remove_dir(siblings), siblings);
    for folder in created.iter().rev() {
        quiet(fs::remove_dir(folder), folder);
    }
}

pub(super) fn sync(folder: &Path) -> Result<(), PublishError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(failed(folder, "the folder cannot be synced"))
}

pub(super) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

/// Puts `folder`'s staged day at `target`; what was there goes into `folder`.
pub(super) fn swap(
    folder: &Path,
    target: &Path,
    exchange: fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let day = folder.join(DAY);
    if !target.exists() {
        match fs::rename(&day, target) {
            // Another job's day came in between.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            done => return done,
        }
    }
    match exchange(&day, target) {
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {}
        done => return done,
    }
    // From the intent on the new day is the decided one, whoever carries it out.
    let intent = folder.join(INTENT);
    fs::write(&intent, target.as_os_str().as_encoded_bytes())?;
    File::open(&intent)?.sync_all()?;
    File::open(folder)?.sync_all()?;
    finish(folder, target)
}

pub(super) fn finish(folder: &Path, target: &Path) -> io::Result<()> {
    let (day, old) = (folder.join(DAY), folder.join(OLD));
    if !day.exists() {
        return Ok(());
    }
    if !old.exists() && target.exists() {
        fs::rename(target, &old)?;
    }
    match fs::rename(&day, target) {
        Err(e) if old.exists() && !target.exists() => {
            // Nobody is to be left without a day.
            fs::rename(&old, target)?;
            fs::remove_file(folder.join(INTENT))?;
            Err(e)
        }
        done => done,
    }
}

/// Finishes or removes what dead jobs left.
pub(super) fn clean_dead(siblings: &Path) -> Result<(), PublishError> {
    let entries = fs::read_dir(siblings).map_err(failed(siblings, "the staging folder cannot be read"))?;
    for entry in entries.flatten() {
        let folder = entry.path();
        let aside = entry.file_name().as_encoded_bytes().starts_with(b".");
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
        if aside {
            // Without a lock it is being made, by somebody who may live.
            let dead = matches!(try_hold(&folder), Hold::Mine(_));
            if dead || age.is_some_and(|age| age > MAKING_TIME) {
                remove(&folder, siblings, &[]);
            }
            continue;
        }
        // Held until it is removed.
        let _held = match try_hold(&folder) {
            Hold::Mine(lock) => Some(lock),
            Hold::Remains => None,
            Hold::Others => continue,
        };
        if let Ok(target) = fs::read(folder.join(INTENT)) {
            use std::os::unix::ffi::OsStringExt;
            let target = PathBuf::from(std::ffi::OsString::from_vec(target));
            finish(&folder, &target)
                .map_err(failed(&target, "a publish that broke off cannot be finished"))?;
        }
        tracing::info!(folder = %folder.display(), "removing what a dead job staged");
        // This job's own folder keeps the parent from going.
        remove(&folder, siblings, &[]);
    }
    Ok(())
}
