//! A part file, read by the Parquet crate's own reader and not by the engine's: its schema, its metadata, its rows.
//!
//! Not here: where its bytes are (`local_copy`), and what its rows should be.

use std::collections::HashMap;
use std::fs::File;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};

/// Rows in a batch.
const BATCH: usize = 8 << 10;

/// An open part file.
pub struct PartRows {
    file: File,
    metadata: ArrowReaderMetadata,
}

impl PartRows {
    /// Opens a part file.
    ///
    /// # Errors
    /// It is not a Parquet file, or its footer is damaged.
    pub fn open(file: File) -> Result<Self, String> {
        // The Parquet schema counts, not the Arrow schema that a writer may have stored beside it.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let load = || ArrowReaderMetadata::load(&file, options).map_err(|e| e.to_string());
        let metadata = guarded(load).unwrap_or_else(|| Err("its footer is damaged".into()))?;
        Ok(PartRows { file, metadata })
    }

    /// The key-value metadata.
    pub fn entries(&self) -> HashMap<String, String> {
        let entries = self.metadata.metadata().file_metadata().key_value_metadata();
        let entries = entries.into_iter().flatten();
        entries.filter_map(|entry| Some((entry.key.clone(), entry.value.clone()?))).collect()
    }

    /// How the columns differ from those of `schema`; nullability and order count only if `strict`.
    pub fn schema_fault(&self, schema: &SchemaRef, strict: bool) -> Option<String> {
        let found = self.metadata.schema();
        let shown = |schema: &SchemaRef| {
            let field = |field: &arrow_schema::FieldRef| {
                let required = if field.is_nullable() { "" } else { " required" };
                format!("{} {}{}", field.name(), field.data_type(), if strict { required } else { "" })
            };
            let mut fields: Vec<String> = schema.fields().iter().map(field).collect();
            if !strict {
                fields.sort();
            }
            fields
        };
        let (is, should_be) = (shown(found), shown(schema));
        if is == should_be {
            return None;
        }
        let only = |these: &[String], others: &[String]| {
            these.iter().filter(|one| !others.contains(one)).cloned().collect::<Vec<_>>().join(", ")
        };
        Some(match (only(&is, &should_be), only(&should_be, &is)) {
            (extra, missing) if extra.is_empty() && missing.is_empty() => {
                "its columns are in another order".into()
            }
            (extra, missing) if extra.is_empty() => format!("it does not have the columns: {missing}"),
            (extra, missing) if missing.is_empty() => format!("it has other columns: {extra}"),
            (extra, missing) => format!("it has the columns: {extra}; instead of: {missing}"),
        })
    }

    /// All rows with the columns of `schema`, in its order, or only those with the numbers in `only`, which are sorted.
    ///
    /// # Errors
    /// The file cannot be decoded.
    pub fn batches(
        self,
        schema: SchemaRef,
        only: Option<&[u64]>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, String>>, String> {
        let rows = self.metadata.metadata().file_metadata().num_rows();
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file, self.metadata)
            .with_batch_size(BATCH);
        let leaves = builder.parquet_schema().columns().iter();
        let wanted = leaves.enumerate().filter(|(_, leaf)| schema.index_of(leaf.name()).is_ok());
        let mask = ProjectionMask::leaves(builder.parquet_schema(), wanted.map(|(at, _)| at));
        builder = builder.with_projection(mask);
        if let Some(only) = only {
            let ranges = only.iter().filter_map(|&row| usize::try_from(row).ok()).map(|row| row..row + 1);
            let rows = usize::try_from(rows).unwrap_or(usize::MAX);
            builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges, rows));
        }
        let mut reader = Some(builder.build().map_err(|e| e.to_string())?);
        let next = move || {
            let batch = guarded(|| reader.as_mut()?.next());
            batch.unwrap_or_else(|| {
                reader = None;
                Some(Err(ArrowError::ParquetError("a page is damaged".into())))
            })
        };
        Ok(iter::from_fn(next).map(move |batch| {
            let batch = batch.map_err(|e| e.to_string())?;
            let column = |field: &arrow_schema::FieldRef| {
                let found = batch.column_by_name(field.name()).cloned();
                found.ok_or_else(|| format!("there is no column {}", field.name()))
            };
            let columns = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
            // A part file that another program wrote may call a column nullable that is not.
            RecordBatch::try_new(schema.clone(), columns).map_err(|e| e.to_string())
        }))
    }
}

/// The result of a call into the Parquet crate; `None` if it panics, as it does on some damaged files.
fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray};
    use arrow_schema::{DataType, Field, Schema};
    use parquet::arrow::ArrowWriter;

    use super::*;

    /// All rows of a file with these bytes, or the error.
    fn rows(bytes: &[u8], schema: &SchemaRef) -> Result<Vec<RecordBatch>, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        PartRows::open(file)?.batches(schema.clone(), None)?.collect()
    }

    #[test]
    fn a_damaged_file_is_an_error_or_other_rows_and_no_panic() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("client", DataType::Utf8, true),
            Field::new("n", DataType::Int64, false),
        ]));
        let clients = StringArray::from(vec![Some("a"), None, Some("c")]);
        let columns: Vec<arrow_array::ArrayRef> =
            vec![Arc::new(clients), Arc::new(Int64Array::from(vec![1, 2, 3]))];
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let mut writer = ArrowWriter::try_new(vec![], schema.clone(), None).unwrap();
        writer.write(&batch).unwrap();
        let bytes = writer.into_inner().unwrap();
        assert_eq!(rows(&bytes, &schema).unwrap(), [batch]);
        for at in 0..bytes.len() {
            assert!(rows(&bytes[..at], &schema).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                // Whether the damage is noticed depends on the place; checksums of pages are not written here.
                let _ = rows(&damaged, &schema);
            }
        }
    }
}
