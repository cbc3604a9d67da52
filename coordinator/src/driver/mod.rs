//! The loop that owns the scheduler's state: everything that happens comes in as one event after
//! another, and the commands that follow are carried out here.
//!
//! Long work (planning, publishing) is spawned and comes back as an event. Not here: what a
//! command means for a job's data (`run`), which task runs where (`tally-scheduler`).

mod run;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_dataset::{Dataset, dataset};
use tally_proto::{Failure, JobId, StageId, WorkerId};
use tally_scheduler::{Command, Config, ConfigError, Event, JobShape, Millis, Outcome, Scheduler, TaskPlan};
use tally_worker::runner::Report;
use tally_worker::scan::footer::Footers;
use tokio::sync::{mpsc, oneshot, watch};

use crate::fleet::Fleet;
use crate::job::{JobSpec, MAP, REDUCE, STAGES, WRITE};
use crate::memory::PeakMeter;
use crate::plan::{self, InputPlan};
use crate::publish::Staging;
use crate::results::winners;
use crate::summary::Summary;
use run::JobRun;

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(20);
/// Events that may wait for the loop.
const QUEUE: usize = 1024;

/// How a job ended.
#[derive(Debug)]
pub enum Ended {
    /// Its day is published.
    Done(Box<Summary>),
    /// It failed, with a reason for people; the old day stays.
    Failed(String),
    /// It was cancelled; the old day stays.
    Cancelled,
}

/// What happens to the driver.
pub enum Input {
    /// A job to run; its end is answered.
    Submit(Box<JobSpec>, oneshot::Sender<Ended>),
    /// A job to be stopped.
    Cancel(JobId),
    /// A worker with so many slots.
    Joined(WorkerId, u32),
    /// The end of an attempt.
    Report(Box<Report>),
    /// A job's inputs were looked at.
    Planned(JobId, Result<Box<(InputPlan, Staging)>, String>),
    /// A job's day was published, or not.
    Published(JobId, Result<(), String>),
}

/// How far a job is, for a progress bar.
#[derive(Debug, Clone, Default)]
pub struct JobView {
    /// The stage it is in.
    pub stage: &'static str,
    /// The stage's tasks that are done.
    pub done: usize,
    /// All of the stage's tasks.
    pub tasks: usize,
    /// Rows of the inputs.
    pub input_rows: u64,
    /// Bytes of the inputs' needed columns.
    pub input_bytes: u64,
}

/// The driver: see the module's head.
pub struct Driver {
    scheduler: Scheduler,
    fleet: Box<dyn Fleet>,
    footers: Arc<Footers>,
    slots: usize,
    jobs: BTreeMap<JobId, JobRun>,
    inbox: mpsc::Receiver<Input>,
    sender: mpsc::Sender<Input>,
    view: watch::Sender<JobView>,
    started: Instant,
    memory: PeakMeter,
}

/// The way to talk to a driver.
#[derive(Clone)]
pub struct Handle {
    sender: mpsc::Sender<Input>,
    view: watch::Receiver<JobView>,
}

impl Handle {
    /// Where events go.
    pub fn sender(&self) -> &mpsc::Sender<Input> {
        &self.sender
    }

    /// How far the job is.
    pub fn view(&self) -> JobView {
        self.view.borrow().clone()
    }
}

/// A driver's inbox, made before its fleet, which needs somewhere to report to.
pub struct Inbox {
    receiver: mpsc::Receiver<Input>,
    view: watch::Sender<JobView>,
}

/// A way to talk to a driver that is about to be made.
pub fn inbox() -> (Handle, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (view, watched) = watch::channel(JobView::default());
    (Handle { sender, view: watched }, Inbox { receiver, view })
}

