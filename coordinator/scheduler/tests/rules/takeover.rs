//! A coordinator that follows another: what workers have is taken over, nothing is done twice.

use tally_proto::ids::StageId;
use tally_scheduler::{Config, Event, Found, TaskPlan};

use crate::rig::{Rig, attempt, config, job, worker};

/// What worker `on` has of an attempt, and whether its output is there.
fn found(on: &str, text: &str, done: bool) -> Found {
    let id = attempt(text);
    Found { index: id.task.index, attempt: id.attempt, worker: worker(on), done }
}

/// Two workers of one slot; job j whose first stage has so many tasks, with this found.
fn taken_over(tasks: usize, found: Vec<Found>) -> (Rig, Vec<String>) {
    let mut rig = Rig::new(Config { first_attempt: 4096, ..config() });
    rig.join("w0", 1);
    rig.join("w1", 1);
    rig.submit("j", 2);
    let tasks = vec![TaskPlan { weight: 1, preferred: None }; tasks];
    let said = rig.tell(Event::StagePlanned { job: job("j"), stage: StageId(0), tasks, found });
    (rig, said)
}

#[test]
fn a_held_output_is_not_made_again_and_numbers_of_the_new_term_start_apart() {
    let (rig, said) = taken_over(2, vec![found("w0", "s0-t0-a0", true)]);
    assert_eq!(said, ["start w0 j-s0-t1-a4096"]);
    assert_eq!(rig.outputs(0), ["0@w0-a0"]);
}

#[test]
fn an_attempt_that_runs_keeps_its_slot_and_its_end_counts() {
    let (mut rig, said) = taken_over(2, vec![found("w0", "s0-t0-a7", false)]);
    assert_eq!(said, ["start w1 j-s0-t1-a4096"]);
    rig.ok("w0", "s0-t0-a7");
    assert_eq!(rig.outputs(0), ["0@w0-a7"]);
}

#[test]
fn all_outputs_found_complete_the_stage_at_once() {
    let (_, said) = taken_over(1, vec![found("w1", "s0-t0-a3", true)]);
    assert_eq!(said, ["plan j 1"]);
}

#[test]
fn the_second_holder_of_an_output_and_the_second_runner_of_a_task_are_not_wanted() {
    let both = [("w0", "s0-t0-a0", true), ("w1", "s0-t0-a1", true), ("w1", "s0-t0-a2", false)];
    let (rig, said) = taken_over(2, both.map(|(on, text, done)| found(on, text, done)).into());
    assert_eq!(said, ["stop w1 j-s0-t0-a2", "start w0 j-s0-t1-a4096"]);
    assert_eq!(rig.outputs(0), ["0@w0-a0"]);
}

#[test]
fn an_output_that_comes_late_ends_the_try_that_was_started_for_it() {
    let (mut rig, said) = taken_over(1, vec![]);
    assert_eq!(said, ["start w0 j-s0-t0-a4096"]);
    rig.join("w2", 1);
    let late = vec![found("w2", "s0-t0-a0", true)];
    let said = rig.tell(Event::Found { job: job("j"), stage: StageId(0), found: late });
    assert_eq!(said, ["stop w0 j-s0-t0-a4096", "plan j 1"]);
}

#[test]
fn what_is_found_of_an_attempt_that_was_ordered_here_is_its_end() {
    let (mut rig, _) = taken_over(1, vec![]);
    let mut tell = |done| {
        let found = vec![found("w0", "s0-t0-a4096", done)];
        rig.tell(Event::Found { job: job("j"), stage: StageId(0), found })
    };
    assert!(tell(false).is_empty());
    assert_eq!(tell(true), ["plan j 1"]);
}

#[test]
fn nonsense_is_warned_of_and_changes_nothing() {
    let (mut rig, said) = taken_over(1, vec![found("nobody", "s0-t0-a0", true)]);
    assert!(said.iter().any(|word| word.starts_with("warn")), "{said:?}");
    for (stage, text) in [(0, "s0-t9-a0"), (1, "s1-t0-a0"), (7, "s7-t0-a0")] {
        let found = vec![found("w1", text, true)];
        let said = rig.tell(Event::Found { job: job("j"), stage: StageId(stage), found });
        assert!(said.iter().all(|word| word.starts_with("warn")) && said.len() == 1, "{said:?}");
    }
    assert!(rig.outputs(0).is_empty());
}
