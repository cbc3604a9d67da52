//! Map task: a shard's rows to partials, kept in the store.
//!
//! Memory: one mapper a slot, flushed to the store whenever it outgrows its share, so that a
//! shard may be larger than any table.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parquet::file::metadata::ParquetMetaData;
use tally_dataset::{Dataset, Mapper, TableSpec};
use tally_proto::v1;

use crate::context::TaskContext;
use crate::error::TaskError;
use crate::scan::{InputFile, OpenFile, Place, RowGroup, ScanContext, ScanError};
use crate::store::{MapWriter, Output};
use crate::urls;

/// What a slot keeps between map tasks: an empty mapper whose tables have their size already.
#[derive(Default)]
pub struct Scratch {
    mapper: Option<(MapperKind, Box<dyn Mapper>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MapperKind {
    dataset: &'static str,
    table: usize,
    partitions: u32,
}

/// Runs a map task.
///
/// # Errors
/// [`TaskError`], naming the file.
pub fn run(
    context: &TaskContext,
    dataset: &dyn Dataset,
    work: &v1::MapWork,
    scratch: &mut Scratch,
) -> Result<(v1::MapResult, Output), TaskError> {
    let number = work.table as usize;
    let table = dataset.tables().get(number);
    let table = table.ok_or_else(|| TaskError::Order(format!("there is no input table {number}")))?;
    let share = context.shares.map_table;
    let kind = MapperKind { dataset: dataset.name(), table: number, partitions: work.partitions };
    let mut mapper = match scratch.mapper.take() {
        Some((had, mapper)) if had == kind => mapper,
        _ => dataset.mapper(number, work.partitions),
    };
    let mut writer = context.store.map_writer();
    let mut result = v1::MapResult::default();
    let scan = context.scan();
    let mut groups = Groups { context, scan: &scan, table, pieces: work.pieces.iter(), open: None };
    let mut next = groups.next()?;
    while let Some(group) = next.take() {
        // While a row group is decoded the first bytes of the one after it are fetched.
        next = groups.next()?;
        let place = Place { file: group.file().name.clone(), ..Place::default() };
        let mut stored = None;
        let mut after = |mapper: &mut dyn Mapper| {
            if mapper.footprint() <= share {
                return Ok(false);
            }
            let run = mapper.flush().map_err(|source| ScanError::Dataset { place: place.clone(), source })?;
            result.partials += run.batch.num_rows() as u64;
            writer.push(run).map_err(|e| {
                stored = Some(e);
                ScanError::Cancelled
            })?;
            Ok(true)
        };
        let done = group.read(&mut *mapper, &mut after);
        if let Some(error) = stored {
            return Err(error.into());
        }
        done?;
    }
    result.rows = scan.rows.load(Ordering::Relaxed);
    let output = finish(&mut *mapper, writer, &mut result)?;
    result.bytes_read = scan.fetched.load(Ordering::Relaxed);
    scratch.mapper = Some((kind, mapper));
    Ok((result, output))
}

fn finish(
    mapper: &mut dyn Mapper,
    mut writer: MapWriter<'_>,
    result: &mut v1::MapResult,
) -> Result<Output, TaskError> {
    if !mapper.is_empty() {
        let run = mapper.flush()?;
        result.partials += run.batch.num_rows() as u64;
        writer.push(run)?;
    }
    let (output, bytes) = writer.finish();
    result.shuffle_bytes = bytes;
    Ok(Output::Map(output))
}

/// The row groups of a shard, opened one after another.
struct Groups<'a> {
    context: &'a TaskContext,
    scan: &'a ScanContext,
    table: &'a TableSpec,
    pieces: std::slice::Iter<'a, v1::InputPiece>,
    /// The file in hand, and its row groups to come.
    open: Option<(Arc<OpenFile>, Arc<ParquetMetaData>, std::slice::Iter<'a, u32>)>,
}

impl<'a> Groups<'a> {
    fn next(&mut self) -> Result<Option<RowGroup<'a>>, TaskError> {
        loop {
            if let Some((file, metadata, numbers)) = &mut self.open
                && let Some(&number) = numbers.next()
            {
                let number = number as usize;
                if number >= metadata.num_row_groups() {
                    return Err(TaskError::Order(format!("{} has no row group {number}", file.input.name)));
                }
                let group = RowGroup::open(self.scan, file.clone(), metadata.clone(), number, self.table)?;
                return Ok(Some(group));
            }
            let Some(piece) = self.pieces.next() else { return Ok(None) };
            let (file, metadata) = open(self.context, piece)?;
            self.open = Some((file, metadata, piece.row_groups.iter()));
        }
    }
}

fn open(
    context: &TaskContext,
    piece: &v1::InputPiece,
) -> Result<(Arc<OpenFile>, Arc<ParquetMetaData>), TaskError> {
    let (store, path) = urls::open(&piece.url).map_err(|e| TaskError::Order(e.to_string()))?;
    let file = InputFile { store, path, name: piece.url.clone(), size: piece.size, etag: piece.etag.clone() };
    let (metadata, fetched) = context.io.block_on(context.footers.get(&file))?;
    context.counters.bytes.fetch_add(fetched, Ordering::Relaxed);
    Ok((Arc::new(OpenFile::open(file)?), metadata))
}
