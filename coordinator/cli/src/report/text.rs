//! A report as tables for a terminal: a table per section with a row per day, the goals, and the distributions.
//!
//! Not here: the values (`tally_coordinator::objectives::report`).

use tally_coordinator::dates::date_text;
use tally_coordinator::objectives::report::{Report, ReportDay, State};
use tally_coordinator::summary::grouped;
use tally_dataset::objectives::FigureSpec;

use super::figures::{bucket, head, shown, shown_change};
use crate::output::{columns, plain};

/// All tables of a report.
pub(super) fn tables(report: &Report<'_>) -> String {
    let mut tables: Vec<String> =
        report.sections().iter().map(|(name, figures)| by_day(report, name, figures)).collect();
    // Objectives and goals first.
    tables.insert(1.min(tables.len()), goals(report));
    if let Some(last) = report.last() {
        tables.extend(report.spec.distributions.iter().filter_map(|entry| distribution(last, *entry)));
    }
    tables.join("\n")
}

/// The figures of a section by day. Those with goals have their change beside them.
fn by_day(report: &Report<'_>, name: &str, figures: &[&FigureSpec]) -> String {
    let mut rows = vec![];
    let mut heads = vec!["DATE".to_string()];
    for figure in figures {
        heads.push(head(figure));
        heads.extend(figure.goal_percent.map(|_| "CHANGE".to_string()));
    }
    heads.push("NOTE".into());
    rows.push(heads);
    for day in &report.days {
        let mut row = vec![date_text(day.date)];
        for figure in figures {
            row.push(shown(figure, day.value(figure)));
            row.extend(figure.goal_percent.map(|_| shown_change(report.change(day, figure))));
        }
        row.push(note(report, day));
        rows.push(row);
    }
    format!("{name}\n{}", columns(&rows))
}

/// What is special about a day.
fn note(report: &Report<'_>, day: &ReportDay) -> String {
    match &day.state {
        State::Unreadable(why) => format!("unreadable: {}", plain(why)),
        State::Published(_) if day.date == report.baseline.date => "baseline".into(),
        State::Published(_) => String::new(),
        // Shorter than its description, so that the widest table fits into 120 columns.
        State::WithoutObjectives => "no objectives".into(),
        State::Missing => "missing".into(),
    }
}

/// The goals, and how far the last day is.
fn goals(report: &Report<'_>) -> String {
    let Some(last) = report.last() else { return "Goals\nno day of the range has objectives\n".into() };
    let from = format!("BASELINE {}", date_text(report.baseline.date));
    let to = format!("LAST DAY {}", date_text(last.date));
    let mut rows = vec![["FIGURE".to_string(), from, to, "CHANGE".into(), "GOAL".into(), "REACHED".into()]];
    for figure in report.goals() {
        let reached = match report.reached(last, figure) {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        rows.push([
            figure.title.into(),
            shown(figure, report.baseline.value(figure)),
            shown(figure, last.value(figure)),
            shown_change(report.change(last, figure)),
            figure.goal_percent.map_or_else(|| "-".into(), |goal| format!("+{goal} %")),
            reached.into(),
        ]);
    }
    format!("Goals\n{}", columns(&rows))
}

/// A distribution of one day.
fn distribution(day: &ReportDay, (name, title): (&str, &str)) -> Option<String> {
    let buckets = day.counts()?.buckets(name)?;
    let all: u64 = buckets.iter().sum();
    let mut rows = vec![["VALUE".to_string(), "COUNT".into(), "SHARE".into()]];
    for (index, count) in buckets.iter().enumerate() {
        let share = 100.0 * *count as f64 / all.max(1) as f64;
        rows.push([bucket(index, buckets.len()), grouped(*count), format!("{share:.1} %")]);
    }
    Some(format!("{title}, {}\n{}", date_text(day.date), columns(&rows)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample_report::report;

    #[test]
    fn the_tables_show_each_day_its_change_and_the_goals() {
        let report = report();
        let text = tables(&report);
        let find = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
        assert!(find("20170227").contains("1,000") && find("20170227").ends_with("baseline"), "{text}");
        assert!(find("20170228").ends_with("missing"), "{text}");
        assert!(find("20170301").ends_with("no objectives"), "{text}");
        assert!(find("20170302").contains("+5.0 %") && find("20170302").contains("+2.7 %"), "{text}");
        assert!(find("FIGURE").contains("  BASELINE 20170227  LAST DAY 20170302  CHANGE"), "{text}");
        let goal = find("Clients with a self-installed add-on");
        let words: Vec<_> = goal.split_whitespace().collect();
        assert!(words.ends_with(&["1,000", "1,050", "+5.0", "%", "+5", "%", "yes"]), "{text}");
        assert!(find("20 or more").ends_with("5.0 %"), "{text}");
        for section in ["Objectives", "Goals", "Clients", "User types", "Themes"] {
            assert!(text.lines().any(|line| line == section), "{section}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    #[test]
    fn a_range_without_objectives_says_so() {
        let mut report = report();
        report.days.retain(|day| day.counts().is_none());
        assert!(tables(&report).contains("no day of the range has objectives"));
    }
}
