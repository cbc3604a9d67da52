//! Workers that join, drain, become silent and die.

use tally_scheduler::{Config, Event, JobState, Millis};

use crate::rig::{Rig, config, millis, worker};

fn timing_out() -> Config {
    Config { worker_timeout: Some(millis(100)), ..config() }
}

#[test]
fn a_silent_worker_is_lost_at_the_tick_after_its_timeout() {
    let (mut rig, _) = Rig::started(timing_out(), &[1, 1], 1, &[1]);
    assert_eq!(rig.wakeup(), Some(100));
    rig.now = 60;
    rig.tell(Event::Heartbeat { worker: worker("w1") });
    assert_eq!(rig.wakeup(), Some(100));
    assert!(rig.tick(99).is_empty());
    assert_eq!(rig.tick(100), ["start w1 j-s0-t0-a1"]);
    assert_eq!(rig.wakeup(), Some(160));
}

#[test]
fn a_delayed_driver_delivers_the_heartbeats_first() {
    let (mut rig, _) = Rig::started(timing_out(), &[1], 1, &[1]);
    rig.now = 5000;
    assert!(rig.tell(Event::Heartbeat { worker: worker("w0") }).is_empty());
    assert!(rig.tick(5001).is_empty());
    assert_eq!(rig.stage(0).running, 1);
}

#[test]
fn the_end_of_an_attempt_is_a_sign_of_life() {
    let (mut rig, _) = Rig::started(timing_out(), &[1], 1, &[1, 1]);
    rig.now = 90;
    rig.ok("w0", "s0-t0-a0");
    assert!(rig.tick(189).is_empty());
    assert_eq!(rig.wakeup(), Some(190));
}

#[test]
fn embedded_workers_never_time_out() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[1]);
    assert_eq!(rig.wakeup(), None);
    assert!(rig.tick(u64::MAX).is_empty());
    assert_eq!(rig.stage(0).running, 1);
}

#[test]
fn time_never_runs_backwards() {
    let (mut rig, _) = Rig::started(timing_out(), &[1], 1, &[1]);
    rig.now = 50;
    rig.tell(Event::Heartbeat { worker: worker("w0") });
    rig.now = 20;
    rig.tell(Event::Heartbeat { worker: worker("w0") });
    assert_eq!(rig.wakeup(), Some(150));
}

#[test]
fn a_draining_worker_ends_what_runs_and_gets_nothing_new() {
    let (mut rig, _) = Rig::started(config(), &[2], 1, &[3, 2, 1]);
    assert!(rig.drain("w0").is_empty());
    assert!(rig.ok("w0", "s0-t0-a0").is_empty());
    assert!(rig.ok("w0", "s0-t1-a0").is_empty());
    assert_eq!((rig.stage(0).done, rig.stage(0).pending), (2, 1));
    assert_eq!(rig.join("w1", 1), ["start w1 j-s0-t2-a0"]);
}

/// A worker that attaches to a new leader while it drains.
#[test]
fn a_worker_that_joins_while_it_drains_gets_nothing() {
    let mut rig = Rig::new(config());
    rig.submit("j", 1);
    rig.plan("j", 0, &[1]);
    let joined = Event::WorkerJoined { worker: worker("w0"), slots: 1, draining: true };
    assert!(rig.tell(joined).is_empty());
    assert_eq!(rig.join("w1", 1), ["start w1 j-s0-t0-a0"]);
}

#[test]
fn the_loss_of_a_draining_worker_is_not_a_failure() {
    let mut rig = Rig::new(Config { max_attempts: 1, ..config() });
    rig.submit("j", 1);
    rig.plan("j", 0, &[1]);
    for life in 0..3 {
        let name = format!("w{life}");
        assert_eq!(rig.join(&name, 1), [format!("start {name} j-s0-t0-a{life}")]);
        rig.drain(&name);
        assert!(rig.lose(&name).is_empty());
    }
    rig.join("w3", 1);
    let why = "finish j task j-s0-t0 failed 1 times, the last time on worker w3: the worker was lost";
    assert_eq!(rig.lose("w3"), [why, "release j"]);
}

#[test]
fn a_task_whose_worker_was_lost_starts_at_once_and_counts_a_failure() {
    let slow = Config { retry_backoff: millis(500), retry_backoff_max: millis(500), ..config() };
    let (mut rig, _) = Rig::started(slow, &[1, 1, 1], 1, &[1]);
    assert_eq!(rig.lose("w0"), ["start w1 j-s0-t0-a1"]);
    assert_eq!(rig.lose("w1"), ["start w2 j-s0-t0-a2"]);
    assert!(rig.lose("w2")[0].starts_with("finish j task j-s0-t0 failed 3 times"));
}

