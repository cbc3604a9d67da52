//! Days that are staged, published, given up, and taken over.

use super::folder::{DAY, INTENT, LOCK, OLD};
use super::*;

fn job(id: &str) -> JobId {
    JobId::parse(id).unwrap()
}

fn stage(root: &Path, id: &str, text: &str) -> Staging {
    let output = root.join("out");
    let staging = Staging::prepare(output.to_str().unwrap(), "20170227", &job(id), 0).unwrap();
    fs::write(staging.part(0, 7), text).unwrap();
    staging
}

fn publish(staging: Staging) -> Result<(), PublishError> {
    staging.commit(&[(0, 7)])?;
    staging.publish()
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
    publish(stage(root.path(), "a", "one")).unwrap();
    assert_eq!(files(root.path()), ["one"]);
    publish(stage(root.path(), "b", "two")).unwrap();
    assert_eq!(files(root.path()), ["two"]);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
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
fn without_an_exchange_a_crash_between_the_renames_is_finished_by_the_next_job() {
    let root = tempfile::tempdir().unwrap();
    publish(stage(root.path(), "a", "one")).unwrap();
    let none = |_: &Path, _: &Path| Err(io::Error::from(io::ErrorKind::InvalidInput));
    let second = stage(root.path(), "b", "two");
    second.commit(&[(0, 7)]).unwrap();
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
    let prepare = |output: &Path| Staging::prepare(output.to_str().unwrap(), "20170227", &job("a"), 0);
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
            drop(Staging::prepare(output.to_str().unwrap(), "20170227", &id, 0).unwrap());
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
    let error = Staging::prepare(output.to_str().unwrap(), "20170227", &job("a"), 0).unwrap_err();
    assert!(error.to_string().contains("out"), "{error}");
    let under = root.path().join("out/deeper");
    let error = Staging::prepare(under.to_str().unwrap(), "20170227", &job("a"), 0).unwrap_err();
    assert!(error.to_string().contains("out"), "{error}");
    assert_eq!(files(root.path()), ["x"]);
}

#[test]
fn what_losers_wrote_is_not_published() {
    let root = tempfile::tempdir().unwrap();
    let staging = stage(root.path(), "a", "winner");
    fs::write(staging.part(0, 8), "loser").unwrap();
    let late = staging.part(1, 3);
    staging.commit(&[(0, 7)]).unwrap();
    fs::write(&late, "late loser").unwrap();
    staging.publish().unwrap();
    assert_eq!(files(root.path()), ["winner"]);
    assert!(fs::write(late, "later still").is_err());
}

#[test]
fn a_later_leader_takes_over_what_an_earlier_one_staged() {
    for held in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("deep/er/out");
        let text = output.to_str().unwrap();
        let first = Staging::prepare(text, "20170227", &job("a"), 3).unwrap();
        fs::write(first.part(0, 1), "one").unwrap();
        let late = first.part(0, 2);
        // One that hangs holds its lock, and may wake up.
        let hangs = if held {
            Some(first)
        } else {
            first.leave();
            None
        };
        assert!(Staging::adopt(text, "20170227", &job("b"), 4).is_none(), "another job's");
        assert!(Staging::adopt(text, "20170227", &job("a"), 3).is_none(), "no earlier epoch's");
        let adopted = Staging::adopt(text, "20170227", &job("a"), 4).unwrap();
        assert!(adopted.part(0, 1).parent().unwrap().read_dir().unwrap().next().is_none());
        drop(Staging::prepare(text, "20170227", &job("other"), 4).unwrap());
        assert!(adopted.folder.exists());
        if let Some(awake) = hangs {
            assert!(fs::write(late, "late").is_err() && awake.commit(&[(0, 1)]).is_err());
            drop(awake);
            assert!(adopted.folder.join(PARTS).exists());
        }
        drop(adopted);
        assert!(!root.path().join("deep").exists(), "folders made by the first leader go with the job");
    }
}

