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
    /// Times in RFC 3339.
    pub submitted_at: Option<String>,
    pub ended_at: Option<String>,
    pub elapsed_seconds: f64,
    pub input_rows: u64,
    pub rows_done: u64,
    /// Only of `tally job`.
    pub detail: Option<DetailView>,
}

/// What explains a [`JobView`].
#[derive(Clone, Debug, Deserialize)]
pub struct DetailView {
    pub running: Vec<RunningView>,
    pub incidents: Vec<EventView>,
    pub stage_times: Vec<StageTimesView>,
    pub partitions: Option<SkewView>,
}

/// A running attempt of a [`DetailView`].
#[derive(Clone, Debug, Deserialize)]
pub struct RunningView {
    pub stage: String,
    pub worker_id: String,
    pub host: String,
    pub age_seconds: f64,
    pub waits_for: Option<WaitView>,
    pub worker_silent_seconds: Option<f64>,
}

/// What an attempt waits for: `slot`, `memory`, `store`, `worker` or `task`.
#[derive(Clone, Debug, Deserialize)]
pub struct WaitView {
    pub kind: String,
    pub subject: Option<String>,
    pub seconds: f64,
}

/// The costs of a stage.
#[derive(Clone, Debug, Deserialize)]
pub struct StageTimesView {
    pub name: String,
    pub seconds: f64,
    pub rows: u64,
    pub task_seconds: f64,
    pub peak_memory_bytes: u64,
}

/// The sizes of a job's partitions.
#[derive(Clone, Debug, Deserialize)]
pub struct SkewView {
    pub partitions: u64,
    pub largest_rows: u64,
    pub median_rows: u64,
}

/// An event, as `tally logs` prints it.
#[derive(Clone, Debug, Deserialize)]
pub struct EventView {
    pub number: u64,
    pub kind: String,
    pub stage: Option<String>,
    pub worker_id: Option<String>,
    pub text: String,
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
    pub heartbeat_age_seconds: f64,
    /// Heartbeats are missing.
    pub silent: bool,
    pub spill_limit: u64,
}

/// What `tally workers` prints.
#[derive(Debug, Deserialize)]
pub struct WorkerList {
    pub workers: Vec<WorkerView>,
}
