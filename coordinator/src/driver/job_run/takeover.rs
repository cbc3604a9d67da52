//! What earlier leaders left of a job: the recorded plan, and the tasks that workers have of stages that this term has
//! not planned yet.

use std::collections::BTreeMap;

use tally_proto::{AttemptId, JobId, StageId, TaskId, WorkerId};
use tally_scheduler::FoundTask;

use crate::job::{MAP, REDUCE};
use crate::plan::InputPlan;

/// Copies and attempts of one task that are noted: more than migrations and speculation leave.
const MAX_FOUND: usize = 8;

/// What earlier leaders left of a job.
#[derive(Default)]
pub(in crate::driver) struct Takeover {
    plan: Option<InputPlan>,
    /// Map and reduce tasks of the recorded plan. Only a job with such a plan had tasks.
    tasks: [usize; 2],
    /// By stage and number of the task.
    found: BTreeMap<StageId, BTreeMap<u32, Vec<FoundTask>>>,
}

impl Takeover {
    /// Sets the recorded plan. Without one, or with one that cannot be read, nothing of earlier terms is used: outputs
    /// follow the plan.
    pub(in crate::driver) fn recorded(&mut self, plan: Option<InputPlan>) {
        self.tasks = plan.as_ref().map_or([0; 2], |plan| [plan.tasks.len(), plan.partitions as usize]);
        self.plan = plan;
    }

    /// The recorded plan, once.
    pub(in crate::driver) fn take_plan(&mut self) -> Option<InputPlan> {
        self.plan.take()
    }

    /// Whether earlier terms can have made this output, and another copy may be noted. Write tasks always run again.
    pub(in crate::driver) fn accepts(&self, task: &TaskId) -> bool {
        let tasks = match task.stage.0 {
            MAP => self.tasks[0],
            REDUCE => self.tasks[1],
            _ => 0,
        };
        let noted = self.found.get(&task.stage).and_then(|stage| stage.get(&task.index));
        (task.index as usize) < tasks && noted.is_none_or(|noted| noted.len() < MAX_FOUND)
    }

    /// Notes what a worker has of a stage that is not planned.
    pub(in crate::driver) fn note(&mut self, stage: StageId, found: FoundTask) {
        self.found.entry(stage).or_default().entry(found.index).or_default().push(found);
    }

    /// Forgets that an attempt runs on a worker; false if that was not noted.
    pub(in crate::driver) fn attempt_ended(&mut self, worker: &WorkerId, attempt: &AttemptId) -> bool {
        let AttemptId { task, attempt } = attempt;
        let noted = self.found.get_mut(&task.stage).and_then(|stage| stage.get_mut(&task.index));
        let same = |found: &FoundTask| !found.done && (found.attempt, &found.worker) == (*attempt, worker);
        let noted = noted.and_then(|noted| Some(noted.swap_remove(noted.iter().position(same)?)));
        noted.is_some()
    }

    /// Takes what was noted of a stage.
    pub(super) fn take(&mut self, stage: StageId) -> Vec<FoundTask> {
        self.found.remove(&stage).into_iter().flat_map(BTreeMap::into_values).flatten().collect()
    }

    /// Takes the running attempts of stages that are not planned, and their workers.
    pub(in crate::driver) fn take_running(&mut self, job: &JobId) -> Vec<(WorkerId, AttemptId)> {
        let mut running = vec![];
        for (&stage, found) in &mut self.found {
            for found in found.values_mut().flat_map(|noted| noted.extract_if(.., |found| !found.done)) {
                let task = TaskId { job: job.clone(), stage, index: found.index };
                running.push((found.worker, AttemptId { task, attempt: found.attempt }));
            }
        }
        running
    }

    /// Forgets what a worker had.
    pub(in crate::driver) fn forget_worker(&mut self, worker: &WorkerId) {
        let noted = self.found.values_mut().flat_map(BTreeMap::values_mut);
        noted.for_each(|noted| noted.retain(|found| found.worker != *worker));
    }
}
