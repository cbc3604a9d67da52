//! Map outputs: runs in memory or in pieces on disk, and their writer.
//!
//! Not here: which outputs exist (`store`), how they are transferred (`flight`).

use std::panic::catch_unwind;
use std::sync::Arc;

use arrow_array::{Array, BinaryArray, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use arrow_select::concat::concat;
use tally_common::budget::Reservation;
use tally_dataset::{MapRun, Size, checksum};

use super::{Store, StoreError, cut};
use crate::spill::{Extent, SpillFile};

/// The runs of a map task.
pub struct MapOutput {
    /// In the order in which they were flushed.
    pub runs: Vec<Run>,
}

impl MapOutput {
    /// Bytes of it that are on disk. All runs of an output share one file.
    pub fn spilled_bytes(&self) -> u64 {
        let file = self.runs.iter().find_map(|run| match &run.place {
            RunStorage::Cut { file, .. } => file.as_ref(),
            RunStorage::Whole { .. } => None,
        });
        file.map_or(0, |file| file.len())
    }
}

/// One run, in memory or on disk.
pub struct Run {
    /// Partition `p` has rows `offsets[p] .. offsets[p + 1]`.
    pub(super) offsets: Vec<u32>,
    /// The same for items of nested lists; empty if the schema has none.
    pub(super) items: Vec<u32>,
    /// Strings in its dictionary.
    pub(super) strings: u32,
    pub(super) sums: Option<RunSums>,
    pub(super) schema: SchemaRef,
    pub(super) place: RunStorage,
}

/// The checksums of a run as its task made it. A reader computes and compares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSums {
    /// The checksum of each partition's rows.
    pub partitions: Vec<u64>,
    /// The dictionary's fingerprint.
    pub dictionary: u64,
}

/// The checksum of a run's rows in a partition, including the dictionary once per row, because codes have no meaning
/// without it.
#[inline]
pub fn partial_checksum((checksum, dictionary): (u64, u64), rows: u64) -> u64 {
    checksum.wrapping_add(dictionary.wrapping_mul(rows))
}

pub(super) enum RunStorage {
    /// As the mapper made it.
    Whole { batch: RecordBatch, dictionary: BinaryArray, _held: Reservation },
    /// In pieces. Partition `p` has the pieces `ends[p] .. ends[p + 1]`.
    Cut { file: Option<Arc<SpillFile>>, ends: Vec<u32>, pieces: Vec<Piece>, strings: Vec<Piece> },
}

/// Some rows of one partition, or some of the dictionary's strings.
pub(super) enum Piece {
    Memory { batch: RecordBatch, _held: Reservation },
    Disk(Extent),
}

#[inline]
fn width(offsets: &[u32], partition: u32) -> u64 {
    let at = partition as usize;
    offsets.get(at..at + 2).map_or(0, |o| u64::from(o[1] - o[0]))
}

impl Run {
    /// Number of rows and list items in partition `partition`.
    #[inline]
    pub fn size(&self, partition: u32) -> Size {
        Size { rows: width(&self.offsets, partition), items: width(&self.items, partition) }
    }

    /// Number of partitions.
    #[inline]
    pub fn partitions(&self) -> u32 {
        self.offsets.len().saturating_sub(1) as u32
    }

    /// The schema of its rows.
    #[inline]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Number of rows before each partition, and in total.
    #[inline]
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// Number of items of nested lists before each partition, and in total; empty if the schema has none.
    #[inline]
    pub fn items(&self) -> &[u32] {
        &self.items
    }

    /// Strings in its dictionary.
    #[inline]
    pub fn strings(&self) -> u32 {
        self.strings
    }

    /// The checksums of its rows and its dictionary; `None` if they came from a worker of an earlier release.
    #[inline]
    pub fn sums(&self) -> Option<&RunSums> {
        self.sums.as_ref()
    }

    /// The checksums of the rows of partition `partition`, and of the dictionary.
    #[inline]
    pub fn checksums(&self, partition: u32) -> Option<(u64, u64)> {
        let sums = self.sums.as_ref()?;
        Some((*sums.partitions.get(partition as usize)?, sums.dictionary))
    }

    /// Approximate bytes of partition `partition`.
    pub fn bytes(&self, partition: u32) -> u64 {
        match &self.place {
            RunStorage::Whole { batch, .. } => {
                let at = partition as usize;
                let slice = self.offsets.get(at..at + 2);
                slice.map_or(0, |o| {
                    cut::batch_bytes(&batch.slice(o[0] as usize, (o[1] - o[0]) as usize)) as u64
                })
            }
            RunStorage::Cut { ends, pieces, .. } => {
                let at = partition as usize;
                let mine = ends.get(at..at + 2).and_then(|e| pieces.get(e[0] as usize..e[1] as usize));
                mine.into_iter().flatten().map(Piece::bytes).sum()
            }
        }
    }

    /// Number of pieces of partition `partition`; 0 if it is empty.
    #[inline]
    pub fn pieces(&self, partition: u32) -> usize {
        match &self.place {
            RunStorage::Whole { .. } => usize::from(width(&self.offsets, partition) > 0),
            RunStorage::Cut { ends, .. } => width(ends, partition) as usize,
        }
    }

    /// Bytes that reading a piece of partition `partition` takes. `None` if it takes none, because the result is a view
    /// of memory.
    pub fn stored(&self, partition: u32, piece: usize) -> Option<u64> {
        let RunStorage::Cut { ends, pieces, .. } = &self.place else { return None };
        let start = *ends.get(partition as usize)? as usize;
        match pieces.get(start + piece)? {
            Piece::Memory { .. } => None,
            Piece::Disk(extent) => Some(extent.len()),
        }
    }

