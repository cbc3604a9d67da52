//! Task outputs, readable until their job is released: in memory while they fit, on disk after.
//!
//! A map output is a list of runs, each sorted by partition with a dictionary of its own, so that
//! a reader needs nothing but the run. A reduce output is an encoded Parquet file. Not here: who
//! needs what (the scheduler), how outputs travel (Flight).

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, BinaryArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use parking_lot::Mutex;
use tally_dataset::{MapRun, Size};
use tally_proto::{AttemptId, JobId};

use crate::budget::{Budget, Reservation};
use crate::spill::{Extent, SpillDir, SpillError, SpillFile};

/// An output could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// A batch that cannot be encoded or decoded.
    #[error("a shuffled batch: {0}")]
    Arrow(#[from] ArrowError),
}

/// The outputs of one worker.
pub struct Store {
    budget: Budget,
    spill: Arc<SpillDir>,
    outputs: Mutex<HashMap<AttemptId, Output>>,
}

/// A finished task's output.
#[derive(Clone)]
pub enum Output {
    /// Of a map task.
    Map(Arc<MapOutput>),
    /// Of a reduce task.
    File(Arc<FileOutput>),
}

/// The runs of a map task.
pub struct MapOutput {
    /// In the order they were flushed.
    pub runs: Vec<Run>,
}

/// One run, wherever it lies.
pub struct Run {
    /// Partition `p` has rows `offsets[p] .. offsets[p + 1]`.
    offsets: Vec<u32>,
    /// Likewise the items of nested lists; empty where the schema has none.
    items: Vec<u32>,
    place: RunPlace,
}

enum RunPlace {
    Memory { batch: RecordBatch, dictionary: BinaryArray, _held: Reservation },
    Disk { file: Arc<SpillFile>, partitions: Vec<Extent>, dictionary: Extent },
}

impl Run {
    /// Rows and list items in partition `partition`.
    pub fn size(&self, partition: u32) -> Size {
        let width = |offsets: &[u32]| {
            let at = partition as usize;
            offsets.get(at..at + 2).map_or(0, |o| u64::from(o[1] - o[0]))
        };
        Size { rows: width(&self.offsets), items: width(&self.items) }
    }

    /// The rows of partition `partition`.
    ///
    /// # Errors
    /// [`StoreError`]: the disk fails.
    pub fn partition(&self, partition: u32) -> Result<RecordBatch, StoreError> {
        let at = partition as usize;
        match &self.place {
            RunPlace::Memory { batch, .. } => {
                let start = self.offsets[at] as usize;
                Ok(batch.slice(start, self.offsets[at + 1] as usize - start))
            }
            RunPlace::Disk { file, partitions, .. } => decode(file.read(partitions[at])?),
        }
    }

    /// The strings behind the run's codes.
    ///
    /// # Errors
    /// [`StoreError`]: the disk fails.
    pub fn dictionary(&self) -> Result<BinaryArray, StoreError> {
        match &self.place {
            RunPlace::Memory { dictionary, .. } => Ok(dictionary.clone()),
            RunPlace::Disk { file, dictionary, .. } => {
                let batch = decode(file.read(*dictionary)?)?;
                let column = batch.column(0).as_any().downcast_ref::<BinaryArray>();
                column.cloned().ok_or_else(|| ArrowError::SchemaError("no dictionary".into()).into())
            }
        }
    }
}

fn dictionary_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("text", DataType::Binary, false)]))
}

fn encode(batch: &RecordBatch) -> Result<Vec<u8>, StoreError> {
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
    writer.write(batch)?;
    Ok(writer.into_inner()?)
}

fn decode(bytes: Vec<u8>) -> Result<RecordBatch, StoreError> {
    let mut decoder = StreamDecoder::new();
    let mut buffer = Buffer::from_vec(bytes);
    let batch = decoder.decode(&mut buffer)?;
    batch.ok_or_else(|| ArrowError::IpcError("a stream without a batch".into()).into())
}

/// Items of the list column of each partition, if there is one.
fn item_offsets(run: &MapRun) -> Vec<u32> {
    let lists = run.batch.columns().iter().find_map(|c| c.as_any().downcast_ref::<arrow::array::ListArray>());
    let Some(lists) = lists else { return vec![] };
    run.offsets.iter().map(|&row| lists.value_offsets()[row as usize] as u32).collect()
}

impl Store {
    /// A store that keeps up to `budget` in memory and the rest in `spill`.
    pub fn new(budget: Budget, spill: Arc<SpillDir>) -> Self {
        Store { budget, spill, outputs: Mutex::default() }
    }

    /// Bytes written to disk so far.
    pub fn spilled(&self) -> u64 {
        self.spill.written()
    }

    /// Removes what was spilled from the disk: for a process that is about to exit and reads no output
    /// any more.
    pub fn remove_spilled(&self) {
        self.spill.remove();
    }

    /// A writer of a map output.
    pub fn map_writer(&self) -> MapWriter<'_> {
        MapWriter { store: self, runs: vec![], file: None, pending: vec![], bytes: 0 }
    }

    /// A writer of a reduce output.
    pub fn file_writer(&self) -> FileWriter<'_> {
        FileWriter { store: self, bytes: vec![], held: vec![], file: None }
    }

    /// Makes an attempt's output readable.
    pub fn put(&self, attempt: AttemptId, output: Output) {
        self.outputs.lock().insert(attempt, output);
    }

    /// An attempt's output, if it is (still) here.
    pub fn get(&self, attempt: &AttemptId) -> Option<Output> {
        self.outputs.lock().get(attempt).cloned()
    }

    /// Drops all outputs of a job.
    pub fn release(&self, job: &JobId) {
        self.outputs.lock().retain(|attempt, _| attempt.task.job != *job);
    }
}

