//! What the driver shows of itself: statuses of jobs, load, counters, memory.
//!
//! Not here: the readers (`history`, `service::observed`, `service::scaler`).

use std::sync::Arc;
use std::time::Instant;

use tally_common::traces;
use tally_proto::report::outcome_name;
use tally_proto::{AttemptId, Failure, JobId, v1};
use tally_scheduler::{Demand, JobState, JobStatus, Scheduler, StageStatus};

use super::Now;
use super::job_run::JobRun;
use super::live_jobs::LiveJobs;
use super::workers::Workers;
use crate::history::Registry;
use crate::job::STAGES;
use crate::load::{Counts, Load, StageLoad};
use crate::peak_memory::PeakMeter;

/// Progress of a job, for a progress bar.
#[derive(Debug, Clone, Default)]
pub struct JobView {
    /// The current phase: `plan`, `map`, `reduce`, `write` or `publish`.
    pub stage: String,
    /// The stage's tasks that are done.
    pub done: u64,
    /// All tasks of the stage.
    pub tasks: u64,
    /// Rows of the inputs.
    pub input_rows: u64,
    /// Bytes of the inputs' needed columns.
    pub input_bytes: u64,
}

impl From<&v1::JobStatus> for JobView {
    fn from(status: &v1::JobStatus) -> Self {
        let stage = status.stages.iter().find(|stage| stage.name == status.phase);
        JobView {
            stage: status.phase.clone(),
            done: stage.map_or(0, |stage| stage.done),
            tasks: stage.map_or(0, |stage| stage.tasks),
            input_rows: status.input_rows,
            input_bytes: status.input_bytes,
        }
    }
}

/// The driver's memory meter, counters and registry.
pub(super) struct Metrics {
    pub(super) memory: PeakMeter,
    counts: Counts,
    pub(super) registry: Arc<Registry>,
    started: Instant,
}

impl Metrics {
    pub(super) fn new(registry: Arc<Registry>, started: Instant, resident: fn() -> (u64, u64)) -> Self {
        Metrics { memory: PeakMeter::new(resident), counts: Counts::new(&STAGES), registry, started }
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

    /// Counts a worker that left, drained or not.
    pub(super) fn count_worker(&mut self, drained: bool) {
        let counts = &mut self.counts;
        *(if drained { &mut counts.workers_drained } else { &mut counts.workers_lost }) += 1;
    }

    /// Counts a publish that ended, and adds it to the job's trace.
    pub(super) fn count_publish(&mut self, now: Now, job: &JobId, run: &JobRun, outcome: Result<(), &str>) {
        let took = run.phases.elapsed(now.elapsed);
        traces::step(job, "publish", took, outcome);
        self.counts.publish.count(took, outcome.is_ok().then(|| run.written(now.elapsed)));
    }

    /// Updates the shown status of a job; `status` is the scheduler's.
    pub(super) fn show_job(&self, job: &JobId, run: &JobRun, status: Option<JobStatus>) {
        let (state, stages) = match status {
            Some(status) => {
                let state = match status.state {
                    JobState::WaitingForWorkers { .. } => v1::JobState::WaitingForWorkers,
                    JobState::Publishing => v1::JobState::Publishing,
                    // The journal's record of the end comes first: see `submit`.
                    JobState::Running | JobState::Finished { .. } => v1::JobState::Running,
                };
                (state, status.stages)
            }
            None if run.state.is_committing() => (v1::JobState::Publishing, vec![]),
            None => (v1::JobState::Running, vec![]),
        };
        let stages: Vec<_> =
            STAGES.iter().zip(&stages).map(|(name, stage)| stage_status(name, stage)).collect();
        let phase = run.phases.current();
        let (input_rows, input_bytes) = run.plan.input_size();
        let (read, cancelling) = (run.read(), run.cancelled && !run.state.is_committing());
        let waits = Some(run.reports.waits.clone());
        self.registry.update(job, |shown| {
            let same = shown.state() == state
                && shown.phase == phase
                && shown.stages == stages
                && (shown.rows_done, shown.bytes_done) == (read.rows, read.bytes)
                && shown.cancelling == cancelling
                && shown.waits == waits
                && shown.input_rows == input_rows;
            if same {
                return false;
            }
            shown.set_state(state);
            shown.phase = phase.into();
            shown.stages = stages;
            (shown.input_rows, shown.input_bytes) = (input_rows, input_bytes);
            (shown.rows_done, shown.bytes_done) = (read.rows, read.bytes);
            (shown.cancelling, shown.waits) = (cancelling, waits);
            true
        });
    }

    /// Updates the load that autoscalers and monitoring see.
    pub(super) fn show_load(
        &self,
        now: Now,
        jobs: &mut LiveJobs,
        scheduler: &Scheduler,
        workers: &mut Workers,
    ) {
        let mut load = Load {
            at: self.started + now.elapsed,
            demand: known_demand(jobs, scheduler),
            live_jobs: jobs.len(),
            slow_jobs: 0,
            jobs: [0; 3],
            stages: STAGES.iter().map(|name| StageLoad { name, ..StageLoad::default() }).collect(),
            workers: [0; 3],
            slots: 0,
            counts: self.counts.clone(),
        };
        self.add_jobs(now, &mut load, jobs, scheduler);
        workers.add_to(&mut load);
        self.registry.show_load(load);
    }

    fn add_jobs(&self, now: Now, load: &mut Load, jobs: &mut LiveJobs, scheduler: &Scheduler) {
        for (id, run) in jobs.iter_mut() {
            let kind = || self.registry.usual(&(&run.submission.spec).into());
            let usual = *run.usual_millis.get_or_insert_with(kind);
            let slow = usual
                .is_some_and(|usual| now.unix_millis.saturating_sub(run.submission.submitted_at) > usual);
            load.slow_jobs += usize::from(slow);
            let status = scheduler.status(id);
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
    }
}

/// The scheduler's demand; `None` while jobs of an earlier term wait for the workers' inventories.
fn known_demand(jobs: &LiveJobs, scheduler: &Scheduler) -> Option<Demand> {
    let begun = jobs.iter().all(|(id, run)| run.state.is_committing() || scheduler.status(id).is_some());
    begun.then(|| scheduler.demand())
}

fn stage_status(name: &str, stage: &StageStatus) -> v1::StageStatus {
    v1::StageStatus {
        name: name.into(),
        tasks: stage.tasks as u64,
        pending: (stage.pending + stage.waiting) as u64,
        running: stage.running as u64,
        done: stage.done as u64,
        failed_attempts: stage.failed_attempts,
        reruns: stage.reruns,
        second_attempts: stage.speculative_attempts,
    }
}
