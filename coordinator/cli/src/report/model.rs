//! The content of a report: the days, and the values and changes of their figures.
//!
//! Not here: how they are shown (`text`, `json`, `page`).

use chrono::NaiveDate;
use tally_coordinator::summary::grouped;
use tally_dataset::objectives::{FigureSpec, FigureValue};
use tally_dataset::{Counts, ObjectivesSpec};

/// Days with their figures, and the day that they are compared with.
pub(super) struct Report<'a> {
    pub(super) dataset: &'a str,
    pub(super) spec: ObjectivesSpec,
    /// URL of the output's root.
    pub(super) output: &'a str,
    /// All days of the range, in order; at least one.
    pub(super) days: Vec<ReportDay>,
    /// May be outside of the range.
    pub(super) baseline: ReportDay,
}

/// A day.
#[derive(Debug, Clone)]
pub(super) struct ReportDay {
    pub(super) date: NaiveDate,
    pub(super) state: State,
}

/// What the output has of a day.
#[derive(Debug, Clone)]
pub(super) enum State {
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
    pub(super) fn name(&self) -> &'static str {
        match self {
            State::Published(_) => "published",
            State::WithoutObjectives => "without_objectives",
            State::Missing => "missing",
            State::Unreadable(_) => "unreadable",
        }
    }

    /// The state in sentences.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            State::WithoutObjectives => "without objectives",
            other => other.name(),
        }
    }
}

impl ReportDay {
    /// The value of a figure; `None` if the day does not have it.
    pub(super) fn value(&self, figure: &FigureSpec) -> Option<f64> {
        self.counts()?.figure(figure.value)
    }

    /// The counts of a published day.
    pub(super) fn counts(&self) -> Option<&Counts> {
        if let State::Published(counts) = &self.state { Some(counts) } else { None }
    }
}

impl Report<'_> {
    /// The change of a day's figure against the baseline, in percent; `None` if one of them is not known, or the baseline
    /// is 0.
    pub(super) fn change(&self, day: &ReportDay, figure: &FigureSpec) -> Option<f64> {
        change(day.value(figure)?, self.baseline.value(figure)?)
    }

    /// The value that reaches the goal of a figure.
    pub(super) fn goal(&self, figure: &FigureSpec) -> Option<f64> {
        Some(self.baseline.value(figure)? * (100.0 + f64::from(figure.goal_percent?)) / 100.0)
    }

    /// Whether a day's figure reaches its goal; `None` if it has none, or the change is not known.
    pub(super) fn reached(&self, day: &ReportDay, figure: &FigureSpec) -> Option<bool> {
        self.change(day, figure)?;
        Some(day.value(figure)? >= self.goal(figure)?)
    }

    /// The last day with objectives.
    pub(super) fn last(&self) -> Option<&ReportDay> {
        self.days.iter().rfind(|day| day.counts().is_some())
    }

    /// The sections, each with its figures, in the order of the dataset.
    pub(super) fn sections(&self) -> Vec<(&'static str, Vec<&'static FigureSpec>)> {
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
    pub(super) fn goals(&self) -> impl Iterator<Item = &'static FigureSpec> {
        self.spec.figures.iter().filter(|figure| figure.goal_percent.is_some())
    }
}

/// The change from `baseline` to `value`, in percent of the baseline.
fn change(value: f64, baseline: f64) -> Option<f64> {
    (baseline > 0.0).then(|| (value - baseline) / baseline * 100.0)
}

/// A value as people read it, with its unit.
pub(crate) fn shown(figure: &FigureSpec, value: Option<f64>) -> String {
    let Some(value) = value else { return "-".into() };
    match figure.value {
        FigureValue::Count(_) => grouped(value as u64),
        FigureValue::Average(..) => format!("{value:.2}"),
        FigureValue::Share(..) => format!("{:.1} %", value * 100.0),
    }
}

/// A change in percent, with its sign.
pub(super) fn shown_change(change: Option<f64>) -> String {
    // A change that rounds to zero has no sign.
    change.map_or_else(|| "-".into(), |change| format!("{:+.1} %", change).replace("-0.0 %", "+0.0 %"))
}

/// What a column of values is called.
pub(super) fn head(figure: &FigureSpec) -> String {
    figure.name.replace('_', " ").to_uppercase()
}

/// The name of a bucket of `buckets`, by its index.
pub(super) fn bucket(index: usize, buckets: usize) -> String {
    let last = if index + 1 == buckets { " or more" } else { "" };
    format!("{}{last}", index + 1)
}

#[cfg(test)]
pub(super) mod tests {
    use tally_coordinator::job::parse_date;
    use tally_dataset::Dataset;
    use tally_dataset::addon_aggregates::AddonAggregates;

    use super::*;

    /// A day whose counters have these values; the others are 1.
    pub(in crate::report) fn day(date: &str, values: &[(&str, u64)]) -> ReportDay {
        let spec = *AddonAggregates::new().objectives().unwrap();
        let mut counts = Counts::of(spec.counters, &vec![1; spec.counts()]).unwrap();
        for (name, value) in values {
            counts.set(name, vec![*value]);
        }
        ReportDay { date: parse_date(date).unwrap(), state: State::Published(counts) }
    }

    /// Two days with a missing day and a day without objectives between them.
    pub(in crate::report) fn report() -> Report<'static> {
        let first = day("20170227", &[("self_installers", 1000), ("addons", 300), ("addon_clients", 100)]);
        let other = |date, state| ReportDay { date: parse_date(date).unwrap(), state };
        let last = [
            ("self_installers", 1050),
            ("addons", 308),
            ("addon_clients", 100),
            ("new_installers", 0),
            ("n_clients", 4200),
        ];
        Report {
            dataset: "addon_aggregates",
            spec: *AddonAggregates::new().objectives().unwrap(),
            output: "aggregates",
            baseline: first.clone(),
            days: vec![
                first,
                other("20170228", State::Missing),
                other("20170301", State::WithoutObjectives),
                day("20170302", &last),
            ],
        }
    }

    fn figure(name: &str) -> &'static FigureSpec {
        report().spec.figures.iter().find(|figure| figure.name == name).unwrap()
    }

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

    #[test]
    fn values_have_units_and_unknown_ones_a_dash() {
        assert_eq!(shown(figure("self_installers"), Some(1_234_567.0)), "1,234,567");
        assert_eq!(shown(figure("addons_per_client"), Some(3.0)), "3.00");
        assert_eq!(shown(figure("self_share"), Some(0.25)), "25.0 %");
        assert_eq!(shown(figure("self_share"), None), "-");
        assert_eq!(shown_change(Some(2.66)), "+2.7 %");
        assert_eq!(shown_change(Some(-0.01)), "+0.0 %");
        assert_eq!(shown_change(Some(-10.01)), "-10.0 %");
        assert_eq!(shown_change(None), "-");
        assert_eq!((bucket(0, 20), bucket(19, 20)), ("1".into(), "20 or more".into()));
    }
}