impl Driver {
    /// A driver over a fleet of `slots` slots.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(
        config: Config,
        fleet: Box<dyn Fleet>,
        footers: Arc<Footers>,
        slots: usize,
        handle: &Handle,
        inbox: Inbox,
    ) -> Result<Self, ConfigError> {
        Ok(Driver {
            scheduler: Scheduler::new(config)?,
            fleet,
            footers,
            slots,
            jobs: BTreeMap::new(),
            inbox: inbox.receiver,
            sender: handle.sender.clone(),
            view: inbox.view,
            started: Instant::now(),
            memory: PeakMeter::default(),
        })
    }

    /// Runs until `until` says that it is enough.
    pub async fn run(mut self, until: impl Future<Output = ()>) {
        tokio::pin!(until);
        let mut sample = tokio::time::interval(SAMPLE);
        loop {
            let now = self.now();
            let wait = self.scheduler.next_wakeup().map(|at| at.since(now));
            tokio::select! {
                input = self.inbox.recv() => match input {
                    Some(input) => self.take(input),
                    None => return,
                },
                () = tokio::time::sleep(wait.unwrap_or(Duration::MAX)), if wait.is_some() => {
                    self.step(Event::Tick);
                }
                _ = sample.tick() => self.memory.sample(),
                () = &mut until => return,
            }
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Submit(spec, reply) => self.submit(*spec, reply),
            Input::Cancel(job) => self.step(Event::JobCancelled { job }),
            Input::Joined(worker, slots) => self.step(Event::WorkerJoined { worker, slots }),
            Input::Report(report) => self.report(*report),
            Input::Planned(job, planned) => self.planned(job, planned),
            Input::Published(job, result) => {
                if let (Ok(()), Some(run)) = (&result, self.jobs.get_mut(&job)) {
                    run.stage_ended(&mut self.memory);
                }
                self.step(match result {
                    Ok(()) => Event::Published { job },
                    Err(reason) => Event::PublishFailed { job, reason },
                });
            }
        }
        self.show();
    }

    fn submit(&mut self, spec: JobSpec, reply: oneshot::Sender<Ended>) {
        let job = spec.id.clone();
        let (Some(dataset), Ok(shape)) = (dataset(&spec.dataset), JobShape::chain(STAGES.len() as u32))
        else {
            let _ = reply.send(Ended::Failed(format!("there is no dataset {:?}", spec.dataset)));
            return;
        };
        self.jobs.insert(job.clone(), JobRun::new(spec, dataset, reply));
        self.step(Event::JobSubmitted { job, shape });
    }

    fn report(&mut self, report: Report) {
        let Report { worker, attempt, outcome } = report;
        if let Err(failure) = &outcome
            && *failure != Failure::Cancelled
        {
            tracing::warn!(%attempt, %worker, %failure, "a task attempt failed");
        }
        let run = self.jobs.get_mut(&attempt.task.job);
        let outcome =
            outcome.and_then(|result| match run.is_none_or(|run| run.results.keep(&attempt, result)) {
                true => Ok(()),
                false => Err(Failure::Fatal { reason: format!("{attempt} reported another stage's result") }),
            });
        self.step(Event::AttemptEnded { worker, attempt, outcome });
    }

    fn planned(&mut self, job: JobId, planned: Result<Box<(InputPlan, Staging)>, String>) {
        let stage = StageId(MAP);
        let Some(run) = self.jobs.get_mut(&job) else {
            // The job ended meanwhile; what it staged goes with the plan.
            return;
        };
        let event = match planned {
            Err(reason) => Event::StagePlanFailed { job, stage, reason },
            Ok(planned) => {
                let (plan, staging) = *planned;
                let tasks =
                    plan.tasks.iter().map(|t| TaskPlan { weight: t.bytes, preferred: None }).collect();
                run.input_planned(plan, staging, &mut self.memory);
                Event::StagePlanned { job, stage, tasks, found: vec![] }
            }
        };
        self.step(event);
    }

    fn step(&mut self, event: Event) {
        let mut commands = self.scheduler.step(self.now(), event);
        // Commands that can be answered at once are; their answers bring more commands.
        while !commands.is_empty() {
            let mut answers = vec![];
            for command in commands {
                answers.extend(self.carry_out(command));
            }
            let now = self.now();
            commands = answers.into_iter().flat_map(|answer| self.scheduler.step(now, answer)).collect();
        }
    }

    fn carry_out(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::PlanStage { job, stage } => self.plan_stage(job, stage),
            Command::Start { worker, attempt } => {
                let run = self.jobs.get_mut(&attempt.task.job)?;
                let order = run.order(&self.scheduler, &attempt, |worker| self.fleet.address(worker));
                let sent = order.and_then(|order| self.fleet.start(&worker, order));
                sent.err().map(|reason| {
                    tracing::warn!(%attempt, %worker, %reason, "an order could not be sent");
                    Event::AttemptEnded { worker, attempt, outcome: Err(Failure::Retryable { reason }) }
                })
            }
            Command::Stop { worker, attempt } => {
                self.fleet.stop(&worker, &attempt);
                None
            }
            Command::Publish { job } => self.publish(job),
            Command::FinishJob { job, outcome } => {
                self.finish(&job, outcome);
                None
            }
            Command::ReleaseJob { job } => {
                self.fleet.release(&job);
                self.jobs.remove(&job);
                None
            }
            Command::Warn { warning } => {
                tracing::warn!(%warning, "an event was ignored");
                None
            }
        }
    }

    fn plan_stage(&mut self, job: JobId, stage: StageId) -> Option<Event> {
        let run = self.jobs.get_mut(&job)?;
        if stage.0 == MAP {
            let (spec, dataset) = (run.spec.clone(), run.dataset.clone());
            let (footers, slots, sender) = (self.footers.clone(), self.slots, self.sender.clone());
            tokio::spawn(async move {
                let planned = plan_inputs(&spec, &*dataset, &footers, slots).await.map(Box::new);
                // The loop gone means that the process ends.
                let _ = sender.send(Input::Planned(spec.id, planned)).await;
            });
            return None;
        }
        run.stage_ended(&mut self.memory);
        let tasks = if stage.0 == REDUCE {
            run.plan_reduce()
        } else {
            let reduced = winners(&self.scheduler, &job, REDUCE);
            run.plan_write(&reduced)
        };
        Some(Event::StagePlanned { job, stage, tasks, found: vec![] })
    }

    fn publish(&mut self, job: JobId) -> Option<Event> {
        let run = self.jobs.get_mut(&job)?;
        run.stage_ended(&mut self.memory);
        let outputs = [MAP, REDUCE, WRITE].map(|stage| winners(&self.scheduler, &job, stage));
        let staging = run.ready_to_publish(&outputs);
        let staging = match staging {
            Ok(staging) => staging,
            Err(reason) => return Some(Event::PublishFailed { job, reason }),
        };
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let done = tokio::task::spawn_blocking(move || staging.publish()).await;
            let done = match done {
                Ok(done) => done.map_err(|e| e.to_string()),
                Err(panic) => Err(panic.to_string()),
            };
            let _ = sender.send(Input::Published(job, done)).await;
        });
        None
    }

    fn finish(&mut self, job: &JobId, outcome: Outcome) {
        let Some(run) = self.jobs.get_mut(job) else { return };
        let ended = match outcome {
            Outcome::Done => Ended::Done(Box::new(run.summary())),
            Outcome::Cancelled => Ended::Cancelled,
            Outcome::Failed { reason } => Ended::Failed(reason.to_string()),
        };
        run.end(ended);
    }

    fn show(&self) {
        let Some((job, run)) = self.jobs.iter().next() else { return };
        let Some(status) = self.scheduler.status(job) else { return };
        let (stage, tasks, done) = match run.current_stage() {
            Some(stage) => {
                let counts = status.stages.get(stage);
                (STAGES[stage], counts.map_or(0, |s| s.tasks), counts.map_or(0, |s| s.done))
            }
            None => (run.current_name(), 0, 0),
        };
        let (input_rows, input_bytes) = run.input_size();
        self.view.send_replace(JobView { stage, done, tasks, input_rows, input_bytes });
    }
}

async fn plan_inputs(
    spec: &JobSpec,
    dataset: &dyn Dataset,
    footers: &Footers,
    slots: usize,
) -> Result<(InputPlan, Staging), String> {
    let plan = plan::plan(spec, dataset, footers, slots).await.map_err(|e| e.to_string())?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let (output, date, id) = (spec.output.clone(), spec.date.clone(), spec.id.clone());
    let staging = tokio::task::spawn_blocking(move || Staging::prepare(&output, &date, &id));
    let staging = staging.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    Ok((plan, staging))
}
