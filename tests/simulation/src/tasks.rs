//! The executor of a schedule: futures of simulated processes, polled in the order in which they were woken. A process
//! that dies loses its futures at once, wherever they wait.
//!
//! Not here: time (`world`), and what a finished future means (`cluster`).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// One life of a simulated process: its place in the cluster, and the number of its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The process.
    pub process: usize,
    /// The start.
    pub life: u32,
}

/// The woken futures, shared with their wakers.
#[derive(Debug, Default)]
pub struct Ready {
    queue: Mutex<VecDeque<(usize, u64)>>,
    /// The waker of the loop, while it waits.
    parent: Mutex<Option<Waker>>,
}

impl Ready {
    /// Wakes the loop when a future is woken.
    pub fn park(&self, waker: &Waker) {
        *self.parent.lock() = Some(waker.clone());
    }

    /// Whether a future is woken.
    pub fn any(&self) -> bool {
        !self.queue.lock().is_empty()
    }
}

struct TaskWaker {
    slot: usize,
    serial: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.queue.lock().push_back((self.slot, self.serial));
            if let Some(parent) = self.ready.parent.lock().take() {
                parent.wake();
            }
        }
    }
}

struct Task<T> {
    owner: Owner,
    serial: u64,
    waker: Arc<TaskWaker>,
    future: Pin<Box<dyn Future<Output = T>>>,
}

/// The futures of all processes.
pub struct Tasks<T> {
    slots: Vec<Option<Task<T>>>,
    free: Vec<usize>,
    serial: u64,
    ready: Arc<Ready>,
}

impl<T> Default for Tasks<T> {
    fn default() -> Self {
        Tasks { slots: vec![], free: vec![], serial: 0, ready: Arc::default() }
    }
}

impl<T> Tasks<T> {
    /// The woken futures.
    pub fn ready(&self) -> &Arc<Ready> {
        &self.ready
    }

    /// Futures that have not ended.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Runs a future of a process.
    pub fn spawn(&mut self, owner: Owner, future: impl Future<Output = T> + 'static) {
        self.serial += 1;
        let (serial, ready) = (self.serial, self.ready.clone());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let waker = Arc::new(TaskWaker { slot, serial, queued: AtomicBool::new(false), ready });
        waker.wake_by_ref();
        self.slots[slot] = Some(Task { owner, serial, waker, future: Box::pin(future) });
    }

    /// Drops the futures of a process that died.
    pub fn kill(&mut self, owner: Owner) {
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if slot.take_if(|task| task.owner == owner).is_some() {
                self.free.push(at);
            }
        }
    }

    /// Polls the next woken future whose process runs. Returns its output if it ended; `None` if no future is woken.
    pub fn poll(&mut self, mut runs: impl FnMut(Owner) -> Turn) -> Option<Progress<T>> {
        loop {
            let (slot, serial) = self.ready.queue.lock().pop_front()?;
            let Some(task) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            if task.serial != serial {
                continue;
            }
            task.waker.queued.store(false, Ordering::Relaxed);
            let owner = task.owner;
            if runs(owner) == Turn::Later {
                return Some(Progress::Deferred(owner, task.waker.clone().into()));
            }
            let waker = Waker::from(task.waker.clone());
            match task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => return Some(Progress::Pending),
                Poll::Ready(output) => {
                    self.slots[slot] = None;
                    self.free.push(slot);
                    return Some(Progress::Ended(owner, output));
                }
            }
        }
    }
}

/// Whether a process runs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It runs.
    Now,
    /// It is paused.
    Later,
}

/// What came of a woken future.
pub enum Progress<T> {
    /// It waits again.
    Pending,
    /// It ended.
    Ended(Owner, T),
    /// Its process is paused: wake it later.
    Deferred(Owner, Waker),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_process_has_no_futures() {
        let mut tasks = Tasks::<u32>::default();
        let owner = |process| Owner { process, life: 1 };
        tasks.spawn(owner(0), std::future::pending());
        tasks.spawn(owner(1), async { 7 });
        tasks.kill(owner(0));
        let Some(Progress::Ended(by, 7)) = tasks.poll(|_| Turn::Now) else { panic!("it did not end") };
        assert_eq!((by, tasks.len()), (owner(1), 0));
        assert!(tasks.poll(|_| Turn::Now).is_none());
    }

    #[test]
    fn a_paused_process_continues_later() {
        let mut tasks = Tasks::<u32>::default();
        tasks.spawn(Owner { process: 0, life: 0 }, async { 7 });
        let Some(Progress::Deferred(_, waker)) = tasks.poll(|_| Turn::Later) else { panic!("it ran") };
        assert!(tasks.poll(|_| Turn::Now).is_none());
        waker.wake();
        assert!(matches!(tasks.poll(|_| Turn::Now), Some(Progress::Ended(_, 7))));
    }
}
