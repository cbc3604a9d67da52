//! Coordinator and workers in one process, for `tally run`.
//!
//! The scheduler, the driver, the tasks and the shuffle are those of a cluster; only tasks and outputs are
//! passed within the process. Not here: what tasks do (`tally-worker`).

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tally_coordinator::dispatch::TaskDispatch;
use tally_coordinator::driver::{
    self, DriverInput, DriverParts, Ended, Handle, Intervals, Shell, ShellParts, Submit, TermEnd,
};
use tally_coordinator::fleet::{Capacity, DispatchError, Fleet};
use tally_coordinator::history::Registry;
use tally_coordinator::job::JobSpec;
use tally_coordinator::job_id::new_key;
use tally_coordinator::journal::NoopJournal;
use tally_coordinator::peak_memory::resident;
use tally_coordinator::publish::file_system;
use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tally_scan::footer::Footers;
use tally_scheduler::{Config, ConfigError};
use tally_shuffle::peers::{InProcess, Peers};
use tally_worker::runner::{StartError, Worker};
use tally_worker::shares::{Shares, WorkerConfig};
use tokio::runtime::Handle as Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Tasks that a worker has queued beside those that run. Its threads share one queue, so that no thread waits for the
/// driver between two tasks, and tasks run in the same order.
const AHEAD: u32 = 1;

/// Intervals of samples of memory and progress. No other process can lead.
const INTERVALS: Intervals =
    Intervals { sample: Duration::from_millis(20), show: Duration::from_millis(20), epoch_checks: None };

/// The resources of the process.
#[derive(Debug, Clone)]
pub struct Resources {
    /// Workers in the process.
    pub workers: usize,
    /// Threads of all workers together.
    pub threads: usize,
    /// Memory limit in bytes.
    pub memory_limit: u64,
    /// The value of the option that the limit is a share of, for messages.
    pub memory_option: u64,
    /// Folder for task outputs that do not fit into memory.
    pub spill_dir: PathBuf,
    /// How long tasks are retried when the disk is full. A user waits for this process.
    pub no_room_timeout: Duration,
}

