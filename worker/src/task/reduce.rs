//! Reduce task: merges all partials of one partition to rows, and encodes them as row groups of a Parquet file. The
//! file has all columns except those that depend on the job's totals.
//!
//! Memory: the sizes of the partials give an upper bound for the tables before anything is read. If the tables would
//! not fit, the clients are processed in several passes.

use std::error::Error;
use std::sync::atomic::Ordering;

use arrow_array::RecordBatch;
use tally_common::counts::counted;
use tally_dataset::{Dataset, DatasetError, Fingerprint, Pass, Reducer, Size, Totals};
use tally_proto::convert::{referred, required};
use tally_proto::dispatch::ReduceInputs;
use tally_proto::limits::MAX_ROW_GROUPS;
use tally_proto::{AttemptId, JobId, v1};
use tally_shuffle::error::TaskError;
use tally_shuffle::peers::{ListedRun, MapReader, Wanted};
use tally_shuffle::store::{Output, partial_checksum};
use tally_shuffle::string_dictionary::{TaskDictionary, Translation};

use crate::encode::Encoder;
use crate::shares::Shares;
use crate::task::context::TaskContext;

/// A map output among the inputs of a reduce task.
struct ReduceSource {
    table: usize,
    attempt: AttemptId,
    /// Its reader, and its index among the outputs of the reader.
    reader: usize,
    place: usize,
}

/// The inputs of a reduce task in the order in which they are merged, and a reader for each holder.
struct ReduceSources {
    order: Vec<ReduceSource>,
    readers: Vec<Box<dyn MapReader>>,
    /// By table.
    sizes: Vec<Size>,
}

/// Runs a reduce task.
///
/// # Errors
/// [`TaskError`]; [`TaskError::Lost`] for a missing input.
pub fn run(
    context: &TaskContext,
    attempt: &AttemptId,
    dataset: &dyn Dataset,
    work: &v1::ReduceWork,
    inputs: &ReduceInputs,
) -> Result<(v1::ReduceResult, Output), TaskError> {
    check_complete(&work.map_tasks, inputs)?;
    let strings = context.dictionary(&attempt.task.job);
    let mut inputs = ReduceSources::open(context, &attempt.task.job, work.partition, inputs)?;
    let passes = passes(dataset.reducer_bytes(&inputs.sizes), work, context.shares)?;
    let count = |rows: &RecordBatch, all: &mut Fingerprint| dataset.fingerprint(rows, all);
    let (file, schema) = (context.store.file_writer(), dataset.reduced_schema());
    let encoding = |column: &str| dataset.encoding(column);
    let mut encoder = Encoder::new(file, schema, work.row_group_rows, &encoding, &count)?;
    let mut totals = Totals::zero(dataset.totals().len());
    let mut counting = work.day.and_then(|day| dataset.counting(day));
    let mut read = None;
    for index in 0..passes {
        let mut reducer = dataset.reducer(Pass { index, of: passes }, &inputs.sizes);
        read = inputs.merge(context, &strings, dataset, &mut *reducer)?;
        check(work, read)?;
        let mut sink = |batch: RecordBatch| -> Result<(), Box<dyn Error + Send + Sync>> {
            if let Some(counting) = &mut counting {
                counting.add(&batch).map_err(TaskError::from)?;
            }
            encoder.write(&batch).map_err(TaskError::from)?;
            Ok(check_row_groups(work, encoder.row_groups())?)
        };
        totals += &reducer.finish(&strings, &mut sink)?;
    }
    let (encoded, file) = encoder.finish()?;
    check_row_groups(work, encoded.row_groups.len())?;
    let (output, bytes) = file.finish();
    if encoded.all.rows != totals.rows {
        return Err(TaskError::Sums(format!(
            "encoded {} of {}",
            encoded.all.rows,
            counted(totals.rows, "row")
        )));
    }
    let result = v1::ReduceResult {
        totals: Some(v1::Totals::new(totals.rows, &totals.counters)),
        row_group_rows: encoded.row_groups.iter().map(|group| group.rows).collect(),
        bytes,
        passes,
        read,
        checksums: encoded.row_groups.iter().map(|group| group.checksum).collect(),
        crc32s: encoded.row_groups.iter().map(|group| group.crc32).collect(),
        footer_crc32: encoded.footer_crc32,
        order: Some(encoded.all.order),
        objectives: counting.map(|counting| counting.counts()).unwrap_or_default(),
        nulls: encoded.nulls,
        spilled_bytes: output.spilled_bytes(),
        network_bytes: context.reading.received.load(Ordering::Relaxed),
    };
    Ok((result, Output::File(output)))
}

