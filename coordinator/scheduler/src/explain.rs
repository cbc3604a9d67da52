//! What explains the state of a job to people: its running attempts, and why pending tasks do not run. No decision depends
//! on it.

use tally_proto::ids::{AttemptId, JobId, StageId, WorkerId};

use crate::status::StagePhase;
use crate::step::Scheduler;
use crate::task::TaskState;
use crate::time::Millis;

/// A running attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningAttempt {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its worker.
    pub worker: WorkerId,
    /// When it was started.
    pub started: Millis,
    /// Another attempt of its task was running already.
    pub speculative: bool,
}

/// Why a stage's pending tasks do not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// Tasks of an earlier stage have to run, for the first time or again.
    Tasks {
        /// The earlier stage.
        stage: StageId,
        /// Its tasks that are not done.
        missing: usize,
    },
    /// No worker takes tasks.
    Workers,
    /// All tasks failed and wait for their retry.
    Retry,
    /// The workers refused the job's tasks: they have no memory or disk space.
    Room,
    /// All slots are taken.
    Slots,
}

impl Scheduler {
    /// The running attempts of a live job that have not been asked to stop. The cost is proportional to the number of
    /// workers and their slots.
    pub fn running(&self, job: &JobId) -> impl Iterator<Item = RunningAttempt> {
        let attempts = self.workers.attempts_of(job);
        attempts.filter_map(|(worker, attempt)| {
            let (started, speculative) = self.started(attempt)?;
            Some(RunningAttempt { attempt: attempt.clone(), worker: worker.clone(), started, speculative })
        })
    }

    /// When a running attempt was started, and whether it is speculative; `None` if it does not run.
    pub fn started(&self, attempt: &AttemptId) -> Option<(Millis, bool)> {
        let task = &attempt.task;
        let TaskState::Running(running) =
            self.jobs.get(&task.job)?.stage(task.stage)?.task(task.index)?.state()
        else {
            return None;
        };
        let found = running.attempts().find(|running| running.number == attempt.attempt)?;
        let speculative = running.second.as_ref().is_some_and(|second| second.number == attempt.attempt);
        Some((found.started, speculative))
    }

    /// When an attempt was started that was asked to stop and did not end yet, also of a job that ended; `None` for others.
    pub fn stopped_since(&self, worker: &WorkerId, attempt: &AttemptId) -> Option<Millis> {
        self.workers.stopped_since(worker, attempt)
    }

    /// Why the pending tasks of a stage do not run; `None` if it has none.
    pub fn pending(&self, job: &JobId, stage: StageId) -> Option<Pending> {
        let job = self.jobs.get(job)?;
        let asked = job.stage(stage)?;
        if asked.phase != StagePhase::Planned || asked.idle() == 0 {
            return None;
        }
        for &read in &asked.reads {
            let status = job.stages[read].status();
            if status.done < status.tasks {
                let missing = status.tasks - status.done;
                return Some(Pending::Tasks { stage: StageId(read as u32), missing });
            }
        }
        Some(match () {
            () if self.workers.serving().is_empty() => Pending::Workers,
            () if !asked.has_ready() => Pending::Retry,
            () if !self.workers.free().is_empty() && job.throttles.len() > 0 => Pending::Room,
            () => Pending::Slots,
        })
    }

    /// The number of outputs of a live job that a worker holds.
    pub fn outputs_of_job_held_by(&self, job: &JobId, worker: &WorkerId) -> usize {
        let stages = self.jobs.get(job).into_iter().flat_map(|job| &job.stages);
        stages.filter(|stage| !stage.readers.is_empty()).map(|stage| stage.held(worker).count()).sum()
    }
}
