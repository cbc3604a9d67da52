//! Values that are read from files, and read again when the content of the files changes. If the files cannot be used, the
//! old value stays in use for a limited time, and the files are read again, changed or not, until they can be used.
//!
//! Not here: how files are parsed (`certificates`, `tokens`).

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use super::SecurityError;
use crate::retry::RetryPolicy;

/// The interval between checks of the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// When files that cannot be used are read again although they have not changed.
const RETRY: RetryPolicy = RetryPolicy::doubling(CHECK_INTERVAL, Duration::from_secs(10));
/// The maximum number of bytes of a file that are compared.
const MAX_COMPARED: u64 = 4 << 20;

/// What changes with a file. The content counts, because times and sizes of files can be the same after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Signature {
    /// Its permissions and the digest of its content.
    Content(u32, u64, [u8; SHA256_OUTPUT_LEN]),
    /// A pipe or another special file, which can be read only once.
    Special(u64, u64, i64),
    /// It cannot be read.
    Unreadable(io::ErrorKind),
}

impl Signature {
    fn of(path: &Path) -> Self {
        Signature::read(path).unwrap_or_else(|error| Signature::Unreadable(error.kind()))
    }

    fn read(path: &Path) -> io::Result<Self> {
        let of: Metadata = std::fs::metadata(path)?;
        if !of.is_file() {
            return Ok(Signature::Special(of.dev(), of.ino(), of.mtime()));
        }
        let mut content = vec![];
        File::open(path)?.take(MAX_COMPARED).read_to_end(&mut content)?;
        let mut digest = [0; SHA256_OUTPUT_LEN];
        let mut context = Context::new(&SHA256);
        context.update(&content);
        digest.copy_from_slice(context.finish().as_ref());
        Ok(Signature::Content(of.mode(), of.len(), digest))
    }
}

/// The files could not be used for too long, so their last value no longer counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the files of {what} cannot be used for {} s: {error}", since.as_secs())]
pub(super) struct StaleFiles {
    what: &'static str,
    since: Duration,
    error: String,
}

type Load<T> = dyn Fn(u64) -> Result<T, SecurityError> + Send + Sync;

/// A value that is read from files.
pub(super) struct Watched<T> {
    what: &'static str,
    max_stale: Duration,
    files: Vec<PathBuf>,
    load: Box<Load<T>>,
    state: Mutex<State<T>>,
}

struct State<T> {
    checked: Instant,
    /// Of the last reading, whether it succeeded or not.
    signatures: Vec<Signature>,
    generation: u64,
    current: Arc<T>,
    failing: Option<Failing>,
}

/// The last readings failed.
struct Failing {
    since: Instant,
    retries: u32,
    retry_at: Instant,
    error: String,
    /// Whether the log says that the value is no longer used.
    said_stale: bool,
}

impl<T> Watched<T> {
    /// Reads the value for the first time. The argument of `load` is a number that grows with each reading. If the files
    /// cannot be used, the old value is used for `max_stale`.
    ///
    /// # Errors
    /// The error of `load`.
    pub(super) fn open(
        what: &'static str,
        max_stale: Duration,
        files: Vec<PathBuf>,
        load: impl Fn(u64) -> Result<T, SecurityError> + Send + Sync + 'static,
    ) -> Result<Self, SecurityError> {
        // Taken before the reading: a file that changes during it is read again.
        let signatures = files.iter().map(|file| Signature::of(file)).collect();
        let current = Arc::new(load(0)?);
        let checked = Instant::now();
        let state = State { checked, signatures, generation: 0, current, failing: None };
        Ok(Watched { what, max_stale, files, load: Box::new(load), state: Mutex::new(state) })
    }

    /// The value of the files, at most a second old.
    ///
    /// # Errors
    /// The files cannot be used for longer than the maximum.
    pub(super) fn current(&self) -> Result<Arc<T>, StaleFiles> {
        let now = Instant::now();
        self.value(&self.checked(now), now)
    }

