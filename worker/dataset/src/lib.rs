//! The engine's view of a dataset, behind one trait: which tables and columns it reads, how rows become
//! partials (map), how partials of one key are merged, which rows result (reduce), and all schemas in
//! between. Tally's own datasets are `addon_aggregates` and `addon_aggregates_v2`.
//!
//! A new dataset implements [`Dataset`] and is passed to the binaries in a list ([`registry`]); the engine does not
//! change. The modules `keys`, `uuid`, `interner`, `pair_set`, `partition`, `partials`, `output_rows` and `checksum` are building
//! blocks for mappers and reducers.
//!
//! Not here: files, threads, async, memory budgets, the network. The scan passes columns in, and the tasks of a worker
//! carry record batches on.

pub mod addon_aggregates;
pub mod addon_aggregates_v2;
pub mod batch;
pub mod bits;
pub mod checksum;
pub mod interner;
pub mod keys;
pub mod objectives;
pub mod options;
pub mod output_rows;
pub mod pair_set;
pub mod partials;
pub mod partition;
mod prefetch;
mod probing;
pub mod registry;
pub mod spec;
pub mod totals;
pub mod uuid;
pub mod wide_set;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;

pub use batch::{BATCH_ROWS, Batch, Column, NULL_CODE, Width};
pub use bits::Bits;
pub use checksum::Fingerprint;
pub use objectives::{Counting, Counts, ObjectivesSpec};
pub use options::{OptionError, OptionSpec};
pub use registry::dataset;
pub use spec::{
    ColumnEncoding, ColumnKind, ColumnSpec, ElementKind, FolderSpec, Missing, Preset, TableSpec, TotalSpec,
};
pub use totals::Totals;

/// Maximum bytes of a value of a text column, and of a row of partials, so that each fits into a message between workers.
/// It holds in a single process, too: a day that one process accepts is accepted by a cluster.
pub const MAX_ROW_BYTES: usize = 15 << 20;
/// Bytes of a long value that an error shows.
const SHOWN: usize = 100;

/// The output of a mapper's flush: its partials sorted by partition, with the dictionary that they need.
#[derive(Debug, Clone)]
pub struct MapRun {
    /// All partials, those of one partition next to each other, in [`Dataset::partial_schema`].
    pub batch: RecordBatch,
    /// Partition `p` is the rows `offsets[p] .. offsets[p + 1]`; one more than partitions.
    pub offsets: Vec<u32>,
    /// The strings of the codes in `batch`; a code is an index.
    pub dictionary: BinaryArray,
}

/// Why rows cannot be aggregated: a limit, or input that does not have the form that it should have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatasetError {
    /// Codes have 30 bits.
    #[error("more than {} distinct strings in one dictionary", interner::MAX_CODES)]
    TooManyStrings,
    /// Numbers of keys have 32 bits.
    #[error(
        "more than {} distinct keys in one table: divide the day into more partitions (--partitions)",
        keys::MAX_KEYS
    )]
    TooManyKeys,
    /// Arrow's list and string offsets have 31 bits.
    #[error("a partial of {0} entries is too large for one record batch")]
    TooLarge(usize),
    /// Output strings are UTF-8, so what they are made of must be UTF-8, too.
    #[error("a value of a column that the output has is not UTF-8: {0}")]
    NotUtf8(String),
    /// A value of a text column is too long.
    #[error(
        "a value of {bytes} bytes is longer than the limit of {} MiB: shorten it or leave out its row; it begins with \
        \"{start}\"",
        MAX_ROW_BYTES >> 20
    )]
    LongValue {
        /// Its length.
        bytes: usize,
        /// Its beginning, without invalid characters.
        start: String,
    },
    /// A row of partials is too large.
    #[error("a row of {bytes} bytes of intermediate data is larger than the limit of {} MiB", MAX_ROW_BYTES >> 20)]
    LongRow {
        /// Its bytes.
        bytes: usize,
    },
    /// A partial does not have the schema of its table's partials.
    #[error("a shuffled batch is malformed: {0}")]
    Malformed(String),
    /// A total of the job does not fit its output column.
    #[error("{name} is {value}: more than its column can hold")]
    TotalTooLarge {
        /// The name of the total.
        name: &'static str,
        /// Its value.
        value: u64,
    },
}

/// Checks the lengths of the values of a text column.
///
/// # Errors
/// [`DatasetError::LongValue`].
#[inline]
pub fn check_values(values: &[&[u8]]) -> Result<(), DatasetError> {
    match values.iter().find(|value| value.len() > MAX_ROW_BYTES) {
        None => Ok(()),
        Some(value) => Err(long_value(value)),
    }
}

#[cold]
fn long_value(value: &[u8]) -> DatasetError {
    let shown = String::from_utf8_lossy(&value[..SHOWN.min(value.len())]);
    let start = shown.trim_end_matches(char::REPLACEMENT_CHARACTER).escape_debug().to_string();
    DatasetError::LongValue { bytes: value.len(), start }
}

