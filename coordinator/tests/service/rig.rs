//! A coordinator in this process on a port of its own, a small day for it, and a worker that does
//! what a test tells it to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tally_coordinator::election::Election;
use tally_coordinator::service::Timing;
use tally_coordinator::service::lead::LeadOptions;
use tally_coordinator::service::serve::{Exit, ServeOptions, serve};
use tally_proto::v1;
use tally_proto::v1::control_client::ControlClient;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::jobs_client::JobsClient;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::v1::write_work::Target;
use tally_worker::security::Security;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Longer than anything here takes.
pub const DEADLINE: Duration = Duration::from_secs(30);
pub const DATE: &str = "20170227";

/// Folders of a test: a day, an output, a state directory.
pub struct Place {
    root: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let options = tally_generate::Options {
            output: root.path().join("day"),
            clients: 300,
            date: DATE.into(),
            ..Default::default()
        };
        tally_generate::generate(&options, &|_| ()).unwrap();
        Place { root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A job over the day: a few map tasks, two reduce tasks, one file.
    pub fn spec(&self, output: &str) -> v1::JobSpec {
        let table = |name: &str| self.path("day").join(name).display().to_string();
        v1::JobSpec {
            dataset: "addon_aggregates".into(),
            date: DATE.into(),
            inputs: vec![table("addons/v2"), table("main_summary/v3")],
            output: self.path(output).display().to_string(),
            target_file_size: 280_000_000,
            shard_bytes: Some(4096),
            partitions: Some(2),
        }
    }

    /// The files of a published day, by name.
    pub fn day(&self, output: &str) -> Vec<String> {
        let day = self.path(output).join(format!("submission_date_s3={DATE}"));
        let mut names: Vec<String> = std::fs::read_dir(day)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Whether nothing is left of any staging.
    pub fn is_clean(&self) -> bool {
        let left =
            |path: &Path| path.file_name().is_some_and(|n| n.to_string_lossy().contains("tally-staging"));
        !std::fs::read_dir(self.root.path()).unwrap().any(|entry| left(&entry.unwrap().path()))
    }
}

/// A running coordinator.
pub struct Coordinator {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Exit>,
}

/// What most tests begin with.
pub struct Scene {
    pub place: Place,
    pub coordinator: Coordinator,
    pub jobs: JobsClient<Channel>,
}

impl Scene {
    /// A day, and a coordinator that leads.
    pub async fn new() -> Self {
        let place = Place::new();
        let coordinator = Coordinator::start(&place).await;
        let jobs = coordinator.jobs().await;
        Scene { place, coordinator, jobs }
    }
}

pub fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(200),
        grace: Duration::from_millis(500),
        timeout: Duration::from_secs(20),
        settle: Duration::from_millis(700),
        no_workers: Duration::from_secs(300),
    }
}

impl Coordinator {
    pub async fn start(place: &Place) -> Self {
        Self::start_with(place, timing(), 8).await
    }

    pub async fn start_with(place: &Place, timing: Timing, most_jobs: usize) -> Self {
        Self::start_secured(place, timing, most_jobs, Security::plain()).await
    }

    pub async fn start_secured(
        place: &Place,
        timing: Timing,
        most_jobs: usize,
        security: Arc<Security>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lead =
            LeadOptions { address: address.to_string(), history: 50, most_jobs, compact_after: 5, timing };
        let state_dir = place.path("state").display().to_string();
        let options = ServeOptions { state_dir, lead, role: Default::default(), security };
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let until = async {
                let _ = stopped.await;
            };
            serve(listener, options, Election::alone(), until).await.unwrap()
        });
        let coordinator = Coordinator { address, stop: Some(stop), running };
        let mut jobs = coordinator.jobs().await;
        eventually("the coordinator leads", async || jobs.list(v1::ListRequest::default()).await.is_ok())
            .await;
        coordinator
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect_timeout(DEADLINE).connect().await.unwrap()
    }

    pub async fn jobs(&self) -> JobsClient<Channel> {
        JobsClient::new(self.channel().await)
    }

    /// A worker of one slot that attached.
    pub async fn worker(&self, id: &str) -> Player {
        Player::attach(self, hello(id)).await.unwrap()
    }

    /// Steps down, as after SIGTERM.
    pub async fn stop(mut self) -> Exit {
        let _ = self.stop.take().unwrap().send(());
        self.exit().await
    }

    pub async fn exit(self) -> Exit {
        timeout(DEADLINE, self.running).await.expect("the coordinator ends").unwrap()
    }
}

