//! A file in memory, and its scan.
//!
//! Not here: its rows (`tables`), what is measured.

use std::sync::Arc;

use arrow_array::RecordBatch;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{WriterProperties, WriterVersion};
use tally_common::budget::Budget;
use tally_dataset::{Batch, Bits, DatasetError, MapRun, Mapper, TableSpec};
use tally_scan::footer::Footers;
use tally_scan::{InputFile, OpenFile, RowGroup, ScanContext, resolve};
use tokio::runtime::Runtime;

use crate::tables::ROWS;

/// The encoding of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    Dictionary,
    Plain,
    /// The dictionary exceeds its limit within the column chunk.
    Mixed,
}

/// Panics on errors, because a wrong result would give a wrong figure.
pub fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// A file of one row group in memory, and the context of its scan.
pub struct Scene {
    runtime: Runtime,
    context: ScanContext,
    file: Arc<OpenFile>,
    metadata: Arc<ParquetMetaData>,
}

impl Scene {
    /// The file of a table.
    pub fn new(table: &RecordBatch, pages: Pages, version: WriterVersion) -> Self {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_writer_version(version)
            .set_max_row_group_row_count(Some(ROWS))
            .set_dictionary_enabled(pages != Pages::Plain)
            .set_dictionary_page_size_limit(if pages == Pages::Mixed { 256 << 10 } else { 16 << 20 })
            .build();
        let mut bytes = Vec::new();
        let mut writer = must(ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)));
        must(writer.write(table));
        must(writer.close());
        let runtime =
            must(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build());
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("part-0.parquet");
        must(runtime.block_on(store.put(&path, bytes.into())));
        let file = must(runtime.block_on(InputFile::head(store, path, "part-0.parquet".into())));
        let metadata = must(runtime.block_on(Footers::new(1 << 20).get(&file))).metadata;
        assert_eq!(metadata.num_row_groups(), 1);
        let context = ScanContext {
            io: runtime.handle().clone(),
            window: 1 << 20,
            whole: 0,
            budget: Budget::new(256 << 20),
            cancelled: Default::default(),
            counters: Arc::default(),
            fetched: Arc::default(),
            rows: Arc::default(),
        };
        let file = Arc::new(must(OpenFile::open(file)));
        Scene { runtime, context, file, metadata }
    }

    /// Uncompressed bytes of the column chunks that a scan of `table` reads.
    pub fn bytes(&self, table: &TableSpec) -> u64 {
        let found = resolve::lookup(self.metadata.file_metadata().schema_descr(), table);
        let chunk = |leaf| self.metadata.row_group(0).column(leaf).uncompressed_size() as u64;
        found.leaves(table).map(|(_, leaf)| chunk(leaf)).sum()
    }

    /// Reads the file into `mapper`.
    pub fn scan(&self, table: &TableSpec, mapper: &mut dyn Mapper) {
        let _inside = self.runtime.enter();
        let (file, metadata) = (self.file.clone(), self.metadata.clone());
        let group = must(RowGroup::open(&self.context, file, metadata, 0, 0, table));
        must(group.read(mapper, &mut |_| Ok(false)));
    }
}

/// Consumes rows and keeps nothing, so that only decoding is measured.
#[derive(Default)]
pub struct Nothing {
    pub rows: usize,
    pub elements: usize,
}

impl Mapper for Nothing {
    fn select(&self, _batch: &Batch, _selected: &mut Bits) {}

    fn resolve(&mut self, _column: usize, values: &[&[u8]], symbols: &mut [u32]) -> Result<(), DatasetError> {
        for (value, symbol) in values.iter().zip(symbols) {
            *symbol = value.len() as u32;
        }
        Ok(())
    }

    fn consume(&mut self, batch: &Batch, selected: &Bits) {
        self.rows += batch.rows;
        self.elements += batch.elements();
        divan::black_box(selected.count());
    }

    fn footprint(&self) -> usize {
        0
    }

    fn is_empty(&self) -> bool {
        true
    }

    fn flush(&mut self) -> Result<MapRun, DatasetError> {
        Err(DatasetError::Malformed("it keeps nothing".into()))
    }
}
