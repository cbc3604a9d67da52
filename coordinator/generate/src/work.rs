//! The work of a run: threads take numbered tasks from one list until one fails or the caller stops all. Not here: what a
//! task does (`run`, `samples`).

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::GenerateError;

/// The tasks of a run, by number.
pub(crate) struct Work<'a> {
    tasks: usize,
    next: AtomicUsize,
    failed: AtomicBool,
    stop: &'a AtomicBool,
}

impl<'a> Work<'a> {
    /// So many tasks, until `stop` is set.
    pub(crate) fn new(tasks: usize, stop: &'a AtomicBool) -> Self {
        Work { tasks, next: AtomicUsize::new(0), failed: AtomicBool::new(false), stop }
    }

    /// Calls `task` with the number of each task, on `threads` threads or by default as many as there are cores.
    ///
    /// # Errors
    /// The first failure, or [`GenerateError::Stopped`].
    pub(crate) fn run(
        &self,
        threads: Option<usize>,
        task: impl Fn(usize) -> Result<(), GenerateError> + Sync,
    ) -> Result<(), GenerateError> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = threads.unwrap_or(cores).min(self.tasks);
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.run_thread(&task))).collect();
            let ends = handles.into_iter().map(|handle| match handle.join() {
                Ok(end) => end,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            // Join all threads before the first failure is returned.
            ends.collect::<Vec<_>>().into_iter().collect::<Result<(), _>>()
        })?;
        if self.is_stopped() { Err(GenerateError::Stopped) } else { Ok(()) }
    }

    fn run_thread(&self, task: impl Fn(usize) -> Result<(), GenerateError>) -> Result<(), GenerateError> {
        while !self.is_over() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.tasks {
                break;
            }
            task(number).inspect_err(|_| self.failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether a task failed, or the caller stopped all of them: the others can end early.
    pub(crate) fn is_over(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.is_stopped()
    }
}
