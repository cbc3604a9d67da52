//! Staging part files beside the output, and making a day visible in one step.
//!
//! On files: the staging folder is a hidden sibling of the output's root, on the same file
//! system. The publish exchanges the day's folder with the staged one (`RENAME_EXCHANGE`), so a
//! reader sees the old day or the new one, whole; where the kernel or the file system has no
//! exchange, two renames behind a written intent do it, which the next job finishes or undoes if
//! a crash comes between. Nothing but part files ever lies under the output.
//!
//! A staging folder is locked while its job lives; one that nobody locks is a dead job's and is
//! cleaned up by the next. Its name ends with the epoch of the leader that owns it. A later leader takes
//! it over by renaming it, locked or not: who led before may hang and hold his lock for ever, but
//! whatever he does after he wakes up goes by the old name, and fails. So of two leaders only one has a
//! day to exchange.
//!
//! Tasks write under one name each attempt; only the winners' files are taken into the day that is
//! exchanged, so that a late loser writes nowhere that counts.
//!
//! In object stores (`objects`) tasks fill uploads in parts, which only the publish completes, by one
//! record (`commit_log`). `stage` is either of the two, as the driver sees it.

pub mod commit_log;
mod folder;
pub mod objects;
pub mod stage;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tally_proto::JobId;
use tally_worker::urls::{self, UrlError};

use crate::job::date_folder;
use folder::{
    DAY, MADE, PARTS, aside, check_place, clean_dead, exchange, failed, folders_before, folders_from, make,
    missing_above, remake, remove, siblings_of, swap, sweep, sync, take,
};

/// How often a staging folder is tried to be made again.
const RACES: usize = 20;

/// The output could not be staged or published; the day that was there stays.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The file system.
    #[error("{path}: {what}: {source}; check that the output can be written there")]
    Io {
        /// Where.
        path: String,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An object store.
    #[error("{url}: {what}: {reason}")]
    Store {
        /// Where.
        url: String,
        /// What was tried.
        what: &'static str,
        /// What the store said.
        reason: String,
    },
}

/// What identifies a day that was decided to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The staged folder's device.
    pub device: u64,
    /// The staged folder's inode: the output's day is it once it was exchanged.
    pub inode: u64,
    /// Names of the part files in it.
    pub parts: Vec<String>,
}

/// What became of a publish that an earlier leader decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// The day is published.
    Done,
    /// The day is neither staged nor published.
    Gone,
}

/// A job's staging folder; it goes when this is dropped, whoever drops it, published or not.
#[derive(Debug)]
pub struct Staging {
    job: JobId,
    epoch: u64,
    /// The sibling of the output that holds all jobs' staging folders.
    siblings: PathBuf,
    /// This job's.
    folder: PathBuf,
    output: PathBuf,
    target: PathBuf,
    /// Folders above the output that were not there before, outermost first.
    created: Vec<PathBuf>,
    /// Somebody else goes on with the job.
    left: bool,
    _lock: File,
}

impl Commit {
    /// Whether a folder is the one that was decided on. Its inode may be given anew once it is gone,
    /// names with its job's id are not.
    fn is(&self, folder: &Path) -> bool {
        let found = fs::metadata(folder);
        found.is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
            && self.parts.iter().all(|part| folder.join(part).exists())
    }
}

impl Staging {
    /// Makes the staging folder of a job in an epoch; cleans up behind dead ones.
    ///
    /// # Errors
    /// [`PublishError`]: the output cannot be written; nothing is left behind.
    pub fn prepare(output: &str, date: &str, job: &JobId, epoch: u64) -> Result<Self, PublishError> {
        let output = urls::local_path(output)?;
        let (Some(siblings), Some(parent)) = (siblings_of(&output), output.parent()) else {
            let source = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(failed(&output, "the output cannot be the root of a file system")(source));
        };
        let target = output.join(date_folder(date));
        check_place(&output, parent)?;
        check_place(&target, &output)?;
        let created = missing_above(parent);
        let name = format!("{job}.{epoch}");
        let folder = siblings.join(&name);
        let mut made = make(&siblings, &name, &created);
        // A job that ends just now may remove the siblings' folder in between.
        for _ in 0..RACES {
            if !matches!(&made, Err(e) if e.kind() == io::ErrorKind::NotFound) {
                break;
            }
            made = make(&siblings, &name, &created);
        }
        let lock = match made {
            Ok(lock) => lock,
            Err(source) => {
                remove(&siblings.join(aside(&name)), &siblings, &created);
                return Err(failed(&folder, "the staging folder cannot be made")(source));
            }
        };
        clean_dead(&siblings)?;
        Ok(Staging {
            job: job.clone(),
            epoch,
            siblings,
            folder,
            output,
            target,
            created,
            left: false,
            _lock: lock,
        })
    }

