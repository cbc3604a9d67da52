//! Expectations: conditions that a day must meet to be published, for example `rows >= 0.8 * previous`. They compare a figure
//! of the day with a number, or with the same figure of the day that was published before it.
//!
//! Pure, except [`previous_day`], which reads the day before. Not here: when they are checked (`driver/work`).

pub mod previous_day;

use std::fmt;
use std::str::FromStr;

use arrow_array::Array;
use tally_dataset::{Dataset, DatasetError, Totals};

/// The most expectations of a job.
pub const MAX_EXPECTATIONS: usize = 64;
/// The longest expectation in bytes.
const MAX_BYTES: usize = 256;

/// A figure of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Metric {
    /// Rows.
    Rows,
    /// Part files.
    Files,
    /// The total of the dataset with that name.
    Total(String),
    /// Nulls of the column as a share of the rows.
    NullShare(String),
}

/// How two numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    AtMost,
    More,
    Less,
    Equal,
}

/// What a figure is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    Number(f64),
    /// A multiple of the figure of the previous day.
    Previous(f64),
}

/// A condition that a day must meet.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    text: String,
    metric: Metric,
    comparison: Comparison,
    bound: Bound,
}

/// A text that is not an expectation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpectationError {
    /// It has another form.
    #[error(
        "write FIGURE COMPARISON NUMBER or FIGURE COMPARISON NUMBER * previous, for example `rows >= 0.8 * previous` or \
         `null_share(client_id) <= 0.01`; the comparisons are >=, <=, >, < and =="
    )]
    Form,
    /// The figure is not known.
    #[error("there is no figure {0:?}; the figures are {1}")]
    Metric(String, String),
    /// The column is not known.
    #[error("the output has no column {0:?}; its columns are {1}")]
    Column(String, String),
    /// It is too long.
    #[error("an expectation has at most {MAX_BYTES} bytes")]
    TooLong,
}

impl Metric {
    fn parse(text: &str) -> Option<Self> {
        if let Some(column) = text.strip_prefix("null_share(") {
            let column = column.strip_suffix(')')?.trim();
            return (!column.is_empty()).then(|| Metric::NullShare(column.into()));
        }
        let is_name =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match text {
            "rows" => Some(Metric::Rows),
            "files" => Some(Metric::Files),
            name => is_name(name).then(|| Metric::Total(name.into())),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::Rows => f.write_str("rows"),
            Metric::Files => f.write_str("files"),
            Metric::Total(name) => f.write_str(name),
            Metric::NullShare(column) => write!(f, "null_share({column})"),
        }
    }
}

impl Comparison {
    /// The comparisons as they are written. Those of two characters come first.
    const ALL: [(&'static str, Self); 5] = [
        (">=", Self::AtLeast),
        ("<=", Self::AtMost),
        ("==", Self::Equal),
        (">", Self::More),
        ("<", Self::Less),
    ];

    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::AtLeast => value >= bound,
            Self::AtMost => value <= bound,
            Self::More => value > bound,
            Self::Less => value < bound,
            Self::Equal => value == bound,
        }
    }
}

impl Bound {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        let is_previous = |text: &str| text.trim() == "previous";
        match text.split_once('*') {
            None if is_previous(text) => Some(Bound::Previous(1.0)),
            None => number(text).map(Bound::Number),
            Some((factor, other)) if is_previous(other) => number(factor).map(Bound::Previous),
            Some((other, factor)) if is_previous(other) => number(factor).map(Bound::Previous),
            Some(_) => None,
        }
    }
}

impl FromStr for Expectation {
    type Err = ExpectationError;

