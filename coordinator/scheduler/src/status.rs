//! How a job stands, for people: states and counts. Nothing is decided by these.

use crate::command::Outcome;
use crate::time::Millis;

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// What the job is doing.
    pub state: JobState,
    /// Its stages, from stage 0. Of a finished job: as they stood when it ended.
    pub stages: Vec<StageStatus>,
}

/// What a job is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Stages are planned and run.
    Running,
    /// There is work, and no worker that takes any; it fails if that lasts.
    WaitingForWorkers {
        /// Since when.
        since: Millis,
    },
    /// All stages are done; the publish was ordered.
    Publishing,
    /// It is over.
    Finished {
        /// How it ended.
        outcome: Outcome,
    },
}

/// How far a stage came. Only moves forward; a stage that is complete and whose outputs are
/// lost later stays planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StagePhase {
    /// Its inputs are not complete.
    Waiting,
    /// The order to plan it was given.
    Planning,
    /// It has its tasks.
    Planned,
}

/// How a stage stands. `pending + waiting + running + done == tasks`, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageStatus {
    /// How far it came.
    pub phase: StagePhase,
    /// Its tasks; 0 until it is planned.
    pub tasks: usize,
    /// Tasks that wait for a slot or for their stage's inputs.
    pub pending: usize,
    /// Tasks that failed and wait for the time of their retry.
    pub waiting: usize,
    /// Tasks with one attempt or two.
    pub running: usize,
    /// Tasks that are done, whether or not their output is still there.
    pub done: usize,
    /// Attempts that ended without a result, on their own or with their worker, so far.
    pub failed_attempts: u64,
    /// Tasks that were done and had to run again, so far.
    pub reruns: u64,
    /// Second attempts beside a slow first one, so far.
    pub second_attempts: u64,
}
