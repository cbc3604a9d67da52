//! Reduce task: all partials of one partition to rows, encoded as row groups of a Parquet file
//! that lacks only the columns that wait for the job's totals.
//!
//! Memory: the partials' sizes bound the tables before anything is read; where they would not
//! fit, the clients are taken in several passes.

use arrow::array::RecordBatch;
use tally_dataset::{Dataset, DatasetError, Fingerprint, Pass, Reducer, Size, Totals};
use tally_proto::convert::{referred, required};
use tally_proto::{AttemptId, JobId, v1};

use crate::context::TaskContext;
use crate::encode::Encoder;
use crate::error::TaskError;
use crate::order::ReduceInputs;
use crate::peers::{Listed, MapReader, Wanted};
use crate::store::{Output, partial_checksum};
use crate::texts::{JobTexts, Translation};

/// One map output among a reduce task's inputs.
struct Input {
    table: usize,
    attempt: AttemptId,
    /// Who reads it, and as which of its outputs.
    reader: usize,
    place: usize,
}

/// A reduce task's inputs, in the order in which they are merged, and a reader for each holder.
struct Inputs {
    order: Vec<Input>,
    readers: Vec<Box<dyn MapReader>>,
    /// By table.
    sizes: Vec<Size>,
}

/// Runs a reduce task.
///
/// # Errors
/// [`TaskError`]; an input that is gone is [`TaskError::Lost`].
pub fn run(
    context: &TaskContext,
    attempt: &AttemptId,
    dataset: &dyn Dataset,
    work: &v1::ReduceWork,
    inputs: &ReduceInputs,
) -> Result<(v1::ReduceResult, Output), TaskError> {
    check_complete(&work.map_tasks, inputs)?;
    let texts = context.texts(&attempt.task.job);
    let mut inputs = Inputs::open(context, &attempt.task.job, work.partition, inputs)?;
    let passes = passes(dataset.reducer_bytes(&inputs.sizes), work, context.shares.reduce as u64)?;
    let count = |rows: &RecordBatch, all: &mut Fingerprint| dataset.fingerprint(rows, all);
    let (file, schema) = (context.store.file_writer(), dataset.reduced_schema());
    let mut encoder = Encoder::new(file, schema, work.row_group_rows, &count)?;
    let mut totals = Totals::default();
    let mut read = None;
    for index in 0..passes {
        let mut reducer = dataset.reducer(Pass { index, of: passes }, &inputs.sizes);
        read = inputs.merge(context, &texts, dataset, &mut *reducer)?;
        check(work, read)?;
        let mut sink = |batch: RecordBatch| Ok(encoder.write(&batch).map_err(Box::new)?);
        totals += reducer.finish(&*texts, &mut sink)?;
    }
    let (encoded, file) = encoder.finish()?;
    let (output, bytes) = file.finish();
    if encoded.all.rows != totals.rows {
        return Err(TaskError::Sums(format!("{} rows were encoded of {}", encoded.all.rows, totals.rows)));
    }
    let totals = v1::Totals {
        rows: totals.rows,
        clients: totals.clients,
        custom_theme_clients: totals.custom_theme_clients,
    };
    let result = v1::ReduceResult {
        totals: Some(totals),
        row_group_rows: encoded.row_groups.iter().map(|group| group.rows).collect(),
        bytes,
        passes,
        read,
        checksums: encoded.row_groups.iter().map(|group| group.checksum).collect(),
        crc32s: encoded.row_groups.iter().map(|group| group.crc32).collect(),
        footer_crc32: encoded.footer_crc32,
        order: Some(encoded.all.order),
    };
    Ok((result, Output::File(output)))
}

/// Compares what was read, as far as all of it could be checked, with what the order says there is.
fn check(work: &v1::ReduceWork, read: Option<v1::Sums>) -> Result<(), TaskError> {
    match (work.expected, read) {
        (Some(expected), Some(read)) if expected != read => Err(TaskError::Sums(format!(
            "partition {} was read as {} partials with the checksum {:016x}, but the map tasks made {} with {:016x}",
            work.partition, read.rows, read.checksum, expected.rows, expected.checksum
        ))),
        _ => Ok(()),
    }
}

/// How many passes tables of `needed` bytes are cut into. Passes decide the order of rows, so they
/// are cut by the order's number where it has one, and are then the same on every worker.
fn passes(needed: u64, work: &v1::ReduceWork, share: u64) -> Result<u32, TaskError> {
    let wanted = if work.table_bytes == 0 { share } else { work.table_bytes };
    // A worker with less room can still take what is small enough for it.
    let one = needed.min(wanted);
    if one > share {
        return Err(TaskError::Share { wanted, share });
    }
    Ok(u32::try_from(needed.div_ceil(wanted.max(1))).unwrap_or(u32::MAX).max(1))
}

/// Refuses inputs that are not the outputs of as many map tasks of each table as there are, each once.
fn check_complete(map_tasks: &[u32], inputs: &ReduceInputs) -> Result<(), TaskError> {
    // Coordinators of earlier releases do not say how many there are.
    if map_tasks.is_empty() {
        return Ok(());
    }
    if map_tasks.len() != inputs.tables.len() {
        let (told, tables) = (inputs.tables.len(), map_tasks.len());
        return Err(TaskError::Incomplete(format!("outputs of {told} input tables instead of {tables}")));
    }
    for (table, (list, &tasks)) in inputs.tables.iter().zip(map_tasks).enumerate() {
        let ascending = list.outputs.windows(2).all(|pair| pair[0].index < pair[1].index);
        if list.outputs.len() as u64 != u64::from(tasks) || !ascending {
            let told = list.outputs.len();
            return Err(TaskError::Incomplete(format!(
                "{told} outputs of the {tasks} map tasks of input table {table}, each to be there once"
            )));
        }
    }
    Ok(())
}

