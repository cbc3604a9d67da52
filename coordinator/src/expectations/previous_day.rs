//! The figures of the day that was published before a date, from the footer of one of its part files.
//!
//! Not here: the content of a footer (`part_footer`).

use tally_dataset::Dataset;
use tally_scan::InputFile;

use super::{DayFigures, Previous};
use crate::dates::{date_folder, date_text, parse_date};
use crate::part_footer::PartFooter;
use crate::part_footer::entries::{EntriesError, entries};
use crate::plan::listing::{ListError, dates, day_files};

/// The name of the output in errors.
const OUTPUT: &str = "output";
/// Folders without part files that are looked at.
const MAX_EMPTY: usize = 30;

/// The previous day cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PreviousError {
    /// The output cannot be listed.
    #[error("the previous day cannot be found: {0}")]
    List(#[from] ListError),
    /// A part file cannot be read.
    #[error("the previous day cannot be read: {0}")]
    Read(#[source] EntriesError),
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
    let entries = match entries(file).await {
        Ok(entries) => entries,
        Err(EntriesError::NotParquet { .. }) => return Ok(None),
        Err(error) => return Err(PreviousError::Read(error)),
    };
    let Ok(PartFooter { day, .. }) = PartFooter::read(&entries, dataset) else { return Ok(None) };
    Ok(DayFigures::new(dataset, &day.totals, day.files, day.nulls.as_deref()).ok())
}
