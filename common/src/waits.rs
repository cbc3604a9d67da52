//! What the task on a thread waits for, and for how long: memory, a store, another worker. Code that is about to block
//! calls [`begin`]; the process that runs tasks gives each task its [`TaskWaits`] and reports them.
//!
//! A wait costs two readings of the clock and two uncontended locks, so it is noted where a thread may block, never per
//! row. Not here: what is reported to whom (the worker's `runner`).

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The longest subject that is kept, in bytes.
const MAX_SUBJECT: usize = 256;

/// What a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitKind {
    /// Memory within the process's limit.
    Memory,
    /// An object store or a file system.
    Store,
    /// Outputs of another worker.
    Worker,
    /// Another task of this process.
    Task,
}

/// A wait that has not ended.
#[derive(Debug, Clone)]
pub struct CurrentWait {
    /// What the task waits for.
    pub kind: WaitKind,
    /// The file or the worker; empty if there is none.
    pub subject: String,
    /// Since when.
    pub since: Instant,
}

/// The time that a task has waited, by kind. Waits that have not ended are not included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WaitTimes {
    /// For memory.
    pub memory: Duration,
    /// For stores.
    pub store: Duration,
    /// For other workers and other tasks.
    pub worker: Duration,
}

/// The waits of one task.
#[derive(Debug, Default)]
pub struct TaskWaits(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    current: Option<CurrentWait>,
    times: WaitTimes,
}

thread_local! {
    static TASK: RefCell<Option<Arc<TaskWaits>>> = const { RefCell::new(None) };
}

impl TaskWaits {
    /// What the task waits for now.
    pub fn current(&self) -> Option<CurrentWait> {
        self.0.lock().current.clone()
    }

    /// The time that it has waited so far.
    pub fn times(&self) -> WaitTimes {
        self.0.lock().times
    }

    /// Notes the waits of this thread until the guard is dropped.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> Watched {
        TASK.with(|task| *task.borrow_mut() = Some(self.clone()));
        Watched
    }
}

/// See [`TaskWaits::watch`].
#[derive(Debug)]
pub struct Watched;

impl Drop for Watched {
    fn drop(&mut self) {
        TASK.with(|task| *task.borrow_mut() = None);
    }
}

/// A wait of the current thread's task; it ends with this value.
#[derive(Debug)]
pub struct Waiting(Option<Arc<TaskWaits>>);

/// Begins a wait of the current thread's task; nothing happens on a thread without a task. A wait within a wait counts as
/// the outer one.
#[must_use]
pub fn begin(kind: WaitKind, subject: &str) -> Waiting {
    let Some(task) = TASK.with(|task| task.borrow().clone()) else { return Waiting(None) };
    let mut state = task.0.lock();
    if state.current.is_some() {
        return Waiting(None);
    }
    let subject = subject[..subject.floor_char_boundary(MAX_SUBJECT)].to_string();
    state.current = Some(CurrentWait { kind, subject, since: Instant::now() });
    drop(state);
    Waiting(Some(task))
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(task) = &self.0 else { return };
        let mut state = task.0.lock();
        let Some(ended) = state.current.take() else { return };
        let times = &mut state.times;
        let time = match ended.kind {
            WaitKind::Memory => &mut times.memory,
            WaitKind::Store => &mut times.store,
            WaitKind::Worker | WaitKind::Task => &mut times.worker,
        };
        *time += ended.since.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_wait_of_the_thread_is_noted_until_it_ends() {
        let waits = Arc::new(TaskWaits::default());
        drop(begin(WaitKind::Store, "before the task"));
        let watched = waits.watch();
        assert!(waits.current().is_none());
        {
            let _outer = begin(WaitKind::Store, &"ü".repeat(MAX_SUBJECT));
            let inner = begin(WaitKind::Memory, "");
            drop(inner);
            let current = waits.current().unwrap();
            assert_eq!((current.kind, current.subject), (WaitKind::Store, "ü".repeat(MAX_SUBJECT / 2)));
            // Another thread has another task.
            std::thread::scope(|scope| scope.spawn(|| drop(begin(WaitKind::Worker, "w"))).join()).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(waits.current().is_none());
        let times = waits.times();
        assert!(times.store > Duration::ZERO);
        assert_eq!((times.memory, times.worker), (Duration::ZERO, Duration::ZERO));
        drop(watched);
        drop(begin(WaitKind::Memory, ""));
        assert_eq!(waits.times(), times);
    }
}
