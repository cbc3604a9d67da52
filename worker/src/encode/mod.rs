//! Encodes rows as row groups of a Parquet file, for reduce tasks and write tasks.
//!
//! Most columns are encoded by the Parquet crate. Two kinds that it encodes slowly are built here, page by page: ids
//! ([`text`]) and columns of one value ([`constant`]).
//!
//! Not here: where a file is stored, and the meaning of its rows.

pub(crate) mod chunk;
pub(crate) mod constant;
mod snappy;
mod text;

use std::io::Write;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use tally_dataset::{ColumnEncoding, DatasetError, Fingerprint};

use text::TextChunk;

/// Adds rows to a fingerprint.
pub(crate) type Count<'a> =
    dyn Fn(&RecordBatch, &mut Fingerprint) -> std::result::Result<(), DatasetError> + 'a;

/// Encodes rows as row groups of a Parquet file, and describes each row group. The columns must be flat.
pub(crate) struct Encoder<'a, W: Write + Send> {
    writer: SerializedFileWriter<Summed<W>>,
    encoding: &'a dyn Fn(&str) -> ColumnEncoding,
    count: &'a Count<'a>,
    schema: SchemaRef,
    factory: ArrowRowGroupWriterFactory,
    /// Maximum rows of a row group.
    full: usize,
    group: Option<Group>,
    encoded: Encoded,
}

/// The description of the encoded file.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub row_groups: Vec<RowGroup>,
    /// The fingerprint of all rows.
    pub all: Fingerprint,
    /// CRC-32 of the bytes after the row groups.
    pub footer_crc32: u32,
    /// Nulls by column.
    pub nulls: Vec<u64>,
}

/// The description of a row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowGroup {
    pub rows: u64,
    /// The checksum of its rows.
    pub checksum: u64,
    /// CRC-32 of its encoded columns.
    pub crc32: u32,
}

/// The destination of a writer of the Parquet crate, which can be taken back. The crate's own method flushes, and
/// converts errors to strings.
pub(crate) struct Lent<W>(pub Option<W>);

impl<W: Write> Lent<W> {
    fn get(&mut self) -> std::io::Result<&mut W> {
        self.0.as_mut().ok_or_else(|| std::io::ErrorKind::BrokenPipe.into())
    }
}

impl<W: Write> Write for Lent<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.get()?.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        // After it was taken, nothing is buffered.
        self.0.as_mut().map_or(Ok(()), W::flush)
    }
}

/// Computes the checksum of the bytes that are written.
struct Summed<W> {
    to: Lent<W>,
    /// CRC-32 of the bytes since the last call of `take_crc32`.
    crc32: crc32fast::Hasher,
}

impl<W> Summed<W> {
    fn take_crc32(&mut self) -> u32 {
        std::mem::take(&mut self.crc32).finalize()
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.crc32.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// The current row group.
struct Group {
    columns: Vec<Column>,
    rows: usize,
    /// The checksum of all rows before it.
    before: u64,
}

enum Column {
    /// Ids rarely repeat, except in consecutive rows.
    Ids(Box<TextChunk>),
    Any(Box<ArrowColumnWriter>),
}

impl<'a, W: Write + Send> Encoder<'a, W> {
    /// A file of `schema`'s columns with row groups of `row_group_rows` rows; `encoding` returns the encoding of
    /// a column by its name, and `count` adds rows to a fingerprint.
    ///
    /// # Errors
    /// The writer rejects the schema.
    pub fn new(
        sink: W,
        schema: SchemaRef,
        row_group_rows: u64,
        encoding: &'a dyn Fn(&str) -> ColumnEncoding,
        count: &'a Count<'a>,
    ) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build();
        let parquet = ArrowSchemaConverter::new().convert(&schema)?;
        let sink = Summed { to: Lent(Some(sink)), crc32: crc32fast::Hasher::new() };
        let mut writer = SerializedFileWriter::new(sink, parquet.root_schema_ptr(), Arc::new(properties))?;
        // The magic bytes at the start of the file do not belong to a row group.
        writer.flush()?;
        writer.inner_mut().take_crc32();
        let factory = ArrowRowGroupWriterFactory::new(&writer, schema.clone());
        let full = usize::try_from(row_group_rows).unwrap_or(usize::MAX).max(1);
        let encoded = Encoded { nulls: vec![0; schema.fields().len()], ..Encoded::default() };
        Ok(Encoder { writer, encoding, count, schema, factory, full, group: None, encoded })
    }

    /// Adds the rows of `batch`, which must have the schema.
    ///
    /// # Errors
    /// The error of the writer.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut from = 0;
        while from < batch.num_rows() {
            let mut group = match self.group.take() {
                Some(group) => group,
                None => self.start()?,
            };
            let rows = (self.full - group.rows).min(batch.num_rows() - from);
            let slice = batch.slice(from, rows);
            let counted = (self.count)(&slice, &mut self.encoded.all);
            counted.map_err(|e| ParquetError::External(Box::new(e)))?;
            for (nulls, column) in self.encoded.nulls.iter_mut().zip(slice.columns()) {
                *nulls += column.null_count() as u64;
            }
            group.write(&self.schema, &slice)?;
            from += rows;
            if group.rows == self.full {
                self.end(group)?;
            } else {
                self.group = Some(group);
            }
        }
        Ok(())
    }

