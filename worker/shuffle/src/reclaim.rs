//! Frees what was dropped, on a thread of its own: the memory of outputs, and their files. Freeing may take long, on a slow
//! file system in particular, and threads that must not wait drop outputs, for example the one that sends heartbeats.
//!
//! Not here: what is dropped and when (`store`), how a file is removed (`spill`).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// How long the thread waits for more before it ends.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// A queue of dropped values, and the thread that frees them in this order. The thread exists only while it is needed.
///
/// The queue needs no limit: what waits was allocated before, and is counted in its memory budget and its spill limit
/// until it is freed.
#[derive(Clone, Default)]
pub struct Reclaimer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The state changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Box<dyn Send>>,
    /// Values that wait or are being freed.
    pending: usize,
    /// Values that were freed.
    freed: u64,
    /// Whether there is a thread.
    runs: bool,
}

impl std::fmt::Debug for Reclaimer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reclaimer({} pending)", self.0.state.lock().pending)
    }
}

impl Reclaimer {
    /// Drops a value on the thread. Does not wait.
    pub fn reclaim(&self, value: impl Send + 'static) {
        let mut state = self.0.state.lock();
        state.waiting.push_back(Box::new(value));
        state.pending += 1;
        if state.runs {
            self.0.changed.notify_all();
            return;
        }
        let shared = self.0.clone();
        let thread = std::thread::Builder::new().name("reclaim".into());
        state.runs = thread.spawn(move || run(&shared)).is_ok();
        if !state.runs {
            // Without a thread, this one has to wait.
            drop(drain(&self.0, state));
        }
    }

    /// Number of values freed so far.
    pub fn freed(&self) -> u64 {
        self.0.state.lock().freed
    }

    /// Waits until more than `freed` values are freed. Returns `false` if that does not happen before `deadline`, or
    /// nothing more is pending.
    pub fn wait_for_more(&self, freed: u64, deadline: Instant) -> bool {
        let mut state = self.0.state.lock();
        while state.freed == freed {
            if state.pending == 0 || self.0.changed.wait_until(&mut state, deadline).timed_out() {
                return state.freed != freed;
            }
        }
        true
    }

    /// Waits until nothing is pending, up to `timeout`. Returns whether nothing is.
    pub fn wait_until_idle(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.0.state.lock();
        while state.pending > 0 {
            if self.0.changed.wait_until(&mut state, deadline).timed_out() {
                return state.pending == 0;
            }
        }
        true
    }
}

/// Frees values until none comes for a while.
fn run(shared: &Shared) {
    let mut state = shared.state.lock();
    loop {
        state = drain(shared, state);
        let waited = shared.changed.wait_for(&mut state, IDLE_TIMEOUT);
        if waited.timed_out() && state.waiting.is_empty() {
            state.runs = false;
            return;
        }
    }
}

/// Frees all waiting values, each without the lock.
fn drain<'a>(shared: &'a Shared, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    while let Some(value) = state.waiting.pop_front() {
        drop(state);
        // A value that panics is freed as far as possible, and the others follow.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
        state = shared.state.lock();
        state.pending -= 1;
        state.freed += 1;
        shared.changed.notify_all();
    }
    state
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Waits for a message when it is dropped.
    struct Slow(mpsc::Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.recv().unwrap();
        }
    }

    #[test]
    fn values_are_freed_elsewhere_and_waiters_see_the_progress() {
        let reclaimer = Reclaimer::default();
        let (go, wait) = mpsc::channel();
        reclaimer.reclaim(Slow(wait));
        reclaimer.reclaim(vec![1]);
        assert_eq!(reclaimer.freed(), 0);
        assert!(!reclaimer.wait_until_idle(Duration::from_millis(1)));
        assert!(!reclaimer.wait_for_more(0, Instant::now()));
        go.send(()).unwrap();
        assert!(reclaimer.wait_for_more(0, Instant::now() + Duration::from_secs(60)));
        assert!(reclaimer.wait_until_idle(Duration::from_secs(60)));
        assert_eq!(reclaimer.freed(), 2);
        assert!(!reclaimer.wait_for_more(2, Instant::now() + Duration::from_secs(60)), "nothing is pending");
    }

    #[test]
    fn a_panic_does_not_end_the_thread() {
        let reclaimer = Reclaimer::default();
        let (sender, wait) = mpsc::channel();
        drop(sender);
        reclaimer.reclaim(Slow(wait));
        reclaimer.reclaim(vec![1]);
        assert!(reclaimer.wait_until_idle(Duration::from_secs(60)));
        assert_eq!(reclaimer.freed(), 2);
    }
}
