//! Outputs that are lost or move: what runs again, and what does not.

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

/// The same with the reduce done, each output where it ran, and two write tasks running.
fn writing() -> Rig {
    let mut rig = reducing();
    rig.ok("w0", "s1-t0-a0");
    assert_eq!(rig.ok("w1", "s1-t1-a0"), ["plan j 2"]);
    assert_eq!(rig.plan("j", 2, &[1, 1]), ["start w0 j-s2-t0-a0", "start w1 j-s2-t1-a0"]);
    rig
}

#[test]
fn a_lost_input_is_made_again_and_its_reader_waits_without_a_strike() {
    let mut rig = reducing();
    // Elsewhere than where it could not be read from, so not on the free w0.
    assert!(rig.err("w0", "s1-t0-a0", fetch_lost("w0", "s0-t0-a0")).is_empty());
    assert_eq!(rig.outputs(0), ["1@w1-a0"]);
    assert_eq!(rig.ok("w1", "s1-t1-a0"), ["start w1 j-s0-t0-a1"]);
    assert_eq!((rig.stage(1).pending, rig.stage(0).reruns), (1, 1));
    assert_eq!(rig.ok("w1", "s0-t0-a1"), ["start w0 j-s1-t0-a1"]);
    assert_eq!(rig.outputs(0), ["0@w1-a1", "1@w1-a0"]);
}

