//! The check of a day's expectations, between the last part file and the decision to publish.
//!
//! Not here: what an expectation is (`crate::expectations`).

use std::sync::Arc;

use tally_dataset::Dataset;

use crate::expectations::previous_day::{self, PreviousError};
use crate::expectations::{DayFigures, Expectation, Previous, Verdict, check};

/// The expectations of a day that is computed.
pub struct PublishCheck {
    /// Its dataset.
    pub dataset: Arc<dyn Dataset>,
    /// What it must meet.
    pub expectations: Vec<Expectation>,
    /// Its figures.
    pub figures: DayFigures,
    /// URL of the output's root.
    pub output: String,
    /// The date, `YYYYMMDD`.
    pub date: String,
}

/// A day may not be published.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It does not meet its expectations.
    #[error("the day does not meet {}", list(.0))]
    Unmet(Vec<String>),
    /// Expectations cannot be checked.
    #[error("the expectations cannot be checked: {0}")]
    Previous(#[from] PreviousError),
}

fn list(unmet: &[String]) -> String {
    match unmet {
        [one] => format!("the expectation {one}"),
        all => format!("{} expectations: {}", all.len(), all.join("; ")),
    }
}

impl PublishCheck {
    /// Checks all expectations; reads the previous day if one of them needs it. Returns notes for the user.
    ///
    /// # Errors
    /// [`CheckError`].
    pub async fn run(&self) -> Result<Vec<String>, CheckError> {
        let PublishCheck { dataset, expectations, figures, output, date } = self;
        let previous = match expectations.iter().any(Expectation::needs_previous) {
            true => previous_day::before(&**dataset, output, date).await?,
            false => Previous::None,
        };
        let Verdict { unmet, notes } = check(expectations, figures, &previous);
        if unmet.is_empty() { Ok(notes) } else { Err(CheckError::Unmet(unmet)) }
    }
}
