//! Columns of one value. A required column of 32-bit or 64-bit integers is a dictionary with this value, and one run of
//! its code for all rows: for any number of rows, it takes a few bytes and almost no time. The Parquet crate encodes
//! columns of other types.

use std::io::Write;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, UInt32Array};
use arrow_schema::{DataType, FieldRef, SchemaRef};
use arrow_select::take::take;
use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::Encoding;
use parquet::column::page::Page;
use parquet::errors::{ParquetError, Result};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnDescPtr;

use super::chunk::Chunk;
use super::snappy::{self, varint};
use tally_common::counts::counted;

/// Rows of a column that the Parquet crate is given at a time.
const ROWS: u64 = 64 << 10;

/// The last columns of a file's schema, each with its one value.
pub(crate) struct Constants {
    schema: SchemaRef,
    /// A column each, in order.
    values: Vec<ArrayRef>,
    columns: Vec<ColumnDescPtr>,
    factory: ArrowRowGroupWriterFactory,
}

impl Constants {
    /// The constants of a file that `writer` writes, whose columns are `schema`'s. The columns are flat.
    ///
    /// # Errors
    /// The schema does not end with columns of these types, or is nested.
    pub fn new<W: Write + Send>(
        writer: &SerializedFileWriter<W>,
        schema: SchemaRef,
        values: Vec<ArrayRef>,
    ) -> Result<Self> {
        let columns = writer.schema_descr().columns().to_vec();
        if columns.len() != schema.fields().len() {
            return Err(ParquetError::NYI("nested columns".into()));
        }
        let factory = ArrowRowGroupWriterFactory::new(writer, schema.clone());
        let constants = Constants { schema, values, columns, factory };
        match constants.first() {
            Some(first) => {
                for (field, value) in constants.schema.fields()[first..].iter().zip(&constants.values) {
                    check(field, value)?;
                }
                Ok(constants)
            }
            None => Err(ParquetError::General("there are more constants than columns".into())),
        }
    }

    /// Place of the first one.
    fn first(&self) -> Option<usize> {
        self.columns.len().checked_sub(self.values.len())
    }

    /// Adds them to a row group of this many rows, which has this many `columns` so far.
    ///
    /// # Errors
    /// These are not the columns before the constants, or the error of the writer.
    pub fn append<W: Write + Send>(
        &self,
        columns: usize,
        rows: u64,
        row_group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        if self.first() != Some(columns) {
            let what = "the schema does not have the reduced columns and the constants";
            return Err(ParquetError::General(what.into()));
        }
        for (at, value) in (columns..).zip(&self.values) {
            let column = &self.columns[at];
            let required = column.max_def_level() + column.max_rep_level() == 0;
            match value.data_type() {
                DataType::Int32 if required => {
                    let value = value.as_primitive::<Int32Type>().value(0);
                    let statistics = Statistics::int32(Some(value), Some(value), None, Some(0), false);
                    chunk(column.clone(), &value.to_le_bytes(), statistics, rows)?.append(row_group)?;
                }
                DataType::Int64 if required => {
                    let value = value.as_primitive::<Int64Type>().value(0);
                    let statistics = Statistics::int64(Some(value), Some(value), None, Some(0), false);
                    chunk(column.clone(), &value.to_le_bytes(), statistics, rows)?.append(row_group)?;
                }
                _ => self.encode(at, value, rows, row_group)?,
            }
        }
        Ok(())
    }

    /// Encodes a column as the Parquet crate does.
    fn encode<W: Write + Send>(
        &self,
        at: usize,
        value: &ArrayRef,
        rows: u64,
        row_group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        let mut writers = self.factory.create_column_writers(0)?;
        let mut writer = writers.swap_remove(at);
        let mut left = rows;
        while left > 0 {
            let some = left.min(ROWS);
            let array = take(value, &UInt32Array::from(vec![0; some as usize]), None)?;
            for leaf in compute_leaves(&self.schema.fields()[at], &array)? {
                writer.write(&leaf)?;
            }
            left -= some;
        }
        writer.close()?.append_to_row_group(row_group)
    }
}

/// Compares a constant with its column.
fn check(field: &FieldRef, value: &ArrayRef) -> Result<()> {
    let misfit = value.len() != 1
        || value.data_type() != field.data_type()
        || (value.null_count() > 0 && !field.is_nullable());
    if misfit {
        let (name, wanted, found) = (field.name(), field.data_type(), value.data_type());
        let (count, nulls) = (value.len(), value.null_count());
        return Err(ParquetError::General(format!(
            "the constant column {name} of {wanted} was given {} of {found} with {}",
            counted(count, "value"),
            counted(nulls, "null")
        )));
    }
    Ok(())
}