impl Inputs {
    fn open(
        context: &TaskContext,
        job: &JobId,
        partition: u32,
        inputs: &ReduceInputs,
    ) -> Result<Self, TaskError> {
        let mut order = vec![];
        for (table, outputs) in inputs.tables.iter().enumerate() {
            for reference in &outputs.outputs {
                let (reader, attempt) = (reference.holder as usize, referred(job, reference));
                order.push(Input { table, attempt, reader, place: 0 });
            }
        }
        // Reducers that run side by side begin with different inputs, so that the first of them to
        // need a dictionary translated is not waited for by the rest.
        if !order.is_empty() {
            let start = partition as usize * 7 % order.len();
            order.rotate_left(start);
        }
        let mut wanted: Vec<Vec<Wanted>> = vec![vec![]; inputs.holders.len()];
        for input in &mut order {
            let mine = required(wanted.get_mut(input.reader), "holder")?;
            input.place = mine.len();
            mine.push(Wanted { attempt: input.attempt.clone(), table: input.table });
        }
        let mut readers = vec![];
        for (holder, wanted) in inputs.holders.iter().zip(wanted) {
            readers.push(context.maps(holder, wanted, partition)?);
        }
        let mut inputs = Inputs { order, readers, sizes: vec![Size::default(); inputs.tables.len()] };
        for input in &inputs.order {
            for size in &inputs.readers[input.reader].sizes()?[input.place] {
                inputs.sizes[input.table].rows += size.rows;
                inputs.sizes[input.table].items += size.items;
            }
        }
        Ok(inputs)
    }

    /// Merges all partials, in the order of the inputs, whoever holds them. Gives what was read, unless a holder does
    /// not know what it should have been.
    fn merge(
        &mut self,
        context: &TaskContext,
        texts: &JobTexts,
        dataset: &dyn Dataset,
        reducer: &mut dyn Reducer,
    ) -> Result<Option<v1::Sums>, TaskError> {
        self.readers.iter_mut().for_each(|reader| reader.rewind());
        let mut all = Some(v1::Sums::default());
        for &Input { table, reader, place, .. } in &self.order {
            let reader = &mut *self.readers[reader];
            for run in 0..reader.sizes()?[place].len() {
                let listed = reader.sizes()?[place][run];
                if listed.rows == 0 {
                    continue;
                }
                context.check_cancelled()?;
                let codes = reader.codes(place, run, texts)?;
                check_dictionary(reader, place, listed, &codes)?;
                let mut seen = Seen { dataset, table, rows: 0, checksum: 0, fault: None };
                reader.read(place, run, &mut |batch| {
                    seen.take(batch, |rows| reducer.merge(table, rows, &codes, texts));
                    Ok(())
                })?;
                let sums = seen.check(reader, place, listed)?;
                all = all.zip(sums).map(|(all, sums)| v1::Sums {
                    rows: all.rows + sums.rows,
                    checksum: all.checksum.wrapping_add(sums.checksum),
                });
            }
        }
        Ok(all)
    }
}

/// Codes mean nothing with the wrong strings, so these are compared before any is used.
fn check_dictionary(
    reader: &dyn MapReader,
    output: usize,
    listed: Listed,
    codes: &Translation,
) -> Result<(), TaskError> {
    let read = codes.dictionary;
    match listed.checksums {
        Some((_, made)) if made != read => {
            let what =
                format!("a dictionary was read with the checksum {read:016x}, but made with {made:016x}");
            Err(reader.lost(output, what))
        }
        _ => Ok(()),
    }
}

/// Rows of a batch that are counted and merged at a time: merging finds them in the cache.
const COUNTED: usize = 4 << 10;

/// What is read of a run's part in a partition.
struct Seen<'a> {
    dataset: &'a dyn Dataset,
    table: usize,
    rows: u64,
    checksum: u64,
    /// The first thing that was wrong with it.
    fault: Option<DatasetError>,
}

impl Seen<'_> {
    /// Counts rows and has them merged. After a fault the rest is only counted: what it comes from is not known before
    /// all was.
    fn take(&mut self, batch: &RecordBatch, mut merge: impl FnMut(&RecordBatch) -> Result<(), DatasetError>) {
        for from in (0..batch.num_rows()).step_by(COUNTED) {
            let rows = batch.slice(from, COUNTED.min(batch.num_rows() - from));
            let counted = self.dataset.partial_checksums(self.table, &rows, &[0, rows.num_rows() as u32]);
            let counted = counted.map(|sums| {
                self.rows += rows.num_rows() as u64;
                self.checksum = sums.iter().fold(self.checksum, |all, sum| all.wrapping_add(*sum));
            });
            if self.fault.is_none() {
                self.fault = counted.and_then(|()| merge(&rows)).err();
            }
        }
    }

    /// Compares it with what the holder says that the task made.
    fn check(
        self,
        reader: &dyn MapReader,
        output: usize,
        listed: Listed,
    ) -> Result<Option<v1::Sums>, TaskError> {
        let Seen { rows, checksum, fault, .. } = self;
        if let Some((made, _)) = listed.checksums
            && (rows, checksum) != (listed.rows, made)
        {
            let what = format!(
                "{rows} rows were read with the checksum {checksum:016x}, but {} made with {made:016x}",
                listed.rows
            );
            return Err(reader.lost(output, what));
        }
        match (fault, listed.checksums) {
            (Some(fault), _) => Err(fault.into()),
            (None, checksums) => {
                Ok(checksums.map(|checksums| v1::Sums { rows, checksum: partial_checksum(checksums, rows) }))
            }
        }
    }
}
