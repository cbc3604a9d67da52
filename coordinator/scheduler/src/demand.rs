//! The demand for slots, for autoscalers.

use crate::job::{Job, Phase};
use crate::step::Scheduler;

/// The work of all live jobs, in slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Tasks that could start if a slot was free, now or after the pause before their retry.
    pub runnable: usize,
    /// Running attempts.
    pub running: usize,
}

impl Demand {
    /// The slots for all of this work.
    pub fn slots(self) -> usize {
        self.runnable + self.running
    }
}

impl Scheduler {
    /// The demand. The cost is proportional to the number of live jobs and their stages.
    pub fn demand(&self) -> Demand {
        let live = self.jobs.values().filter(|job| job.phase != Phase::Publishing);
        live.fold(Demand::default(), |sum, job| Demand {
            runnable: sum.runnable + runnable(job),
            running: sum.running + job.attempts(),
        })
    }
}

/// The waiting tasks of open stages whose inputs exist. Other tasks wait for these.
fn runnable(job: &Job) -> usize {
    let open = job.open();
    let ready = (0..job.stages.len()).filter(|stage| open[*stage] && job.inputs_exist(*stage));
    ready.map(|stage| job.stages[stage].idle()).sum()
}
