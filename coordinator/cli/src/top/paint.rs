//! Draws the state of `tally top` into the cells of a screen of any size: the line of the connection, the overview or a
//! job, the line of keys, and what covers them.
//!
//! Not here: the terminal (`screen`), the contents of both pages (`overview`, `job_page`).

use std::time::Duration;

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::Style;
use ratatui_core::text::Line;
use tally_common::counts::counted;

use super::app::{App, Extent, Overlay, STALE};
use super::grid::{cut, safe, width, wrap};
use super::job_page::Page;
use super::keys::HELP;
use super::overview;
use super::theme::Theme;

/// The space at both sides of a box.
const MARGIN: usize = 2;

/// One line of the screen, in the style of the line as a whole.
fn put(buffer: &mut Buffer, row: usize, line: &Line) {
    let area = *buffer.area();
    let Some(row) = u16::try_from(row).ok().filter(|row| *row < area.height) else { return };
    buffer.set_line(area.x, area.y + row, line, area.width);
    buffer.set_style(Rect::new(area.x, area.y + row, area.width, 1), line.style);
}

/// A line with a text at its begin and one at its end, of which the last one matters more.
fn both_ends(begin: &str, end: &str, columns: usize, style: Style) -> Line<'static> {
    let end = cut(end, columns);
    let begin = cut(begin, columns.saturating_sub(width(&end) + 1));
    let gap = columns.saturating_sub(width(&begin) + width(&end));
    Line::styled(format!("{begin}{}{end}", " ".repeat(gap)), style)
}

fn head(app: &App, now: Duration, columns: usize, theme: Theme) -> Line<'static> {
    let connection = match (app.age(now), &app.trouble) {
        (_, Some(_)) => "not connected".to_string(),
        (age, None) if age < STALE => "live".to_string(),
        (age, None) => format!("no answer for {} s", age.as_secs()),
    };
    let workers = &app.cluster.workers;
    let slots: u32 = workers.iter().map(|worker| worker.slots).sum();
    let busy: u32 = workers.iter().map(|worker| worker.running).sum();
    let of = match app.cluster.more_workers {
        true => format!(" of the first {}", counted(workers.len(), "worker")),
        false => String::new(),
    };
    let begin = format!(" tally top  {}  slots {busy}/{slots}{of}", safe(&app.cluster.leader));
    both_ends(&begin, &format!("{connection} "), columns, theme.bar())
}

fn foot(app: &App, columns: usize, theme: Theme) -> Line<'static> {
    let keys = match app.open {
        Some(_) => " Esc back  Tab section  c cancel  ? keys  q quit",
        None => " Enter open  Tab list  c cancel  ? keys  q quit",
    };
    both_ends(keys, "", columns, theme.bar())
}

/// The messages between the first line and the page.
fn messages(app: &App, now: Duration, columns: usize, theme: Theme) -> Vec<Line<'static>> {
    let lines = |text: &str, style: Style| {
        let lines = wrap(&safe(text), columns, MARGIN);
        lines.into_iter().take(3).map(move |line| Line::styled(line, style)).collect::<Vec<_>>()
    };
    let mut out = vec![];
    if let Some(trouble) = &app.trouble {
        let age = app.age(now).as_secs();
        out.extend(lines(&format!("No answer for {age} s: {trouble}"), theme.bad()));
    }
    if let Some(notice) = &app.notice {
        out.extend(lines(notice, theme.waits()));
    }
    out
}

/// The lines of the open job.
fn job(app: &App, columns: usize, rows: usize, theme: Theme) -> (Vec<Line<'static>>, Extent) {
    let Some(job) = app.job() else {
        let id = app.open.as_ref().map_or("", |(id, _)| id);
        let line = Line::styled(format!("Job {} ...", safe(id)), theme.dim());
        return (vec![line], Extent::default());
    };
    let page = Page::new(job, theme, columns);
    let max_scroll = page.lines.len().saturating_sub(rows);
    let first = app.scroll.min(max_scroll);
    let lines = page.lines.into_iter().skip(first).take(rows).collect();
    (lines, Extent { rows, max_scroll, sections: page.sections })
}

/// A box in the middle, above everything else.
fn cover(buffer: &mut Buffer, title: &str, texts: &[String], theme: Theme) {
    let area = *buffer.area();
    let limit = usize::from(area.width).saturating_sub(2 * MARGIN + 2);
    let lines: Vec<String> = texts.iter().flat_map(|text| wrap(text, limit, 0)).collect();
    let inner = lines.iter().map(|line| width(line)).max().unwrap_or(0).max(width(title)).min(limit);
    let mut rows = vec![(title.to_string(), theme.bar())];
    rows.extend(lines.into_iter().map(|line| (line, theme.text())));
    rows.push((String::new(), theme.text()));
    let x = area.x + (usize::from(area.width).saturating_sub(inner + 2 * MARGIN) / 2) as u16;
    let y = area.y + (usize::from(area.height).saturating_sub(rows.len()) / 2) as u16;
    for (at, (text, style)) in rows.iter().enumerate() {
        let row = usize::from(y) + at;
        let Some(row) = u16::try_from(row).ok().filter(|row| *row < area.bottom()) else { break };
        let text = cut(text, inner);
        let fill = " ".repeat(inner.saturating_sub(width(&text)) + MARGIN);
        let line = Line::styled(format!("{}{text}{fill}", " ".repeat(MARGIN)), *style);
        let wide = area.right().saturating_sub(x).min((inner + 2 * MARGIN) as u16);
        // Without the styles of what is below.
        let below = Rect::new(x, row, wide, 1);
        for position in below.positions() {
            if let Some(cell) = buffer.cell_mut(position) {
                cell.reset();
            }
        }
        buffer.set_line(x, row, &line, wide);
    }
}

/// Draws the state into all cells of the buffer; returns what later keys need to know of it.
pub fn paint(app: &App, theme: Theme, now: Duration, buffer: &mut Buffer) -> Extent {
    let area = *buffer.area();
    let (columns, rows) = (usize::from(area.width), usize::from(area.height));
    if columns == 0 || rows == 0 {
        return Extent::default();
    }
    buffer.reset();
    put(buffer, 0, &head(app, now, columns, theme));
    let messages = messages(app, now, columns, theme);
    let above = 1 + messages.len();
    for (at, line) in messages.iter().enumerate() {
        put(buffer, 1 + at, line);
    }
    let left = rows.saturating_sub(above + 1);
    let (lines, extent) = match &app.open {
        Some(_) => job(app, columns, left, theme),
        None => overview::lines(app, theme, columns, left),
    };
    for (at, line) in lines.iter().take(left).enumerate() {
        put(buffer, above + at, line);
    }
    if rows > 1 {
        put(buffer, rows - 1, &foot(app, columns, theme));
    }
    match &app.overlay {
        Some(Overlay::Help) => {
            let keys = HELP.iter().map(|(key, meaning)| format!("{key:<24} {meaning}"));
            cover(buffer, "Keys", &keys.collect::<Vec<_>>(), theme);
        }
        Some(Overlay::Confirm(job)) => {
            let question = [format!("Cancel job {}?", safe(job)), "The output does not change.".into()];
            let answers = "y: cancel it    any other key: no".to_string();
            cover(buffer, "Cancel", &[question.as_slice(), &[String::new(), answers]].concat(), theme);
        }
        None => {}
    }
    extent
}
