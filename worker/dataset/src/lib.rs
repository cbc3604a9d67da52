//! What a dataset of Tally's means, behind one trait: which columns it reads, how rows become
//! partials (map), how partials of one client meet (merge), which rows come out (finalize), and
//! all schemas on the way.
//!
//! Not here: files, threads, async, memory budgets, the network. The scan hands columns in, the
//! task runner carries record batches on; a second dataset is a second implementation of
//! [`Dataset`] and needs no change elsewhere.

pub mod addon_aggregates;
pub mod batch;
pub mod bits;
pub mod checksum;
pub mod client_id;
pub mod clients;
pub mod interner;
pub mod pair_set;
pub mod partition;
mod prefetch;

use std::sync::Arc;

use arrow::array::{BinaryArray, RecordBatch};
use arrow::datatypes::SchemaRef;

pub use batch::{BATCH_ROWS, Batch, Column, NULL_SYMBOL};
pub use bits::Bits;
pub use checksum::Fingerprint;

/// What a needed column holds, and so how the scan delivers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// Booleans, as two bitmaps.
    Bool,
    /// Signed integers of 64 bits.
    Int64,
    /// Strings, each delivered as the symbol that [`Mapper::resolve`] gave for it.
    Text,
    /// A 32-bit integer inside the elements of a list: delivered as the least of each row.
    ListMinInt32,
}

/// What to do where a column is in no file of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The job cannot mean anything without it.
    Fails,
    /// It counts as null, with a warning.
    IsNull,
}

/// One needed leaf of an input table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Field names from the root. The list levels between them, whatever their layout, are not
    /// named.
    pub path: &'static [&'static str],
    /// How it is delivered.
    pub kind: ColumnKind,
    /// Whether the selection needs it: such columns are decoded first, for all rows; the others
    /// only for the rows selected.
    pub filter: bool,
    /// What its absence from every file of the day means.
    pub missing: Missing,
}

/// One input table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// The table's name in messages, and its default folder.
    pub name: &'static str,
    /// What is read of it, in the order of [`Batch::columns`].
    pub columns: Vec<ColumnSpec>,
}

/// What a mapper gives at a flush: its partials sorted by partition, self-contained.
#[derive(Debug, Clone)]
pub struct MapRun {
    /// All partials, those of one partition next to each other, in [`Dataset::partial_schema`].
    pub batch: RecordBatch,
    /// Partition `p` is the rows `offsets[p] .. offsets[p + 1]`; one more than partitions.
    pub offsets: Vec<u32>,
    /// The strings behind the codes in `batch`; a code is an index.
    pub dictionary: BinaryArray,
}

/// Why rows could not be aggregated. Both are limits, not bugs: the message says which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatasetError {
    /// Codes have 30 bits.
    #[error("more than {} distinct strings in one dictionary", interner::MAX_CODES)]
    TooManyStrings,
    /// Their numbers have 32 bits.
    #[error(
        "more than {} distinct clients in one table: cut the day into more partitions (--partitions)",
        clients::MAX_CLIENTS
    )]
    TooManyClients,
    /// Arrow's list and string offsets have 31 bits.
    #[error("a partial of {0} entries is too large for one record batch")]
    TooLarge(usize),
    /// Output strings are UTF-8; so must client ids be.
    #[error("a client id that is not UTF-8: {0}")]
    NotUtf8(String),
    /// A partial that does not have the schema it should have.
    #[error("a shuffled batch is malformed: {0}")]
    Malformed(String),
}

/// Map side: rows in, partials keyed by client out, deduplicated within what it holds.
pub trait Mapper: Send {
    /// Clears the bits of rows that contribute nothing; sees only the filter columns.
    fn select(&self, batch: &Batch, selected: &mut Bits);

    /// The symbols of non-null strings of a text column, as many as there is room for in
    /// `symbols`. Asked once for each dictionary value or change of value, not for each row, and
    /// for many at a time, so that their look-ups can overlap; valid until the next flush.
    ///
    /// # Errors
    /// [`DatasetError::TooManyStrings`], [`DatasetError::TooManyClients`] or [`DatasetError::NotUtf8`].
    fn resolve(&mut self, column: usize, values: &[&[u8]], symbols: &mut [u32]) -> Result<(), DatasetError>;

    /// Takes the selected rows in.
    fn consume(&mut self, batch: &Batch, selected: &Bits);

    /// Bytes that it may hold after one more batch, at worst (tables double as they grow).
    fn footprint(&self) -> usize;

    /// Whether nothing was consumed since the last flush.
    fn is_empty(&self) -> bool;

