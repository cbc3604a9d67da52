//! A fake coordinator whose responses the test sets, and the `tally` command as its client.
//!
//! Not here: any real coordinator.

use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, stream};
use tally_proto::v1::jobs_server::{Jobs, JobsServer};
use tally_proto::v1::{self, JobState, JobStatus};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

pub const DEADLINE: Duration = Duration::from_secs(60);
pub const JOB: &str = "20170227-1-1-0";

/// The responses and the received requests of the fake coordinator.
#[derive(Default)]
pub struct State {
    /// Refuse all requests: the code, the message, and the leader's address.
    pub refuse: Option<(Code, String, Option<String>)>,
    pub jobs: Vec<JobStatus>,
    pub workers: Vec<v1::WorkerStatus>,
    pub events: Vec<v1::JobEvent>,
    /// Know no job. Counts the requests for one.
    pub knows_none: Option<usize>,
    /// Answer submissions with "is already running".
    pub existing: bool,
    /// Answer all list requests with the first page.
    pub endless: bool,
    pub submitted: Vec<v1::JobSpec>,
    pub cancelled: Vec<String>,
    pub drained: Vec<String>,
    pub watched: usize,
}

#[derive(Clone)]
struct Service {
    state: Arc<Mutex<State>>,
    job: watch::Sender<JobStatus>,
}

/// A fake coordinator on its own port, until it is dropped or stopped.
pub struct Fake {
    runtime: Option<Runtime>,
    pub address: String,
    service: Service,
}

pub fn status(state: JobState, phase: &str) -> JobStatus {
    let stage = v1::StageStatus {
        name: "map".into(),
        tasks: 4,
        done: 1,
        running: 2,
        pending: 1,
        ..Default::default()
    };
    JobStatus {
        job: JOB.into(),
        state: state.into(),
        phase: phase.into(),
        stages: vec![stage],
        submitted_at: 1_488_153_600_000,
        ..Default::default()
    }
}