/// Map side: rows in, partials by key out, deduplicated among the rows since the last flush.
pub trait Mapper: Send {
    /// Clears the bits of rows that contribute nothing; only the filter columns of `batch` are filled.
    fn select(&self, batch: &Batch, selected: &mut Bits);

    /// Writes the dictionary codes of non-null strings of a text column into `codes`, which is as long as `values`.
    /// Called once per dictionary value or change of value, not once per row, and for many values at a time, so that
    /// their lookups can overlap. Codes are valid until the next flush.
    ///
    /// # Errors
    /// [`DatasetError::TooManyStrings`], [`DatasetError::TooManyKeys`] or [`DatasetError::NotUtf8`].
    fn resolve(&mut self, column: usize, values: &[&[u8]], codes: &mut [u32]) -> Result<(), DatasetError>;

    /// Aggregates the selected rows.
    fn consume(&mut self, batch: &Batch, selected: &Bits);

    /// Upper bound of the bytes held after another batch (tables double as they grow).
    fn footprint(&self) -> usize;

    /// Whether nothing was consumed since the last flush.
    fn is_empty(&self) -> bool;

    /// Returns all partials and clears the mapper; codes of earlier calls of [`Mapper::resolve`] are invalid.
    ///
    /// # Errors
    /// [`DatasetError::TooLarge`].
    fn flush(&mut self) -> Result<MapRun, DatasetError>;
}

/// Receives a reducer's rows, batch by batch.
pub type RowSink<'a> = dyn FnMut(RecordBatch) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Why a reducer did not finish.
#[derive(Debug, thiserror::Error)]
pub enum ReduceError {
    /// A limit of the dataset, or malformed input.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The sink refused a batch.
    #[error(transparent)]
    Sink(Box<dyn std::error::Error + Send + Sync>),
}

/// Reduce side: all partials of one partition in, its output rows out.
///
/// The rows and their order depend only on the partials, on the order in which they are merged, and on the pass.
/// Dictionary codes differ between processes, so neither the pass of a key nor the order of rows may depend on them.
pub trait Reducer: Send {
    /// Merges partials of input table `table`; `codes[c]` is the process-wide code for the
    /// partial's code `c`, and `strings` has the strings of the process-wide codes.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] if the batch does not have the partial schema; [`DatasetError::TooManyKeys`].
    fn merge(
        &mut self,
        table: usize,
        batch: &RecordBatch,
        codes: &[u32],
        strings: &dyn StringDictionary,
    ) -> Result<(), DatasetError>;

    /// Bytes held now.
    fn memory(&self) -> usize;

    /// Passes all rows to `sink`, in batches of [`Dataset::reduced_schema`], and returns the totals.
    ///
    /// # Errors
    /// The error of the sink, or a limit.
    fn finish(
        &mut self,
        strings: &dyn StringDictionary,
        sink: &mut RowSink<'_>,
    ) -> Result<Totals, ReduceError>;
}

/// The strings of a job in this process, by dictionary code.
pub trait StringDictionary {
    /// Appends the string of `code` to `out`.
    fn append(&self, code: u32, out: &mut Vec<u8>);

    /// Replaces each code by the CRC-32 of its string.
    fn crc32s(&self, codes: &mut [u32]);
}

/// A share of a partition's keys. Where a table of all keys would not fit into memory, several passes read the
/// partition's partials, and each takes its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// This pass, from 0.
    pub index: u32,
    /// The number of passes.
    pub of: u32,
}

impl Pass {
    /// The only pass.
    pub const WHOLE: Pass = Pass { index: 0, of: 1 };
}

/// The size of partials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u64,
    /// Items of nested lists.
    pub items: u64,
}

/// A row that no job can produce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImpossibleRow {
    /// Its number in the batch, from 0.
    pub row: usize,
    /// What is wrong with it, for example `count is 0`.
    pub fault: String,
}

impl ImpossibleRow {
    /// The first of this number of rows with a fault.
    pub fn first(rows: usize, fault: impl Fn(usize) -> Option<String>) -> Option<Self> {
        (0..rows).find_map(|row| fault(row).map(|fault| ImpossibleRow { row, fault }))
    }
}

/// A dataset: all that the engine knows of what a job computes.
pub trait Dataset: Send + Sync {
    /// The name, which jobs and part files record: it never changes.
    fn name(&self) -> &'static str;

