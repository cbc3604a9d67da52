//! The takeover of outputs and running attempts that workers have from an earlier coordinator.
//!
//! Not here: the inventories of workers (the driver).

use tally_proto::ids::{AttemptId, JobId, StageId, TaskId};

use crate::command::Warning;
use crate::event::FoundTask;
use crate::step::Scheduler;
use crate::task::{Attempt, Output, TaskState};
use crate::worker::stop_attempt;

impl Scheduler {
    /// Takes over the found tasks that are needed. The warning is about the first that does not exist.
    pub(crate) fn found(
        &mut self,
        job: &JobId,
        stage: StageId,
        found: Vec<FoundTask>,
    ) -> Result<(), Warning> {
        self.live(job)?;
        let mut result = Ok(());
        for found in found {
            let task = TaskId { job: job.clone(), stage, index: found.index };
            let adopted = self.adopt(&AttemptId { task, attempt: found.attempt }, &found);
            result = result.and(adopted);
        }
        result
    }

    fn adopt(&mut self, attempt: &AttemptId, found: &FoundTask) -> Result<(), Warning> {
        let unknown = || Warning::UnknownAttempt { worker: found.worker.clone(), attempt: attempt.clone() };
        let Some(worker) = self.workers.get(&found.worker) else { return Err(unknown()) };
        if worker.busy.contains_key(attempt) {
            // It was started by this coordinator, or found before.
            return match found.done {
                true => self.attempt_ended(&found.worker, attempt, Ok(())),
                false => Ok(()),
            };
        }
        let id = &attempt.task;
        let stage = self.jobs.get_mut(&id.job).and_then(|job| job.stage_mut(id.stage));
        let Some(stage) = stage.filter(|stage| stage.task(id.index).is_some()) else { return Err(unknown()) };
        let Some(task) = stage.task_mut(id.index) else { return Err(unknown()) };
        // Attempt numbers are never reused.
        task.next_attempt = task.next_attempt.max(attempt.attempt.saturating_add(1));
        let (weight, state) = (task.weight, task.state().clone());
        if !worker.draining {
            stage.claim_lane(id.index, &found.worker);
        }
        if found.done {
            let (step, moved) = (self.steps, self.steps);
            let output = Output { worker: found.worker.clone(), attempt: attempt.attempt, step, moved };
            match state {
                // Two workers hold the task's output: the first one counts.
                TaskState::Done(_) => {}
                TaskState::Running(running) => {
                    stage.set(id.index, TaskState::Done(output));
                    for other in running.attempts() {
                        let stopped = AttemptId { task: id.clone(), attempt: other.number };
                        stop_attempt(&mut self.workers, &mut self.out, other.worker.clone(), stopped);
                    }
                }
                TaskState::Ready | TaskState::Backoff { .. } | TaskState::OutputLost => {
                    stage.set(id.index, TaskState::Done(output));
                }
            }
            return Ok(());
        }
        self.workers.occupy(&found.worker, attempt.clone(), weight, self.now);
        match state {
            TaskState::Ready | TaskState::Backoff { .. } | TaskState::OutputLost => {
                let number = attempt.attempt;
                let (worker, started, step) = (found.worker.clone(), self.now, self.steps);
                stage
                    .set(id.index, TaskState::alone(Attempt { number, worker, started, step, inputs: None }));
            }
            TaskState::Running(_) | TaskState::Done(_) => {
                stop_attempt(&mut self.workers, &mut self.out, found.worker.clone(), attempt.clone());
            }
        }
        Ok(())
    }
}