/// The workers or the driver cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// A worker cannot start.
    #[error(transparent)]
    Worker(#[from] StartError),
    /// The scheduler's options are invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An id is invalid.
    #[error(transparent)]
    Id(#[from] tally_proto::ids::InvalidId),
}

struct Local {
    workers: Arc<HashMap<WorkerId, Worker>>,
    capacity: Capacity,
    /// Jobs whose map outputs are released.
    reduced: HashSet<JobId>,
}

impl Local {
    /// Frees the memory of map outputs while part files are written. At the end of the process, the kernel would free it
    /// on a single core, with no other work in parallel.
    fn release_maps(&self, job: &JobId) {
        let (workers, job) = (self.workers.clone(), job.clone());
        tokio::task::spawn_blocking(move || workers.values().for_each(|worker| worker.release_maps(&job)));
    }
}

impl Fleet for Local {
    fn start(
        &mut self,
        worker: &WorkerId,
        attempt: &AttemptId,
        dispatch: TaskDispatch,
    ) -> Result<(), DispatchError> {
        if matches!(dispatch.head.work, Some(v1::task_dispatch::Work::Write(_)))
            && self.reduced.insert(attempt.task.job.clone())
        {
            self.release_maps(&attempt.task.job);
        }
        let lost = || DispatchError::WorkerLost(format!("there is no worker {worker}"));
        let found = self.workers.get(worker).ok_or_else(lost)?;
        let inputs = dispatch.inputs.map(|shared| shared.list().clone());
        let options = dispatch.options.map(|shared| shared.get().clone()).unwrap_or_default();
        match found.run(tally_proto::dispatch::Dispatch { head: dispatch.head, inputs, options }) {
            Ok(true) => Ok(()),
            Ok(false) => Err(DispatchError::WorkerLost(format!("worker {worker} has no free slot"))),
            Err(error) => Err(DispatchError::WorkerLost(error.to_string())),
        }
    }

    fn address(&self, _: &WorkerId) -> String {
        String::new()
    }

    fn stop(&mut self, worker: &WorkerId, attempt: &AttemptId) {
        if let Some(worker) = self.workers.get(worker) {
            worker.stop(attempt);
        }
    }

    fn release(&mut self, job: &JobId) {
        self.reduced.remove(job);
        self.workers.values().for_each(|worker| worker.release(job));
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }
}

/// The progress of all workers.
#[derive(Clone)]
pub struct Progress {
    workers: Arc<HashMap<WorkerId, Worker>>,
    registry: Arc<Registry>,
    job: JobId,
}

impl Progress {
    /// The state of the job.
    pub fn view(&self) -> driver::JobView {
        self.registry.get(&self.job).as_ref().map(driver::JobView::from).unwrap_or_default()
    }

    /// Rows read so far.
    pub fn rows(&self) -> u64 {
        self.workers.values().map(|w| w.counters().rows.load(Ordering::Relaxed)).sum()
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.workers.values().map(|w| w.counters().bytes.load(Ordering::Relaxed)).sum()
    }
}

/// What remains after a job: the workers with their outputs, and the driver that releases them.
pub struct Remains {
    workers: Arc<HashMap<WorkerId, Worker>>,
    driver: JoinHandle<TermEnd>,
}

impl Remains {
    /// Ends the workers, waits for their tasks, and frees everything.
    pub async fn end(self) {
        // The driver's panic is in the log.
        let _ = self.driver.await;
        // Joining threads blocks, so it runs outside the runtime's threads.
        let _ = tokio::task::spawn_blocking(move || drop(self.workers)).await;
    }

    /// For a process that exits after a successful job: removes spilled files, and leaves the memory to the
    /// kernel, which frees it faster than the process could.
    pub fn leave(self) {
        self.workers.values().for_each(|worker| worker.store().remove_spilled());
        std::mem::forget(self.workers);
    }
}

/// Runs one job to its end. `watch` receives the progress; the job is cancelled when `interrupted`
/// resolves.
///
/// # Errors
/// [`SetUpError`]: the job did not start.
pub async fn run(
    job: JobSpec,
    resources: &Resources,
    watch: impl FnOnce(Progress),
    interrupted: impl Future<Output = ()>,
) -> Result<(Ended, Remains), SetUpError> {
    let footer_bytes = resources.memory_limit / 32;
    let footers = Arc::new(Footers::new(usize::try_from(footer_bytes).unwrap_or(usize::MAX)));
    let count = resources.workers.clamp(1, resources.threads.max(1));
    let (handle, inbox) = driver::inbox();
    let stores = Arc::new(InProcess::default());
    let mut workers = HashMap::new();
    let mut slots = vec![];
    let mut reduce_table_bytes = u64::MAX;
    for index in 0..count {
        let id = WorkerId::parse(&format!("{}-w{index}", job.id))?;
        let share = resources.threads / count + usize::from(index < resources.threads % count);
        slots.push((id.clone(), share as u32 + AHEAD));
        let config = WorkerConfig {
            id: id.clone(),
            slots: share,
            memory_limit: (resources.memory_limit - footer_bytes) / count as u64,
            memory_option: resources.memory_option,
            spill_dir: resources.spill_dir.clone(),
            spill_limit: u64::MAX,
        };
        let shares = Shares::new(&config);
        reduce_table_bytes = reduce_table_bytes.min(shares.reduce as u64);
        let sender = handle.sender().clone();
        let report = move |report| {
            // If the driver has ended, no one needs the report.
            let _ = sender.blocking_send(DriverInput::Report(Box::new(report)));
        };
        let peers: Arc<dyn Peers> = stores.clone();
        let worker = Worker::start(config, peers, footers.clone(), Runtime::current(), Box::new(report))?;
        workers.insert(id, worker);
    }
    let known = workers.iter().map(|(id, worker)| (id.clone(), worker.store().clone())).collect();
    stores.set(known);
    let workers = Arc::new(workers);
    let no_workers_timeout = resources.no_room_timeout;
    let config = Config { worker_timeout: None, speculation: None, no_workers_timeout, ..Config::default() };
    let threads = resources.threads;
    let capacity = Capacity { slots: threads, reduce_table_bytes, reads_footers: true, apart: false };
    let registry = Arc::new(Registry::new(1));
    let parts = DriverParts {
        config,
        fleet: Box::new(Local { workers: workers.clone(), capacity, reduced: HashSet::new() }),
        registry: registry.clone(),
        epoch: 0,
        max_jobs: 1,
        // The workers of this process are never lost.
        silence: Duration::MAX,
        grace: Duration::MAX,
        silent_after: Duration::MAX,
        intervals: INTERVALS,
        started: Instant::now(),
        resident,
    };
    let io =
        ShellParts { journal: Box::new(NoopJournal), epochs: None, footers, files: file_system::system() };
    let shell = Shell::start(parts, io, &handle, inbox)?;
    watch(Progress { workers: workers.clone(), registry, job: job.id.clone() });
    let (mut ended, driver) = drive(shell, &handle, job, slots, interrupted).await;
    if let Ended::Done(summary) = &mut ended {
        summary.spilled_bytes = workers.values().map(|worker| worker.store().spilled()).sum();
    }
    Ok((ended, Remains { workers, driver }))
}

async fn drive(
    shell: Shell,
    handle: &Handle,
    job: JobSpec,
    slots: Vec<(WorkerId, u32)>,
    interrupted: impl Future<Output = ()>,
) -> (Ended, JoinHandle<TermEnd>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(shell.run(async move {
        let _ = stopped.await;
    }));
    let sender = handle.sender();
    for (worker, slots) in slots {
        let _ = sender.send(DriverInput::Joined(worker, slots)).await;
    }
    let (reply, mut answer) = oneshot::channel();
    let (accepted, refused) = oneshot::channel();
    let id = job.id.clone();
    let submit = Submit { spec: job, key: new_key(), accepted, ended: Some(reply) };
    let _ = sender.send(DriverInput::Submit(Box::new(submit))).await;
    let refused = refused.await.ok().and_then(Result::err);
    let ended = tokio::select! {
        ended = &mut answer => ended,
        () = interrupted => {
            let _ = sender.send(DriverInput::Cancel(id, oneshot::channel().0)).await;
            answer.await
        }
    };
    let _ = stop.send(());
    let ended = ended.unwrap_or_else(|_| {
        let ended = || "the coordinator ended before the job".to_string();
        Ended::Failed(refused.map_or_else(ended, |refusal| refusal.to_string()))
    });
    (ended, running)
}