    /// Gives what it holds and starts anew; symbols given before are void.
    ///
    /// # Errors
    /// [`DatasetError::TooLarge`].
    fn flush(&mut self) -> Result<MapRun, DatasetError>;
}

/// Counts of one partition; they add up over partitions, as partitions share no client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Output rows.
    pub rows: u64,
    /// Distinct clients, the null client being one.
    pub clients: u64,
    /// Those with a custom theme at some time of the day.
    pub custom_theme_clients: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.clients += other.clients;
        self.custom_theme_clients += other.custom_theme_clients;
    }
}

/// Where a reducer's rows go, batch by batch.
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
/// The rows and their order are a function of the partials alone, of the order in which they come, and of the pass: codes
/// of strings, which differ from process to process, decide neither which pass takes a client nor where it stands.
pub trait Reducer: Send {
    /// Merges partials of input table `table`; `codes[c]` is the process-wide code of the
    /// partial's code `c`, and `texts` has the strings of those.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] where the batch has not the partial schema; [`DatasetError::TooManyClients`].
    fn merge(
        &mut self,
        table: usize,
        batch: &RecordBatch,
        codes: &[u32],
        texts: &dyn Texts,
    ) -> Result<(), DatasetError>;

    /// Bytes held now.
    fn memory(&self) -> usize;

    /// Gives all rows in batches of [`Dataset::reduced_schema`], and the counts.
    ///
    /// # Errors
    /// What the sink said.
    fn finish(&mut self, texts: &dyn Texts, sink: &mut RowSink<'_>) -> Result<Totals, ReduceError>;
}

/// Strings by their process-wide code.
pub trait Texts {
    /// Appends the string of `code` to `out`.
    fn append(&self, code: u32, out: &mut Vec<u8>);

    /// Puts in place of each code the CRC-32 of its string.
    fn crc32s(&self, codes: &mut [u32]);
}

/// How the clients of a partition are cut further where one table of all would not fit: each
/// pass reads the partition's partials again and takes its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// This pass, from 0.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl Pass {
    /// Everything in one go.
    pub const WHOLE: Pass = Pass { index: 0, of: 1 };
}

/// How much of partials there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u64,
    /// Items of nested lists.
    pub items: u64,
}

/// A dataset: the whole of what the engine needs to know of a job's meaning.
pub trait Dataset: Send + Sync {
    /// Stable name, part of a job's identity.
    fn name(&self) -> &'static str;

    /// Input tables, in the order of every `table` argument.
    fn tables(&self) -> &[TableSpec];

    /// The schema of table `table`'s partials.
    fn partial_schema(&self, table: usize) -> SchemaRef;

    /// A mapper of table `table` into `partitions` partitions.
    fn mapper(&self, table: usize, partitions: u32) -> Box<dyn Mapper>;

    /// A reducer of one pass over one partition, whose partials have these sizes, by table.
    fn reducer(&self, pass: Pass, sizes: &[Size]) -> Box<dyn Reducer>;

    /// Bytes that one reducer of all partials of these sizes needs at most.
    fn reducer_bytes(&self, sizes: &[Size]) -> u64;

    /// Checksums of the rows of a batch of table `table`'s partials, as they are stored: of the rows
    /// `offsets[p] .. offsets[p + 1]` for each `p`. The order of rows does not matter.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] where the batch has not the partial schema, or fewer rows.
    fn partial_checksums(
        &self,
        table: usize,
        batch: &RecordBatch,
        offsets: &[u32],
    ) -> Result<Vec<u64>, DatasetError>;

    /// Takes rows of [`Dataset::reduced_schema`] into a fingerprint, by their values.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] where the batch has another schema.
    fn fingerprint(&self, batch: &RecordBatch, all: &mut Fingerprint) -> Result<(), DatasetError>;

    /// The output's columns, in order.
    fn output_schema(&self) -> SchemaRef;

    /// The leading columns of the output that a reducer gives; the rest are
    /// [`Dataset::constants`].
    fn reduced_schema(&self) -> SchemaRef;

    /// The values of the remaining columns, the same in every row, from the job's totals.
    ///
    /// # Errors
    /// The count that does not fit its column.
    fn constants(&self, totals: &Totals) -> Result<Vec<i32>, String>;

    /// Output bytes a row that the number of files is reckoned with.
    fn bytes_per_row(&self) -> u64;
}

/// The dataset of a name, if there is one.
pub fn dataset(name: &str) -> Option<Arc<dyn Dataset>> {
    match name {
        addon_aggregates::NAME => Some(Arc::new(addon_aggregates::AddonAggregates::new())),
        _ => None,
    }
}
