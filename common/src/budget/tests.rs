//! The order in which tasks get memory. Tests wait until a thread is in the queue instead of sleeping.

use std::sync::mpsc;
use std::thread::JoinHandle;

use super::*;

/// The time limit of each wait.
const DEADLINE: Duration = Duration::from_secs(60);

fn until(what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < DEADLINE, "{what}");
        std::thread::yield_now();
    }
}

fn task(budget: &Budget) -> Budget {
    budget.for_task(CancellationToken::default())
}

/// Lets a task wait for memory, and returns when it is in the queue.
fn wait_for(budget: &Budget, bytes: usize) -> JoinHandle<Result<Reservation, Shortage>> {
    let mine = budget.clone();
    let thread = std::thread::spawn(move || mine.reserve(bytes));
    let waits = || budget.pool.state.lock().waiters.iter().any(|waiter| waiter.task == budget.task.id);
    until("a thread waits", || waits() || thread.is_finished());
    thread
}

fn end(thread: JoinHandle<Result<Reservation, Shortage>>) -> Result<Reservation, Shortage> {
    until("a thread gets its answer", || thread.is_finished());
    thread.join().unwrap()
}

#[test]
fn a_reservation_is_released_when_it_is_dropped() {
    let budget = Budget::new(100);
    let first = budget.try_reserve(60).unwrap();
    assert!(budget.try_reserve(41).is_none());
    let second = budget.reserve(40).unwrap();
    assert_eq!(budget.used(), 100);
    drop(first);
    assert_eq!(budget.used(), 40);
    drop(second);
    assert_eq!(budget.used(), 0);
    assert!(budget.try_reserve(usize::MAX).is_none());
    let other = task(&budget);
    drop((other.reserve(1).unwrap(), other));
    assert_eq!(budget.pool.state.lock().accounts.len(), 1, "accounts end with their tasks");
}

#[test]
fn a_request_beyond_the_limit_is_refused_with_the_option_that_suffices() {
    // A quarter of an option of 1 GiB.
    let budget = Budget::part_of(1 << 30, 256 << 20);
    let (one, other) = (task(&budget), task(&budget));
    let _others = other.reserve(100 << 20).unwrap();
    let _own = one.reserve(100 << 20).unwrap();
    let Err(Shortage::Never { bytes, raise }) = one.reserve(200 << 20) else { panic!("it is there") };
    // Twice 300 MiB, times four.
    assert_eq!((bytes, &*raise), (200 << 20, "2560MiB"));
    let text = Shortage::Never { bytes, raise }.to_string();
    assert!(text.contains("200.0 MiB") && text.contains("set --memory-limit to 2560MiB"), "{text}");
}

#[test]
fn waiting_requests_are_granted_in_order() {
    let budget = Budget::new(100);
    let holder = task(&budget);
    let mut held = vec![holder.reserve(50).unwrap(), holder.reserve(50).unwrap()];
    let large = wait_for(&task(&budget), 60);
    // It would fit, but it comes after the large one.
    let small = wait_for(&task(&budget), 10);
    drop(held.pop());
    assert!(!large.is_finished() && !small.is_finished());
    assert!(budget.try_reserve(1).is_none(), "optional memory does not overtake");
    let late = task(&budget);
    let late = wait_for(&late, 1);
    drop(held.pop());
    let all = [large, small, late].map(|thread| end(thread).unwrap());
    assert_eq!(budget.used(), 71);
    drop(all);
    assert_eq!(budget.used(), 0);
}

#[test]
fn no_wake_up_is_lost() {
    let budget = Budget::new(10);
    std::thread::scope(|scope| {
        for thread in 0..8usize {
            let budget = &budget;
            scope.spawn(move || {
                for round in 0..2000 {
                    // One reservation at a time: no thread waits while it holds memory.
                    let held = task(budget).reserve(1 + (thread * 7 + round) % 10).unwrap();
                    assert!(budget.used() <= 10);
                    drop(held);
                }
            });
        }
    });
    assert_eq!(budget.used(), 0);
    assert!(!budget.is_contended());
}

#[test]
fn a_cancelled_task_stops_waiting_and_later_requests_move_up() {
    let budget = Budget::new(100);
    let holder = task(&budget);
    let _held = holder.reserve(60).unwrap();
    let cancelled = CancellationToken::default();
    let stopped = budget.for_task(cancelled.clone());
    let waits = wait_for(&stopped, 50);
    let behind = wait_for(&task(&budget), 40);
    cancelled.cancel();
    budget.wake_cancelled();
    assert_eq!(end(waits).unwrap_err(), Shortage::Cancelled);
    assert!(end(behind).is_ok());
    assert_eq!(stopped.reserve(50).unwrap_err(), Shortage::Cancelled, "it does not start to wait");
}

#[test]
fn a_wait_with_a_time_limit_ends_and_later_requests_move_up() {
    let budget = Budget::new(100);
    let holder = task(&budget);
    let _held = holder.reserve(60).unwrap();
    let hurried = task(&budget);
    let refused = hurried.reserve_within(50, Duration::from_millis(1)).unwrap_err();
    assert!(matches!(refused, Shortage::Now { bytes: 50, .. }), "{refused}");
    assert!(!budget.is_contended());
    assert!(hurried.reserve_within(40, Duration::ZERO).is_ok(), "available memory needs no wait");
}

