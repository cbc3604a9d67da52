//! Workers that refuse tasks or fail them one after another: what they are offered, and when.

use tally_proto::failure::Failure;
use tally_scheduler::Config;

use crate::rig::{Rig, config, millis, retryable};

fn pausing() -> Config {
    Config {
        retry_backoff: millis(100),
        retry_backoff_max: millis(1600),
        no_workers_timeout: millis(100_000),
        ..config()
    }
}

fn full() -> Failure {
    Failure::Refused { reason: "its spill directory is full".into() }
}

/// The attempts in `start` commands, and where they run.
fn starts(said: &[String]) -> Vec<(String, String)> {
    let split = |text: &str| text.split_once(' ').map(|(on, attempt)| (on.to_owned(), attempt.to_owned()));
    said.iter().filter_map(|word| split(word.strip_prefix("start ")?)).collect()
}

/// Ticks until something starts.
fn next_starts(rig: &mut Rig) -> Vec<(String, String)> {
    loop {
        let next = rig.wakeup().expect("something to wait for");
        let found = starts(&rig.tick(next));
        if !found.is_empty() {
            return found;
        }
    }
}

/// Ticks until one attempt starts.
fn next_start(rig: &mut Rig) -> (String, String) {
    let found = next_starts(rig);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn a_full_worker_is_offered_one_attempt_at_a_time_after_pauses_that_double() {
    let (mut rig, said) = Rig::started(pausing(), &[2], 1, &[1; 9]);
    let mut refused = 0;
    for (on, attempt) in starts(&said) {
        assert!(rig.err(&on, &attempt, full()).is_empty(), "a refused slot is not filled at once");
        refused += 1;
    }
    let mut last = rig.now;
    for pause in [100, 200, 400, 800, 1600, 1600, 1600] {
        let (on, attempt) = next_start(&mut rig);
        assert_eq!(rig.now - last, pause, "after {refused} refusals");
        assert_eq!(rig.stage(0).running, 1);
        rig.now += 7;
        last = rig.now;
        assert!(rig.err(&on, &attempt, full()).is_empty());
        refused += 1;
    }
    assert_eq!(rig.stage(0).failed_attempts, refused);
}

#[test]
fn other_workers_get_the_tasks_first() {
    let (mut rig, _) = Rig::started(pausing(), &[1, 1], 1, &[9, 8, 7, 6]);
    assert!(rig.err("w0", "s0-t0-a0", full()).is_empty());
    rig.now = 5000;
    // Both are free. The worker that refused is less loaded, and is offered the other task.
    let said = rig.ok("w1", "s0-t1-a0");
    assert_eq!(said, ["start w1 j-s0-t2-a0", "start w0 j-s0-t3-a0"]);
}

#[test]
fn a_success_shows_that_there_is_room_for_one_more() {
    let (mut rig, said) = Rig::started(pausing(), &[4], 1, &[1; 20]);
    for (on, attempt) in starts(&said) {
        rig.err(&on, &attempt, full());
    }
    let (on, attempt) = next_start(&mut rig);
    for room in [2, 3, 4] {
        let running = if room == 2 { vec![(on.clone(), attempt.clone())] } else { running(&rig) };
        let probe = running.last().cloned().expect("a probe");
        rig.ok(&probe.0, &probe.1);
        assert_eq!(rig.stage(0).running, room, "of 4 slots");
    }
}

/// The attempts of stage 0 that run, in the order of their starts; all on w0.
fn running(rig: &Rig) -> Vec<(String, String)> {
    let mut found = vec![];
    for number in 0..40 {
        for task in 0..20 {
            let attempt = format!("s0-t{task}-a{number}");
            if rig.can_dispatch(&attempt) {
                found.push(("w0".to_owned(), attempt));
            }
        }
    }
    found
}

#[test]
fn what_has_room_goes_on_while_one_slot_pauses() {
    let (mut rig, _) = Rig::started(pausing(), &[3], 1, &[1; 9]);
    assert!(rig.err("w0", "s0-t2-a0", full()).is_empty());
    // There is room for two.
    assert_eq!(starts(&rig.ok("w0", "s0-t0-a0")).len(), 1);
    assert_eq!(starts(&rig.ok("w0", "s0-t1-a0")).len(), 1);
    assert_eq!(rig.stage(0).running, 2);
    let said = rig.tick(100);
    assert_eq!((starts(&said).len(), rig.stage(0).running), (1, 3));
}

#[test]
fn another_job_is_offered_as_before() {
    let (mut rig, said) = Rig::started(pausing(), &[2], 1, &[1; 9]);
    for (on, attempt) in starts(&said) {
        rig.err(&on, &attempt, full());
    }
    rig.submit("k", 1);
    assert_eq!(rig.plan("k", 0, &[1, 1]), ["start w0 k-s0-t0-a0", "start w0 k-s0-t1-a0"]);
    assert!(rig.ok("w0", "k-s0-t0-a0").is_empty());
    // The end of that job may free room.
    assert_eq!(rig.ok("w0", "k-s0-t1-a0"), ["publish k"]);
    let said = rig.published("k");
    assert_eq!(starts(&said).len(), 1, "{said:?}");
}

#[test]
fn a_task_that_needs_more_room_than_others_does_not_keep_them_from_running() {
    let (mut rig, _) = Rig::started(pausing(), &[1], 1, &[9, 1, 1, 1]);
    rig.err("w0", "s0-t0-a0", full());
    for _ in 0..3 {
        let (on, attempt) = match running(&rig).first() {
            Some(first) => first.clone(),
            None => next_start(&mut rig),
        };
        assert!(!attempt.contains("-t0-"), "{attempt}");
        rig.ok(&on, &attempt);
    }
    assert_eq!(rig.stage(0).done, 3);
}

#[test]
fn a_job_of_many_tasks_that_all_workers_refuse_fails_in_time() {
    for tasks in [1, 40] {
        let limits = Config { no_workers_timeout: millis(10_000), ..pausing() };
        let (mut rig, said) = Rig::started(limits, &[1, 1], 1, &vec![1; tasks]);
        let mut all = starts(&said);
        let mut refused = 0;
        let end = loop {
            if all.is_empty() {
                all = next_starts(&mut rig);
            }
            let (on, attempt) = all.pop().expect("a start");
            refused += 1;
            let said = rig.err(&on, &attempt, full());
            if let Some(end) = said.iter().find(|word| word.starts_with("finish")) {
                break end.clone();
            }
            all.extend(starts(&said));
        };
        assert!(end.contains("had room for task") && end.ends_with("its spill directory is full"), "{end}");
        assert!((10_000..=13_200).contains(&rig.now), "{tasks} tasks: at {}", rig.now);
        assert!(refused <= 2 * (2 + 5 + 10_000 / 1600), "{tasks} tasks: {refused} refusals");
    }
}

#[test]
fn a_worker_that_works_on_keeps_a_job_from_failing_for_lack_of_room() {
    let limits = Config { no_workers_timeout: millis(1000), ..pausing() };
    let (mut rig, _) = Rig::started(limits, &[1, 1], 1, &[&[9, 8][..], &[1; 20]].concat());
    rig.err("w0", "s0-t0-a0", full());
    while rig.now < 9000 {
        let (on, attempt) = next_start(&mut rig);
        assert_eq!(on, "w0");
        assert!(rig.err(&on, &attempt, full()).is_empty());
    }
    assert!(!rig.ok("w1", "s0-t1-a0").is_empty());
}

#[test]
fn a_worker_that_fails_one_task_after_another_is_offered_fewer() {
    let (mut rig, said) = Rig::started(pausing(), &[1, 1], 1, &vec![1; 50]);
    assert_eq!(said.len(), 2);
    let (mut failed, mut runs) = (0, starts(&said));
    // w1 does a task in 50 ms, w0 fails each at once.
    while rig.stage(0).done < 50 {
        while let Some(at) = runs.iter().position(|(on, _)| on == "w0") {
            failed += 1;
            let (_, attempt) = runs.remove(at);
            runs.extend(starts(&rig.err("w0", &attempt, retryable("disk"))));
        }
        let until = rig.now + 50;
        while let Some(next) = rig.wakeup().filter(|next| *next <= until) {
            let said = rig.tick(next);
            runs.extend(starts(&said));
        }
        rig.now = until;
        if let Some(at) = runs.iter().position(|(on, _)| on == "w1") {
            let (_, attempt) = runs.remove(at);
            let said = rig.ok("w1", &attempt);
            assert!(!said.iter().any(|word| word.starts_with("finish")), "{said:?}");
            runs.extend(starts(&said));
        }
    }
    // 2.5 s in pauses of 0.1, 0.2, ...
    assert!((3..=8).contains(&failed), "{failed}");
}

#[test]
fn no_speculative_attempt_goes_to_a_worker_without_room() {
    let rule = tally_scheduler::Speculation { quantile: 0.3, multiplier: 1.0, minimum: millis(10) };
    let (mut rig, _) = Rig::started(Config { speculation: Some(rule), ..pausing() }, &[1, 1], 1, &[9, 8, 7]);
    rig.err("w0", "s0-t0-a0", full());
    rig.now = 10;
    assert_eq!(rig.ok("w1", "s0-t1-a0"), ["start w1 j-s0-t2-a0"]);
    // The refused task waits for w1, where the last task runs for too long.
    assert!(rig.tick(50_000).is_empty());
    assert_eq!((rig.stage(0).running, rig.stage(0).pending), (1, 1));
}