/// Waits for a condition.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = timeout(DEADLINE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "it never came true that {what}");
}

/// Waits until a job is in a state.
pub async fn becomes(jobs: &mut JobsClient<Channel>, job: &str, state: v1::JobState) -> v1::JobStatus {
    let mut last = v1::JobStatus::default();
    eventually(&format!("{job} becomes {state:?}"), async || {
        last = jobs.get(v1::JobRequest { job: job.into() }).await.unwrap().into_inner();
        assert!(last.state() == state || last.ended_at == 0, "{last:?}");
        last.state() == state
    })
    .await;
    last
}

pub async fn submit(jobs: &mut JobsClient<Channel>, spec: v1::JobSpec) -> Result<v1::SubmitReply, Status> {
    Ok(jobs.submit(v1::SubmitRequest { spec: Some(spec) }).await?.into_inner())
}

/// A worker that is played.
pub struct Player {
    pub held: BTreeMap<(String, u32, u32, u32), v1::HeldOutput>,
    /// Jobs that it was told of, while it waited for orders.
    pub admitted: Vec<v1::Admit>,
    /// What its reduce orders read, as told last.
    pub inputs: Option<v1::ReduceInputs>,
    /// Rows of its reduce tasks, each in a row group of its own.
    pub rows: u64,
    /// Passes that its reduce tasks take.
    pub passes: u32,
    /// What it does to results before it tells them.
    pub alter: fn(&mut v1::task_result::Result),
    sender: mpsc::Sender<v1::WorkerMessage>,
    orders: Streaming<v1::CoordinatorMessage>,
    pub epoch: u64,
}

pub fn hello(id: &str) -> v1::Hello {
    v1::Hello {
        protocol: tally_proto::PROTOCOL,
        version: "test".into(),
        worker: id.into(),
        slots: 1,
        memory_limit: 1 << 30,
        flight_address: "127.0.0.1:1".into(),
        reduce_table_bytes: 64 << 20,
        ..v1::Hello::default()
    }
}

/// What a map task says that read its shard. (The files of a journal that lies among the tests do not exist.)
pub fn read(work: &v1::MapWork) -> v1::MapResult {
    v1::MapResult { rows: tally_tests::shard::rows(work).unwrap_or(1), ..Default::default() }
}

/// Sends the messages as a worker's first; the stream of answers, and the way to send more.
pub async fn open(
    coordinator: &Coordinator,
    first: Vec<Up>,
) -> Result<(mpsc::Sender<v1::WorkerMessage>, Streaming<v1::CoordinatorMessage>), Status> {
    let (sender, receiver) = mpsc::channel(64);
    for message in first {
        sender.send(v1::WorkerMessage { message: Some(message) }).await.unwrap();
    }
    let mut client = ControlClient::new(coordinator.channel().await);
    let orders = client.attach(ReceiverStream::new(receiver)).await?.into_inner();
    Ok((sender, orders))
}

impl Player {
    pub async fn attach(coordinator: &Coordinator, hello: v1::Hello) -> Result<Self, Status> {
        Self::attach_with(coordinator, hello, BTreeMap::new(), vec![]).await
    }

    /// Attaches with what it holds, two outputs a page, and what it runs.
    pub async fn attach_with(
        coordinator: &Coordinator,
        hello: v1::Hello,
        held: BTreeMap<(String, u32, u32, u32), v1::HeldOutput>,
        running: Vec<v1::Attempt>,
    ) -> Result<Self, Status> {
        let mut first = vec![Up::Hello(hello)];
        let outputs: Vec<_> = held.values().cloned().collect();
        for page in outputs.chunks(2) {
            let page = v1::Inventory { outputs: page.to_vec(), ..v1::Inventory::default() };
            first.push(Up::Inventory(page));
        }
        first.push(Up::Inventory(v1::Inventory { running, last: true, ..v1::Inventory::default() }));
        let (sender, orders) = open(coordinator, first).await?;
        let mut player = Player {
            held,
            admitted: vec![],
            inputs: None,
            rows: 1,
            passes: 1,
            alter: |_| (),
            sender,
            orders,
            epoch: 0,
        };
        assert!(matches!(player.next().await, Some(Down::Welcome(_))));
        Ok(player)
    }

