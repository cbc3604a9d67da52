//! The scheduler's interface: one step from an event to commands, and queries. The events of jobs are handled here, those of
//! attempts in `report`, those of workers in `membership`; what follows from all of them is in `settle`.

use std::collections::BTreeMap;

use tally_proto::ids::{AttemptId, JobId, StageId, TaskId, WorkerId};

use crate::command::{Command, JobFailure, Outcome, Warning};
use crate::config::{Config, ConfigError};
use crate::event::{Event, TaskPlan};
use crate::job::{Job, Phase};
use crate::shape::JobShape;
use crate::status::{JobState, JobStatus, StagePhase};
use crate::task::TaskState;
use crate::time::Millis;
use crate::worker::{Workers, stop_attempt};

/// The state machine that decides which task runs where and when.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    /// The latest time of an event.
    pub(crate) now: Millis,
    /// The number of this step. It orders events without ties.
    pub(crate) steps: u64,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) finished: BTreeMap<JobId, JobStatus>,
    pub(crate) submitted: u64,
    pub(crate) workers: Workers,
    pub(crate) out: Vec<Command>,
}

impl Scheduler {
    /// A scheduler without jobs and workers.
    ///
    /// # Errors
    /// [`ConfigError`] names the invalid option.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Self {
            config: config.checked()?,
            now: Millis::default(),
            steps: 0,
            jobs: BTreeMap::new(),
            finished: BTreeMap::new(),
            submitted: 0,
            workers: Workers::default(),
            out: Vec::new(),
        })
    }

    /// Applies an event and returns the commands that follow, to be carried out in their order. A time before that of an
    /// earlier event counts as that event's time.
    pub fn step(&mut self, now: Millis, event: Event) -> Vec<Command> {
        self.now = self.now.max(now);
        self.steps += 1;
        if let Err(warning) = self.handle(event) {
            self.out.push(Command::Warn { warning });
        }
        self.settle();
        std::mem::take(&mut self.out)
    }

    fn handle(&mut self, event: Event) -> Result<(), Warning> {
        match event {
            Event::JobSubmitted { job, shape } => self.submit(job, &shape),
            Event::JobCancelled { job } => self.cancel(&job),
            Event::StagePlanned { job, stage, tasks, found } => {
                self.stage_planned(&job, stage, tasks)?;
                self.found(&job, stage, found)
            }
            Event::TasksFound { job, stage, found } => self.found(&job, stage, found),
            Event::StagePlanFailed { job, stage, reason } => self.stage_plan_failed(&job, stage, reason),
            Event::Published { job } => self.published(&job, Outcome::Done),
            Event::PublishFailed { job, reason } => {
                self.published(&job, Outcome::Failed { reason: JobFailure::Publish { reason } })
            }
            Event::Incompatible { job, stage, indices, reason } => {
                self.incompatible(&job, stage, &indices, reason)
            }
            Event::WorkerJoined { worker, slots, draining } => {
                self.workers.join(&worker, slots, draining, self.now)
            }
            Event::WorkerLost { worker } => self.worker_lost(&worker),
            Event::WorkerDraining { worker } => self.worker_draining(&worker),
            Event::Heartbeat { worker } => self.workers.seen(&worker, self.now),
            Event::AttemptEnded { worker, attempt, outcome } => {
                self.attempt_ended(&worker, &attempt, outcome)
            }
            Event::NotStarted { worker, attempt } => self.not_started(&worker, &attempt),
            Event::OutputMigrated { job, stage, index, from, to } => {
                self.output_migrated(TaskId { job, stage, index }, from, to)
            }
            Event::Tick => {
                self.time_out();
                Ok(())
            }
        }
    }

    fn submit(&mut self, job: JobId, shape: &JobShape) -> Result<(), Warning> {
        if self.jobs.contains_key(&job) || self.finished.contains_key(&job) {
            return Err(Warning::KnownJob { job });
        }
        self.submitted += 1;
        self.jobs.insert(job, Job::new(self.submitted, shape));
        Ok(())
    }

    fn cancel(&mut self, id: &JobId) -> Result<(), Warning> {
        match self.live(id)?.phase {
            Phase::Publishing => Err(Warning::CancelTooLate { job: id.clone() }),
            Phase::Running { .. } => {
                self.finish(id, Outcome::Cancelled);
                Ok(())
            }
        }
    }

    fn stage_planned(&mut self, id: &JobId, stage: StageId, tasks: Vec<TaskPlan>) -> Result<(), Warning> {
        if u32::try_from(tasks.len()).is_err() {
            let reason = format!("the number of tasks, {}, exceeds the largest task number", tasks.len());
            return self.stage_plan_failed(id, stage, reason);
        }
        let unasked = || Warning::UnaskedPlan { job: id.clone(), stage };
        let first = self.config.first_attempt;
        let planned = self.live(id)?.stage_mut(stage).ok_or_else(unasked)?;
        if planned.phase != StagePhase::Planning {
            return Err(unasked());
        }
        planned.plan(tasks, first);
        Ok(())
    }

    fn stage_plan_failed(&mut self, id: &JobId, stage: StageId, reason: String) -> Result<(), Warning> {
        let planning = self.live(id)?.stage(stage).is_some_and(|stage| stage.phase == StagePhase::Planning);
        if !planning {
            return Err(Warning::UnaskedPlan { job: id.clone(), stage });
        }
        self.fail(id, JobFailure::Plan { stage, reason });
        Ok(())
    }

    fn published(&mut self, id: &JobId, outcome: Outcome) -> Result<(), Warning> {
        if self.live(id)?.phase != Phase::Publishing {
            return Err(Warning::UnaskedPublish { job: id.clone() });
        }
        self.finish(id, outcome);
        Ok(())
    }

    /// Makes tasks ready whose outputs are incompatible with the others.
    fn incompatible(
        &mut self,
        id: &JobId,
        at: StageId,
        indices: &[u32],
        reason: String,
    ) -> Result<(), Warning> {
        let max = self.config.max_output_losses;
        let job = self.live(id)?;
        if job.phase != Phase::Publishing {
            return Err(Warning::UnaskedPublish { job: id.clone() });
        }
        let mut again = 0;
        if let Some(stage) = job.stage_mut(at) {
            for &index in indices {
                let Some(task) = stage.task_mut(index) else { continue };
                task.losses += 1;
                if task.losses > max {
                    again = 0;
                    break;
                }
                stage.set(index, TaskState::Ready);
                stage.reruns += 1;
                again += 1;
            }
        }
        if again == 0 {
            self.fail(id, JobFailure::Publish { reason });
        } else {
            job.phase = Phase::Running { waiting_since: None };
        }
        Ok(())
    }

    pub(crate) fn live(&mut self, id: &JobId) -> Result<&mut Job, Warning> {
        self.jobs.get_mut(id).ok_or_else(|| Warning::UnknownJob { job: id.clone() })
    }

    pub(crate) fn fail(&mut self, id: &JobId, reason: JobFailure) {
        self.finish(id, Outcome::Failed { reason });
    }

    /// Ends a job. Every job ends here.
    pub(crate) fn finish(&mut self, id: &JobId, outcome: Outcome) {
        let Some(mut job) = self.jobs.remove(id) else { return };
        self.jobs.values_mut().for_each(|other| other.throttles.room_released(self.now));
        for (worker, attempt) in job.stop_all(id) {
            stop_attempt(&mut self.workers, &mut self.out, worker, attempt);
        }
        let state = JobState::Finished { outcome: outcome.clone() };
        self.finished.insert(id.clone(), JobStatus { state, ..job.status() });
        self.out.push(Command::FinishJob { job: id.clone(), outcome });
        self.out.push(Command::ReleaseJob { job: id.clone() });
    }

    /// The existing outputs of a stage: index, worker, and the number of the attempt that made each. Empty for a job that
    /// ended.
    pub fn outputs(&self, job: &JobId, stage: StageId) -> impl Iterator<Item = (u32, &WorkerId, u32)> {
        let stage = self.jobs.get(job).and_then(|job| job.stage(stage));
        let outputs = stage.into_iter().flat_map(|stage| stage.outputs());
        outputs.map(|(index, output)| (index, &output.worker, output.attempt))
    }

    /// The worker that holds the output of a task of a live job, and the number of the attempt that made it.
    pub fn output(&self, task: &TaskId) -> Option<(&WorkerId, u32)> {
        let output = self.jobs.get(&task.job)?.stage(task.stage)?.output(task.index)?;
        Some((&output.worker, output.attempt))
    }

    /// The version of an attempt's inputs, if the attempt is still running and its inputs are unchanged since its start. The
    /// inputs are all outputs of the stages that its stage reads, each on its worker. `None`: no task message can be built,
    /// see [`Event::NotStarted`].
    pub fn inputs_of(&self, attempt: &AttemptId) -> Option<u64> {
        let AttemptId { task, attempt } = attempt;
        let job = self.jobs.get(&task.job)?;
        let TaskState::Running(running) = job.stage(task.stage)?.task(task.index)?.state() else {
            return None;
        };
        let started_on = running.attempts().find(|running| running.number == *attempt)?.inputs;
        started_on.filter(|&version| version == job.inputs_version(task.stage.0 as usize))
    }

    /// The number of outputs of live jobs that a worker holds, needed or not.
    pub fn outputs_held_by(&self, worker: &WorkerId) -> usize {
        let stages = self.jobs.values().flat_map(|job| &job.stages);
        stages.filter(|stage| !stage.readers.is_empty()).map(|stage| stage.held(worker).count()).sum()
    }

    /// The outputs on a worker that open stages of live jobs still read. A drain has to migrate them; others may be dropped
    /// with the worker.
    pub fn outputs_needed_from(&self, worker: &WorkerId) -> Vec<AttemptId> {
        let mut needed = Vec::new();
        for (id, job) in &self.jobs {
            let open = job.open();
            for (at, stage) in (0u32..).zip(&job.stages) {
                if !stage.readers.iter().any(|reader| open[*reader]) {
                    continue;
                }
                for index in stage.held(worker) {
                    let attempt = stage.output(index).map_or(0, |output| output.attempt);
                    let task = TaskId { job: id.clone(), stage: StageId(at), index };
                    needed.push(AttemptId { task, attempt });
                }
            }
        }
        needed
    }

    /// The status of a job; `None` if the job is unknown or forgotten.
    pub fn status(&self, job: &JobId) -> Option<JobStatus> {
        let live = self.jobs.get(job).map(Job::status);
        live.or_else(|| self.finished.get(job).cloned())
    }

    /// Forgets a finished job. False, without an effect, while the job is live or one of its attempts still takes a slot.
    pub fn forget(&mut self, job: &JobId) -> bool {
        !self.workers.busy_with(job) && self.finished.remove(job).is_some()
    }
}
