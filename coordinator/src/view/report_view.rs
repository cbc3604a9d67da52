//! The report about the objectives of days.
//!
//! Not here: the values (`objectives::report`).

use std::collections::BTreeMap;

use serde::Serialize;
use tally_dataset::objectives::{FigureSpec, FigureValue};

use crate::dates::date_text;
use crate::objectives::report::{Report as Content, ReportDay, State};

/// A report.
#[derive(Serialize)]
pub struct Report<'a> {
    dataset: &'a str,
    output: &'a str,
    figures: Vec<Figure>,
    baseline: Day<'a>,
    days: Vec<Day<'a>>,
}

#[derive(Serialize)]
struct Figure {
    name: &'static str,
    title: &'static str,
    section: &'static str,
    /// `count`, `average` or `share` (from 0 to 1).
    kind: &'static str,
    goal_percent: Option<u32>,
}

#[derive(Serialize)]
struct Day<'a> {
    date: String,
    state: &'static str,
    reason: Option<&'a str>,
    /// Null without objectives.
    figures: Option<BTreeMap<&'static str, Value>>,
    distributions: Option<BTreeMap<&'static str, &'a [u64]>>,
}

#[derive(Serialize)]
struct Value {
    value: Option<Number>,
    change_percent: Option<f64>,
    goal_reached: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Real(f64),
}

impl<'a> From<&'a Content<'_>> for Report<'a> {
    fn from(report: &'a Content<'_>) -> Self {
        Report {
            dataset: report.dataset,
            output: report.output,
            figures: report.spec.figures.iter().map(Figure::of).collect(),
            baseline: Day::of(report, &report.baseline),
            days: report.days.iter().map(|day| Day::of(report, day)).collect(),
        }
    }
}

impl Figure {
    fn of(figure: &FigureSpec) -> Self {
        let FigureSpec { name, title, section, value, goal_percent } = *figure;
        let kind = match value {
            FigureValue::Count(_) => "count",
            FigureValue::Average(..) => "average",
            FigureValue::Share(..) => "share",
        };
        Figure { name, title, section, kind, goal_percent }
    }
}

impl<'a> Day<'a> {
    fn of(report: &'a Content<'_>, day: &'a ReportDay) -> Self {
        let value = |figure: &FigureSpec| {
            let number = |value: f64| match figure.value {
                FigureValue::Count(_) => Number::Whole(value as u64),
                _ => Number::Real(value),
            };
            Value {
                value: day.value(figure).map(number),
                change_percent: report.change(day, figure),
                goal_reached: report.reached(day, figure),
            }
        };
        let spec = &report.spec;
        let distributions = |counts: &'a tally_dataset::Counts| {
            spec.distributions.iter().filter_map(|(name, _)| Some((*name, counts.buckets(name)?))).collect()
        };
        Day {
            date: date_text(day.date),
            state: day.state.name(),
            reason: if let State::Unreadable(why) = &day.state { Some(why) } else { None },
            figures: day
                .counts()
                .map(|_| spec.figures.iter().map(|figure| (figure.name, value(figure))).collect()),
            distributions: day.counts().map(distributions),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objectives::sample_report::report;

    #[test]
    fn every_day_of_the_range_is_in_the_report() {
        let report = report();
        let text = serde_json::to_string(&Report::from(&report)).unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let states: Vec<_> =
            read["days"].as_array().unwrap().iter().map(|day| day["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["published", "missing", "without_objectives", "published"]);
        let last = &read["days"][3]["figures"];
        assert_eq!(last["self_installers"]["value"], 1050);
        assert_eq!(last["self_installers"]["goal_reached"], true);
        assert_eq!(last["addons_per_client"]["value"], 3.08);
        assert_eq!(last["n_clients"]["change_percent"], serde_json::Value::Null);
        assert_eq!(read["days"][1]["figures"], serde_json::Value::Null);
        assert_eq!(read["days"][0]["distributions"]["clients_by_addons"].as_array().unwrap().len(), 20);
        assert_eq!(read["baseline"]["date"], "20170227");
        assert_eq!(read["figures"][0]["goal_percent"], 5);
    }
}
