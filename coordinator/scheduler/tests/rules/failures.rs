//! Attempts that end without a result: which tasks are retried, where, when, and how often.

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
    // After it failed on all workers, the least loaded one is chosen.
    assert_eq!(rig.err("w1", "s0-t0-a1", retryable("i/o")), ["start w0 j-s0-t0-a2"]);
}

#[test]
fn a_retry_waits_for_a_busy_worker_instead_of_the_one_where_it_failed() {
    let (mut rig, _) = Rig::started(config(), &[1, 1], 1, &[2, 1]);
    assert!(rig.err("w0", "s0-t0-a0", retryable("i/o")).is_empty());
    assert_eq!(rig.ok("w1", "s0-t1-a0"), ["start w1 j-s0-t0-a1"]);
}

#[test]
fn the_last_failure_fails_the_job_with_the_task_its_failures_and_the_reason() {
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
fn an_uncommanded_stop_is_not_a_failure_up_to_a_limit() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[1]);
    let tries = config().max_excused + config().max_attempts;
    for number in 0..tries - 1 {
        let said = rig.err("w0", &format!("s0-t0-a{number}"), Failure::Cancelled);
        assert_eq!(said, [format!("start w0 j-s0-t0-a{}", number + 1)]);
    }
    let said = rig.err("w0", &format!("s0-t0-a{}", tries - 1), Failure::Cancelled);
    assert_eq!(
        said[0],
        "finish j task j-s0-t0 failed 3 times, the last time on worker w0: stopped without a command"
    );
}

/// The pauses of the task and of the worker may end at different times.
fn tick_until_start(rig: &mut Rig) {
    while let Some(at) = rig.wakeup()
        && rig.tick(at).is_empty()
    {}
}

fn full() -> Failure {
    Failure::Refused { reason: "its spill directory is full".into() }
}

#[test]
fn a_refusal_is_not_a_failure_and_goes_to_another_worker_after_a_pause() {
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
    // More often than it may fail.
    rig.ok("w0", "s0-t0-a5");
    assert_eq!(rig.stage(0).done, 1);
}

