//! Write task: makes one part file of row groups that reduce tasks encoded, and adds the columns that depend on the
//! job's totals.
//!
//! Encoded column chunks are copied without decoding. Not here: the destination of the bytes (`part_file`).

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
use tally_common::counts::counted;
use tally_dataset::{Dataset, Totals};
use tally_proto::convert::{referred, required};
use tally_proto::v1::write_work::Target;
use tally_proto::{AttemptId, v1};
use tally_shuffle::error::TaskError;
use tally_shuffle::peers::{FileReader, OutputLocation};

use crate::encode::Lent;
use crate::encode::constant::Constants;
use crate::task::context::TaskContext;
use crate::task::part_file::{self, Written};

/// Runs a write task.
///
/// # Errors
/// [`TaskError`]; [`TaskError::Lost`] for a missing reduce output.
pub fn run(
    context: &TaskContext,
    write_attempt: &AttemptId,
    dataset: &dyn Dataset,
    work: &v1::WriteWork,
) -> Result<v1::WriteResult, TaskError> {
    let totals = required(work.totals.as_ref(), "totals")?;
    let totals = Totals { rows: totals.rows, counters: totals.counters(dataset.totals().len()) };
    let constants = dataset.constants(&totals)?;
    let target = required(work.target.as_ref(), "target")?;
    let place = match target {
        Target::Path(path) => path,
        Target::Upload(upload) => &upload.url,
    };
    let output = dataset.output_schema();
    let schema = ArrowSchemaConverter::new().convert(&output)?;
    let part = Lent(Some(part_file::create(context, target)?));
    let writer = SerializedFileWriter::new(part, schema.root_schema_ptr(), Arc::new(properties(work)));
    let mut writer = writer.map_err(|e| cause(e, place))?;
    let constants = Constants::new(&writer, output, constants)?;
    let mut rows = 0;
    let mut checksum = Some(0u64);
    for piece in &work.pieces {
        let reference = required(piece.output.as_ref(), "output")?;
        let attempt = referred(&write_attempt.task.job, reference);
        let encoded = Encoded::open(context, work, reference, &attempt)?;
        let metadata = encoded.metadata(piece.footer_crc32)?;
        check_rows(&attempt, piece, metadata.row_groups())?;
        for (at, &row_group) in piece.row_groups.iter().enumerate() {
            context.check_cancelled()?;
            let groups = metadata.row_groups();
            let Some(group) = groups.get(row_group as usize) else {
                return Err(TaskError::InvalidTask(format!("{attempt} has no row group {row_group}")));
            };
            let expected = RowGroupSums::of(piece, at)?;
            copy_row_group(&encoded, group, &constants, writer.next_row_group()?)
                .map_err(|e| cause(e, place))?;
            encoded.check(row_group, group, expected)?;
            rows += group.num_rows() as u64;
            checksum = checksum.zip(expected).map(|(sum, expected)| sum.wrapping_add(expected.checksum));
        }
    }
    writer.finish().map_err(|e| cause(e, place))?;
    let part = required(writer.inner_mut().0.take(), "part file")?;
    let Written { bytes, crc32, parts } = part.finish()?;
    Ok(v1::WriteResult { rows, bytes, crc32, parts, checksum })
}

/// The reduce task's description of a row group.
#[derive(Clone, Copy)]
struct RowGroupSums {
    rows: u64,
    checksum: u64,
    crc32: u32,
}

impl RowGroupSums {
    /// The description of the row group at index `at`; `None` if the task message has no descriptions.
    fn of(piece: &v1::RowGroups, at: usize) -> Result<Option<Self>, TaskError> {
        if piece.footer_crc32.is_none() {
            return Ok(None);
        }
        let expected = piece.rows.get(at).zip(piece.checksums.get(at)).zip(piece.crc32s.get(at));
        let ((&rows, &checksum), &crc32) = required(expected, "sums of a row group")?;
        Ok(Some(RowGroupSums { rows, checksum, crc32 }))
    }
}

/// Rejects a reduce output whose row groups do not have the numbers of rows in the task message.
fn check_rows(
    attempt: &AttemptId,
    piece: &v1::RowGroups,
    groups: &[RowGroupMetaData],
) -> Result<(), TaskError> {
    // Coordinators of earlier releases do not send the numbers of rows. If checksums are sent as well, all of it is
    // compared row group by row group during the copy.
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
        "row groups {numbers:?} of {attempt} do not have the expected {rows:?} rows"
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

/// Extracts the I/O error that the Parquet crate wrapped.
fn cause(error: ParquetError, path: &str) -> TaskError {
    match TaskError::from(error) {
        TaskError::Encode(ParquetError::External(inner)) => match inner.downcast::<std::io::Error>() {
            Ok(source) => TaskError::write(path, "writing failed", *source),
            Err(other) => TaskError::Encode(ParquetError::External(other)),
        },
        other => other,
    }
}

fn copy_row_group<W: std::io::Write + Send>(
    encoded: &Encoded,
    group: &RowGroupMetaData,
    constants: &Constants,
    mut writer: SerializedRowGroupWriter<'_, W>,
) -> ParquetResult<()> {
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
    constants.append(group.num_columns(), group.num_rows() as u64, &mut writer)?;
    writer.close()?;
    Ok(())
}

/// A reduce output as a Parquet file.
struct Encoded {
    output: Arc<dyn FileReader>,
    /// Its location, and the attempt that made it.
    at: OutputLocation,
    attempt: AttemptId,
    /// CRC-32 of the bytes that were read since the last check.
    crc32: Arc<Mutex<crc32fast::Hasher>>,
}

/// Bytes at the end of a Parquet file: the length of the footer, and the magic bytes.
const TAIL: usize = 8;

impl Encoded {
    fn open(
        context: &TaskContext,
        work: &v1::WriteWork,
        reference: &v1::OutputRef,
        attempt: &AttemptId,
    ) -> Result<Self, TaskError> {
        let (at, output) = context.file(&work.locations, reference, attempt)?;
        Ok(Encoded { output, at, attempt: attempt.clone(), crc32: Arc::default() })
    }

    /// The failure that makes the scheduler run the reduce task again, because its output is wrong.
    fn lost(&self, what: impl std::fmt::Display) -> TaskError {
        self.at.lost(&self.attempt, what.to_string())
    }

    /// Reads the footer, and checks its CRC-32 if it is known.
    fn metadata(&self, crc32: Option<u32>) -> Result<ParquetMetaData, TaskError> {
        let end = self.output.len();
        let short = || self.lost(format!("not a Parquet file: {}", counted(end, "byte")));
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

    /// Compares a row group that was copied with its description.
    fn check(
        &self,
        number: u32,
        group: &RowGroupMetaData,
        expected: Option<RowGroupSums>,
    ) -> Result<(), TaskError> {
        let read = std::mem::take(&mut *self.crc32.lock()).finalize();
        let rows = group.num_rows() as u64;
        match expected {
            Some(expected) if (expected.rows, expected.crc32) != (rows, read) => Err(self.lost(format!(
                "its row group {number} was read as {} with the CRC-32 {read:08x}, but made as {} with {:08x}",
                counted(rows, "row"),
                expected.rows,
                expected.crc32
            ))),
            _ => Ok(()),
        }
    }
}

/// A sequential reader of a reduce output from an offset.
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
