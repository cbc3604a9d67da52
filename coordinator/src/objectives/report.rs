//! The content of a report: the days, and the values and changes of their figures.
//!
//! Not here: what a day states (`day`), how reports are shown (`view`, `tally report`).

use chrono::NaiveDate;
use futures::StreamExt;
use tally_dataset::objectives::FigureSpec;
use tally_dataset::{Counts, Dataset, ObjectivesSpec};

use super::day::{self, FoundDay};
use crate::dates::{date_folder, date_text};

/// Days that are read at a time.
const CONCURRENT_DAYS: usize = 16;

/// A report about a dataset that counts nothing.
#[derive(Debug, thiserror::Error)]
#[error("the dataset {0} has no objectives")]
pub struct NoObjectives(&'static str);

/// Days with their figures, and the day that they are compared with.
pub struct Report<'a> {
    /// The name of the dataset.
    pub dataset: &'a str,
    /// Its figures.
    pub spec: ObjectivesSpec,
    /// URL of the output's root.
    pub output: &'a str,
    /// All days of the range, in order; at least one.
    pub days: Vec<ReportDay>,
    /// May be outside of the range.
    pub baseline: ReportDay,
}

/// A day.
#[derive(Debug, Clone)]
pub struct ReportDay {
    /// Its date.
    pub date: NaiveDate,
    /// What the output has of it.
    pub state: State,
}

/// What the output has of a day.
#[derive(Debug, Clone)]
pub enum State {
    /// A day with these counts.
    Published(Counts),
    /// A day that an earlier release or another program wrote.
    WithoutObjectives,
    /// Nothing.
    Missing,
    /// It cannot be read, for this reason.
    Unreadable(String),
}

impl State {
    /// The state in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            State::Published(_) => "published",
            State::WithoutObjectives => "without_objectives",
            State::Missing => "missing",
            State::Unreadable(_) => "unreadable",
        }
    }

    /// The state in sentences.
    pub fn describe(&self) -> &'static str {
        match self {
            State::WithoutObjectives => "without objectives",
            other => other.name(),
        }
    }
}

impl ReportDay {
    async fn read(dataset: &dyn Dataset, output: &str, date: NaiveDate) -> Self {
        let folder = date_folder(dataset.partition_column(), &date_text(date));
        let state = match day::read(dataset, output, &folder).await {
            Ok(FoundDay::Objectives(day)) => State::Published(day.counts),
            Ok(FoundDay::WithoutObjectives) => State::WithoutObjectives,
            Ok(FoundDay::Missing) => State::Missing,
            Err(error) => State::Unreadable(error.to_string()),
        };
        ReportDay { date, state }
    }

    /// The value of a figure; `None` if the day does not have it.
    pub fn value(&self, figure: &FigureSpec) -> Option<f64> {
        self.counts()?.figure(figure.value)
    }

    /// The counts of a published day.
    pub fn counts(&self) -> Option<&Counts> {
        if let State::Published(counts) = &self.state { Some(counts) } else { None }
    }
}

impl<'a> Report<'a> {
    /// Reads the days of an output, in the order of `dates`, and the day that they are compared with.
    ///
    /// # Errors
    /// [`NoObjectives`]. A day that cannot be read is [`State::Unreadable`].
    pub async fn read(
        dataset: &'a dyn Dataset,
        output: &'a str,
        dates: &[NaiveDate],
        baseline: NaiveDate,
    ) -> Result<Self, NoObjectives> {
        let spec = *dataset.objectives().ok_or_else(|| NoObjectives(dataset.name()))?;
        let days: Vec<_> = dates.iter().map(|date| ReportDay::read(dataset, output, *date)).collect();
        let days: Vec<ReportDay> = futures::stream::iter(days).buffered(CONCURRENT_DAYS).collect().await;
        let baseline = match days.iter().find(|day| day.date == baseline) {
            Some(day) => day.clone(),
            None => ReportDay::read(dataset, output, baseline).await,
        };
        Ok(Report { dataset: dataset.name(), spec, output, days, baseline })
    }

    /// The change of a day's figure against the baseline, in percent; `None` if one of them is not known, or the baseline
    /// is 0.
    pub fn change(&self, day: &ReportDay, figure: &FigureSpec) -> Option<f64> {
        change(day.value(figure)?, self.baseline.value(figure)?)
    }

    /// The value that reaches the goal of a figure.
    pub fn goal(&self, figure: &FigureSpec) -> Option<f64> {
        Some(self.baseline.value(figure)? * (100.0 + f64::from(figure.goal_percent?)) / 100.0)
    }

    /// Whether a day's figure reaches its goal; `None` if it has none, or the change is not known.
    pub fn reached(&self, day: &ReportDay, figure: &FigureSpec) -> Option<bool> {
        self.change(day, figure)?;
        Some(day.value(figure)? >= self.goal(figure)?)
    }

    /// The last day with objectives.
    pub fn last(&self) -> Option<&ReportDay> {
        self.days.iter().rfind(|day| day.counts().is_some())
    }

    /// The sections, each with its figures, in the order of the dataset.
    pub fn sections(&self) -> Vec<(&'static str, Vec<&'static FigureSpec>)> {
        let mut sections: Vec<(&str, Vec<&FigureSpec>)> = vec![];
        for figure in self.spec.figures {
            match sections.last_mut().filter(|(name, _)| *name == figure.section) {
                Some((_, figures)) => figures.push(figure),
                None => sections.push((figure.section, vec![figure])),
            }
        }
        sections
    }

    /// The figures that have goals.
    pub fn goals(&self) -> impl Iterator<Item = &'static FigureSpec> {
        self.spec.figures.iter().filter(|figure| figure.goal_percent.is_some())
    }
}

/// The change from `baseline` to `value`, in percent of the baseline.
fn change(value: f64, baseline: f64) -> Option<f64> {
    (baseline > 0.0).then(|| (value - baseline) / baseline * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dates::parse_date;
    use crate::objectives::sample_report::{figure, report};

    #[test]
    fn changes_are_relative_to_the_baseline_and_goals_follow_from_it() {
        let report = report();
        let last = report.last().unwrap();
        let check = |name, percent: Option<f64>, reached| {
            let change = report.change(last, figure(name));
            let close = change.zip(percent).is_none_or(|(change, percent)| (change - percent).abs() < 1e-9);
            assert!(close && change.is_some() == percent.is_some(), "{name}: {change:?}");
            assert_eq!(report.reached(last, figure(name)), reached, "{name}");
        };
        // Exactly +5 %.
        check("self_installers", Some(5.0), Some(true));
        check("addons_per_client", Some(8.0 / 3.0), Some(false));
        check("new_installers", Some(-100.0), Some(false));
        // Without a goal; the baseline does not have the total.
        check("new_profiles", Some(0.0), None);
        check("n_clients", None, None);
        assert_eq!(last.date, parse_date("20170302").unwrap());
        for day in &report.days[1..3] {
            assert_eq!(report.change(day, figure("self_installers")), None);
        }
        assert_eq!((change(3.0, 0.0), change(0.0, 0.0)), (None, None));
    }
}