impl Fake {
    /// A leader with one running job.
    pub fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service =
            Service { state: Arc::default(), job: watch::Sender::new(status(JobState::Running, "map")) };
        let server = Server::builder().add_service(JobsServer::new(service.clone()));
        runtime.spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Fake { runtime: Some(runtime), address, service }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.service.state.lock().unwrap()
    }

    /// Sets the job's next status.
    pub fn set(&self, status: JobStatus) {
        self.service.job.send_replace(status);
    }

    /// Refuses all requests like a standby.
    pub fn stand_by(&self, leader: Option<&str>) {
        let refusal = (Code::FailedPrecondition, "stands by".into(), leader.map(str::to_string));
        self.state().refuse = Some(refusal);
    }

    /// Ends like a killed process.
    pub fn kill(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Service {
    fn hear<T>(&self, request: Request<T>) -> Result<(T, MutexGuard<'_, State>), Status> {
        let state = self.state.lock().unwrap();
        if let Some((code, sentence, leader)) = &state.refuse {
            let mut status = Status::new(*code, sentence.clone());
            if let Some(leader) = leader {
                status.metadata_mut().insert("tally-leader", leader.parse().unwrap());
            }
            return Err(status);
        }
        Ok((request.into_inner(), state))
    }

    fn find(&self, job: &str) -> Result<JobStatus, Status> {
        let status = self.job.borrow().clone();
        if job == status.job { Ok(status) } else { Err(Status::not_found(format!("there is no job {job}"))) }
    }
}

fn page<T: Clone>(all: &[T], request: &v1::ListRequest, endless: bool) -> (Vec<T>, String) {
    let from = if endless { 0 } else { request.page_token.parse().unwrap_or(0) };
    let to = (from + request.page_size as usize).min(all.len());
    let next = if endless || to < all.len() { to.to_string() } else { String::new() };
    (all[from..to].to_vec(), next)
}

#[tonic::async_trait]
impl Jobs for Service {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitReply>, Status> {
        let (request, mut state) = self.hear(request)?;
        state.submitted.push(request.spec.unwrap());
        Ok(Response::new(v1::SubmitReply { job: JOB.into(), existing: state.existing }))
    }

    async fn get(&self, request: Request<v1::JobRequest>) -> Result<Response<JobStatus>, Status> {
        let (request, _state) = self.hear(request)?;
        self.find(&request.job).map(Response::new)
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<v1::EventPage>, Status> {
        let (request, state) = self.hear(request)?;
        let status = self.find(&request.job)?;
        let events = state.events.iter().filter(|event| event.number > request.after).cloned().collect();
        let over = tally_coordinator::client::is_over(status.state());
        Ok(Response::new(v1::EventPage { job: status.job, events, left_out: 3, over }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<JobStatus, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::JobRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (request, mut state) = self.hear(request)?;
        if let Some(asked) = &mut state.knows_none {
            *asked += 1;
            return Err(Status::not_found(format!("there is no job {}", request.job)));
        }
        self.find(&request.job)?;
        state.watched += 1;
        let mut job = self.job.subscribe();
        job.mark_changed();
        let stream = stream::unfold(job, |mut job| async move {
            job.changed().await.ok()?;
            let status = job.borrow_and_update().clone();
            Some((Ok(status), job))
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::JobPage>, Status> {
        let (request, state) = self.hear(request)?;
        let (jobs, next_page_token) = page(&state.jobs, &request, state.endless);
        Ok(Response::new(v1::JobPage { jobs, next_page_token }))
    }

    async fn cancel(&self, request: Request<v1::JobRequest>) -> Result<Response<JobStatus>, Status> {
        let (request, mut state) = self.hear(request)?;
        let status = self.find(&request.job)?;
        state.cancelled.push(request.job);
        if status.state() == JobState::Running {
            self.job.send_modify(|job| job.state = JobState::Cancelled.into());
            return Ok(Response::new(JobStatus { cancelling: true, ..status }));
        }
        Ok(Response::new(status))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::WorkerPage>, Status> {
        let (request, state) = self.hear(request)?;
        let (workers, next_page_token) = page(&state.workers, &request, state.endless);
        Ok(Response::new(v1::WorkerPage { workers, next_page_token }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::WorkerRequest>,
    ) -> Result<Response<v1::WorkerStatus>, Status> {
        let (request, mut state) = self.hear(request)?;
        let found = state.workers.iter().find(|worker| worker.worker == request.worker).cloned();
        let mut worker =
            found.ok_or_else(|| Status::not_found(format!("there is no worker {}", request.worker)))?;
        worker.state = "draining".into();
        state.drained.push(request.worker);
        Ok(Response::new(worker))
    }
}

/// Waits until `there` returns true.
pub fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !there() {
        assert!(Instant::now() < until, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The result of a run of `tally`.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Checks the exit code; prints all output if it differs.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The answer, without the version of its schema.
    pub fn json(&self) -> serde_json::Value {
        let mut answer: serde_json::Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout));
        let version = answer.as_object_mut().and_then(|answer| answer.remove("schema_version"));
        assert_eq!(version, Some(1.into()), "{}", self.stdout);
        answer
    }
}

/// `tally` with these arguments, without environment variables that change its defaults.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["TALLY_COORDINATOR", "TALLY_CONSUL", "CONSUL_HTTP_TOKEN", "TALLY_LOG", "date", "bucket"] {
        command.env_remove(name);
    }
    command
}

/// Waits for the end; kills a hung process.
pub fn outcome(mut child: Child) -> Outcome {
    let pid = rustix::process::Pid::from_child(&child);
    let (done, over) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if over.recv_timeout(DEADLINE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || std::io::read_to_string(pipe.unwrap()).unwrap())
    };
    let stdout = read(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = read(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let status = child.wait().unwrap();
    drop(done);
    guard.join().unwrap();
    let code = status.code().unwrap_or_else(|| panic!("ended by {status}"));
    Outcome { code, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Runs `tally` to its end.
pub fn tally(args: &[&str]) -> Outcome {
    outcome(command(args).spawn().unwrap())
}

/// Sends SIGINT.
pub fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}
