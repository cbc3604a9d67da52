//! A scheduler with a manual clock, events in a short form, and commands as text:
//! `plan j 0`, `start w0 j-s0-t0-a0`, `stop w0 j-s0-t0-a0`, `publish j`, `finish j done`,
//! `release j`, `warn ...`.

use std::time::Duration;

use tally_proto::failure::Failure;
use tally_proto::ids::{AttemptId, JobId, StageId, TaskId, WorkerId};
use tally_scheduler::{
    Command, Config, Event, JobShape, JobState, Millis, Outcome, Scheduler, StageStatus, TaskPlan,
};

pub struct Rig {
    pub scheduler: Scheduler,
    pub now: u64,
}

pub fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Small limits, no backoff, no timeout of workers, no speculation.
pub fn config() -> Config {
    Config {
        first_attempt: 0,
        max_attempts: 3,
        retry_backoff: Duration::ZERO,
        retry_backoff_max: Duration::ZERO,
        max_excused: 2,
        max_output_losses: 2,
        max_holder_losses: 2,
        worker_timeout: None,
        no_workers_timeout: millis(1000),
        speculation: None,
    }
}

pub fn job(name: &str) -> JobId {
    JobId::parse(name).expect("a job id")
}

pub fn worker(name: &str) -> WorkerId {
    WorkerId::parse(name).expect("a worker id")
}

/// `j-s0-t1-a2`, or `s0-t1-a2` for job j.
pub fn attempt(text: &str) -> AttemptId {
    let full = if text.starts_with('s') { format!("j-{text}") } else { text.to_owned() };
    let parts: Vec<&str> = full.split('-').collect();
    let number = |at: usize| parts[at][1..].parse().expect("a number");
    let task = TaskId { job: job(parts[0]), stage: StageId(number(1)), index: number(2) };
    AttemptId { task, attempt: number(3) }
}

pub fn retryable(reason: &str) -> Failure {
    Failure::Retryable { reason: reason.into() }
}

pub fn fatal(reason: &str) -> Failure {
    Failure::Fatal { reason: reason.into() }
}

/// The output of the attempt's task could not be read from the worker.
pub fn fetch_lost(holder: &str, producer: &str) -> Failure {
    Failure::FetchLost { worker: worker(holder), task: attempt(producer).task, reason: "not found".into() }
}

fn word(command: &Command) -> String {
    match command {
        Command::PlanStage { job, stage } => format!("plan {job} {}", stage.0),
        Command::Start { worker, attempt } => format!("start {worker} {attempt}"),
        Command::Stop { worker, attempt } => format!("stop {worker} {attempt}"),
        Command::Publish { job } => format!("publish {job}"),
        Command::FinishJob { job, outcome: Outcome::Done } => format!("finish {job} done"),
        Command::FinishJob { job, outcome: Outcome::Cancelled } => format!("finish {job} cancelled"),
        Command::FinishJob { job, outcome: Outcome::Failed { reason } } => format!("finish {job} {reason}"),
        Command::ReleaseJob { job } => format!("release {job}"),
        Command::Warn { warning } => format!("warn {warning}"),
    }
}

impl Rig {
    pub fn new(config: Config) -> Self {
        Self { scheduler: Scheduler::new(config).expect("valid options"), now: 0 }
    }

    /// Workers `w0`, `w1`, ... with these slots, and job `j`: a chain of that many stages, the
    /// first one planned with tasks of these weights. Returns the commands that follow from the plan.
    pub fn started(config: Config, slots: &[u32], stages: u32, weights: &[u64]) -> (Self, Vec<String>) {
        let mut rig = Self::new(config);
        for (n, slots) in slots.iter().enumerate() {
            rig.join(&format!("w{n}"), *slots);
        }
        rig.submit("j", stages);
        let said = rig.plan("j", 0, weights);
        (rig, said)
    }

    pub fn tell(&mut self, event: Event) -> Vec<String> {
        self.scheduler.step(Millis(self.now), event).iter().map(word).collect()
    }

    pub fn join(&mut self, name: &str, slots: u32) -> Vec<String> {
        self.tell(Event::WorkerJoined { worker: worker(name), slots, draining: false })
    }

    pub fn lose(&mut self, name: &str) -> Vec<String> {
        self.tell(Event::WorkerLost { worker: worker(name) })
    }

    pub fn drain(&mut self, name: &str) -> Vec<String> {
        self.tell(Event::WorkerDraining { worker: worker(name) })
    }

    pub fn submit(&mut self, name: &str, stages: u32) -> Vec<String> {
        let shape = JobShape::chain(stages).expect("stages");
        self.tell(Event::JobSubmitted { job: job(name), shape })
    }

    pub fn cancel(&mut self, name: &str) -> Vec<String> {
        self.tell(Event::JobCancelled { job: job(name) })
    }

    pub fn plan(&mut self, name: &str, stage: u32, weights: &[u64]) -> Vec<String> {
        let tasks = weights
            .iter()
            .map(|weight| TaskPlan { weight: *weight, preferred: None, affinity: None })
            .collect();
        self.tell(Event::StagePlanned { job: job(name), stage: StageId(stage), tasks, found: vec![] })
    }

    pub fn published(&mut self, name: &str) -> Vec<String> {
        self.tell(Event::Published { job: job(name) })
    }

    pub fn ok(&mut self, on: &str, text: &str) -> Vec<String> {
        self.tell(Event::AttemptEnded { worker: worker(on), attempt: attempt(text), outcome: Ok(()) })
    }

    pub fn err(&mut self, on: &str, text: &str, failure: Failure) -> Vec<String> {
        self.tell(Event::AttemptEnded { worker: worker(on), attempt: attempt(text), outcome: Err(failure) })
    }

    pub fn not_started(&mut self, on: &str, text: &str) -> Vec<String> {
        self.tell(Event::NotStarted { worker: worker(on), attempt: attempt(text) })
    }

    /// Whether the inputs of an attempt are unchanged since its start.
    pub fn can_dispatch(&self, text: &str) -> bool {
        self.scheduler.inputs_of(&attempt(text)).is_some()
    }

    pub fn migrated(&mut self, text: &str, from: &str, to: &str) -> Vec<String> {
        let TaskId { job, stage, index } = attempt(text).task;
        self.tell(Event::OutputMigrated { job, stage, index, from: worker(from), to: worker(to) })
    }

    pub fn tick(&mut self, now: u64) -> Vec<String> {
        self.now = now;
        self.tell(Event::Tick)
    }

    pub fn wakeup(&self) -> Option<u64> {
        self.scheduler.next_wakeup().map(|at| at.0)
    }

    pub fn state(&self, name: &str) -> JobState {
        self.scheduler.status(&job(name)).expect("a known job").state
    }

    pub fn stage(&self, stage: usize) -> StageStatus {
        self.scheduler.status(&job("j")).expect("a known job").stages[stage]
    }

    /// `index@holder-aN` of every output of a stage of job j.
    pub fn outputs(&self, stage: u32) -> Vec<String> {
        let id = job("j");
        let outputs = self.scheduler.outputs(&id, StageId(stage));
        outputs.map(|(index, holder, number)| format!("{index}@{holder}-a{number}")).collect()
    }
}
