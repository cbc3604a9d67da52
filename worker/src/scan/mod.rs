//! Reading the needed leaves of Parquet files into a mapper, a batch of rows at a time.
//!
//! Filter columns are decoded first; of the others only what the selected rows need is resolved.
//! Strings become symbols once for each dictionary value or change of value. Memory: three
//! windows and one page a column, whatever the size of a row group; of an object store row groups
//! that are small enough are fetched whole, as far as the budget allows.
//!
//! Not here: what rows mean (the dataset), which shard to read (the planner), budgets of the
//! mapper (the map task).

mod codec;
mod columns;
mod delta;
mod delta_ints;
mod dictionary;
mod error;
pub mod excerpt;
mod feed;
mod fetch;
pub mod footer;
mod hybrid;
mod list;
mod lz4;
mod metadata;
mod page;
mod page_header;
pub mod resolve;
mod runs;
mod schema;
#[cfg(test)]
mod shapes;
mod snappy;
mod source;
mod text;
mod thrift;
mod values;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use tally_dataset::{BATCH_ROWS, Batch, Bits, Column, ColumnKind, ColumnSpec, Mapper, TableSpec};
use tokio::runtime::Handle;

use crate::budget::Budget;
use columns::{BoolReader, Flat, Int64Reader};
use error::Fault;
pub use error::{Place, ScanError};
use feed::Feed;
pub(crate) use fetch::Task;
use list::ListMinReader;
use page::Pages;
use resolve::{Leaf, Lookup};
use source::Carrier;
pub use source::{InputFile, OpenFile};
use text::TextReader;

/// What all scans of a task share.
#[derive(Clone)]
pub struct ScanContext {
    /// Where fetching runs.
    pub io: Handle,
    /// Bytes read at a time.
    pub window: u64,
    /// Bytes of a row group of an object store that are fetched whole.
    pub whole: u64,
    /// What large pages draw from.
    pub budget: Budget,
    /// Set when the task is to stop.
    pub cancelled: Arc<AtomicBool>,
    /// Counted as it goes, for progress.
    pub counters: Arc<ScanCounters>,
    /// Bytes that this task fetches.
    pub fetched: Arc<AtomicU64>,
    /// Rows that this task reads.
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
    /// The file has no such column: nulls.
    Absent,
}

/// One row group being read: its first bytes are on their way from the moment it is opened.
pub struct RowGroup<'a> {
    context: &'a ScanContext,
    file: Arc<OpenFile>,
    metadata: Arc<ParquetMetaData>,
    /// Its place in `metadata`.
    at: usize,
    /// Its number in the file.
    number: usize,
    table: &'a TableSpec,
    readers: Vec<Reader>,
    /// The column being decoded.
    reading: Option<usize>,
    /// Bytes that were asked for ahead of their decoding.
    ahead: u64,
}

/// Called after each batch; may flush the mapper, and says whether it did.
pub type AfterBatch<'a> = dyn FnMut(&mut dyn Mapper) -> Result<bool, ScanError> + 'a;

