//! The driver with a fleet that the test simulates: which tasks are dispatched when several faults happen in one step.

// A panic here fails the test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tally_coordinator::dispatch::TaskDispatch;
use tally_coordinator::driver::{
    self, DriverInput, DriverParts, Ended, Intervals, Shell, ShellParts, Submit,
};
use tally_coordinator::fleet::{Capacity, DispatchError, Fleet};
use tally_coordinator::history::Registry;
use tally_coordinator::job::JobSpec;
use tally_coordinator::job_id::new_key;
use tally_coordinator::journal::NoopJournal;
use tally_coordinator::publish::file_system;
use tally_proto::report::Report;
use tally_proto::v1::task_dispatch::Work;
use tally_proto::v1::task_result::Result as Done;
use tally_proto::v1::write_work::Target;
use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tally_scan::footer::Footers;
use tally_scheduler::Config;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);
const DATE: &str = "20170227";

fn worker(name: &str) -> WorkerId {
    WorkerId::parse(name).unwrap()
}

/// Workers that the test controls. Tasks cannot be sent to those in `deaf`.
struct Played {
    deaf: Arc<Mutex<BTreeSet<WorkerId>>>,
    messages: mpsc::UnboundedSender<Dispatched>,
}

impl Fleet for Played {
    fn start(
        &mut self,
        worker: &WorkerId,
        attempt: &AttemptId,
        dispatch: TaskDispatch,
    ) -> Result<(), DispatchError> {
        if self.deaf.lock().contains(worker) {
            return Err(DispatchError::WorkerLost("it does not read".into()));
        }
        self.messages
            .send((worker.clone(), attempt.clone(), dispatch))
            .map_err(|e| DispatchError::WorkerLost(e.to_string()))
    }

    fn address(&self, worker: &WorkerId) -> String {
        format!("{worker}:1")
    }

    fn stop(&mut self, _: &WorkerId, _: &AttemptId) {}

    fn release(&mut self, _: &JobId) {}

    fn capacity(&self) -> Capacity {
        Capacity { slots: 3, reduce_table_bytes: 64 << 20, reads_footers: true, apart: true }
    }
}

fn result(dispatch: &TaskDispatch) -> v1::TaskResult {
    let done = match dispatch.head.work.as_ref().unwrap() {
        Work::Map(work) => {
            Done::Map(v1::MapResult { rows: tally_tests::shard::rows(work).unwrap(), ..Default::default() })
        }
        Work::Reduce(_) => Done::Reduce(v1::ReduceResult {
            totals: Some(v1::Totals::new(1, &[1, 0])),
            row_group_rows: vec![1],
            bytes: 1,
            passes: 1,
            ..Default::default()
        }),
        Work::Write(work) => {
            let Some(Target::Path(path)) = &work.target else { panic!("an upload instead of a file") };
            std::fs::write(path, "part").unwrap();
            Done::Write(v1::WriteResult { rows: 2, bytes: 4, ..Default::default() })
        }
    };
    v1::TaskResult { result: Some(done), usage: None }
}

/// A dispatched task and its worker.
type Dispatched = (WorkerId, AttemptId, TaskDispatch);

/// A driver with a job over a small day.
struct Rig {
    _root: tempfile::TempDir,
    handle: driver::Handle,
    deaf: Arc<Mutex<BTreeSet<WorkerId>>>,
    messages: mpsc::UnboundedReceiver<Dispatched>,
    ended: oneshot::Receiver<Ended>,
}

