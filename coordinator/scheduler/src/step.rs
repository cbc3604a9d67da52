//! The scheduler's face: one step from an event to commands, and what can be asked. Here is
//! what happens to jobs; attempts are in `report`, workers in `membership`, what follows from
//! all of them in `settle`.

use std::collections::BTreeMap;

use tally_proto::ids::{AttemptId, JobId, StageId, TaskId, WorkerId};

use crate::command::{Command, JobFailure, Outcome, Warning};
use crate::config::{Config, ConfigError};
use crate::event::{Event, TaskPlan};
use crate::job::{Job, Phase};
use crate::settle::order_stop;
use crate::shape::JobShape;
use crate::status::{JobState, JobStatus, StagePhase};
use crate::task::TaskState;
use crate::time::Millis;
use crate::worker::Workers;

/// The state machine that decides which task runs where and when.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    /// The latest time that an event came with.
    pub(crate) now: Millis,
    /// The number of this step: an order in time that has no ties.
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
    /// [`ConfigError`] names the option that makes no sense.
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

    /// Takes one event in and gives the commands that follow from it, to be carried out in
    /// their order. A time before that of an earlier event counts as that one's.
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
            Event::Found { job, stage, found } => self.found(&job, stage, found),
            Event::StagePlanFailed { job, stage, reason } => self.stage_plan_failed(&job, stage, reason),
            Event::Published { job } => self.published(&job, Outcome::Done),
            Event::PublishFailed { job, reason } => {
                self.published(&job, Outcome::Failed { reason: JobFailure::Publish { reason } })
            }
            Event::Unfit { job, stage, indices, reason } => self.unfit(&job, stage, &indices, reason),
            Event::WorkerJoined { worker, slots, draining } => {
                self.workers.join(&worker, slots, draining, self.now)
            }
            Event::WorkerLost { worker } => self.worker_lost(&worker),
            Event::WorkerDraining { worker } => {
                self.workers.seen(&worker, self.now)?;
                self.workers.drain(&worker)
            }
            Event::Heartbeat { worker } => self.workers.seen(&worker, self.now),
            Event::AttemptEnded { worker, attempt, outcome } => {
                self.attempt_ended(&worker, &attempt, outcome)
            }
            Event::NotStarted { worker, attempt } => self.not_started(&worker, &attempt),
            Event::OutputMoved { job, stage, index, from, to } => {
                self.output_moved(TaskId { job, stage, index }, from, to)
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
            let reason = format!("{} tasks are more than can be numbered", tasks.len());
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

    /// Makes tasks ready again whose results cannot be published together with the others'.
    fn unfit(&mut self, id: &JobId, at: StageId, indices: &[u32], reason: String) -> Result<(), Warning> {
        let most = self.config.max_output_losses;
        let job = self.live(id)?;
        if job.phase != Phase::Publishing {
            return Err(Warning::UnaskedPublish { job: id.clone() });
        }
        let mut again = 0;
        if let Some(stage) = job.stage_mut(at) {
            for &index in indices {
                let Some(task) = stage.task_mut(index) else { continue };
                task.losses += 1;
                if task.losses > most {
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

    /// Ends a job: the one place where that happens.
    pub(crate) fn finish(&mut self, id: &JobId, outcome: Outcome) {
        let Some(mut job) = self.jobs.remove(id) else { return };
        for (worker, attempt) in job.stop_all(id) {
            order_stop(&mut self.workers, &mut self.out, worker, attempt);
        }
        let state = JobState::Finished { outcome: outcome.clone() };
        self.finished.insert(id.clone(), JobStatus { state, ..job.status() });
        self.out.push(Command::FinishJob { job: id.clone(), outcome });
        self.out.push(Command::ReleaseJob { job: id.clone() });
    }

    /// Where the outputs of a stage are: index, holder, and the number of the attempt that made
    /// each. Only outputs that exist; nothing for a job that is over.
    pub fn outputs(&self, job: &JobId, stage: StageId) -> impl Iterator<Item = (u32, &WorkerId, u32)> {
        let stage = self.jobs.get(job).and_then(|job| job.stage(stage));
        let outputs = stage.into_iter().flat_map(|stage| stage.outputs());
        outputs.map(|(index, output)| (index, &output.worker, output.attempt))
    }

    /// The version of what an attempt reads, if the attempt is still wanted and that is what it was
    /// started on: all outputs of the stages that its own reads, each where it was then. `None`: no order
    /// for it can be made (any more), see [`Event::NotStarted`].
    pub fn inputs_of(&self, attempt: &AttemptId) -> Option<u64> {
        let AttemptId { task, attempt } = attempt;
        let job = self.jobs.get(&task.job)?;
        let TaskState::Running(running) = job.stage(task.stage)?.task(task.index)?.state() else {
            return None;
        };
        let started_on = running.attempts().find(|running| running.number == *attempt)?.inputs;
        started_on.filter(|&version| version == job.inputs_version(task.stage.0 as usize))
    }

    /// How many outputs of live jobs a worker holds, whether or not somebody still reads them.
    pub fn outputs_held_by(&self, worker: &WorkerId) -> usize {
        let stages = self.jobs.values().flat_map(|job| &job.stages);
        stages.filter(|stage| !stage.readers.is_empty()).map(|stage| stage.held(worker).count()).sum()
    }

    /// The outputs on a worker that open stages of live jobs still read: what a drain has to
    /// hand over. Others may be dropped with the worker.
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

    /// How a job stands; `None` for one that is unknown or forgotten.
    pub fn status(&self, job: &JobId) -> Option<JobStatus> {
        let live = self.jobs.get(job).map(Job::status);
        live.or_else(|| self.finished.get(job).cloned())
    }

    /// Drops what is known of a finished job. False, and nothing is dropped, while the job is
    /// not over or an attempt of it still takes a slot: ask again later.
    pub fn forget(&mut self, job: &JobId) -> bool {
        !self.workers.busy_with(job) && self.finished.remove(job).is_some()
    }
}
