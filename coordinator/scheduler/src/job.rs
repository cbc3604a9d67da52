//! One job: its stages and what follows from how they stand (which are still wanted, which may
//! start, which lost outputs are needed again). Commands are not given here.

use std::collections::BTreeMap;

use tally_proto::ids::{AttemptId, JobId, StageId, TaskId, WorkerId};

use crate::shape::JobShape;
use crate::stage::Stage;
use crate::status::{JobState, JobStatus, StagePhase};
use crate::time::Millis;

/// What a live job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its stages run, or wait for workers since that time.
    Running { waiting_since: Option<Millis> },
    /// The publish is ordered: the stages no longer matter.
    Publishing,
}

/// A job that is not over.
#[derive(Debug)]
pub(crate) struct Job {
    /// Jobs submitted earlier have a lower one.
    pub order: u64,
    pub phase: Phase,
    pub stages: Vec<Stage>,
    /// How many outputs could not be read from each holder.
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
        Self { order, phase: Phase::Running { waiting_since: None }, stages, unreadable: BTreeMap::new() }
    }

    /// Notes that an output could not be read from its holder; how many that are by now.
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

    /// Which stages still have work that the job's end depends on: those not complete whose
    /// outputs an open stage reads, or nobody reads (they are the job's result).
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

    /// Runs again what is gone and needed, and only that. From the last stage to the first: a
    /// stage that has to run again needs its own inputs once more.
    pub(crate) fn rerun_needed(&mut self) {
        if self.phase == Phase::Publishing {
            return;
        }
        let mut open = vec![false; self.stages.len()];
        for index in (0..self.stages.len()).rev() {
            let stage = &mut self.stages[index];
            let read = stage.readers.iter().any(|reader| open[*reader]);
            if read {
                stage.rerun_gone();
            }
            open[index] = (read || stage.readers.is_empty()) && !stage.complete();
        }
    }

    /// Takes back what runs in stages whose outputs nobody reads any more (their readers got by
    /// without the re-run): the attempts to stop.
    pub(crate) fn withdraw(&mut self, id: &JobId) -> Vec<(WorkerId, AttemptId)> {
        let open = self.open();
        self.take_back(id, |stage| !open[stage])
    }

    /// Takes back all that runs: the attempts to stop.
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

    /// Whether all outputs that an open stage reads exist: what of them was gone is no longer
    /// done since `rerun_needed`.
    pub(crate) fn inputs_exist(&self, stage: usize) -> bool {
        self.stages[stage].reads.iter().all(|read| self.stages[*read].complete())
    }

    /// The version of what a stage reads: the same one means the same outputs in the same places.
    pub(crate) fn inputs_version(&self, stage: usize) -> u64 {
        self.stages[stage].reads.iter().map(|read| self.stages[*read].version).sum()
    }

    /// The stages whose ready tasks may start, earliest first: later ones wait for them.
    pub(crate) fn startable(&self) -> impl Iterator<Item = (u32, &Stage)> {
        let open = self.open();
        (0u32..).zip(&self.stages).filter(move |(index, stage)| {
            let index = *index as usize;
            open[index] && stage.has_ready() && self.inputs_exist(index)
        })
    }

    /// Whether there is something to do that only a worker can.
    pub(crate) fn needs_workers(&self) -> bool {
        let open = self.open();
        let mut stages = self.stages.iter().zip(open);
        self.attempts() == 0 && stages.any(|(stage, open)| open && stage.phase == StagePhase::Planned)
    }

    /// How many attempts run.
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
