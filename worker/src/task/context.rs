//! The context of a running task: its worker's store, budgets and counters, and access to the outputs of other tasks.
//!
//! Not here: the threads that tasks run on (`runner`), connections to other workers (`tally_shuffle::peers`).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tally_common::budget::Budget;
use tally_proto::convert::required;
use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tally_scan::footer::Footers;
use tally_scan::{ScanContext, ScanCounters};
use tally_shuffle::error::TaskError;
use tally_shuffle::peers::{self, FileReader, MapReader, OutputLocation, Peers, ReadContext, Wanted};
use tally_shuffle::store::Store;
use tally_shuffle::string_dictionary::{JobDictionary, TaskDictionary};
use tokio::runtime::Handle;

use crate::runner::Progress;
use crate::shares::Shares;

/// The string dictionaries of the jobs on a worker.
pub(crate) type StringDictionaries = Mutex<HashMap<JobId, Arc<JobDictionary>>>;

/// Drops string dictionaries that no task uses, and the cached translations of the others. Both can be made again.
pub(crate) fn reclaim(dictionaries: &StringDictionaries) {
    // Tasks get a dictionary under the lock, so an unused one cannot become used in between.
    dictionaries.lock().retain(|_, dictionaries| {
        dictionaries.forget_translations();
        Arc::strong_count(dictionaries) > 1
    });
}

/// The context of a running task.
pub struct TaskContext {
    /// The worker that runs it.
    pub(crate) worker: WorkerId,
    /// Access to other workers.
    pub(crate) peers: Arc<dyn Peers>,
    /// The context for readers of other tasks' outputs.
    pub(crate) reading: ReadContext,
    /// The worker's string dictionaries.
    pub(crate) dictionaries: Arc<StringDictionaries>,
    /// The worker's memory shares.
    pub shares: Shares,
    /// The budget for everything large.
    pub budget: Budget,
    /// The worker's outputs.
    pub store: Arc<Store>,
    /// The worker's footers.
    pub footers: Arc<Footers>,
    /// The worker's progress.
    pub counters: Arc<ScanCounters>,
    /// The progress of the attempt.
    pub(crate) progress: Arc<Progress>,
    /// The runtime for I/O.
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
            fetched: self.progress.bytes.clone(),
            rows: self.progress.rows.clone(),
        }
    }

    /// # Errors
    /// [`TaskError::Cancelled`] after the task was cancelled.
    pub fn check_cancelled(&self) -> Result<(), TaskError> {
        self.reading.check_cancelled()
    }

    /// Waits for a future, unless the task is cancelled.
    ///
    /// # Errors
    /// [`TaskError::Cancelled`].
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, TaskError> {
        self.io.block_on(async {
            tokio::select! {
                biased;
                done = work => Ok(done),
                () = self.reading.cancelled.cancelled() => Err(TaskError::Cancelled),
            }
        })
    }

    /// The string dictionary of a job.
    pub fn dictionary(&self, job: &JobId) -> TaskDictionary {
        let mut dictionaries = self.dictionaries.lock();
        // A task that outlives its job must not create a shared dictionary.
        if self.store.key(job).is_none() {
            return TaskDictionary::new(&self.budget);
        }
        let shared =
            dictionaries.entry(job.clone()).or_insert_with(|| Arc::new(JobDictionary::new(&self.budget)));
        TaskDictionary::of(shared, &self.budget)
    }

    /// One partition of the map outputs of `holder`, read in the order of `outputs`.
    ///
    /// # Errors
    /// [`TaskError::Lost`] if an output is not available.
    pub fn maps(
        &self,
        holder: &v1::Location,
        outputs: Vec<Wanted>,
        partition: u32,
    ) -> Result<Box<dyn MapReader>, TaskError> {
        let at = place(holder)?;
        if at.worker == self.worker {
            return peers::local_maps(&self.store, &at, outputs, partition);
        }
        self.peers.maps(&at, outputs, partition, &self.reading)
    }

    /// A reduce output, wherever it is stored, and its location.
    ///
    /// # Errors
    /// [`TaskError::Lost`] if it is not available.
    pub fn file(
        &self,
        holders: &[v1::Location],
        reference: &v1::OutputRef,
        output: &AttemptId,
    ) -> Result<(OutputLocation, Arc<dyn FileReader>), TaskError> {
        let at = place(required(holders.get(reference.location as usize), "holder")?)?;
        let file = match at.worker == self.worker {
            true => peers::local_file(&self.store, &at, output)?,
            false => self.peers.file(&at, output, &self.reading)?,
        };
        Ok((at, file))
    }
}

fn place(holder: &v1::Location) -> Result<OutputLocation, TaskError> {
    let worker = WorkerId::parse(&holder.worker).map_err(|e| TaskError::InvalidTask(e.to_string()))?;
    Ok(OutputLocation { worker, address: holder.address.clone() })
}