    /// The last value, however old.
    pub(super) fn last(&self) -> Arc<T> {
        self.checked(Instant::now()).current.clone()
    }

    /// For how long the files cannot be used; `None` if they can.
    pub(super) fn failing_for(&self) -> Option<Duration> {
        let now = Instant::now();
        let state = self.checked(now);
        state.failing.as_ref().map(|failing| now.saturating_duration_since(failing.since))
    }

    fn checked(&self, now: Instant) -> MutexGuard<'_, State<T>> {
        let mut state = self.state.lock();
        if now.saturating_duration_since(state.checked) >= CHECK_INTERVAL {
            state.checked = now;
            self.refresh(&mut state, now);
        }
        state
    }

    fn value(&self, state: &State<T>, now: Instant) -> Result<Arc<T>, StaleFiles> {
        if let Some(failing) = &state.failing {
            let since = now.saturating_duration_since(failing.since);
            if since >= self.max_stale {
                return Err(StaleFiles { what: self.what, since, error: failing.error.clone() });
            }
        }
        Ok(state.current.clone())
    }

    fn refresh(&self, state: &mut State<T>, now: Instant) {
        let signatures: Vec<_> = self.files.iter().map(|file| Signature::of(file)).collect();
        let changed = signatures != state.signatures;
        if changed || state.failing.as_ref().is_some_and(|failing| now >= failing.retry_at) {
            state.signatures = signatures;
            match (self.load)(state.generation + 1) {
                Ok(new) => {
                    state.generation += 1;
                    state.current = Arc::new(new);
                    state.failing = None;
                    tracing::info!(what = self.what, "the files have changed and were read again");
                }
                Err(error) => self.fail(state, changed, error.to_string(), now),
            }
        }
        if let Some(failing) = &mut state.failing
            && !failing.said_stale
            && now.saturating_duration_since(failing.since) >= self.max_stale
        {
            failing.said_stale = true;
            let (what, error) = (self.what, &failing.error);
            tracing::error!(
                what,
                error,
                "the files cannot be used for too long: the old ones no longer count"
            );
        }
    }

    fn fail(&self, state: &mut State<T>, changed: bool, error: String, now: Instant) {
        let before = state.failing.take();
        // A certificate and its key are not replaced at the same moment, so one failure is not unusual.
        if changed || before.as_ref().is_none_or(|before| before.error != error) {
            let (what, seconds) = (self.what, self.max_stale.as_secs());
            tracing::warn!(
                what,
                error,
                "the files have changed and cannot be used: they are read again until they can be used, and the old \
                 ones stay in use for at most {seconds} s"
            );
        }
        let retries =
            before.as_ref().filter(|_| !changed).map_or(0, |before| before.retries.saturating_add(1));
        let delay = RETRY.next_delay(retries, Duration::ZERO, 1.0).unwrap_or(CHECK_INTERVAL);
        let (since, said_stale) = before.map_or((now, false), |before| (before.since, before.said_stale));
        state.failing = Some(Failing { since, retries, retry_at: now + delay, error, said_stale });
    }
}

