//! Reduce task: all partials of one partition to rows, encoded as row groups of a Parquet file
//! that lacks only the columns that wait for the job's totals.
//!
//! Memory: the partials' sizes bound the tables before anything is read; where they would not
//! fit, the clients are taken in several passes.

use std::sync::Arc;

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tally_dataset::{Dataset, Pass, Reducer, Size, Totals};
use tally_proto::convert::referred;
use tally_proto::{AttemptId, JobId, v1};

use crate::error::TaskError;
use crate::runner::TaskContext;
use crate::store::{FileOutput, FileWriter, MapOutput, Output};
use crate::texts::JobTexts;

/// One map output among a reduce task's inputs.
struct Input {
    table: usize,
    attempt: AttemptId,
    output: Arc<MapOutput>,
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
) -> Result<v1::ReduceResult, TaskError> {
    let texts = context.texts(&attempt.task.job);
    let inputs = inputs(context, &attempt.task.job, work)?;
    let sizes = sizes(&inputs, work);
    let needed = dataset.reducer_bytes(&sizes);
    let share = context.shares.reduce as u64;
    let passes = u32::try_from(needed.div_ceil(share)).unwrap_or(u32::MAX).max(1);
    let mut encoder = Encoder::new(context.store.file_writer(), dataset, work.row_group_rows)?;
    let mut totals = Totals::default();
    for index in 0..passes {
        let mut reducer = dataset.reducer(Pass { index, of: passes }, &sizes);
        merge(context, work.partition, &inputs, &texts, &mut *reducer)?;
        let mut sink = |batch: RecordBatch| Ok(encoder.write(&batch).map_err(Box::new)?);
        totals += reducer.finish(&*texts, &mut sink)?;
    }
    let (row_group_rows, output, bytes) = encoder.finish()?;
    context.store.put(attempt.clone(), Output::File(output));
    let totals = v1::Totals {
        rows: totals.rows,
        clients: totals.clients,
        custom_theme_clients: totals.custom_theme_clients,
    };
    Ok(v1::ReduceResult { totals: Some(totals), row_group_rows, bytes, passes })
}

fn inputs(context: &TaskContext, job: &JobId, work: &v1::ReduceWork) -> Result<Vec<Input>, TaskError> {
    let mut inputs = vec![];
    for (table, outputs) in work.inputs.iter().enumerate() {
        for reference in &outputs.outputs {
            let attempt = referred(job, reference);
            match context.fetch(&work.holders, reference, &attempt)? {
                Output::Map(output) => inputs.push(Input { table, attempt, output }),
                Output::File(_) => return Err(TaskError::Order(format!("{attempt} is no map task"))),
            }
        }
    }
    // Reducers that run side by side begin with different inputs, so that the first of them to
    // need a dictionary translated is not waited for by the rest.
    if !inputs.is_empty() {
        let start = work.partition as usize * 7 % inputs.len();
        inputs.rotate_left(start);
    }
    Ok(inputs)
}

fn sizes(inputs: &[Input], work: &v1::ReduceWork) -> Vec<Size> {
    let mut sizes = vec![Size::default(); work.inputs.len()];
    for input in inputs {
        for run in &input.output.runs {
            let size = run.size(work.partition);
            sizes[input.table].rows += size.rows;
            sizes[input.table].items += size.items;
        }
    }
    sizes
}

fn merge(
    context: &TaskContext,
    partition: u32,
    inputs: &[Input],
    texts: &JobTexts,
    reducer: &mut dyn Reducer,
) -> Result<(), TaskError> {
    for input in inputs {
        for (number, run) in input.output.runs.iter().enumerate() {
            if run.size(partition).rows == 0 {
                continue;
            }
            context.check_cancelled()?;
            let codes = texts.translation(&(input.attempt.clone(), number), run)?;
            reducer.merge(input.table, &run.partition(partition)?, &codes)?;
        }
    }
    Ok(())
}

/// Encodes rows as row groups of a Parquet file in the store.
struct Encoder<'a> {
    writer: ArrowWriter<FileWriter<'a>>,
}

impl<'a> Encoder<'a> {
    fn new(file: FileWriter<'a>, dataset: &dyn Dataset, row_group_rows: u64) -> Result<Self, TaskError> {
        let rows = usize::try_from(row_group_rows).unwrap_or(usize::MAX).max(1);
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_max_row_group_row_count(Some(rows))
            // Ids hardly repeat: a dictionary of them would only be thrown away.
            .set_column_dictionary_enabled(ColumnPath::from("client_id"), false)
            .set_column_statistics_enabled(ColumnPath::from("client_id"), EnabledStatistics::None)
            .build();
        let writer = ArrowWriter::try_new(file, dataset.reduced_schema(), Some(properties))?;
        Ok(Encoder { writer })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), TaskError> {
        Ok(self.writer.write(batch)?)
    }

    /// Rows of each row group, the encoded file, and its bytes.
    fn finish(mut self) -> Result<(Vec<u64>, Arc<FileOutput>, u64), TaskError> {
        self.writer.flush()?;
        let rows = self.writer.flushed_row_groups().iter().map(|group| group.num_rows() as u64).collect();
        let (output, bytes) = self.writer.into_inner()?.finish();
        Ok((rows, output, bytes))
    }
}
