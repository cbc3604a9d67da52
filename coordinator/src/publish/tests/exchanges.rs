//! The errors of other file systems, and publishes where folders cannot be exchanged.
//!
//! Not here: real file systems (`tests/tests/disks.rs`, `tests/tests/file_systems.rs`).

use std::io;

use rustix::io::Errno;

use super::*;

/// A file system with other errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Emulated {
    pub(super) name: &'static str,
    /// A rename to a folder with content.
    occupied: Errno,
    /// An exchange, if it fails.
    exchange: Option<Errno>,
}

pub(super) const FILE_SYSTEMS: [Emulated; 8] = [
    Emulated { name: "ext4, btrfs, tmpfs", occupied: Errno::NOTEMPTY, exchange: None },
    Emulated { name: "XFS", occupied: Errno::EXIST, exchange: None },
    Emulated { name: "NFS", occupied: Errno::EXIST, exchange: Some(Errno::INVAL) },
    Emulated { name: "CIFS", occupied: Errno::NOTEMPTY, exchange: Some(Errno::INVAL) },
    Emulated { name: "FUSE", occupied: Errno::NOTEMPTY, exchange: Some(Errno::NOSYS) },
    Emulated { name: "a remote file system", occupied: Errno::EXIST, exchange: Some(Errno::OPNOTSUPP) },
    Emulated { name: "a filter of system calls", occupied: Errno::NOTEMPTY, exchange: Some(Errno::PERM) },
    Emulated { name: "XFS on an old kernel", occupied: Errno::EXIST, exchange: Some(Errno::NOSYS) },
];

impl FileSystem for Emulated {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        System.rename(from, to).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => self.occupied.into(),
            _ => error,
        })
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        match self.exchange {
            Some(error) if a.exists() && b.exists() => Err(error.into()),
            _ => System.exchange(a, b),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        System.list(folder)
    }
}

#[test]
fn days_are_published_on_every_file_system() {
    for system in FILE_SYSTEMS {
        let name = system.name;
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("out");
        // Of two first publishes, the second finds a day.
        let first = stage_on(system, root.path(), "a", "one");
        let second = stage_on(system, root.path(), "b", "two");
        publish(first).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(files(&output), ["one"], "{name}");
        publish(second).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(files(&output), ["two"], "{name}");
        publish(stage_on(system, root.path(), "c", "three")).unwrap();
        assert_eq!(files(root.path()), ["three"], "{name}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "{name}");
    }
}

pub(super) const NO_EXCHANGE: Emulated = FILE_SYSTEMS[2];

/// A file system without an exchange, where a staged day cannot be renamed to this path.
#[derive(Debug)]
struct NoWayBack(PathBuf);

impl FileSystem for NoWayBack {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match to == self.0 && from.ends_with(DAY) && !to.exists() {
            true => Err(Errno::XDEV.into()),
            false => NO_EXCHANGE.rename(from, to),
        }
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        NO_EXCHANGE.exchange(a, b)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        NO_EXCHANGE.list(folder)
    }
}

#[test]
fn the_old_day_comes_back_if_the_new_one_cannot_take_its_place() {
    let root = tempfile::tempdir().unwrap();
    publish(stage(root.path(), "a", "one")).unwrap();
    let target = root.path().join("out").join(DAY_FOLDER);
    let error = publish(stage_on(NoWayBack(target), root.path(), "b", "two")).unwrap_err().to_string();
    assert!(error.contains("quota"), "{error}");
    assert_eq!(files(root.path()), ["one"]);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

/// A dead job that wrote its intent to replace the day.
fn dead_with_intent(root: &Path, id: &str, text: &str) -> (PathBuf, PathBuf) {
    let folder = dead(root, id, text);
    let target = root.join("out").join(DAY_FOLDER);
    fs::write(folder.join(INTENT), target.as_os_str().as_encoded_bytes()).unwrap();
    (folder, target)
}

#[test]
fn without_an_exchange_a_publish_that_is_half_done_is_completed_by_the_next_job() {
    let root = tempfile::tempdir().unwrap();
    publish(stage_on(NO_EXCHANGE, root.path(), "a", "one")).unwrap();
    let (crashed, target) = dead_with_intent(root.path(), "c", "three");
    fs::rename(&target, crashed.join(OLD)).unwrap();
    drop(stage(root.path(), "d", "four"));
    assert_eq!(files(root.path()), ["three"]);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn without_an_exchange_an_intent_never_replaces_a_day() {
    // A job dies after its intent, and another one publishes.
    let root = tempfile::tempdir().unwrap();
    publish(stage_on(NO_EXCHANGE, root.path(), "a", "one")).unwrap();
    let next = stage_on(NO_EXCHANGE, root.path(), "b", "two");
    dead_with_intent(root.path(), "c", "dead");
    publish(next).unwrap();
    drop(stage_on(NO_EXCHANGE, root.path(), "d", "three"));
    assert_eq!(files(root.path()), ["two"]);
    // A job dies between its renames, and another one, which has begun before, publishes.
    let next = stage_on(NO_EXCHANGE, root.path(), "e", "four");
    let (crashed, target) = dead_with_intent(root.path(), "f", "dead");
    fs::rename(&target, crashed.join(OLD)).unwrap();
    publish(next).unwrap();
    drop(stage_on(NO_EXCHANGE, root.path(), "g", "five"));
    assert_eq!(files(root.path()), ["four"]);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn a_new_leader_leaves_a_later_day_alone_whose_publish_is_half_done() {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("out");
    publish(stage(root.path(), "old", "zero")).unwrap();
    let staging = stage(root.path(), "a", "one");
    let commit = staging.commit(&[winner(7)], None).unwrap();
    staging.leave();
    let (crashed, target) = dead_with_intent(root.path(), "b", "two");
    fs::rename(&target, crashed.join(OLD)).unwrap();
    let location = Location::with(output.to_str().unwrap(), DAY_FOLDER, Arc::new(NO_EXCHANGE)).unwrap();
    let error = FolderStaging::finish_commit(&location, &job("a"), 1, &commit).unwrap_err();
    assert!(matches!(error, PublishError::Replaced { .. }), "{error}");
    drop(stage(root.path(), "c", "three"));
    assert_eq!(files(root.path()), ["two"]);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}
