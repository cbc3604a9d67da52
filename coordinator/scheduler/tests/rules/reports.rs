//! Late, duplicated, reordered and unknown reports: each gives a warning and changes nothing.

use tally_proto::failure::Failure;
use tally_proto::ids::StageId;
use tally_scheduler::Event;

use crate::rig::{Rig, attempt, config, fatal, job, retryable, worker};

fn ended(on: &str, text: &str, outcome: Result<(), Failure>) -> Event {
    Event::AttemptEnded { worker: worker(on), attempt: attempt(text), outcome }
}

/// Job j: task 0 of the map done by attempt 1 (attempt 0 failed), task 1 running on w1.
fn mid_map() -> Rig {
    let (mut rig, _) = Rig::started(config(), &[1, 1], 2, &[2, 1]);
    rig.err("w0", "s0-t0-a0", retryable("i/o"));
    rig.join("w2", 1);
    assert_eq!(rig.ok("w2", "s0-t0-a1"), Vec::<String>::new());
    rig
}

#[test]
fn unexpected_events_give_a_warning_and_change_nothing() {
    let (j, k) = (job("j"), job("k"));
    let plan = |job: &_, stage| Event::StagePlanned {
        job: Clone::clone(job),
        stage: StageId(stage),
        tasks: vec![],
        found: vec![],
    };
    let no_plan = |job: &_, stage| Event::StagePlanFailed {
        job: Clone::clone(job),
        stage: StageId(stage),
        reason: "late".into(),
    };
    let cases = [
        (ended("w2", "s0-t0-a1", Ok(())), "attempt j-s0-t0-a1 does not run on worker w2"),
        (ended("w2", "s0-t0-a1", Err(fatal("late"))), "attempt j-s0-t0-a1 does not run on worker w2"),
        (ended("w0", "s0-t0-a0", Ok(())), "attempt j-s0-t0-a0 does not run on worker w0"),
        (ended("w0", "s0-t1-a0", Ok(())), "attempt j-s0-t1-a0 does not run on worker w0"),
        (ended("w1", "s0-t1-a7", Ok(())), "attempt j-s0-t1-a7 does not run on worker w1"),
        (ended("w1", "s0-t9-a0", Ok(())), "attempt j-s0-t9-a0 does not run on worker w1"),
        (ended("w1", "s9-t0-a0", Ok(())), "attempt j-s9-t0-a0 does not run on worker w1"),
        (ended("w1", "k-s0-t0-a0", Err(fatal("x"))), "attempt k-s0-t0-a0 does not run on worker w1"),
        (ended("w7", "s0-t1-a0", Ok(())), "worker w7 is unknown"),
        (Event::Heartbeat { worker: worker("w7") }, "worker w7 is unknown"),
        (Event::WorkerDraining { worker: worker("w7") }, "worker w7 is unknown"),
        (Event::WorkerLost { worker: worker("w7") }, "worker w7 is unknown"),
        (Event::WorkerJoined { worker: worker("w1"), slots: 9, draining: false }, "worker w1 joined again"),
        (plan(&j, 0), "stage 0 of job j is not being planned"),
        (plan(&j, 1), "stage 1 of job j is not being planned"),
        (plan(&j, 9), "stage 9 of job j is not being planned"),
        (plan(&k, 0), "job k is unknown or has ended"),
        (no_plan(&j, 0), "stage 0 of job j is not being planned"),
        (no_plan(&j, 9), "stage 9 of job j is not being planned"),
        (Event::Published { job: j.clone() }, "job j is not being published"),
        (Event::PublishFailed { job: j.clone(), reason: "x".into() }, "job j is not being published"),
        (Event::Published { job: k.clone() }, "job k is unknown or has ended"),
        (Event::JobCancelled { job: k.clone() }, "job k is unknown or has ended"),
    ];
    let mut rig = mid_map();
    let before = (rig.scheduler.status(&j), rig.outputs(0));
    for (event, warning) in cases {
        assert_eq!(rig.tell(event.clone()), [format!("warn {warning}")], "{event:?}");
        assert_eq!((rig.scheduler.status(&j), rig.outputs(0)), before, "{event:?}");
    }
    assert_eq!(rig.ok("w1", "s0-t1-a0"), ["plan j 1"]);
}

#[test]
fn a_join_after_the_loss_is_refused() {
    let (mut rig, _) = Rig::started(config(), &[], 1, &[1]);
    assert_eq!(rig.lose("w5"), ["warn worker w5 is unknown"]);
    assert_eq!(rig.join("w5", 1), ["warn worker w5 was lost before: it must join under a new id"]);
}

#[test]
fn answers_about_a_finished_job_give_a_warning_and_the_ends_of_its_attempts_do_not() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[1]);
    rig.cancel("j");
    let plan = Event::StagePlanned { job: job("j"), stage: StageId(0), tasks: vec![], found: vec![] };
    assert_eq!(rig.tell(plan), ["warn job j is unknown or has ended"]);
    assert!(rig.err("w0", "s0-t0-a0", fatal("late")).is_empty());
    assert_eq!(rig.ok("w0", "s0-t0-a0"), ["warn attempt j-s0-t0-a0 does not run on worker w0"]);
}

#[test]
fn a_second_tick_at_the_same_time_has_no_effect() {
    let mut rig = mid_map();
    rig.tick(500);
    assert!(rig.tick(500).is_empty());
}
