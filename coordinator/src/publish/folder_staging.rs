//! A job's staging folder: prepared, taken over, committed, published, removed.
//!
//! A staging folder is locked while its job is live. An unlocked one belongs to a dead job, and the next job removes it. Its
//! name ends with the epoch of the leader that owns it. A later leader takes it over by renaming it, locked or not: the
//! earlier leader may hang and hold its lock forever, but everything that it does later uses the old name, and fails. So only
//! one of two leaders has a day to publish.
//!
//! Each attempt writes its file under its own name. Only the winners' files are moved to the staged day, so a late loser never
//! changes it.
//!
//! Not here: the steps that replace a day (`replace`), operations on staging folders (`folder`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tally_common::stores::urls;
use tally_proto::JobId;

use super::PublishError;
use super::day_id::day_id;
use super::dead_folders::{clean_dead, remove, sweep, take};
use super::file_system::{FileSystem, LockFile, is_gone, sync_upwards};
use super::folder::{
    DAY, MADE, PARTS, aside, check_folder, failed, folders_before, folders_from, make, missing_above, remake,
    retry_while_full, siblings_of, sync,
};
use super::replace::Replacement;
use crate::ready_marker::ReadyMarker;

/// Tries to create a staging folder while other jobs remove its parent.
const RACES: usize = 20;

/// A part file of the staged day: the attempt that wrote it, and its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedPart {
    /// Its number, which no other part file of the day has.
    pub index: u32,
    /// The attempt whose file counts.
    pub attempt: u32,
    /// The folder within the day, for a dataset with folders.
    pub folder: Option<String>,
}

/// The identity of a day whose publish is decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// The staged folder's device. Version 0.1.0 compares it after a downgrade.
    pub device: u64,
    /// The staged folder's inode. Version 0.1.0 compares it after a downgrade.
    pub inode: u64,
    /// Paths of the part files in it. Their names contain the job's id, so no other day has them.
    pub parts: Vec<String>,
    /// The identity of the day that it replaces, by [`day_id`]; empty if there is none. Unknown for a decision of version
    /// 0.1.0.
    pub replaces: Option<String>,
}

/// The result of carrying out the decision of an earlier leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// The day is published.
    Done,
    /// The day is neither staged nor published.
    Gone,
}

/// Where a day is staged and published.
#[derive(Debug, Clone)]
pub(super) struct Location {
    /// The sibling of the output that holds all jobs' staging folders.
    pub(super) siblings: PathBuf,
    pub(super) output: PathBuf,
    /// The day's folder in the output.
    pub(super) target: PathBuf,
    pub(super) files: Arc<dyn FileSystem>,
}

/// A job's staging folder. It is removed on drop, published or not.
#[derive(Debug)]
pub struct FolderStaging {
    job: JobId,
    epoch: u64,
    pub(super) location: Location,
    /// This job's folder.
    pub(super) folder: PathBuf,
    /// Created folders above the output, outermost first.
    created: Vec<PathBuf>,
    /// The folder stays on drop: another leader continues the job.
    left: bool,
    lock: Option<Box<dyn LockFile>>,
}

impl Commit {
    /// Whether a folder is the decided day.
    fn is(&self, files: &dyn FileSystem, folder: &Path) -> bool {
        files.refresh(folder);
        let paths: Vec<PathBuf> = self.parts.iter().map(|part| folder.join(part)).collect();
        let inner: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
        inner.into_iter().filter(|inner| *inner != folder).for_each(|inner| files.refresh(inner));
        !paths.is_empty() && paths.iter().all(|path| files.exists(path))
    }

    /// Whether the output has another day than the decision was made for: a later publish replaced it.
    fn is_replaced(&self, files: &dyn FileSystem, target: &Path) -> Result<bool, PublishError> {
        let Some(replaces) = &self.replaces else { return Ok(false) };
        let found = day_id(files, target).map_err(failed(target, "the output's day cannot be read"))?;
        Ok(!found.is_empty() && found != *replaces && !self.is(files, target))
    }
}

impl Location {
    /// Where the day `day_folder` of an output is staged and published.
    ///
    /// # Errors
    /// [`PublishError`]: the output is not the path of a folder.
    pub(super) fn with(
        output: &str,
        day_folder: &str,
        files: Arc<dyn FileSystem>,
    ) -> Result<Self, PublishError> {
        let output = urls::local_path(output)?;
        let Some(siblings) = siblings_of(&output) else {
            let source = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(failed(&output, "the output cannot be the root of a file system")(source));
        };
        let target = output.join(day_folder);
        Ok(Location { siblings, output, target, files })
    }
}

/// The name of a job's staging folder in an epoch.
fn name_of(job: &JobId, epoch: u64) -> String {
    format!("{job}.{epoch}")
}