    /// What it is, in a sentence for people.
    fn meaning(&self) -> &'static str {
        ""
    }

    /// What a column of the output means, in a few words for people; empty if its name says it.
    fn column_meaning(&self, column: &str) -> &'static str {
        let _ = column;
        ""
    }

    /// The options of a job.
    fn options(&self) -> &[OptionSpec] {
        &[]
    }

    /// The dataset with these options, by name; an option that is absent has its default. A dataset with options
    /// implements this.
    ///
    /// # Errors
    /// [`OptionError::Unknown`] for a name that [`Dataset::options`] does not have, [`OptionError::Invalid`] for a value.
    fn with_options(&self, values: &BTreeMap<String, Vec<u8>>) -> Result<Arc<dyn Dataset>, OptionError> {
        registry::without_options(self.name(), values)
    }

    /// Input tables, in the order of every `table` argument.
    fn tables(&self) -> &[TableSpec];

    /// The partition column of inputs and output: the day `D` is stored in the folder `COLUMN=D` below each root.
    fn partition_column(&self) -> &'static str;

    /// Named locations of its inputs and its output.
    fn presets(&self) -> &[Preset] {
        &[]
    }

    /// The column of inputs and output whose values decide the partition of the shuffle.
    fn key_column(&self) -> &'static str;

    /// The counters of a job, in the order of [`Totals::counters`].
    fn totals(&self) -> &[TotalSpec];

    /// The schema of table `table`'s partials.
    fn partial_schema(&self, table: usize) -> SchemaRef;

    /// The second partition column of inputs and output, if there is one. The partition of a row is then its folder.
    fn folders(&self) -> Option<FolderSpec> {
        None
    }

    /// A mapper of table `table` into `partitions` partitions. `folder` is the folder of all its rows, with
    /// [`Dataset::folders`].
    fn mapper(&self, table: usize, partitions: u32, folder: Option<u32>) -> Box<dyn Mapper>;

    /// A reducer of one pass over one partition; `sizes` are those of its partials, by table.
    fn reducer(&self, pass: Pass, sizes: &[Size]) -> Box<dyn Reducer>;

    /// Upper bound of the bytes that a single pass over partials of these sizes needs.
    fn reducer_bytes(&self, sizes: &[Size]) -> u64;

    /// Checksums of a batch of table `table`'s partials, as they are stored: one for the rows
    /// `offsets[p] .. offsets[p + 1]` of each `p`. They do not depend on the order of the rows.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] if the batch does not have the partial schema, or has fewer rows.
    fn partial_checksums(
        &self,
        table: usize,
        batch: &RecordBatch,
        offsets: &[u32],
    ) -> Result<Vec<u64>, DatasetError>;

    /// Adds rows of [`Dataset::reduced_schema`] to a fingerprint, by their values.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] if the batch has another schema.
    fn fingerprint(&self, batch: &RecordBatch, all: &mut Fingerprint) -> Result<(), DatasetError>;

    /// The output's columns, in order.
    fn output_schema(&self) -> SchemaRef;

    /// The leading columns of the output, which reducers compute; the others are
    /// [`Dataset::constants`].
    fn reduced_schema(&self) -> SchemaRef;

    /// The values of the remaining columns, from the job's totals: for each column an array of one element, which every
    /// row has.
    ///
    /// # Errors
    /// [`DatasetError::TotalTooLarge`].
    fn constants(&self, totals: &Totals) -> Result<Vec<ArrayRef>, DatasetError>;

    /// How a column of [`Dataset::reduced_schema`] is encoded.
    fn encoding(&self, column: &str) -> ColumnEncoding {
        if column == self.key_column() { ColumnEncoding::PlainRuns } else { ColumnEncoding::Dictionary }
    }

    /// What is counted in the output rows to follow objectives; `None` if nothing is.
    fn objectives(&self) -> Option<&ObjectivesSpec> {
        None
    }

    /// Counts the rows of a reduce task for [`Dataset::objectives`]; `day` is the day of the job, in days since 1970.
    fn counting(&self, day: i64) -> Option<Box<dyn Counting>> {
        let _ = day;
        None
    }

    /// The columns of the output whose values together identify a row of a day: no two rows have the same ones. Empty if
    /// the dataset does not promise that.
    fn unique_columns(&self) -> &[&'static str] {
        &[]
    }

    /// Finds a row of [`Dataset::output_schema`] that no job can produce, whatever its inputs are.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] if the batch has another schema.
    fn impossible_row(&self, _rows: &RecordBatch) -> Result<Option<ImpossibleRow>, DatasetError> {
        Ok(None)
    }

    /// For each of [`Dataset::totals`], the rows of [`Dataset::output_schema`] whose key is counted by that total, so that
    /// it cannot be less than the number of distinct keys of these rows. Empty if rows prove nothing about totals.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] if the batch has another schema.
    fn counted_rows(&self, _rows: &RecordBatch) -> Result<Vec<BooleanArray>, DatasetError> {
        Ok(vec![])
    }

    /// Estimated bytes per output row, for the number of files and the size of their row groups.
    fn bytes_per_row(&self) -> u64;
}
