//! What was read from files, and is read anew when they change. A change that cannot be used is told once, and what
//! was read before stays in use.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::SecurityError;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// Tells one content of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, u64, i64, i64)>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let stamp = |of: Metadata| (of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec());
        Stamp(std::fs::metadata(path).ok().map(stamp))
    }
}

type Load<T> = dyn Fn(u64) -> Result<T, SecurityError> + Send + Sync;

/// Something that is made of files.
pub(super) struct Watched<T> {
    what: &'static str,
    files: Vec<PathBuf>,
    load: Box<Load<T>>,
    state: Mutex<State<T>>,
}

struct State<T> {
    looked: Instant,
    stamps: Vec<Stamp>,
    generation: u64,
    current: Arc<T>,
}

impl<T> Watched<T> {
    /// Reads it for the first time; `load` is given a number that grows with each reading.
    ///
    /// # Errors
    /// What `load` says.
    pub(super) fn open(
        what: &'static str,
        files: Vec<PathBuf>,
        load: impl Fn(u64) -> Result<T, SecurityError> + Send + Sync + 'static,
    ) -> Result<Self, SecurityError> {
        // Before the reading: what changes during it is read again.
        let stamps = files.iter().map(|file| Stamp::of(file)).collect();
        let current = Arc::new(load(0)?);
        let state = State { looked: Instant::now(), stamps, generation: 0, current };
        Ok(Watched { what, files, load: Box::new(load), state: Mutex::new(state) })
    }

    /// What the files say, at most a second late.
    pub(super) fn current(&self) -> Arc<T> {
        let mut state = self.state.lock();
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            self.look(&mut state);
        }
        state.current.clone()
    }

    fn look(&self, state: &mut State<T>) {
        let stamps: Vec<_> = self.files.iter().map(|file| Stamp::of(file)).collect();
        if stamps == state.stamps {
            return;
        }
        state.stamps = stamps;
        match (self.load)(state.generation + 1) {
            Ok(new) => {
                state.generation += 1;
                state.current = Arc::new(new);
                tracing::info!(what = self.what, "read anew, as the files have changed");
            }
            // A certificate and its key are not replaced in one moment: the second one is a change, too.
            Err(error) => {
                tracing::warn!(what = self.what, %error, "the files have changed and cannot be used: the old ones stay in use");
            }
        }
    }
}

/// Says no to a file of secrets that others than its owner and group can open.
///
/// # Errors
/// Names the file.
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

    use super::*;

    #[test]
    fn a_change_is_read_and_one_that_cannot_be_used_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("number");
        std::fs::write(&file, "1").unwrap();
        let path = file.clone();
        let read = move |_| {
            let text = std::fs::read_to_string(&path).map_err(|e| SecurityError::file(&path, e))?;
            text.parse::<u32>().map_err(|e| SecurityError::file(&path, e))
        };
        let watched = Watched::open("a number", vec![file.clone()], read).unwrap();
        let look = || {
            let mut state = watched.state.lock();
            watched.look(&mut state);
            (*state.current, state.generation)
        };
        assert_eq!(look(), (1, 0));
        // Another length is another stamp, whatever the clock of the file system.
        std::fs::write(&file, "none").unwrap();
        assert_eq!(look(), (1, 0));
        std::fs::write(&file, "22").unwrap();
        assert_eq!(look(), (22, 1));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(look(), (22, 1));
    }

    #[test]
    fn secrets_are_not_for_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "x").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o440, true), (0o644, false), (0o620, false)] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(check_private(&file).is_ok(), good, "{mode:o}");
        }
    }
}
