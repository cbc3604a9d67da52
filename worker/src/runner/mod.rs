//! A worker's slots: threads that run task messages and report their outcomes.
//!
//! Computation runs on these threads, and never on the runtime that serves requests and fetches bytes. `slot` is what a
//! thread does. Not here: the source of task messages and the destination of reports (in process or gRPC).

mod datasets;
mod running;
mod shared;
mod slot;

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use tally_common::budget::Budget;
use tally_common::counts::counted;
use tally_common::{memory, size};
use tally_proto::convert::{BadMessage, required};
use tally_proto::dispatch::Dispatch;
use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tally_scan::ScanCounters;
use tally_scan::footer::Footers;
use tally_shuffle::peers::Peers;
use tally_shuffle::spill::{SpillDir, SpillError};
use tally_shuffle::store::Store;
use tokio::runtime::Handle;

use datasets::{JobDataset, JobDatasets};
pub(crate) use running::Progress;
use running::RunningAttempts;
pub use shared::ReportSink;
use shared::Shared;

use crate::shares::{Shares, WorkerConfig, option_for};
use crate::task::context::{StringDictionaries, reclaim};

/// A worker: its store, and the threads of its slots.
pub struct Worker {
    shared: Arc<Shared>,
    queue: Option<mpsc::SyncSender<Queued>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// A task that waits for a slot, with the dataset of its job.
type Queued = (Dispatch, Arc<JobDataset>);

/// A worker's metrics. They keep its store alive, but no thread.
#[derive(Clone)]
pub struct Gauges(Arc<Shared>);

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gauges({})", self.0.config.id)
    }
}

impl Gauges {
    /// The worker's outputs.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Attempts that were started and are not reported yet.
    pub fn running(&self) -> usize {
        self.0.running.len()
    }

    /// See [`Worker::memory_used`].
    pub fn memory_used(&self) -> u64 {
        self.0.memory_used()
    }

    /// Rows of inputs read since the start.
    pub fn rows_read(&self) -> u64 {
        self.0.counters.rows.load(Ordering::Relaxed)
    }

    /// Bytes of inputs read since the start.
    pub fn bytes_read(&self) -> u64 {
        self.0.counters.bytes.load(Ordering::Relaxed)
    }
}

/// A worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An error of the spill directory.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// The memory limit is too small.
    #[error(
        "--memory-limit {} is too little for {} of one worker: set it to {least} or more{}",
        size::text(*given), counted(*slots, "slot"),
        if *slots > 1 { ", or use fewer --slots (of tally run: --threads)" } else { "" }
    )]
    Memory {
        /// The option's value.
        given: u64,
        /// The number of slots.
        slots: usize,
        /// The minimum, formatted as an option.
        least: String,
    },
    /// A thread could not be started.
    #[error("a worker thread cannot be started: {0}")]
    Thread(std::io::Error),
}

