//! The output of commands: formats, lines of JSON, tables, and text of other processes made
//! safe for a terminal.
//!
//! Not here: what is printed.

use chrono::{DateTime, SecondsFormat};
use clap::ValueEnum;
use serde::Serialize;

use crate::{Stop, say};

/// The format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A table for people.
    Table,
    /// JSON for programs.
    Json,
}

/// The version of the JSON of all commands. New fields do not change it; see `deploy/docs/json.md`.
const SCHEMA_VERSION: u32 = 1;

/// One line of JSON: an object with the version of its schema.
///
/// # Errors
/// Never for the types of this program.
pub fn json(value: &impl Serialize) -> Result<String, Stop> {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        schema_version: u32,
        #[serde(flatten)]
        value: &'a T,
    }
    let versioned = Versioned { schema_version: SCHEMA_VERSION, value };
    serde_json::to_string(&versioned).map(|text| text + "\n").map_err(|e| Stop::Failed(e.to_string()))
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

/// A time from milliseconds since 1970; `None` for 0.
pub fn time(millis: u64) -> Option<String> {
    let millis = i64::try_from(millis).ok().filter(|millis| *millis > 0)?;
    Some(DateTime::from_timestamp_millis(millis)?.to_rfc3339_opts(SecondsFormat::Millis, true))
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
    fn times_are_written_in_utc() {
        assert_eq!(time(1_488_153_600_123).as_deref(), Some("2017-02-27T00:00:00.123Z"));
        assert_eq!(time(0), None);
        assert_eq!(time(u64::MAX), None);
    }

    #[test]
    fn columns_stand_under_each_other_and_move_no_cursor() {
        let rows = [["a".into(), "long head".into()], [plain("x\x1b[2J"), "1".into()]];
        assert_eq!(columns(&rows), "a      long head\nx?[2J  1\n");
    }
}
