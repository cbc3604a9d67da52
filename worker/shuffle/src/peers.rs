//! How a task reads outputs of finished tasks, wherever they are stored: the traits, and the implementation within a
//! process, which copies nothing.
//!
//! The other implementation is `flight::remote`. Both give the same rows in the same order. Not here: the order in
//! which a reduce task merges (`reduce`), the location of outputs (the task message).

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use arrow_array::RecordBatch;
use bytes::Bytes;
use tally_common::budget::Budget;
use tally_dataset::Size;
use tally_proto::{AttemptId, JobId, WorkerId};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::error::TaskError;
use crate::store::{FileOutput, MapOutput, Output, Run, Store, StoreError};
use crate::string_dictionary::{TaskDictionary, Translation};

/// The location of outputs: a worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutputLocation {
    /// The worker.
    pub worker: WorkerId,
    /// The address of its Flight service, `host:port`; empty within a process.
    pub address: String,
}

impl OutputLocation {
    /// The failure that makes the scheduler run the task of `output` again.
    pub fn lost(&self, output: &AttemptId, reason: impl Into<String>) -> TaskError {
        TaskError::Lost { worker: self.worker.clone(), task: output.task.clone(), reason: reason.into() }
    }
}

/// The context that the reading task gives to a reader.
#[derive(Debug, Clone)]
pub struct ReadContext {
    /// The job whose outputs are read.
    pub job: JobId,
    /// The job's key, which another worker checks.
    pub key: Bytes,
    /// Reserves memory for data that is fetched ahead.
    pub budget: Budget,
    /// Cancelled when the task must stop. Readers watch it while they wait.
    pub cancelled: CancellationToken,
    /// The runtime for I/O.
    pub io: Handle,
    /// Bytes that the task received from other workers.
    pub received: Arc<AtomicU64>,
}

impl ReadContext {
    /// # Errors
    /// [`TaskError::Cancelled`] after the task was cancelled.
    #[inline]
    pub fn check_cancelled(&self) -> Result<(), TaskError> {
        if self.cancelled.is_cancelled() { Err(TaskError::Cancelled) } else { Ok(()) }
    }
}

/// A map output to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The attempt that made it.
    pub attempt: AttemptId,
    /// The input table that it belongs to. Outputs of one table have the same schema.
    pub table: usize,
}

/// The holder's description of a run's rows in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedRun {
    /// Rows.
    pub rows: u64,
    /// Items of nested lists.
    pub items: u64,
    /// The checksums of its rows and of its dictionary; `None` from workers of earlier releases.
    pub checksums: Option<(u64, u64)>,
}

/// Access to the outputs of other workers.
pub trait Peers: Send + Sync {
    /// Opens one partition of map outputs at `at`, which are read in the order of `outputs`.
    ///
    /// # Errors
    /// [`TaskError::Lost`] if an output is not available. The error may also occur later.
    fn maps(
        &self,
        at: &OutputLocation,
        outputs: Vec<Wanted>,
        partition: u32,
        reading: &ReadContext,
    ) -> Result<Box<dyn MapReader>, TaskError>;

    /// Opens a reduce output at `at`.
    ///
    /// # Errors
    /// [`TaskError::Lost`] if it is not available.
    fn file(
        &self,
        at: &OutputLocation,
        output: &AttemptId,
        reading: &ReadContext,
    ) -> Result<Arc<dyn FileReader>, TaskError>;
}

/// Receives the batches of a run.
pub type TakeBatch<'a> = dyn FnMut(&RecordBatch) -> Result<(), TaskError> + 'a;

/// One partition of the map outputs of one holder. Outputs are identified by their index in the list that the reader
/// was opened with.
pub trait MapReader: Send {
    /// The sizes and checksums of each output's runs in the partition.
    ///
    /// # Errors
    /// [`TaskError::Lost`] for the first output that is not available.
    fn sizes(&mut self) -> Result<&[Vec<ListedRun>], TaskError>;

    /// The failure that makes the scheduler run the task of an output again, because its data is wrong.
    fn lost(&self, output: usize, reason: String) -> TaskError;

    /// Goes back to the first output.
    fn rewind(&mut self);

    /// The translation of a run's codes to codes of the job.
    ///
    /// # Errors
    /// [`TaskError::Lost`], or an error of [`TaskDictionary`].
    fn codes(
        &mut self,
        output: usize,
        run: usize,
        strings: &TaskDictionary,
    ) -> Result<Arc<Translation>, TaskError>;

    /// Passes the rows of a run to `take`, in order, in one or more batches. Runs are read in order, each once per
    /// [`MapReader::rewind`]. Runs without rows are omitted.
    ///
    /// # Errors
    /// [`TaskError::Lost`], or the error of `take`.
    fn read(&mut self, output: usize, run: usize, take: &mut TakeBatch<'_>) -> Result<(), TaskError>;
}

/// A reduce output.
pub trait FileReader: Send + Sync {
    /// Its size in bytes.
    fn len(&self) -> u64;

    /// Whether it is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads exactly `length` bytes from offset `at`.
    ///
    /// # Errors
    /// [`TaskError::Lost`], or an error of the disk.
    fn exact(&self, at: u64, length: usize) -> Result<Bytes, TaskError>;