/// Checks that only the owner and the group of a file of secrets have access.
///
/// # Errors
/// [`SecurityError::File`].
pub(super) fn check_private(path: &Path) -> Result<(), SecurityError> {
    let metadata = std::fs::metadata(path).map_err(|e| SecurityError::file(path, e))?;
    match metadata.mode() & 0o027 {
        0 => Ok(()),
        _ => Err(SecurityError::file(
            path,
            format!("its mode {:03o} gives others access to a secret: chmod 600 it", metadata.mode() & 0o777),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::time::SystemTime;

    use super::*;

    const MAX_STALE: Duration = Duration::from_secs(300);

    /// A file with a number, which tests read at times of their own.
    struct Number {
        _dir: tempfile::TempDir,
        file: PathBuf,
        watched: Watched<u32>,
        start: Instant,
    }

    impl Number {
        fn new(extra: impl Fn() -> bool + Send + Sync + 'static) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("number");
            std::fs::write(&file, "1").unwrap();
            set_mode(&file, 0o600);
            let path = file.clone();
            let read = move |_| {
                check_private(&path)?;
                if !extra() {
                    return Err(SecurityError::file(&path, "no free descriptor"));
                }
                let text = std::fs::read_to_string(&path).map_err(|e| SecurityError::file(&path, e))?;
                text.parse::<u32>().map_err(|e| SecurityError::file(&path, e))
            };
            let watched = Watched::open("a number", MAX_STALE, vec![file.clone()], read).unwrap();
            Number { _dir: dir, file, watched, start: Instant::now() }
        }

        /// The value and the generation, so many seconds after the start.
        fn at(&self, seconds: u64) -> Result<(u32, u64), StaleFiles> {
            let now = self.start + Duration::from_secs(seconds);
            let mut state = self.watched.state.lock();
            self.watched.refresh(&mut state, now);
            let value = self.watched.value(&state, now)?;
            Ok((*value, state.generation))
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.file, text).unwrap();
        }
    }

    fn set_mode(file: &Path, mode: u32) {
        std::fs::set_permissions(file, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_change_is_read_and_an_unusable_one_is_ignored_for_a_while() {
        let number = Number::new(|| true);
        assert_eq!(number.at(0), Ok((1, 0)));
        number.write("none");
        assert_eq!(number.at(1), Ok((1, 0)));
        number.write("2");
        assert_eq!(number.at(2), Ok((2, 1)));
        std::fs::remove_file(&number.file).unwrap();
        assert_eq!(number.at(3), Ok((2, 1)));
        assert_eq!(number.at(302), Ok((2, 1)));
        let stale = number.at(303).unwrap_err().to_string();
        assert!(stale.contains("cannot be used for 300 s") && stale.contains("No such file"), "{stale}");
        // Another failure does not start the time again.
        number.write("none");
        assert!(number.at(304).is_err());
        number.write("2");
        set_mode(&number.file, 0o600);
        assert_eq!(number.at(305), Ok((2, 2)), "also the old content, which was written again");
    }

    #[test]
    fn a_change_is_read_if_time_size_and_inode_stay_the_same() {
        let number = Number::new(|| true);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let write = |text: &str| {
            number.write(text);
            File::options().write(true).open(&number.file).unwrap().set_modified(time).unwrap();
        };
        write("3");
        assert_eq!(number.at(1), Ok((3, 1)));
        write("x");
        assert_eq!(number.at(2), Ok((3, 1)));
        write("4");
        assert_eq!(number.at(3), Ok((4, 2)));
    }

    #[test]
    fn permissions_that_are_corrected_are_noticed() {
        let number = Number::new(|| true);
        number.write("2");
        set_mode(&number.file, 0o644);
        assert_eq!(number.at(1), Ok((1, 0)));
        set_mode(&number.file, 0o600);
        assert_eq!(number.at(2), Ok((2, 1)));
    }

    #[test]
    fn files_are_read_again_until_they_can_be_used() {
        let (works, loads) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let counted = (works.clone(), loads.clone());
        let number = Number::new(move || {
            counted.1.fetch_add(1, Ordering::Relaxed);
            counted.0.load(Ordering::Relaxed)
        });
        works.store(false, Ordering::Relaxed);
        number.write("2");
        for second in 1..=100 {
            assert_eq!(number.at(second), Ok((1, 0)));
        }
        // At 1, 2, 4, 8, 16 s, and every 10 s from there.
        let tried = loads.load(Ordering::Relaxed);
        assert!((10..=16).contains(&tried), "{tried}");
        works.store(true, Ordering::Relaxed);
        assert_eq!(number.at(110), Ok((2, 1)), "the file has not changed since");
        assert_eq!(number.at(1000), Ok((2, 1)));
    }

    #[test]
    fn files_of_secrets_must_be_private() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "x").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o440, true), (0o644, false), (0o620, false)] {
            set_mode(&file, mode);
            assert_eq!(check_private(&file).is_ok(), good, "{mode:o}");
        }
    }
}
