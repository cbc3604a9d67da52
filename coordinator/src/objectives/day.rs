//! Reads the objectives of a published day from the footer of one of its part files.
//!
//! Not here: the content of the footer's entries (the parent module).

use tally_dataset::Dataset;

use super::{DayObjectives, from_footer};
use crate::part_footer::entries::{EntriesError, entries};
use crate::plan::listing::{self, ListError};

/// What the output has of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundDay {
    /// No files.
    Missing,
    /// Part files that do not state objectives: an earlier release or another program wrote them.
    WithoutObjectives,
    /// Part files with objectives.
    Objectives(DayObjectives),
}

/// The objectives of a day cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The day's files.
    #[error(transparent)]
    List(#[from] ListError),
    /// A part file's footer.
    #[error(transparent)]
    Footer(#[from] EntriesError),
}

/// Reads the objectives of the day in `folder` of the output rooted at `output`.
///
/// # Errors
/// [`ReadError`].
pub async fn read(dataset: &dyn Dataset, output: &str, folder: &str) -> Result<FoundDay, ReadError> {
    let files = match listing::day_files("output", output, folder).await {
        Ok(found) => found.files,
        Err(ListError::Nothing { .. }) => return Ok(FoundDay::Missing),
        Err(error) => return Err(error.into()),
    };
    let Some(file) = files.first() else { return Ok(FoundDay::Missing) };
    Ok(from_footer(dataset, &entries(file).await?).map_or(FoundDay::WithoutObjectives, FoundDay::Objectives))
}
