//! What the driver shows of its load: the scheduler's and the fleet's figures, counted now and
//! then.

use std::time::Instant;

use tally_proto::{AttemptId, Failure, v1};
use tally_scheduler::{Demand, JobState};
use tally_worker::runner::outcome_name;

use super::Driver;
use super::submit::clock;
use crate::job::STAGES;
use crate::load::{Load, StageLoad};

impl Driver {
    /// Brings the load that others see up to date.
    pub(super) fn show_load(&mut self) {
        let mut load = Load {
            at: Instant::now(),
            demand: self.known_demand(),
            live_jobs: self.jobs.len(),
            slow_jobs: 0,
            jobs: [0; 3],
            stages: STAGES.iter().map(|name| StageLoad { name, ..StageLoad::default() }).collect(),
            workers: [0; 3],
            slots: 0,
            counts: self.counts.clone(),
        };
        let now = clock();
        for (id, run) in &mut self.jobs {
            let usual = *run.usual.get_or_insert_with(|| self.registry.usual(&(&run.spec).into()));
            let slow = usual.is_some_and(|usual| now.saturating_sub(run.submitted_at) > usual);
            load.slow_jobs += usize::from(slow);
            let status = self.scheduler.status(id);
            let state = match status.as_ref().map(|status| &status.state) {
                Some(JobState::WaitingForWorkers { .. }) => 1,
                Some(JobState::Publishing) => 2,
                Some(JobState::Running | JobState::Finished { .. }) | None => 0,
            };
            load.jobs[state] += 1;
            for (shown, stage) in load.stages.iter_mut().zip(status.iter().flat_map(|status| &status.stages))
            {
                shown.pending += stage.pending + stage.waiting;
                shown.running += stage.running;
                shown.done += stage.done;
            }
        }
        if let Some(fleet) = self.fleet.remote() {
            for member in fleet.members().values() {
                let state = match (member.attached(), member.draining) {
                    (true, false) => 0,
                    (true, true) => 1,
                    (false, _) => 2,
                };
                load.workers[state] += 1;
                if state == 0 {
                    load.slots += u64::from(member.hello.slots);
                }
            }
        }
        self.registry.show_load(load);
    }

    fn known_demand(&self) -> Option<Demand> {
        let begun = self.jobs.iter().all(|(id, run)| run.committing || self.scheduler.status(id).is_some());
        begun.then(|| self.scheduler.demand())
    }

    /// Counts the end of an attempt.
    pub(super) fn count_attempt(&mut self, attempt: &AttemptId, outcome: &Result<v1::TaskResult, Failure>) {
        let Some(stage) = STAGES.get(attempt.task.stage.0 as usize) else { return };
        *self.counts.attempts.entry((stage, outcome_name(outcome))).or_default() += 1;
    }

    /// Counts the end of a job.
    pub(super) fn count_job(&mut self, state: v1::JobState) {
        let outcome = match state {
            v1::JobState::Done => "done",
            v1::JobState::Cancelled => "cancelled",
            _ => "failed",
        };
        *self.counts.jobs.entry(outcome).or_default() += 1;
    }
}
