//! The status of a job, for people: states and counts. No decision depends on it.

use crate::command::Outcome;
use crate::time::Millis;

/// The status of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// What the job is doing.
    pub state: JobState,
    /// Its stages, from stage 0. Those of a finished job are as of its end.
    pub stages: Vec<StageStatus>,
}

/// What a job is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Stages are planned and run.
    Running,
    /// There is work, and no worker takes tasks. The job fails if that lasts.
    WaitingForWorkers {
        /// The begin of the wait.
        since: Millis,
    },
    /// All stages are done, and the day is being published.
    Publishing,
    /// It ended.
    Finished {
        /// How it ended.
        outcome: Outcome,
    },
}

/// The phase of a stage. It only moves forward; a complete stage whose outputs are lost later stays planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StagePhase {
    /// Its inputs are not complete.
    Waiting,
    /// It is being planned.
    Planning,
    /// It has its tasks.
    Planned,
}

/// The status of a stage. `pending + waiting + running + done == tasks`, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageStatus {
    /// Its phase.
    pub phase: StagePhase,
    /// Its tasks; 0 until it is planned.
    pub tasks: usize,
    /// Tasks that wait for a slot or for their stage's inputs.
    pub pending: usize,
    /// Tasks that failed and wait for their retry.
    pub waiting: usize,
    /// Tasks with one or two running attempts.
    pub running: usize,
    /// Done tasks, including those whose output was lost and is not needed.
    pub done: usize,
    /// Attempts that ended without a result, alone or with their worker, so far.
    pub failed_attempts: u64,
    /// Done tasks that had to run again, so far.
    pub reruns: u64,
    /// Speculative attempts so far.
    pub speculative_attempts: u64,
}