    /// Row groups that are complete.
    pub fn row_groups(&self) -> usize {
        self.encoded.row_groups.len()
    }

    /// Ends the file. Returns its description, and the destination.
    ///
    /// # Errors
    /// The error of the writer.
    pub fn finish(mut self) -> Result<(Encoded, W)> {
        if let Some(group) = self.group.take() {
            self.end(group)?;
        }
        self.writer.finish()?;
        let sink = self.writer.inner_mut();
        self.encoded.footer_crc32 = sink.take_crc32();
        let to = sink.to.0.take();
        Ok((self.encoded, to.ok_or_else(|| ParquetError::General("the file has ended already".into()))?))
    }

    fn start(&self) -> Result<Group> {
        let writers = self.factory.create_column_writers(self.encoded.row_groups.len())?;
        if writers.len() != self.schema.fields().len() {
            return Err(ParquetError::NYI("nested columns".into()));
        }
        let columns = writers.into_iter().zip(self.writer.schema_descr().columns());
        let columns = columns.map(|(writer, descriptor)| match (self.encoding)(descriptor.name()) {
            ColumnEncoding::PlainRuns => Column::Ids(Box::new(TextChunk::new(descriptor.clone()))),
            ColumnEncoding::Dictionary => Column::Any(Box::new(writer)),
        });
        Ok(Group { columns: columns.collect(), rows: 0, before: self.encoded.all.checksum })
    }

    fn end(&mut self, group: Group) -> Result<()> {
        let mut row_group = self.writer.next_row_group()?;
        for column in group.columns {
            match column {
                Column::Ids(chunk) => chunk.finish()?.append(&mut row_group)?,
                Column::Any(writer) => writer.close()?.append_to_row_group(&mut row_group)?,
            }
        }
        row_group.close()?;
        // Bytes that the writer has buffered belong to the row group.
        self.writer.flush()?;
        let checksum = self.encoded.all.checksum.wrapping_sub(group.before);
        let crc32 = self.writer.inner_mut().take_crc32();
        self.encoded.row_groups.push(RowGroup { rows: group.rows as u64, checksum, crc32 });
        Ok(())
    }
}

impl Group {
    fn write(&mut self, schema: &SchemaRef, batch: &RecordBatch) -> Result<()> {
        for ((field, array), column) in schema.fields().iter().zip(batch.columns()).zip(&mut self.columns) {
            match column {
                Column::Ids(chunk) => {
                    let ids = array.as_string_opt::<i32>();
                    chunk.write(
                        ids.ok_or_else(|| ParquetError::General("ids that are not strings".into()))?,
                    )?;
                }
                Column::Any(writer) => {
                    for leaf in compute_leaves(field, array)? {
                        writer.write(&leaf)?;
                    }
                }
            }
        }
        self.rows += batch.num_rows();
        Ok(())
    }
}
