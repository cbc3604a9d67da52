//! Attempts that end without a result: what is tried again, where, when, and how often.

use tally_proto::failure::Failure;
use tally_scheduler::{Config, Outcome};

use crate::rig::{Rig, attempt, config, fatal, job, millis, retryable, worker};

#[test]
fn a_retry_waits_twice_as_long_every_time() {
    let retry = Config { retry_backoff: millis(100), retry_backoff_max: millis(1000), ..config() };
    let (mut rig, _) = Rig::started(retry, &[1], 1, &[1]);
    for (number, wait) in [(0, 100), (1, 200)] {
        assert!(rig.err("w0", &format!("s0-t0-a{number}"), retryable("i/o")).is_empty());
        assert_eq!((rig.stage(0).waiting, rig.wakeup()), (1, Some(rig.now + wait)));
        assert!(rig.tick(rig.now + wait - 1).is_empty());
        assert_eq!(rig.tick(rig.now + 1), [format!("start w0 j-s0-t0-a{}", number + 1)]);
        assert_eq!(rig.wakeup(), None);
    }
}

#[test]
fn a_retry_goes_to_another_worker() {
    let (mut rig, said) = Rig::started(config(), &[1, 1], 1, &[1]);
    assert_eq!(said, ["start w0 j-s0-t0-a0"]);
    assert_eq!(rig.err("w0", "s0-t0-a0", retryable("i/o")), ["start w1 j-s0-t0-a1"]);
    // Where all have failed it, the least loaded is as good as any.
    assert_eq!(rig.err("w1", "s0-t0-a1", retryable("i/o")), ["start w0 j-s0-t0-a2"]);
}

#[test]
fn a_retry_waits_for_a_busy_worker_rather_than_going_where_it_failed() {
    let (mut rig, _) = Rig::started(config(), &[1, 1], 1, &[2, 1]);
    assert!(rig.err("w0", "s0-t0-a0", retryable("i/o")).is_empty());
    assert_eq!(rig.ok("w1", "s0-t1-a0"), ["start w1 j-s0-t0-a1"]);
}

#[test]
fn the_last_strike_fails_the_job_with_the_task_its_tries_and_the_reason() {
    let (mut rig, _) = Rig::started(config(), &[2], 1, &[2, 1]);
    rig.err("w0", "s0-t0-a0", retryable("first"));
    rig.err("w0", "s0-t0-a1", retryable("second"));
    assert_eq!(
        rig.err("w0", "s0-t0-a2", retryable("third")),
        [
            "stop w0 j-s0-t1-a0",
            "finish j task j-s0-t0 failed 3 times, the last time on worker w0: third",
            "release j"
        ]
    );
}

#[test]
fn a_fatal_failure_fails_the_job_at_once() {
    let (mut rig, _) = Rig::started(config(), &[2], 1, &[2, 1]);
    assert_eq!(
        rig.err("w0", "s0-t0-a0", fatal("part-1.parquet: no footer")),
        ["stop w0 j-s0-t1-a0", "finish j task j-s0-t0 on worker w0: part-1.parquet: no footer", "release j"]
    );
}

#[test]
fn an_unasked_stop_is_no_strike_but_not_for_ever() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[1]);
    let tries = config().max_excused + config().max_attempts;
    for number in 0..tries - 1 {
        let said = rig.err("w0", &format!("s0-t0-a{number}"), Failure::Cancelled);
        assert_eq!(said, [format!("start w0 j-s0-t0-a{}", number + 1)]);
    }
    let said = rig.err("w0", &format!("s0-t0-a{}", tries - 1), Failure::Cancelled);
    assert_eq!(
        said[0],
        "finish j task j-s0-t0 failed 3 times, the last time on worker w0: stopped without having been told to"
    );
}

fn full() -> Failure {
    Failure::Refused { reason: "its spill directory is full".into() }
}

#[test]
fn a_refusal_is_no_strike_and_goes_to_another_worker_after_a_wait() {
    let wait = Config { retry_backoff: millis(100), retry_backoff_max: millis(400), ..config() };
    let retry = Config { no_workers_timeout: millis(10_000), ..wait };
    let (mut rig, _) = Rig::started(retry, &[1, 1], 1, &[1]);
    assert!(rig.err("w0", "s0-t0-a0", full()).is_empty());
    assert_eq!(rig.tick(rig.now + 100), ["start w1 j-s0-t0-a1"]);
    for (number, wait) in [(1, 200), (2, 400), (3, 400), (4, 400)] {
        let refuses = if number == 1 { "w1" } else { "w0" };
        assert!(rig.err(refuses, &format!("s0-t0-a{number}"), full()).is_empty());
        assert_eq!(rig.tick(rig.now + wait), [format!("start w0 j-s0-t0-a{}", number + 1)]);
    }
    // More often than it may fail: it is as good as new.
    rig.ok("w0", "s0-t0-a5");
    assert_eq!(rig.stage(0).done, 1);
}

#[test]
fn a_task_that_nobody_has_room_for_fails_its_job_in_the_end() {
    let retry = Config { retry_backoff: millis(100), retry_backoff_max: millis(400), ..config() };
    let (mut rig, _) = Rig::started(retry, &[1], 1, &[1]);
    for number in 0.. {
        let said = rig.err("w0", &format!("s0-t0-a{number}"), full());
        if let Some(end) = said.first() {
            assert!(rig.now >= 1000, "at {}", rig.now);
            assert_eq!(
                end,
                "finish j no worker had room for task j-s0-t0 for 1 s, the last one was w0: its spill directory is full"
            );
            break;
        }
        let next = rig.wakeup().unwrap();
        rig.tick(next);
    }
}

#[test]
fn failed_attempts_are_counted() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[1]);
    rig.err("w0", "s0-t0-a0", retryable("i/o"));
    rig.err("w0", "s0-t0-a1", retryable("i/o"));
    assert_eq!(rig.stage(0).failed_attempts, 2);
}

#[test]
fn a_failed_job_says_why_in_its_status() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[1]);
    rig.err("w0", "s0-t0-a0", fatal("bad"));
    let tally_scheduler::JobState::Finished { outcome: Outcome::Failed { reason } } = rig.state("j") else {
        panic!("{:?}", rig.scheduler.status(&job("j")));
    };
    let expect = tally_scheduler::JobFailure::Fatal {
        task: attempt("s0-t0-a0").task,
        worker: worker("w0"),
        reason: "bad".into(),
    };
    assert_eq!(reason, expect);
}
