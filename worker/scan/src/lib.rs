//! Reads the needed leaf columns of Parquet files and passes them to a mapper in batches of rows.
//!
//! Filter columns are decoded first. Of the other columns, only values of selected rows are resolved. Each string is
//! resolved to a dictionary code once per dictionary value, or once per change of value. Memory use does not depend on
//! the size of a row group: three windows and one page per column. Small files and row groups of an object store are
//! fetched whole, as far as the budget allows.
//!
//! Not here: the meaning of rows (the dataset), the choice of shards (the planner), the mapper's memory (the map task).

mod batches;
mod codec;
mod columns;
mod cursor;
mod delta;
mod delta_ints;
mod dictionary;
#[cfg(test)]
mod encoded;
mod entries;
mod error;
pub mod excerpt;
mod feed;
mod fetch;
mod fixed_ints;
pub mod footer;
mod hybrid;
mod joint;
mod layout;
mod list;
#[cfg(test)]
mod list_shapes;
mod lists;
mod lz4;
mod metadata;
#[cfg(test)]
mod numbers;
mod page;
mod page_header;
pub mod presence;
mod reader;
pub mod resolve;
mod runs;
mod schema;
mod schema_cache;
#[cfg(test)]
mod shapes;
mod snappy;
mod source;
mod spread;
mod text;
mod thrift;
mod values;
#[cfg(test)]
mod written;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::schema::types::ColumnDescPtr;
use tally_common::budget::Budget;
use tally_dataset::{ColumnKind, Mapper, TableSpec};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use batches::Lead;
use error::Fault;
pub use error::{FilePosition, ScanError};
use feed::Feed;
pub use fetch::AbortOnDrop;
use fetch::{Arrivals, Fetch};
pub use joint::RowGroups;
use page::Pages;
use reader::Reader;
use resolve::{Leaf, Lookup, is_element, kind_name};
use source::Carrier;
pub use source::WholeFile;
pub use source::{InputFile, OpenFile, SMALL_FILE};

/// What all scans of a task share.
#[derive(Clone)]
pub struct ScanContext {
    /// The runtime that fetches run on.
    pub io: Handle,
    /// Bytes per read.
    pub window: u64,
    /// Row groups of an object store up to this size are fetched whole.
    pub whole: u64,
    /// The budget for large pages and dictionaries.
    pub budget: Budget,
    /// Cancelled when the task must stop.
    pub cancelled: CancellationToken,
    /// Progress counters of the worker, updated during the scan.
    pub counters: Arc<ScanCounters>,
    /// Bytes that this task has fetched.
    pub fetched: Arc<AtomicU64>,
    /// Rows that this task has read.
    pub rows: Arc<AtomicU64>,
}

/// Progress of scans.
#[derive(Debug, Default)]
pub struct ScanCounters {
    /// Rows read.
    pub rows: AtomicU64,
    /// Bytes of column chunks and footers fetched.
    pub bytes: AtomicU64,
}

/// One row group. Its first bytes are requested when it is opened.
pub struct RowGroup<'a> {
    context: &'a ScanContext,
    file: Arc<OpenFile>,
    metadata: Arc<ParquetMetaData>,
    /// Its index in `metadata`.
    at: usize,
    /// Its number in the file.
    number: usize,
    table: &'a TableSpec,
    readers: Vec<Reader>,
    /// How the elements of lists are counted, if the table has columns of elements.
    lead: Option<Lead>,
    /// The column that is being decoded.
    reading: Option<usize>,
    /// Bytes that were requested before they are decoded.
    ahead: u64,
}

/// Called after each batch. It may flush the mapper, and returns whether it did.
pub type AfterBatch<'a> = dyn FnMut(&mut dyn Mapper) -> Result<bool, ScanError> + 'a;

impl<'a> RowGroup<'a> {
    /// Opens row group `number` of a file. Its index in `metadata` is `at`.
    ///
    /// # Errors
    /// [`ScanError`], naming file, row group and column.
    pub fn open(
        context: &'a ScanContext,
        file: Arc<OpenFile>,
        metadata: Arc<ParquetMetaData>,
        at: usize,
        number: usize,
        table: &'a TableSpec,
    ) -> Result<Self, ScanError> {
        RowGroup::locate(context, file, metadata, at, number, table)?.open()
    }

