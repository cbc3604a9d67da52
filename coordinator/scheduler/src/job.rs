//! One job: its stages, and what follows from their states: which are open, which may start, which lost outputs are
//! needed again.
//!
//! Not here: commands.

use std::collections::BTreeMap;

use tally_proto::ids::{AttemptId, JobId, StageId, TaskId, WorkerId};

use crate::shape::JobShape;
use crate::stage::Stage;
use crate::status::{JobState, JobStatus, StagePhase};
use crate::throttle::Throttles;
use crate::time::Millis;

/// What a live job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its stages run. `waiting_since`: the job waits for workers since that time.
    Running { waiting_since: Option<Millis> },
    /// The job is being published: the stages no longer matter.
    Publishing,
}

/// A live job.
#[derive(Debug)]
pub(crate) struct Job {
    /// The order of submission.
    pub order: u64,
    pub phase: Phase,
    pub stages: Vec<Stage>,
    /// The workers that refuse its tasks.
    pub throttles: Throttles,
    /// The number of unreadable outputs by worker.
    unreadable: BTreeMap<WorkerId, u32>,
}

impl Job {
    pub(crate) fn new(order: u64, shape: &JobShape) -> Self {
        let mut stages: Vec<_> = shape.stages().iter().map(|shape| Stage::new(&shape.reads)).collect();
        for reader in 0..stages.len() {
            for read in stages[reader].reads.clone() {
                stages[read].readers.push(reader);
            }
        }
        Self {
            order,
            phase: Phase::Running { waiting_since: None },
            stages,
            throttles: Throttles::default(),
            unreadable: BTreeMap::new(),
        }
    }

    /// Counts an output that could not be read from a worker, and returns that worker's count.
    pub(crate) fn unreadable_at(&mut self, holder: &WorkerId) -> u32 {
        let count = self.unreadable.entry(holder.clone()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    pub(crate) fn stage(&self, stage: StageId) -> Option<&Stage> {
        self.stages.get(stage.0 as usize)
    }

    pub(crate) fn stage_mut(&mut self, stage: StageId) -> Option<&mut Stage> {
        self.stages.get_mut(stage.0 as usize)
    }

    /// The open stages, on which the job's end depends: those that are not complete and whose outputs are read by an open
    /// stage, or by no stage (they are the job's result).
    pub(crate) fn open(&self) -> Vec<bool> {
        let mut open = vec![false; self.stages.len()];
        if self.phase == Phase::Publishing {
            return open;
        }
        for (index, stage) in self.stages.iter().enumerate().rev() {
            let wanted = stage.readers.is_empty() || stage.readers.iter().any(|reader| open[*reader]);
            open[index] = wanted && !stage.complete();
        }
        open
    }

    /// Makes the tasks ready whose output is lost and needed. It goes from the last stage to the first, because a stage
    /// that runs again needs its own inputs again.
    pub(crate) fn rerun_needed(&mut self) {
        if self.phase == Phase::Publishing {
            return;
        }
        let mut open = vec![false; self.stages.len()];
        for index in (0..self.stages.len()).rev() {
            let stage = &mut self.stages[index];
            let read = stage.readers.iter().any(|reader| open[*reader]);
            if read {
                stage.rerun_lost();
            }
            open[index] = (read || stage.readers.is_empty()) && !stage.complete();
        }
    }

    /// Makes the running tasks ready in stages that are no longer open, because their readers finished without the rerun.
    /// Returns the attempts to stop.
    pub(crate) fn withdraw(&mut self, id: &JobId) -> Vec<(WorkerId, AttemptId)> {
        let open = self.open();
        self.take_back(id, |stage| !open[stage])
    }

    /// Makes all running tasks ready. Returns the attempts to stop.
    pub(crate) fn stop_all(&mut self, id: &JobId) -> Vec<(WorkerId, AttemptId)> {
        self.take_back(id, |_| true)
    }

    fn take_back(&mut self, id: &JobId, which: impl Fn(usize) -> bool) -> Vec<(WorkerId, AttemptId)> {
        let mut stopped = Vec::new();
        for (at, stage) in (0u32..).zip(&mut self.stages) {
            if !which(at as usize) || stage.attempts() == 0 {
                continue;
            }
            for (index, running) in stage.take_running() {
                let task = TaskId { job: id.clone(), stage: StageId(at), index };
                stopped.extend(running.attempts().map(|attempt| {
                    (attempt.worker.clone(), AttemptId { task: task.clone(), attempt: attempt.number })
                }));
            }
        }
        stopped
    }

    /// Whether all inputs of an open stage exist: after `rerun_needed`, tasks with lost outputs are no longer done.
    pub(crate) fn inputs_exist(&self, stage: usize) -> bool {
        self.stages[stage].reads.iter().all(|read| self.stages[*read].complete())
    }

    /// The version of a stage's inputs. The same version means the same outputs on the same workers.
    pub(crate) fn inputs_version(&self, stage: usize) -> u64 {
        self.stages[stage].reads.iter().map(|read| self.stages[*read].version).sum()
    }

    /// The stages whose ready tasks may start, in their order.
    pub(crate) fn startable(&self) -> impl Iterator<Item = (u32, &Stage)> {
        let open = self.open();
        (0u32..).zip(&self.stages).filter(move |(index, stage)| {
            let index = *index as usize;
            open[index] && stage.has_ready() && self.inputs_exist(index)
        })
    }

    /// Whether the job waits for workers: no attempt runs, and there is a planned open stage.
    pub(crate) fn needs_workers(&self) -> bool {
        let open = self.open();
        let mut stages = self.stages.iter().zip(open);
        self.attempts() == 0 && stages.any(|(stage, open)| open && stage.phase == StagePhase::Planned)
    }

    /// The number of running attempts.
    pub(crate) fn attempts(&self) -> usize {
        self.stages.iter().map(Stage::attempts).sum()
    }

    pub(crate) fn status(&self) -> JobStatus {
        let state = match self.phase {
            Phase::Running { waiting_since: None } => JobState::Running,
            Phase::Running { waiting_since: Some(since) } => JobState::WaitingForWorkers { since },
            Phase::Publishing => JobState::Publishing,
        };
        JobStatus { state, stages: self.stages.iter().map(Stage::status).collect() }
    }
}