/// Carries a commit of job `a` out, in a later epoch.
fn finish(output: &Path, epoch: u64, commit: &Commit) -> Finished {
    Staging::finish_commit(output.to_str().unwrap(), "20170227", &job("a"), epoch, commit).unwrap()
}

#[test]
fn a_decided_publish_is_carried_out_once_whoever_does_it() {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("out");
    publish(stage(root.path(), "old", "zero")).unwrap();
    let staging = stage(root.path(), "a", "one");
    let commit = staging.commit(&[(0, 7)]).unwrap();
    staging.leave();
    assert_eq!(finish(&output, 1, &commit), Finished::Done);
    assert_eq!((files(root.path()), finish(&output, 2, &commit)), (vec!["one".to_string()], Finished::Done));
    // The leader died after the exchange, before it removed the old day.
    let staging = stage(root.path(), "a", "two");
    let commit = staging.commit(&[(0, 7)]).unwrap();
    exchange(&staging.folder.join(DAY), &staging.target).unwrap();
    staging.leave();
    assert_eq!((finish(&output, 1, &commit), files(root.path())), (Finished::Done, vec!["two".to_string()]));
    // The leader died while it removed the old day.
    let staging = stage(root.path(), "a", "three");
    let commit = staging.commit(&[(0, 7)]).unwrap();
    exchange(&staging.folder.join(DAY), &staging.target).unwrap();
    fs::rename(&staging.folder, staging.siblings.join(aside("a.0"))).unwrap();
    staging.leave();
    assert_eq!(
        (finish(&output, 1, &commit), files(root.path())),
        (Finished::Done, vec!["three".to_string()])
    );
    // Somebody removed what was staged.
    let staging = stage(root.path(), "a", "four");
    let commit = staging.commit(&[(0, 7)]).unwrap();
    drop(staging);
    assert_eq!(
        (finish(&output, 1, &commit), files(root.path())),
        (Finished::Gone, vec!["three".to_string()])
    );
}

#[test]
fn a_leader_that_hangs_between_decision_and_exchange_is_not_waited_for_and_does_no_harm_awake() {
    // Before the exchange, after it, and with renames in place of one, between the two.
    for at in ["before", "after", "between"] {
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("out");
        publish(stage(root.path(), "old", "zero")).unwrap();
        let hangs = stage(root.path(), "a", "one");
        let commit = hangs.commit(&[(0, 7)]).unwrap();
        match at {
            "after" => exchange(&hangs.folder.join(DAY), &hangs.target).unwrap(),
            "between" => fs::rename(&hangs.target, hangs.folder.join(OLD)).unwrap(),
            _ => {}
        }
        assert_eq!(finish(&output, 1, &commit), Finished::Done, "{at}");
        assert_eq!(files(root.path()), ["one"], "{at}");
        // Another job makes the day anew before the first leader wakes up and goes on.
        publish(stage(root.path(), "next", "two")).unwrap();
        let renames = |_: &Path, _: &Path| Err(io::Error::from(io::ErrorKind::InvalidInput));
        assert!(swap(&hangs.folder, &hangs.target, exchange).is_err(), "{at}");
        assert!(swap(&hangs.folder, &hangs.target, renames).is_err(), "{at}");
        assert!(hangs.publish().is_err(), "{at}");
        assert_eq!(files(root.path()), ["two"], "{at}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "{at}");
    }
}

#[test]
fn an_earlier_leader_removes_nothing_of_a_later_ones() {
    let root = tempfile::tempdir().unwrap();
    let output = root.path().join("out");
    let prepare = |epoch| Staging::prepare(output.to_str().unwrap(), "20170227", &job("a"), epoch).unwrap();
    let (early, late) = (prepare(1), prepare(2));
    drop(early);
    assert!(late.folder.join(PARTS).exists());
    let (_held, folder) = (prepare(1), late.folder.clone());
    drop(late);
    assert!(!folder.exists() && !root.path().join(".out.tally-staging").exists());
}
