//! Plots as inline SVG: a line over days, and bars of a distribution. Colours come from the style sheet of the page.
//!
//! Not here: the page around them (`page`).

use std::fmt::Write;

use tally_common::secrets;

/// Size of a plot, in units of its own. A page scales it to the width of its column.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 200.0;
/// Room for the labels.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
/// The most values whose points are drawn one by one.
const MAX_POINTS: usize = 100;

/// A line over days.
pub(super) struct Line<'a> {
    /// Identifies the plot in the page.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// A sentence with what the plot shows.
    pub(super) description: &'a str,
    /// The days and their values, at least one.
    pub(super) days: &'a [(String, Option<f64>)],
    /// Horizontal lines: class in the style sheet, label, value.
    pub(super) levels: &'a [(&'static str, String, f64)],
    /// The text of a value.
    pub(super) text: &'a dyn Fn(f64) -> String,
}

/// Bars, each with its label and value.
pub(super) struct Bars<'a> {
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) description: &'a str,
    pub(super) bars: &'a [(String, f64)],
    pub(super) text: &'a dyn Fn(f64) -> String,
}

/// Text for HTML and for attributes. Its secrets are redacted first: afterwards, the separators of a URL's parameters are
/// escaped too.
pub(super) fn escape(text: &str) -> String {
    let text = secrets::cut(text);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Round numbers from at most `low` to at least `high`, about four steps.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = if high > low { high - low } else { high.abs().max(1.0) };
    let raw = span / 4.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|factor| factor * power).find(|step| *step >= raw * 0.999);
    let step = step.unwrap_or(raw);
    let (first, last) = ((low / step).floor(), (high / step).ceil().max((low / step).floor() + 1.0));
    (0..=(last - first) as u32).map(|number| (first + f64::from(number)) * step).collect()
}

/// The vertical axis.
struct Axis {
    ticks: Vec<f64>,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        Axis { ticks: if low.is_finite() && high.is_finite() { ticks(low, high) } else { ticks(0.0, 1.0) } }
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = (self.ticks[0], self.ticks[self.ticks.len() - 1]);
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value - low) / (high - low))
    }

    fn draw(&self, svg: &mut String, text: &dyn Fn(f64) -> String) {
        for tick in &self.ticks {
            let y = self.y(*tick);
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/><text class="label" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                WIDTH - RIGHT,
                LEFT - 5.0,
                y + 3.5,
                escape(&text(*tick))
            );
        }
    }
}

fn open(id: &str, title: &str, description: &str) -> String {
    let (id, title, description) = (escape(id), escape(title), escape(description));
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{id}-title {id}-desc"><title id="{id}-title">{title}</title><desc id="{id}-desc">{description}</desc>"#
    )
}

/// A label below the axis.
fn below(svg: &mut String, x: f64, anchor: &str, text: &str) {
    let y = HEIGHT - 7.0;
    let _ = write!(
        svg,
        r#"<text class="label" x="{x:.1}" y="{y}" text-anchor="{anchor}">{}</text>"#,
        escape(text)
    );
}

