//! Staging folders: publish, abort, takeover.
//!
//! Not here: file systems with other errors and without an exchange (`exchanges`), what is synced (`durability`).

mod durability;
mod exchanges;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tally_proto::JobId;

use self::exchanges::{FILE_SYSTEMS, NO_EXCHANGE};
use super::file_system::{FileSystem, System};
use super::folder::{DAY, LOCK, PARTS, aside};
use super::folder_staging::Location;
use super::replace::{INTENT, OLD, TURN};
use super::*;
use crate::ready_marker::ReadyMarker;

const DAY_FOLDER: &str = "submission_date_s3=20170227";

fn job(id: &str) -> JobId {
    JobId::parse(id).unwrap()
}

fn day_at(output: &Path, day_folder: &str) -> Location {
    Location::with(output.to_str().unwrap(), day_folder, Arc::new(System)).unwrap()
}

fn at(output: &Path) -> Location {
    day_at(output, DAY_FOLDER)
}

fn stage(root: &Path, id: &str, text: &str) -> FolderStaging {
    let output = root.join("out");
    let staging = FolderStaging::prepare(at(&output), &job(id), 0).unwrap();
    fs::write(staging.part(0, 7), text).unwrap();
    staging
}

/// The part file that `stage` writes.
fn winner(attempt: u32) -> StagedPart {
    StagedPart { index: 0, attempt, folder: None }
}

fn publish(staging: FolderStaging) -> Result<(), PublishError> {
    let commit = staging.commit(&[winner(7)], None)?;
    staging.publish(&commit)
}

/// A staged day on another file system.
fn stage_on(files: impl FileSystem + 'static, root: &Path, id: &str, text: &str) -> FolderStaging {
    let output = root.join("out");
    let location = Location::with(output.to_str().unwrap(), DAY_FOLDER, Arc::new(files)).unwrap();
    let staging = FolderStaging::prepare(location, &job(id), 0).unwrap();
    fs::write(staging.part(0, 7), text).unwrap();
    staging
}

/// The remains of a killed job: its folder, and a lock that no process holds.
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
    publish(stage(root.path(), "a", "one")).unwrap();
    assert_eq!(files(root.path()), ["one"]);
    publish(stage(root.path(), "b", "two")).unwrap();
    assert_eq!(files(root.path()), ["two"]);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn files_in_folders_of_a_day_replace_all_of_the_old_day_in_one_step() {
    for system in FILE_SYSTEMS {
        let root = tempfile::tempdir().unwrap();
        let day = root.path().join("out").join(DAY_FOLDER);
        for (folder, text) in [("sample_id=1", "old one"), ("sample_id=9", "old nine"), ("", "old")] {
            fs::create_dir_all(day.join(folder)).unwrap();
            fs::write(day.join(folder).join("part"), text).unwrap();
        }
        let staging = stage_on(system, root.path(), "a", "one");
        fs::write(staging.part(1, 2), "two").unwrap();
        let in_folder = |folder: &str, part| StagedPart { folder: Some(folder.into()), ..part };
        let second = StagedPart { index: 1, attempt: 2, folder: None };
        let winners = [in_folder("sample_id=0", winner(7)), in_folder("sample_id=1", second)];
        let commit = staging.commit(&winners, None).unwrap();
        assert_eq!(commit.parts[1], "sample_id=1/part-00001-a.snappy.parquet");
        staging.publish(&commit).unwrap();
        assert_eq!(finish(&root.path().join("out"), 1, &commit), Finished::Done, "{}", system.name);
        assert_eq!(files(root.path()), ["one", "two"], "{}", system.name);
        assert_eq!(files(&day.join("sample_id=1")), ["two"]);
        assert_eq!((fs::read_dir(root.path()).unwrap().count(), fs::read_dir(&day).unwrap().count()), (1, 2));
    }
}

