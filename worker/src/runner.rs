//! A worker's slots: threads that run task orders and report how they ended.
//!
//! CPU work runs on these threads and never on the runtime that answers requests and fetches
//! bytes. A panic ends its task, not its thread. Not here: where orders come from and where
//! reports go (in process or gRPC).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::SystemTime;

use parking_lot::Mutex;
use tally_proto::convert::{BadMessage, required};
use tally_proto::{AttemptId, Failure, JobId, WorkerId, v1};
use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::context::{TaskContext, Texts};
use crate::error::TaskError;
use crate::order::Order;
use crate::peers::{Peers, Reading};
use crate::scan::ScanCounters;
use crate::scan::footer::Footers;
use crate::spill::{SpillDir, SpillError};
use crate::store::Store;
use crate::{map, memory, reduce, traces, write};

/// What a worker is given to work with.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Its id, unique among all that ever were.
    pub id: WorkerId,
    /// Tasks at a time, each on a thread of its own.
    pub slots: usize,
    /// Bytes of memory for everything large; see [`WorkerConfig::least_memory`].
    pub memory_limit: u64,
    /// Where outputs go that memory has no room for.
    pub spill_dir: PathBuf,
    /// Bytes that may lie there at a time.
    pub spill_limit: u64,
}

impl WorkerConfig {
    /// The least `memory_limit` that so many slots can work with, in bytes.
    pub fn least_memory(slots: usize) -> u64 {
        (slots as u64).max(1) * (96 << 20)
    }
}

/// How the limit is shared out, in bytes: a quarter to the tables of maps, as much to those of
/// reduces (never both at once in one slot), half of all to outputs in memory, and the rest to
/// pages, dictionaries and encoders.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// Tables of one map task.
    pub map_table: usize,
    /// Tables of one reduce task.
    pub reduce: usize,
    /// Outputs kept in memory, of all tasks.
    pub store: u64,
    /// Everything else that is large: pages, dictionaries. Tables never wait for it.
    pub rest: u64,
    /// What is fetched at a time of one column chunk.
    pub window: u64,
    /// Row groups of an object store up to this size are fetched whole, and as much ahead of them.
    pub whole: u64,
}

impl Shares {
    /// The shares of a worker.
    pub fn new(memory_limit: u64, slots: usize) -> Self {
        let slots = (slots as u64).max(1);
        Shares {
            map_table: (memory_limit / 4 / slots) as usize,
            reduce: (memory_limit / 4 / slots) as usize,
            store: memory_limit / 2,
            rest: memory_limit / 4,
            window: (memory_limit / slots / 512).clamp(64 << 10, 1 << 20),
            // With what is ahead half of `rest`, so that pages find room.
            whole: memory_limit / 24 / slots,
        }
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Report {
    /// Who ran it.
    pub worker: WorkerId,
    /// Which it was.
    pub attempt: AttemptId,
    /// What came of it.
    pub outcome: Result<v1::TaskResult, Failure>,
}

/// What the ends of attempts are called in metrics.
pub const OUTCOMES: [&str; 6] = ["done", "cancelled", "fetch_lost", "retryable", "refused", "fatal"];

/// What the end of an attempt is called there.
pub fn outcome_name<T>(outcome: &Result<T, Failure>) -> &'static str {
    let [done, cancelled, fetch_lost, retryable, refused, fatal] = OUTCOMES;
    match outcome {
        Ok(_) => done,
        Err(Failure::Cancelled) => cancelled,
        Err(Failure::FetchLost { .. }) => fetch_lost,
        Err(Failure::Retryable { .. }) => retryable,
        Err(Failure::Refused { .. }) => refused,
        Err(Failure::Fatal { .. }) => fatal,
    }
}

/// Called on a slot's thread with each report, in the order tasks end.
pub type ReportSink = dyn Fn(Report) + Send + Sync;

/// A worker: its store, and the threads of its slots.
pub struct Worker {
    shared: Arc<Shared>,
    orders: Option<mpsc::SyncSender<Order>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// A worker's figures, for those who look from outside. Keeps what it holds alive, but no thread.
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

