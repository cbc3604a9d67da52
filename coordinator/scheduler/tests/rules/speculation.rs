//! Speculative attempts: when one starts, where, which result counts, and what happens to the other attempt.

use tally_proto::failure::Failure;
use tally_scheduler::{Config, Speculation};

use crate::rig::{Rig, config, fetch_lost, millis, retryable};

fn speculating() -> Config {
    let rule = Speculation { quantile: 0.75, multiplier: 2.0, minimum: millis(50) };
    Config { speculation: Some(rule), ..config() }
}

/// Four tasks on w0, w1; at 100 ms three are done (median 100), the last runs on w1 since 0.
fn straggling(config: Config) -> Rig {
    let (mut rig, _) = Rig::started(config, &[2, 2], 1, &[4, 3, 2, 1]);
    rig.now = 100;
    rig.ok("w0", "s0-t0-a0");
    rig.ok("w0", "s0-t3-a0");
    rig.ok("w1", "s0-t2-a0");
    assert_eq!(rig.stage(0).running, 1);
    rig
}

/// The same with its speculative attempt on w0.
fn doubled(config: Config) -> Rig {
    let mut rig = straggling(config);
    assert_eq!(rig.tick(200), ["start w0 j-s0-t1-a1"]);
    rig
}

#[test]
fn a_straggler_gets_a_speculative_attempt_when_it_is_slow() {
    let mut rig = straggling(speculating());
    assert_eq!(rig.wakeup(), Some(200));
    assert!(rig.tick(199).is_empty());
    assert_eq!(rig.tick(200), ["start w0 j-s0-t1-a1"]);
    assert_eq!((rig.stage(0).running, rig.stage(0).speculative_attempts), (1, 1));
    assert_eq!(rig.wakeup(), None);
    assert!(rig.tick(100_000).is_empty(), "never more than two");
}

#[test]
fn the_first_result_wins_and_the_late_one_changes_nothing() {
    for (winner, on, loser, loser_on) in
        [("s0-t1-a1", "w0", "s0-t1-a0", "w1"), ("s0-t1-a0", "w1", "s0-t1-a1", "w0")]
    {
        for late in [Ok(()), Err(Failure::Cancelled), Err(retryable("killed"))] {
            let mut rig = doubled(speculating());
            assert_eq!(rig.ok(on, winner), [format!("stop {loser_on} j-{loser}"), "publish j".into()]);
            let expect = format!("1@{on}-{}", &winner[6..]);
            assert_eq!(rig.outputs(0)[1], expect);
            let said = match late {
                Ok(()) => rig.ok(loser_on, loser),
                Err(failure) => rig.err(loser_on, loser, failure),
            };
            assert!(said.is_empty(), "{said:?}");
            assert_eq!(rig.outputs(0)[1], expect);
            assert_eq!((rig.stage(0).done, rig.stage(0).failed_attempts), (4, 0));
        }
    }
}

#[test]
fn when_one_of_two_attempts_fails_the_other_continues() {
    let mut rig = doubled(Config { max_attempts: 1, ..speculating() });
    assert!(rig.err("w1", "s0-t1-a0", retryable("i/o")).is_empty(), "even after the last failure");
    assert_eq!((rig.stage(0).running, rig.stage(0).waiting), (1, 0));
    assert_eq!(rig.ok("w0", "s0-t1-a1"), ["publish j"]);

    let mut rig = doubled(Config { max_attempts: 1, ..speculating() });
    rig.err("w1", "s0-t1-a0", retryable("i/o"));
    let said = rig.err("w0", "s0-t1-a1", retryable("i/o"));
    assert!(said[0].starts_with("finish j task j-s0-t1 failed 2 times"), "{said:?}");
}

#[test]
fn the_loss_of_the_first_attempts_worker_leaves_the_speculative_one_running() {
    let mut rig = doubled(speculating());
    assert!(rig.lose("w1").is_empty());
    assert_eq!(rig.ok("w0", "s0-t1-a1"), ["publish j"]);
}