/// Checks that the result can list the row groups of the output.
fn check_row_groups(work: &v1::ReduceWork, made: usize) -> Result<(), TaskError> {
    if made > MAX_ROW_GROUPS {
        return Err(TaskError::RowGroups { partition: work.partition, rows: work.row_group_rows });
    }
    Ok(())
}

/// Compares what was read with the expected sums in the task message, if both are known.
fn check(work: &v1::ReduceWork, read: Option<v1::Sums>) -> Result<(), TaskError> {
    match (work.expected, read) {
        (Some(expected), Some(read)) if expected != read => Err(TaskError::Sums(format!(
            "partition {} was read as {} partials with the checksum {:016x}, but the map tasks made {} with {:016x}",
            work.partition, read.rows, read.checksum, expected.rows, expected.checksum
        ))),
        _ => Ok(()),
    }
}

/// The number of passes for tables of `needed` bytes. Passes decide the order of rows. If the task message states the
/// number of an earlier attempt, whose partials may have had other sizes, or the size of a pass, it is used, so that all
/// attempts have the same passes.
fn passes(needed: u64, work: &v1::ReduceWork, shares: Shares) -> Result<u32, TaskError> {
    let share = shares.reduce as u64;
    if needed.checked_div(work.passes.into()).is_some_and(|pass| pass < share) {
        return Ok(work.passes);
    }
    let wanted = if work.table_bytes == 0 { share } else { work.table_bytes };
    // A worker with less memory can still run tasks with small tables.
    let one = needed.min(wanted);
    if one > share {
        return Err(TaskError::Share { wanted, share, raise: shares.option_for_reduce(one) });
    }
    Ok(u32::try_from(needed.div_ceil(wanted.max(1))).unwrap_or(u32::MAX).max(1))
}

/// Rejects inputs that are not exactly one output of each map task of each table.
fn check_complete(map_tasks: &[u32], inputs: &ReduceInputs) -> Result<(), TaskError> {
    // Coordinators of earlier releases do not send the number of map tasks.
    if map_tasks.is_empty() {
        return Ok(());
    }
    if map_tasks.len() != inputs.tables.len() {
        let (listed, tables) = (counted(inputs.tables.len(), "input table"), map_tasks.len());
        return Err(TaskError::Incomplete(format!("outputs of {listed} instead of {tables}")));
    }
    for (table, (list, &tasks)) in inputs.tables.iter().zip(map_tasks).enumerate() {
        let ascending = list.outputs.windows(2).all(|pair| pair[0].index < pair[1].index);
        if list.outputs.len() as u64 != u64::from(tasks) || !ascending {
            let (listed, tasks) = (counted(list.outputs.len(), "output"), counted(tasks, "map task"));
            return Err(TaskError::Incomplete(format!(
                "{listed} of the {tasks} of input table {table}, each to be listed once"
            )));
        }
    }
    Ok(())
}