    /// Attempts that were ordered and are not reported yet.
    pub fn running(&self) -> usize {
        self.0.running.lock().len()
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

struct Shared {
    config: WorkerConfig,
    shares: Shares,
    budget: Budget,
    store: Arc<Store>,
    footers: Arc<Footers>,
    counters: Arc<ScanCounters>,
    peers: Arc<dyn Peers>,
    io: Handle,
    running: Mutex<HashMap<AttemptId, Arc<AtomicBool>>>,
    texts: Arc<Texts>,
    report: Box<ReportSink>,
}

impl Shared {
    fn memory_used(&self) -> u64 {
        self.store.budget().used() + self.budget.used()
    }
}

/// A worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The spill directory.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// Too little memory.
    #[error("a memory limit of {given} bytes is too little for {slots} slots: they need {least} bytes")]
    Memory {
        /// The limit given.
        given: u64,
        /// Slots asked for.
        slots: usize,
        /// The least that would do.
        least: u64,
    },
    /// The system gave no thread.
    #[error("a worker thread cannot be started: {0}")]
    Thread(std::io::Error),
}

impl Worker {
    /// Starts a worker; `report` is called with every attempt's end.
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
        let least = WorkerConfig::least_memory(config.slots);
        if config.memory_limit < least {
            return Err(StartError::Memory { given: config.memory_limit, slots: config.slots, least });
        }
        let shares = Shares::new(config.memory_limit, config.slots);
        let spill = SpillDir::create(&config.spill_dir, config.id.as_str(), config.spill_limit)?;
        let slots = config.slots.max(1);
        let shared = Arc::new(Shared {
            shares,
            budget: Budget::new(shares.rest),
            store: Arc::new(Store::new(Budget::new(shares.store), spill)),
            footers,
            counters: Arc::default(),
            peers,
            io,
            running: Mutex::default(),
            texts: Arc::default(),
            report,
            config,
        });
        // Room for what runs and as many more: all may come before a thread has taken one.
        let (orders, inbox) = mpsc::sync_channel(2 * slots);
        let inbox = Arc::new(Mutex::new(inbox));
        let mut threads = vec![];
        for slot in 0..slots {
            let (shared, inbox) = (shared.clone(), inbox.clone());
            let thread = std::thread::Builder::new().name(format!("slot-{slot}"));
            threads.push(thread.spawn(move || work(&shared, &inbox)).map_err(StartError::Thread)?);
        }
        Ok(Worker { shared, orders: Some(orders), threads })
    }

    /// This worker's id.
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

    /// Runs an order as soon as a slot is free.
    ///
    /// # Errors
    /// [`BadMessage`] where the order names no attempt; `Ok(false)` where more orders wait than
    /// twice the slots: the sender lost count.
    pub fn run(&self, order: Order) -> Result<bool, BadMessage> {
        let attempt = AttemptId::try_from(required(order.head.attempt.as_ref(), "attempt")?)?;
        self.shared.store.admit(&attempt.task.job, &order.head.key);
        self.shared.running.lock().insert(attempt.clone(), Arc::default());
        let sent = self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok());
        if !sent {
            self.shared.running.lock().remove(&attempt);
        }
        Ok(sent)
    }

    /// Attempts that were ordered and are not reported yet.
    pub fn running(&self) -> Vec<AttemptId> {
        self.shared.running.lock().keys().cloned().collect()
    }

    /// Whether an attempt was ordered and is not reported yet.
    pub fn is_running(&self, attempt: &AttemptId) -> bool {
        self.shared.running.lock().contains_key(attempt)
    }

    /// Bytes of the memory limit that are in use by what is counted one by one: outputs, pages,
    /// dictionaries. (Tables are not.)
    pub fn memory_used(&self) -> u64 {
        self.shared.memory_used()
    }

    /// Its figures.
    pub fn gauges(&self) -> Gauges {
        Gauges(self.shared.clone())
    }

    /// How the memory limit is shared out.
    pub fn shares(&self) -> Shares {
        self.shared.shares
    }