#[test]
fn without_speculation_a_straggler_is_left_alone() {
    let mut rig = straggling(config());
    assert_eq!(rig.wakeup(), None);
    assert!(rig.tick(1_000_000).is_empty());
}

#[test]
fn nothing_is_slow_before_enough_tasks_are_done() {
    let (mut rig, _) = Rig::started(speculating(), &[2, 2], 1, &[4, 3, 2, 1]);
    rig.now = 100;
    rig.ok("w0", "s0-t0-a0");
    rig.ok("w1", "s0-t2-a0");
    assert_eq!(rig.wakeup(), None);
    assert!(rig.tick(1_000_000).is_empty());
}

#[test]
fn nothing_is_slow_before_the_minimum() {
    let rule = Speculation { quantile: 0.75, multiplier: 2.0, minimum: millis(700) };
    let mut rig = straggling(Config { speculation: Some(rule), ..config() });
    assert_eq!(rig.wakeup(), Some(700));
    assert!(rig.tick(699).is_empty());
    assert_eq!(rig.tick(700), ["start w0 j-s0-t1-a1"]);
}

#[test]
fn a_speculative_attempt_never_goes_to_the_same_worker() {
    let (mut rig, _) = Rig::started(speculating(), &[4], 1, &[4, 3, 2, 1]);
    rig.now = 100;
    for task in ["s0-t0-a0", "s0-t2-a0", "s0-t3-a0"] {
        rig.ok("w0", task);
    }
    assert!(rig.tick(1_000_000).is_empty());
    assert_eq!(rig.join("w1", 1), ["start w1 j-s0-t1-a1"]);
}

#[test]
fn pending_tasks_come_first() {
    let mut rig = straggling(speculating());
    rig.drain("w0");
    rig.submit("k", 1);
    rig.plan("k", 0, &[9, 9, 9]);
    // w1 runs the straggler and a task of k; free slots go to k.
    assert!(rig.tick(500).is_empty());
    assert_eq!(rig.join("w2", 2), ["start w2 k-s0-t1-a0", "start w2 k-s0-t2-a0"]);
    assert_eq!(rig.ok("w2", "k-s0-t1-a0"), ["start w2 j-s0-t1-a1"]);
}

#[test]
fn a_speculative_attempt_avoids_workers_on_which_the_task_failed() {
    let (mut rig, _) = Rig::started(speculating(), &[1, 1], 1, &[4, 3, 2, 1]);
    rig.err("w0", "s0-t0-a0", retryable("i/o"));
    rig.now = 10;
    rig.ok("w1", "s0-t1-a0");
    rig.ok("w0", "s0-t2-a0");
    rig.ok("w0", "s0-t3-a0");
    assert_eq!((rig.stage(0).done, rig.stage(0).running), (3, 1));
    assert!(rig.tick(1_000_000).is_empty(), "w0 failed it, w1 runs it");
}

/// Found by the simulation.
#[test]
fn no_speculative_attempt_starts_while_an_input_is_lost() {
    let (mut rig, _) = Rig::started(speculating(), &[2, 2], 2, &[1]);
    rig.ok("w0", "s0-t0-a0");
    rig.plan("j", 1, &[4, 3, 2, 1]);
    rig.now = 100;
    for (on, task) in [("w0", "s1-t0-a0"), ("w1", "s1-t1-a0"), ("w1", "s1-t2-a0")] {
        rig.ok(on, task);
    }
    assert_eq!(rig.tick(200), ["start w1 j-s1-t3-a1"]);
    // One attempt reports the loss of the input; the other had read it and continues, alone and slow.
    assert_eq!(rig.err("w0", "s1-t3-a0", fetch_lost("w0", "s0-t0-a0")), ["start w1 j-s0-t0-a1"]);
    assert!(rig.tick(10_000).is_empty());
    assert_eq!(rig.ok("w1", "s0-t0-a1"), ["start w0 j-s1-t3-a2"]);
}
