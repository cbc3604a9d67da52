//! Map outputs: runs in memory or in pieces on disk, and the writer that makes them.
//!
//! Not here: which outputs there are (`store`), how they travel (`flight`).

use std::panic::catch_unwind;
use std::sync::Arc;

use arrow::array::{Array, BinaryArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use tally_dataset::{MapRun, Size, checksum};

use super::{Store, StoreError, cut};
use crate::budget::Reservation;
use crate::spill::{Extent, SpillFile};

/// The runs of a map task.
pub struct MapOutput {
    /// In the order they were flushed.
    pub runs: Vec<Run>,
}

/// One run, wherever it lies.
pub struct Run {
    /// Partition `p` has rows `offsets[p] .. offsets[p + 1]`.
    pub(super) offsets: Vec<u32>,
    /// Likewise the items of nested lists; empty where the schema has none.
    pub(super) items: Vec<u32>,
    /// Strings in its dictionary.
    pub(super) texts: u32,
    pub(super) sums: Option<RunSums>,
    pub(super) schema: SchemaRef,
    pub(super) place: RunPlace,
}

/// What a run holds, as its task made it: who reads it counts again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSums {
    /// The checksum of each partition's rows.
    pub partitions: Vec<u64>,
    /// The dictionary's fingerprint.
    pub dictionary: u64,
}

/// The checksum of a run's part in a partition: of its rows, each with the dictionary without which its codes mean
/// nothing.
pub fn partial_checksum((checksum, dictionary): (u64, u64), rows: u64) -> u64 {
    checksum.wrapping_add(dictionary.wrapping_mul(rows))
}

pub(super) enum RunPlace {
    /// As the mapper gave it.
    Whole { batch: RecordBatch, dictionary: BinaryArray, _held: Reservation },
    /// Cut; partition `p` has the pieces `ends[p] .. ends[p + 1]`.
    Cut { file: Option<Arc<SpillFile>>, ends: Vec<u32>, pieces: Vec<Piece>, texts: Vec<Piece> },
}

/// Some rows of one partition, or some of the dictionary's strings.
pub(super) enum Piece {
    Memory { batch: RecordBatch, _held: Reservation },
    Disk(Extent),
}

fn width(offsets: &[u32], partition: u32) -> u64 {
    let at = partition as usize;
    offsets.get(at..at + 2).map_or(0, |o| u64::from(o[1] - o[0]))
}

impl Run {
    /// Rows and list items in partition `partition`.
    pub fn size(&self, partition: u32) -> Size {
        Size { rows: width(&self.offsets, partition), items: width(&self.items, partition) }
    }

    /// How many partitions it has.
    pub fn partitions(&self) -> u32 {
        self.offsets.len().saturating_sub(1) as u32
    }

    /// The schema of its rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows before each partition, and in all.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// Items of nested lists before each partition, and in all; empty where the schema has none.
    pub fn items(&self) -> &[u32] {
        &self.items
    }

    /// Strings in its dictionary.
    pub fn texts(&self) -> u32 {
        self.texts
    }

    /// The checksums of its rows and its dictionary; `None` where they came from a worker that did not know them.
    pub fn sums(&self) -> Option<&RunSums> {
        self.sums.as_ref()
    }

    /// The checksums of the rows of partition `partition`, and of the dictionary.
    pub fn checksums(&self, partition: u32) -> Option<(u64, u64)> {
        let sums = self.sums.as_ref()?;
        Some((*sums.partitions.get(partition as usize)?, sums.dictionary))
    }

    /// Bytes of partition `partition`, about.
    pub fn bytes(&self, partition: u32) -> u64 {
        match &self.place {
            RunPlace::Whole { batch, .. } => {
                let at = partition as usize;
                let slice = self.offsets.get(at..at + 2);
                slice.map_or(0, |o| {
                    cut::batch_bytes(&batch.slice(o[0] as usize, (o[1] - o[0]) as usize)) as u64
                })
            }
            RunPlace::Cut { ends, pieces, .. } => {
                let at = partition as usize;
                let mine = ends.get(at..at + 2).and_then(|e| pieces.get(e[0] as usize..e[1] as usize));
                mine.into_iter().flatten().map(Piece::bytes).sum()
            }
        }
    }

