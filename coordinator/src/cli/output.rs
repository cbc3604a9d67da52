//! How commands print what they found: the format asked for, JSON lines, text from elsewhere made
//! safe for a terminal.

use chrono::{DateTime, SecondsFormat};
use clap::ValueEnum;
use serde::Serialize;

use super::{Stop, say};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// One line of JSON.
///
/// # Errors
/// Never for the types of this program; said all the same.
pub fn json(value: &impl Serialize) -> Result<String, Stop> {
    serde_json::to_string(value).map(|text| text + "\n").map_err(|e| Stop::Failed(e.to_string()))
}

/// Prints the summary of a day that is published, whether or not somebody reads it.
///
/// # Errors
/// Standard output cannot be written.
pub fn say_published(text: &str) -> Result<(), Stop> {
    say(text).map_err(|stop| match stop {
        Stop::Failed(why) => Stop::Failed(format!("{why}; the day is published")),
        other => other,
    })
}

/// Text of another process without what would move a terminal's cursor.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A time as the messages have it, in milliseconds since 1970; `None` for 0.
pub fn time(millis: u64) -> Option<String> {
    let millis = i64::try_from(millis).ok().filter(|millis| *millis > 0)?;
    Some(DateTime::from_timestamp_millis(millis)?.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Rows with their columns under each other; the first row is the head.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
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
