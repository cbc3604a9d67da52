//! Jobs from submission to publish, and their other ends.

use tally_proto::ids::StageId;
use tally_scheduler::{Config, Event, JobShape, JobState, Outcome, StagePhase, StageShape};

use crate::rig::{Rig, config, fatal, job};

#[test]
fn stages_run_one_after_another_and_the_day_is_published_once() {
    let mut rig = Rig::new(config());
    rig.join("w0", 2);
    assert_eq!(rig.submit("j", 2), ["plan j 0"]);
    assert_eq!(rig.plan("j", 0, &[1, 5]), ["start w0 j-s0-t1-a0", "start w0 j-s0-t0-a0"]);
    assert!(rig.ok("w0", "s0-t0-a0").is_empty());
    assert_eq!(rig.ok("w0", "s0-t1-a0"), ["plan j 1"]);
    assert_eq!(rig.outputs(0), ["0@w0-a0", "1@w0-a0"]);
    assert_eq!(rig.plan("j", 1, &[7]), ["start w0 j-s1-t0-a0"]);
    assert_eq!(rig.ok("w0", "s1-t0-a0"), ["publish j"]);
    assert_eq!(rig.state("j"), JobState::Publishing);
    assert_eq!(rig.published("j"), ["finish j done", "release j"]);
    assert_eq!(rig.state("j"), JobState::Finished { outcome: Outcome::Done });
    assert_eq!((rig.stage(1).done, rig.outputs(1).len()), (1, 0));
}

#[test]
fn a_stage_without_tasks_is_complete_at_once() {
    let mut rig = Rig::new(config());
    assert_eq!(rig.submit("j", 2), ["plan j 0"]);
    assert_eq!(rig.plan("j", 0, &[]), ["plan j 1"]);
    assert_eq!(rig.plan("j", 1, &[]), ["publish j"]);
    assert_eq!(rig.published("j"), ["finish j done", "release j"]);
}

#[test]
fn a_stage_waits_for_all_stages_that_it_reads_and_for_no_other() {
    let mut rig = Rig::new(config());
    rig.join("w0", 4);
    let reads = |list: &[u32]| StageShape { reads: list.iter().copied().map(StageId).collect() };
    let shape = JobShape::new(vec![reads(&[]), reads(&[]), reads(&[0, 1]), reads(&[1])]).unwrap();
    let said = rig.tell(Event::JobSubmitted { job: job("j"), shape });
    assert_eq!(said, ["plan j 0", "plan j 1"]);
    rig.plan("j", 0, &[1]);
    rig.plan("j", 1, &[1]);
    assert_eq!(rig.ok("w0", "s1-t0-a0"), ["plan j 3"]);
    assert_eq!(rig.ok("w0", "s0-t0-a0"), ["plan j 2"]);
    assert!(rig.plan("j", 3, &[]).is_empty());
    assert_eq!(rig.plan("j", 2, &[]), ["publish j"]);
}

#[test]
fn a_plan_that_fails_fails_the_job() {
    let mut rig = Rig::new(config());
    rig.submit("j", 1);
    let event = Event::StagePlanFailed { job: job("j"), stage: StageId(0), reason: "no files".into() };
    let said = ["finish j no files", "release j"];
    assert_eq!(rig.tell(event), said);
}

#[test]
fn a_publish_that_fails_fails_the_job() {
    let mut rig = Rig::new(config());
    rig.submit("j", 1);
    rig.plan("j", 0, &[]);
    let event = Event::PublishFailed { job: job("j"), reason: "a newer epoch".into() };
    let said = ["finish j the output could not be published: a newer epoch", "release j"];
    assert_eq!(rig.tell(event), said);
}

#[test]
fn a_cancelled_job_stops_what_runs_and_ends_once() {
    let (mut rig, _) = Rig::started(config(), &[2], 1, &[1, 1, 1]);
    let said = ["stop w0 j-s0-t0-a0", "stop w0 j-s0-t1-a0", "finish j cancelled", "release j"];
    assert_eq!(rig.cancel("j"), said);
    assert_eq!(rig.cancel("j"), ["warn job j is unknown or has ended"]);
    assert!(rig.ok("w0", "s0-t0-a0").is_empty(), "the end of a stopped attempt is expected");
}

#[test]
fn a_job_that_is_being_published_is_not_cancelled() {
    let mut rig = Rig::new(config());
    rig.submit("j", 1);
    rig.plan("j", 0, &[]);
    assert_eq!(rig.cancel("j"), ["warn job j is being published: too late to cancel"]);
    assert_eq!(rig.published("j"), ["finish j done", "release j"]);
}