impl Rig {
    /// These workers, with one slot each, and the job: a few map tasks, two reduce tasks, one file.
    async fn new(workers: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (output, date) = (root.path().join("day"), DATE.to_string());
        let options = tally_generate::Options { output, clients: 300, date, ..Default::default() };
        tally_generate::generate(&options, &|_| ()).unwrap();
        let place = |name: &str| root.path().join(name).display().to_string();
        let spec = JobSpec::asked(v1::JobSpec {
            dataset: "addon_aggregates".into(),
            date: DATE.into(),
            inputs: vec![place("day/addons/v2"), place("day/main_summary/v3")],
            output: place("out"),
            target_file_size: 280_000_000,
            shard_bytes: Some(4096),
            partitions: Some(2),
            expectations: vec![],
            ready_marker: None,
            options: vec![],
        });
        let (handle, inbox) = driver::inbox();
        let deaf = Arc::new(Mutex::new(BTreeSet::new()));
        let (sender, messages) = mpsc::unbounded_channel();
        let interval = Duration::from_millis(100);
        let parts = DriverParts {
            config: Config { worker_timeout: None, speculation: None, ..Config::default() },
            fleet: Box::new(Played { deaf: deaf.clone(), messages: sender }),
            registry: Arc::new(Registry::new(1)),
            epoch: 0,
            max_jobs: 1,
            silence: DEADLINE,
            grace: DEADLINE,
            silent_after: DEADLINE,
            intervals: Intervals { sample: interval, show: interval, epoch_checks: None },
            started: Instant::now(),
            resident: || (0, 0),
        };
        let footers = Arc::new(Footers::new(1 << 20));
        let io = ShellParts {
            journal: Box::new(NoopJournal),
            epochs: None,
            footers,
            files: file_system::system(),
        };
        tokio::spawn(Shell::start(parts, io, &handle, inbox).unwrap().run(std::future::pending()));
        let (accepted, _) = oneshot::channel();
        let (sender, ended) = oneshot::channel();
        let rig = Rig { _root: root, handle, deaf, messages, ended };
        for name in workers {
            rig.join(name).await;
        }
        rig.tell(DriverInput::Submit(Box::new(Submit {
            spec: spec.unwrap(),
            key: new_key(),
            accepted,
            ended: Some(sender),
        })))
        .await;
        rig
    }

    async fn tell(&self, input: DriverInput) {
        assert!(self.handle.sender().send(input).await.is_ok(), "the driver ended");
    }

    async fn join(&self, name: &str) {
        self.tell(DriverInput::Joined(worker(name), 1)).await;
    }

    async fn next(&mut self) -> Dispatched {
        timeout(DEADLINE, self.messages.recv()).await.expect("a task in time").expect("a driver")
    }

    async fn end(&self, (worker, attempt, dispatch): Dispatched) {
        let outcome = Ok(result(&dispatch));
        self.tell(DriverInput::Report(Box::new(Report { worker, attempt, outcome }))).await;
    }
}

/// Two workers are lost in one step, because neither can be sent its reduce task: the first holds nothing, the second holds
/// nearly all map outputs. The task that follows from the first loss was decided before the second loss.
#[tokio::test]
async fn task_messages_are_built_from_the_state_in_which_they_were_decided() {
    let mut rig = Rig::new(&["b", "c"]).await;
    // One map task stays with c to the end; b has all others.
    let (first, second) = (rig.next().await, rig.next().await);
    let (mut at_b, at_c) = if first.0 == worker("b") { (first, second) } else { (second, first) };
    loop {
        rig.end(at_b).await;
        match timeout(Duration::from_millis(500), rig.next()).await {
            Ok(dispatch) => at_b = dispatch,
            Err(_) => break,
        }
    }
    rig.join("a").await;
    rig.deaf.lock().extend(["a", "b"].map(worker));
    rig.end(at_c).await;

    let (mut maps, mut reduces) = (0, 0);
    while reduces < 2 {
        let dispatch = rig.next().await;
        assert_eq!(dispatch.0, worker("c"));
        match dispatch.2.head.work.as_ref().unwrap() {
            Work::Map(_) => maps += 1,
            Work::Reduce(work) => {
                let inputs = dispatch.2.inputs.as_ref().unwrap().list();
                let counts: Vec<_> = inputs.tables.iter().map(|table| table.outputs.len() as u32).collect();
                assert_eq!(counts, work.map_tasks);
                assert!(counts.iter().sum::<u32>() > 2);
                assert!(
                    reduces > 0 || maps == 0,
                    "the first task was dispatched before the second loss was handled"
                );
                reduces += 1;
            }
            Work::Write(_) => panic!("{dispatch:?}"),
        }
        rig.end(dispatch).await;
    }
    assert!(maps > 1, "b held {maps} map outputs");
    let write = rig.next().await;
    rig.end(write).await;
    let ended = timeout(DEADLINE, &mut rig.ended).await.expect("an end in time");
    assert!(matches!(ended, Ok(Ended::Done(_))), "{ended:?}");
}
