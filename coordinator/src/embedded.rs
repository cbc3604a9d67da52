//! Coordinator and workers in one process: what `tally run` starts.
//!
//! The scheduler, the driver, the tasks and the shuffle are those of a cluster; only the way
//! orders and outputs travel is shorter.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tally_scheduler::{Config, ConfigError};
use tally_worker::peers::{InProcess, Peers};
use tally_worker::runner::{Shares, StartError, Worker, WorkerConfig};
use tally_worker::scan::footer::Footers;
use tokio::runtime::Handle as Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::driver::{self, Driver, End, Ended, Handle, Input, Parts, Submit};
use crate::fleet::{Capacity, Fleet, Order};
use crate::history::Registry;
use crate::job::JobSpec;
use crate::journal::Forgetful;

/// Orders that a worker has beyond those that run. Its threads take from one queue, so none of them waits for the driver
/// between two tasks, and the order in which tasks run stays the same.
const AHEAD: u32 = 1;

/// How often memory is looked at, and progress is brought up to date.
const SAMPLE: Duration = Duration::from_millis(20);

/// What a process is given to run jobs with.
#[derive(Debug, Clone)]
pub struct Resources {
    /// Workers in the process.
    pub workers: usize,
    /// Threads, shared out among the workers.
    pub threads: usize,
    /// Bytes of memory for everything large.
    pub memory_limit: u64,
    /// Where task outputs go that memory has no room for.
    pub spill_dir: PathBuf,
}

/// A process could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// A worker.
    #[error(transparent)]
    Worker(#[from] StartError),
    /// The scheduler.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An id.
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
    /// Gives the memory of map outputs back while a part file is written: at the end of the process the kernel would
    /// take it back on one core, with nothing beside it.
    fn release_maps(&self, job: &JobId) {
        let (workers, job) = (self.workers.clone(), job.clone());
        tokio::task::spawn_blocking(move || workers.values().for_each(|worker| worker.release_maps(&job)));
    }
}

impl Fleet for Local {
    fn start(&mut self, worker: &WorkerId, attempt: &AttemptId, order: Order) -> Result<(), String> {
        if matches!(order.head.work, Some(v1::task_order::Work::Write(_)))
            && self.reduced.insert(attempt.task.job.clone())
        {
            self.release_maps(&attempt.task.job);
        }
        let found = self.workers.get(worker).ok_or_else(|| format!("there is no worker {worker}"))?;
        let inputs = order.inputs.map(|shared| shared.list().clone());
        match found.run(tally_worker::order::Order { head: order.head, inputs }) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("worker {worker} has no free slot")),
            Err(error) => Err(error.to_string()),
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

/// What all workers have read so far, for progress.
#[derive(Clone)]
pub struct Progress {
    workers: Arc<HashMap<WorkerId, Worker>>,
    registry: Arc<Registry>,
    job: JobId,
}

impl Progress {
    /// How far the job is.
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

/// What stays of a job that ended: workers, their outputs, and the driver that lets go of them.
pub struct Remains {
    workers: Arc<HashMap<WorkerId, Worker>>,
    driver: JoinHandle<End>,
}

impl Remains {
    /// Ends the workers, waits for their tasks, and gives everything back.
    pub async fn end(self) {
        // The driver's panic is in the log.
        let _ = self.driver.await;
        // Threads are joined outside the runtime's own.
        let _ = tokio::task::spawn_blocking(move || drop(self.workers)).await;
    }

    /// For a process that is about to exit, after a job that is done: what lies on disk is removed;
    /// memory is the kernel's to take back, which it does faster than giving back each piece.
    pub fn leave(self) {
        self.workers.values().for_each(|worker| worker.store().remove_spilled());
        std::mem::forget(self.workers);
    }
}

/// Runs one job to its end; `watch` is given something to look at meanwhile, `interrupted`
/// resolves when somebody wants it to stop.
///
/// # Errors
/// [`SetUpError`]: nothing was done.
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
            spill_dir: resources.spill_dir.clone(),
            spill_limit: u64::MAX,
        };
        let shares = Shares::new(config.memory_limit, config.slots);
        reduce_table_bytes = reduce_table_bytes.min(shares.reduce as u64);
        let sender = handle.sender().clone();
        let report = move |report| {
            // The driver gone means that nobody wants to know any more.
            let _ = sender.blocking_send(Input::Report(Box::new(report)));
        };
        let peers: Arc<dyn Peers> = stores.clone();
        let worker = Worker::start(config, peers, footers.clone(), Runtime::current(), Box::new(report))?;
        workers.insert(id, worker);
    }
    let known = workers.iter().map(|(id, worker)| (id.clone(), worker.store().clone())).collect();
    stores.set(known);
    let workers = Arc::new(workers);
    let config = Config { worker_timeout: None, speculation: None, ..Config::default() };
    let capacity = Capacity { slots: resources.threads, reduce_table_bytes };
    let registry = Arc::new(Registry::new(1));
    let parts = Parts {
        config,
        fleet: Box::new(Local { workers: workers.clone(), capacity, reduced: HashSet::new() }),
        journal: Box::new(Forgetful),
        footers,
        registry: registry.clone(),
        epoch: 0,
        doubt: Arc::default(),
        most_jobs: 1,
        sample: SAMPLE,
    };
    let driver = Driver::new(parts, &handle, inbox)?;
    watch(Progress { workers: workers.clone(), registry, job: job.id.clone() });
    let (mut ended, driver) = drive(driver, &handle, job, slots, interrupted).await;
    if let Ended::Done(summary) = &mut ended {
        summary.spilled_bytes = workers.values().map(|worker| worker.store().spilled()).sum();
    }
    Ok((ended, Remains { workers, driver }))
}

async fn drive(
    driver: Driver,
    handle: &Handle,
    job: JobSpec,
    slots: Vec<(WorkerId, u32)>,
    interrupted: impl Future<Output = ()>,
) -> (Ended, JoinHandle<End>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(driver.run(async move {
        let _ = stopped.await;
    }));
    let sender = handle.sender();
    for (worker, slots) in slots {
        let _ = sender.send(Input::Joined(worker, slots)).await;
    }
    let (reply, mut answer) = oneshot::channel();
    let (accepted, refused) = oneshot::channel();
    let id = job.id.clone();
    let _ = sender.send(Input::Submit(Box::new(Submit { spec: job, accepted, ended: Some(reply) }))).await;
    let refused = refused.await.ok().and_then(Result::err);
    let ended = tokio::select! {
        ended = &mut answer => ended,
        () = interrupted => {
            let _ = sender.send(Input::Cancel(id)).await;
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
