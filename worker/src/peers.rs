//! How a task reads outputs of finished tasks, wherever they lie: the traits, and their short way
//! inside one process, which copies nothing.
//!
//! The other way is `flight::client`. Both give the same rows in the same order. Not here: in which
//! order a reduce merges (`reduce`), who holds what (the order says).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use bytes::Bytes;
use tally_dataset::Size;
use tally_proto::{AttemptId, JobId, WorkerId};
use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::error::TaskError;
use crate::store::{FileOutput, MapOutput, Output, Run, Store, StoreError};
use crate::texts::{JobTexts, Translation};

/// Somebody who holds outputs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Who.
    pub worker: WorkerId,
    /// Where it serves them, `host:port`; empty in process.
    pub address: String,
}

impl Place {
    /// The failure that has the task of `output` run again.
    pub fn lost(&self, output: &AttemptId, reason: impl Into<String>) -> TaskError {
        TaskError::Lost { worker: self.worker.clone(), task: output.task.clone(), reason: reason.into() }
    }
}

/// What a reader has from the task that reads.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Whose outputs are read.
    pub job: JobId,
    /// The job's key, which a holder elsewhere asks for.
    pub key: Bytes,
    /// What is fetched ahead is reserved here.
    pub budget: Budget,
    /// Set when the task is to stop; readers look at it while they wait.
    pub cancelled: Arc<AtomicBool>,
    /// Where I/O runs.
    pub io: Handle,
}

impl Reading {
    /// # Errors
    /// [`TaskError::Cancelled`] once the task is told to stop.
    pub fn check_cancelled(&self) -> Result<(), TaskError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(TaskError::Cancelled) } else { Ok(()) }
    }
}

/// A map output that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose output.
    pub attempt: AttemptId,
    /// The input table that it is of: outputs of one table share a schema.
    pub table: usize,
}

/// What the holder of a run says of its part in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Rows.
    pub rows: u64,
    /// Items of nested lists.
    pub items: u64,
    /// The checksums of its rows and of its dictionary; `None` of workers that know none.
    pub checksums: Option<(u64, u64)>,
}

/// Where other workers' outputs are read from.
pub trait Peers: Send + Sync {
    /// One partition of map outputs that `at` holds, to be read in the order of `outputs`.
    ///
    /// # Errors
    /// [`TaskError::Lost`] where an output is not to be had; that may also show later.
    fn maps(
        &self,
        at: &Place,
        outputs: Vec<Wanted>,
        partition: u32,
        reading: &Reading,
    ) -> Result<Box<dyn MapReader>, TaskError>;

    /// A reduce output that `at` holds.
    ///
    /// # Errors
    /// [`TaskError::Lost`] where it is not to be had.
    fn file(
        &self,
        at: &Place,
        output: &AttemptId,
        reading: &Reading,
    ) -> Result<Arc<dyn FileReader>, TaskError>;
}

/// Takes the batches of a run.
pub type TakeBatch<'a> = dyn FnMut(&RecordBatch) -> Result<(), TaskError> + 'a;

/// One partition of the map outputs that one holder has. Outputs are named by their place in the
/// list that the reader was opened with.
pub trait MapReader: Send {
    /// The sizes of each output's runs in the partition, and their checksums.
    ///
    /// # Errors
    /// [`TaskError::Lost`] for the first output that is not to be had.
    fn sizes(&mut self) -> Result<&[Vec<Listed>], TaskError>;

    /// The failure that has the task of an output run again: what was read of it is not what it was.
    fn lost(&self, output: usize, reason: String) -> TaskError;

    /// Goes to the first output, again if need be.
    fn rewind(&mut self);

    /// The process-wide codes of a run's codes.
    ///
    /// # Errors
    /// [`TaskError::Lost`], or what [`JobTexts`] says.
    fn codes(&mut self, output: usize, run: usize, texts: &JobTexts) -> Result<Arc<Translation>, TaskError>;

    /// Hands the rows of a run to `take`, in order, in one batch or several. Runs are read in
    /// order, each once after a [`MapReader::rewind`]; those without rows are left out.
    ///
    /// # Errors
    /// [`TaskError::Lost`], or what `take` says.
    fn read(&mut self, output: usize, run: usize, take: &mut TakeBatch<'_>) -> Result<(), TaskError>;
}

/// A reduce output.
pub trait FileReader: Send + Sync {
    /// Its bytes in all.
    fn len(&self) -> u64;

    /// Whether it holds nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Exactly the `length` bytes from `at`.
    ///
    /// # Errors
    /// [`TaskError::Lost`], or what the disk says.
    fn exact(&self, at: u64, length: usize) -> Result<Bytes, TaskError>;

