//! What is synced, and in which order, so that a power failure loses no decided day.
//!
//! Not here: power failures (`tests/simulation`).

use std::io;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::*;

/// A file system that notes what is synced and the day that is published, and cannot sync one folder.
#[derive(Debug, Default)]
struct Syncs {
    noted: Mutex<Vec<PathBuf>>,
    fails: PathBuf,
}

impl FileSystem for Syncs {
    fn sync(&self, path: &Path) -> io::Result<()> {
        self.noted.lock().push(path.into());
        if path == self.fails { Err(Errno::IO.into()) } else { System.sync(path) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if to.ends_with(DAY_FOLDER) {
            self.noted.lock().push(to.into());
        }
        System.rename(from, to)
    }
}

/// A staged day, and its file system.
fn stage_with_notes(root: &Path) -> (FolderStaging, Arc<Syncs>) {
    let files = Arc::new(Syncs::default());
    let output = root.join("out");
    let location = Location::with(output.to_str().unwrap(), DAY_FOLDER, files.clone()).unwrap();
    let staging = FolderStaging::prepare(location, &job("a"), 1).unwrap();
    fs::write(staging.part(0, 7), "one").unwrap();
    (staging, files)
}

#[test]
fn a_decided_day_is_durable_with_the_folders_above_it() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let (staging, files) = stage_with_notes(&root);
    staging.commit(&[winner(7)], None).unwrap();
    let siblings = root.join(".out.tally-staging");
    let mut expected = vec![siblings.join("a.1").join(DAY), siblings.join("a.1")];
    expected.extend(siblings.ancestors().map(PathBuf::from));
    assert_eq!(*files.noted.lock(), expected);
}

/// Otherwise a power failure may keep the rename of the day, and lose the name of the output that it is in.
#[test]
fn the_name_of_a_new_output_is_durable_before_a_day_is_published_in_it() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let (staging, files) = stage_with_notes(&root);
    let commit = staging.commit(&[winner(7)], None).unwrap();
    files.noted.lock().clear();
    staging.publish(&commit).unwrap();
    let noted = files.noted.lock();
    let output = root.join("out");
    let published = noted.iter().position(|path| *path == output.join(DAY_FOLDER)).unwrap();
    assert!(noted[..published].contains(&root), "{noted:?}");
    assert!(noted[published..].contains(&output), "{noted:?}");
}

#[test]
fn an_output_that_cannot_be_synced_is_an_error_that_says_which_day_is_visible() {
    let root = tempfile::tempdir().unwrap();
    publish(stage(root.path(), "a", "one")).unwrap();
    let output = root.path().canonicalize().unwrap().join("out");
    let syncs = Syncs { fails: output.clone(), ..Syncs::default() };
    let error = publish(stage_on(syncs, root.path(), "b", "two")).unwrap_err().to_string();
    assert!(error.contains("the new day is visible"), "{error}");
    assert_eq!(files(&output), ["two"]);
}