#[test]
fn a_known_job_is_not_submitted_again_even_after_its_end() {
    let mut rig = Rig::new(config());
    rig.submit("j", 1);
    assert_eq!(rig.submit("j", 1), ["warn job j was submitted again"]);
    rig.cancel("j");
    assert_eq!(rig.submit("j", 1), ["warn job j was submitted again"]);
}

#[test]
fn a_job_is_forgotten_when_it_has_ended_and_takes_no_slots() {
    let (mut rig, _) = Rig::started(config(), &[1], 1, &[1]);
    assert!(!rig.scheduler.forget(&job("j")));
    rig.cancel("j");
    assert!(!rig.scheduler.forget(&job("j")), "its attempt still takes a slot");
    rig.ok("w0", "s0-t0-a0");
    assert!(rig.scheduler.forget(&job("j")));
    assert_eq!(rig.scheduler.status(&job("j")), None);
    assert!(!rig.scheduler.forget(&job("j")));
}

#[test]
fn slots_are_shared_between_jobs() {
    let (mut rig, _) = Rig::started(config(), &[4], 1, &[1; 6]);
    assert_eq!(rig.submit("k", 1), ["plan k 0"]);
    assert!(rig.plan("k", 0, &[1; 6]).is_empty());
    assert_eq!(rig.ok("w0", "j-s0-t0-a0"), ["start w0 k-s0-t0-a0"]);
    assert_eq!(rig.ok("w0", "j-s0-t1-a0"), ["start w0 k-s0-t1-a0"]);
    assert_eq!(rig.ok("w0", "k-s0-t0-a0"), ["start w0 k-s0-t2-a0"]);
    assert_eq!(rig.ok("w0", "k-s0-t1-a0"), ["start w0 k-s0-t3-a0"]);
    assert_eq!(rig.ok("w0", "j-s0-t2-a0"), ["start w0 j-s0-t4-a0"]);
}

#[test]
fn of_two_jobs_with_equal_shares_the_earlier_one_is_first() {
    for (first, second) in [("a", "z"), ("z", "a")] {
        let mut rig = Rig::new(config());
        for name in [first, second] {
            rig.submit(name, 1);
            rig.plan(name, 0, &[1, 1]);
        }
        assert_eq!(rig.join("w0", 1), [format!("start w0 {first}-s0-t0-a0")]);
    }
}

#[test]
fn the_failure_of_a_job_does_not_affect_others() {
    let (mut rig, _) = Rig::started(config(), &[2], 1, &[1]);
    rig.submit("k", 1);
    rig.plan("k", 0, &[1]);
    let said = rig.err("w0", "j-s0-t0-a0", fatal("bad footer"));
    assert_eq!(said, ["finish j task j-s0-t0 on worker w0: bad footer", "release j"]);
    assert_eq!(rig.ok("w0", "k-s0-t0-a0"), ["publish k"]);
}

#[test]
fn the_status_counts_every_task_once() {
    let (mut rig, _) = Rig::started(config(), &[2], 2, &[4, 3, 2, 1]);
    rig.ok("w0", "s0-t0-a0");
    let map = rig.stage(0);
    assert_eq!((map.tasks, map.pending, map.waiting, map.running, map.done), (4, 1, 0, 2, 1));
    assert_eq!((map.phase, rig.stage(1).phase), (StagePhase::Planned, StagePhase::Waiting));
}

#[test]
fn incompatible_outputs_are_made_again_up_to_a_limit() {
    let retry = Config { max_output_losses: 1, ..config() };
    let (mut rig, _) = Rig::started(retry, &[2], 1, &[2, 1]);
    let incompatible =
        || Event::Incompatible { job: job("j"), stage: StageId(0), indices: vec![1], reason: "order".into() };
    assert_eq!(rig.tell(incompatible()), ["warn job j is not being published"]);
    rig.ok("w0", "s0-t0-a0");
    assert_eq!(rig.ok("w0", "s0-t1-a0"), ["publish j"]);
    assert_eq!(rig.tell(incompatible()), ["start w0 j-s0-t1-a1"]);
    assert_eq!(rig.stage(0).reruns, 1);
    assert_eq!(rig.ok("w0", "s0-t1-a1"), ["publish j"]);
    assert_eq!(rig.tell(incompatible()), ["finish j the output could not be published: order", "release j"]);
}