impl FolderStaging {
    /// Creates the staging folder of a job in an epoch, and removes those of dead jobs.
    ///
    /// # Errors
    /// [`PublishError`]: the output is not writable. No folder is left.
    pub(super) fn prepare(location: Location, job: &JobId, epoch: u64) -> Result<Self, PublishError> {
        let Location { siblings, output, target, files } = &location;
        let parent = output.parent().unwrap_or(output);
        check_folder(&**files, output, parent)?;
        check_folder(&**files, target, output)?;
        let created = missing_above(&**files, parent);
        let name = name_of(job, epoch);
        let folder = siblings.join(&name);
        let mut made = retry_while_full(&**files, || make(&**files, siblings, &name, &created));
        // A job that ends at the same time may remove the parent folder.
        for _ in 0..RACES {
            if !matches!(&made, Err(e) if is_gone(e)) {
                break;
            }
            made = make(&**files, siblings, &name, &created);
        }
        let lock = match made {
            Ok(lock) => lock,
            Err(source) => {
                remove(&**files, &siblings.join(aside(&name)), siblings, &created, None);
                return Err(failed(&folder, "the staging folder cannot be created")(source));
            }
        };
        let staging = Self::held(location, job, epoch, created, lock);
        clean_dead(&*staging.location.files, &staging.location.siblings)?;
        Ok(staging)
    }