#[test]
fn an_abort_leaves_the_old_day_and_no_new_folder() {
    let root = tempfile::tempdir().unwrap();
    publish(stage(root.path(), "a", "one")).unwrap();
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
    let removed_in_part = dead(root.path(), "older", "older");
    fs::remove_file(removed_in_part.join(LOCK)).unwrap();
    let living = stage(root.path(), "living", "alive");
    assert!(!folder.exists() && !removed_in_part.exists());
    drop(stage(root.path(), "third", "third"));
    assert!(living.folder.exists());
    publish(living).unwrap();
    assert_eq!(files(root.path()), ["alive"]);
}

#[test]
fn a_linked_day_and_another_file_system_are_refused_before_any_work() {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("out");
    fs::create_dir(&output).unwrap();
    std::os::unix::fs::symlink(root.path(), output.join(DAY_FOLDER)).unwrap();
    let prepare = |output: &Path| FolderStaging::prepare(at(output), &job("a"), 0);
    assert!(prepare(&output).unwrap_err().to_string().contains("something other than a folder"));
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
            drop(FolderStaging::prepare(at(&output), &id, 0).unwrap());
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
    let error = FolderStaging::prepare(at(&output), &job("a"), 0).unwrap_err();
    assert!(error.to_string().contains("out"), "{error}");
    let under = root.path().join("out/deeper");
    let error = FolderStaging::prepare(at(&under), &job("a"), 0).unwrap_err();
    assert!(error.to_string().contains("out"), "{error}");
    assert_eq!(files(root.path()), ["x"]);
}

#[test]
fn files_of_losing_attempts_are_not_published() {
    let root = tempfile::tempdir().unwrap();
    let staging = stage(root.path(), "a", "winner");
    fs::write(staging.part(0, 8), "loser").unwrap();
    let late = staging.part(1, 3);
    let commit = staging.commit(&[winner(7)], None).unwrap();
    fs::write(&late, "late loser").unwrap();
    staging.publish(&commit).unwrap();
    assert_eq!(files(root.path()), ["winner"]);
    assert!(fs::write(late, "later still").is_err());
}

#[test]
fn a_later_leader_takes_over_what_an_earlier_one_staged() {
    for held in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("deep/er/out");
        let first = FolderStaging::prepare(at(&output), &job("a"), 3).unwrap();
        fs::write(first.part(0, 1), "one").unwrap();
        let late = first.part(0, 2);
        // A leader that hangs holds its lock, and may wake up.
        let hangs = if held {
            Some(first)
        } else {
            first.leave();
            None
        };
        assert!(FolderStaging::adopt(&at(&output), &job("b"), 4).is_none(), "another job's");
        assert!(FolderStaging::adopt(&at(&output), &job("a"), 3).is_none(), "no earlier epoch's");
        let adopted = FolderStaging::adopt(&at(&output), &job("a"), 4).unwrap();
        assert!(adopted.part(0, 1).parent().unwrap().read_dir().unwrap().next().is_none());
        drop(FolderStaging::prepare(at(&output), &job("other"), 4).unwrap());
        assert!(adopted.folder.exists());
        if let Some(awake) = hangs {
            assert!(fs::write(late, "late").is_err() && awake.commit(&[winner(1)], None).is_err());
            drop(awake);
            assert!(adopted.folder.join(PARTS).exists());
        }
        drop(adopted);
        assert!(
            !root.path().join("deep").exists(),
            "folders that the first leader created are removed with the job"
        );
    }
}

/// Carries out a commit of job `a` in a later epoch.
fn finish(output: &Path, epoch: u64, commit: &Commit) -> Finished {
    FolderStaging::finish_commit(&at(output), &job("a"), epoch, commit).unwrap()
}

