//! How the figures of a report are written for people: values with units, changes with signs, heads of columns.
//!
//! Not here: the values (`tally_coordinator::objectives::report`), tables and pages (`text`, `page`).

use tally_coordinator::summary::grouped;
use tally_dataset::objectives::{FigureSpec, FigureValue};

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
    use tally_dataset::addon_aggregates::AddonAggregates;

    use tally_coordinator::objectives::report::{Report, ReportDay, State};
    use tally_dataset::{Counts, Dataset};

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
