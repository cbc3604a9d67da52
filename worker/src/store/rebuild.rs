//! A map output put together again from the pieces that another worker hands over, in memory as
//! long as there is room, else on disk; what is not finished leaves nothing.
//!
//! Not here: the messages that carry the pieces (`flight::put`).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::run::{Piece, RunPlace};
use super::{MapOutput, MapWriter, Run, RunSums, Store, StoreError, cut};

/// Pieces that make no output.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// They do not fit what was announced.
    #[error("the pieces of the output do not fit its header: {0}")]
    Misfit(String),
}

/// What is announced of a run.
#[derive(Debug, Clone, Default)]
pub struct RunParts {
    /// Rows before each partition, and in all.
    pub offsets: Vec<u32>,
    /// Items of nested lists likewise; empty where there are none.
    pub items: Vec<u32>,
    /// Strings in the dictionary.
    pub texts: u32,
    /// Checksums of its rows and its dictionary, where the giver knows them.
    pub sums: Option<RunSums>,
}

/// Which part of a run a batch is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Rows of a partition.
    Partition(u32),
    /// Strings of the dictionary.
    Dictionary,
}

/// A map output in the making. Runs come in order, in each its partitions in order, then its
/// dictionary.
pub struct Rebuild<'a> {
    writer: MapWriter<'a>,
    announced: std::vec::IntoIter<RunParts>,
    /// The run in hand.
    open: Option<Open>,
    /// Its number plus one.
    begun: u32,
}

struct Open {
    run: Run,
    /// Strings so far.
    texts: u64,
    /// Rows so far of the partition that is being filled.
    rows: u64,
}

fn rises(offsets: &[u32]) -> bool {
    offsets.first() == Some(&0) && offsets.is_sorted()
}

impl<'a> Rebuild<'a> {
    /// An output of these runs, to be kept by `store`.
    ///
    /// # Errors
    /// [`RebuildError::Misfit`] where what is announced is no run.
    pub fn new(store: &'a Store, runs: Vec<RunParts>) -> Result<Self, RebuildError> {
        let fits = |run: &RunParts| {
            let items = run.items.is_empty() || run.items.len() == run.offsets.len() && rises(&run.items);
            items && rises(&run.offsets)
        };
        if !runs.iter().all(fits) {
            return Err(RebuildError::Misfit("a run's offsets do not rise from 0".into()));
        }
        let summed = |run: &RunParts| {
            run.sums.as_ref().is_none_or(|sums| sums.partitions.len() + 1 == run.offsets.len())
        };
        if !runs.iter().all(summed) {
            return Err(RebuildError::Misfit("a run's checksums are not one a partition".into()));
        }
        Ok(Rebuild { writer: store.map_writer(), announced: runs.into_iter(), open: None, begun: 0 })
    }

    /// Takes the next piece, of run number `run`. The batch owns its memory, and nothing else does.
    ///
    /// # Errors
    /// [`RebuildError`].
    pub fn take(&mut self, run: u32, part: Part, batch: RecordBatch) -> Result<(), RebuildError> {
        while self.begun <= run {
            self.close()?;
            self.begin()?;
        }
        if self.begun != run + 1 {
            return Err(RebuildError::Misfit(format!("run {run} comes too late")));
        }
        let bytes = cut::batch_bytes(&batch);
        self.writer.bytes += bytes as u64;
        let (rows, schema) = (batch.num_rows() as u64, batch.schema());
        let piece = match self.writer.store.budget().reserve(bytes) {
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
        let RunParts { offsets, items, texts, sums } = self.announced.next().ok_or_else(misfit)?;
        let place = RunPlace::Cut { file: None, ends: vec![0], pieces: vec![], texts: vec![] };
        let run = Run { offsets, items, texts, sums, schema: Arc::new(Schema::empty()), place };
        self.open = Some(Open { run, rows: 0, texts: 0 });
        self.begun += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<(), RebuildError> {
        if let Some(mut open) = self.open.take() {
            open.advance(open.run.partitions())?;
            if open.texts != u64::from(open.run.texts) {
                let what = format!("a dictionary has {} strings instead of {}", open.texts, open.run.texts);
                return Err(RebuildError::Misfit(what));
            }
            self.writer.runs.push(open.run);
        }
        Ok(())
    }

    /// The whole output, and its bytes.
    ///
    /// # Errors
    /// [`RebuildError::Misfit`] where something is missing.
    pub fn finish(mut self) -> Result<(Arc<MapOutput>, u64), RebuildError> {
        self.close()?;
        if self.announced.len() > 0 {
            return Err(RebuildError::Misfit(format!("{} runs are missing", self.announced.len())));
        }
        Ok(self.writer.finish())
    }
}

impl Open {
    /// Ends all partitions before `partition`.
    fn advance(&mut self, partition: u32) -> Result<(), RebuildError> {
        let RunPlace::Cut { ends, pieces, .. } = &mut self.run.place else { return Ok(()) };
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
        part: Part,
        piece: Piece,
        rows: u64,
        schema: &arrow::datatypes::SchemaRef,
    ) -> Result<(), RebuildError> {
        let partitions = self.run.partitions();
        match part {
            Part::Partition(partition) if partition >= partitions => {
                return Err(RebuildError::Misfit(format!("there is no partition {partition}")));
            }
            Part::Partition(partition) => self.advance(partition)?,
            Part::Dictionary => self.advance(partitions)?,
        }
        let RunPlace::Cut { ends, pieces, texts, .. } = &mut self.run.place else { return Ok(()) };
        match part {
            Part::Dictionary => {
                self.texts += rows;
                texts.push(piece);
            }
            Part::Partition(partition) if ends.len() == partition as usize + 1 => {
                self.rows += rows;
                self.run.schema = schema.clone();
                pieces.push(piece);
            }
            Part::Partition(partition) => {
                return Err(RebuildError::Misfit(format!("partition {partition} comes too late")));
            }
        }
        Ok(())
    }
}
