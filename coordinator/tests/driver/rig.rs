//! A driver whose time, journal and workers belong to the test. Its jobs have a plan without files.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_coordinator::cluster::{
    Attached, Hello, Inventory, Outbound, RemoteFleet, WorkerInput, WorkerUpdate,
};
use tally_coordinator::driver::{
    Accepted, AfterRecord, Driver, DriverInput, DriverParts, Intervals, Now, Output, Planned, Refusal,
    Submit, Work, first_attempt,
};
use tally_coordinator::history::Registry;
use tally_coordinator::job::JobSpec;
use tally_coordinator::job_id::new_key;
use tally_coordinator::plan::{InputPlan, MapTask};
use tally_coordinator::publish::file_system;
use tally_coordinator::publish::staging::Staging;
use tally_proto::v1::coordinator_message::Message;
use tally_proto::{AttemptId, JobId, StageId, TaskId, WorkerId, v1};
use tally_scan::footer::Footers;
use tally_scheduler::Config;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

pub const SILENCE: Duration = Duration::from_secs(10);
pub const GRACE: Duration = Duration::from_secs(2);
pub const EPOCH: u64 = 7;
/// Messages that may wait for a worker.
const OUTBOX: usize = 64;

/// A driver, and everything around it.
pub struct Rig {
    pub root: tempfile::TempDir,
    pub registry: Arc<Registry>,
    /// Records stay in `unwritten` until the test writes them.
    pub holds_records: bool,
    pub unwritten: VecDeque<AfterRecord>,
    driver: Driver,
    now: Duration,
    runtime: Runtime,
    footers: Arc<Footers>,
    map_tasks: usize,
}

/// A worker that the test plays.
pub struct Player {
    pub id: WorkerId,
    pub generation: u64,
    messages: mpsc::Receiver<Outbound>,
}

/// The answer that a client waits for.
pub type Acceptance = oneshot::Receiver<Result<Accepted, Refusal>>;

pub fn hello(worker: &str) -> v1::Hello {
    v1::Hello {
        protocol: tally_proto::PROTOCOL,
        worker: worker.into(),
        slots: 1,
        memory_limit: 1 << 30,
        flight_address: "127.0.0.1:1".into(),
        reduce_table_bytes: 64 << 20,
        ..v1::Hello::default()
    }
}

pub fn attempt(job: &JobId, index: u32, attempt: u32) -> AttemptId {
    AttemptId { task: TaskId { job: job.clone(), stage: StageId(0), index }, attempt }
}

/// The result of a map task of the rig's plan.
pub fn mapped() -> v1::TaskResult {
    let result = v1::MapResult { rows: 1, ..v1::MapResult::default() };
    v1::TaskResult { result: Some(v1::task_result::Result::Map(result)), usage: None }
}

impl Rig {
    /// A driver without jobs. Its jobs have that many map tasks, and one reduce task.
    pub fn new(map_tasks: usize) -> Self {
        let registry = Arc::new(Registry::new(10));
        let second = Duration::from_secs(1);
        let parts = DriverParts {
            config: Config { worker_timeout: None, first_attempt: first_attempt(EPOCH), ..Config::default() },
            fleet: Box::new(RemoteFleet::new(EPOCH)),
            registry: registry.clone(),
            epoch: EPOCH,
            max_jobs: 8,
            silence: SILENCE,
            grace: GRACE,
            silent_after: 2 * second,
            intervals: Intervals { sample: second / 5, show: second, epoch_checks: None },
            started: Instant::now(),
            resident: || (0, 0),
        };
        Rig {
            root: tempfile::tempdir().unwrap(),
            registry,
            holds_records: false,
            unwritten: VecDeque::new(),
            driver: Driver::new(parts, Now::default()).unwrap(),
            now: Duration::ZERO,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            footers: Arc::new(Footers::new(1 << 20)),
            map_tasks,
        }
    }

