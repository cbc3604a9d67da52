//! Write task: one part file out of row groups that reduce tasks encoded, plus the columns that
//! waited for the job's totals.
//!
//! Encoded column chunks are copied, not decoded. Not here: where the bytes go (`part_file`).

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::Compression;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnDescPtr;
use tally_dataset::{Dataset, Totals};
use tally_proto::convert::{referred, required};
use tally_proto::v1::write_work::Target;
use tally_proto::{AttemptId, v1};

use crate::context::TaskContext;
use crate::encode::constant;
use crate::error::TaskError;
use crate::part_file::{self, Written};
use crate::peers::{FileReader, Place};

/// Runs a write task.
///
/// # Errors
/// [`TaskError`]; a reduce output that is gone is [`TaskError::Lost`].
pub fn run(
    context: &TaskContext,
    order: &AttemptId,
    dataset: &dyn Dataset,
    work: &v1::WriteWork,
) -> Result<v1::WriteResult, TaskError> {
    let totals = required(work.totals, "totals")?;
    let totals = Totals {
        rows: totals.rows,
        clients: totals.clients,
        custom_theme_clients: totals.custom_theme_clients,
    };
    let constants = dataset.constants(&totals).map_err(TaskError::Order)?;
    let target = required(work.target.as_ref(), "target")?;
    let place = match target {
        Target::Path(path) => path,
        Target::Upload(upload) => &upload.url,
    };
    let schema = ArrowSchemaConverter::new().convert(&dataset.output_schema())?;
    let mut writer = SerializedFileWriter::new(
        part_file::create(context, target)?,
        schema.root_schema_ptr(),
        Arc::new(properties(work)),
    )?;
    let mut rows = 0;
    let mut checksum = Some(0u64);
    for piece in &work.pieces {
        let reference = required(piece.output.as_ref(), "output")?;
        let attempt = referred(&order.task.job, reference);
        let encoded = Encoded::open(context, work, reference, &attempt)?;
        let metadata = encoded.metadata(piece.footer_crc32)?;
        check_rows(&attempt, piece, metadata.row_groups())?;
        for (at, &row_group) in piece.row_groups.iter().enumerate() {
            context.check_cancelled()?;
            let groups = metadata.row_groups();
            let Some(group) = groups.get(row_group as usize) else {
                return Err(TaskError::Order(format!("{attempt} has no row group {row_group}")));
            };
            let told = Told::of(piece, at)?;
            copy_row_group(&encoded, group, &constants, schema.columns(), writer.next_row_group()?)
                .map_err(|e| cause(e, place))?;
            encoded.check(row_group, group, told)?;
            rows += group.num_rows() as u64;
            checksum = checksum.zip(told).map(|(sum, told)| sum.wrapping_add(told.checksum));
        }
    }
    let part = writer.into_inner().map_err(|e| cause(e, place))?;
    let Written { bytes, crc32, parts } = part.finish()?;
    Ok(v1::WriteResult { rows, bytes, crc32, parts, checksum })
}

/// What the reduce task told of a row group.
#[derive(Clone, Copy)]
struct Told {
    rows: u64,
    checksum: u64,
    crc32: u32,
}

impl Told {
    /// What the order has of the row group at that place; nothing where it has nothing of any.
    fn of(piece: &v1::RowGroups, at: usize) -> Result<Option<Self>, TaskError> {
        if piece.footer_crc32.is_none() {
            return Ok(None);
        }
        let told = piece.rows.get(at).zip(piece.checksums.get(at)).zip(piece.crc32s.get(at));
        let ((&rows, &checksum), &crc32) = required(told, "sums of a row group")?;
        Ok(Some(Told { rows, checksum, crc32 }))
    }
}

/// Refuses a reduce output whose row groups do not have the rows that the order says.
fn check_rows(
    attempt: &AttemptId,
    piece: &v1::RowGroups,
    groups: &[RowGroupMetaData],
) -> Result<(), TaskError> {
    // Coordinators of earlier releases do not say how many there are. Those that say more are compared with it, row
    // group by row group, while these are copied.
    if piece.rows.is_empty() || piece.footer_crc32.is_some() {
        return Ok(());
    }
    let rows =
        piece.row_groups.iter().map(|&number| groups.get(number as usize).map(RowGroupMetaData::num_rows));
    if rows.eq(piece.rows.iter().map(|&rows| i64::try_from(rows).ok())) {
        return Ok(());
    }
    let (numbers, rows) = (&piece.row_groups, &piece.rows);
    Err(TaskError::Incomplete(format!(
        "row groups {numbers:?} of {attempt} should have {rows:?} rows, and do not"
    )))
}

