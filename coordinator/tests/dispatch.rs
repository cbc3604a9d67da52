//! The driver over a fleet that a test plays: what is ordered when several things go wrong in one step.

// What fails here fails the test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tally_coordinator::driver::{self, Driver, Ended, Input, Parts, Submit};
use tally_coordinator::fleet::{Capacity, Fleet, Order};
use tally_coordinator::history::Registry;
use tally_coordinator::job::JobSpec;
use tally_coordinator::journal::Forgetful;
use tally_proto::v1::task_order::Work;
use tally_proto::v1::task_result::Result as Done;
use tally_proto::v1::write_work::Target;
use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tally_scheduler::Config;
use tally_worker::runner::Report;
use tally_worker::scan::footer::Footers;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);
const DATE: &str = "20170227";

fn worker(name: &str) -> WorkerId {
    WorkerId::parse(name).unwrap()
}

/// Workers that do what the test says; those that are deaf cannot be sent an order.
struct Played {
    deaf: Arc<Mutex<BTreeSet<WorkerId>>>,
    orders: mpsc::UnboundedSender<Ordered>,
}

impl Fleet for Played {
    fn start(&mut self, worker: &WorkerId, attempt: &AttemptId, order: Order) -> Result<(), String> {
        if self.deaf.lock().contains(worker) {
            return Err("it does not listen".into());
        }
        self.orders.send((worker.clone(), attempt.clone(), order)).map_err(|e| e.to_string())
    }

    fn address(&self, worker: &WorkerId) -> String {
        format!("{worker}:1")
    }

    fn stop(&mut self, _: &WorkerId, _: &AttemptId) {}

    fn release(&mut self, _: &JobId) {}

    fn capacity(&self) -> Capacity {
        Capacity { slots: 3, reduce_table_bytes: 64 << 20 }
    }
}

fn result(order: &Order) -> v1::TaskResult {
    let done = match order.head.work.as_ref().unwrap() {
        Work::Map(work) => {
            Done::Map(v1::MapResult { rows: tally_tests::shard::rows(work).unwrap(), ..Default::default() })
        }
        Work::Reduce(_) => Done::Reduce(v1::ReduceResult {
            totals: Some(v1::Totals { rows: 1, clients: 1, custom_theme_clients: 0 }),
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
    v1::TaskResult { result: Some(done) }
}

/// What was ordered of whom.
type Ordered = (WorkerId, AttemptId, Order);

/// A driver with a job over a small day.
struct Rig {
    _root: tempfile::TempDir,
    handle: driver::Handle,
    deaf: Arc<Mutex<BTreeSet<WorkerId>>>,
    orders: mpsc::UnboundedReceiver<Ordered>,
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
        });
        let (handle, inbox) = driver::inbox();
        let deaf = Arc::new(Mutex::new(BTreeSet::new()));
        let (sender, orders) = mpsc::unbounded_channel();
        let parts = Parts {
            config: Config { worker_timeout: None, speculation: None, ..Config::default() },
            fleet: Box::new(Played { deaf: deaf.clone(), orders: sender }),
            journal: Box::new(Forgetful),
            footers: Arc::new(Footers::new(1 << 20)),
            registry: Arc::new(Registry::new(1)),
            epoch: 0,
            doubt: Arc::default(),
            most_jobs: 1,
            sample: Duration::from_millis(100),
        };
        tokio::spawn(Driver::new(parts, &handle, inbox).unwrap().run(std::future::pending()));
        let (accepted, _) = oneshot::channel();
        let (sender, ended) = oneshot::channel();
        let rig = Rig { _root: root, handle, deaf, orders, ended };
        for name in workers {
            rig.join(name).await;
        }
        rig.tell(Input::Submit(Box::new(Submit { spec: spec.unwrap(), accepted, ended: Some(sender) })))
            .await;
        rig
    }

    async fn tell(&self, input: Input) {
        assert!(self.handle.sender().send(input).await.is_ok(), "the driver ended");
    }

    async fn join(&self, name: &str) {
        self.tell(Input::Joined(worker(name), 1)).await;
    }

    async fn next(&mut self) -> Ordered {
        timeout(DEADLINE, self.orders.recv()).await.expect("an order in time").expect("a driver")
    }

    async fn end(&self, (worker, attempt, order): Ordered) {
        let outcome = Ok(result(&order));
        self.tell(Input::Report(Box::new(Report { worker, attempt, outcome }))).await;
    }
}

/// Two workers are lost in one step, as neither can be sent its reduce order: the first holds nothing, the second
/// nearly all map outputs. The order that follows from the first loss was decided before the second.
#[tokio::test]
async fn orders_are_made_of_the_state_that_they_were_decided_on() {
    let mut rig = Rig::new(&["b", "c"]).await;
    // One map task stays with c to the end; b has all others.
    let (first, second) = (rig.next().await, rig.next().await);
    let (mut at_b, at_c) = if first.0 == worker("b") { (first, second) } else { (second, first) };
    loop {
        rig.end(at_b).await;
        match timeout(Duration::from_millis(500), rig.next()).await {
            Ok(order) => at_b = order,
            Err(_) => break,
        }
    }
    rig.join("a").await;
    rig.deaf.lock().extend(["a", "b"].map(worker));
    rig.end(at_c).await;

    let (mut maps, mut reduces) = (0, 0);
    while reduces < 2 {
        let order = rig.next().await;
        assert_eq!(order.0, worker("c"));
        match order.2.head.work.as_ref().unwrap() {
            Work::Map(_) => maps += 1,
            Work::Reduce(work) => {
                let inputs = order.2.inputs.as_ref().unwrap().list();
                let told: Vec<_> = inputs.tables.iter().map(|table| table.outputs.len() as u32).collect();
                assert_eq!(told, work.map_tasks);
                assert!(told.iter().sum::<u32>() > 2);
                assert!(
                    reduces > 0 || maps == 0,
                    "the first was ordered before the second loss was looked at"
                );
                reduces += 1;
            }
            Work::Write(_) => panic!("{order:?}"),
        }
        rig.end(order).await;
    }
    assert!(maps > 1, "b held {maps} map outputs");
    let write = rig.next().await;
    rig.end(write).await;
    let ended = timeout(DEADLINE, &mut rig.ended).await.expect("an end in time");
    assert!(matches!(ended, Ok(Ended::Done(_))), "{ended:?}");
}