    /// Locates the needed column chunks, and checks that they can be read.
    fn locate(
        context: &'a ScanContext,
        file: Arc<OpenFile>,
        metadata: Arc<ParquetMetaData>,
        at: usize,
        number: usize,
        table: &'a TableSpec,
    ) -> Result<Located<'a>, ScanError> {
        let (readers, lead, reading, ahead) = (vec![], None, None, 0);
        let group = RowGroup { context, file, metadata, at, number, table, readers, lead, reading, ahead };
        let (mut chunks, mut shape) = (vec![], None);
        if group.rows() < 0 {
            return Err(Fault::Corrupt(format!("it has {} rows", group.rows())).at(group.place(None)));
        }
        // The column types of an empty row group do not matter.
        if group.rows() == 0 {
            chunks.resize_with(table.columns.len(), || None);
            return Ok(Located { group, chunks, shape });
        }
        let found = resolve::lookup(group.metadata.file_metadata().schema_descr(), table);
        for (at, lookup) in found.columns.iter().enumerate() {
            chunks.push(group.chunk(at, lookup).map_err(|fault| fault.at(group.place(Some(at))))?);
        }
        let elements = table.columns.iter().position(is_element);
        if let (Some(at), Some(leaf)) = (elements, found.shape) {
            shape = Some(group.chunk_of(leaf).map_err(|fault| fault.at(group.place(Some(at))))?);
        }
        let located = Located { group, chunks, shape };
        located.check_elements()?;
        Ok(located)
    }

    /// Bytes that are in memory or requested before any of them is decoded.
    #[inline]
    pub fn ahead(&self) -> u64 {
        self.ahead
    }

    /// The open file of the row group.
    #[inline]
    pub fn open_file(&self) -> &Arc<OpenFile> {
        &self.file
    }

    /// The file of the row group.
    #[inline]
    pub fn file(&self) -> &InputFile {
        &self.file.input
    }

    /// Its rows, by its footer.
    fn rows(&self) -> i64 {
        self.metadata.row_group(self.at).num_rows()
    }

    fn place(&self, column: Option<usize>) -> FilePosition {
        let column = column.map(|at| self.table.columns[at].path.join("."));
        FilePosition { file: self.file.input.name.clone(), row_group: Some(self.number), column }
    }

    /// The chunk of a column. `None` if the file does not have the column.
    fn chunk(&self, at: usize, lookup: &Lookup) -> Result<Option<Chunk>, Fault> {
        let kind = self.table.columns[at].kind;
        let leaf = match lookup {
            Lookup::Missing => return Ok(None),
            Lookup::Found(leaf) => *leaf,
            Lookup::WrongType(found) => {
                return Fault::corrupt(format!("it must be a {}, but it is {found}", kind_name(kind)));
            }
            Lookup::Ambiguous(names) => {
                return Fault::corrupt(format!(
                    "it may be any of {names} (names match without regard to letter case): rename or remove all but one of them"
                ));
            }
        };
        let chunk = self.chunk_of(leaf)?;
        let in_list = matches!(kind, ColumnKind::ListMinInt32 | ColumnKind::Element(_));
        if !in_list && chunk.values != self.rows() {
            return Fault::corrupt(format!("{} values in a row group of {} rows", chunk.values, self.rows()));
        }
        Ok(Some(chunk))
    }

    /// The chunk of a leaf.
    fn chunk_of(&self, leaf: Leaf) -> Result<Chunk, Fault> {
        let Some(chunk) = self.metadata.row_group(self.at).columns().get(leaf.index) else {
            return Fault::corrupt("its row group does not have the column");
        };
        if chunk.num_values() < 0 {
            return Fault::corrupt(
                "it is encrypted, or the footer describes its column chunk in a way that cannot be read",
            );
        }
        let range = chunk_range(chunk, self.file.input.size)?;
        Ok(Chunk { leaf, range, values: chunk.num_values() })
    }

    /// Counts fetched bytes.
    fn count(&self, bytes: u64) {
        // A file that was fetched whole has been counted already.
        let bytes = if matches!(self.file.carrier, Carrier::Whole(_)) { 0 } else { bytes };
        for count in [&self.context.counters.bytes, &*self.context.fetched] {
            count.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// The pages of a chunk, and the description of its column.
    fn pages(&self, feed: Feed, chunk: &Chunk) -> Result<(Pages, ColumnDescPtr), Fault> {
        let column = self.metadata.row_group(self.at).column(chunk.leaf.index);
        let end = (self.file.clone(), chunk.range.end);
        let pages = Pages::new(feed, column, end, self.context.budget.clone())?;
        Ok((pages, column.column_descr_ptr()))
    }
}

/// A needed column chunk.
struct Chunk {
    leaf: Leaf,
    range: Range<u64>,
    /// Its entries, by the footer.
    values: i64,
}

/// A row group whose needed chunks are located, one per column. Nothing has been requested yet.
struct Located<'a> {
    group: RowGroup<'a>,
    chunks: Vec<Option<Chunk>>,
    /// If no column has elements: the chunk from whose levels they are counted.
    shape: Option<Chunk>,
}

