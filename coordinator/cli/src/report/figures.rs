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
mod tests {
    use super::*;
    use crate::report::sample_report::figure;

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