#[test]
fn a_decided_publish_is_carried_out_once_by_any_leader() {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("out");
    publish(stage(root.path(), "old", "zero")).unwrap();
    let staging = stage(root.path(), "a", "one");
    let commit = staging.commit(&[winner(7)], None).unwrap();
    staging.leave();
    assert_eq!(finish(&output, 1, &commit), Finished::Done);
    assert_eq!((files(root.path()), finish(&output, 2, &commit)), (vec!["one".to_string()], Finished::Done));
    // The leader died after the exchange, before it removed the old day.
    let staging = stage(root.path(), "a", "two");
    let commit = staging.commit(&[winner(7)], None).unwrap();
    System.exchange(&staging.folder.join(DAY), &staging.location.target).unwrap();
    staging.leave();
    assert_eq!((finish(&output, 1, &commit), files(root.path())), (Finished::Done, vec!["two".to_string()]));
    // The leader died while it removed the old day.
    let staging = stage(root.path(), "a", "three");
    let commit = staging.commit(&[winner(7)], None).unwrap();
    System.exchange(&staging.folder.join(DAY), &staging.location.target).unwrap();
    fs::rename(&staging.folder, staging.location.siblings.join(aside("a.0"))).unwrap();
    staging.leave();
    assert_eq!(
        (finish(&output, 1, &commit), files(root.path())),
        (Finished::Done, vec!["three".to_string()])
    );
    // The staged day was removed.
    publish(stage(root.path(), "b", "four")).unwrap();
    let staging = stage(root.path(), "a", "five");
    let commit = staging.commit(&[winner(7)], None).unwrap();
    drop(staging);
    assert_eq!((finish(&output, 1, &commit), files(root.path())), (Finished::Gone, vec!["four".to_string()]));
}

#[test]
fn the_ready_marker_is_part_of_the_day_also_after_a_takeover() {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("out");
    let marker: ReadyMarker = "_SUCCESS".parse().unwrap();
    let there = output.join(DAY_FOLDER).join("_SUCCESS");
    let staging = stage(root.path(), "a", "one");
    let commit = staging.commit(&[winner(7)], Some(&marker)).unwrap();
    assert!(!there.exists() && !commit.parts.contains(&"_SUCCESS".to_string()));
    staging.leave();
    assert_eq!(finish(&output, 1, &commit), Finished::Done);
    assert_eq!(fs::read(&there).unwrap(), b"");
    // A job without a marker replaces the day; one that is not published changes nothing.
    drop(stage(root.path(), "b", "two"));
    assert!(there.exists());
    publish(stage(root.path(), "c", "three")).unwrap();
    assert!(!there.exists());
    for system in FILE_SYSTEMS {
        let staging = stage_on(system, root.path(), "d", "four");
        let commit = staging.commit(&[winner(7)], Some(&marker)).unwrap();
        staging.publish(&commit).unwrap();
        assert!(there.exists(), "{}", system.name);
        publish(stage(root.path(), "e", "five")).unwrap();
        assert!(!there.exists(), "{}", system.name);
    }
}