impl ReduceSources {
    fn open(
        context: &TaskContext,
        job: &JobId,
        partition: u32,
        inputs: &ReduceInputs,
    ) -> Result<Self, TaskError> {
        let mut order = vec![];
        for (table, outputs) in inputs.tables.iter().enumerate() {
            for reference in &outputs.outputs {
                let (reader, attempt) = (reference.location as usize, referred(job, reference));
                order.push(ReduceSource { table, attempt, reader, place: 0 });
            }
        }
        // Concurrent reducers start with different inputs, so that they do not all wait for the translation of the same
        // dictionary.
        if !order.is_empty() {
            let start = partition as usize * 7 % order.len();
            order.rotate_left(start);
        }
        let mut wanted: Vec<Vec<Wanted>> = vec![vec![]; inputs.locations.len()];
        for input in &mut order {
            let mine = required(wanted.get_mut(input.reader), "holder")?;
            input.place = mine.len();
            mine.push(Wanted { attempt: input.attempt.clone(), table: input.table });
        }
        let mut readers = vec![];
        for (holder, wanted) in inputs.locations.iter().zip(wanted) {
            readers.push(context.maps(holder, wanted, partition)?);
        }
        let mut inputs = ReduceSources { order, readers, sizes: vec![Size::default(); inputs.tables.len()] };
        for input in &inputs.order {
            for size in &inputs.readers[input.reader].sizes()?[input.place] {
                inputs.sizes[input.table].rows += size.rows;
                inputs.sizes[input.table].items += size.items;
            }
        }
        Ok(inputs)
    }