    /// Takes over the staging folder of an earlier leader, if there is one, and empties it: write tasks are cheap, and run
    /// again.
    pub(super) fn adopt(location: &Location, job: &JobId, epoch: u64) -> Option<Self> {
        let files = &*location.files;
        for folder in folders_before(files, &location.siblings, job, epoch) {
            let Some(adopted) = Self::take(&folder, location, job, epoch) else { continue };
            let parts = remake(files, &adopted.folder.join(PARTS));
            let emptied = parts.and_then(|()| match files.remove_all(&adopted.folder.join(DAY)) {
                Err(e) if !is_gone(&e) => Err(e),
                _ => Ok(()),
            });
            match emptied {
                Ok(()) => return Some(adopted),
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "a staging folder cannot be taken over");
                }
            }
        }
        None
    }

    /// Takes over a folder of an earlier epoch, locked or not; `None` if that fails.
    fn take(folder: &Path, location: &Location, job: &JobId, epoch: u64) -> Option<Self> {
        let name = name_of(job, epoch);
        let lock = match take(&*location.files, folder, &location.siblings, &name, epoch) {
            Ok(lock) => lock,
            Err(error) => {
                tracing::info!(folder = %folder.display(), %error, "a staging folder is not taken over");
                return None;
            }
        };
        let made = location.files.read(&location.siblings.join(&name).join(MADE)).unwrap_or_default();
        Some(Self::held(location.clone(), job, epoch, folders_from(&made), lock))
    }

    /// The staging folder of a job in an epoch, which exists, with its lock. `created` are the folders above the output that
    /// were created for it.
    fn held(
        location: Location,
        job: &JobId,
        epoch: u64,
        created: Vec<PathBuf>,
        lock: Box<dyn LockFile>,
    ) -> Self {
        let folder = location.siblings.join(name_of(job, epoch));
        FolderStaging { job: job.clone(), epoch, location, folder, created, left: false, lock: Some(lock) }
    }

    /// Keeps the folder for the next leader of the job.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// The path to which an attempt writes part file number `index`.
    pub fn part(&self, index: u32, attempt: u32) -> PathBuf {
        self.folder.join(PARTS).join(format!("part-{index:05}-a{attempt}-{}.snappy.parquet", self.job))
    }

    /// Moves the winners' part files to the staged day, which then only has to be published. The ready marker is
    /// part of it: it appears and disappears together with the day.
    ///
    /// # Errors
    /// [`PublishError`]: a part file is missing, or the disk fails.
    pub fn commit(
        &self,
        winners: &[StagedPart],
        marker: Option<&ReadyMarker>,
    ) -> Result<Commit, PublishError> {
        let (files, day) = (&*self.location.files, self.folder.join(DAY));
        retry_while_full(files, || remake(files, &day))
            .map_err(failed(&day, "the staged day cannot be created"))?;
        let folders: BTreeSet<&str> = winners.iter().filter_map(|part| part.folder.as_deref()).collect();
        for folder in folders.iter().map(|folder| day.join(folder)) {
            let made = retry_while_full(files, || files.create_folder(&folder));
            made.map_err(failed(&folder, "a folder of the staged day cannot be created"))?;
        }
        let mut parts = Vec::with_capacity(winners.len());
        for StagedPart { index, attempt, folder } in winners {
            let name = format!("part-{index:05}-{}.snappy.parquet", self.job);
            let name = folder.as_ref().map_or(name.clone(), |folder| format!("{folder}/{name}"));
            let part = self.part(*index, *attempt);
            let moved = retry_while_full(files, || files.rename(&part, &day.join(&name)));
            moved.map_err(failed(&part, "the part file is missing"))?;
            parts.push(name);
        }
        if let Some(marker) = marker {
            let marker = day.join(marker.name());
            retry_while_full(files, || files.write(&marker, b""))
                .map_err(failed(&marker, "the ready marker cannot be written"))?;
            sync(files, &marker)?;
        }
        for folder in folders {
            sync(files, &day.join(folder))?;
        }
        sync(files, &day)?;
        sync(files, &self.folder)?;
        // The names of the folders above it, so that the decision does not outlive the day.
        let above = &self.location.siblings;
        sync_upwards(files, above).map_err(failed(above, "the folders above it cannot be synced"))?;
        let found = files.stat(&day).map_err(failed(&day, "the staged day cannot be read"))?;
        // A day that cannot be read is replaced without a condition.
        let replaces = day_id(files, &self.location.target).ok();
        Ok(Commit { device: found.device, inode: found.inode, parts, replaces })
    }

    /// Carries out, in a later epoch, the decision of an earlier leader. Repeated calls carry it out once, and the earlier
    /// leader cannot interfere.
    ///
    /// # Errors
    /// [`PublishError::Replaced`]: another process published the day since the decision. Its day stays. Others: the old day is
    /// unchanged.
    pub(super) fn finish_commit(
        location: &Location,
        job: &JobId,
        epoch: u64,
        commit: &Commit,
    ) -> Result<Finished, PublishError> {
        let Location { siblings, output, target, files } = location;
        for folder in folders_before(&**files, siblings, job, epoch) {
            let Some(staging) = Self::take(&folder, location, job, epoch) else { continue };
            // From here on the earlier leader cannot publish it, and what it did before is visible.
            files.refresh(output);
            let completed = staging.replacement().complete_others();
            completed.map_err(failed(target, "another publish of the day cannot be completed"))?;
            for _ in 0..RACES {
                let is_staged = commit.is(&**files, &staging.folder.join(DAY));
                if commit.is(&**files, target) || !is_staged || commit.is_replaced(&**files, target)? {
                    break;
                }
                staging.replace(commit)?;
            }
            // Removed on drop: it is published, or is not the decided day.
        }
        sweep(&**files, siblings, job, epoch);
        match commit.is(&**files, target) {
            true => Ok(Finished::Done),
            false if commit.is_replaced(&**files, target)? => {
                Err(PublishError::Replaced { path: target.display().to_string() })
            }
            false => Ok(Finished::Gone),
        }
    }

    /// Makes the staged day the output's day, and removes the old day.
    ///
    /// # Errors
    /// [`PublishError`]: the old day is unchanged, unless the error says something else.
    pub fn publish(self, commit: &Commit) -> Result<(), PublishError> {
        self.replace(commit)
    }

    fn replacement(&self) -> Replacement<'_> {
        let Location { siblings, target, files, .. } = &self.location;
        Replacement { files: &**files, siblings, folder: &self.folder, target }
    }

    pub(super) fn replace(&self, commit: &Commit) -> Result<(), PublishError> {
        let Location { output, target, files, .. } = &self.location;
        let made = retry_while_full(&**files, || files.create_folders(output));
        made.map_err(failed(output, "the output folder cannot be created"))?;
        // Before the day is in it: a sync of the output may keep the day's rename, and lose the name of the output.
        if let Some(above) = output.parent() {
            let synced = sync_upwards(&**files, above);
            synced.map_err(failed(above, "the folder above the output cannot be synced"))?;
        }
        match self.replacement().run() {
            // Another process did it, or the answer to this one's request was lost.
            Err(_) if commit.is(&**files, target) => {}
            Err(_) if commit.is_replaced(&**files, target)? => {
                return Err(PublishError::Replaced { path: target.display().to_string() });
            }
            Err(error) => {
                let what = match error.kind() {
                    _ if self.replacement().is_half_done() => {
                        "the day is half replaced, which is completed later"
                    }
                    io::ErrorKind::CrossesDevices => {
                        "the day and its staging folder are in different quota projects or overlay layers"
                    }
                    _ => "the day cannot be replaced",
                };
                return Err(failed(target, what)(error));
            }
            Ok(()) => {}
        }
        let what =
            "the new day is visible, but may be lost if the machine fails, because it cannot be synced";
        files.sync(output).map_err(failed(output, what))
    }
}

impl Drop for FolderStaging {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let Location { siblings, files, .. } = &self.location;
        sweep(&**files, siblings, &self.job, self.epoch);
        // Created folders above the output stay if they are not empty.
        remove(&**files, &self.folder, siblings, &self.created, self.lock.take());
    }
}
