//! Rebuilds a map output from the pieces that another worker sends, in memory as long as there is room, otherwise on
//! disk. An unfinished output leaves nothing.
//!
//! Not here: the messages that carry the pieces (`flight::migrate_in`).

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::Schema;

use super::run::{Piece, RunStorage};
use super::{MapOutput, MapWriter, Run, RunSums, Store, StoreError, cut};

/// The pieces do not give an output.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pieces do not match the header.
    #[error("the pieces of the output do not fit its header: {0}")]
    Misfit(String),
}

/// The description of a run in the header.
#[derive(Debug, Clone, Default)]
pub struct RunParts {
    /// Number of rows before each partition, and in total.
    pub offsets: Vec<u32>,
    /// The same for items of nested lists; empty if there are none.
    pub items: Vec<u32>,
    /// Strings in the dictionary.
    pub strings: u32,
    /// Checksums of its rows and its dictionary, if the sender knows them.
    pub sums: Option<RunSums>,
}

/// The part of a run that a batch belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunPart {
    /// Rows of a partition.
    Partition(u32),
    /// Strings of the dictionary.
    Dictionary,
}

/// A map output that is being rebuilt. Runs arrive in order; within a run first its partitions in order, then its
/// dictionary.
pub struct Rebuild<'a> {
    writer: MapWriter<'a>,
    announced: std::vec::IntoIter<RunParts>,
    /// The current run.
    open: Option<OpenRun>,
    /// The number of the current run plus one.
    begun: u32,
}

struct OpenRun {
    run: Run,
    /// Strings received.
    strings: u64,
    /// Rows received of the current partition.
    rows: u64,
}

fn rises(offsets: &[u32]) -> bool {
    offsets.first() == Some(&0) && offsets.is_sorted()
}

impl<'a> Rebuild<'a> {
    /// Starts to rebuild an output of these runs, to be kept by `store`.
    ///
    /// # Errors
    /// [`RebuildError::Misfit`] if the header is invalid.
    pub fn new(store: &'a Store, runs: Vec<RunParts>) -> Result<Self, RebuildError> {
        let fits = |run: &RunParts| {
            let items = run.items.is_empty() || run.items.len() == run.offsets.len() && rises(&run.items);
            items && rises(&run.offsets)
        };
        if !runs.iter().all(fits) {
            return Err(RebuildError::Misfit("the offsets of a run do not increase from 0".into()));
        }
        let summed = |run: &RunParts| {
            run.sums.as_ref().is_none_or(|sums| sums.partitions.len() + 1 == run.offsets.len())
        };
        if !runs.iter().all(summed) {
            return Err(RebuildError::Misfit("a run does not have one checksum per partition".into()));
        }
        Ok(Rebuild { writer: store.map_writer(), announced: runs.into_iter(), open: None, begun: 0 })
    }

    /// Adds the next piece, of run number `run`. The batch must own its memory exclusively.
    ///
    /// # Errors
    /// [`RebuildError`].
    pub fn take(&mut self, run: u32, part: RunPart, batch: RecordBatch) -> Result<(), RebuildError> {
        while self.begun <= run {
            self.close()?;
            self.begin()?;
        }
        if self.begun != run + 1 {
            return Err(RebuildError::Misfit(format!("run {run} is out of order")));
        }
        let bytes = cut::batch_bytes(&batch);
        self.writer.bytes += bytes as u64;
        let (rows, schema) = (batch.num_rows() as u64, batch.schema());
        let piece = match self.writer.store.budget().try_reserve(bytes) {
            Some(held) => Piece::Memory { batch, _held: held },
            None => self.writer.spill(&batch)?,
        };
        let Some(open) = &mut self.open else {
            return Err(RebuildError::Misfit(format!("there is no run {run}")));
        };
        open.add(part, piece, rows, &schema)
    }

    fn begin(&mut self) -> Result<(), RebuildError> {
        let misfit = || RebuildError::Misfit(format!("there is no run {}", self.begun));
        let RunParts { offsets, items, strings, sums } = self.announced.next().ok_or_else(misfit)?;
        let place = RunStorage::Cut { file: None, ends: vec![0], pieces: vec![], strings: vec![] };
        let run = Run { offsets, items, strings, sums, schema: Arc::new(Schema::empty()), place };
        self.open = Some(OpenRun { run, rows: 0, strings: 0 });
        self.begun += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<(), RebuildError> {
        if let Some(mut open) = self.open.take() {
            open.advance(open.run.partitions())?;
            if open.strings != u64::from(open.run.strings) {
                let what =
                    format!("a dictionary has {} strings instead of {}", open.strings, open.run.strings);
                return Err(RebuildError::Misfit(what));
            }
            self.writer.runs.push(open.run);
        }
        Ok(())
    }

    /// Returns the complete output and its size in bytes.
    ///
    /// # Errors
    /// [`RebuildError::Misfit`] if something is missing.
    pub fn finish(mut self) -> Result<(Arc<MapOutput>, u64), RebuildError> {
        self.close()?;
        if self.announced.len() > 0 {
            return Err(RebuildError::Misfit(format!("{} runs are missing", self.announced.len())));
        }
        Ok(self.writer.finish())
    }
}

impl OpenRun {
    /// Ends all partitions before `partition`.
    fn advance(&mut self, partition: u32) -> Result<(), RebuildError> {
        let RunStorage::Cut { ends, pieces, .. } = &mut self.run.place else { return Ok(()) };
        while ends.len() <= partition as usize {
            let ended = ends.len() as u32 - 1;
            let at = ended as usize;
            let wanted = self.run.offsets.get(at..at + 2).map_or(0, |o| u64::from(o[1] - o[0]));
            if wanted != self.rows {
                let what = format!("partition {ended} has {} rows instead of {wanted}", self.rows);
                return Err(RebuildError::Misfit(what));
            }
            ends.push(pieces.len() as u32);
            self.rows = 0;
        }
        Ok(())
    }

    fn add(
        &mut self,
        part: RunPart,
        piece: Piece,
        rows: u64,
        schema: &arrow_schema::SchemaRef,
    ) -> Result<(), RebuildError> {
        let partitions = self.run.partitions();
        match part {
            RunPart::Partition(partition) if partition >= partitions => {
                return Err(RebuildError::Misfit(format!("there is no partition {partition}")));
            }
            RunPart::Partition(partition) => self.advance(partition)?,
            RunPart::Dictionary => self.advance(partitions)?,
        }
        let RunStorage::Cut { ends, pieces, strings, .. } = &mut self.run.place else { return Ok(()) };
        match part {
            RunPart::Dictionary => {
                self.strings += rows;
                strings.push(piece);
            }
            RunPart::Partition(partition) if ends.len() == partition as usize + 1 => {
                self.rows += rows;
                self.run.schema = schema.clone();
                pieces.push(piece);
            }
            RunPart::Partition(partition) => {
                return Err(RebuildError::Misfit(format!("partition {partition} is out of order")));
            }
        }
        Ok(())
    }
}
