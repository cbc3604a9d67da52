//! Tables and texts for a given width of the screen: less important columns are left out, long cells are cut, long texts
//! continue on the next line.
//!
//! Not here: which columns there are (`overview`, `job_page`).

use ratatui_core::style::Style;
use ratatui_core::text::{Line, Span};
use tally_common::secrets;

use crate::output::plain;

/// Columns of the screen between two columns of a table.
const GAP: usize = 2;
/// The width that a cell of free length needs.
const FREE_WIDTH: usize = 20;
/// The width to which cells of other columns are cut on the narrowest screens.
const MIN_WIDTH: usize = 6;
const ELLIPSIS: char = '…';

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    head: &'static str,
    /// The highest rank is left out first; rank 0 always stays.
    rank: u8,
    /// Its cells have any length: they get the space that others leave.
    free: bool,
}

impl Column {
    /// A column with cells of a limited length.
    pub const fn new(head: &'static str, rank: u8) -> Self {
        Column { head, rank, free: false }
    }

    /// A column with cells of any length.
    pub const fn free(head: &'static str, rank: u8) -> Self {
        Column { head, rank, free: true }
    }
}

/// A cell of a table.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A text of any process, made safe for the terminal.
    pub fn new(text: impl AsRef<str>, style: Style) -> Self {
        Cell { text: safe(text.as_ref()), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    /// A text in plain style.
    fn from(text: T) -> Self {
        Cell::new(text.into(), Style::new())
    }
}

/// Text of any process without control characters and secrets.
pub fn safe(text: &str) -> String {
    plain(&secrets::cut(text))
}

/// The columns of the screen that a text needs.
pub fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { Span::raw(text).width() }
}

fn width_of(sign: char) -> usize {
    width(sign.encode_utf8(&mut [0; 4]))
}

/// A text in at most `limit` columns of the screen.
pub fn cut(text: &str, limit: usize) -> String {
    if width(text) <= limit {
        return text.to_string();
    }
    let mut left = limit.saturating_sub(1);
    let fits = |sign: &char| {
        let needed = width_of(*sign);
        let fits = needed <= left;
        left -= if fits { needed } else { 0 };
        fits
    };
    let mut out: String = text.chars().take_while(fits).collect();
    if limit > 0 {
        out.push(ELLIPSIS);
    }
    out
}

/// A text in lines of at most `limit` columns of the screen; those after the first are indented.
pub fn wrap(text: &str, limit: usize, indent: usize) -> Vec<String> {
    let (mut lines, mut line) = (vec![], String::new());
    let indent = if indent + MIN_WIDTH < limit { indent } else { 0 };
    for word in text.split(' ') {
        let mut word = word.to_string();
        loop {
            let gap = usize::from(!line.trim().is_empty());
            if width(&line) + gap + width(&word) <= limit.max(1) {
                line.extend(std::iter::repeat_n(' ', gap));
                line += &word;
                break;
            }
            if line.trim().is_empty() {
                // A word that is longer than a line.
                let mut left = limit.max(1).saturating_sub(width(&line)).max(2);
                let fits = |sign: &char| {
                    let needed = width_of(*sign);
                    let fits = needed <= left;
                    left -= if fits { needed } else { 0 };
                    fits
                };
                let part: String = word.chars().take_while(fits).collect();
                word.drain(..part.len());
                line += &part;
            }
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
        }
    }
    lines.push(line);
    lines
}

