//! A report for tests, of this crate and of `tally report`, whose crate includes this file.

use tally_coordinator::dates::parse_date;
use tally_coordinator::objectives::report::{Report, ReportDay, State};
use tally_dataset::addon_aggregates::AddonAggregates;
use tally_dataset::objectives::FigureSpec;
use tally_dataset::{Counts, Dataset};

/// A day whose counters have these values; the others are 1.
fn day(date: &str, values: &[(&str, u64)]) -> ReportDay {
    let spec = *AddonAggregates::new().objectives().unwrap();
    let mut counts = Counts::of(spec.counters, &vec![1; spec.counts()]).unwrap();
    for (name, value) in values {
        counts.set(name, vec![*value]);
    }
    ReportDay { date: parse_date(date).unwrap(), state: State::Published(counts) }
}

/// Two days with a missing day and a day without objectives between them.
pub(crate) fn report() -> Report<'static> {
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

/// A figure of the report.
pub(crate) fn figure(name: &str) -> &'static FigureSpec {
    report().spec.figures.iter().find(|figure| figure.name == name).unwrap()
}
