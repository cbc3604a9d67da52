//! How jobs stand, as people see it: from the scheduler's counts to the registry.

use tally_proto::{JobId, v1};
use tally_scheduler::{JobState, StageStatus};

use super::Driver;
use crate::job::STAGES;

/// How far a job is, for a progress bar.
#[derive(Debug, Clone, Default)]
pub struct JobView {
    /// The phase it is in: `plan`, `map`, `reduce`, `write` or `publish`.
    pub stage: String,
    /// The stage's tasks that are done.
    pub done: u64,
    /// All of the stage's tasks.
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

impl Driver {
    /// Brings all live jobs' views up to date.
    pub(super) fn show(&self) {
        self.jobs.keys().for_each(|job| self.show_job(job));
    }

    pub(super) fn show_job(&self, job: &JobId) {
        let Some(run) = self.jobs.get(job) else { return };
        let (state, stages) = match self.scheduler.status(job) {
            Some(status) => {
                let state = match status.state {
                    JobState::WaitingForWorkers { .. } => v1::JobState::WaitingForWorkers,
                    JobState::Publishing => v1::JobState::Publishing,
                    // Its end is told by another.
                    JobState::Running | JobState::Finished { .. } => v1::JobState::Running,
                };
                (state, status.stages)
            }
            None if run.committing => (v1::JobState::Publishing, vec![]),
            None => (v1::JobState::Running, vec![]),
        };
        let stages: Vec<_> =
            STAGES.iter().zip(&stages).map(|(name, stage)| stage_status(name, stage)).collect();
        let phase = run.current_name();
        let (input_rows, input_bytes) = run.input_size();
        self.registry.update(job, |shown| {
            let same = shown.state() == state
                && shown.phase == phase
                && shown.stages == stages
                && shown.input_rows == input_rows;
            if same {
                return false;
            }
            shown.set_state(state);
            shown.phase = phase.into();
            shown.stages = stages;
            (shown.input_rows, shown.input_bytes) = (input_rows, input_bytes);
            true
        });
    }
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
        second_attempts: stage.second_attempts,
    }
}