    /// Some bytes from `at`, none only at the end: for reading on and on, with what follows fetched
    /// ahead where that helps.
    ///
    /// # Errors
    /// As [`FileReader::exact`].
    fn next(&self, at: u64) -> Result<Bytes, TaskError>;
}

/// One partition of map outputs in a store of this process.
struct LocalMaps {
    at: Place,
    outputs: Vec<(AttemptId, Arc<MapOutput>)>,
    partition: u32,
    sizes: Vec<Vec<Listed>>,
}

/// Opens one partition of map outputs of a store of this process.
///
/// # Errors
/// [`TaskError::Lost`] where one is not there.
pub fn local_maps(
    store: &Store,
    at: &Place,
    outputs: Vec<Wanted>,
    partition: u32,
) -> Result<Box<dyn MapReader>, TaskError> {
    let listed = |run: &Run| {
        let Size { rows, items } = run.size(partition);
        Listed { rows, items, checksums: run.checksums(partition) }
    };
    let mut found = Vec::with_capacity(outputs.len());
    let mut sizes = Vec::with_capacity(outputs.len());
    for Wanted { attempt, .. } in outputs {
        match store.get(&attempt) {
            Some(Output::Map(output)) => {
                sizes.push(output.runs.iter().map(listed).collect());
                found.push((attempt, output));
            }
            Some(Output::File(_)) => return Err(TaskError::Order(format!("{attempt} is no map task"))),
            None => return Err(at.lost(&attempt, "it does not have it")),
        }
    }
    Ok(Box::new(LocalMaps { at: at.clone(), outputs: found, partition, sizes }))
}

impl LocalMaps {
    /// An output that its own disk does not give back: it is made again, like one of another worker.
    fn unreadable(&self, output: usize) -> impl Fn(StoreError) -> TaskError {
        move |error| self.lost(output, error.to_string())
    }
}

impl MapReader for LocalMaps {
    fn sizes(&mut self) -> Result<&[Vec<Listed>], TaskError> {
        Ok(&self.sizes)
    }

    fn lost(&self, output: usize, reason: String) -> TaskError {
        self.at.lost(&self.outputs[output].0, reason)
    }

    fn rewind(&mut self) {}

    fn codes(&mut self, output: usize, run: usize, texts: &JobTexts) -> Result<Arc<Translation>, TaskError> {
        let (attempt, found) = &self.outputs[output];
        let dictionary = || found.runs[run].dictionary().map_err(self.unreadable(output));
        texts.translation(&(attempt.clone(), run), dictionary)
    }

    fn read(&mut self, output: usize, run: usize, take: &mut TakeBatch<'_>) -> Result<(), TaskError> {
        let run = &self.outputs[output].1.runs[run];
        for piece in 0..run.pieces(self.partition) {
            take(&run.piece(self.partition, piece).map_err(self.unreadable(output))?)?;
        }
        Ok(())
    }
}

/// Bytes read at a time of a file on disk.
const WINDOW: usize = 1 << 20;

/// A reduce output in a store of this process.
struct LocalFile {
    at: Place,
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
/// [`TaskError::Lost`] where it is not there.
pub fn local_file(store: &Store, at: &Place, output: &AttemptId) -> Result<Arc<dyn FileReader>, TaskError> {
    match store.get(output) {
        Some(Output::File(file)) => {
            Ok(Arc::new(LocalFile { at: at.clone(), attempt: output.clone(), output: file }))
        }
        Some(Output::Map(_)) => Err(TaskError::Order(format!("{output} is no reduce task"))),
        None => Err(at.lost(output, "it does not have it")),
    }
}

/// The stores of all workers of a process.
#[derive(Default)]
pub struct InProcess(OnceLock<HashMap<WorkerId, Arc<Store>>>);

impl InProcess {
    /// Says who there is, once, when all workers have started.
    pub fn set(&self, stores: HashMap<WorkerId, Arc<Store>>) {
        // A second call would come from the same process and say the same.
        let _ = self.0.set(stores);
    }

    fn store(&self, at: &Place, output: Option<&AttemptId>) -> Result<&Arc<Store>, TaskError> {
        let store = self.0.get().and_then(|stores| stores.get(&at.worker));
        store.ok_or_else(|| match output {
            Some(output) => at.lost(output, "there is no such worker"),
            None => TaskError::Order(format!("nothing is wanted of worker {}", at.worker)),
        })
    }
}

impl Peers for InProcess {
    fn maps(
        &self,
        at: &Place,
        outputs: Vec<Wanted>,
        partition: u32,
        _: &Reading,
    ) -> Result<Box<dyn MapReader>, TaskError> {
        let store = self.store(at, outputs.first().map(|wanted| &wanted.attempt))?;
        local_maps(store, at, outputs, partition)
    }

    fn file(&self, at: &Place, output: &AttemptId, _: &Reading) -> Result<Arc<dyn FileReader>, TaskError> {
        local_file(self.store(at, Some(output))?, at, output)
    }
}
