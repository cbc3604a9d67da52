//! Replaces the output's day by a staged one, with an exchange of folders, or without.
//!
//! The staged day is first renamed to the output's day. That publishes it if there is no day yet. Otherwise both folders are
//! exchanged, which is one step for readers.
//!
//! Without an exchange, two renames replace it: the old day into the staging folder (`old`), and the staged day to the
//! output. Between them, a publish is *half done*: the output has no day. Any process may then do the second rename. This is
//! safe because of four rules:
//!
//! 1. A process writes an intent into its staging folder before its first rename.
//! 2. Then it looks for other intents for this day. It renames the staging folders with such intents, so that their owners'
//!    next step fails, and does the second rename of those that are half done.
//! 3. Only the owner of a staging folder does the first rename. Nothing that is not half done is ever carried out by others.
//! 4. Each staged day is moved to the output at most once, and never onto a day with content.
//!
//! Of two processes, one sees the intent of the other. So at most one publish of a day is half done at any time, and no earlier
//! day takes the place of a later one. A lock lets live publishers take turns, so that they do not stop each other. The
//! rules do not depend on it.
//!
//! Not here: staging folders (`folder`), and whether a day may still be published (`folder_staging`).

use std::io;
use std::path::{Path, PathBuf};

use super::file_system::{FileSystem, LockFile, can_exchange, is_gone, is_occupied};
use super::folder::{DAY, aside, clear, retry_while_full};

/// The old day, after the first of two renames.
pub(super) const OLD: &str = "old";
/// The file with the path of the day that is being replaced by two renames.
pub(super) const INTENT: &str = "intent";
/// The lock of the publisher whose turn it is, beside the staging folders.
pub(super) const TURN: &str = ".turn";
/// Tries while other processes publish the same day.
const TRIES: usize = 20;
/// A staged day, and the day of the output that it replaces.
pub(super) struct Replacement<'a> {
    pub(super) files: &'a dyn FileSystem,
    /// The folder of all staging folders.
    pub(super) siblings: &'a Path,
    /// The staging folder.
    pub(super) folder: &'a Path,
    /// The day of the output.
    pub(super) target: &'a Path,
}

