//! What a cluster reports about its jobs and workers, as `--output-format json` prints it. Not here: the queries (`client`).

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process::Summary;

/// One job, as `tally job` prints it.
#[derive(Clone, Debug, Deserialize)]
pub struct JobView {
    pub job_id: String,
    /// `running`, `waiting_for_workers`, `publishing`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// `plan`, `map`, `reduce`, `write` or `publish`.
    pub phase: String,
    pub stages: Vec<StageView>,
    pub date: String,
    pub inputs: Vec<String>,
    pub output: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// After it is done.
    pub summary: Option<Summary>,
}

/// One stage of a [`JobView`]: tasks by state, and failures.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct StageView {
    pub name: String,
    pub tasks: u64,
    pub pending: u64,
    pub running: u64,
    pub done: u64,
    pub failed_attempts: u64,
    /// Tasks that were done and had to run again.
    pub reruns: u64,
    /// Speculative attempts.
    pub second_attempts: u64,
}

impl JobView {
    /// The stage called `name`.
    ///
    /// # Errors
    /// The job does not report it.
    pub fn stage(&self, name: &str) -> Result<&StageView> {
        let found = self.stages.iter().find(|stage| stage.name == name);
        found.with_context(|| format!("job {} has no stage {name}: {self:?}", self.job_id))
    }

    /// Whether the job is in a final state.
    pub fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "done" | "failed" | "cancelled")
    }

    /// Tasks that ran again, in all stages.
    pub fn reruns(&self) -> u64 {
        self.stages.iter().map(|stage| stage.reruns).sum()
    }

    /// Tasks done so far, in all stages.
    pub fn done(&self) -> u64 {
        self.stages.iter().map(|stage| stage.done).sum()
    }
}

/// What `tally jobs` prints.
#[derive(Debug, Deserialize)]
pub struct JobList {
    pub jobs: Vec<JobView>,
}

/// One worker, as `tally workers` prints it.
#[derive(Clone, Debug, Deserialize)]
pub struct WorkerView {
    pub worker_id: String,
    /// `attached`, `detached` or `draining`.
    pub state: String,
    pub flight_address: String,
    pub slots: u32,
    pub running: u32,
    pub memory_used: u64,
    pub spilled_bytes: u64,
    /// Task outputs of live jobs that it keeps.
    pub outputs: u64,
}

/// What `tally workers` prints.
#[derive(Debug, Deserialize)]
pub struct WorkerList {
    pub workers: Vec<WorkerView>,
}