#[test]
fn a_lost_worker_stays_lost() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[1]);
    rig.lose("w0");
    let lost = "warn worker w0 was lost before: it must join under a new id";
    assert_eq!(rig.ok("w0", "s0-t0-a0"), [lost]);
    assert_eq!(rig.join("w0", 1), [lost]);
    assert_eq!(rig.tell(Event::Heartbeat { worker: worker("w0") }), [lost]);
    assert_eq!(rig.drain("w0"), [lost]);
    assert_eq!(rig.lose("w0"), [lost]);
    assert_eq!((rig.stage(0).done, rig.stage(0).pending), (0, 1));
}

#[test]
fn without_workers_a_job_waits_visibly_and_fails_in_the_end() {
    let mut rig = Rig::new(config());
    rig.submit("j", 1);
    assert_eq!(rig.state("j"), JobState::Running, "planning needs no worker");
    rig.now = 300;
    rig.plan("j", 0, &[1]);
    assert_eq!(rig.state("j"), JobState::WaitingForWorkers { since: Millis(300) });
    assert_eq!(rig.wakeup(), Some(1300));
    assert!(rig.tick(1299).is_empty());
    let why = "finish j no worker took tasks for 1 s: start workers and submit again";
    assert_eq!(rig.tick(1300), [why, "release j"]);
    assert_eq!(rig.wakeup(), None);
}

#[test]
fn a_worker_ends_the_wait_and_the_next_wait_starts_from_zero() {
    let (mut rig, _) = Rig::started(config(), &[], 1, &[1]);
    rig.now = 900;
    assert_eq!(rig.join("w0", 1), ["start w0 j-s0-t0-a0"]);
    assert_eq!((rig.state("j"), rig.wakeup()), (JobState::Running, None));
    rig.now = 950;
    rig.lose("w0");
    assert_eq!(rig.state("j"), JobState::WaitingForWorkers { since: Millis(950) });
}

#[test]
fn while_a_draining_worker_still_works_for_it_a_job_does_not_wait() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[2, 1]);
    rig.drain("w0");
    assert_eq!(rig.state("j"), JobState::Running);
    rig.now = 70;
    rig.ok("w0", "s0-t0-a0");
    assert_eq!(rig.state("j"), JobState::WaitingForWorkers { since: Millis(70) });
}

#[test]
fn a_worker_without_slots_does_not_count() {
    let (rig, said) = Rig::started(config(), &[0], 1, &[1]);
    assert!(said.is_empty());
    assert_eq!(rig.state("j"), JobState::WaitingForWorkers { since: Millis(0) });
}

#[test]
fn a_stopped_attempt_keeps_its_slot_until_it_ends() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[1]);
    rig.cancel("j");
    rig.submit("k", 1);
    assert!(rig.plan("k", 0, &[1]).is_empty());
    // A worker whose attempt does not stop does not count.
    assert_eq!(rig.state("k"), JobState::WaitingForWorkers { since: Millis(0) });
    assert_eq!(rig.ok("w0", "s0-t0-a0"), ["start w0 k-s0-t0-a0"]);
}

#[test]
fn a_preferred_worker_is_taken() {
    let mut rig = Rig::new(config());
    rig.join("w0", 2);
    rig.join("w1", 1);
    rig.submit("j", 1);
    let task = |weight| tally_scheduler::TaskPlan { weight, preferred: Some(worker("w1")), affinity: None };
    let stage = tally_proto::ids::StageId(0);
    let said = rig.tell(Event::StagePlanned {
        job: crate::rig::job("j"),
        stage,
        tasks: vec![task(1), task(9)],
        found: vec![],
    });
    assert_eq!(said, ["start w1 j-s0-t1-a0", "start w0 j-s0-t0-a0"]);
}

/// Found by the simulation.
#[test]
fn workers_that_time_out_together_get_no_commands_when_that_fails_the_job() {
    let (mut rig, _) = Rig::started(Config { max_attempts: 1, ..timing_out() }, &[1, 1], 1, &[1, 1]);
    let why = "finish j task j-s0-t0 failed 1 times, the last time on worker w0: the worker was lost";
    assert_eq!(rig.tick(100), [why, "release j"]);
}

#[test]
fn a_job_that_waits_for_the_slots_of_another_does_not_wait_for_workers() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[1]);
    rig.submit("k", 1);
    rig.plan("k", 0, &[1]);
    assert_eq!((rig.state("k"), rig.wakeup()), (JobState::Running, None));
    assert!(rig.tick(1_000_000).is_empty());
}