impl<'a> Located<'a> {
    /// The ranges of its needed chunks.
    fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.chunks.iter().flatten().chain(&self.shape).map(|chunk| chunk.range.clone())
    }

    /// The chunks of elements, and their columns.
    fn elements(&self) -> impl Iterator<Item = (usize, &Chunk)> {
        let columns = self.chunks.iter().zip(&self.group.table.columns).enumerate();
        columns.filter_map(|(at, (chunk, spec))| Some((at, chunk.as_ref().filter(|_| is_element(spec))?)))
    }

    /// Checks that all columns of elements have the same number of entries.
    fn check_elements(&self) -> Result<(), ScanError> {
        let Some((first, chunk)) = self.elements().next() else { return Ok(()) };
        let Some((at, other)) = self.elements().find(|(_, other)| other.values != chunk.values) else {
            return Ok(());
        };
        let first = self.group.table.columns[first].path.join(".");
        let what = format!("{} values in lists of which {first} has {}", other.values, chunk.values);
        Err(Fault::Corrupt(what).at(self.group.place(Some(at))))
    }

    /// The column with which the elements of lists are counted, and its entries. The smallest chunk takes the least time.
    fn lead(&self) -> Option<(usize, i64)> {
        let smallest = self.elements().min_by_key(|(_, chunk)| chunk.range.end - chunk.range.start);
        smallest.map(|(at, chunk)| (at, chunk.values))
    }

    /// Bytes of its needed chunks.
    fn bytes(&self) -> u64 {
        self.ranges().map(|range| range.end - range.start).sum()
    }

    /// Opens it. Its chunks are fetched in windows.
    fn open(self) -> Result<RowGroup<'a>, ScanError> {
        let (context, file) = (self.group.context, self.group.file.clone());
        self.with_feeds(|range| Ok(Feed::start(context, &file, range)))
    }

    /// Opens it. Its chunks are the next ones that `fetch` delivers.
    fn open_fetched(
        mut self,
        fetch: &Fetch,
        arrivals: &mut impl Iterator<Item = Arrivals>,
    ) -> Result<RowGroup<'a>, ScanError> {
        let (context, file) = (self.group.context, self.group.file.clone());
        self.group.ahead = self.bytes();
        self.with_feeds(|range| {
            let arrivals = arrivals.next().ok_or_else(|| Fault::Io("its bytes were not requested".into()))?;
            Ok(Feed::fetched(context, &file.input.name, range.end - range.start, arrivals, fetch.clone()))
        })
    }

    /// Creates the readers over the feeds of its chunks.
    fn with_feeds(
        self,
        mut feed: impl FnMut(Range<u64>) -> Result<Feed, Fault>,
    ) -> Result<RowGroup<'a>, ScanError> {
        let (bytes, lead) = (self.bytes(), self.lead());
        let Located { mut group, chunks, shape } = self;
        group.count(bytes);
        let specs = &group.table.columns;
        for (at, (spec, chunk)) in specs.iter().zip(&chunks).enumerate() {
            let reader = match chunk {
                None => Ok(Reader::Absent),
                Some(chunk) => feed(chunk.range.clone())
                    .and_then(|feed| Reader::new(group.pages(feed, chunk)?, chunk.leaf, spec.kind)),
            };
            group.readers.push(reader.map_err(|fault| fault.at(group.place(Some(at))))?);
        }
        if let Some(first) = specs.iter().position(is_element) {
            let shape = shape.map(|chunk| {
                feed(chunk.range.clone())
                    .and_then(|feed| {
                        Ok((Reader::elements(group.pages(feed, &chunk)?, chunk.leaf), chunk.values))
                    })
                    .map_err(|fault| fault.at(group.place(Some(first))))
            });
            group.lead = Some(Lead::new(group.table, lead, shape.transpose()?));
        }
        Ok(group)
    }
}

/// The range of a column chunk, checked against the file size because footers are untrusted input.
pub fn checked_range(chunk: &ColumnChunkMetaData, file_size: u64) -> Option<Range<u64>> {
    let data = u64::try_from(chunk.data_page_offset()).ok()?;
    let start = match chunk.dictionary_page_offset() {
        // Some writers store 0 if there is no dictionary.
        Some(offset) if offset > 0 => data.min(u64::try_from(offset).ok()?),
        _ => data,
    };
    let end = start.checked_add(u64::try_from(chunk.compressed_size()).ok()?)?;
    (end <= file_size).then_some(start..end)
}

/// The same, or why it is not in the file.
fn chunk_range(chunk: &ColumnChunkMetaData, file_size: u64) -> Result<Range<u64>, Fault> {
    checked_range(chunk, file_size).ok_or_else(|| {
        let (offset, size) = (chunk.data_page_offset(), chunk.compressed_size());
        Fault::Corrupt(match offset.min(size) {
            ..0 => format!("its column chunk has the offset {offset} and the size {size}"),
            _ => "its column chunk extends beyond the end of the file".into(),
        })
    })
}