#[test]
fn of_two_tasks_in_a_deadlock_the_later_one_is_refused() {
    for first_waits_first in [true, false] {
        let budget = Budget::new(100);
        let (first, last) = (task(&budget), task(&budget));
        let (mine, others) = (first.reserve(50).unwrap(), last.reserve(50).unwrap());
        let (older, younger) = if first_waits_first {
            let older = wait_for(&first, 30);
            (older, wait_for(&last, 30))
        } else {
            let younger = wait_for(&last, 30);
            (wait_for(&first, 30), younger)
        };
        let Err(Shortage::Now { bytes, raise }) = end(younger) else { panic!("both wait") };
        // 100 held and 30 wanted by each of the two.
        assert_eq!((bytes, &*raise), (30, "64MiB"));
        assert!(!older.is_finished(), "the refused task still holds its memory");
        drop(others);
        let granted = end(older).unwrap();
        drop((mine, granted));
        assert_eq!(budget.used(), 0);
    }
}

#[test]
fn a_task_that_holds_memory_goes_before_one_that_waits_for_it() {
    let budget = Budget::new(100);
    let holder = task(&budget);
    let held = holder.reserve(30).unwrap();
    let newcomer = wait_for(&task(&budget), 80);
    // 70 are free, but a new task is first in the queue, and gets its 80 only after this task ends.
    let more = end(wait_for(&holder, 10)).unwrap();
    assert!(!newcomer.is_finished());
    drop((held, more));
    assert!(end(newcomer).is_ok());
}

#[test]
fn many_tasks_that_hold_and_wait_all_finish() {
    let budget = Budget::new(100);
    let (sender, done) = mpsc::channel();
    let threads: Vec<_> = (0..6)
        .map(|_| {
            let (budget, sender) = (budget.clone(), sender.clone());
            std::thread::spawn(move || {
                for _ in 0..50 {
                    // A refused task is retried.
                    loop {
                        let task = task(&budget);
                        let held: Result<Vec<_>, _> = (0..6).map(|_| task.reserve(15)).collect();
                        match held {
                            Ok(_) => break,
                            Err(why) => assert!(matches!(why, Shortage::Now { .. }), "{why}"),
                        }
                    }
                }
                sender.send(()).unwrap();
            })
        })
        .collect();
    for _ in &threads {
        done.recv_timeout(DEADLINE).expect("all threads finish");
    }
    assert_eq!(budget.used(), 0);
}

#[test]
fn shared_memory_is_not_released_while_one_of_its_tasks_waits() {
    let budget = Budget::new(100);
    let shared = budget.for_shared();
    let (one, two, other) = (task(&budget), task(&budget), task(&budget));
    let (through_one, through_two) = (one.through(&shared), two.through(&shared));
    let strings = [through_one.reserve(30).unwrap(), through_two.reserve(30).unwrap()];
    let theirs = other.reserve(40).unwrap();
    // The job's own memory and its task's: 60 of it are there already.
    assert!(matches!(through_one.reserve(50), Err(Shortage::Never { .. })));
    let first = wait_for(&through_one, 20);
    let second = wait_for(&other, 20);
    // Neither the strings nor the memory of the other task will be released: the other task started last.
    assert!(matches!(end(second), Err(Shortage::Now { .. })));
    drop(theirs);
    assert!(end(first).is_ok());
    drop(strings);
}

#[test]
fn unused_memory_is_reclaimed_for_waiting_tasks() {
    let budget = Budget::new(100);
    let idle = Arc::new(Mutex::new(Some(budget.for_shared().reserve(80).unwrap())));
    let kept = idle.clone();
    budget.on_shortage(move || drop(kept.lock().take()));
    let held = task(&budget).reserve(50).unwrap();
    assert!(idle.lock().is_none());
    drop(held);
}

#[test]
fn the_account_of_a_cancelled_task_may_end_at_any_time() {
    let budget = Budget::new(100);
    let _held = task(&budget).reserve(100).unwrap();
    for _ in 0..500 {
        let cancelled = CancellationToken::default();
        let stopped = budget.for_task(cancelled.clone());
        // The thread has the only handle: the account ends as soon as the thread gets its answer.
        let waits = std::thread::spawn(move || stopped.reserve(1).map(drop));
        until("a thread waits", || budget.is_contended());
        cancelled.cancel();
        budget.wake_cancelled();
        until("a thread gets its answer", || waits.is_finished());
        assert_eq!(waits.join().unwrap(), Err(Shortage::Cancelled));
    }
    // The accounts of the budget and of the reservation.
    assert_eq!(budget.pool.state.lock().accounts.len(), 2);
}

#[test]
fn optional_memory_does_not_make_a_request_impossible() {
    let budget = Budget::new(100);
    let task = task(&budget);
    let ahead = task.try_reserve(60).unwrap();
    assert!(matches!(task.reserve(50), Err(Shortage::Now { bytes: 50, .. })));
    assert!(matches!(task.reserve(101), Err(Shortage::Never { bytes: 101, .. })));
    drop(ahead);
    assert!(task.reserve(50).is_ok());
}