    /// Merges all partials in the order of the inputs. Returns the sums of what was read, unless a holder does not know
    /// the checksums.
    fn merge(
        &mut self,
        context: &TaskContext,
        strings: &TaskDictionary,
        dataset: &dyn Dataset,
        reducer: &mut dyn Reducer,
    ) -> Result<Option<v1::Sums>, TaskError> {
        self.readers.iter_mut().for_each(|reader| reader.rewind());
        let mut all = Some(v1::Sums::default());
        for &ReduceSource { table, reader, place, .. } in &self.order {
            let reader = &mut *self.readers[reader];
            for run in 0..reader.sizes()?[place].len() {
                let listed = reader.sizes()?[place][run];
                if listed.rows == 0 {
                    continue;
                }
                context.check_cancelled()?;
                let codes = reader.codes(place, run, strings)?;
                check_dictionary(reader, place, listed, &codes)?;
                let mut seen = RunCheck { dataset, table, rows: 0, checksum: 0, fault: None };
                reader.read(place, run, &mut |batch| {
                    seen.take(batch, |rows| reducer.merge(table, rows, &codes, strings));
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

/// Compares the dictionary's checksum before any of its codes is used.
fn check_dictionary(
    reader: &dyn MapReader,
    output: usize,
    listed: ListedRun,
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

/// Rows that are summed and merged at a time, so that merging finds them in the cache.
const COUNTED: usize = 4 << 10;

/// The sums of what was read of a run in a partition.
struct RunCheck<'a> {
    dataset: &'a dyn Dataset,
    table: usize,
    rows: u64,
    checksum: u64,
    /// The first error.
    fault: Option<DatasetError>,
}

impl RunCheck<'_> {
    /// Sums rows and merges them. After an error the remaining rows are only summed, because the checksum decides the
    /// cause of the error.
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

    /// Compares the sums with those of the holder.
    fn check(
        self,
        reader: &dyn MapReader,
        output: usize,
        listed: ListedRun,
    ) -> Result<Option<v1::Sums>, TaskError> {
        let RunCheck { rows, checksum, fault, .. } = self;
        if let Some((made, _)) = listed.checksums
            && (rows, checksum) != (listed.rows, made)
        {
            let what = format!(
                "its rows were read with the checksum {checksum:016x} ({}), but made with {made:016x} ({})",
                counted(rows, "row"),
                counted(listed.rows, "row")
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

#[cfg(test)]
mod tests {
    use tally_proto::WorkerId;

    use super::*;
    use crate::shares::WorkerConfig;

    #[test]
    fn an_output_has_a_limited_number_of_row_groups() {
        let work = v1::ReduceWork { partition: 7, row_group_rows: 2, ..Default::default() };
        for made in [0, MAX_ROW_GROUPS - 1, MAX_ROW_GROUPS] {
            assert!(check_row_groups(&work, made).is_ok());
        }
        let error = check_row_groups(&work, MAX_ROW_GROUPS + 1).unwrap_err().to_string();
        for part in ["partition 7", "200000 row groups of 2 rows", "larger --target-file-size"] {
            assert!(error.contains(part), "{error}");
        }
    }

    /// A task with that many map tasks by input table, and these outputs of each table.
    fn complete(map_tasks: &[u32], listed: &[&[u32]]) -> Result<(), TaskError> {
        let output = |&index: &u32| v1::OutputRef { index, ..Default::default() };
        let table = |list: &&[u32]| v1::TableOutputs { outputs: list.iter().map(output).collect() };
        let tables = listed.iter().map(table).collect();
        check_complete(map_tasks, &ReduceInputs { tables, locations: vec![] })
    }

    #[test]
    fn inputs_are_exactly_one_output_of_each_promised_map_task() {
        assert!(complete(&[2, 1], &[&[0, 1], &[2]]).is_ok());
        assert!(complete(&[0, 0], &[&[], &[]]).is_ok());
        for (map_tasks, listed, part) in [
            (&[2, 1][..], &[&[0][..], &[2]][..], "1 output of the 2 map tasks of input table 0"),
            (&[2, 1], &[&[0, 1], &[]], "0 outputs of the 1 map task of input table 1"),
            (&[1, 1], &[&[0, 1], &[2]], "2 outputs of the 1 map task of input table 0"),
            (&[2, 1], &[&[1, 1], &[2]], "each to be listed once"),
            (&[2, 1], &[&[0, 1]], "outputs of 1 input table instead of 2"),
            (&[2], &[&[0, 1], &[2]], "outputs of 2 input tables instead of 1"),
        ] {
            let error = complete(map_tasks, listed).unwrap_err().to_string();
            assert!(error.contains("not complete") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn attempts_have_the_passes_of_the_first_one_if_they_have_the_memory() {
        let config = WorkerConfig {
            id: WorkerId::parse("w").unwrap(),
            slots: 1,
            memory_limit: 4 << 20,
            memory_option: 4 << 20,
            spill_dir: "/".into(),
            spill_limit: 0,
        };
        let shares = Shares::new(&config);
        assert_eq!(shares.reduce, 1 << 20);
        const M: u64 = 1 << 20;
        for (needed, table_bytes, earlier, expect) in [
            (0, 0, 0, 1),
            (4 * M, 0, 0, 4),
            (4 * M, M / 2, 0, 8),
            // The partials of the earlier attempt were smaller or larger.
            (4 * M - 4, M / 2, 7, 7),
            (4 * M, M / 2, 9, 9),
            (0, M / 2, 3, 3),
            // This worker has less memory than that of the earlier attempt.
            (4 * M, M / 2, 3, 8),
        ] {
            let work = v1::ReduceWork { table_bytes, passes: earlier, ..Default::default() };
            assert_eq!(
                passes(needed, &work, shares).unwrap(),
                expect,
                "{needed} bytes after {earlier} passes"
            );
        }
        let work = v1::ReduceWork { table_bytes: 2 * M, ..Default::default() };
        assert!(matches!(passes(4 * M, &work, shares), Err(TaskError::Share { .. })));
    }

    #[test]
    fn partials_read_are_compared_with_the_promised_sums() {
        let sums = |rows, checksum| Some(v1::Sums { rows, checksum });
        let compared =
            |expected, read| check(&v1::ReduceWork { partition: 7, expected, ..Default::default() }, read);
        assert!(compared(sums(5, 77), sums(5, 77)).is_ok());
        // Map tasks or holders of earlier releases.
        assert!(compared(None, sums(5, 77)).is_ok() && compared(sums(5, 77), None).is_ok());
        for read in [sums(4, 77), sums(5, 78), sums(0, 0)] {
            let error = compared(sums(5, 77), read).unwrap_err().to_string();
            assert!(error.contains("partition 7 was read as") && error.contains("made 5 with"), "{error}");
        }
    }
}
