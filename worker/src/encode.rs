//! Rows as row groups of a Parquet file, as reduce tasks and write tasks put them together.
//!
//! Most columns are encoded by the Parquet crate. Two kinds it encodes dearly are put together here, page by page:
//! ids ([`text`]) and columns of one value ([`constant`]).
//!
//! Not here: where a file lies, and what is in it.

pub(crate) mod chunk;
pub(crate) mod constant;
mod snappy;
mod text;

use std::io::Write;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use tally_dataset::{DatasetError, Fingerprint};

use text::TextChunk;

/// Takes rows into a fingerprint.
pub(crate) type Count<'a> =
    dyn Fn(&RecordBatch, &mut Fingerprint) -> std::result::Result<(), DatasetError> + 'a;

/// Encodes rows as row groups of a Parquet file, and tells what each of them holds. The columns are flat.
pub(crate) struct Encoder<'a, W: Write + Send> {
    writer: SerializedFileWriter<Summed<W>>,
    count: &'a Count<'a>,
    schema: SchemaRef,
    factory: ArrowRowGroupWriterFactory,
    /// Rows of a full row group.
    full: usize,
    group: Option<Group>,
    encoded: Encoded,
}

/// What was encoded.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub row_groups: Vec<RowGroup>,
    /// Of all rows.
    pub all: Fingerprint,
    /// CRC-32 of what follows the row groups.
    pub footer_crc32: u32,
}

/// A row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowGroup {
    pub rows: u64,
    /// Of its rows' content.
    pub checksum: u64,
    /// CRC-32 of its encoded columns.
    pub crc32: u32,
}

/// Counts the bytes that pass.
struct Summed<W> {
    to: W,
    /// CRC-32 of the bytes since it was asked for.
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

/// The row group in the making.
struct Group {
    columns: Vec<Column>,
    rows: usize,
    /// The checksum of all rows before it.
    before: u64,
}

enum Column {
    /// Ids hardly repeat but for rows of the same one, which stand together.
    Ids(Box<TextChunk>),
    Any(Box<ArrowColumnWriter>),
}

impl<'a, W: Write + Send> Encoder<'a, W> {
    /// A file of `schema`'s columns with row groups of `row_group_rows` rows, which `count` takes fingerprints of; the
    /// text column `client_id` holds ids.
    ///
    /// # Errors
    /// What the writer says of the schema.
    pub fn new(sink: W, schema: SchemaRef, row_group_rows: u64, count: &'a Count<'a>) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build();
        let parquet = ArrowSchemaConverter::new().convert(&schema)?;
        let sink = Summed { to: sink, crc32: crc32fast::Hasher::new() };
        let mut writer = SerializedFileWriter::new(sink, parquet.root_schema_ptr(), Arc::new(properties))?;
        // The file's first bytes are of no row group.
        writer.flush()?;
        writer.inner_mut().take_crc32();
        let factory = ArrowRowGroupWriterFactory::new(&writer, schema.clone());
        let full = usize::try_from(row_group_rows).unwrap_or(usize::MAX).max(1);
        Ok(Encoder { writer, count, schema, factory, full, group: None, encoded: Encoded::default() })
    }

    /// Adds the rows of `batch`, which has the schema's columns.
    ///
    /// # Errors
    /// What the writer says.
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

    /// Ends the file: what it holds, and what it was written to.
    ///
    /// # Errors
    /// What the writer says.
    pub fn finish(mut self) -> Result<(Encoded, W)> {
        if let Some(group) = self.group.take() {
            self.end(group)?;
        }
        let mut sink = self.writer.into_inner()?;
        self.encoded.footer_crc32 = sink.take_crc32();
        Ok((self.encoded, sink.to))
    }

    fn start(&self) -> Result<Group> {
        let writers = self.factory.create_column_writers(self.encoded.row_groups.len())?;
        if writers.len() != self.schema.fields().len() {
            return Err(ParquetError::NYI("columns that are nested".into()));
        }
        let columns = writers.into_iter().zip(self.writer.schema_descr().columns());
        let columns = columns.map(|(writer, descriptor)| {
            if descriptor.name() == "client_id" {
                Column::Ids(Box::new(TextChunk::new(descriptor.clone())))
            } else {
                Column::Any(Box::new(writer))
            }
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
        // What the writer holds back belongs to it, too.
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
                    chunk.write(ids.ok_or_else(|| ParquetError::General("ids that are no text".into()))?)?;
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