fn properties(work: &v1::WriteWork) -> WriterProperties {
    let mut metadata: Vec<KeyValue> =
        work.metadata.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    metadata.sort_by(|a, b| a.key.cmp(&b.key));
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_offset_index_disabled(true)
        .set_created_by(format!("tally version {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(metadata))
        .build()
}

/// What the system or the reader said, where the Parquet crate wrapped it.
fn cause(error: ParquetError, path: &str) -> TaskError {
    let ParquetError::External(inner) = error else { return TaskError::Encode(error) };
    let inner = match inner.downcast::<TaskError>() {
        Ok(error) => return *error,
        Err(inner) => inner,
    };
    match inner.downcast::<std::io::Error>() {
        Ok(source) => match source.downcast::<TaskError>() {
            Ok(error) => error,
            Err(source) => TaskError::Write { path: path.into(), what: "writing failed", source },
        },
        Err(other) => TaskError::Encode(ParquetError::External(other)),
    }
}

fn copy_row_group<W: std::io::Write + Send>(
    encoded: &Encoded,
    group: &RowGroupMetaData,
    constants: &[i32],
    columns: &[ColumnDescPtr],
    mut writer: SerializedRowGroupWriter<'_, W>,
) -> ParquetResult<()> {
    let Some(descriptors) = columns.get(group.num_columns()..).filter(|left| left.len() == constants.len())
    else {
        return Err(ParquetError::General(
            "the schema does not have the reduced columns and the constants".into(),
        ));
    };
    for chunk in group.columns() {
        let close = ColumnCloseResult {
            bytes_written: chunk.compressed_size() as u64,
            rows_written: group.num_rows() as u64,
            metadata: chunk.clone(),
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        writer.append_column(encoded, close)?;
    }
    for (&constant, descriptor) in constants.iter().zip(descriptors) {
        let rows = group.num_rows() as u64;
        constant::chunk(descriptor.clone(), constant, rows)?.append(&mut writer)?;
    }
    writer.close()?;
    Ok(())
}

/// A reduce output as the Parquet file that it is.
struct Encoded {
    output: Arc<dyn FileReader>,
    /// Who has it, and whose it is.
    at: Place,
    attempt: AttemptId,
    /// CRC-32 of what was read since it was asked for.
    crc32: Arc<Mutex<crc32fast::Hasher>>,
}

/// Bytes at the end of a Parquet file: the length of what is before them, and a mark.
const TAIL: usize = 8;

impl Encoded {
    fn open(
        context: &TaskContext,
        work: &v1::WriteWork,
        reference: &v1::OutputRef,
        attempt: &AttemptId,
    ) -> Result<Self, TaskError> {
        let (at, output) = context.file(&work.holders, reference, attempt)?;
        Ok(Encoded { output, at, attempt: attempt.clone(), crc32: Arc::default() })
    }

    /// It is to be made again: what was read of it is not what its task made.
    fn lost(&self, what: impl std::fmt::Display) -> TaskError {
        self.at.lost(&self.attempt, what.to_string())
    }

    /// Reads the footer, which must have that CRC-32, if one is known.
    fn metadata(&self, crc32: Option<u32>) -> Result<ParquetMetaData, TaskError> {
        let end = self.output.len();
        let short = || self.lost(format!("{end} bytes are no file"));
        let tail_at = end.checked_sub(TAIL as u64).ok_or_else(short)?;
        let tail = self.output.exact(tail_at, TAIL)?;
        let length = tail.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
        let start = tail_at.checked_sub(u64::from(length)).ok_or_else(short)?;
        let footer = self.output.exact(start, length as usize + TAIL)?;
        let read = crc32fast::hash(&footer);
        if let Some(made) = crc32.filter(|&made| made != read) {
            let what = format!("its footer was read with the CRC-32 {read:08x}, but made with {made:08x}");
            return Err(self.lost(what));
        }
        ParquetMetaDataReader::decode_metadata(&footer[..length as usize]).map_err(|e| self.lost(e))
    }

    /// Compares a row group that was just copied with what its task told of it.
    fn check(&self, number: u32, group: &RowGroupMetaData, told: Option<Told>) -> Result<(), TaskError> {
        let read = std::mem::take(&mut *self.crc32.lock()).finalize();
        let rows = group.num_rows() as u64;
        match told {
            Some(told) if (told.rows, told.crc32) != (rows, read) => Err(self.lost(format!(
                "its row group {number} was read as {rows} rows with the CRC-32 {read:08x}, but made as {} with {:08x}",
                told.rows, told.crc32
            ))),
            _ => Ok(()),
        }
    }
}

/// A reader of a reduce output from some place on.
pub struct OutputRead {
    output: Arc<dyn FileReader>,
    crc32: Arc<Mutex<crc32fast::Hasher>>,
    at: u64,
    current: Bytes,
}

impl std::io::Read for OutputRead {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.current.is_empty() {
            self.current = self.output.next(self.at).map_err(std::io::Error::other)?;
            self.at += self.current.len() as u64;
        }
        let take = out.len().min(self.current.len());
        out[..take].copy_from_slice(&self.current.split_to(take));
        self.crc32.lock().update(&out[..take]);
        Ok(take)
    }
}

impl Length for Encoded {
    fn len(&self) -> u64 {
        self.output.len()
    }
}

impl ChunkReader for Encoded {
    type T = OutputRead;

    fn get_read(&self, start: u64) -> ParquetResult<OutputRead> {
        let (output, crc32) = (self.output.clone(), self.crc32.clone());
        Ok(OutputRead { output, crc32, at: start, current: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.output.exact(start, length).map_err(|e| ParquetError::External(Box::new(e)))
    }
}
