//! Reads the needed leaf columns of Parquet files and passes them to a mapper in batches of rows.
//!
//! Filter columns are decoded first. Of the other columns, only values of selected rows are resolved. Each string is
//! resolved to a dictionary code once per dictionary value, or once per change of value. Memory use does not depend on
//! the size of a row group: three windows and one page per column. Small files and row groups of an object store are
//! fetched whole, as far as the budget allows.
//!
//! Not here: the meaning of rows (the dataset), the choice of shards (the planner), the mapper's memory (the map task).

mod codec;
mod columns;
mod delta;
mod delta_ints;
mod dictionary;
#[cfg(test)]
mod encoded;
mod error;
pub mod excerpt;
mod feed;
mod fetch;
mod fixed_ints;
pub mod footer;
mod hybrid;
mod joint;
mod list;
mod lz4;
mod metadata;
mod page;
mod page_header;
pub mod presence;
pub mod resolve;
mod runs;
mod schema;
mod schema_cache;
#[cfg(test)]
mod shapes;
mod snappy;
mod source;
mod text;
mod thrift;
mod values;
#[cfg(test)]
mod written;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use tally_common::budget::Budget;
use tally_dataset::{
    BATCH_ROWS, Batch, Bits, Column, ColumnKind, ColumnSpec, Mapper, TableSpec, check_values,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use columns::{BoolReader, Flat, Int64Reader};
use error::Fault;
pub use error::{FilePosition, ScanError};
use feed::Feed;
pub use fetch::AbortOnDrop;
use fetch::{Arrivals, Fetch};
pub use joint::RowGroups;
use list::ListMinReader;
use page::Pages;
use resolve::{Leaf, Lookup, kind_name};
use source::Carrier;
pub use source::WholeFile;
pub use source::{InputFile, OpenFile, SMALL_FILE};
use text::TextReader;

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

enum Reader {
    Bool(BoolReader),
    Int64(Int64Reader),
    Text(TextReader),
    ListMin(ListMinReader),
    /// The file does not have the column: all rows are null.
    Absent,
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
        let group =
            RowGroup { context, file, metadata, at, number, table, readers: vec![], reading: None, ahead: 0 };
        let mut chunks = vec![];
        for (at, spec) in table.columns.iter().enumerate() {
            chunks.push(group.chunk(spec).map_err(|fault| fault.at(group.place(Some(at))))?);
        }
        Ok(Located { group, chunks })
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

    /// Reads the row group into `mapper`.
    ///
    /// # Errors
    /// [`ScanError`], naming file, row group and column. A panic in a decoder is returned as an error.
    pub fn read(mut self, mapper: &mut dyn Mapper, after: &mut AfterBatch<'_>) -> Result<(), ScanError> {
        let read = AssertUnwindSafe(|| self.read_batches(mapper, after));
        catch_unwind(read).unwrap_or_else(|_| {
            let what = "a decoder panicked on its bytes (see the log)".into();
            Err(ScanError::Corrupt { place: self.place(self.reading), what })
        })
    }

    fn read_batches(&mut self, mapper: &mut dyn Mapper, after: &mut AfterBatch<'_>) -> Result<(), ScanError> {
        let specs = &self.table.columns;
        let columns = specs.iter().map(|spec| Column::new(spec.kind)).collect();
        let mut batch = Batch { rows: 0, columns, ends: vec![] };
        let mut selected = Bits::default();
        let mut left = usize::try_from(self.metadata.row_group(self.at).num_rows()).unwrap_or(0);
        while left > 0 {
            if self.context.cancelled.is_cancelled() {
                return Err(ScanError::Cancelled);
            }
            batch.rows = left.min(BATCH_ROWS);
            left -= batch.rows;
            selected.clear();
            selected.push_run(true, batch.rows);
            for filters in [true, false] {
                for (at, _) in specs.iter().enumerate().filter(|(_, spec)| spec.filter == filters) {
                    self.reading = Some(at);
                    read_column(&mut self.readers[at], at, &mut batch, &selected, mapper)
                        .map_err(|fault| fault.at(self.place(Some(at))))?;
                }
                if filters {
                    mapper.select(&batch, &mut selected);
                }
            }
            mapper.consume(&batch, &selected);
            for count in [&self.context.counters.rows, &*self.context.rows] {
                count.fetch_add(batch.rows as u64, Ordering::Relaxed);
            }
            if after(mapper)? {
                for reader in &mut self.readers {
                    if let Reader::Text(reader) = reader {
                        reader.forget();
                    }
                }
            }
        }
        Ok(())
    }

    fn place(&self, column: Option<usize>) -> FilePosition {
        let column = column.map(|at| self.table.columns[at].path.join("."));
        FilePosition { file: self.file.input.name.clone(), row_group: Some(self.number), column }
    }

    /// The range of a column's bytes. `None` if the file does not have the column, or the row group has no rows.
    fn chunk(&self, spec: &ColumnSpec) -> Result<Option<Chunk>, Fault> {
        if self.metadata.row_group(self.at).num_rows() == 0 {
            // The column types of an empty row group do not matter.
            return Ok(None);
        }
        let descriptor = self.metadata.file_metadata().schema_descr();
        let leaf = match resolve::lookup(descriptor, spec) {
            Lookup::Missing => return Ok(None),
            Lookup::Found(leaf) => leaf,
            Lookup::WrongType(found) => {
                return Fault::corrupt(format!("it must be a {}, but it is {found}", kind_name(spec.kind)));
            }
            Lookup::Ambiguous(names) => {
                return Fault::corrupt(format!(
                    "it may be any of {names} (names match without regard to letter case): rename or remove all but one of them"
                ));
            }
        };
        let row_group = self.metadata.row_group(self.at);
        let Some(chunk) = row_group.columns().get(leaf.index) else {
            return Fault::corrupt("its row group does not have the column");
        };
        if chunk.num_values() < 0 {
            return Fault::corrupt(
                "it is encrypted, or the footer describes its column chunk in a way that cannot be read",
            );
        }
        if spec.kind != ColumnKind::ListMinInt32 && chunk.num_values() != row_group.num_rows() {
            let (values, rows) = (chunk.num_values(), row_group.num_rows());
            return Fault::corrupt(format!("{values} values in a row group of {rows} rows"));
        }
        let range = chunk_range(chunk, self.file.input.size)?;
        Ok(Some(Chunk { leaf, range }))
    }

    /// Counts fetched bytes.
    fn count(&self, bytes: u64) {
        // A file that was fetched whole has been counted already.
        let bytes = if matches!(self.file.carrier, Carrier::Whole(_)) { 0 } else { bytes };
        for count in [&self.context.counters.bytes, &*self.context.fetched] {
            count.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn reader(&self, feed: Feed, chunk: &Chunk, kind: ColumnKind) -> Result<Reader, Fault> {
        let column = self.metadata.row_group(self.at).column(chunk.leaf.index);
        let descriptor = column.column_descr_ptr();
        let end = (self.file.clone(), chunk.range.end);
        let pages = Pages::new(feed, column, end, self.context.budget.clone())?;
        Ok(match kind {
            ColumnKind::ListMinInt32 => {
                Reader::ListMin(ListMinReader::new(pages, descriptor, chunk.leaf.element_def))
            }
            ColumnKind::Bool => Reader::Bool(BoolReader::new(Flat::new(pages, &descriptor))),
            ColumnKind::Int64 => Reader::Int64(Int64Reader::new(Flat::new(pages, &descriptor))),
            ColumnKind::Text => Reader::Text(TextReader::new(Flat::new(pages, &descriptor))),
            ColumnKind::Int | ColumnKind::Element(_) => return Fault::corrupt("not read yet"),
        })
    }
}

/// A needed column chunk.
struct Chunk {
    leaf: Leaf,
    range: Range<u64>,
}

/// A row group whose needed chunks are located, one per column. Nothing has been requested yet.
struct Located<'a> {
    group: RowGroup<'a>,
    chunks: Vec<Option<Chunk>>,
}

impl<'a> Located<'a> {
    /// The ranges of its needed chunks.
    fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.chunks.iter().flatten().map(|chunk| chunk.range.clone())
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
        let bytes = self.bytes();
        let Located { mut group, chunks } = self;
        group.count(bytes);
        for (at, (spec, chunk)) in group.table.columns.iter().zip(&chunks).enumerate() {
            let reader = match chunk {
                None => Ok(Reader::Absent),
                Some(chunk) => {
                    feed(chunk.range.clone()).and_then(|feed| group.reader(feed, chunk, spec.kind))
                }
            };
            group.readers.push(reader.map_err(|fault| fault.at(group.place(Some(at))))?);
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

fn chunk_range(chunk: &ColumnChunkMetaData, file_size: u64) -> Result<Range<u64>, Fault> {
    checked_range(chunk, file_size)
        .ok_or_else(|| Fault::Corrupt("its column chunk extends beyond the end of the file".into()))
}

fn read_column(
    reader: &mut Reader,
    at: usize,
    batch: &mut Batch,
    selected: &Bits,
    mapper: &mut dyn Mapper,
) -> Result<(), Fault> {
    let rows = batch.rows;
    let column = &mut batch.columns[at];
    match (reader, column) {
        (Reader::Bool(reader), Column::Bool { valid, value }) => reader.read(rows, valid, value),
        (Reader::Int64(reader), Column::Int64 { valid, value }) => reader.read(rows, valid, value),
        (Reader::Text(reader), Column::Text { codes }) => {
            let mut resolve = |texts: &[&[u8]], out: &mut [u32]| {
                check_values(texts)?;
                mapper.resolve(at, texts, out)
            };
            reader.read(rows, selected, codes, &mut resolve)
        }
        (Reader::ListMin(reader), Column::ListMin { present, valid, value }) => {
            reader.read(rows, present, valid, value)
        }
        (_, column) => {
            column.fill_null(rows);
            Ok(())
        }
    }
}