    fn from_str(text: &str) -> Result<Self, ExpectationError> {
        if text.len() > MAX_BYTES {
            return Err(ExpectationError::TooLong);
        }
        let sides = Comparison::ALL.iter().filter_map(|(sign, comparison)| {
            let at = text.find(sign)?;
            Some((at, &text[..at], *comparison, &text[at + sign.len()..]))
        });
        // `>=` contains `>`, at the same place.
        let first = sides.min_by_key(|(at, ..)| *at);
        let parsed = first.and_then(|(_, metric, comparison, bound)| {
            let (metric, bound) = (Metric::parse(metric.trim())?, Bound::parse(bound)?);
            Some(Expectation { text: text.trim().into(), metric, comparison, bound })
        });
        parsed.ok_or(ExpectationError::Form)
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expectation {
    /// Checks that the dataset has the figure.
    ///
    /// # Errors
    /// [`ExpectationError`].
    pub fn check_names(&self, dataset: &dyn Dataset) -> Result<(), ExpectationError> {
        match &self.metric {
            Metric::Rows | Metric::Files => Ok(()),
            Metric::Total(name) if dataset.totals().iter().any(|total| total.name == name) => Ok(()),
            Metric::Total(name) => {
                let totals = dataset.totals().iter().map(|total| total.name);
                let all: Vec<&str> = ["rows", "files"].into_iter().chain(totals).collect();
                let all = all.join(", ") + " and null_share(COLUMN)";
                Err(ExpectationError::Metric(name.clone(), all))
            }
            Metric::NullShare(column) => {
                let schema = dataset.output_schema();
                let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                match columns.contains(&column.as_str()) {
                    true => Ok(()),
                    false => Err(ExpectationError::Column(column.clone(), columns.join(", "))),
                }
            }
        }
    }

    /// Whether it needs the previous day.
    pub fn needs_previous(&self) -> bool {
        matches!(self.bound, Bound::Previous(_))
    }
}

/// The figures of a day.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DayFigures {
    rows: u64,
    files: Option<u64>,
    totals: Vec<(&'static str, u64)>,
    /// Nulls by column; empty if they are not known.
    nulls: Vec<(String, u64)>,
}

impl DayFigures {
    /// The figures of a day with these totals, files, and nulls by column of the dataset's reduced rows.
    ///
    /// # Errors
    /// [`DatasetError`]: a total is too large.
    pub fn new(
        dataset: &dyn Dataset,
        totals: &Totals,
        files: Option<u64>,
        nulls: Option<&[u64]>,
    ) -> Result<Self, DatasetError> {
        let schema = dataset.output_schema();
        let constants = dataset.constants(totals)?;
        let constants = constants.iter().map(|value| if value.is_null(0) { totals.rows } else { 0 });
        let nulls = nulls.map(|nulls| {
            let all = nulls.iter().copied().chain(constants);
            schema.fields().iter().map(|field| field.name().clone()).zip(all).collect()
        });
        let names = dataset.totals().iter().map(|total| total.name);
        Ok(DayFigures {
            rows: totals.rows,
            files,
            totals: names.zip(totals.counters.iter().copied()).collect(),
            nulls: nulls.unwrap_or_default(),
        })
    }

    /// The value of a figure, if it is known.
    fn value(&self, metric: &Metric) -> Option<f64> {
        let named = |list: &[(&'static str, u64)], name: &str| {
            list.iter().find(|(found, _)| *found == name).map(|(_, value)| *value as f64)
        };
        match metric {
            Metric::Rows => Some(self.rows as f64),
            Metric::Files => self.files.map(|files| files as f64),
            Metric::Total(name) => named(&self.totals, name),
            Metric::NullShare(column) => {
                let nulls = self.nulls.iter().find(|(found, _)| found == column).map(|(_, nulls)| *nulls)?;
                Some(if self.rows == 0 { 0.0 } else { nulls as f64 / self.rows as f64 })
            }
        }
    }
}

/// The day that was published before.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Previous {
    /// There is none.
    #[default]
    None,
    /// It does not have figures: another program, or an earlier version, wrote it.
    WithoutFigures(String),
    /// It was published for that date.
    Day(String, DayFigures),
}

/// What follows from the expectations of a day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Those that the day does not meet, with the values.
    pub unmet: Vec<String>,
    /// Those that could not be checked, and therefore hold.
    pub notes: Vec<String>,
}

/// A figure for people: at most four decimal places.
fn shown(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Compares a day with its expectations.
pub fn check(expectations: &[Expectation], day: &DayFigures, previous: &Previous) -> Verdict {
    let mut verdict = Verdict::default();
    for expectation in expectations {
        let Expectation { metric, comparison, bound, .. } = expectation;
        let Some(value) = day.value(metric) else {
            // A coordinator with workers of an earlier version: the day cannot be trusted to meet it.
            verdict.unmet.push(format!("`{expectation}`: {metric} is not known, because a worker of an earlier version did not report it"));
            continue;
        };
        let (limit, source) = match (bound, previous) {
            (Bound::Number(number), _) => (*number, String::new()),
            (Bound::Previous(_), Previous::None) => {
                verdict.notes.push(format!("the expectation `{expectation}` holds: there is no earlier day"));
                continue;
            }
            (Bound::Previous(factor), Previous::Day(date, figures)) if figures.value(metric).is_some() => {
                let before = figures.value(metric).unwrap_or_default();
                (factor * before, format!(" ({} on {date})", shown(before)))
            }
            (Bound::Previous(_), Previous::WithoutFigures(date) | Previous::Day(date, _)) => {
                let why = format!("the part files of {date} do not have {metric}");
                verdict.notes.push(format!("the expectation `{expectation}` holds: {why}"));
                continue;
            }
        };
        if !comparison.holds(value, limit) {
            let (value, limit) = (shown(value), shown(limit));
            verdict
                .unmet
                .push(format!("`{expectation}`: {metric} is {value}, and the limit is {limit}{source}"));
        }
    }
    verdict
}

#[cfg(test)]
mod tests;
