//! Results of attempts: which are compared, kept, limited and added up.
//!
//! Not here: the scheduler's list of outputs.

use tally_proto::WorkerId;

use super::*;

fn read(rows: u64, footers: Option<u64>) -> v1::TaskResult {
    let footers = footers.map(|rows| v1::Footers { rows, ..Default::default() });
    let result = v1::MapResult { rows, footers, ..Default::default() };
    v1::TaskResult { result: Some(v1::task_result::Result::Map(result)), usage: None }
}

fn attempt(attempt: u32) -> AttemptId {
    let task = TaskId { job: JobId::parse("j").unwrap(), stage: StageId(MAP), index: 3 };
    AttemptId { task, attempt }
}

#[test]
fn attempts_of_a_map_task_that_read_different_rows_are_named() {
    let mut results = Results::default();
    results.keep(&attempt(0), read(9, Some(9))).unwrap();
    results.keep(&attempt(1), read(9, Some(9))).unwrap();
    results.keep(&attempt(0), read(9, Some(9))).unwrap();
    // An older worker does not report footers.
    results.keep(&attempt(2), read(9, None)).unwrap();
    assert_eq!(results.contradiction(), None);
    assert!(matches!(results.keep(&attempt(3), read(9, Some(8))), Err(AttemptError::OtherRows(_))));
    let text = results.contradiction().unwrap();
    assert!(text.contains("j-s0-t3-a0 read 9 rows") && text.contains("j-s0-t3-a3"), "{text}");
    assert!(results.keep(&attempt(4), read(8, Some(9))).is_err());
}

#[test]
fn only_results_that_count_are_kept_and_later_attempts_are_compared_with_them() {
    let mut results = Results::default();
    for number in 0..100 {
        results.keep(&attempt(number), read(9, None)).unwrap();
        results.settle(&attempt(number).task, |counts| counts == number);
    }
    assert!(results.map.len() == 1 && results.has(&attempt(99)) && !results.has(&attempt(98)));
    assert!(results.keep(&attempt(100), read(8, None)).is_err());
}

#[test]
fn dropped_results_are_not_compared() {
    let mut results = Results::default();
    results.keep(&attempt(0), read(5, None)).unwrap();
    results.forget_read(&attempt(0));
    results.keep(&attempt(1), read(9, Some(9))).unwrap();
    assert!(results.contradiction().is_none() && results.scanned().count() == 1);
}

#[test]
fn the_row_groups_of_all_reduce_tasks_are_limited() {
    let reduced = |rows: usize| {
        let result = v1::ReduceResult {
            totals: Some(v1::Totals::new(rows as u64, &[])),
            row_group_rows: vec![1; rows],
            ..Default::default()
        };
        v1::TaskResult { result: Some(v1::task_result::Result::Reduce(result)), usage: None }
    };
    let of = |index, attempt| {
        let task = TaskId { job: JobId::parse("j").unwrap(), stage: StageId(REDUCE), index };
        AttemptId { task, attempt }
    };
    let mut results = Results::default();
    results.keep(&of(0, 0), reduced(MAX_JOB_ROW_GROUPS - 1)).unwrap();
    // Attempts of one task count once.
    results.keep(&of(0, 1), reduced(MAX_JOB_ROW_GROUPS - 1)).unwrap();
    results.keep(&of(1, 0), reduced(1)).unwrap();
    let error = results.keep(&of(2, 0), reduced(1)).unwrap_err();
    assert_eq!(error, AttemptError::TooManyRowGroups(MAX_JOB_ROW_GROUPS + 1));
    assert!(error.to_string().contains("larger --target-file-size"), "{error}");
}

#[test]
fn objectives_add_up_if_every_reduce_task_counted_them() {
    let reduced = |objectives: &[u64]| {
        let result = v1::ReduceResult { order: Some(1), objectives: objectives.into(), ..Default::default() };
        v1::TaskResult { result: Some(v1::task_result::Result::Reduce(result)), usage: None }
    };
    let of = |index, attempt| {
        let task = TaskId { job: JobId::parse("j").unwrap(), stage: StageId(REDUCE), index };
        Winner { attempt: AttemptId { task, attempt }, worker: WorkerId::parse("w").unwrap() }
    };
    let mut results = Results::default();
    let mut keep = |winner: &Winner, counts: &[u64]| results.keep(&winner.attempt, reduced(counts));
    let all = [of(0, 0), of(1, 0), of(2, 0)];
    keep(&all[0], &[1, 2]).unwrap();
    keep(&all[1], &[30, 40]).unwrap();
    keep(&all[2], &[]).unwrap();
    // An attempt of a later release, and one that counted otherwise.
    keep(&of(2, 1), &[5, 6]).unwrap();
    let error = keep(&of(1, 1), &[30, 41]).unwrap_err().to_string();
    assert!(error.contains("j-s1-t1-a0 and j-s1-t1-a1 counted different objectives"), "{error}");
    assert!(keep(&of(3, 0), &[0; MAX_COUNTS + 1]).is_err());
    assert_eq!(results.objectives(&all[..2], 2), Some(vec![31, 42]));
    assert_eq!(results.objectives(&all[..2], 3), None);
    assert_eq!(results.objectives(&all, 2), None);
    assert_eq!(results.objectives(&[of(0, 0), of(2, 1)], 2), Some(vec![6, 8]));
}
