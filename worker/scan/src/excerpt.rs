//! Excerpts of footers that are sent with a task: the needed columns of its row groups, so that workers do not fetch
//! what planning has fetched. A telemetry footer describes hundreds of columns, its excerpt a few.
//!
//! An excerpt is itself a footer, of a file without the other columns and row groups. The offsets of column chunks are
//! unchanged.

use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::Result;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FileMetaData, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData};
use parquet::schema::types::{SchemaDescriptor, Type};

use crate::error::{Fault, FilePosition, ScanError};
use crate::footer;

/// Reduces a footer to the columns with these leaves, and those that share a top-level field with them.
///
/// # Errors
/// The footer is inconsistent; the scan of the file reports the position.
fn columns(metadata: &ParquetMetaData, leaves: &[usize]) -> Result<ParquetMetaData> {
    let whole = metadata.file_metadata();
    let schema = whole.schema_descr();
    let mut roots: Vec<usize> = leaves.iter().map(|&leaf| schema.get_column_root_idx(leaf)).collect();
    roots.sort_unstable();
    roots.dedup();
    let fields = roots.iter().map(|&root| schema.root_schema().get_fields()[root].clone()).collect();
    let root = Type::group_type_builder(schema.name()).with_fields(fields).build()?;
    let needed = Arc::new(SchemaDescriptor::new(Arc::new(root)));
    let kept: Vec<usize> = (0..schema.num_columns())
        .filter(|&leaf| roots.binary_search(&schema.get_column_root_idx(leaf)).is_ok())
        .collect();
    let group = |group: &RowGroupMetaData| {
        let chunks = kept.iter().map(|&leaf| {
            let chunk = group.column(leaf).clone().into_builder();
            chunk.clear_statistics().clear_page_encoding_stats().build()
        });
        RowGroupMetaData::builder(needed.clone())
            .set_num_rows(group.num_rows())
            .set_total_byte_size(group.total_byte_size())
            .set_column_metadata(chunks.collect::<Result<_>>()?)
            .build()
    };
    let groups = metadata.row_groups().iter().map(group).collect::<Result<_>>()?;
    let created_by = whole.created_by().map(str::to_string);
    let file = FileMetaData::new(whole.version(), whole.num_rows(), created_by, None, needed.clone(), None);
    Ok(ParquetMetaData::new(file, groups))
}

/// The bytes of an excerpt of all row groups.
///
/// # Errors
/// The footer is inconsistent, or its excerpt cannot be encoded.
pub fn of(metadata: &ParquetMetaData, leaves: &[usize]) -> Result<Vec<u8>> {
    let all: Vec<u32> = (0u32..).take(metadata.num_row_groups()).collect();
    encode(&columns(metadata, leaves)?, &all)
}

/// The bytes of an excerpt of these row groups.
///
/// # Errors
/// The excerpt cannot be encoded.
pub fn encode(columns: &ParquetMetaData, row_groups: &[u32]) -> Result<Vec<u8>> {
    let groups = row_groups.iter().filter_map(|&number| columns.row_groups().get(number as usize).cloned());
    let excerpt = ParquetMetaData::new(columns.file_metadata().clone(), groups.collect());
    let mut bytes = vec![];
    ParquetMetaDataWriter::new(&mut bytes, &excerpt).finish()?;
    // An excerpt does not need the length and the magic bytes.
    bytes.truncate(bytes.len().saturating_sub(FOOTER_SIZE));
    Ok(bytes)
}

/// Decodes the excerpt of `row_groups` row groups of a file.
///
/// # Errors
/// [`ScanError::Corrupt`], naming the file.
pub fn decode(bytes: Vec<u8>, file: &str, row_groups: usize) -> Result<Arc<ParquetMetaData>, ScanError> {
    let place = || FilePosition { file: file.into(), ..FilePosition::default() };
    let (metadata, _) = footer::decode(&Bytes::from(bytes)).map_err(|fault| fault.at(place()))?;
    if metadata.num_row_groups() != row_groups {
        let what = format!("{} row groups in the excerpt of {row_groups}", metadata.num_row_groups());
        return Err(Fault::Corrupt(what).at(place()));
    }
    Ok(Arc::new(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{ArrayRef, Int32Array, RecordBatch, StructArray};
    use parquet::arrow::ArrowWriter;

    fn footer_of(fields: usize) -> ParquetMetaData {
        let one: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let pair: ArrayRef =
            Arc::new(StructArray::try_from(vec![("x", one.clone()), ("y", one.clone())]).unwrap());
        let mut columns: Vec<(String, ArrayRef)> = vec![("pair".into(), pair)];
        columns.extend((0..fields).map(|field| (format!("field{field}"), one.clone())));
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(vec![], batch.schema(), None).unwrap();
        for _ in 0..3 {
            writer.write(&batch).unwrap();
            writer.flush().unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn an_excerpt_describes_its_chunks_like_the_footer_and_is_small() {
        let footer = footer_of(300);
        // pair.y and field2.
        let needed = columns(&footer, &[4, 1]).unwrap();
        let bytes = encode(&needed, &[0, 2]).unwrap();
        assert!(bytes.len() < 1200, "{} bytes", bytes.len());
        let excerpt = decode(bytes, "f", 2).unwrap();
        for (at, number) in [(0, 0), (1, 2)] {
            let (of, whole) = (excerpt.row_group(at), footer.row_group(number));
            assert_eq!(of.num_rows(), whole.num_rows());
            assert_eq!(of.num_columns(), 3);
            for (column, leaf) in [(0, 0), (1, 1), (2, 4)] {
                let (a, b) = (of.column(column), whole.column(leaf));
                assert_eq!(a.column_path(), b.column_path());
                assert_eq!(a.byte_range(), b.byte_range());
                assert_eq!(a.compression(), b.compression());
                assert_eq!(a.num_values(), b.num_values());
                assert_eq!(a.column_descr().max_def_level(), b.column_descr().max_def_level());
                assert_eq!(a.dictionary_page_offset(), b.dictionary_page_offset());
            }
        }
        assert!(decode(encode(&needed, &[1]).unwrap(), "f", 2).is_err());
        assert!(decode(vec![0xFF; 30], "f", 1).is_err());
    }
}
