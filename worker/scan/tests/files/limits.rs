//! Files that need more memory than is available: the scan fails with an error that names file, row group and column.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use tally_dataset::Dataset;
use tally_dataset::addon_aggregates::{AddonAggregates, MAIN_SUMMARY};
use tally_scan::ScanError;

use crate::Result;
use crate::row_group::{Reading, read};

/// A Parquet file with these client ids.
fn file(ids: &[String], properties: WriterPropertiesBuilder) -> Result<Vec<u8>> {
    let columns: Vec<(&str, ArrayRef)> = vec![("client_id", Arc::new(StringArray::from_iter_values(ids)))];
    let batch = RecordBatch::try_from_iter(columns)?;
    let properties = properties.set_compression(Compression::SNAPPY).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(bytes)
}

/// Reads a file with a budget. Returns the number of partials, or the error of the scan.
fn partials(bytes: &[u8], budget: u64) -> Result<std::result::Result<usize, ScanError>> {
    let dataset = AddonAggregates::new();
    let mut mapper = dataset.mapper(MAIN_SUMMARY, 4, None);
    let reading = Reading { window: 1 << 20, budget, batches: usize::MAX };
    Ok(match read(bytes, &reading, &dataset.tables()[MAIN_SUMMARY], &mut *mapper)? {
        Ok(()) => Ok(mapper.flush()?.batch.num_rows()),
        Err(error) => Err(error),
    })
}

/// Reads a file with enough memory, and with too little, which must fail with the position.
fn check(ids: &[String], properties: &WriterPropertiesBuilder, enough: u64, too_little: u64) -> Result<()> {
    let bytes = file(ids, properties.clone())?;
    let distinct = ids.iter().collect::<HashSet<_>>().len();
    assert_eq!(partials(&bytes, enough)??, distinct);
    let Err(error) = partials(&bytes, too_little)? else {
        return Err("the smaller budget was enough".into());
    };
    assert!(matches!(error, ScanError::Memory { .. }), "{error}");
    let said = error.to_string();
    for part in ["mem://part-7.parquet", "row group 0", "client_id", "--memory-limit"] {
        assert!(said.contains(part), "{said}");
    }
    Ok(())
}

#[test]
fn a_dictionary_takes_its_memory_from_the_budget() -> Result<()> {
    let ids: Vec<String> = (0..200_000).map(|id| format!("no uuid {id:020}")).collect();
    let properties = WriterProperties::builder().set_dictionary_page_size_limit(64 << 20);
    // The page of 6.4 MB, uncompressed and compressed; then 12 bytes for the span and code of each value.
    check(&ids, &properties, 12 << 20, 9 << 20)?;
    // The dictionary stays in memory while its data pages are read.
    let long: Vec<String> = (0..20).map(|id| format!("{id:02}{}", "x".repeat(500_000))).collect();
    check(&long, &properties, 24 << 20, 9 << 20)
}

#[test]
fn strings_that_share_long_beginnings_take_their_memory_from_the_budget() -> Result<()> {
    let ids: Vec<String> = (0..1000).map(|id| format!("{}{id}", "x".repeat(20_000))).collect();
    let encoded = |encoding| {
        WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_column_encoding(ColumnPath::from("client_id"), encoding)
    };
    // 20 MB of strings, in pages of a few kilobytes.
    check(&ids, &encoded(Encoding::DELTA_BYTE_ARRAY), 32 << 20, 16 << 20)
}

#[test]
fn strings_as_long_as_a_step_may_share_all_of_the_previous_string() -> Result<()> {
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_column_encoding(ColumnPath::from("client_id"), Encoding::DELTA_BYTE_ARRAY);
    const STEP: usize = 256 << 10;
    for length in [STEP - 1, STEP, STEP + 1, 2 * STEP] {
        let text = |tail: &str| format!("{}{tail}", "x".repeat(length));
        let ids = [text(""), text("a"), text("a"), text("ab"), text("b")];
        assert_eq!(partials(&file(&ids, properties.clone())?, 64 << 20)??, 4, "{length}");
    }
    Ok(())
}
