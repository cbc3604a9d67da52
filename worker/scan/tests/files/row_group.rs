//! Reads the only row group of a file in memory. Not here: what is in the file, and what is read.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tally_common::budget::Budget;
use tally_dataset::{Mapper, TableSpec};
use tally_scan::footer::Footers;
use tally_scan::{InputFile, OpenFile, RowGroup, ScanContext, ScanError, resolve};

use crate::Result;

/// How a row group is read.
pub struct Reading {
    /// Bytes of a chunk that are fetched at a time.
    pub window: u64,
    /// The memory.
    pub budget: u64,
    /// Codes are forgotten after so many batches.
    pub batches: usize,
}

/// Passes a row group to a mapper. Returns the error of the scan, if there is one.
pub fn read(
    bytes: &[u8],
    reading: &Reading,
    table: &TableSpec,
    mapper: &mut dyn Mapper,
) -> Result<std::result::Result<(), ScanError>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("part-7.parquet");
    runtime.block_on(store.put(&path, bytes.to_vec().into()))?;
    let file = runtime.block_on(InputFile::head(store, path, "mem://part-7.parquet".into()))?;
    let footer = runtime.block_on(Footers::new(1 << 20).get(&file))?;
    let metadata = footer.metadata.clone();
    // As the planner does.
    let found = resolve::lookup(metadata.file_metadata().schema_descr(), table);
    if let Err(error) = footer.check_readable(&file, found.leaves(table)) {
        return Ok(Err(error));
    }
    if metadata.num_row_groups() != 1 {
        return Err(format!("{} row groups", metadata.num_row_groups()).into());
    }
    let file = Arc::new(OpenFile::open(file)?);
    let context = ScanContext {
        io: runtime.handle().clone(),
        window: reading.window,
        whole: 0,
        budget: Budget::new(reading.budget),
        cancelled: Default::default(),
        counters: Arc::default(),
        fetched: Arc::default(),
        rows: Arc::default(),
    };
    let mut batches = 0;
    let done = RowGroup::open(&context, file, metadata, 0, 0, table).and_then(|group| {
        group.read(mapper, &mut |_| {
            batches += 1;
            Ok(batches % reading.batches == 0)
        })
    });
    assert_eq!(context.budget.used(), 0, "reserved memory is released");
    Ok(done)
}
