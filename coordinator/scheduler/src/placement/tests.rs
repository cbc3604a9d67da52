//! The rules of placement, one by one, and the property that solving twice changes nothing.

use proptest::prelude::*;

use super::*;
use crate::time::Millis;
use tally_proto::ids::{AttemptId, JobId, StageId, TaskId};

fn worker(n: usize) -> WorkerId {
    WorkerId::parse(&format!("w{n}")).unwrap()
}

fn attempt(n: u32) -> AttemptId {
    let task = TaskId { job: JobId::parse("load").unwrap(), stage: StageId(0), index: n };
    AttemptId { task, attempt: 0 }
}

/// Workers with these slots, and the weights of what takes some of them.
fn fleet(workers: &[(u32, &[u64])]) -> Workers {
    let mut fleet = Workers::default();
    let mut next = 0;
    for (n, (slots, busy)) in workers.iter().enumerate() {
        fleet.join(&worker(n), *slots, false, Millis(0)).unwrap();
        for weight in *busy {
            fleet.occupy(&worker(n), attempt(next), *weight, Millis(0));
            next += 1;
        }
    }
    fleet
}

#[derive(Debug, Clone)]
struct Pending {
    index: u32,
    weight: u64,
    preferred: Option<WorkerId>,
    avoid: Vec<WorkerId>,
}

fn pending(index: u32, weight: u64, preferred: Option<usize>, avoid: &[usize]) -> Pending {
    Pending {
        index,
        weight,
        preferred: preferred.map(worker),
        avoid: avoid.iter().copied().map(worker).collect(),
    }
}

fn solve(workers: &Workers, jobs: &[(usize, Vec<Pending>)]) -> Vec<Assignment> {
    let queues = jobs.iter().map(|(running, tasks)| Queue {
        running: *running,
        candidates: tasks.iter().map(|task| Candidate {
            stage: 0,
            index: task.index,
            weight: task.weight,
            preferred: task.preferred.as_ref(),
            avoid: &task.avoid,
        }),
        throttled: BTreeMap::new(),
        lanes: vec![],
    });
    place(Fleet::of(workers), queues.collect())
}

/// Expects (job, task, worker), in this order.
fn check(workers: &[(u32, &[u64])], jobs: &[(usize, Vec<Pending>)], expect: &[(usize, u32, usize)]) {
    let placed = solve(&fleet(workers), jobs);
    let got: Vec<_> = placed.iter().map(|a| (a.queue, a.index, a.worker.clone())).collect();
    let expect: Vec<_> = expect.iter().map(|(job, task, n)| (*job, *task, worker(*n))).collect();
    assert_eq!(got, expect);
}

#[test]
fn the_queue_is_taken_in_its_order_and_ends_with_the_slots() {
    let tasks = vec![pending(7, 9, None, &[]), pending(3, 5, None, &[]), pending(1, 1, None, &[])];
    check(&[(2, &[])], &[(0, tasks)], &[(0, 7, 0), (0, 3, 0)]);
}

#[test]
fn the_least_loaded_worker_is_taken_by_bytes() {
    let tasks = vec![pending(0, 50, None, &[]), pending(1, 30, None, &[]), pending(2, 30, None, &[])];
    check(&[(4, &[100]), (4, &[10, 10])], &[(0, tasks)], &[(0, 0, 1), (0, 1, 1), (0, 2, 0)]);
}

#[test]
fn equal_bytes_go_to_the_worker_with_fewer_tasks() {
    let tasks = (0..4).map(|n| pending(n, 0, None, &[])).collect();
    check(&[(4, &[]), (4, &[])], &[(0, tasks)], &[(0, 0, 0), (0, 1, 1), (0, 2, 0), (0, 3, 1)]);
}

#[test]
fn the_preferred_worker_is_taken_if_it_has_a_slot() {
    let tasks = vec![pending(0, 1, Some(1), &[]), pending(1, 1, Some(1), &[])];
    check(&[(2, &[]), (2, &[500])], &[(0, tasks)], &[(0, 0, 1), (0, 1, 0)]);
}

#[test]
fn an_avoided_worker_is_not_chosen_even_if_it_is_free_or_preferred() {
    let tasks = vec![pending(0, 1, Some(0), &[0]), pending(1, 1, None, &[])];
    check(&[(1, &[]), (1, &[900])], &[(0, tasks.clone())], &[(0, 1, 0)]);
    check(&[(1, &[]), (2, &[900])], &[(0, tasks)], &[(0, 0, 1), (0, 1, 0)]);
}

