//! Coordinator and workers in one process: what `tally run` starts.
//!
//! The scheduler, the driver, the tasks and the shuffle are those of a cluster; only the way
//! orders and outputs travel is shorter.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tally_scheduler::{Config, ConfigError};
use tally_worker::runner::{Peers, StartError, Worker, WorkerConfig};
use tally_worker::scan::footer::Footers;
use tally_worker::store::{Output, Store};
use tokio::runtime::Handle as Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::driver::{self, Driver, Ended, Handle, Input};
use crate::fleet::Fleet;
use crate::job::JobSpec;

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

/// The stores of all workers in the process.
#[derive(Default)]
struct Stores(OnceLock<HashMap<WorkerId, Arc<Store>>>);

impl Peers for Stores {
    fn output(&self, worker: &WorkerId, attempt: &AttemptId) -> Option<Output> {
        self.0.get()?.get(worker)?.get(attempt)
    }
}

struct Local {
    workers: Arc<HashMap<WorkerId, Worker>>,
}

impl Fleet for Local {
    fn start(&mut self, worker: &WorkerId, order: v1::TaskOrder) -> Result<(), String> {
        let found = self.workers.get(worker).ok_or_else(|| format!("there is no worker {worker}"))?;
        match found.run(order) {
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
        self.workers.values().for_each(|worker| worker.release(job));
    }
}

/// What all workers have read so far, for progress.
#[derive(Clone)]
pub struct Progress {
    workers: Arc<HashMap<WorkerId, Worker>>,
    handle: Handle,
}

impl Progress {
    /// How far the job is.
    pub fn view(&self) -> driver::JobView {
        self.handle.view()
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
    driver: JoinHandle<()>,
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
    let stores = Arc::new(Stores::default());
    let mut workers = HashMap::new();
    let mut slots = vec![];
    for index in 0..count {
        let id = WorkerId::parse(&format!("{}-w{index}", job.id))?;
        let share = resources.threads / count + usize::from(index < resources.threads % count);
        slots.push((id.clone(), share as u32));
        let config = WorkerConfig {
            id: id.clone(),
            slots: share,
            memory_limit: (resources.memory_limit - footer_bytes) / count as u64,
            spill_dir: resources.spill_dir.clone(),
        };
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
    // Set once: this is the only place that does.
    let _ = stores.0.set(known);
    let workers = Arc::new(workers);
    let config = Config { worker_timeout: None, speculation: None, ..Config::default() };
    let fleet = Box::new(Local { workers: workers.clone() });
    let driver = Driver::new(config, fleet, footers, resources.threads, &handle, inbox)?;
    watch(Progress { workers: workers.clone(), handle: handle.clone() });
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
) -> (Ended, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(driver.run(async move {
        let _ = stopped.await;
    }));
    let sender = handle.sender();
    for (worker, slots) in slots {
        let _ = sender.send(Input::Joined(worker, slots)).await;
    }
    let (reply, mut answer) = oneshot::channel();
    let id = job.id.clone();
    let _ = sender.send(Input::Submit(Box::new(job), reply)).await;
    let ended = tokio::select! {
        ended = &mut answer => ended,
        () = interrupted => {
            let _ = sender.send(Input::Cancel(id)).await;
            answer.await
        }
    };
    let _ = stop.send(());
    (ended.unwrap_or_else(|_| Ended::Failed("the coordinator ended before the job".into())), running)
}