    /// Tells an attempt to stop; it still reports, unless it ended already.
    pub fn stop(&self, attempt: &AttemptId) {
        if let Some(cancelled) = self.shared.running.lock().get(attempt) {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Drops a job's map outputs and gives their memory back to the system, which takes a while. To be called where all
    /// reduce tasks are done and no reduce output can be lost with another process.
    pub fn release_maps(&self, job: &JobId) {
        self.shared.store.release_maps(job);
        memory::give_back_freed_memory();
    }

    /// Drops all that is kept of a job.
    pub fn release(&self, job: &JobId) {
        self.shared.store.release(job);
        self.shared.texts.lock().remove(job);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders = None;
        for cancelled in self.shared.running.lock().values() {
            cancelled.store(true, Ordering::Relaxed);
        }
        for thread in self.threads.drain(..) {
            // A slot's thread catches its tasks' panics; it has nothing to tell.
            let _ = thread.join();
        }
    }
}

fn work(shared: &Arc<Shared>, inbox: &Mutex<mpsc::Receiver<Order>>) {
    let mut scratch = map::Scratch::default();
    loop {
        let order = inbox.lock().recv();
        let Ok(order) = order else { return };
        let Some(Ok(attempt)) = order.head.attempt.as_ref().map(AttemptId::try_from) else { continue };
        // At the highest level, so that lines of every level have it.
        let task = &attempt.task;
        let _span = tracing::error_span!("attempt", job = %task.job, stage = task.stage.0, task = task.index, attempt = attempt.attempt)
            .entered();
        let cancelled = shared.running.lock().get(&attempt).cloned().unwrap_or_default();
        let reading = Reading {
            job: attempt.task.job.clone(),
            key: order.head.key.clone().into(),
            budget: shared.budget.clone(),
            cancelled,
            io: shared.io.clone(),
        };
        let context = TaskContext {
            worker: shared.config.id.clone(),
            peers: shared.peers.clone(),
            reading,
            texts: shared.texts.clone(),
            shares: shared.shares,
            budget: shared.budget.clone(),
            store: shared.store.clone(),
            footers: shared.footers.clone(),
            counters: shared.counters.clone(),
            io: shared.io.clone(),
        };
        if !matches!(order.head.work, Some(v1::task_order::Work::Map(_))) {
            scratch = map::Scratch::default();
        }
        tracing::debug!("an attempt begins");
        let began = SystemTime::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| execute(&context, &attempt, &order, &mut scratch)));
        let outcome = match outcome {
            Ok(outcome) => outcome.map_err(Failure::from),
            Err(panic) => Err(Failure::Retryable { reason: format!("the task panicked: {}", text(&*panic)) }),
        };
        drop(context);
        tracing::debug!(outcome = outcome_name(&outcome), "an attempt is over");
        traces::attempt(&shared.config.id, &attempt, stage_name(&order), began, &outcome);
        // In this order nobody ever finds an attempt that neither runs nor is reported.
        (shared.report)(Report { worker: shared.config.id.clone(), attempt: attempt.clone(), outcome });
        let others = {
            let mut running = shared.running.lock();
            running.remove(&attempt);
            running.len()
        };
        // The end of a reduce is in sight, and this slot has no part in it. The memory of the tables is not needed
        // again soon, and is given back while others still work. (The last one takes what comes next.)
        let reduced = matches!(order.head.work, Some(v1::task_order::Work::Reduce(_)));
        if reduced && (1..shared.config.slots).contains(&others) {
            memory::give_back_freed_memory();
        }
    }
}

/// What the stage of an order is called.
fn stage_name(order: &Order) -> &'static str {
    match order.head.work {
        Some(v1::task_order::Work::Map(_)) => "map",
        Some(v1::task_order::Work::Reduce(_)) => "reduce",
        Some(v1::task_order::Work::Write(_)) => "write",
        None => "unknown",
    }
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

fn execute(
    context: &TaskContext,
    attempt: &AttemptId,
    order: &Order,
    scratch: &mut map::Scratch,
) -> Result<v1::TaskResult, TaskError> {
    use v1::task_order::Work;
    use v1::task_result::Result as Done;
    let dataset = tally_dataset::dataset(&order.head.dataset);
    let dataset =
        dataset.ok_or_else(|| TaskError::Order(format!("there is no dataset {:?}", order.head.dataset)))?;
    context.check_cancelled()?;
    let (result, output) = match required(order.head.work.as_ref(), "work")? {
        Work::Map(work) => {
            let (result, output) = map::run(context, &*dataset, work, scratch)?;
            (Done::Map(result), Some(output))
        }
        Work::Reduce(work) => {
            let inputs = required(order.inputs.as_deref(), "inputs")?;
            let (result, output) = reduce::run(context, attempt, &*dataset, work, inputs)?;
            (Done::Reduce(result), Some(output))
        }
        Work::Write(work) => (Done::Write(write::run(context, attempt, &*dataset, work)?), None),
    };
    let result = v1::TaskResult { result: Some(result) };
    if let Some(output) = output {
        // Where the job was released meanwhile, nobody reads the output and nobody minds.
        context.store.put(attempt.clone(), output, result.clone());
    }
    Ok(result)
}
