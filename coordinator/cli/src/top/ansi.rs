//! The bytes that turn one screen of a terminal into the next one: only cells that differ are written.
//!
//! Not here: the terminal (`screen`), what is in the cells (`paint`).

use ratatui_core::buffer::{Buffer, Cell};
use ratatui_core::style::{Color, Modifier};

use super::grid::width;

/// The terminal shows what follows at once, if it knows the sequences.
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";
/// Plain text.
const PLAIN: &str = "\x1b[0m";

/// The sequence for the style of a cell. Only the styles of `theme` exist.
fn style(cell: &Cell) -> String {
    let modifiers = [(Modifier::BOLD, ";1"), (Modifier::DIM, ";2"), (Modifier::REVERSED, ";7")];
    let modifiers = modifiers.iter().filter(|(modifier, _)| cell.modifier.contains(*modifier));
    let colour = match cell.fg {
        Color::Red => ";31",
        Color::Green => ";32",
        Color::Yellow => ";33",
        _ => "",
    };
    let modifiers: String = modifiers.map(|(_, code)| *code).collect();
    format!("\x1b[0{modifiers}{colour}m")
}

/// What to write if `before` is on the screen and `after` has the same size; empty if both are the same.
pub fn changes(before: &Buffer, after: &Buffer) -> String {
    let mut out = String::new();
    let mut cursor = None;
    let mut last = String::new();
    for (x, y, cell) in before.diff(after) {
        if cursor != Some((x, y)) {
            out += &format!("\x1b[{};{}H", y + 1, x + 1);
        }
        let style = style(cell);
        if last != style {
            out += &style;
            last = style;
        }
        out += cell.symbol();
        cursor = u16::try_from(width(cell.symbol())).ok().map(|wide| (x.saturating_add(wide), y));
    }
    if out.is_empty() { out } else { format!("{BEGIN}{out}{PLAIN}{END}") }
}

#[cfg(test)]
mod tests {
    use ratatui_core::layout::Rect;
    use ratatui_core::text::Line;

    use super::*;
    use crate::top::theme::Theme;

    fn screen(texts: &[Line]) -> Buffer {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 10, 2));
        for (row, line) in (0..2).zip(texts) {
            buffer.set_line(0, row, line, 10);
        }
        buffer
    }

    #[test]
    fn only_what_differs_is_written() {
        let theme = Theme::new(true);
        let before = screen(&[Line::raw("same"), Line::raw("map 1/9")]);
        assert_eq!(changes(&before, &before), "");
        let after = screen(&[Line::raw("same"), Line::raw("map 12/9")]);
        assert_eq!(changes(&before, &after), format!("{BEGIN}\x1b[2;6H\x1b[0m2/9{PLAIN}{END}"));
        let bad = screen(&[Line::styled("same", theme.bad()), Line::raw("map 1/9")]);
        assert_eq!(changes(&before, &bad), format!("{BEGIN}\x1b[1;1H\x1b[0;1;31msame{PLAIN}{END}"));
    }

    #[test]
    fn the_cursor_follows_wide_signs() {
        let before = screen(&[]);
        let after = screen(&[Line::raw("数a"), Line::raw("0123456789")]);
        let written = changes(&before, &after);
        assert_eq!(written, format!("{BEGIN}\x1b[1;1H\x1b[0m数a\x1b[2;1H0123456789{PLAIN}{END}"));
    }

    #[test]
    fn the_styles_of_the_theme_have_sequences() {
        let (plain, coloured) = (Theme::new(false), Theme::new(true));
        let of = |style| {
            let mut cell = Cell::default();
            cell.set_style(style);
            super::style(&cell)
        };
        assert_eq!(of(plain.bad()), "\x1b[0;1m");
        assert_eq!([of(coloured.good()), of(coloured.waits())], ["\x1b[0;32m", "\x1b[0;33m"]);
        assert_eq!(
            [of(plain.bar()), of(plain.dim()), of(plain.text())],
            ["\x1b[0;7m", "\x1b[0;2m", "\x1b[0m"]
        );
    }
}
