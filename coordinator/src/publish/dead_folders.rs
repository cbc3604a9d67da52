//! Staging folders of earlier leaders and of dead jobs: which are taken over, which are completed, which are removed.
//!
//! Not here: the operations on one folder (`folder`), how a day is replaced (`replace`).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tally_proto::JobId;

use super::PublishError;
use super::file_system::{FileSystem, LockFile, is_gone, is_occupied};
use super::folder::{DAY, Hold, LOCK, aside, clear, failed, folders_before, named_before, try_hold};
use super::replace::{TURN, complete, remove_turn, set_aside};

/// An unfinished staging folder of this age belongs to a dead job.
const MAKING_TIME: Duration = Duration::from_secs(3600);
/// A staged day of a dead coordinator is left to its next leader for this time: it may be decided.
const TAKEOVER_TIME: Duration = Duration::from_secs(3600);

/// Removes a job's staging folders of earlier epochs, locked or not.
pub(super) fn sweep(files: &dyn FileSystem, siblings: &Path, job: &JobId, epoch: u64) {
    let hidden = named_before(files, siblings, &aside(job.as_str()), epoch);
    for folder in folders_before(files, siblings, job, epoch).into_iter().chain(hidden) {
        remove(files, &folder, siblings, &[], None);
    }
    // The folder is empty if a leader died at the end of its own removal. Otherwise this fails.
    let _ = files.remove_folder(siblings);
}

/// Takes over a staging folder under a new name, and returns its lock. A locked folder gets a new lock file: its holder led
/// in an earlier epoch, and may never release the lock. The holder no longer finds the folder under the old name.
pub(super) fn take(
    files: &dyn FileSystem,
    folder: &Path,
    siblings: &Path,
    name: &str,
    epoch: u64,
) -> io::Result<Box<dyn LockFile>> {
    let lock = match try_hold(files, folder) {
        Hold::Mine(lock) => lock,
        Hold::Others => {
            let fresh = folder.join(format!("{LOCK}.{epoch}"));
            let lock = files.open_lock(&fresh, true)?;
            lock.lock()?;
            files.rename(&fresh, &folder.join(LOCK))?;
            lock
        }
        // Only published or abandoned folders are removed.
        Hold::Remains => {
            remove(files, folder, siblings, &[], None);
            return Err(io::ErrorKind::NotFound.into());
        }
    };
    files.rename(folder, &siblings.join(name))?;
    Ok(lock)
}

/// Removes a staging folder, as far as possible. The next job removes what is left. A publish that is half done is completed
/// first; if that fails, the folder stays.
pub(super) fn remove(
    files: &dyn FileSystem,
    folder: &Path,
    siblings: &Path,
    created: &[PathBuf],
    lock: Option<Box<dyn LockFile>>,
) {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    // Renamed first, so that no leader takes over an incomplete folder.
    let folder = match set_aside(files, folder, siblings) {
        Ok(hidden) => hidden,
        // Another process took it over, or removes it, too.
        Err(e) if is_gone(&e) => siblings.join(aside(&name)),
        Err(_) => folder.to_path_buf(),
    };
    if let Err(error) = complete(files, &folder) {
        tracing::error!(folder = %folder.display(), %error, "the staging folder has the only copy of a day: the next job publishes it");
        return;
    }
    let quiet = |result: io::Result<()>, path: &Path| match result {
        Err(e) if !is_gone(&e) && !is_occupied(&e) => {
            tracing::warn!(path = %path.display(), error = %e, "a staging folder cannot be removed");
        }
        _ => {}
    };
    quiet(clear(files, &folder, lock), &folder);
    // Only empty folders are removed: another job may use them.
    quiet(files.remove_folder(siblings), siblings);
    for folder in created.iter().rev() {
        quiet(files.remove_folder(folder), folder);
    }
}

/// Finishes the publishes of dead jobs, and removes their staging folders.
pub(super) fn clean_dead(files: &dyn FileSystem, siblings: &Path) -> Result<(), PublishError> {
    remove_turn(files, siblings);
    let folders = files.list(siblings).map_err(failed(siblings, "the staging folder cannot be read"))?;
    for folder in folders.into_iter().filter(|folder| !folder.ends_with(TURN)) {
        let name = folder.file_name().unwrap_or_default();
        let aside = name.as_encoded_bytes().starts_with(b".");
        let age = files.stat(&folder).ok().and_then(|stat| stat.age);
        if aside {
            // A folder without a lock file is being created, perhaps by a live job.
            let dead = matches!(try_hold(files, &folder), Hold::Mine(_));
            if dead || age.is_some_and(|age| age > MAKING_TIME) {
                remove(files, &folder, siblings, &[], None);
            }
            continue;
        }
        // Locked until it is removed.
        let held = match try_hold(files, &folder) {
            Hold::Mine(lock) => Some(lock),
            Hold::Remains => None,
            Hold::Others => continue,
        };
        if let Err(error) = complete(files, &folder) {
            tracing::error!(folder = %folder.display(), %error, "a publish that is half done cannot be completed");
            continue;
        }
        if held.is_some() && may_be_decided(files, &folder) && age.is_none_or(|age| age < TAKEOVER_TIME) {
            continue;
        }
        tracing::info!(folder = %folder.display(), "removing the staging folder of a dead job");
        // This job's own folder keeps the parent from being removed.
        remove(files, &folder, siblings, &[], held);
    }
    Ok(())
}

/// Whether the next leader of a dead coordinator may want this staging folder: a day is staged in it, under an epoch. Jobs
/// without a journal have epoch 0.
fn may_be_decided(files: &dyn FileSystem, folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let epoch = name.rsplit_once('.').and_then(|(_, epoch)| epoch.parse::<u64>().ok());
    epoch.is_some_and(|epoch| epoch > 0) && files.exists(&folder.join(DAY))
}

#[cfg(test)]
mod tests {
    use super::super::file_system::System;
    use super::super::folder::{PARTS, make};
    use super::*;

    /// At each step of the creation of a lock, another job removes the folders of dead jobs.
    #[derive(Debug)]
    struct Crowded(PathBuf);

    impl FileSystem for Crowded {
        fn open_lock(&self, file: &Path, create: bool) -> io::Result<Box<dyn LockFile>> {
            let lock = System.open_lock(file, create)?;
            clean_dead(&System, &self.0).unwrap();
            Ok(lock)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            clean_dead(&System, &self.0).unwrap();
            System.rename(from, to)?;
            clean_dead(&System, &self.0).unwrap();
            Ok(())
        }
    }

    #[test]
    fn a_folder_that_is_being_created_is_not_taken_as_that_of_a_dead_job() {
        let root = tempfile::tempdir().unwrap();
        let siblings = root.path().join(".out.tally-staging");
        let lock = make(&Crowded(siblings.clone()), &siblings, "job.0", &[]).unwrap();
        let folder = siblings.join("job.0");
        assert!(folder.join(PARTS).is_dir() && lock.is_at(&folder.join(LOCK)));
        assert!(matches!(try_hold(&System, &folder), Hold::Others));
    }
}
