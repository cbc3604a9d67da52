//! What a running task has at hand: its worker's store, budgets and counters, and the way to other
//! tasks' outputs, wherever they lie.
//!
//! Not here: the threads that tasks run on (`runner.rs`), how another worker is reached (`peers.rs`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tally_proto::convert::required;
use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::budget::Budget;
use crate::error::TaskError;
use crate::peers::{self, FileReader, MapReader, Peers, Place, Reading, Wanted};
use crate::runner::Shares;
use crate::scan::footer::Footers;
use crate::scan::{ScanContext, ScanCounters};
use crate::store::Store;
use crate::texts::JobTexts;

/// How often a wait looks whether the task was told to stop.
const LOOK: Duration = Duration::from_millis(100);

/// The numbering of strings of each job that a worker knows.
pub(crate) type Texts = Mutex<HashMap<JobId, Arc<JobTexts>>>;

/// What a running task has at hand.
pub struct TaskContext {
    /// The worker that runs it.
    pub(crate) worker: WorkerId,
    /// The other workers.
    pub(crate) peers: Arc<dyn Peers>,
    /// For readers of other tasks' outputs.
    pub(crate) reading: Reading,
    /// The worker's numberings.
    pub(crate) texts: Arc<Texts>,
    /// The worker's shares.
    pub shares: Shares,
    /// What everything large draws from.
    pub budget: Budget,
    /// The worker's outputs.
    pub store: Arc<Store>,
    /// The worker's footers.
    pub footers: Arc<Footers>,
    /// The worker's progress.
    pub counters: Arc<ScanCounters>,
    /// Where I/O runs.
    pub io: Handle,
}

impl TaskContext {
    /// A context for the scans of this task.
    pub fn scan(&self) -> ScanContext {
        ScanContext {
            io: self.io.clone(),
            window: self.shares.window,
            whole: self.shares.whole,
            budget: self.budget.clone(),
            cancelled: self.reading.cancelled.clone(),
            counters: self.counters.clone(),
            fetched: Arc::default(),
            rows: Arc::default(),
        }
    }

    /// # Errors
    /// [`TaskError::Cancelled`] once the task is told to stop.
    pub fn check_cancelled(&self) -> Result<(), TaskError> {
        self.reading.check_cancelled()
    }

    /// Waits for something to arrive, unless the task is told to stop.
    ///
    /// # Errors
    /// [`TaskError::Cancelled`].
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, TaskError> {
        self.io.block_on(async {
            tokio::pin!(work);
            loop {
                if let Ok(done) = timeout(LOOK, &mut work).await {
                    return Ok(done);
                }
                self.check_cancelled()?;
            }
        })
    }

    /// The strings of a job in this process.
    pub fn texts(&self, job: &JobId) -> Arc<JobTexts> {
        let mut texts = self.texts.lock();
        let new = || Arc::new(JobTexts::new(self.budget.clone()));
        // A task that outlives its job leaves nothing behind.
        match self.store.key(job) {
            Some(_) => texts.entry(job.clone()).or_insert_with(new).clone(),
            None => new(),
        }
    }

    /// One partition of the map outputs that `holder` has, read in the order of `outputs`.
    ///
    /// # Errors
    /// [`TaskError::Lost`] where one is not to be had.
    pub fn maps(
        &self,
        holder: &v1::Holder,
        outputs: Vec<Wanted>,
        partition: u32,
    ) -> Result<Box<dyn MapReader>, TaskError> {
        let at = place(holder)?;
        if at.worker == self.worker {
            return peers::local_maps(&self.store, &at, outputs, partition);
        }
        self.peers.maps(&at, outputs, partition, &self.reading)
    }

    /// A reduce output, wherever it lies, and who has it.
    ///
    /// # Errors
    /// [`TaskError::Lost`] where it is not to be had.
    pub fn file(
        &self,
        holders: &[v1::Holder],
        reference: &v1::OutputRef,
        output: &AttemptId,
    ) -> Result<(Place, Arc<dyn FileReader>), TaskError> {
        let at = place(required(holders.get(reference.holder as usize), "holder")?)?;
        let file = match at.worker == self.worker {
            true => peers::local_file(&self.store, &at, output)?,
            false => self.peers.file(&at, output, &self.reading)?,
        };
        Ok((at, file))
    }
}

fn place(holder: &v1::Holder) -> Result<Place, TaskError> {
    let worker = WorkerId::parse(&holder.worker).map_err(|e| TaskError::Order(e.to_string()))?;
    Ok(Place { worker, address: holder.address.clone() })
}
