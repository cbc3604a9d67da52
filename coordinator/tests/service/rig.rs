//! A coordinator in this process on its own port, a small day for it, and a worker that the test controls.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tally_common::security::Security;
use tally_coordinator::election::Election;
use tally_coordinator::notify::delivery::Sinks;
use tally_coordinator::service::Timing;
use tally_coordinator::service::lead::LeadOptions;
use tally_coordinator::service::serve::{Exit, ServeError, ServeOptions, serve};
use tally_proto::v1;
use tally_proto::v1::control_client::ControlClient;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::jobs_client::JobsClient;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::v1::write_work::Target;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// The time limit of each wait.
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
            expectations: vec![],
            ready_marker: None,
            options: vec![],
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

    /// Whether no staging folder is left.
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

/// The setup of most tests.
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

    pub async fn start_with(place: &Place, timing: Timing, max_jobs: usize) -> Self {
        Self::start_secured(place, timing, max_jobs, Security::plain()).await
    }

    pub async fn start_secured(
        place: &Place,
        timing: Timing,
        max_jobs: usize,
        security: Arc<Security>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = Self::options(place, address, timing, max_jobs, security);
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

    fn options(
        place: &Place,
        address: SocketAddr,
        timing: Timing,
        max_jobs: usize,
        security: Arc<Security>,
    ) -> ServeOptions {
        let lead = LeadOptions {
            address: address.to_string(),
            history: 50,
            max_jobs,
            compact_after: 5,
            timing,
            sinks: Sinks::default(),
        };
        let state_dir = place.path("state").display().to_string();
        ServeOptions { state_dir, lead, role: Default::default(), security }
    }

    /// The error with which a coordinator does not start.
    pub async fn refused(place: &Place) -> ServeError {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = Self::options(place, address, timing(), 8, Security::plain());
        let served = serve(listener, options, Election::alone(), std::future::pending());
        timeout(DEADLINE, served).await.expect("the coordinator ends").unwrap_err()
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect_timeout(DEADLINE).connect().await.unwrap()
    }

    pub async fn jobs(&self) -> JobsClient<Channel> {
        JobsClient::new(self.channel().await)
    }

    /// An attached worker with one slot.
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
    assert!(waited.await.is_ok(), "timeout: {what}");
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

/// A simulated worker.
pub struct Player {
    pub held: BTreeMap<(String, u32, u32, u32), v1::HeldOutput>,
    /// Jobs that were announced while it waited for tasks.
    pub admitted: Vec<v1::Admit>,
    /// The inputs of its reduce tasks, as sent last.
    pub inputs: Option<v1::ReduceInputs>,
    /// Rows of its reduce tasks, each in a row group of its own.
    pub rows: u64,
    /// The passes of its reduce tasks.
    pub passes: u32,
    /// A change of its results before it reports them.
    pub alter: fn(&mut v1::task_result::Result),
    sender: mpsc::Sender<v1::WorkerMessage>,
    messages: Streaming<v1::CoordinatorMessage>,
    pub epoch: u64,
}

/// A port at which simulated workers listen: one that refuses connections is given up as soon as its stream breaks.
static LISTENS: LazyLock<(std::net::TcpListener, String)> = LazyLock::new(|| {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
});

pub fn hello(id: &str) -> v1::Hello {
    v1::Hello {
        protocol: tally_proto::PROTOCOL,
        version: "test".into(),
        worker: id.into(),
        slots: 1,
        memory_limit: 1 << 30,
        flight_address: LISTENS.1.clone(),
        reduce_table_bytes: 64 << 20,
        ..v1::Hello::default()
    }
}

/// The result of a map task that read its shard. (The input files of the recorded journal do not exist.)
pub fn read(work: &v1::MapWork) -> v1::MapResult {
    v1::MapResult { rows: tally_tests::shard::rows(work).unwrap_or(1), ..Default::default() }
}

/// Sends the first messages of a worker; returns the stream of answers, and the channel for further messages.
pub async fn open(
    coordinator: &Coordinator,
    first: Vec<Up>,
) -> Result<(mpsc::Sender<v1::WorkerMessage>, Streaming<v1::CoordinatorMessage>), Status> {
    let (sender, receiver) = mpsc::channel(64);
    for message in first {
        sender.send(v1::WorkerMessage { message: Some(message) }).await.unwrap();
    }
    let mut client = ControlClient::new(coordinator.channel().await);
    let messages = client.attach(ReceiverStream::new(receiver)).await?.into_inner();
    Ok((sender, messages))
}

impl Player {
    pub async fn attach(coordinator: &Coordinator, hello: v1::Hello) -> Result<Self, Status> {
        Self::attach_with(coordinator, hello, BTreeMap::new(), vec![]).await
    }

    /// Attaches with its outputs, two per page, and its running attempts.
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
        let (sender, messages) = open(coordinator, first).await?;
        let mut player = Player {
            held,
            admitted: vec![],
            inputs: None,
            rows: 1,
            passes: 1,
            alter: |_| (),
            sender,
            messages,
            epoch: 0,
        };
        assert!(matches!(player.next().await, Some(Down::Welcome(_))));
        Ok(player)
    }

    pub async fn say(&self, message: Up) {
        self.sender.send(v1::WorkerMessage { message: Some(message) }).await.unwrap();
    }

    /// The next message other than beats and inputs; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Down> {
        loop {
            let message = timeout(DEADLINE, self.messages.message()).await.expect("a message in time");
            let message = message.ok().flatten()?;
            self.epoch = message.epoch;
            match message.message {
                Some(Down::Beat(_) | Down::Options(_)) => {}
                Some(Down::Inputs(inputs)) => self.inputs = Some(inputs),
                message => return message,
            }
        }
    }

    /// The next task.
    pub async fn next_task(&mut self) -> v1::TaskDispatch {
        loop {
            match self.next().await.expect("a task") {
                Down::Start(dispatch) => return dispatch,
                Down::Release(job) => self.held.retain(|key, _| key.0 != job),
                Down::Admit(admit) => self.admitted.push(admit),
                other => panic!("{other:?} instead of a task"),
            }
        }
    }

    /// Reports a result for a task: one row per reduce task.
    pub async fn finish(&mut self, dispatch: &v1::TaskDispatch) {
        use v1::task_dispatch::Work;
        use v1::task_result::Result as Done;
        let mut done = match dispatch.work.as_ref().unwrap() {
            Work::Map(work) => Done::Map(read(work)),
            Work::Reduce(_) => Done::Reduce(v1::ReduceResult {
                totals: Some(v1::Totals::new(self.rows, &[1, 0])),
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
        let attempt = dispatch.attempt.clone().unwrap();
        let result = v1::TaskResult { result: Some(done), usage: None };
        let held = v1::HeldOutput { attempt: dispatch.attempt.clone(), result: Some(result.clone()) };
        self.held.insert((attempt.job, attempt.stage, attempt.index, attempt.attempt), held);
        let outcome = Some(v1::ended::Outcome::Done(result));
        self.say(Up::Ended(v1::Ended { attempt: dispatch.attempt.clone(), outcome })).await;
    }

    /// Runs all tasks before the first reduce task, and returns that one.
    pub async fn until_reduce(&mut self) -> v1::ReduceWork {
        loop {
            let dispatch = self.next_task().await;
            self.finish(&dispatch).await;
            if let Some(v1::task_dispatch::Work::Reduce(work)) = dispatch.work {
                return work;
            }
        }
    }

    /// Runs all tasks until it receives a request to drop a job; returns the number of tasks of each stage.
    pub async fn work(&mut self) -> [usize; 3] {
        let mut done = [0; 3];
        loop {
            match self.next().await.expect("a task or a release") {
                Down::Start(dispatch) => {
                    done[dispatch.attempt.as_ref().unwrap().stage as usize] += 1;
                    self.finish(&dispatch).await;
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

    /// Closes its stream.
    pub fn leave(self) -> BTreeMap<(String, u32, u32, u32), v1::HeldOutput> {
        self.held
    }
}

/// Asserts that a request was refused with an error that contains `named`.
pub fn refused<T>(result: Result<T, Status>, code: Code, named: &str) {
    let status = result.err().expect("a refusal");
    assert!(status.code() == code && status.message().contains(named), "{status:?}");
}