impl<'a> RowGroup<'a> {
    /// Opens row group `number` of a file, which is the one at `at` in `metadata`.
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
        let mut group =
            RowGroup { context, file, metadata, at, number, table, readers: vec![], reading: None, ahead: 0 };
        let mut chunks = vec![];
        for (at, spec) in table.columns.iter().enumerate() {
            chunks.push(group.chunk(spec).map_err(|fault| fault.at(group.place(Some(at))))?);
        }
        let mut feeds = group.feeds(&chunks).into_iter();
        for (at, (spec, chunk)) in table.columns.iter().zip(&chunks).enumerate() {
            let reader = match chunk.as_ref().zip(chunk.is_some().then(|| feeds.next()).flatten()) {
                None => Reader::Absent,
                Some((chunk, feed)) => {
                    let reader = group.over(feed, chunk, spec.kind);
                    reader.map_err(|fault| fault.at(group.place(Some(at))))?
                }
            };
            group.readers.push(reader);
        }
        Ok(group)
    }

    /// Bytes of it that are held, or on their way, before any is decoded.
    pub fn ahead(&self) -> u64 {
        self.ahead
    }

    /// The file that it belongs to.
    pub fn file(&self) -> &InputFile {
        &self.file.input
    }

    /// Reads it into `mapper`.
    ///
    /// # Errors
    /// [`ScanError`], naming file, row group and column. A panic of a decoder is one as well.
    pub fn read(mut self, mapper: &mut dyn Mapper, after: &mut AfterBatch<'_>) -> Result<(), ScanError> {
        let read = AssertUnwindSafe(|| self.read_batches(mapper, after));
        catch_unwind(read).unwrap_or_else(|_| {
            let what = "a decoder gave up on its bytes (see the log)".into();
            Err(ScanError::Corrupt { place: self.place(self.reading), what })
        })
    }

    fn read_batches(&mut self, mapper: &mut dyn Mapper, after: &mut AfterBatch<'_>) -> Result<(), ScanError> {
        let specs = &self.table.columns;
        let columns = specs.iter().map(|spec| Column::new(spec.kind)).collect();
        let mut batch = Batch { rows: 0, columns };
        let mut selected = Bits::default();
        let mut left = usize::try_from(self.metadata.row_group(self.at).num_rows()).unwrap_or(0);
        while left > 0 {
            if self.context.cancelled.load(Ordering::Relaxed) {
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

    fn place(&self, column: Option<usize>) -> Place {
        let column = column.map(|at| self.table.columns[at].path.join("."));
        Place { file: self.file.input.name.clone(), row_group: Some(self.number), column }
    }

    /// Where a column's bytes lie; `None` where the file has no such column, or the row group no rows.
    fn chunk(&self, spec: &ColumnSpec) -> Result<Option<Chunk>, Fault> {
        if self.metadata.row_group(self.at).num_rows() == 0 {
            // Whatever its columns are like.
            return Ok(None);
        }
        let descriptor = self.metadata.file_metadata().schema_descr();
        let leaf = match resolve::lookup(descriptor, spec) {
            Lookup::Missing => return Ok(None),
            Lookup::Found(leaf) => leaf,
            Lookup::WrongType(found) => return Fault::corrupt(format!("it is of type {found}")),
            Lookup::Ambiguous(names) => {
                return Fault::corrupt(format!("several columns may be meant: {names}"));
            }
        };
        let row_group = self.metadata.row_group(self.at);
        let Some(chunk) = row_group.columns().get(leaf.index) else {
            return Fault::corrupt("its row group lacks the column");
        };
        if chunk.num_values() < 0 {
            return Fault::corrupt(
                "it is encrypted, or its chunk cannot be read for what the footer says of it",
            );
        }
        if spec.kind != ColumnKind::ListMinInt32 && chunk.num_values() != row_group.num_rows() {
            let (values, rows) = (chunk.num_values(), row_group.num_rows());
            return Fault::corrupt(format!("{values} values in a row group of {rows} rows"));
        }
        let range = chunk_range(chunk, self.file.input.size)?;
        for count in [&self.context.counters.bytes, &*self.context.fetched] {
            count.fetch_add(range.end - range.start, Ordering::Relaxed);
        }
        Ok(Some(Chunk { leaf, range }))
    }

    /// A feed for each chunk that is there, all of them under way.
    fn feeds(&mut self, chunks: &[Option<Chunk>]) -> Vec<Feed> {
        let context = self.context;
        let ranges: Vec<_> = chunks.iter().flatten().map(|chunk| chunk.range.clone()).collect();
        let bytes = fetch::total(&ranges);
        let whole = matches!(self.file.carrier, Carrier::Store) && bytes <= context.whole;
        let started = whole.then(|| fetch::start(&context.io, &self.file.input, &ranges, &context.budget));
        if let Some((fetch, arrivals)) = started.flatten() {
            self.ahead = bytes;
            let sizes = ranges.iter().map(|range| range.end - range.start);
            let feed = |(bytes, arrivals)| Feed::fetched(context, bytes, arrivals, fetch.clone());
            return sizes.zip(arrivals).map(feed).collect();
        }
        ranges.into_iter().map(|range| Feed::start(context, &self.file, range)).collect()
    }

    fn over(&self, feed: Feed, chunk: &Chunk, kind: ColumnKind) -> Result<Reader, Fault> {
        let column = self.metadata.row_group(self.at).column(chunk.leaf.index);
        let descriptor = column.column_descr_ptr();
        let end = (self.file.clone(), chunk.range.end);
        let pages = Pages::new(feed, column, end, self.context.budget.clone())?;
        Ok(match kind {
            ColumnKind::ListMinInt32 => {
                Reader::ListMin(ListMinReader::new(pages, descriptor, chunk.leaf.element_def))
            }
            ColumnKind::Bool => Reader::Bool(BoolReader::new(Flat::new(pages, &descriptor))),
            ColumnKind::Int64 => Reader::Int64(Int64Reader::new(Flat::new(pages, &descriptor), descriptor)),
            ColumnKind::Text => Reader::Text(TextReader::new(Flat::new(pages, &descriptor))),
        })
    }
}

/// A needed column chunk.
struct Chunk {
    leaf: Leaf,
    range: std::ops::Range<u64>,
}

/// Where a column chunk lies, checked: footers are foreign input too.
pub fn checked_range(chunk: &ColumnChunkMetaData, file_size: u64) -> Option<std::ops::Range<u64>> {
    let data = u64::try_from(chunk.data_page_offset()).ok()?;
    let start = match chunk.dictionary_page_offset() {
        // Some writers put 0 where there is no dictionary.
        Some(offset) if offset > 0 => data.min(u64::try_from(offset).ok()?),
        _ => data,
    };
    let end = start.checked_add(u64::try_from(chunk.compressed_size()).ok()?)?;
    (end <= file_size).then_some(start..end)
}

fn chunk_range(chunk: &ColumnChunkMetaData, file_size: u64) -> Result<std::ops::Range<u64>, Fault> {
    checked_range(chunk, file_size)
        .ok_or_else(|| Fault::Corrupt("its column chunk lies beyond the end of the file".into()))
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
        (Reader::Text(reader), Column::Text { symbol }) => {
            let mut resolve = |texts: &[&[u8]], symbols: &mut [u32]| mapper.resolve(at, texts, symbols);
            reader.read(rows, selected, symbol, &mut resolve)
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
