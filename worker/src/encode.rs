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

use text::TextChunk;

/// Encodes rows as row groups of a Parquet file. The columns are flat.
pub(crate) struct Encoder<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    schema: SchemaRef,
    factory: ArrowRowGroupWriterFactory,
    /// Rows of a full row group.
    full: usize,
    group: Option<Group>,
    row_groups: Vec<u64>,
}

/// The row group in the making.
struct Group {
    columns: Vec<Column>,
    rows: usize,
}

enum Column {
    /// Ids hardly repeat but for rows of the same one, which stand together.
    Ids(Box<TextChunk>),
    Any(Box<ArrowColumnWriter>),
}

impl<W: Write + Send> Encoder<W> {
    /// A file of `schema`'s columns with row groups of `row_group_rows` rows; the text column `ids` holds ids.
    ///
    /// # Errors
    /// What the writer says of the schema.
    pub fn new(sink: W, schema: SchemaRef, row_group_rows: u64) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build();
        let parquet = ArrowSchemaConverter::new().convert(&schema)?;
        let writer = SerializedFileWriter::new(sink, parquet.root_schema_ptr(), Arc::new(properties))?;
        let factory = ArrowRowGroupWriterFactory::new(&writer, schema.clone());
        let full = usize::try_from(row_group_rows).unwrap_or(usize::MAX).max(1);
        Ok(Encoder { writer, schema, factory, full, group: None, row_groups: vec![] })
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
            group.write(&self.schema, &batch.slice(from, rows))?;
            from += rows;
            if group.rows == self.full {
                self.end(group)?;
            } else {
                self.group = Some(group);
            }
        }
        Ok(())
    }

    /// Ends the file: rows of each row group, and what it was written to.
    ///
    /// # Errors
    /// What the writer says.
    pub fn finish(mut self) -> Result<(Vec<u64>, W)> {
        if let Some(group) = self.group.take() {
            self.end(group)?;
        }
        Ok((self.row_groups, self.writer.into_inner()?))
    }

    fn start(&self) -> Result<Group> {
        let writers = self.factory.create_column_writers(self.row_groups.len())?;
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
        Ok(Group { columns: columns.collect(), rows: 0 })
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
        self.row_groups.push(group.rows as u64);
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
