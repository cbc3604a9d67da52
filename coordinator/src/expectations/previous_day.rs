//! The figures of the day that was published before a date, from the footer of one of its part files.
//!
//! Not here: the content of a footer (`part_footer`).

use std::collections::HashMap;

use object_store::ObjectStoreExt;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaDataReader};
use tally_common::stores::explain;
use tally_dataset::Dataset;
use tally_scan::InputFile;

use super::{DayFigures, Previous};
use crate::job::{date_folder, date_text, parse_date};
use crate::part_footer::PartFooter;
use crate::plan::listing::{ListError, dates, day_files};

/// The name of the output in errors.
const OUTPUT: &str = "output";
/// The longest footer that is read, in bytes. Those of part files have a few kilobytes.
const MAX_FOOTER: u64 = 64 << 20;
/// Folders without part files that are looked at.
const MAX_EMPTY: usize = 30;

/// The previous day cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PreviousError {
    /// The output cannot be listed.
    #[error("the previous day cannot be found: {0}")]
    List(#[from] ListError),
    /// A part file cannot be read.
    #[error("the previous day cannot be read: {file}: {why}")]
    Read {
        /// The file.
        file: String,
        /// The reason.
        why: String,
    },
}

/// The last day before `date` that the output has.
///
/// # Errors
/// [`PreviousError`].
pub async fn before(dataset: &dyn Dataset, output: &str, date: &str) -> Result<Previous, PreviousError> {
    let column = dataset.partition_column();
    let all = dates(OUTPUT, output, column).await?;
    let Some(date) = parse_date(date) else { return Ok(Previous::None) };
    for earlier in all.range(..date).rev().take(MAX_EMPTY).map(|date| date_text(*date)) {
        let found = match day_files(OUTPUT, output, &date_folder(column, &earlier)).await {
            Ok(found) => found,
            // A folder without part files is not a published day.
            Err(ListError::Nothing { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let Some(file) = found.files.first() else { continue };
        let figures = figures(dataset, file).await?;
        return Ok(figures.map_or_else(
            || Previous::WithoutFigures(earlier.clone()),
            |mut figures| {
                figures.files = Some(found.files.len() as u64);
                Previous::Day(earlier.clone(), figures)
            },
        ));
    }
    Ok(Previous::None)
}

/// The figures in the footer of a part file; `None` if no job of the dataset wrote it.
async fn figures(dataset: &dyn Dataset, file: &InputFile) -> Result<Option<DayFigures>, PreviousError> {
    let failed = |why: String| PreviousError::Read { file: file.name.clone(), why };
    let Some(entries) = entries(file).await.map_err(failed)? else { return Ok(None) };
    let Ok(PartFooter { day, .. }) = PartFooter::read(&entries, dataset) else { return Ok(None) };
    Ok(DayFigures::new(dataset, &day.totals, day.files, day.nulls.as_deref()).ok())
}

/// The key-value metadata of a Parquet file; `None` if it is not a Parquet file.
async fn entries(file: &InputFile) -> Result<Option<HashMap<String, String>>, String> {
    let get = async |start: u64, end: u64| {
        file.store.get_range(&file.path, start..end).await.map_err(|error| explain(&error))
    };
    let Some(tail_at) = file.size.checked_sub(FOOTER_SIZE as u64) else { return Ok(None) };
    let tail = get(tail_at, file.size).await?;
    let Some(Ok(tail)) = tail.first_chunk().map(FooterTail::try_new) else { return Ok(None) };
    let length = tail.metadata_length() as u64;
    let Some(start) = tail_at.checked_sub(length).filter(|_| length <= MAX_FOOTER) else { return Ok(None) };
    let Ok(metadata) = ParquetMetaDataReader::decode_metadata(&get(start, tail_at).await?) else {
        return Ok(None);
    };
    let entries = metadata.file_metadata().key_value_metadata().cloned().unwrap_or_default();
    Ok(Some(entries.into_iter().filter_map(|entry| Some((entry.key, entry.value?))).collect()))
}