/// A chunk of `rows` times the value with these plain bytes, of a required column.
///
/// # Errors
/// More rows than a page can have.
fn chunk(descriptor: ColumnDescPtr, value: &[u8], statistics: Statistics, rows: u64) -> Result<Chunk> {
    let too_many = || ParquetError::General(format!("a row group of {}", counted(rows, "row")));
    let num_values = u32::try_from(i32::try_from(rows).map_err(|_| too_many())?).map_err(|_| too_many())?;
    let mut chunk = Chunk::new(descriptor);
    let buf = Bytes::from(snappy::stored(value));
    chunk.page(
        Page::DictionaryPage { buf, num_values: 1, encoding: Encoding::PLAIN, is_sorted: false },
        value.len(),
    )?;
    // Codes have zero bits, because there is only one. A run's header is its length, shifted left by one.
    let mut codes = vec![0];
    varint(u64::from(num_values) << 1, &mut codes);
    let page = Page::DataPage {
        buf: Bytes::from(snappy::stored(&codes)),
        num_values,
        encoding: Encoding::RLE_DICTIONARY,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    };
    chunk.page(page, codes.len())?;
    chunk.set_statistics(statistics);
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{BooleanArray, Float64Array, Int32Array, Int64Array, StringArray};
    use arrow_schema::{Field, Schema};
    use arrow_select::concat::concat_batches;
    use parquet::arrow::ArrowSchemaConverter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use std::sync::Arc;

    /// A file of one row group that has only constants.
    fn file(columns: &[(DataType, bool, ArrayRef)], rows: u64) -> Result<Bytes> {
        let field = |(at, (kind, nullable, _)): (usize, &(DataType, bool, ArrayRef))| {
            Field::new(format!("c{at}"), kind.clone(), *nullable)
        };
        let schema = Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()));
        let parquet = ArrowSchemaConverter::new().convert(&schema)?;
        let mut writer = SerializedFileWriter::new(vec![], parquet.root_schema_ptr(), Default::default())?;
        let values = columns.iter().map(|(.., value)| value.clone()).collect();
        let constants = Constants::new(&writer, schema, values)?;
        let mut row_group = writer.next_row_group()?;
        constants.append(0, rows, &mut row_group)?;
        row_group.close()?;
        Ok(Bytes::from(writer.into_inner()?))
    }

    #[test]
    fn every_row_has_the_value() {
        for (value, rows) in [(7, 1), (-1, 63), (0, 64), (i32::MAX, 1_000_003)] {
            let long = i64::from(value) << 20;
            let columns: [(DataType, bool, ArrayRef); 2] = [
                (DataType::Int32, false, Arc::new(Int32Array::from(vec![value]))),
                (DataType::Int64, false, Arc::new(Int64Array::from(vec![long]))),
            ];
            let file = file(&columns, rows).unwrap();
            assert!(file.len() < 900);
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            let statistics = |at: usize| builder.metadata().row_group(0).column(at).statistics().cloned();
            let expect = Statistics::int32(Some(value), Some(value), None, Some(0), false);
            assert_eq!(statistics(0), Some(expect));
            let expect = Statistics::int64(Some(long), Some(long), None, Some(0), false);
            assert_eq!(statistics(1), Some(expect));
            let mut seen = 0;
            for batch in builder.build().unwrap() {
                let batch = batch.unwrap();
                assert!(batch.column(0).as_primitive::<Int32Type>().values().iter().all(|&v| v == value));
                assert!(batch.column(1).as_primitive::<Int64Type>().values().iter().all(|&v| v == long));
                seen += batch.num_rows() as u64;
            }
            assert_eq!(seen, rows);
        }
    }

    #[test]
    fn any_type_may_be_constant() {
        let columns: [(DataType, bool, ArrayRef); 6] = [
            (DataType::Int32, true, Arc::new(Int32Array::from(vec![Some(3)]))),
            (DataType::Int64, true, Arc::new(Int64Array::from(vec![None]))),
            (DataType::Utf8, false, Arc::new(StringArray::from(vec!["one"]))),
            (DataType::Utf8, true, Arc::new(StringArray::from(vec![None::<&str>]))),
            (DataType::Boolean, false, Arc::new(BooleanArray::from(vec![true]))),
            (DataType::Float64, false, Arc::new(Float64Array::from(vec![0.5]))),
        ];
        for rows in [1, ROWS, 3 * ROWS + 1] {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file(&columns, rows).unwrap()).unwrap();
            let schema = builder.schema().clone();
            let batches: Vec<_> = builder.build().unwrap().map(|batch| batch.unwrap()).collect();
            let all = concat_batches(&schema, &batches).unwrap();
            for (column, (.., value)) in all.columns().iter().zip(&columns) {
                let expect = take(value, &UInt32Array::from(vec![0; rows as usize]), None).unwrap();
                assert_eq!(column, &expect);
            }
        }
    }

    #[test]
    fn a_value_that_its_column_cannot_have_is_refused() {
        let refused = |kind, nullable, value: ArrayRef| file(&[(kind, nullable, value)], 1).is_err();
        assert!(refused(DataType::Int64, false, Arc::new(Int32Array::from(vec![1]))));
        assert!(refused(DataType::Int32, false, Arc::new(Int32Array::from(vec![None]))));
        assert!(refused(DataType::Int32, false, Arc::new(Int32Array::from(vec![1, 2]))));
    }
}
