//! The load of the cluster at the driver's last tick, for autoscalers and monitoring.
//!
//! Not here: how it is requested (`service::scaler`, `service::observed`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tally_proto::report::OUTCOMES;
use tally_scheduler::Demand;

/// The outcomes of jobs.
pub const JOB_OUTCOMES: [&str; 3] = ["done", "failed", "cancelled"];
/// The states of live jobs.
pub const JOB_STATES: [&str; 3] = ["running", "waiting_for_workers", "publishing"];
/// The states of workers.
pub const WORKER_STATES: [&str; 3] = ["attached", "draining", "detached"];

/// The load at one moment of a term.
#[derive(Debug, Clone)]
pub struct Load {
    /// The moment.
    pub at: Instant,
    /// Runnable and running work, in slots. `None` while jobs of an earlier term wait for the workers' inventories: the
    /// work is not known yet.
    pub demand: Option<Demand>,
    /// Live jobs. Only they need outputs of tasks.
    pub live_jobs: usize,
    /// Live jobs that run for longer than each of the last jobs of their kind.
    pub slow_jobs: usize,
    /// Live jobs by state, in the order of [`JOB_STATES`].
    pub jobs: [usize; JOB_STATES.len()],
    /// Tasks of live jobs, by stage.
    pub stages: Vec<StageLoad>,
    /// Workers by state, in the order of [`WORKER_STATES`].
    pub workers: [usize; WORKER_STATES.len()],
    /// Slots of workers that take tasks.
    pub slots: u64,
    /// Counters since the term began.
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

/// Counters of a term. They only grow.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Attempts that ended, by stage and outcome.
    pub attempts: BTreeMap<(&'static str, &'static str), u64>,
    /// Workers that left after a complete drain.
    pub workers_drained: u64,
    /// Workers that were lost, or left before their drain was complete.
    pub workers_lost: u64,
    /// Jobs that ended, by outcome.
    pub jobs: BTreeMap<&'static str, u64>,
    /// Publishes, successful or not.
    pub publish: Publishes,
}

/// The size of a written day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Part files.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Publishes, counted from the preparation of the part files.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Publishes {
    /// Published days.
    pub done: u64,
    /// Days that could not be published.
    pub failed: u64,
    /// The total duration of both.
    pub took: Duration,
    /// The total size of the published days.
    pub day: Day,
}

impl Publishes {
    const NONE: Publishes =
        Publishes { done: 0, failed: 0, took: Duration::ZERO, day: Day { files: 0, rows: 0, bytes: 0 } };

    /// Counts a publish; `day` is the published day.
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
    /// Zero counters. All outcomes are present, so that rates are correct from the first event on.
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
    /// Whether workers are needed: a job is live, so its map outputs are needed.
    pub fn is_active(&self) -> bool {
        self.live_jobs > 0
    }
}
