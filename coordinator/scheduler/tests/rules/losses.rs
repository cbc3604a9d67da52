//! Lost and migrated outputs: which tasks run again, and which do not.

use crate::rig::{Rig, config, fetch_lost, worker};

/// Two map outputs on w0 and w1 (one slot each), then one reduce task on each.
fn reducing() -> Rig {
    let (mut rig, _) = Rig::started(config(), &[1, 1], 3, &[1, 1]);
    rig.ok("w0", "s0-t0-a0");
    rig.ok("w1", "s0-t1-a0");
    let said = rig.plan("j", 1, &[1, 1]);
    assert_eq!(said, ["start w0 j-s1-t0-a0", "start w1 j-s1-t1-a0"]);
    rig
}

/// The same after both reduce tasks are done, with two write tasks running.
fn writing() -> Rig {
    let mut rig = reducing();
    rig.ok("w0", "s1-t0-a0");
    assert_eq!(rig.ok("w1", "s1-t1-a0"), ["plan j 2"]);
    assert_eq!(rig.plan("j", 2, &[1, 1]), ["start w0 j-s2-t0-a0", "start w1 j-s2-t1-a0"]);
    rig
}

#[test]
fn a_lost_input_is_made_again_and_its_reader_waits_without_a_failure() {
    let mut rig = reducing();
    // It avoids the free w0, from which it could not be read.
    assert!(rig.err("w0", "s1-t0-a0", fetch_lost("w0", "s0-t0-a0")).is_empty());
    assert_eq!(rig.outputs(0), ["1@w1-a0"]);
    assert_eq!(rig.ok("w1", "s1-t1-a0"), ["start w1 j-s0-t0-a1"]);
    assert_eq!((rig.stage(1).pending, rig.stage(0).reruns), (1, 1));
    assert_eq!(rig.ok("w1", "s0-t0-a1"), ["start w0 j-s1-t0-a1"]);
    assert_eq!(rig.outputs(0), ["0@w1-a1", "1@w1-a0"]);
}

#[test]
fn an_attempt_that_cannot_be_dispatched_waits_for_its_inputs_without_a_failure() {
    let mut rig = reducing();
    // More often than a task may fail or be excused.
    for round in 0..7 {
        let [first, second, third] = [0, 1, 2].map(|n| format!("s1-t0-a{}", 2 * round + n));
        assert!(rig.can_dispatch(&first) && !rig.can_dispatch(&second));
        let (from, to) = (if round == 0 { "w1" } else { "w0" }, format!("v{round}"));
        assert!(rig.join(&to, 0).is_empty() && rig.migrated("s0-t1-a0", from, &to).is_empty());
        assert!(!rig.can_dispatch(&first), "an output was migrated");
        assert_eq!(rig.not_started("w0", &first), [format!("start w0 j-{second}")]);
        assert!(rig.can_dispatch(&second));
        assert!(rig.lose(&to).is_empty());
        assert!(!rig.can_dispatch(&second), "an output is lost");
        let map = format!("s0-t1-a{}", round + 1);
        assert_eq!(rig.not_started("w0", &second), [format!("start w0 j-{map}")]);
        assert_eq!(rig.ok("w0", &map), [format!("start w0 j-{third}")]);
    }
    assert_eq!((rig.stage(1).failed_attempts, rig.stage(1).running), (0, 2));
    let warned = rig.not_started("w0", "s1-t0-a0");
    assert_eq!(warned, ["warn attempt j-s1-t0-a0 does not run on worker w0"]);
}

#[test]
fn two_reports_of_one_lost_input_make_it_again_once() {
    let mut rig = reducing();
    rig.err("w0", "s1-t0-a0", fetch_lost("w0", "s0-t0-a0"));
    assert_eq!(rig.err("w1", "s1-t1-a0", fetch_lost("w0", "s0-t0-a0")), ["start w1 j-s0-t0-a1"]);
    assert_eq!(rig.ok("w1", "s0-t0-a1"), ["start w0 j-s1-t0-a1", "start w1 j-s1-t1-a1"]);
    assert_eq!(rig.stage(0).reruns, 1);
}

#[test]
fn a_late_report_about_the_old_output_does_not_affect_the_new_one_on_the_same_worker() {
    let (mut rig, _) = Rig::started(config(), &[2], 2, &[1]);
    rig.ok("w0", "s0-t0-a0");
    rig.plan("j", 1, &[1, 1]);
    assert_eq!(rig.err("w0", "s1-t0-a0", fetch_lost("w0", "s0-t0-a0")), ["start w0 j-s0-t0-a1"]);
    assert_eq!(rig.ok("w0", "s0-t0-a1"), ["start w0 j-s1-t0-a1"]);
    assert_eq!(rig.err("w0", "s1-t1-a0", fetch_lost("w0", "s0-t0-a0")), ["start w0 j-s1-t1-a1"]);
    assert_eq!((rig.stage(0).reruns, rig.outputs(0)), (1, vec!["0@w0-a1".to_owned()]));
}

