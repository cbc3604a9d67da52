//! A part file that another program read and wrote again: valid Parquet with the same footer keys, in which a test changes
//! what it wants. Not here: the engine's writer.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use arrow_array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

/// The rows and the key-value metadata of a part file.
#[derive(Clone, Debug)]
pub struct PartFile {
    /// The metadata, which the footer has.
    pub entries: Vec<KeyValue>,
    /// All rows.
    pub rows: RecordBatch,
}

impl PartFile {
    /// Reads a part file.
    ///
    /// # Errors
    /// It is not a Parquet file.
    pub fn read(path: &Path) -> Result<Self> {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(path)?, options)?;
        let entries = builder.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
        let schema = builder.schema().clone();
        let batches = builder.build()?.collect::<Result<Vec<_>, _>>()?;
        Ok(PartFile { entries, rows: concat_batches(&schema, &batches)? })
    }

    /// Writes it.
    ///
    /// # Errors
    /// The file system fails.
    pub fn write(&self, path: &Path) -> Result<()> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(self.entries.clone()))
            .build();
        let mut writer = ArrowWriter::try_new(File::create(path)?, self.rows.schema(), Some(properties))?;
        writer.write(&self.rows)?;
        writer.close()?;
        Ok(())
    }

    /// Sets an entry of the footer.
    pub fn set_entry(&mut self, key: &str, value: &str) {
        self.entries.retain(|entry| entry.key != key);
        self.entries.push(KeyValue::new(key.to_string(), value.to_string()));
    }

    /// The rows with these numbers, in this order.
    ///
    /// # Errors
    /// There is no such row.
    pub fn take(&mut self, rows: impl IntoIterator<Item = u64>) -> Result<()> {
        self.rows = take_record_batch(&self.rows, &UInt64Array::from_iter_values(rows))?;
        Ok(())
    }

    /// Replaces a value: that of one row in one column, given as an array of one element.
    ///
    /// # Errors
    /// There is no such column or row.
    pub fn set(&mut self, row: usize, column: &str, value: ArrayRef) -> Result<()> {
        let at = self.rows.schema().index_of(column)?;
        let old = self.rows.column(at);
        let pieces = [old.slice(0, row), value, old.slice(row + 1, old.len() - row - 1)];
        let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| &**piece).collect();
        let mut columns = self.rows.columns().to_vec();
        columns[at] = arrow_select::concat::concat(&pieces)?;
        self.rows = RecordBatch::try_new(self.rows.schema(), columns).context(column.to_string())?;
        Ok(())
    }

    /// The schema of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }
}
