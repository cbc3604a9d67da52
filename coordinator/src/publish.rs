//! Staging part files beside the output, and making a day visible in one step.
//!
//! On files: the staging folder is a hidden sibling of the output's root, on the same file
//! system. The publish exchanges the day's folder with the staged one (`RENAME_EXCHANGE`), so a
//! reader sees the old day or the new one, whole; where the kernel or the file system has no
//! exchange, two renames behind a written intent do it, which the next job finishes or undoes if
//! a crash comes between. Nothing but part files ever lies under the output.
//!
//! A staging folder is locked while its job lives; one that nobody locks is a dead job's and is
//! cleaned up by the next.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tally_proto::JobId;
use tally_worker::urls::{self, UrlError};

use crate::job::date_folder;

const LOCK: &str = "lock";
const DAY: &str = "day";
const OLD: &str = "old";
const INTENT: &str = "intent";
/// How often a staging folder is tried to be made again.
const RACES: usize = 20;
/// After so long a folder in the making is a dead job's.
const MAKING_TIME: Duration = Duration::from_secs(3600);

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
}

fn failed<'a>(path: &'a Path, what: &'static str) -> impl FnOnce(io::Error) -> PublishError + 'a {
    move |source| PublishError::Io { path: path.display().to_string(), what, source }
}

/// A job's staging folder; it goes when this is dropped, whoever drops it, published or not.
#[derive(Debug)]
pub struct Staging {
    job: JobId,
    /// The sibling of the output that holds all jobs' staging folders.
    siblings: PathBuf,
    /// This job's.
    folder: PathBuf,
    output: PathBuf,
    target: PathBuf,
    /// Folders above the output that were not there before, outermost first.
    created: Vec<PathBuf>,
    _lock: File,
}

impl Staging {
    /// Makes the staging folder of a job; cleans up behind dead ones.
    ///
    /// # Errors
    /// [`PublishError`]: the output cannot be written; nothing is left behind.
    pub fn prepare(output: &str, date: &str, job: &JobId) -> Result<Self, PublishError> {
        let output = urls::local_path(output)?;
        let name = output.file_name().map(|name| name.to_string_lossy().into_owned());
        let (Some(name), Some(parent)) = (name, output.parent()) else {
            let source = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(failed(&output, "the output cannot be the root of a file system")(source));
        };
        let target = output.join(date_folder(date));
        check_place(&output, parent)?;
        check_place(&target, &output)?;
        let created = missing_above(parent);
        let siblings = parent.join(format!(".{name}.tally-staging"));
        let folder = siblings.join(job.as_str());
        let mut made = make(&siblings, job);
        // A job that ends just now may remove the siblings' folder in between.
        for _ in 0..RACES {
            if !matches!(&made, Err(e) if e.kind() == io::ErrorKind::NotFound) {
                break;
            }
            made = make(&siblings, job);
        }
        let lock = match made {
            Ok(lock) => lock,
            Err(source) => {
                remove(&siblings.join(making(job)), &siblings, &created);
                return Err(failed(&folder, "the staging folder cannot be made")(source));
            }
        };
        clean_dead(&siblings)?;
        Ok(Staging { job: job.clone(), siblings, folder, output, target, created, _lock: lock })
    }

    /// Where part file number `index` is to be written.
    pub fn part(&self, index: usize) -> PathBuf {
        self.folder.join(DAY).join(format!("part-{index:05}-{}.snappy.parquet", self.job))
    }

    /// Makes the staged day the output's, in one step, and removes the old one.
    ///
    /// # Errors
    /// [`PublishError`]: the old day is as it was.
    pub fn publish(self) -> Result<(), PublishError> {
        let day = self.folder.join(DAY);
        sync(&day)?;
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
        // Of the folders made above the output those that have something in them stay.
        remove(&self.folder, &self.siblings, &self.created);
    }
}

/// Checks that a folder of the output, if it is there, is one, and lies on its parent's file system:
/// only there can it be exchanged.
fn check_place(folder: &Path, parent: &Path) -> Result<(), PublishError> {
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

/// The name of a staging folder that is being made, and that nobody else looks at.
fn making(job: &JobId) -> String {
    format!(".{job}")
}

/// Makes a job's staging folder, locked from the moment that it is seen under its name.
fn make(siblings: &Path, job: &JobId) -> io::Result<File> {
    let folder = siblings.join(making(job));
    fs::create_dir_all(folder.join(DAY))?;
    let lock = File::create(folder.join(LOCK))?;
    lock.lock()?;
    fs::rename(&folder, siblings.join(job.as_str()))?;
    Ok(lock)
}

/// Folders from `path` upwards that do not exist, outermost first.
fn missing_above(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> =
        path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_path_buf).collect();
    missing.reverse();
    missing
}

/// Best effort: what stays is a dead job's, and the next job removes it.
fn remove(folder: &Path, siblings: &Path, created: &[PathBuf]) {
    let quiet = |result: io::Result<()>, path: &Path| match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound && e.kind() != io::ErrorKind::DirectoryNotEmpty => {
            tracing::warn!(path = %path.display(), error = %e, "cannot be removed");
        }
        _ => {}
    };
    quiet(fs::remove_dir_all(folder), folder);
    // Only empty folders go: another job may have its own there.
    quiet(fs::remove_dir(siblings), siblings);
    for folder in created.iter().rev() {
        quiet(fs::remove_dir(folder), folder);
    }
}

fn sync(folder: &Path) -> Result<(), PublishError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(failed(folder, "the folder cannot be synced"))
}

fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

/// Puts `folder`'s staged day at `target`; what was there goes into `folder`.
fn swap(folder: &Path, target: &Path, exchange: fn(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
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

fn finish(folder: &Path, target: &Path) -> io::Result<()> {
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
fn clean_dead(siblings: &Path) -> Result<(), PublishError> {
    let entries = fs::read_dir(siblings).map_err(failed(siblings, "the staging folder cannot be read"))?;
    for entry in entries.flatten() {
        let folder = entry.path();
        let making = entry.file_name().as_encoded_bytes().starts_with(b".");
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
        let lock = File::open(folder.join(LOCK));
        // A folder that is being made has no lock yet, but not for long.
        if making || lock.is_err() {
            if age.is_some_and(|age| age > MAKING_TIME) {
                remove(&folder, siblings, &[]);
            }
            continue;
        }
        if lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock))) {
            continue;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: &str) -> JobId {
        JobId::parse(id).unwrap()
    }

    fn stage(root: &Path, id: &str, text: &str) -> Staging {
        let output = root.join("out");
        let staging = Staging::prepare(output.to_str().unwrap(), "20170227", &job(id)).unwrap();
        fs::write(staging.part(0), text).unwrap();
        staging
    }

    /// What a killed job leaves: its folder, and a lock that nobody holds.
    fn dead(root: &Path, id: &str, text: &str) -> PathBuf {
        let folder = root.join(".out.tally-staging").join(id);
        fs::create_dir_all(folder.join(DAY)).unwrap();
        fs::write(folder.join(LOCK), "").unwrap();
        fs::write(folder.join(DAY).join("part"), text).unwrap();
        folder
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut all = vec![];
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    all.push(fs::read_to_string(entry.path()).unwrap());
                }
            }
        }
        all.sort();
        all
    }

    #[test]
    fn a_publish_replaces_the_day_and_leaves_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        stage(root.path(), "a", "one").publish().unwrap();
        assert_eq!(files(root.path()), ["one"]);
        stage(root.path(), "b", "two").publish().unwrap();
        assert_eq!(files(root.path()), ["two"]);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_abort_leaves_the_old_day_and_no_new_folder() {
        let root = tempfile::tempdir().unwrap();
        stage(root.path(), "a", "one").publish().unwrap();
        drop(stage(root.path(), "b", "two"));
        assert_eq!(files(root.path()), ["one"]);
        let deep = root.path().join("x/y");
        drop(stage(&deep, "c", "three"));
        assert!(!root.path().join("x").exists());
    }

    #[test]
    fn a_dead_jobs_staging_is_removed_and_a_living_ones_kept() {
        let root = tempfile::tempdir().unwrap();
        let folder = dead(root.path(), "dead", "dead");
        let living = stage(root.path(), "living", "alive");
        assert!(!folder.exists());
        drop(stage(root.path(), "third", "third"));
        assert!(living.folder.exists());
        living.publish().unwrap();
        assert_eq!(files(root.path()), ["alive"]);
    }

    #[test]
    fn without_an_exchange_a_crash_between_the_renames_is_finished_by_the_next_job() {
        let root = tempfile::tempdir().unwrap();
        stage(root.path(), "a", "one").publish().unwrap();
        let none = |_: &Path, _: &Path| Err(io::Error::from(io::ErrorKind::InvalidInput));
        let second = stage(root.path(), "b", "two");
        swap(&second.folder, &second.target, none).unwrap();
        drop(second);
        assert_eq!(files(root.path()), ["two"]);

        let crashed = dead(root.path(), "c", "three");
        let target = root.path().join("out").join(date_folder("20170227"));
        fs::write(crashed.join(INTENT), target.as_os_str().as_encoded_bytes()).unwrap();
        fs::rename(&target, crashed.join(OLD)).unwrap();
        drop(stage(root.path(), "d", "four"));
        assert_eq!(files(root.path()), ["three"]);
    }

    #[test]
    fn a_linked_day_and_another_file_system_are_refused_before_any_work() {
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("out");
        fs::create_dir(&output).unwrap();
        std::os::unix::fs::symlink(root.path(), output.join(date_folder("20170227"))).unwrap();
        let prepare = |output: &Path| Staging::prepare(output.to_str().unwrap(), "20170227", &job("a"));
        assert!(prepare(&output).unwrap_err().to_string().contains("something else"));
        let error = prepare(Path::new("/proc")).unwrap_err().to_string();
        assert!(error.contains("another file system"), "{error}");
    }

    #[test]
    fn many_jobs_may_begin_at_once() {
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("out");
        let begin = |number: usize| {
            for round in 0..30 {
                let id = job(&format!("{number}-{round}"));
                drop(Staging::prepare(output.to_str().unwrap(), "20170227", &id).unwrap());
            }
        };
        std::thread::scope(|scope| (0..8).for_each(|number| drop(scope.spawn(move || begin(number)))));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_where_the_output_goes_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("out"), "x").unwrap();
        let output = root.path().join("out");
        let error = Staging::prepare(output.to_str().unwrap(), "20170227", &job("a")).unwrap_err();
        assert!(error.to_string().contains("out"), "{error}");
        let under = root.path().join("out/deeper");
        let error = Staging::prepare(under.to_str().unwrap(), "20170227", &job("a")).unwrap_err();
        assert!(error.to_string().contains("out"), "{error}");
        assert_eq!(files(root.path()), ["x"]);
    }
}