    /// Takes over the staging folder of an earlier leader, if there is one. What was written there is
    /// dropped: write tasks are cheap, and run again.
    pub fn adopt(output: &str, date: &str, job: &JobId, epoch: u64) -> Option<Self> {
        let output = urls::local_path(output).ok()?;
        let siblings = siblings_of(&output)?;
        for folder in folders_before(&siblings, job, epoch) {
            let Some(adopted) = Self::take(&folder, &output, date, job, epoch) else { continue };
            let parts = remake(&adopted.folder.join(PARTS));
            let emptied = parts.and_then(|()| match fs::remove_dir_all(adopted.folder.join(DAY)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
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

    /// Takes a folder of an earlier epoch over, whoever holds it; nothing if it is not to be had.
    fn take(folder: &Path, output: &Path, date: &str, job: &JobId, epoch: u64) -> Option<Self> {
        let siblings = siblings_of(output)?;
        let name = format!("{job}.{epoch}");
        let lock = match take(folder, &siblings, &name, epoch) {
            Ok(lock) => lock,
            Err(error) => {
                tracing::info!(folder = %folder.display(), %error, "a staging folder is not taken over");
                return None;
            }
        };
        let folder = siblings.join(name);
        let created = folders_from(&fs::read(folder.join(MADE)).unwrap_or_default());
        let (output, target) = (output.to_path_buf(), output.join(date_folder(date)));
        Some(Staging {
            job: job.clone(),
            epoch,
            siblings,
            folder,
            output,
            target,
            created,
            left: false,
            _lock: lock,
        })
    }

    /// Lets go of the folder, which stays as it is for who goes on with the job.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// Where an attempt is to write part file number `index`.
    pub fn part(&self, index: u32, attempt: u32) -> PathBuf {
        self.folder.join(PARTS).join(format!("part-{index:05}-a{attempt}-{}.snappy.parquet", self.job))
    }

    /// Makes the day of the winners' part files, each given by number and attempt: from here on it
    /// only needs to be exchanged.
    ///
    /// # Errors
    /// [`PublishError`]: a part file is not there, or the disk fails.
    pub fn commit(&self, winners: &[(u32, u32)]) -> Result<Commit, PublishError> {
        let day = self.folder.join(DAY);
        remake(&day).map_err(failed(&day, "the staged day cannot be made"))?;
        let mut parts = Vec::with_capacity(winners.len());
        for &(index, attempt) in winners {
            let name = format!("part-{index:05}-{}.snappy.parquet", self.job);
            let part = self.part(index, attempt);
            fs::rename(&part, day.join(&name)).map_err(failed(&part, "the part file is not there"))?;
            parts.push(name);
        }
        sync(&day)?;
        sync(&self.folder)?;
        let found = fs::metadata(&day).map_err(failed(&day, "the staged day cannot be looked at"))?;
        Ok(Commit { device: found.dev(), inode: found.ino(), parts })
    }

    /// Carries out, in a later epoch, what an earlier leader decided: once, however often it is tried,
    /// and whatever the earlier leader still does.
    ///
    /// # Errors
    /// [`PublishError`]: the old day is as it was.
    pub fn finish_commit(
        output: &str,
        date: &str,
        job: &JobId,
        epoch: u64,
        commit: &Commit,
    ) -> Result<Finished, PublishError> {
        let output = urls::local_path(output)?;
        let target = output.join(date_folder(date));
        let Some(siblings) = siblings_of(&output) else { return Ok(Finished::Gone) };
        for folder in folders_before(&siblings, job, epoch) {
            let Some(staging) = Self::take(&folder, &output, date, job, epoch) else { continue };
            // Only from here on the earlier leader can't exchange it any more: what it did is seen now.
            for _ in 0..RACES {
                if commit.is(&target) || !commit.is(&staging.folder.join(DAY)) {
                    break;
                }
                staging.exchange()?;
            }
            // Dropped: it is exchanged, or is not what was decided.
        }
        sweep(&siblings, job, epoch);
        Ok(if commit.is(&target) { Finished::Done } else { Finished::Gone })
    }

    /// Makes the staged day the output's, in one step, and removes the old one.
    ///
    /// # Errors
    /// [`PublishError`]: the old day is as it was.
    pub fn publish(self) -> Result<(), PublishError> {
        self.exchange()
    }

    fn exchange(&self) -> Result<(), PublishError> {
        fs::create_dir_all(&self.output).map_err(failed(&self.output, "the output folder cannot be made"))?;
        swap(&self.folder, &self.target, exchange)
            .map_err(failed(&self.target, "the day cannot be replaced"))?;
        sync(&self.output)?;
        if let Some(parent) = self.output.parent() {
            sync(parent)?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        sweep(&self.siblings, &self.job, self.epoch);
        // Of the folders made above the output those that have something in them stay.
        remove(&self.folder, &self.siblings, &self.created);
    }
}

#[cfg(test)]
mod tests;