/// Draws a line over days. It has gaps where days have no value.
pub(super) fn line(plot: &Line<'_>) -> String {
    let values = plot.days.iter().filter_map(|(_, value)| *value);
    let axis = Axis::of(values.chain(plot.levels.iter().map(|(_, _, value)| *value)));
    let mut svg = open(plot.id, plot.title, plot.description);
    axis.draw(&mut svg, plot.text);
    let step = (WIDTH - LEFT - RIGHT) / plot.days.len() as f64;
    let x = |day: usize| LEFT + step * (day as f64 + 0.5);
    for (day, (date, _)) in plot.days.iter().enumerate().filter(|(_, (_, value))| value.is_none()) {
        let _ = write!(
            svg,
            r#"<rect class="gap" x="{:.1}" y="{TOP}" width="{step:.1}" height="{:.1}"><title>{}: no value</title></rect>"#,
            x(day) - step / 2.0,
            HEIGHT - TOP - BOTTOM,
            escape(date)
        );
    }
    for (class, label, value) in plot.levels {
        let y = axis.y(*value);
        let _ = write!(
            svg,
            r#"<line class="{class}" x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/><text class="label" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            WIDTH - RIGHT,
            y - 3.0,
            escape(label)
        );
    }
    for run in
        plot.days.iter().enumerate().collect::<Vec<_>>().chunk_by(|a, b| a.1.1.is_some() && b.1.1.is_some())
    {
        let points: Vec<String> = run
            .iter()
            .filter_map(|(day, (_, value))| Some(format!("{:.1},{:.1}", x(*day), axis.y((*value)?))))
            .collect();
        if points.len() > 1 {
            let _ = write!(svg, r#"<polyline class="line" points="{}"/>"#, points.join(" "));
        }
    }
    let alone = |day: usize| {
        let has = |day: Option<usize>| {
            day.and_then(|day| plot.days.get(day)).is_some_and(|(_, value)| value.is_some())
        };
        !has(day.checked_sub(1)) && !has(Some(day + 1))
    };
    for (day, (date, value)) in plot.days.iter().enumerate() {
        let Some(value) = value.filter(|_| plot.days.len() <= MAX_POINTS || alone(day)) else { continue };
        let (cx, cy, label) = (x(day), axis.y(value), escape(&format!("{date}: {}", (plot.text)(value))));
        let _ = write!(
            svg,
            r#"<circle class="point" cx="{cx:.1}" cy="{cy:.1}" r="3"><title>{label}</title></circle>"#
        );
    }
    if let [(first, _), .., (last, _)] = plot.days {
        below(&mut svg, LEFT, "start", first);
        below(&mut svg, WIDTH - RIGHT, "end", last);
    } else if let [(only, _)] = plot.days {
        below(&mut svg, x(0), "middle", only);
    }
    svg + "</svg>"
}

/// Draws bars from zero.
pub(super) fn bars(plot: &Bars<'_>) -> String {
    let axis = Axis::of(plot.bars.iter().map(|(_, value)| *value).chain([0.0]));
    let mut svg = open(plot.id, plot.title, plot.description);
    axis.draw(&mut svg, plot.text);
    let step = (WIDTH - LEFT - RIGHT) / plot.bars.len().max(1) as f64;
    for (index, (label, value)) in plot.bars.iter().enumerate() {
        let (x, y) = (LEFT + step * (index as f64 + 0.1), axis.y(*value));
        let title = escape(&format!("{label}: {}", (plot.text)(*value)));
        let (width, height) = (step * 0.8, HEIGHT - BOTTOM - y);
        let _ = write!(
            svg,
            r#"<rect class="bar" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"><title>{title}</title></rect>"#
        );
    }
    if let [(first, _), .., (last, _)] = plot.bars {
        below(&mut svg, LEFT + step / 2.0, "middle", first);
        below(&mut svg, WIDTH - RIGHT, "end", last);
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        assert_eq!(ticks(0.0, 100.0), [0.0, 50.0, 100.0]);
        assert_eq!(ticks(980.0, 1050.0), [980.0, 1000.0, 1020.0, 1040.0, 1060.0]);
        for (low, high) in [(0.0, 0.0), (5.0, 5.0), (0.001, 0.0013), (1e9, 1.2e9), (0.25, 0.25)] {
            let found = ticks(low, high);
            let (first, last) = (found[0], found[found.len() - 1]);
            assert!(first <= low && last >= high && first < last, "{found:?}");
            assert!((2..=8).contains(&found.len()), "{found:?}");
        }
    }

    #[test]
    fn a_line_has_gaps_where_values_are_missing() {
        let day = |date: &str, value| (date.to_string(), value);
        let days = [day("1", Some(3.0)), day("2", Some(4.0)), day("3", None), day("4", Some(5.0))];
        let levels = [("goal", "goal +5 %".to_string(), 6.0)];
        let text = |value: f64| format!("{value}");
        let svg = line(&Line {
            id: "a",
            title: "<A>",
            description: "d",
            days: &days,
            levels: &levels,
            text: &text,
        });
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (1, 3), "{svg}");
        assert_eq!((svg.matches("class=\"gap\"").count(), svg.matches("class=\"goal\"").count()), (1, 1));
        assert!(svg.contains("&lt;A&gt;</title>") && svg.contains("<desc id=\"a-desc\">d</desc>"), "{svg}");
        let none = [day("1", None)];
        let svg =
            line(&Line { id: "a", title: "t", description: "d", days: &none, levels: &[], text: &text });
        assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.contains("class=\"gap\""), "{svg}");
    }

    #[test]
    fn bars_begin_at_zero() {
        let all = [("1".to_string(), 4.0), ("2 or more".to_string(), 0.0)];
        let svg = bars(&Bars {
            id: "b",
            title: "t",
            description: "d",
            bars: &all,
            text: &|value| value.to_string(),
        });
        assert!(svg.contains("1: 4</title>") && svg.contains("height=\"0.0\""), "{svg}");
        assert_eq!(escape("a&b<c>\"'"), "a&amp;b&lt;c&gt;&quot;&#39;");
    }
}
