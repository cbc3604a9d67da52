//! A column of one value: a dictionary of it, and one run that says it for every row. However many rows there are, it
//! takes a few bytes and no time.

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::Page;
use parquet::errors::{ParquetError, Result};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescPtr;

use super::chunk::Chunk;
use super::snappy::{self, varint};

/// A chunk of `rows` times `value`, of a required column of 32 bits.
///
/// # Errors
/// A column of another kind, or more rows than a page can have.
pub(crate) fn chunk(descriptor: ColumnDescPtr, value: i32, rows: u64) -> Result<Chunk> {
    if descriptor.max_def_level() + descriptor.max_rep_level() != 0 {
        return Err(ParquetError::General(format!("{} is not required", descriptor.name())));
    }
    let too_many = || ParquetError::General(format!("{rows} rows in a row group"));
    let num_values = u32::try_from(i32::try_from(rows).map_err(|_| too_many())?).map_err(|_| too_many())?;
    let mut chunk = Chunk::new(descriptor);
    let dictionary = value.to_le_bytes();
    let buf = Bytes::from(snappy::stored(&dictionary));
    chunk.page(
        Page::DictionaryPage { buf, num_values: 1, encoding: Encoding::PLAIN, is_sorted: false },
        dictionary.len(),
    )?;
    // Codes of no bits each: there is only one. A run's header is its length with a zero below.
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
    chunk.set_statistics(Statistics::int32(Some(value), Some(value), None, Some(0), false));
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use parquet::arrow::ArrowSchemaConverter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::writer::SerializedFileWriter;
    use std::sync::Arc;

    #[test]
    fn every_row_has_the_value() {
        for (value, rows) in [(7, 1), (-1, 63), (0, 64), (i32::MAX, 1_000_003)] {
            let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]));
            let parquet = ArrowSchemaConverter::new().convert(&schema).unwrap();
            let mut writer =
                SerializedFileWriter::new(vec![], parquet.root_schema_ptr(), Default::default()).unwrap();
            let mut row_group = writer.next_row_group().unwrap();
            chunk(parquet.column(0), value, rows).unwrap().append(&mut row_group).unwrap();
            row_group.close().unwrap();
            let file = Bytes::from(writer.into_inner().unwrap());
            assert!(file.len() < 500);
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            let statistics = builder.metadata().row_group(0).column(0).statistics().unwrap().clone();
            assert_eq!(statistics, Statistics::int32(Some(value), Some(value), None, Some(0), false));
            let mut seen = 0;
            for batch in builder.build().unwrap() {
                let batch = batch.unwrap();
                let values = batch.column(0).as_primitive::<Int32Type>().values();
                assert!(values.iter().all(|&v| v == value));
                seen += values.len() as u64;
            }
            assert_eq!(seen, rows);
        }
    }

    #[test]
    fn a_column_that_may_be_null_is_refused() {
        let schema = Schema::new(vec![Field::new("n", DataType::Int32, true)]);
        let parquet = ArrowSchemaConverter::new().convert(&schema).unwrap();
        assert!(chunk(parquet.column(0), 1, 1).is_err());
    }
}