impl Replacement<'_> {
    /// Makes the staged day the output's day.
    ///
    /// # Errors
    /// The output has its old day, or the publish is half done and stays so until the staging folder is removed.
    pub(super) fn run(&self) -> io::Result<()> {
        if retry_while_full(self.files, || can_exchange(self.files, self.folder))? {
            return self.by_exchange();
        }
        let _turn = Turn::wait(self.files, self.siblings);
        self.by_renames()
    }

    fn day(&self) -> PathBuf {
        self.folder.join(DAY)
    }

    fn has(&self, path: &Path) -> bool {
        self.files.exists(path)
    }

    fn by_exchange(&self) -> io::Result<()> {
        let day = self.day();
        let mut tries = 0;
        loop {
            match self.files.rename(&day, self.target) {
                Err(error) if is_occupied(&error) => {}
                done => return done,
            }
            match self.files.exchange(&day, self.target) {
                // The day of the output was moved or removed a moment ago.
                Err(error) if is_gone(&error) && self.files.exists(&day) && tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    fn by_renames(&self) -> io::Result<()> {
        let intent = self.folder.join(INTENT);
        self.files.write(&intent, self.target.as_os_str().as_encoded_bytes())?;
        self.files.sync(&intent)?;
        self.files.sync(self.folder)?;
        self.settle_others()?;
        let mut tries = 0;
        loop {
            match self.files.rename(&self.day(), self.target) {
                Err(error) if is_occupied(&error) && tries < TRIES => tries += 1,
                // Another process did the second rename.
                Err(error) if is_gone(&error) && self.has(&intent) && !self.has(&self.day()) => return Ok(()),
                Err(error) => {
                    self.restore();
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            }
            match self.files.rename(self.target, &self.next_old()) {
                Err(error) if !is_gone(&error) || !self.has(self.folder) => return Err(error),
                _ => {}
            }
        }
    }

    /// Whether the output has no day, because only the first of two renames is done.
    pub(super) fn is_half_done(&self) -> bool {
        !self.has(self.target) && self.has(&self.folder.join(OLD))
    }

    /// The folder for the next old day. There is more than one if a process without this protocol published in between.
    fn next_old(&self) -> PathBuf {
        let (mut old, mut number) = (self.folder.join(OLD), 0);
        while self.has(&old) {
            number += 1;
            old = self.folder.join(format!("{OLD}.{number}"));
        }
        old
    }

    /// Gives the output its old day again, after the second rename failed. If that fails, too, the publish stays half done.
    fn restore(&self) {
        let old = self.folder.join(OLD);
        if !self.has(self.target) && self.has(&self.day()) && self.has(&old) {
            match self.files.rename(&old, self.target) {
                Err(error) if !is_occupied(&error) => {
                    tracing::error!(day = %self.target.display(), old = %old.display(), %error, "the old day cannot be put back");
                }
                _ => {}
            }
        }
    }

    /// Carries out other publishes of this day that are half done, so that the output has the latest day.
    ///
    /// # Errors
    /// The output may have no day.
    pub(super) fn complete_others(&self) -> io::Result<()> {
        let others = self.files.list(self.siblings)?;
        others.iter().filter(|other| self.concerns(other)).try_for_each(|other| complete(self.files, other))
    }

    /// Whether another staging folder has an intent for this day.
    fn concerns(&self, other: &Path) -> bool {
        other != self.folder && intended(self.files, other).is_some_and(|target| target == self.target)
    }

    /// Stops all other publishes of this day that are not over, and carries out those that are half done. Looks again after
    /// each change, because another process may have renamed a folder meanwhile.
    fn settle_others(&self) -> io::Result<()> {
        for _ in 0..TRIES {
            let mut changed = false;
            for other in self.files.list(self.siblings)? {
                changed |= match self.concerns(&other) {
                    true => self.settle(&other),
                    false => !self.has(&other),
                };
            }
            if !changed {
                break;
            }
        }
        Ok(())
    }

    /// Settles another publish; false if it is over, or was stopped before.
    fn settle(&self, other: &Path) -> bool {
        let is_hidden = other.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_half_done = || self.has(&other.join(OLD));
        if self.has(other) && (!self.has(&other.join(DAY)) || (is_hidden && !is_half_done())) {
            return false;
        }
        let settled = set_aside(self.files, other, self.siblings)
            .and_then(|hidden| complete(self.files, &hidden).and_then(|()| clear(self.files, &hidden, None)));
        match settled {
            Err(error) if !is_gone(&error) && !is_occupied(&error) => {
                tracing::warn!(folder = %other.display(), %error, "another publish of this day cannot be settled");
            }
            _ => {}
        }
        true
    }
}

/// Renames a staging folder, so that its owner's next step fails, and returns its new path.
pub(super) fn set_aside(files: &dyn FileSystem, folder: &Path, siblings: &Path) -> io::Result<PathBuf> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with('.') {
        return Ok(folder.to_path_buf());
    }
    let mut hidden = siblings.join(aside(&name));
    let mut number = 0;
    loop {
        match files.rename(folder, &hidden) {
            // What is left of an earlier removal.
            Err(error) if is_occupied(&error) && number < TRIES => {
                number += 1;
                hidden = siblings.join(format!("{}~{number}", aside(&name)));
            }
            done => return done.map(|()| hidden),
        }
    }
}

/// Does the second rename of a publish that is half done, unless the output has a day. Any process may call this.
///
/// # Errors
/// The staging folder has the only copies of the old day and of the new one. It must not be removed.
pub(super) fn complete(files: &dyn FileSystem, folder: &Path) -> io::Result<()> {
    let Some(target) = intended(files, folder) else { return Ok(()) };
    let day = folder.join(DAY);
    if !files.exists(&day) || !files.exists(&folder.join(OLD)) {
        return Ok(());
    }
    match files.rename(&day, &target) {
        // A later publish.
        Err(error) if is_occupied(&error) => Ok(()),
        // Another process did it.
        Err(error) if is_gone(&error) && !files.exists(&day) => Ok(()),
        done => done,
    }
}

/// The day that is being replaced by two renames from a staging folder.
fn intended(files: &dyn FileSystem, folder: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let target = files.read(&folder.join(INTENT)).ok()?;
    Some(PathBuf::from(std::ffi::OsString::from_vec(target)))
}

/// The turn of a publisher, until it is dropped. Dropping it releases the lock.
struct Turn<'a> {
    files: &'a dyn FileSystem,
    path: PathBuf,
    _lock: Box<dyn LockFile>,
}

impl<'a> Turn<'a> {
    /// Waits for the turn; `None` if another publisher hangs, or if the file system has no locks. Blocks.
    fn wait(files: &'a dyn FileSystem, siblings: &Path) -> Option<Self> {
        let path = siblings.join(TURN);
        let mut retries = files.turn_retry().start();
        loop {
            let lock = files.open_lock(&path, true).ok()?;
            // The publisher before may have removed the file.
            if lock.try_lock().ok()? && lock.is_at(&path) {
                return Some(Turn { files, path, _lock: lock });
            }
            files.pause(retries.next()?);
        }
    }
}

/// Removes the lock of turns, unless a publisher has it. One that died leaves it.
pub(super) fn remove_turn(files: &dyn FileSystem, siblings: &Path) {
    let path = siblings.join(TURN);
    if let Ok(lock) = files.open_lock(&path, false)
        && lock.try_lock().is_ok_and(|held| held)
        && lock.is_at(&path)
    {
        drop(Turn { files, path, _lock: lock });
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Fails only if another process removed the file.
        let _ = self.files.remove_file(&self.path);
    }
}
