//! A report as a page of HTML that needs no other file: a plot for each figure, and tables of the same values.
//!
//! Not here: the plots themselves (`chart`), the values (`tally_coordinator::objectives::report`).

use std::fmt::Write;

use tally_coordinator::dates::date_text;
use tally_coordinator::objectives::report::{Report, ReportDay, State};
use tally_coordinator::summary::grouped;
use tally_dataset::objectives::FigureSpec;

use super::chart::{self, Bars, Line, escape};
use super::figures::{bucket, head, shown, shown_change};

/// The style sheet.
const STYLE: &str = include_str!("page.css");
/// Nothing is loaded, and no script runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The page of a report.
pub(super) fn page(report: &Report<'_>) -> String {
    let dates = report.days.iter().map(|day| date_text(day.date)).collect::<Vec<_>>();
    let (first, last) = (&dates[0], &dates[dates.len() - 1]);
    let title = escape(&format!("Objectives of {}, {first} to {last}", report.dataset));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p>Output: {}</p>\n",
        escape(report.output)
    );
    let baseline = match report.baseline.counts() {
        Some(_) => String::new(),
        None => format!(" It is {}, so there are no changes.", report.baseline.state.describe()),
    };
    let _ = writeln!(page, "<p>Baseline: {}.{baseline}</p>", date_text(report.baseline.date));
    page.push_str(&without_values(report));
    page.push_str(&goals(report));
    for (number, (name, figures)) in report.sections().iter().enumerate() {
        section(&mut page, report, number, name, figures);
    }
    if let Some(last) = report.last() {
        for entry in report.spec.distributions {
            page.push_str(&distribution(last, *entry).unwrap_or_default());
        }
    }
    page + "</main>\n</body>\n</html>\n"
}

/// The days without objectives, by state.
fn without_values(report: &Report<'_>) -> String {
    let mut lines = String::new();
    let kinds = [
        ("Missing days", State::Missing.name()),
        ("Days without objectives", State::WithoutObjectives.name()),
    ];
    for (label, name) in kinds.into_iter().chain([("Days that cannot be read", "unreadable")]) {
        let days: Vec<_> = report
            .days
            .iter()
            .filter(|day| day.state.name() == name)
            .map(|day| date_text(day.date))
            .collect();
        if !days.is_empty() {
            let _ = writeln!(lines, "<p>{label}: {}</p>", days.join(", "));
        }
    }
    lines
}

/// A table that scrolls within the page where it is wider. The first column has the heads of the rows.
fn table(caption: &str, heads: &[String], rows: &[Vec<String>]) -> String {
    let caption = escape(caption);
    let mut table = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\">\n<table>\n\
         <caption>{caption}</caption>\n<thead><tr>"
    );
    for head in heads {
        let _ = write!(table, "<th scope=\"col\">{}</th>", escape(head));
    }
    table.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        table.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            let _ = match column {
                0 => write!(table, "<th scope=\"row\">{cell}</th>"),
                _ => write!(table, "<td>{cell}</td>"),
            };
        }
        table.push_str("</tr>\n");
    }
    table + "</tbody>\n</table>\n</div>\n"
}

fn goals(report: &Report<'_>) -> String {
    let Some(last) = report.last() else { return "<p>No day of the range has objectives.</p>\n".into() };
    let heads = [
        "Figure".to_string(),
        format!("Baseline {}", date_text(report.baseline.date)),
        format!("Last day {}", date_text(last.date)),
        "Change".into(),
        "Goal".into(),
        "Reached".into(),
    ];
    let rows = report.goals().map(|figure| {
        vec![
            figure.title.to_string(),
            shown(figure, report.baseline.value(figure)),
            shown(figure, last.value(figure)),
            shown_change(report.change(last, figure)),
            figure.goal_percent.map_or_else(|| "-".into(), |goal| format!("+{goal} %")),
            match report.reached(last, figure) {
                Some(true) => "yes".into(),
                Some(false) => "no".into(),
                None => "-".into(),
            },
        ]
    });
    let rows: Vec<_> = rows.collect();
    format!("<h2>Goals</h2>\n{}", table("Baseline, last day and goals", &heads, &rows))
}