#[test]
fn an_output_that_is_lost_too_often_fails_the_job() {
    let (mut rig, _) = Rig::started(config(), &[1], 2, &[1]);
    rig.ok("w0", "s0-t0-a0");
    rig.plan("j", 1, &[1]);
    for loss in 0..2 {
        let said = rig.err("w0", &format!("s1-t0-a{loss}"), fetch_lost("w0", "s0-t0-a0"));
        assert_eq!(said, [format!("start w0 j-s0-t0-a{}", loss + 1)]);
        rig.ok("w0", &format!("s0-t0-a{}", loss + 1));
    }
    assert_eq!(
        rig.err("w0", "s1-t0-a2", fetch_lost("w0", "s0-t0-a0"))[0],
        "finish j the output of task j-s0-t0 could not be read 3 times, the last time from worker w0: not found"
    );
}

#[test]
fn the_loss_of_an_output_that_the_task_does_not_read_is_a_failure() {
    for producer in ["s1-t1-a0", "s2-t0-a0", "s0-t9-a0", "s9-t0-a0", "k-s0-t0-a0"] {
        let (mut rig, _) = Rig::started(config(), &[1], 3, &[1]);
        rig.ok("w0", "s0-t0-a0");
        rig.plan("j", 1, &[1]);
        rig.err("w0", "s1-t0-a0", fetch_lost("w0", producer));
        rig.err("w0", "s1-t0-a1", fetch_lost("w0", producer));
        let said = rig.err("w0", "s1-t0-a2", fetch_lost("w0", producer));
        assert!(said[0].starts_with("finish j task j-s1-t0 failed 3 times"), "{producer}: {said:?}");
        assert!(said[0].contains("none of its inputs"), "{producer}: {said:?}");
    }
}

#[test]
fn a_reader_with_the_old_location_is_retried_without_a_failure() {
    let mut rig = reducing();
    assert!(rig.migrated("s0-t0-a0", "w0", "w1").is_empty());
    let said = rig.err("w0", "s1-t0-a0", fetch_lost("w0", "s0-t0-a0"));
    assert_eq!(said, ["start w0 j-s1-t0-a1"]);
    assert_eq!((rig.stage(0).reruns, rig.outputs(0)[0].as_str()), (0, "0@w1-a0"));
}

#[test]
fn migrations_never_count_against_a_reader_but_wrong_locations_do() {
    let mut rig = reducing();
    for round in 0..6 {
        let (from, to) = if round % 2 == 0 { ("w0", "w1") } else { ("w1", "w0") };
        rig.migrated("s0-t0-a0", from, to);
        let said = rig.err("w0", &format!("s1-t0-a{round}"), fetch_lost(from, "s0-t0-a0"));
        assert_eq!(said, [format!("start w0 j-s1-t0-a{}", round + 1)]);
    }
    // The output is not there and was not migrated: the last such report is a failure, and the task avoids w0.
    let free = config().max_excused;
    for wrong in 1..=free + 1 {
        let said = rig.err("w0", &format!("s1-t0-a{}", 5 + wrong), fetch_lost("w1", "s0-t0-a0"));
        assert_eq!(said.is_empty(), wrong > free, "{wrong}: {said:?}");
    }
    assert_eq!(rig.stage(0).reruns, 0);
}

#[test]
fn the_loss_of_a_worker_runs_its_needed_outputs_again_and_only_those() {
    let mut rig = writing();
    // w1's map output is lost, too. The reduce task that read it runs again, so the output is needed. w0's outputs stay.
    assert!(rig.lose("w1").is_empty());
    assert_eq!((rig.stage(0).reruns, rig.stage(1).reruns), (1, 1));
    assert_eq!(rig.outputs(1), ["0@w0-a0"]);
    assert_eq!(rig.ok("w0", "s2-t0-a0"), ["start w0 j-s0-t1-a1"]);
    assert_eq!(rig.ok("w0", "s0-t1-a1"), ["start w0 j-s1-t1-a1"]);
    assert_eq!(rig.ok("w0", "s1-t1-a1"), ["start w0 j-s2-t1-a1"]);
    assert_eq!(rig.ok("w0", "s2-t1-a1"), ["publish j"]);
}

#[test]
fn map_outputs_are_not_made_again_when_the_reduce_is_done_and_has_its_outputs() {
    let mut rig = writing();
    // The reduce output of w1 is migrated; its map output is not.
    rig.migrated("s1-t1-a0", "w1", "w0");
    assert!(rig.lose("w1").is_empty());
    assert_eq!((rig.stage(0).reruns, rig.stage(1).reruns), (0, 0));
    assert_eq!((rig.stage(0).done, rig.outputs(0)), (2, vec!["0@w0-a0".to_owned()]));
    assert_eq!(rig.ok("w0", "s2-t0-a0"), ["start w0 j-s2-t1-a1"]);
}