/// The columns that stay, with their widths.
fn layout(columns: &[Column], rows: &[Vec<Cell>], limit: usize) -> Vec<(usize, usize)> {
    let natural = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| width(&cell.text));
        cells.max().unwrap_or(0).max(width(columns[at].head))
    };
    let natural: Vec<usize> = (0..columns.len()).map(natural).collect();
    let least = |at: usize| if columns[at].free { natural[at].min(FREE_WIDTH) } else { natural[at] };
    let mut kept: Vec<(usize, usize)> = (0..columns.len()).map(|at| (at, least(at))).collect();
    let sum = |kept: &[(usize, usize)]| {
        kept.iter().map(|(_, width)| width).sum::<usize>() + GAP * kept.len().saturating_sub(1)
    };
    while sum(&kept) > limit {
        let last = kept.iter().map(|(at, _)| columns[*at].rank).max().unwrap_or(0);
        if last == 0 {
            break;
        }
        kept.retain(|(at, _)| columns[*at].rank < last);
    }
    let mut excess = sum(&kept).saturating_sub(limit);
    while excess > 0 {
        let Some(widest) = kept.iter_mut().max_by_key(|(_, width)| *width).filter(|it| it.1 > MIN_WIDTH)
        else {
            break;
        };
        widest.1 -= 1;
        excess -= 1;
    }
    let mut left = limit.saturating_sub(sum(&kept));
    for (at, width) in &mut kept {
        let more = (natural[*at] - (*width).min(natural[*at])).min(left);
        *width += more;
        left -= more;
    }
    kept
}

/// A table: the first line is its head.
pub fn table(columns: &[Column], rows: &[Vec<Cell>], limit: usize, head: Style) -> Vec<Line<'static>> {
    let kept = layout(columns, rows, limit);
    let line = |cells: &dyn Fn(usize) -> Option<(String, Style)>| {
        let mut spans = vec![];
        for (place, (at, wide)) in kept.iter().enumerate() {
            let (text, style) = cells(*at).unwrap_or_default();
            let text = cut(&text, *wide);
            let last = place + 1 == kept.len();
            let fill = if last { 0 } else { wide - width(&text).min(*wide) + GAP };
            spans.push(Span::styled(text, style));
            spans.push(Span::raw(" ".repeat(fill)));
        }
        Line::from(spans)
    };
    let first = line(&|at| Some((columns[at].head.to_string(), head)));
    let others = rows.iter().map(|row| line(&|at| row.get(at).map(|cell| (cell.text.clone(), cell.style))));
    std::iter::once(first).chain(others).collect()
}

/// A bar of progress with that many columns of the screen.
pub fn bar(share: f64, columns: usize) -> String {
    let full = (share.clamp(0.0, 1.0) * columns as f64).round() as usize;
    "█".repeat(full) + &"░".repeat(columns - full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| line.spans.iter().map(|span| span.content.as_ref()).collect()).collect()
    }

    #[test]
    fn less_important_columns_are_left_out_first_and_long_cells_are_cut() {
        let columns = [Column::new("id", 0), Column::free("what", 1), Column::new("more", 2)];
        let rows = [vec![Cell::from("a-long-id"), Cell::from("x".repeat(30)), Cell::from("123456")]];
        let shown = |limit| texts(&table(&columns, &rows, limit, Style::new()));
        let wide = format!("a-long-id  {}  123456", "x".repeat(30));
        assert_eq!(shown(80)[1], wide);
        assert_eq!(shown(45)[1], format!("a-long-id  {}…  123456", "x".repeat(25)));
        assert_eq!(shown(34)[1], format!("a-long-id  {}…", "x".repeat(22)), "without the last one");
        assert_eq!(shown(12), ["id", "a-long-id"]);
        assert_eq!(shown(7), ["id", "a-long…"]);
        for limit in 0..100 {
            let widest = shown(limit).iter().map(|line| width(line)).max();
            assert!(widest <= Some(limit.max(MIN_WIDTH)), "{limit}: {widest:?}");
        }
    }

    #[test]
    fn texts_are_measured_in_columns_of_the_screen() {
        assert_eq!(
            (cut("数据数据", 5), cut("abc", 0), cut("abc", 3)),
            ("数据…".into(), String::new(), "abc".into())
        );
        assert_eq!(wrap("one two three", 9, 2), ["one two", "  three"]);
        assert_eq!(wrap("abcdefghij k", 9, 2), ["abcdefghi", "  j k"]);
        assert_eq!(wrap("数数", 1, 2).join("").trim(), "数数", "no endless loop");
        assert_eq!(wrap("ab", 0, 0).join(""), "ab");
        assert_eq!((bar(0.5, 4), bar(7.0, 2), bar(-1.0, 1)), ("██░░".into(), "██".into(), "░".into()));
    }

    #[test]
    fn a_cell_moves_no_cursor() {
        assert_eq!(Cell::from("x\x1b[2J").text, "x?[2J");
    }
}
