//! A takeover from an earlier coordinator: the outputs and attempts of workers are taken over, and no work is repeated.

use tally_proto::ids::StageId;
use tally_scheduler::{Config, Event, FoundTask, TaskPlan};

use crate::rig::{Rig, attempt, config, job, worker};

/// A task that worker `on` has, done or running.
fn found(on: &str, text: &str, done: bool) -> FoundTask {
    let id = attempt(text);
    FoundTask { index: id.task.index, attempt: id.attempt, worker: worker(on), done }
}

/// Two workers with one slot each, and job j with that many tasks in its first stage, of which these are found.
fn taken_over(tasks: usize, found: Vec<FoundTask>) -> (Rig, Vec<String>) {
    let mut rig = Rig::new(Config { first_attempt: 4096, ..config() });
    rig.join("w0", 1);
    rig.join("w1", 1);
    rig.submit("j", 2);
    let tasks = vec![TaskPlan { weight: 1, preferred: None, affinity: None }; tasks];
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
fn a_second_copy_of_an_output_and_a_second_attempt_of_a_task_are_not_needed() {
    let both = [("w0", "s0-t0-a0", true), ("w1", "s0-t0-a1", true), ("w1", "s0-t0-a2", false)];
    let (rig, said) = taken_over(2, both.map(|(on, text, done)| found(on, text, done)).into());
    assert_eq!(said, ["stop w1 j-s0-t0-a2", "start w0 j-s0-t1-a4096"]);
    assert_eq!(rig.outputs(0), ["0@w0-a0"]);
}

#[test]
fn an_output_that_is_found_late_stops_the_attempt_that_was_started_for_it() {
    let (mut rig, said) = taken_over(1, vec![]);
    assert_eq!(said, ["start w0 j-s0-t0-a4096"]);
    rig.join("w2", 1);
    let late = vec![found("w2", "s0-t0-a0", true)];
    let said = rig.tell(Event::TasksFound { job: job("j"), stage: StageId(0), found: late });
    assert_eq!(said, ["stop w0 j-s0-t0-a4096", "plan j 1"]);
}

#[test]
fn a_found_output_of_an_attempt_of_this_term_is_its_end() {
    let (mut rig, _) = taken_over(1, vec![]);
    let mut tell = |done| {
        let found = vec![found("w0", "s0-t0-a4096", done)];
        rig.tell(Event::TasksFound { job: job("j"), stage: StageId(0), found })
    };
    assert!(tell(false).is_empty());
    assert_eq!(tell(true), ["plan j 1"]);
}

#[test]
fn impossible_reports_give_a_warning_and_change_nothing() {
    let (mut rig, said) = taken_over(1, vec![found("unknown", "s0-t0-a0", true)]);
    assert!(said.iter().any(|word| word.starts_with("warn")), "{said:?}");
    for (stage, text) in [(0, "s0-t9-a0"), (1, "s1-t0-a0"), (7, "s7-t0-a0")] {
        let found = vec![found("w1", text, true)];
        let said = rig.tell(Event::TasksFound { job: job("j"), stage: StageId(stage), found });
        assert!(said.iter().all(|word| word.starts_with("warn")) && said.len() == 1, "{said:?}");
    }
    assert!(rig.outputs(0).is_empty());
}
