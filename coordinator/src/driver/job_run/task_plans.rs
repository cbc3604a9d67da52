//! The tasks of the map and reduce stages, with hints for their placement: what is read together should be written on one
//! worker, and read there.
//!
//! Not here: the placement (the scheduler), the inputs (`plan`).

use std::collections::HashMap;

use tally_proto::AttemptId;
use tally_scheduler::TaskPlan;

use super::{JobRun, StagePlanError};
use crate::plan::{MapTask, affinity, deferred};
use crate::results::{Winner, holders};

impl JobRun {
    /// The tasks of the map stage, for the scheduler.
    pub(in crate::driver) fn map_plans(&self) -> Vec<TaskPlan> {
        let day = &self.submission.spec.day_folder;
        let plan = |task: &MapTask| TaskPlan {
            weight: task.bytes,
            preferred: None,
            affinity: self.remote.then(|| affinity::of_task(&task.work, day)).flatten(),
        };
        self.plan.inputs.tasks.iter().map(plan).collect()
    }

    /// Plans the reduce stage: checks what the map tasks reported of files that were planned by their size.
    ///
    /// # Errors
    /// [`StagePlanError::Inputs`].
    pub(in crate::driver) fn plan_reduce(
        &mut self,
        mapped: &[Winner],
    ) -> Result<Vec<TaskPlan>, StagePlanError> {
        let attempts: HashMap<u32, &AttemptId> =
            mapped.iter().map(|winner| (winner.attempt.task.index, &winner.attempt)).collect();
        let tasks = (0u32..).take(self.plan.inputs.tasks.len());
        let reported = tasks.map(|task| self.results.footers(attempts.get(&task)?));
        let deferred = deferred::check(&self.plan.inputs, self.submission.dataset.tables(), reported)?;
        for warning in &deferred.warnings {
            tracing::warn!("{warning}");
        }
        self.plan.deferred = deferred;
        let partitions = self.plan.inputs.partitions;
        // Within a process, nothing crosses a network.
        let holders = match self.remote {
            true => holders::of_most(&self.results, mapped, partitions),
            false => vec![None; partitions as usize],
        };
        let plan = |holder| TaskPlan { weight: 1, preferred: holder, affinity: None };
        Ok(holders.into_iter().map(plan).collect())
    }
}