#[test]
fn a_task_that_all_workers_refuse_fails_its_job_in_the_end() {
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
fn long_attempts_that_end_for_lack_of_room_are_retried_as_often_as_others() {
    let retry = Config { retry_backoff: millis(100), retry_backoff_max: millis(400), ..config() };
    let (mut rig, _) = Rig::started(retry, &[1], 1, &[1]);
    // Each attempt runs for longer than a job waits for room.
    for number in 0..2 {
        rig.now += 5000;
        assert!(rig.err("w0", &format!("s0-t0-a{number}"), full()).is_empty());
        let next = rig.wakeup().unwrap();
        assert_eq!(rig.tick(next), [format!("start w0 j-s0-t0-a{}", number + 1)]);
    }
    rig.now += 5000;
    let said = rig.err("w0", "s0-t0-a2", full());
    assert!(said[0].starts_with("finish j no worker had room for task j-s0-t0 for 1 s"), "{said:?}");
}

#[test]
fn a_refused_task_may_fail_as_often_as_others_and_be_refused_for_the_full_time_again() {
    let retry = Config { retry_backoff: millis(100), retry_backoff_max: millis(400), ..config() };
    let (mut rig, _) = Rig::started(retry, &[1], 1, &[1]);
    let mut number = 0;
    for failure in 1..=3 {
        for _ in 0..3 {
            assert!(rig.err("w0", &format!("s0-t0-a{number}"), full()).is_empty());
            tick_until_start(&mut rig);
            number += 1;
        }
        let said = rig.err("w0", &format!("s0-t0-a{number}"), retryable("i/o"));
        assert_eq!(said.is_empty(), failure < 3, "{said:?}");
        if failure < 3 {
            tick_until_start(&mut rig);
            number += 1;
        }
    }
}

#[test]
fn a_slow_attempt_that_is_refused_leaves_the_other_one_running() {
    let speculation = tally_scheduler::Speculation { quantile: 0.5, multiplier: 1.0, minimum: millis(10) };
    let (mut rig, _) =
        Rig::started(Config { speculation: Some(speculation), ..config() }, &[1, 1], 1, &[1, 1]);
    rig.now += 10;
    let mut said = rig.ok("w1", "s0-t1-a0");
    said.extend(rig.tick(rig.now + 1000));
    assert_eq!(said, ["start w1 j-s0-t0-a1"]);
    assert!(rig.err("w0", "s0-t0-a0", full()).is_empty());
    assert_eq!(rig.stage(0).running, 1);
    rig.ok("w1", "s0-t0-a1");
    assert_eq!(rig.stage(0).done, 2);
}

#[test]
fn refusals_fail_a_job_only_when_its_stage_makes_no_progress() {
    let retry = Config { retry_backoff: millis(100), retry_backoff_max: millis(400), ..config() };
    let (mut rig, _) = Rig::started(retry, &[2], 1, &[9, 8]);
    let mut runs = "w0 j-s0-t0-a0".to_owned();
    let refuse = |rig: &mut Rig, runs: &str| {
        let (worker, attempt) = runs.split_once(' ').unwrap();
        rig.err(worker, attempt, full())
    };
    let retried = |rig: &mut Rig| {
        let next = rig.wakeup().unwrap();
        let said = rig.tick(next);
        said[0].strip_prefix("start ").unwrap().to_owned()
    };
    while rig.now < 700 {
        assert!(refuse(&mut rig, &runs).is_empty());
        runs = retried(&mut rig);
    }
    assert!(refuse(&mut rig, &runs).is_empty());
    // The attempt that used the room ended.
    rig.now = 900;
    assert!(rig.ok("w0", "s0-t1-a0").is_empty());
    let end = loop {
        runs = retried(&mut rig);
        let said = refuse(&mut rig, &runs);
        if !said.is_empty() {
            break said;
        }
    };
    assert!(rig.now >= 1100 + 1000, "at {}", rig.now);
    assert!(end[0].starts_with("finish j no worker had room for task j-s0-t0"), "{end:?}");
}

#[test]
fn a_refusal_of_one_of_two_attempts_does_not_count() {
    let speculation = tally_scheduler::Speculation { quantile: 0.5, multiplier: 1.0, minimum: millis(10) };
    let retry = Config { max_attempts: 1, speculation: Some(speculation), ..config() };
    let (mut rig, _) = Rig::started(retry, &[1, 1, 1], 1, &[1, 1]);
    rig.now += 10;
    let mut said = rig.ok("w1", "s0-t1-a0");
    said.extend(rig.tick(rig.now + 1000));
    let second = said.first().and_then(|word| word.strip_prefix("start ")).unwrap().to_owned();
    rig.now += 5000;
    assert!(!rig.err("w0", "s0-t0-a0", full()).iter().any(|word| word.starts_with("finish")));
    // If it counted, the refusals would last for more than a second.
    rig.now += 5000;
    let (worker, attempt) = second.split_once(' ').unwrap();
    let said = rig.err(worker, attempt, full());
    assert!(!said.iter().any(|word| word.starts_with("finish")), "{said:?}");
}

#[test]
fn failed_attempts_are_counted() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[1]);
    rig.err("w0", "s0-t0-a0", retryable("i/o"));
    rig.err("w0", "s0-t0-a1", retryable("i/o"));
    assert_eq!(rig.stage(0).failed_attempts, 2);
}

#[test]
fn the_attempt_that_fails_the_job_is_counted() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[1]);
    rig.err("w0", "s0-t0-a0", fatal("bad"));
    assert_eq!(rig.stage(0).failed_attempts, 1);
    let (mut rig, _) = Rig::started(Config { max_attempts: 1, ..config() }, &[1], 1, &[1]);
    rig.err("w0", "s0-t0-a0", retryable("i/o"));
    assert_eq!(rig.stage(0).failed_attempts, 1);
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