#[test]
fn an_attempt_that_cannot_be_ordered_any_more_waits_for_its_inputs_without_a_strike() {
    let mut rig = reducing();
    // More often than an attempt may fail, and than it may end for no reason.
    for round in 0..7 {
        let [first, second, third] = [0, 1, 2].map(|n| format!("s1-t0-a{}", 2 * round + n));
        assert!(rig.can_order(&first) && !rig.can_order(&second));
        let (from, to) = (if round == 0 { "w1" } else { "w0" }, format!("v{round}"));
        assert!(rig.join(&to, 0).is_empty() && rig.moved("s0-t1-a0", from, &to).is_empty());
        assert!(!rig.can_order(&first), "an output is elsewhere");
        assert_eq!(rig.not_started("w0", &first), [format!("start w0 j-{second}")]);
        assert!(rig.can_order(&second));
        assert!(rig.lose(&to).is_empty());
        assert!(!rig.can_order(&second), "an output is gone");
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
fn a_late_report_about_the_old_output_says_nothing_about_the_new_one_on_the_same_worker() {
    let (mut rig, _) = Rig::started(config(), &[2], 2, &[1]);
    rig.ok("w0", "s0-t0-a0");
    rig.plan("j", 1, &[1, 1]);
    assert_eq!(rig.err("w0", "s1-t0-a0", fetch_lost("w0", "s0-t0-a0")), ["start w0 j-s0-t0-a1"]);
    assert_eq!(rig.ok("w0", "s0-t0-a1"), ["start w0 j-s1-t0-a1"]);
    assert_eq!(rig.err("w0", "s1-t1-a0", fetch_lost("w0", "s0-t0-a0")), ["start w0 j-s1-t1-a1"]);
    assert_eq!((rig.stage(0).reruns, rig.outputs(0)), (1, vec!["0@w0-a1".to_owned()]));
}

#[test]
fn an_output_that_is_lost_again_and_again_fails_the_job() {
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
        "finish j the output of task j-s0-t0 could not be read 3 times, the last time from worker w0: gone"
    );
}

#[test]
fn a_lost_input_that_is_none_of_the_tasks_is_a_strike() {
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
fn a_reader_that_was_sent_to_the_old_holder_is_sent_again_without_a_strike() {
    let mut rig = reducing();
    assert!(rig.moved("s0-t0-a0", "w0", "w1").is_empty());
    let said = rig.err("w0", "s1-t0-a0", fetch_lost("w0", "s0-t0-a0"));
    assert_eq!(said, ["start w0 j-s1-t0-a1"]);
    assert_eq!((rig.stage(0).reruns, rig.outputs(0)[0].as_str()), (0, "0@w1-a0"));
}

#[test]
fn however_often_an_output_moves_its_reader_is_free_but_nonsense_is_not() {
    let mut rig = reducing();
    for round in 0..6 {
        let (from, to) = if round % 2 == 0 { ("w0", "w1") } else { ("w1", "w0") };
        rig.moved("s0-t0-a0", from, to);
        let said = rig.err("w0", &format!("s1-t0-a{round}"), fetch_lost(from, "s0-t0-a0"));
        assert_eq!(said, [format!("start w0 j-s1-t0-a{}", round + 1)]);
    }
    // It is not there, and did not move: the last such report is a strike, and the task avoids w0.
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
    // w1's map output is lost too, but the reduce that read it is being done again, so it is
    // needed; w0's outputs stay.
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
    // The reduce output of w1 is handed over; its map output is not.
    rig.moved("s1-t1-a0", "w1", "w0");
    assert!(rig.lose("w1").is_empty());
    assert_eq!((rig.stage(0).reruns, rig.stage(1).reruns), (0, 0));
    assert_eq!((rig.stage(0).done, rig.outputs(0)), (2, vec!["0@w0-a0".to_owned()]));
    assert_eq!(rig.ok("w0", "s2-t0-a0"), ["start w0 j-s2-t1-a1"]);
}

#[test]
fn what_was_not_needed_when_it_was_lost_is_made_again_when_it_is() {
    let mut rig = writing();
    rig.moved("s1-t1-a0", "w1", "w0");
    rig.lose("w1");
    rig.join("w2", 1);
    // Now a reduce output proves unreadable: its inputs are needed once more.
    let said = rig.err("w0", "s2-t0-a0", fetch_lost("w0", "s1-t0-a0"));
    assert_eq!(said, ["start w0 j-s0-t1-a1"]);
    assert_eq!((rig.stage(0).reruns, rig.stage(1).reruns), (1, 1));
}

#[test]
fn written_parts_need_no_worker() {
    let mut rig = writing();
    rig.ok("w0", "s2-t0-a0");
    rig.lose("w0");
    assert_eq!(rig.stage(2).done, 1);
    assert_eq!(rig.stage(2).reruns, 0);
    // They are part of what is published.
    assert_eq!(rig.outputs(2), ["0@w0-a0"]);
}

#[test]
fn a_holder_that_nobody_can_read_from_is_not_tried_output_by_output() {
    let (mut rig, _) = Rig::started(config(), &[4], 3, &[1, 1, 1, 1]);
    rig.join("w1", 1);
    rig.drain("w0");
    for task in 0..4 {
        rig.ok("w0", &format!("s0-t{task}-a0"));
    }
    assert_eq!(rig.plan("j", 1, &[1]), ["start w1 j-s1-t0-a0"]);
    // The first loss is one output's; the second is the holder's.
    assert_eq!(rig.err("w1", "s1-t0-a0", fetch_lost("w0", "s0-t0-a0")), ["start w1 j-s0-t0-a1"]);
    assert_eq!((rig.stage(0).reruns, rig.ok("w1", "s0-t0-a1")), (1, vec!["start w1 j-s1-t0-a1".to_owned()]));
    assert_eq!(rig.err("w1", "s1-t0-a1", fetch_lost("w0", "s0-t1-a0")), ["start w1 j-s0-t1-a1"]);
    assert_eq!((rig.stage(0).reruns, rig.outputs(0)), (4, vec!["0@w1-a1".to_owned()]));
}

#[test]
fn a_rerun_that_nobody_waits_for_any_more_is_stopped() {
    let (mut rig, _) = Rig::started(config(), &[2, 1], 2, &[1]);
    rig.ok("w0", "s0-t0-a0");
    rig.plan("j", 1, &[1]);
    rig.moved("s0-t0-a0", "w0", "w1");
    // The reduce task had read everything when the map output went.
    assert_eq!(rig.lose("w1"), ["start w0 j-s0-t0-a1"]);
    assert_eq!(rig.ok("w0", "s1-t0-a0"), ["stop w0 j-s0-t0-a1", "publish j"]);
    assert!(rig.err("w0", "s0-t0-a1", crate::rig::fatal("stopped in mid-read")).is_empty());
    assert_eq!(rig.published("j"), ["finish j done", "release j"]);
}

#[test]
fn an_output_that_was_handed_over_survives_its_maker() {
    let mut rig = reducing();
    rig.drain("w0");
    assert_eq!(rig.scheduler.outputs_needed_from(&worker("w0")), [crate::rig::attempt("s0-t0-a0")]);
    assert!(rig.moved("s0-t0-a0", "w0", "w1").is_empty());
    assert!(rig.scheduler.outputs_needed_from(&worker("w0")).is_empty());
    assert!(rig.lose("w0").is_empty());
    assert_eq!((rig.stage(0).reruns, rig.outputs(0)), (0, vec!["0@w1-a0".to_owned(), "1@w1-a0".to_owned()]));
}

#[test]
fn a_hand_over_that_cannot_have_been_is_ignored() {
    let mut rig = reducing();
    for (output, from, to) in [("s0-t0-a0", "w1", "w0"), ("s0-t0-a0", "w0", "w9"), ("s1-t0-a0", "w0", "w1")] {
        let said = rig.moved(output, from, to);
        let task = &output[..5];
        assert_eq!(
            said,
            [format!("warn the output of task j-{task} was not moved from worker {from} to worker {to}")]
        );
    }
    assert_eq!(rig.outputs(0), ["0@w0-a0", "1@w1-a0"]);
}

#[test]
fn outputs_that_nobody_reads_any_more_are_not_to_be_handed_over() {
    let mut rig = writing();
    assert_eq!(rig.scheduler.outputs_needed_from(&worker("w0")), [crate::rig::attempt("s1-t0-a0")]);
    rig.ok("w0", "s2-t0-a0");
    assert_eq!(rig.scheduler.outputs_held_by(&worker("w0")), 2, "all but the written part");
    rig.ok("w1", "s2-t1-a0");
    assert!(rig.scheduler.outputs_needed_from(&worker("w0")).is_empty());
}
