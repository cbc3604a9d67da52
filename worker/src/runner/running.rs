//! The attempts that were started on a worker and are not reported yet: how to cancel each, its progress, and what it
//! waits for.
//!
//! Not here: the threads that run them (`slot`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tally_common::procfs::resident_bytes;
use tally_common::waits::{TaskWaits, WaitKind};
use tally_proto::{AttemptId, v1};
use tokio_util::sync::CancellationToken;

/// The most attempts in a heartbeat.
const MAX_REPORTED: usize = 256;

/// What an attempt has read of its inputs.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) rows: Arc<AtomicU64>,
    pub(crate) bytes: Arc<AtomicU64>,
}

/// An attempt that was started.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) cancelled: CancellationToken,
    pub(super) progress: Arc<Progress>,
    pub(super) waits: Arc<TaskWaits>,
    /// When it was started; a slot may take it later.
    queued: Instant,
    in_slot: bool,
}

impl Default for Running {
    fn default() -> Self {
        Running {
            cancelled: CancellationToken::new(),
            progress: Arc::default(),
            waits: Arc::default(),
            queued: Instant::now(),
            in_slot: false,
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct RunningAttempts(Mutex<HashMap<AttemptId, Running>>);

impl RunningAttempts {
    pub(super) fn begin(&self, attempt: AttemptId) {
        self.0.lock().insert(attempt, Running::default());
    }

    /// A slot takes the attempt.
    pub(super) fn take(&self, attempt: &AttemptId) -> Running {
        let mut running = self.0.lock();
        let found = running.get_mut(attempt);
        found.map_or_else(Running::default, |found| {
            found.in_slot = true;
            found.clone()
        })
    }

    /// Removes an attempt, and returns the number of those that remain.
    pub(super) fn end(&self, attempt: &AttemptId) -> usize {
        let mut running = self.0.lock();
        running.remove(attempt);
        running.len()
    }

    pub(super) fn cancel(&self, attempt: &AttemptId) {
        if let Some(running) = self.0.lock().get(attempt) {
            running.cancelled.cancel();
        }
    }

    pub(super) fn cancel_all(&self) {
        self.0.lock().values().for_each(|running| running.cancelled.cancel());
    }

    pub(super) fn contains(&self, attempt: &AttemptId) -> bool {
        self.0.lock().contains_key(attempt)
    }

    pub(super) fn ids(&self) -> Vec<AttemptId> {
        self.0.lock().keys().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// The attempts for a heartbeat: those that wait for the longest time first, and a limited number.
    pub(super) fn report(&self) -> Vec<v1::RunningAttempt> {
        let now = Instant::now();
        let running: Vec<(AttemptId, Running)> =
            self.0.lock().iter().map(|(attempt, running)| (attempt.clone(), running.clone())).collect();
        let mut reported: Vec<_> = running.iter().map(|(id, running)| running.report(id, now)).collect();
        let waited = |attempt: &v1::RunningAttempt| attempt.wait.as_ref().map_or(0, |wait| wait.millis);
        reported.sort_by_cached_key(|attempt| std::cmp::Reverse(waited(attempt)));
        reported.truncate(MAX_REPORTED);
        reported
    }
}

impl Running {
    fn report(&self, attempt: &AttemptId, now: Instant) -> v1::RunningAttempt {
        let since = |at: Instant| millis(now.saturating_duration_since(at));
        let wait = match self.in_slot {
            false => {
                let (kind, millis) = (v1::WaitKind::Slot.into(), since(self.queued));
                Some(v1::Wait { kind, subject: String::new(), millis })
            }
            true => self.waits.current().map(|wait| v1::Wait {
                kind: kind(wait.kind).into(),
                millis: since(wait.since),
                subject: wait.subject,
            }),
        };
        v1::RunningAttempt {
            attempt: Some(attempt.into()),
            rows: self.progress.rows.load(Ordering::Relaxed),
            bytes: self.progress.bytes.load(Ordering::Relaxed),
            wait,
        }
    }
}

fn kind(kind: WaitKind) -> v1::WaitKind {
    match kind {
        WaitKind::Memory => v1::WaitKind::Memory,
        WaitKind::Store => v1::WaitKind::Store,
        WaitKind::Worker => v1::WaitKind::Worker,
        WaitKind::Task => v1::WaitKind::Task,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How old figures of the process's memory may be: reading them takes longer than a small task may cost.
const FRESH: Duration = Duration::from_millis(20);

/// The resident bytes of this process, about now and at most so far; zeros if the kernel does not report them.
fn resident(now: Instant) -> (u64, u64) {
    static LAST: Mutex<Option<(Instant, (u64, u64))>> = Mutex::new(None);
    let mut last = LAST.lock();
    if let Some((at, bytes)) = *last
        && now.saturating_duration_since(at) < FRESH
    {
        return bytes;
    }
    let bytes = resident_bytes().unwrap_or_default();
    *last = Some((now, bytes));
    bytes
}

/// Measures what an attempt uses, from its begin on a slot to its end.
pub(super) struct Meter {
    began: Instant,
    /// The process's highest resident memory before.
    highest: u64,
}

impl Meter {
    pub(super) fn start() -> Self {
        let began = Instant::now();
        Meter { began, highest: resident(began).1 }
    }

    /// The use so far. The peak is the process's maximum if that grew meanwhile, otherwise it is the memory at the end.
    pub(super) fn usage(&self, waits: &TaskWaits) -> v1::TaskUsage {
        let (now, highest) = resident(Instant::now());
        let peak = if highest > self.highest { highest } else { now };
        let times = waits.times();
        v1::TaskUsage {
            peak_memory_bytes: peak,
            millis: millis(self.began.elapsed()),
            memory_wait_millis: millis(times.memory),
            store_wait_millis: millis(times.store),
            worker_wait_millis: millis(times.worker),
        }
    }
}

#[cfg(test)]
mod tests {
    use tally_common::waits;
    use tally_proto::{JobId, StageId, TaskId};

    use super::*;

    fn attempt(index: u32) -> AttemptId {
        let job = JobId::parse("j").unwrap();
        AttemptId { task: TaskId { job, stage: StageId(0), index }, attempt: 0 }
    }

    #[test]
    fn heartbeats_name_what_attempts_wait_for_and_are_bounded() {
        let all = RunningAttempts::default();
        (0..3).for_each(|index| all.begin(attempt(index)));
        let computing = all.take(&attempt(1));
        computing.progress.rows.store(7, Ordering::Relaxed);
        let waiting = all.take(&attempt(2));
        let _watched = waiting.waits.watch();
        let _wait = waits::begin(WaitKind::Store, "s3://data/x");
        let mut report = all.report();
        report.sort_by_key(|entry| entry.attempt.as_ref().unwrap().index);
        let kinds: Vec<_> = report.iter().map(|entry| entry.wait.as_ref().map(v1::Wait::kind)).collect();
        assert_eq!(kinds, [Some(v1::WaitKind::Slot), None, Some(v1::WaitKind::Store)]);
        assert_eq!((report[1].rows, report[2].wait.as_ref().unwrap().subject.as_str()), (7, "s3://data/x"));
        (3..2000).for_each(|index| all.begin(attempt(index)));
        assert_eq!((all.report().len(), all.len()), (MAX_REPORTED, 2000));
    }
}
