//! The output of commands: formats, lines of JSON, tables, and text of other processes made
//! safe for a terminal.
//!
//! Not here: what is printed.

use clap::ValueEnum;
use serde::Serialize;
use tally_coordinator::view;

use crate::{Stop, say};

/// The format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A table for people.
    Table,
    /// JSON for programs.
    Json,
}

/// One line of JSON: an object with the version of its schema.
///
/// # Errors
/// Never for the types of this program.
pub fn json(value: &impl Serialize) -> Result<String, Stop> {
    view::json(value).map_err(|e| Stop::Failed(e.to_string()))
}

/// Prints the summary of a published day.
///
/// # Errors
/// Standard output cannot be written.
pub fn say_published(text: &str) -> Result<(), Stop> {
    say(text).map_err(|stop| match stop {
        Stop::Failed(why) => Stop::Failed(format!("{why}; the day is published")),
        other => other,
    })
}

/// Text of another process without control characters for the terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Rows with aligned columns; the first row is the header.
pub fn columns<R: AsRef<[String]>>(rows: &[R]) -> String {
    let width =
        |at: usize| rows.iter().filter_map(|row| row.as_ref().get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..).map_while(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.as_ref().iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_and_move_no_cursor() {
        let rows = [["a".into(), "long head".into()], [plain("x\x1b[2J"), "1".into()]];
        assert_eq!(columns(&rows), "a      long head\nx?[2J  1\n");
    }
}