    /// Passes an input, and then the answers to all outputs.
    pub fn step(&mut self, input: DriverInput) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = Now { elapsed: self.now, unix_millis: self.now.as_millis() as u64 };
            for output in self.driver.step(now, input) {
                match output {
                    Output::Append { then, .. } if self.holds_records => self.unwritten.push_back(then),
                    Output::Append { then, .. } => inputs.push_back(DriverInput::Written(then)),
                    Output::Work(work) => inputs.push_back(self.work(*work)),
                    Output::CheckEpoch => {}
                    Output::End(end) => panic!("the term ended: {end:?}"),
                }
            }
        }
    }

    fn work(&self, work: Work) -> DriverInput {
        match work {
            Work::Plan { spec, epoch, .. } => {
                let work = v1::MapWork { pieces: vec![v1::InputPiece::default()], ..v1::MapWork::default() };
                let task = MapTask { work, bytes: 1, rows: Some(1) };
                let tasks = vec![task; self.map_tasks];
                let plan = InputPlan { tasks, partitions: 1, ..InputPlan::default() };
                let files = file_system::system();
                let staging = self.runtime.block_on(Staging::prepare(&spec, epoch, &files)).unwrap();
                DriverInput::Planned(spec.id, Ok(Box::new(Planned { plan, staging, recorded: false })))
            }
            work => self.runtime.block_on(work.run(&self.footers, &file_system::system())),
        }
    }

    /// The oldest record becomes durable.
    pub fn write(&mut self) {
        let then = self.unwritten.pop_front().unwrap();
        self.step(DriverInput::Written(then));
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while self.driver.next_wakeup() <= until {
            self.now = self.driver.next_wakeup().max(self.now);
            self.step(DriverInput::Tick);
        }
        self.now = until;
    }

    /// The process does not run for a while.
    pub fn pause(&mut self, by: Duration) {
        self.now += by;
        self.step(DriverInput::Tick);
    }

    pub fn tell(&mut self, input: WorkerInput) {
        self.step(DriverInput::Worker(Box::new(input)));
    }

    /// A worker says hello.
    pub fn hello(&mut self, hello: v1::Hello) -> Attached {
        let (reply, mut answer) = oneshot::channel();
        self.tell(WorkerInput::Hello(Hello::try_from(hello).unwrap(), reply));
        answer.try_recv().unwrap().unwrap()
    }

    /// A worker says hello, and its inventory follows.
    pub fn attach(&mut self, hello: v1::Hello, inventory: Inventory) -> Player {
        let id = WorkerId::parse(&hello.worker).unwrap();
        let generation = self.hello(hello).generation;
        let (channel, messages) = mpsc::channel(OUTBOX);
        let (worker, beat) = (id.clone(), Arc::default());
        self.tell(WorkerInput::Attached { worker, generation, channel, inventory, beat });
        Player { id, generation, messages }
    }

    /// A worker's stream breaks.
    pub fn detach(&mut self, player: Player) {
        self.tell(WorkerInput::Broken { worker: player.id, generation: player.generation });
    }

    /// A worker reports the end of a map task.
    pub fn end(&mut self, player: &Player, attempt: AttemptId) {
        self.update(player, WorkerUpdate::Ended(attempt, Ok(mapped())));
    }

    pub fn update(&mut self, player: &Player, update: WorkerUpdate) {
        let (worker, generation) = (player.id.clone(), player.generation);
        self.tell(WorkerInput::Update { worker, generation, update });
    }

    /// Submits a job of the only day of `output`.
    pub fn submit(&mut self, output: &str) -> Acceptance {
        let spec = JobSpec::asked(v1::JobSpec {
            dataset: "addon_aggregates".into(),
            date: "20170227".into(),
            inputs: vec!["/no/addons".into(), "/no/main_summary".into()],
            output: self.root.path().join(output).display().to_string(),
            target_file_size: 280_000_000,
            shard_bytes: None,
            partitions: None,
            expectations: vec![],
            ready_marker: None,
            options: vec![],
        });
        let (accepted, answer) = oneshot::channel();
        let submit = Submit { spec: spec.unwrap(), key: new_key(), accepted, ended: None };
        self.step(DriverInput::Submit(Box::new(submit)));
        answer
    }

    /// Submits a job, which is accepted.
    pub fn job(&mut self, output: &str) -> JobId {
        self.submit(output).try_recv().unwrap().unwrap().job
    }

    pub fn cancel(&mut self, job: &JobId) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        self.step(DriverInput::Cancel(job.clone(), reply));
        answer
    }

    /// The number of map tasks that are done, as clients see it.
    pub fn done(&mut self, job: &JobId) -> u64 {
        self.advance(Duration::from_secs(1));
        self.registry.get(job).unwrap().stages[0].done
    }
}

impl Player {
    /// The next message, if one waits.
    pub fn next(&mut self) -> Option<Message> {
        loop {
            match self.messages.try_recv().ok()? {
                Outbound::Message(message) => return message.message,
                Outbound::Dispatch { dispatch, .. } => return Some(Message::Start(dispatch.head)),
                Outbound::Inputs { .. } | Outbound::Options { .. } => {}
            }
        }
    }

    /// The attempt that it has to run.
    pub fn task(&mut self) -> AttemptId {
        match self.next() {
            Some(Message::Start(dispatch)) => AttemptId::try_from(&dispatch.attempt.unwrap()).unwrap(),
            other => panic!("{other:?} instead of a task"),
        }
    }
}
