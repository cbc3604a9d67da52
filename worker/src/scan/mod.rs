//! Reading the needed leaves of Parquet files into a mapper, a batch of rows at a time.
//!
//! Filter columns are decoded first; of the others only what the selected rows need is resolved.
//! Strings become symbols once for each dictionary value or change of value. Memory: three
//! windows and one page a column, whatever the size of a row group.
//!
//! Not here: what rows mean (the dataset), which shard to read (the planner), budgets of the
//! mapper (the map task).

mod codec;
mod columns;
mod delta;
mod dictionary;
mod error;
mod feed;
pub mod footer;
mod hybrid;
mod list;
mod page;
mod page_header;
pub mod resolve;
mod snappy;
mod source;
mod text;
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
use list::ListMinReader;
use page::Pages;
use resolve::{Leaf, Lookup};
pub use source::{InputFile, OpenFile};
use text::TextReader;

/// What all scans of a task share.
#[derive(Clone)]
pub struct ScanContext {
    /// Where fetching runs.
    pub io: Handle,
    /// Bytes read at a time.
    pub window: u64,
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
    number: usize,
    table: &'a TableSpec,
    readers: Vec<Reader>,
    /// The column being decoded.
    reading: Option<usize>,
}

/// Called after each batch; may flush the mapper, and says whether it did.
pub type AfterBatch<'a> = dyn FnMut(&mut dyn Mapper) -> Result<bool, ScanError> + 'a;

impl<'a> RowGroup<'a> {
    /// Opens row group `number` of a file.
    ///
    /// # Errors
    /// [`ScanError`], naming file, row group and column.
    pub fn open(
        context: &'a ScanContext,
        file: Arc<OpenFile>,
        metadata: Arc<ParquetMetaData>,
        number: usize,
        table: &'a TableSpec,
    ) -> Result<Self, ScanError> {
        let mut group = RowGroup { context, file, metadata, number, table, readers: vec![], reading: None };
        for (at, spec) in table.columns.iter().enumerate() {
            let reader = group.reader(spec).map_err(|fault| fault.at(group.place(Some(at))))?;
            group.readers.push(reader);
        }
        Ok(group)
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
        let mut left = usize::try_from(self.metadata.row_group(self.number).num_rows()).unwrap_or(0);
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

    fn reader(&self, spec: &ColumnSpec) -> Result<Reader, Fault> {
        let descriptor = self.metadata.file_metadata().schema_descr();
        let leaf = match resolve::lookup(descriptor, spec) {
            Lookup::Missing => return Ok(Reader::Absent),
            Lookup::Found(leaf) => leaf,
            Lookup::WrongType(found) => return Fault::corrupt(format!("it is of type {found}")),
        };
        let row_group = self.metadata.row_group(self.number);
        let Some(chunk) = row_group.columns().get(leaf.index) else {
            return Fault::corrupt("its row group lacks the column");
        };
        if spec.kind != ColumnKind::ListMinInt32 && chunk.num_values() != row_group.num_rows() {
            let (values, rows) = (chunk.num_values(), row_group.num_rows());
            return Fault::corrupt(format!("{values} values in a row group of {rows} rows"));
        }
        let range = chunk_range(chunk, self.file.input.size)?;
        for count in [&self.context.counters.bytes, &*self.context.fetched] {
            count.fetch_add(range.end - range.start, Ordering::Relaxed);
        }
        let feed = Feed::start(&self.context.io, &self.file, range, self.context.window);
        let pages = Pages::new(feed, chunk, self.context.budget.clone())?;
        Ok(self.over(pages, chunk, spec.kind, leaf))
    }

    fn over(&self, pages: Pages, chunk: &ColumnChunkMetaData, kind: ColumnKind, leaf: Leaf) -> Reader {
        let descriptor = chunk.column_descr_ptr();
        match kind {
            ColumnKind::ListMinInt32 => {
                Reader::ListMin(ListMinReader::new(pages, descriptor, leaf.element_def))
            }
            ColumnKind::Bool => Reader::Bool(BoolReader::new(Flat::new(pages, &descriptor))),
            ColumnKind::Int64 => Reader::Int64(Int64Reader::new(Flat::new(pages, &descriptor), descriptor)),
            ColumnKind::Text => Reader::Text(TextReader::new(Flat::new(pages, &descriptor))),
        }
    }
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
