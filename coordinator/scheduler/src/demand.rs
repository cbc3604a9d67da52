//! How much work there is for slots just now: what an autoscaler goes by.

use crate::job::{Job, Phase};
use crate::step::Scheduler;

/// Work of all live jobs, in slots that it would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Tasks that could start now if there was a slot, or as soon as the pause before their retry
    /// is over.
    pub runnable: usize,
    /// Attempts that run.
    pub running: usize,
}

impl Demand {
    /// Slots that all of it would fill.
    pub fn slots(self) -> usize {
        self.runnable + self.running
    }
}

impl Scheduler {
    /// How much work there is. Costs in proportion to the live jobs and their stages.
    pub fn demand(&self) -> Demand {
        let live = self.jobs.values().filter(|job| job.phase != Phase::Publishing);
        live.fold(Demand::default(), |sum, job| Demand {
            runnable: sum.runnable + runnable(job),
            running: sum.running + job.attempts(),
        })
    }
}

/// Tasks of stages that are wanted and have their inputs: others wait for these.
fn runnable(job: &Job) -> usize {
    let open = job.open();
    let ready = (0..job.stages.len()).filter(|stage| open[*stage] && job.inputs_exist(*stage));
    ready.map(|stage| job.stages[stage].idle()).sum()
}
