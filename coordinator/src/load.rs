//! How much there is to do and who does it, as the driver last saw it: what autoscalers and
//! monitoring go by.
//!
//! Not here: how it is asked (`service::scaler`, `service::observed`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tally_scheduler::Demand;
use tally_worker::runner::OUTCOMES;

/// The outcomes of jobs.
pub const JOB_OUTCOMES: [&str; 3] = ["done", "failed", "cancelled"];
/// The states of live jobs.
pub const JOB_STATES: [&str; 3] = ["running", "waiting_for_workers", "publishing"];
/// The states of workers.
pub const WORKER_STATES: [&str; 3] = ["attached", "draining", "detached"];

/// One look at a term.
#[derive(Debug, Clone)]
pub struct Load {
    /// When.
    pub at: Instant,
    /// Work in slots that it would take. `None` while jobs of an earlier term wait for what workers
    /// have of them: nobody can tell yet.
    pub demand: Option<Demand>,
    /// Jobs that are not over. Outputs are needed only by these.
    pub live_jobs: usize,
    /// Those that run for longer than each of the last of their kind did.
    pub slow_jobs: usize,
    /// Those by state, as [`JOB_STATES`] has them.
    pub jobs: [usize; JOB_STATES.len()],
    /// Tasks of live jobs, by stage.
    pub stages: Vec<StageLoad>,
    /// Workers, as [`WORKER_STATES`] has them.
    pub workers: [usize; WORKER_STATES.len()],
    /// Slots of workers that take tasks.
    pub slots: u64,
    /// What was counted since the term began.
    pub counts: Counts,
}

/// Tasks of one stage, over all live jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StageLoad {
    /// The stage's name.
    pub name: &'static str,
    /// Tasks that wait for a slot, for inputs, or for their retry.
    pub pending: usize,
    /// Tasks that run.
    pub running: usize,
    /// Tasks that are done.
    pub done: usize,
}

/// What only grows during a term.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Attempts that ended, by stage and outcome.
    pub attempts: BTreeMap<(&'static str, &'static str), u64>,
    /// Workers that left, and nothing that was needed with them.
    pub workers_drained: u64,
    /// Workers that were given up, or left with something that may be needed.
    pub workers_lost: u64,
    /// Jobs that ended, by outcome.
    pub jobs: BTreeMap<&'static str, u64>,
    /// Days that were, or were to be, published.
    pub publish: Publishes,
}

/// A day that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Part files.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// What came of publishing, from the laying ready of part files on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Publishes {
    /// Days that were published.
    pub done: u64,
    /// Those that could not be.
    pub failed: u64,
    /// What both took together.
    pub took: Duration,
    /// All that was published.
    pub day: Day,
}

impl Publishes {
    const NONE: Publishes =
        Publishes { done: 0, failed: 0, took: Duration::ZERO, day: Day { files: 0, rows: 0, bytes: 0 } };

    /// One more, with the day where it was published.
    pub fn count(&mut self, took: Duration, day: Option<Day>) {
        self.took += took;
        match day {
            None => self.failed += 1,
            Some(Day { files, rows, bytes }) => {
                self.done += 1;
                self.day.files += files;
                self.day.rows += rows;
                self.day.bytes += bytes;
            }
        }
    }
}

impl Counts {
    /// Nothing yet; all outcomes are there, so that rates are right at the first one.
    pub fn new(stages: &[&'static str]) -> Self {
        let attempts = stages.iter().flat_map(|stage| OUTCOMES.map(|outcome| ((*stage, outcome), 0)));
        Counts {
            attempts: attempts.collect(),
            workers_drained: 0,
            workers_lost: 0,
            jobs: JOB_OUTCOMES.map(|outcome| (outcome, 0)).into(),
            publish: Publishes::NONE,
        }
    }
}

impl Load {
    /// Whether there has to be any worker: a job lives, and with it its map outputs are needed.
    pub fn is_active(&self) -> bool {
        self.live_jobs > 0
    }
}