    /// The rows of one piece of partition `partition`.
    ///
    /// # Errors
    /// [`StoreError`]: the read failed.
    #[inline]
    pub fn piece(&self, partition: u32, piece: usize) -> Result<RecordBatch, StoreError> {
        let at = partition as usize;
        match &self.place {
            RunStorage::Whole { batch, .. } => {
                let start = self.offsets[at] as usize;
                Ok(batch.slice(start, self.offsets[at + 1] as usize - start))
            }
            RunStorage::Cut { file, ends, pieces, .. } => {
                pieces[ends[at] as usize + piece].read(file.as_deref())
            }
        }
    }

    /// The strings of the run's codes.
    ///
    /// # Errors
    /// [`StoreError`]: the read failed.
    pub fn dictionary(&self) -> Result<BinaryArray, StoreError> {
        let pieces = match &self.place {
            RunStorage::Whole { dictionary, .. } => return Ok(dictionary.clone()),
            RunStorage::Cut { file, strings, .. } => strings.iter().map(|piece| piece.read(file.as_deref())),
        };
        join_strings(&pieces.collect::<Result<Vec<_>, _>>()?)
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
            (Piece::Disk(_), None) => Err(ArrowError::IpcError("a piece has no file".into()).into()),
        }
    }
}

/// The strings of batches of [`dictionary_schema`], as one array.
///
/// # Errors
/// A batch has another schema.
pub fn join_strings(batches: &[RecordBatch]) -> Result<BinaryArray, StoreError> {
    let mut arrays: Vec<&dyn Array> = vec![];
    for batch in batches {
        let column = batch.columns().first().filter(|column| column.data_type() == &DataType::Binary);
        arrays.push(column.ok_or_else(|| ArrowError::SchemaError("the batch is not a dictionary".into()))?);
    }
    let Some(first) = arrays.first() else { return Ok(BinaryArray::from_iter_values([[0u8; 0]; 0])) };
    let joined = if arrays.len() == 1 { first.slice(0, first.len()) } else { concat(&arrays)? };
    let strings = joined.as_any().downcast_ref::<BinaryArray>().cloned();
    strings.ok_or_else(|| ArrowError::SchemaError("the batch is not a dictionary".into()).into())
}

/// The schema of stored and sent dictionaries: one column.
pub fn dictionary_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("text", DataType::Binary, false)]))
}

fn encode(batch: &RecordBatch) -> Result<Vec<u8>, StoreError> {
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
    writer.write(batch)?;
    Ok(writer.into_inner()?)
}

fn decode(bytes: Vec<u8>) -> Result<RecordBatch, StoreError> {
    // The decoder does not check lengths, so it may panic on corrupt bytes from the disk.
    let decoded = catch_unwind(|| StreamDecoder::new().decode(&mut Buffer::from_vec(bytes)));
    let decoded = decoded.unwrap_or_else(|_| Err(ArrowError::IpcError("the decoder panicked".into())));
    decoded?.ok_or_else(|| ArrowError::IpcError("the stream has no batch".into()).into())
}

/// The number of items of the list column before each partition, if there is such a column.
fn item_offsets(run: &MapRun) -> Vec<u32> {
    let lists = run.batch.columns().iter().find_map(|c| c.as_any().downcast_ref::<arrow_array::ListArray>());
    let Some(lists) = lists else { return vec![] };
    run.offsets.iter().map(|&row| lists.value_offsets()[row as usize] as u32).collect()
}

/// Collects the runs of a map task. Spilled data is removed unless the writer is finished.
pub struct MapWriter<'a> {
    pub(super) store: &'a Store,
    pub(super) runs: Vec<Run>,
    pub(super) file: Option<SpillFile>,
    pub(super) bytes: u64,
}

impl MapWriter<'_> {
    /// Adds a run, with the checksums of its partitions' rows if they are known.
    ///
    /// # Errors
    /// [`StoreError`]: the disk is full, or the write failed.
    pub fn push(&mut self, run: MapRun, checksums: Option<Vec<u64>>) -> Result<(), StoreError> {
        let items = item_offsets(&run);
        let dictionary = checksum::dictionary(&run.dictionary);
        let sums = checksums.map(|partitions| RunSums { partitions, dictionary });
        let size = run.batch.get_array_memory_size() + run.dictionary.get_array_memory_size();
        self.bytes += size as u64;
        let (schema, count) = (run.batch.schema(), run.dictionary.len() as u32);
        if let Some(held) = self.store.budget.try_reserve(size) {
            let place = RunStorage::Whole { batch: run.batch, dictionary: run.dictionary, _held: held };
            self.runs.push(Run { offsets: run.offsets, items, strings: count, sums, schema, place });
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
        let strings = RecordBatch::try_new(dictionary_schema(), vec![Arc::new(run.dictionary)])?;
        let strings =
            cut::pieces(&strings).iter().map(|piece| self.spill(piece)).collect::<Result<_, _>>()?;
        let place = RunStorage::Cut { file: None, ends, pieces, strings };
        self.runs.push(Run { offsets: run.offsets, items, strings: count, sums, schema, place });
        Ok(())
    }

    pub(super) fn spill(&mut self, batch: &RecordBatch) -> Result<Piece, StoreError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.store.spill.file()?),
        };
        Ok(Piece::Disk(file.append(&encode(batch)?)?))
    }

    /// Returns the output, and the bytes of its runs.
    pub fn finish(mut self) -> (Arc<MapOutput>, u64) {
        let written = self.file.take().map(Arc::new);
        for run in &mut self.runs {
            if let RunStorage::Cut { file, .. } = &mut run.place {
                *file = written.clone();
            }
        }
        (Arc::new(MapOutput { runs: self.runs }), self.bytes)
    }
}