#[test]
fn an_avoided_worker_is_chosen_if_no_other_worker_takes_tasks() {
    check(&[(1, &[])], &[(0, vec![pending(0, 1, None, &[0])])], &[(0, 0, 0)]);
    check(&[(1, &[]), (0, &[])], &[(0, vec![pending(0, 1, None, &[0])])], &[(0, 0, 0)]);
}

#[test]
fn a_worker_stuck_with_stopped_attempts_is_not_waited_for() {
    let jobs = [(0, vec![pending(0, 1, None, &[0])])];
    let mut workers = fleet(&[(1, &[]), (1, &[5])]);
    assert_eq!(solve(&workers, &jobs), []);
    workers.stop(&worker(1), &attempt(0));
    assert_eq!(solve(&workers, &jobs)[0].worker, worker(0));
}

#[test]
fn the_job_with_the_fewest_running_tasks_gets_the_next_slot() {
    let tasks = |n| (0..n).map(|n| pending(n, 1, None, &[])).collect::<Vec<_>>();
    let expect = [(1, 0, 0), (0, 0, 0), (1, 1, 0), (0, 1, 0), (1, 2, 0)];
    check(&[(5, &[])], &[(3, tasks(9)), (2, tasks(9))], &expect);
    check(&[(3, &[])], &[(5, tasks(9)), (0, tasks(1))], &[(1, 0, 0), (0, 0, 0), (0, 1, 0)]);
}

#[test]
fn a_round_looks_at_few_tasks_however_many_there_are() {
    let looked = std::cell::Cell::new(0);
    let workers = fleet(&[(8, &[]), (1, &[1])]);
    let avoid = [worker(0)];
    let candidates = (0..20_000).inspect(|_| looked.set(looked.get() + 1)).map(|index| Candidate {
        stage: 0,
        index,
        weight: 1,
        preferred: None,
        avoid: &avoid,
    });
    let queue = Queue { running: 0, candidates, throttled: BTreeMap::new(), lanes: vec![] };
    assert_eq!(place(Fleet::of(&workers), vec![queue]), []);
    assert_eq!(looked.get(), MAX_PASSED_OVER);
}

fn any_pending() -> impl Strategy<Value = Pending> {
    let avoid = prop::collection::vec(0usize..5, 0..3);
    (0u64..100, prop::option::of(0usize..5), avoid)
        .prop_map(|(weight, preferred, avoid)| pending(0, weight, preferred, &avoid))
}

fn any_jobs() -> impl Strategy<Value = Vec<(usize, Vec<Pending>)>> {
    let tasks = prop::collection::vec(any_pending(), 0..200);
    let job = (0usize..9, tasks).prop_map(|(running, mut tasks)| {
        for (index, task) in (0u32..).zip(&mut tasks) {
            task.index = index;
        }
        (running, tasks)
    });
    prop::collection::vec(job, 0..4)
}

proptest! {
    #[test]
    fn solving_twice_gives_no_further_assignments(slots in prop::collection::vec(0u32..6, 0..5), mut jobs in any_jobs()) {
        let slots: Vec<(u32, &[u64])> = slots.iter().map(|slots| (*slots, &[][..])).collect();
        let mut workers = fleet(&slots);
        let placed = solve(&workers, &jobs);
        for (n, assignment) in (0u32..).zip(&placed) {
            let (running, tasks) = &mut jobs[assignment.queue];
            let at = tasks.iter().position(|task| task.index == assignment.index);
            let task = tasks.remove(at.expect("a pending task, once"));
            *running += 1;
            prop_assert!(workers.get(&assignment.worker).is_some_and(|worker| worker.free_slots() > 0));
            workers.occupy(&assignment.worker, attempt(n), task.weight, Millis(0));
        }
        prop_assert_eq!(solve(&workers, &jobs), vec![]);
    }

    #[test]
    fn no_slot_stays_free_while_a_task_fits(slots in 0u32..6, jobs in any_jobs()) {
        let tasks: usize = jobs.iter().map(|(_, tasks)| tasks.len()).sum();
        let placed = solve(&fleet(&[(slots, &[])]), &jobs);
        prop_assert_eq!(placed.len(), tasks.min(slots as usize));
    }
}