    /// How many pieces partition `partition` lies in; none where it is empty.
    pub fn pieces(&self, partition: u32) -> usize {
        match &self.place {
            RunPlace::Whole { .. } => usize::from(width(&self.offsets, partition) > 0),
            RunPlace::Cut { ends, .. } => width(ends, partition) as usize,
        }
    }

    /// Bytes that reading a piece of partition `partition` takes; `None` where it costs nothing, as
    /// it is only a view of what lies in memory.
    pub fn stored(&self, partition: u32, piece: usize) -> Option<u64> {
        let RunPlace::Cut { ends, pieces, .. } = &self.place else { return None };
        let start = *ends.get(partition as usize)? as usize;
        match pieces.get(start + piece)? {
            Piece::Memory { .. } => None,
            Piece::Disk(extent) => Some(extent.len()),
        }
    }

    /// The rows of one piece of partition `partition`.
    ///
    /// # Errors
    /// [`StoreError`]: the disk fails.
    pub fn piece(&self, partition: u32, piece: usize) -> Result<RecordBatch, StoreError> {
        let at = partition as usize;
        match &self.place {
            RunPlace::Whole { batch, .. } => {
                let start = self.offsets[at] as usize;
                Ok(batch.slice(start, self.offsets[at + 1] as usize - start))
            }
            RunPlace::Cut { file, ends, pieces, .. } => {
                pieces[ends[at] as usize + piece].read(file.as_deref())
            }
        }
    }

    /// The strings behind the run's codes.
    ///
    /// # Errors
    /// [`StoreError`]: the disk fails.
    pub fn dictionary(&self) -> Result<BinaryArray, StoreError> {
        let pieces = match &self.place {
            RunPlace::Whole { dictionary, .. } => return Ok(dictionary.clone()),
            RunPlace::Cut { file, texts, .. } => texts.iter().map(|piece| piece.read(file.as_deref())),
        };
        join_texts(&pieces.collect::<Result<Vec<_>, _>>()?)
    }
}

impl Piece {
    fn bytes(&self) -> u64 {
        match self {
            Piece::Memory { batch, .. } => cut::batch_bytes(batch) as u64,
            Piece::Disk(extent) => extent.len(),
        }
    }

    fn read(&self, file: Option<&SpillFile>) -> Result<RecordBatch, StoreError> {
        match (self, file) {
            (Piece::Memory { batch, .. }, _) => Ok(batch.clone()),
            (Piece::Disk(extent), Some(file)) => decode(file.read(*extent)?),
            (Piece::Disk(_), None) => Err(ArrowError::IpcError("a piece without its file".into()).into()),
        }
    }
}

/// The strings of batches of [`dictionary_schema`], as one array.
///
/// # Errors
/// A batch of another schema.
pub fn join_texts(batches: &[RecordBatch]) -> Result<BinaryArray, StoreError> {
    let mut arrays: Vec<&dyn Array> = vec![];
    for batch in batches {
        let column = batch.columns().first().filter(|column| column.data_type() == &DataType::Binary);
        arrays.push(column.ok_or_else(|| ArrowError::SchemaError("no dictionary".into()))?);
    }
    let Some(first) = arrays.first() else { return Ok(BinaryArray::from_iter_values([[0u8; 0]; 0])) };
    let joined = if arrays.len() == 1 { first.slice(0, first.len()) } else { concat(&arrays)? };
    let texts = joined.as_any().downcast_ref::<BinaryArray>().cloned();
    texts.ok_or_else(|| ArrowError::SchemaError("no dictionary".into()).into())
}