    /// Some bytes from offset `at`, none only at the end. For sequential reading: a remote reader fetches the next
    /// bytes ahead.
    ///
    /// # Errors
    /// As for [`FileReader::exact`].
    fn next(&self, at: u64) -> Result<Bytes, TaskError>;
}

/// One partition of map outputs in a store of this process.
struct LocalMaps {
    at: OutputLocation,
    outputs: Vec<(AttemptId, Arc<MapOutput>)>,
    partition: u32,
    sizes: Vec<Vec<ListedRun>>,
}

/// Opens one partition of map outputs of a store of this process.
///
/// # Errors
/// [`TaskError::Lost`] if one does not exist.
pub fn local_maps(
    store: &Store,
    at: &OutputLocation,
    outputs: Vec<Wanted>,
    partition: u32,
) -> Result<Box<dyn MapReader>, TaskError> {
    let listed = |run: &Run| {
        let Size { rows, items } = run.size(partition);
        ListedRun { rows, items, checksums: run.checksums(partition) }
    };
    let mut found = Vec::with_capacity(outputs.len());
    let mut sizes = Vec::with_capacity(outputs.len());
    for Wanted { attempt, .. } in outputs {
        match store.get(&attempt) {
            Some(Output::Map(output)) => {
                sizes.push(output.runs.iter().map(listed).collect());
                found.push((attempt, output));
            }
            Some(Output::File(_)) => {
                return Err(TaskError::InvalidTask(format!("{attempt} is not of a map task")));
            }
            None => return Err(at.lost(&attempt, "the worker does not have it")),
        }
    }
    Ok(Box::new(LocalMaps { at: at.clone(), outputs: found, partition, sizes }))
}

impl LocalMaps {
    /// The error of an output that the local disk does not return. It is made again, like one of another worker.
    fn unreadable(&self, output: usize) -> impl Fn(StoreError) -> TaskError {
        move |error| self.lost(output, error.to_string())
    }
}

impl MapReader for LocalMaps {
    fn sizes(&mut self) -> Result<&[Vec<ListedRun>], TaskError> {
        Ok(&self.sizes)
    }

    fn lost(&self, output: usize, reason: String) -> TaskError {
        self.at.lost(&self.outputs[output].0, reason)
    }

    fn rewind(&mut self) {}

    fn codes(
        &mut self,
        output: usize,
        run: usize,
        strings: &TaskDictionary,
    ) -> Result<Arc<Translation>, TaskError> {
        let (attempt, found) = &self.outputs[output];
        let dictionary = || found.runs[run].dictionary().map_err(self.unreadable(output));
        let codes = strings.translation(&(attempt.clone(), run), dictionary)?;
        strings.account()?;
        Ok(codes)
    }

    fn read(&mut self, output: usize, run: usize, take: &mut TakeBatch<'_>) -> Result<(), TaskError> {
        let run = &self.outputs[output].1.runs[run];
        for piece in 0..run.pieces(self.partition) {
            take(&run.piece(self.partition, piece).map_err(self.unreadable(output))?)?;
        }
        Ok(())
    }
}

/// Bytes per read of a file on disk.
const WINDOW: usize = 1 << 20;

/// A reduce output in a store of this process.
struct LocalFile {
    at: OutputLocation,
    attempt: AttemptId,
    output: Arc<FileOutput>,
}

impl FileReader for LocalFile {
    fn len(&self) -> u64 {
        self.output.len()
    }

    fn exact(&self, at: u64, length: usize) -> Result<Bytes, TaskError> {
        self.output.read(at, length).map_err(|error| self.at.lost(&self.attempt, error.to_string()))
    }

    fn next(&self, at: u64) -> Result<Bytes, TaskError> {
        let left = usize::try_from(self.output.len().saturating_sub(at)).unwrap_or(usize::MAX);
        self.exact(at, left.min(WINDOW))
    }
}

/// Opens a reduce output of a store of this process.
///
/// # Errors
/// [`TaskError::Lost`] if it does not exist.
pub fn local_file(
    store: &Store,
    at: &OutputLocation,
    output: &AttemptId,
) -> Result<Arc<dyn FileReader>, TaskError> {
    match store.get(output) {
        Some(Output::File(file)) => {
            Ok(Arc::new(LocalFile { at: at.clone(), attempt: output.clone(), output: file }))
        }
        Some(Output::Map(_)) => Err(TaskError::InvalidTask(format!("{output} is not of a reduce task"))),
        None => Err(at.lost(output, "the worker does not have it")),
    }
}

/// The stores of all workers of a process.
#[derive(Default)]
pub struct InProcess(OnceLock<HashMap<WorkerId, Arc<Store>>>);

impl InProcess {
    /// Sets the workers. Called once, when all of them have started.
    pub fn set(&self, stores: HashMap<WorkerId, Arc<Store>>) {
        // A second call has the same workers.
        let _ = self.0.set(stores);
    }

    fn store(&self, at: &OutputLocation, output: Option<&AttemptId>) -> Result<&Arc<Store>, TaskError> {
        let store = self.0.get().and_then(|stores| stores.get(&at.worker));
        store.ok_or_else(|| match output {
            Some(output) => at.lost(output, "there is no such worker"),
            None => TaskError::InvalidTask(format!("no output of worker {} is requested", at.worker)),
        })
    }
}

impl Peers for InProcess {
    fn maps(
        &self,
        at: &OutputLocation,
        outputs: Vec<Wanted>,
        partition: u32,
        _: &ReadContext,
    ) -> Result<Box<dyn MapReader>, TaskError> {
        let store = self.store(at, outputs.first().map(|wanted| &wanted.attempt))?;
        local_maps(store, at, outputs, partition)
    }

    fn file(
        &self,
        at: &OutputLocation,
        output: &AttemptId,
        _: &ReadContext,
    ) -> Result<Arc<dyn FileReader>, TaskError> {
        local_file(self.store(at, Some(output))?, at, output)
    }
}