#[test]
fn a_lost_output_that_was_not_needed_is_made_again_when_it_is_needed() {
    let mut rig = writing();
    rig.migrated("s1-t1-a0", "w1", "w0");
    rig.lose("w1");
    rig.join("w2", 1);
    // A reduce output is unreadable: its inputs are needed again.
    let said = rig.err("w0", "s2-t0-a0", fetch_lost("w0", "s1-t0-a0"));
    assert_eq!(said, ["start w0 j-s0-t1-a1"]);
    assert_eq!((rig.stage(0).reruns, rig.stage(1).reruns), (1, 1));
}

#[test]
fn written_part_files_need_no_worker() {
    let mut rig = writing();
    rig.ok("w0", "s2-t0-a0");
    rig.lose("w0");
    assert_eq!(rig.stage(2).done, 1);
    assert_eq!(rig.stage(2).reruns, 0);
    // They are published.
    assert_eq!(rig.outputs(2), ["0@w0-a0"]);
}

#[test]
fn after_several_unreadable_outputs_all_outputs_of_a_worker_count_as_lost() {
    let (mut rig, _) = Rig::started(config(), &[4], 3, &[1, 1, 1, 1]);
    rig.join("w1", 1);
    rig.drain("w0");
    for task in 0..4 {
        rig.ok("w0", &format!("s0-t{task}-a0"));
    }
    assert_eq!(rig.plan("j", 1, &[1]), ["start w1 j-s1-t0-a0"]);
    // The first loss affects one output; the second affects all of the worker's.
    assert_eq!(rig.err("w1", "s1-t0-a0", fetch_lost("w0", "s0-t0-a0")), ["start w1 j-s0-t0-a1"]);
    assert_eq!((rig.stage(0).reruns, rig.ok("w1", "s0-t0-a1")), (1, vec!["start w1 j-s1-t0-a1".to_owned()]));
    assert_eq!(rig.err("w1", "s1-t0-a1", fetch_lost("w0", "s0-t1-a0")), ["start w1 j-s0-t1-a1"]);
    assert_eq!((rig.stage(0).reruns, rig.outputs(0)), (4, vec!["0@w1-a1".to_owned()]));
}

#[test]
fn a_rerun_that_is_no_longer_needed_is_stopped() {
    let (mut rig, _) = Rig::started(config(), &[2, 1], 2, &[1]);
    rig.ok("w0", "s0-t0-a0");
    rig.plan("j", 1, &[1]);
    rig.migrated("s0-t0-a0", "w0", "w1");
    // The reduce task had read the map output before it was lost.
    assert_eq!(rig.lose("w1"), ["start w0 j-s0-t0-a1"]);
    assert_eq!(rig.ok("w0", "s1-t0-a0"), ["stop w0 j-s0-t0-a1", "publish j"]);
    assert!(rig.err("w0", "s0-t0-a1", crate::rig::fatal("stopped in mid-read")).is_empty());
    assert_eq!(rig.published("j"), ["finish j done", "release j"]);
}

#[test]
fn a_migrated_output_survives_the_worker_that_made_it() {
    let mut rig = reducing();
    rig.drain("w0");
    assert_eq!(rig.scheduler.outputs_needed_from(&worker("w0")), [crate::rig::attempt("s0-t0-a0")]);
    assert!(rig.migrated("s0-t0-a0", "w0", "w1").is_empty());
    assert!(rig.scheduler.outputs_needed_from(&worker("w0")).is_empty());
    assert!(rig.lose("w0").is_empty());
    assert_eq!((rig.stage(0).reruns, rig.outputs(0)), (0, vec!["0@w1-a0".to_owned(), "1@w1-a0".to_owned()]));
}

#[test]
fn an_impossible_migration_is_ignored() {
    let mut rig = reducing();
    for (output, from, to) in [("s0-t0-a0", "w1", "w0"), ("s0-t0-a0", "w0", "w9"), ("s1-t0-a0", "w0", "w1")] {
        let said = rig.migrated(output, from, to);
        let task = &output[..5];
        assert_eq!(
            said,
            [format!("warn the output of task j-{task} was not migrated from worker {from} to worker {to}")]
        );
    }
    assert_eq!(rig.outputs(0), ["0@w0-a0", "1@w1-a0"]);
}

#[test]
fn outputs_that_are_no_longer_read_need_no_migration() {
    let mut rig = writing();
    assert_eq!(rig.scheduler.outputs_needed_from(&worker("w0")), [crate::rig::attempt("s1-t0-a0")]);
    rig.ok("w0", "s2-t0-a0");
    assert_eq!(rig.scheduler.outputs_held_by(&worker("w0")), 2, "all but the written part");
    rig.ok("w1", "s2-t1-a0");
    assert!(rig.scheduler.outputs_needed_from(&worker("w0")).is_empty());
}