/// The one column that a dictionary is kept and sent in.
pub fn dictionary_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("text", DataType::Binary, false)]))
}

fn encode(batch: &RecordBatch) -> Result<Vec<u8>, StoreError> {
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
    writer.write(batch)?;
    Ok(writer.into_inner()?)
}

fn decode(bytes: Vec<u8>) -> Result<RecordBatch, StoreError> {
    // The decoder trusts lengths: of bytes that a disk spoilt it may panic.
    let decoded = catch_unwind(|| StreamDecoder::new().decode(&mut Buffer::from_vec(bytes)));
    let decoded = decoded.unwrap_or_else(|_| Err(ArrowError::IpcError("the decoder panicked".into())));
    decoded?.ok_or_else(|| ArrowError::IpcError("a stream without a batch".into()).into())
}

/// Items of the list column before each of these rows, if there is one.
fn item_offsets(run: &MapRun) -> Vec<u32> {
    let lists = run.batch.columns().iter().find_map(|c| c.as_any().downcast_ref::<arrow::array::ListArray>());
    let Some(lists) = lists else { return vec![] };
    run.offsets.iter().map(|&row| lists.value_offsets()[row as usize] as u32).collect()
}

/// Collects a map task's runs; what it wrote goes with it unless it is finished.
pub struct MapWriter<'a> {
    pub(super) store: &'a Store,
    pub(super) runs: Vec<Run>,
    pub(super) file: Option<SpillFile>,
    pub(super) bytes: u64,
}

impl MapWriter<'_> {
    /// Keeps a run, with the checksums of its partitions' rows, as far as they are known.
    ///
    /// # Errors
    /// [`StoreError`]: the disk is full, or fails.
    pub fn push(&mut self, run: MapRun, checksums: Option<Vec<u64>>) -> Result<(), StoreError> {
        let items = item_offsets(&run);
        let dictionary = checksum::dictionary(&run.dictionary);
        let sums = checksums.map(|partitions| RunSums { partitions, dictionary });
        let size = run.batch.get_array_memory_size() + run.dictionary.get_array_memory_size();
        self.bytes += size as u64;
        let (schema, count) = (run.batch.schema(), run.dictionary.len() as u32);
        if let Some(held) = self.store.budget.reserve(size) {
            let place = RunPlace::Whole { batch: run.batch, dictionary: run.dictionary, _held: held };
            self.runs.push(Run { offsets: run.offsets, items, texts: count, sums, schema, place });
            return Ok(());
        }
        let mut ends = vec![0];
        let mut pieces = vec![];
        for rows in run.offsets.windows(2) {
            let batch = run.batch.slice(rows[0] as usize, (rows[1] - rows[0]) as usize);
            for piece in cut::pieces(&batch) {
                pieces.push(self.spill(&piece)?);
            }
            ends.push(pieces.len() as u32);
        }
        let texts = RecordBatch::try_new(dictionary_schema(), vec![Arc::new(run.dictionary)])?;
        let texts = cut::pieces(&texts).iter().map(|piece| self.spill(piece)).collect::<Result<_, _>>()?;
        let place = RunPlace::Cut { file: None, ends, pieces, texts };
        self.runs.push(Run { offsets: run.offsets, items, texts: count, sums, schema, place });
        Ok(())
    }

    pub(super) fn spill(&mut self, batch: &RecordBatch) -> Result<Piece, StoreError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.store.spill.file()?),
        };
        Ok(Piece::Disk(file.append(&encode(batch)?)?))
    }

    /// The output, and the bytes of its runs.
    pub fn finish(mut self) -> (Arc<MapOutput>, u64) {
        let written = self.file.take().map(Arc::new);
        for run in &mut self.runs {
            if let RunPlace::Cut { file, .. } = &mut run.place {
                *file = written.clone();
            }
        }
        (Arc::new(MapOutput { runs: self.runs }), self.bytes)
    }
}