/// Collects a map task's runs; what it wrote goes with it unless it is finished.
pub struct MapWriter<'a> {
    store: &'a Store,
    runs: Vec<Run>,
    file: Option<SpillFile>,
    /// Runs on disk, waiting for their file to be complete.
    pending: Vec<Spilled>,
    bytes: u64,
}

struct Spilled {
    offsets: Vec<u32>,
    items: Vec<u32>,
    partitions: Vec<Extent>,
    dictionary: Extent,
}

impl MapWriter<'_> {
    /// Keeps a run.
    ///
    /// # Errors
    /// [`StoreError`]: the disk is full, or fails.
    pub fn push(&mut self, run: MapRun) -> Result<(), StoreError> {
        let items = item_offsets(&run);
        let size = run.batch.get_array_memory_size() + run.dictionary.get_array_memory_size();
        self.bytes += size as u64;
        if let Some(held) = self.store.budget.reserve(size) {
            let place = RunPlace::Memory { batch: run.batch, dictionary: run.dictionary, _held: held };
            self.runs.push(Run { offsets: run.offsets, items, place });
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.store.spill.file()?),
        };
        let mut partitions = Vec::with_capacity(run.offsets.len());
        for ends in run.offsets.windows(2) {
            let (start, rows) = (ends[0] as usize, (ends[1] - ends[0]) as usize);
            let bytes = if rows == 0 { vec![] } else { encode(&run.batch.slice(start, rows))? };
            partitions.push(file.append(&bytes)?);
        }
        let texts = RecordBatch::try_new(dictionary_schema(), vec![Arc::new(run.dictionary)])?;
        let dictionary = file.append(&encode(&texts)?)?;
        self.pending.push(Spilled { offsets: run.offsets, items, partitions, dictionary });
        Ok(())
    }

    /// The output, and the bytes of its runs.
    pub fn finish(mut self) -> (Arc<MapOutput>, u64) {
        if let Some(file) = self.file.take().map(Arc::new) {
            for Spilled { offsets, items, partitions, dictionary } in self.pending {
                let place = RunPlace::Disk { file: file.clone(), partitions, dictionary };
                self.runs.push(Run { offsets, items, place });
            }
        }
        (Arc::new(MapOutput { runs: self.runs }), self.bytes)
    }
}

/// A reduce task's encoded rows.
pub struct FileOutput {
    bytes: Bytes,
    file: Option<SpillFile>,
    _held: Vec<Reservation>,
}

impl FileOutput {
    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64 + self.file.as_ref().map_or(0, SpillFile::len)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A range of it.
    ///
    /// # Errors
    /// [`StoreError`]: the disk fails.
    pub fn read(&self, at: u64, length: usize) -> Result<Bytes, StoreError> {
        match &self.file {
            Some(file) => Ok(file.read_at(at, length)?),
            None => {
                let start = usize::try_from(at).unwrap_or(usize::MAX).min(self.bytes.len());
                Ok(self.bytes.slice(start..start.saturating_add(length).min(self.bytes.len())))
            }
        }
    }
}

/// Bytes reserved at a time as a file grows in memory.
const GROWTH: usize = 4 << 20;

/// Takes a reduce task's encoded rows: in memory as long as there is room, then all on disk.
pub struct FileWriter<'a> {
    store: &'a Store,
    bytes: Vec<u8>,
    held: Vec<Reservation>,
    file: Option<SpillFile>,
}

impl FileWriter<'_> {
    /// The output, and its bytes.
    pub fn finish(mut self) -> (Arc<FileOutput>, u64) {
        self.bytes.shrink_to_fit();
        // Room for growth is given back. Should another have taken it in between, what is held
        // here is held unreserved for a moment: less than one step of growth.
        self.held.clear();
        self.held.extend(self.store.budget.reserve(self.bytes.len()));
        let output = FileOutput { bytes: self.bytes.into(), file: self.file, _held: self.held };
        let bytes = output.len();
        (Arc::new(output), bytes)
    }
}

impl Write for FileWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.file.is_none() {
            let room = self.held.len() * GROWTH;
            if self.bytes.len() + bytes.len() > room {
                let more = (self.bytes.len() + bytes.len() - room).div_ceil(GROWTH);
                let held: Option<Vec<_>> = (0..more).map(|_| self.store.budget.reserve(GROWTH)).collect();
                match held {
                    Some(held) => {
                        self.held.extend(held);
                        self.bytes.reserve_exact(self.held.len() * GROWTH - self.bytes.len());
                    }
                    None => {
                        let mut file = self.store.spill.file().map_err(std::io::Error::other)?;
                        file.append(&std::mem::take(&mut self.bytes)).map_err(std::io::Error::other)?;
                        self.held.clear();
                        self.file = Some(file);
                    }
                }
            }
        }
        match &mut self.file {
            Some(file) => {
                file.append(bytes).map_err(std::io::Error::other)?;
            }
            None => self.bytes.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