#[test]
fn a_leader_that_hangs_between_decision_and_exchange_neither_delays_the_next_nor_changes_its_day() {
    // Before the exchange, after it, and with renames in place of one, between the two.
    for at in ["before", "after", "between"] {
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("out");
        publish(stage(root.path(), "old", "zero")).unwrap();
        let hangs = stage(root.path(), "a", "one");
        let commit = hangs.commit(&[winner(7)], None).unwrap();
        match at {
            "after" => System.exchange(&hangs.folder.join(DAY), &hangs.location.target).unwrap(),
            "between" => {
                let target = hangs.location.target.as_os_str().as_encoded_bytes();
                fs::write(hangs.folder.join(INTENT), target).unwrap();
                fs::rename(&hangs.location.target, hangs.folder.join(OLD)).unwrap();
            }
            _ => {}
        }
        assert_eq!(finish(&output, 1, &commit), Finished::Done, "{at}");
        assert_eq!(files(root.path()), ["one"], "{at}");
        // Another job replaces the day before the first leader wakes up and continues.
        publish(stage(root.path(), "next", "two")).unwrap();
        assert!(hangs.replace(&commit).is_err(), "{at}");
        let mut hangs = hangs;
        hangs.location.files = Arc::new(NO_EXCHANGE);
        assert!(hangs.publish(&commit).is_err(), "{at}");
        assert_eq!(files(root.path()), ["two"], "{at}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "{at}");
    }
}

#[test]
fn an_earlier_leader_removes_nothing_of_a_later_leader() {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("out");
    let prepare = |epoch| FolderStaging::prepare(at(&output), &job("a"), epoch).unwrap();
    let (early, late) = (prepare(1), prepare(2));
    drop(early);
    assert!(late.folder.join(PARTS).exists());
    let (_held, folder) = (prepare(1), late.folder.clone());
    drop(late);
    assert!(!folder.exists() && !root.path().join(".out.tally-staging").exists());
}

#[test]
fn a_decided_day_is_recognised_on_another_machine() {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("out");
    let elsewhere = |commit: Commit| Commit { device: commit.device + 1, inode: 0, ..commit };
    publish(stage(root.path(), "old", "zero")).unwrap();
    // Not yet published.
    let staging = stage(root.path(), "a", "one");
    let commit = elsewhere(staging.commit(&[winner(7)], None).unwrap());
    staging.leave();
    assert_eq!((finish(&output, 1, &commit), files(root.path())), (Finished::Done, vec!["one".to_string()]));
    // Published, and the old day is still there.
    let staging = stage(root.path(), "a", "two");
    let commit = elsewhere(staging.commit(&[winner(7)], None).unwrap());
    System.exchange(&staging.folder.join(DAY), &staging.location.target).unwrap();
    staging.leave();
    assert_eq!((finish(&output, 1, &commit), files(root.path())), (Finished::Done, vec!["two".to_string()]));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn a_new_leader_leaves_a_later_day_alone() {
    let finish =
        |output: &Path, commit: &Commit| FolderStaging::finish_commit(&at(output), &job("a"), 1, commit);
    for (was_published, has_old_day) in [(false, false), (false, true), (true, false), (true, true)] {
        let what = format!("{was_published} {has_old_day}");
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("out");
        if has_old_day {
            publish(stage(root.path(), "old", "zero")).unwrap();
        }
        let staging = stage(root.path(), "a", "one");
        let commit = staging.commit(&[winner(7)], None).unwrap();
        if was_published {
            staging.replace(&commit).unwrap();
        }
        staging.leave();
        publish(stage(root.path(), "b", "two")).unwrap();
        let error = finish(&output, &commit).unwrap_err();
        assert!(matches!(error, PublishError::Replaced { .. }), "{what}: {error}");
        assert_eq!(files(root.path()), ["two"], "{what}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "{what}");
    }
}

#[test]
fn a_decision_of_version_0_1_0_is_carried_out() {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("out");
    publish(stage(root.path(), "old", "zero")).unwrap();
    let staging = stage(root.path(), "a", "one");
    let commit = Commit { replaces: None, ..staging.commit(&[winner(7)], None).unwrap() };
    staging.leave();
    assert_eq!(finish(&output, 1, &commit), Finished::Done);
    assert_eq!((finish(&output, 2, &commit), files(root.path())), (Finished::Done, vec!["one".to_string()]));
}

#[test]
fn another_job_leaves_the_staged_day_of_a_dead_coordinator_to_its_next_leader() {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("out");
    let staging = FolderStaging::prepare(at(&output), &job("a"), 1).unwrap();
    fs::write(staging.part(0, 7), "one").unwrap();
    let commit = staging.commit(&[winner(7)], None).unwrap();
    let folder = staging.folder.clone();
    staging.leave();
    drop(FolderStaging::prepare(day_at(&output, "submission_date_s3=20170228"), &job("b"), 0).unwrap());
    assert!(folder.exists());
    assert_eq!((finish(&output, 2, &commit), files(root.path())), (Finished::Done, vec!["one".to_string()]));
    // Without a staged day, nothing was decided.
    let staging = FolderStaging::prepare(at(&output), &job("c"), 1).unwrap();
    let folder = staging.folder.clone();
    staging.leave();
    drop(FolderStaging::prepare(at(&output), &job("d"), 0).unwrap());
    assert!(!folder.exists());
}

#[test]
fn the_lock_of_turns_of_a_dead_publisher_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let turn = root.path().join(".out.tally-staging").join(TURN);
    fs::create_dir(turn.parent().unwrap()).unwrap();
    let held = fs::File::create(&turn).unwrap();
    held.lock().unwrap();
    drop(stage(root.path(), "a", "one"));
    assert!(turn.exists());
    drop(held);
    drop(stage(root.path(), "b", "two"));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}
