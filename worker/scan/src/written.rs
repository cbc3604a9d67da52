//! For tests: pages that the Parquet crate writes. Not here: pages that are built byte by byte (`shapes`).

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::Page;
use parquet::data_type::DataType;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// The body of a data page of required values. No values give no bytes.
pub(crate) fn page<T: DataType>(values: &[T::T], encoding: Encoding) -> Vec<u8> {
    last_page::<T>(values, |properties| properties.set_dictionary_enabled(false).set_encoding(encoding))
}

/// The body of a data page of required values that are indices of a dictionary.
pub(crate) fn indices<T: DataType>(values: &[T::T]) -> Vec<u8> {
    last_page::<T>(values, |properties| properties.set_dictionary_enabled(true))
}

fn last_page<T: DataType>(
    values: &[T::T],
    set: impl Fn(WriterPropertiesBuilder) -> WriterPropertiesBuilder,
) -> Vec<u8> {
    let schema = format!("message pages {{ required {} v; }}", T::get_physical_type());
    let properties = WriterProperties::builder().set_statistics_enabled(EnabledStatistics::None);
    let properties = Arc::new(set(properties).build());
    let mut writer =
        SerializedFileWriter::new(vec![], Arc::new(parse_message_type(&schema).unwrap()), properties)
            .unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(values, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    let file = SerializedFileReader::new(Bytes::from(writer.into_inner().unwrap())).unwrap();
    let mut pages = file.get_row_group(0).unwrap().get_column_page_reader(0).unwrap();
    let mut found = vec![];
    while let Some(page) = pages.get_next_page().unwrap() {
        if let Page::DataPage { buf, .. } = page {
            assert!(found.is_empty(), "a second page");
            found = buf.to_vec();
        }
    }
    found
}