    pub async fn say(&self, message: Up) {
        self.sender.send(v1::WorkerMessage { message: Some(message) }).await.unwrap();
    }

    /// The next message that is no beat and no inputs; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Down> {
        loop {
            let message = timeout(DEADLINE, self.orders.message()).await.expect("a message in time");
            let message = message.ok().flatten()?;
            self.epoch = message.epoch;
            match message.message {
                Some(Down::Beat(_)) => {}
                Some(Down::Inputs(inputs)) => self.inputs = Some(inputs),
                message => return message,
            }
        }
    }

    /// The next order to run something.
    pub async fn order(&mut self) -> v1::TaskOrder {
        loop {
            match self.next().await.expect("an order") {
                Down::Start(order) => return order,
                Down::Release(job) => self.held.retain(|key, _| key.0 != job),
                Down::Admit(admit) => self.admitted.push(admit),
                other => panic!("{other:?} instead of an order"),
            }
        }
    }

    /// Carries an order out, as it were: one row a reduce task.
    pub async fn finish(&mut self, order: &v1::TaskOrder) {
        use v1::task_order::Work;
        use v1::task_result::Result as Done;
        let mut done = match order.work.as_ref().unwrap() {
            Work::Map(work) => Done::Map(read(work)),
            Work::Reduce(_) => Done::Reduce(v1::ReduceResult {
                totals: Some(v1::Totals { rows: self.rows, clients: 1, custom_theme_clients: 0 }),
                row_group_rows: vec![1; self.rows as usize],
                bytes: 1,
                passes: self.passes,
                ..Default::default()
            }),
            Work::Write(work) => {
                let Some(Target::Path(path)) = &work.target else { panic!("an upload instead of a file") };
                std::fs::write(path, "part").unwrap();
                let rows = work.pieces.iter().map(|piece| piece.row_groups.len() as u64).sum();
                Done::Write(v1::WriteResult { rows, bytes: 4, ..Default::default() })
            }
        };
        (self.alter)(&mut done);
        let attempt = order.attempt.clone().unwrap();
        let result = v1::TaskResult { result: Some(done) };
        let held = v1::HeldOutput { attempt: order.attempt.clone(), result: Some(result.clone()) };
        self.held.insert((attempt.job, attempt.stage, attempt.index, attempt.attempt), held);
        let outcome = Some(v1::ended::Outcome::Done(result));
        self.say(Up::Ended(v1::Ended { attempt: order.attempt.clone(), outcome })).await;
    }

    /// Does all that it is told up to the first reduce task, and gives that one's order.
    pub async fn until_reduce(&mut self) -> v1::ReduceWork {
        loop {
            let order = self.order().await;
            self.finish(&order).await;
            if let Some(v1::task_order::Work::Reduce(work)) = order.work {
                return work;
            }
        }
    }

    /// Does all that it is told, until it is told to drop a job; how many orders of each stage.
    pub async fn work(&mut self) -> [usize; 3] {
        let mut done = [0; 3];
        loop {
            match self.next().await.expect("an order or a release") {
                Down::Start(order) => {
                    done[order.attempt.as_ref().unwrap().stage as usize] += 1;
                    self.finish(&order).await;
                }
                Down::Release(job) => {
                    self.held.retain(|key, _| key.0 != job);
                    return done;
                }
                Down::Stop(_) => {}
                other => panic!("{other:?} while working"),
            }
        }
    }

    /// Breaks its stream off.
    pub fn leave(self) -> BTreeMap<(String, u32, u32, u32), v1::HeldOutput> {
        self.held
    }
}

/// Asserts that something was refused, with a sentence that names what matters.
pub fn refused<T>(result: Result<T, Status>, code: Code, named: &str) {
    let status = result.err().expect("a refusal");
    assert!(status.code() == code && status.message().contains(named), "{status:?}");
}
