//! The styles of `tally top`. Colours only repeat what the text says.
//!
//! Not here: which text has which style (`overview`, `job_page`).

use ratatui_core::style::{Color, Modifier, Style};
use tally_common::environment;

/// With colours or without.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    colours: bool,
}

impl Theme {
    /// With colours, or without.
    pub fn new(colours: bool) -> Self {
        Theme { colours }
    }

    /// As `NO_COLOR` asks (<https://no-color.org>): without colours if it is set and not empty.
    pub fn of_environment() -> Self {
        Theme::new(environment::os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    fn coloured(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// Plain text.
    pub fn text(self) -> Style {
        Style::new()
    }

    /// Titles and heads of tables.
    pub fn head(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The selected row, and the first and last line.
    pub fn bar(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Failures and silent workers.
    pub fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// What waits.
    pub fn waits(self) -> Style {
        self.coloured(Color::Yellow)
    }

    /// What is done, and bars of progress.
    pub fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    /// Names of values.
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}