impl Worker {
    /// Starts a worker. `report` is called at the end of every attempt.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        config: WorkerConfig,
        peers: Arc<dyn Peers>,
        footers: Arc<Footers>,
        io: Handle,
        report: Box<ReportSink>,
    ) -> Result<Self, StartError> {
        let least = WorkerConfig::min_memory(config.slots);
        if config.memory_limit < least {
            let least = option_for(least, config.memory_option, config.memory_limit);
            return Err(StartError::Memory { given: config.memory_option, slots: config.slots, least });
        }
        let shares = Shares::new(&config);
        let spill = SpillDir::create(&config.spill_dir, config.id.as_str(), config.spill_limit)?;
        let slots = config.slots.max(1);
        let dictionaries = Arc::new(StringDictionaries::default());
        let budget = Budget::part_of(config.memory_option, shares.rest);
        // The dictionaries contain the budget, so a strong reference would be a cycle.
        let kept = Arc::downgrade(&dictionaries);
        budget.on_shortage(move || kept.upgrade().iter().for_each(|dictionaries| reclaim(dictionaries)));
        let shared = Arc::new(Shared {
            shares,
            budget,
            store: Arc::new(Store::new(Budget::new(shares.store), spill)),
            footers,
            counters: Arc::default(),
            peers,
            io,
            running: RunningAttempts::default(),
            datasets: JobDatasets::default(),
            dictionaries,
            report,
            config,
        });
        // Room for the running tasks and as many more, because all may arrive before a thread takes one.
        let (queue, inbox) = mpsc::sync_channel(2 * slots);
        let inbox = Arc::new(Mutex::new(inbox));
        let mut threads = vec![];
        for slot in 0..slots {
            let (shared, inbox) = (shared.clone(), inbox.clone());
            let thread = std::thread::Builder::new().name(format!("slot-{slot}"));
            threads.push(thread.spawn(move || slot::run(&shared, &inbox)).map_err(StartError::Thread)?);
        }
        Ok(Worker { shared, queue: Some(queue), threads })
    }

    /// The id of this worker.
    pub fn id(&self) -> &WorkerId {
        &self.shared.config.id
    }

    /// Its outputs.
    pub fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    /// Its progress since it started.
    pub fn counters(&self) -> &ScanCounters {
        &self.shared.counters
    }

    /// Runs a task as soon as a slot is free.
    ///
    /// # Errors
    /// [`BadMessage`] if the message names no attempt. `Ok(false)` if more tasks wait than twice the slots, which means
    /// that the sender miscounted.
    pub fn run(&self, dispatch: Dispatch) -> Result<bool, BadMessage> {
        let attempt = AttemptId::try_from(required(dispatch.head.attempt.as_ref(), "attempt")?)?;
        self.shared.store.admit(&attempt.task.job, &dispatch.head.key);
        let dataset = self.shared.datasets.of(&attempt.task.job);
        self.shared.running.begin(attempt.clone());
        let sent = self.queue.as_ref().is_some_and(|queue| queue.try_send((dispatch, dataset)).is_ok());
        if !sent {
            self.shared.running.end(&attempt);
        }
        Ok(sent)
    }

    /// Attempts that were started and are not reported yet.
    pub fn running(&self) -> Vec<AttemptId> {
        self.shared.running.ids()
    }

    /// The same attempts with their progress and what they wait for, for a heartbeat.
    pub fn running_report(&self) -> Vec<v1::RunningAttempt> {
        self.shared.running.report()
    }

    /// Whether an attempt was started and is not reported yet.
    pub fn is_running(&self, attempt: &AttemptId) -> bool {
        self.shared.running.contains(attempt)
    }

    /// Bytes of the memory limit that are in use by outputs, pages and dictionaries. Tables are not included.
    pub fn memory_used(&self) -> u64 {
        self.shared.memory_used()
    }

    /// Its metrics.
    pub fn gauges(&self) -> Gauges {
        Gauges(self.shared.clone())
    }

    /// The division of its memory limit.
    pub fn shares(&self) -> Shares {
        self.shared.shares
    }

    /// Cancels an attempt. It still reports, unless it has ended already.
    pub fn stop(&self, attempt: &AttemptId) {
        self.shared.running.cancel(attempt);
        self.shared.budget.wake_cancelled();
    }

    /// Drops a job's map outputs and returns their memory to the system, which takes a while. Call it when all reduce
    /// tasks are done and no reduce output can be lost with another process.
    pub fn release_maps(&self, job: &JobId) {
        self.shared.store.release_maps(job);
        memory::give_back_freed_memory();
    }

    /// Drops the state of a job. Its memory and files are freed later, on another thread.
    pub fn release(&self, job: &JobId) {
        self.shared.store.release(job);
        self.shared.datasets.release(job);
        let dictionary = self.shared.dictionaries.lock().remove(job);
        self.shared.store.reclaim(dictionary);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue = None;
        self.shared.running.cancel_all();
        self.shared.budget.wake_cancelled();
        for thread in self.threads.drain(..) {
            // A slot's thread catches the panics of its tasks.
            let _ = thread.join();
        }
    }
}