/// A plot for each figure of a section, and a table of all of them.
fn section(page: &mut String, report: &Report<'_>, number: usize, name: &str, figures: &[&FigureSpec]) {
    let _ = writeln!(page, "<h2>{}</h2>\n<div class=\"plots\">", escape(name));
    for (index, figure) in figures.iter().enumerate() {
        let plot = plot(report, &format!("plot-{number}-{index}"), figure);
        let _ = writeln!(page, "<figure><figcaption>{}</figcaption>{plot}</figure>", escape(figure.title));
    }
    page.push_str("</div>\n");
    let mut heads = vec!["Date".to_string()];
    for figure in figures {
        heads.push(head(figure).to_lowercase());
        heads.push("change".into());
    }
    heads.push("State".into());
    let row = |day: &ReportDay| {
        let mut row = vec![date_text(day.date)];
        for figure in figures {
            row.push(shown(figure, day.value(figure)));
            row.push(shown_change(report.change(day, figure)));
        }
        row.push(day.state.describe().into());
        row
    };
    let rows: Vec<_> = report.days.iter().map(row).collect();
    page.push_str(&table(&format!("{name} by day"), &heads, &rows));
}

fn plot(report: &Report<'_>, id: &str, figure: &FigureSpec) -> String {
    let days: Vec<_> = report.days.iter().map(|day| (date_text(day.date), day.value(figure))).collect();
    let mut levels = vec![];
    if let (Some(percent), Some(goal)) = (figure.goal_percent, report.goal(figure)) {
        levels.push(("goal", format!("goal +{percent} %"), goal));
        levels.extend(report.baseline.value(figure).map(|value| ("baseline", "baseline".to_string(), value)));
    }
    let description = match report.last() {
        Some(last) => format!(
            "On {}: {}, {} against the baseline.",
            date_text(last.date),
            shown(figure, last.value(figure)),
            shown_change(report.change(last, figure))
        ),
        None => "There are no values.".into(),
    };
    chart::line(&Line {
        id,
        title: figure.title,
        description: &format!("{description} The table below has all values."),
        days: &days,
        levels: &levels,
        text: &|value| shown(figure, Some(value)),
    })
}

/// The bars and the table of a distribution.
fn distribution(day: &ReportDay, (name, title): (&str, &str)) -> Option<String> {
    let buckets = day.counts()?.buckets(name)?;
    let all: u64 = buckets.iter().sum();
    let label = |index: usize| bucket(index, buckets.len());
    let bars: Vec<_> =
        buckets.iter().enumerate().map(|(index, count)| (label(index), *count as f64)).collect();
    let plot = chart::bars(&Bars {
        id: name,
        title,
        description: "The table below has all values.",
        bars: &bars,
        text: &|value| grouped(value as u64),
    });
    let rows: Vec<_> = (0..)
        .zip(buckets)
        .map(|(index, count)| {
            let share = 100.0 * *count as f64 / all.max(1) as f64;
            vec![label(index), grouped(*count), format!("{share:.1} %")]
        })
        .collect();
    let caption = format!("{title}, {}", date_text(day.date));
    let heads = ["Value".to_string(), "Count".into(), "Share".into()];
    Some(format!(
        "<h2>{}</h2>\n<div class=\"plots\"><figure><figcaption>{}</figcaption>{plot}</figure></div>\n{}",
        escape(title),
        escape(&caption),
        table(&caption, &heads, &rows)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample_report::report;

    #[test]
    fn the_page_has_all_values_and_loads_nothing() {
        let mut report = report();
        report.output = "s3://bucket/<agg>";
        let page = page(&report);
        for text in
            ["1,050", "+5.0 %", "3.08", "+2.7 %", "goal +25 %", "Missing days: 20170228", "20 or more"]
        {
            assert!(page.contains(text), "{text}");
        }
        assert!(
            page.contains("Days without objectives: 20170301") && page.contains("s3://bucket/&lt;agg&gt;")
        );
        for text in ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<agg>"] {
            assert!(!page.contains(text), "{text}");
        }
        let count = |text: &str| page.matches(text).count();
        // A plot for each figure and distribution, each with its name and description.
        let plots = report.spec.figures.len() + report.spec.distributions.len();
        assert_eq!((count("<svg"), count("role=\"img\"")), (plots, plots));
        assert_eq!((count("</desc>"), count("-title\">")), (plots, plots));
        for tag in ["main", "table", "svg", "figure", "div", "tr", "tbody", "section"] {
            let open = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
            assert_eq!(open, count(&format!("</{tag}>")), "{tag}");
        }
    }

    #[test]
    fn a_page_without_values_has_empty_plots() {
        let mut report = report();
        report.days.retain(|day| day.counts().is_none());
        report.baseline = report.days[0].clone();
        let page = page(&report);
        assert!(
            page.contains("No day of the range has objectives") && page.contains("It is missing"),
            "{page}"
        );
        assert!(!page.contains("NaN") && !page.contains("inf\""));
    }
}
