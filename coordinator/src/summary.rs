//! What is said of a job when it is over, for people and for programs.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A finished job. The JSON form is stable: fields are added, never changed; one that a coordinator
/// of another version left out is empty.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// The job.
    pub job_id: String,
    /// The day.
    pub date: String,
    /// Output rows.
    pub rows: u64,
    /// Part files.
    pub files: usize,
    /// Distinct clients of the day.
    pub n_clients: u64,
    /// Those with a custom theme at some time of the day.
    pub n_custom_theme_clients: u64,
    /// Bytes fetched from the inputs, footers included.
    pub bytes_read: u64,
    /// Bytes of partials that went through the shuffle.
    pub shuffle_bytes: u64,
    /// Bytes that memory had no room for and disk took.
    pub spilled_bytes: u64,
    /// Wall time from start to published.
    pub seconds: f64,
    /// The most memory that the process had resident.
    pub peak_memory_bytes: u64,
    /// The stages, in order.
    pub stages: Vec<StageSummary>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
}

/// One stage of a finished job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StageSummary {
    /// `plan`, `map`, `reduce`, `write` or `publish`.
    pub name: Cow<'static, str>,
    /// Tasks in it.
    pub tasks: usize,
    /// Rows read (map) or written (reduce, write).
    pub rows: u64,
    /// Bytes fetched (plan, map) or written (reduce, write).
    pub bytes: u64,
    /// Wall time.
    pub seconds: f64,
    /// The most memory resident in it.
    pub peak_memory_bytes: u64,
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

pub use tally_worker::size::text as bytes;

impl Summary {
    /// The summary as a table.
    pub fn table(&self) -> String {
        let mut out = format!("job {} for {}\n\n", self.job_id, self.date);
        let mut line = |name: &str, value: String| out.push_str(&format!("  {name:<24} {value:>16}\n"));
        line("rows", grouped(self.rows));
        line("files", grouped(self.files as u64));
        line("n_clients", grouped(self.n_clients));
        line("n_custom_theme_clients", grouped(self.n_custom_theme_clients));
        line("bytes read", bytes(self.bytes_read));
        line("bytes shuffled", bytes(self.shuffle_bytes));
        line("bytes spilled", bytes(self.spilled_bytes));
        line("time", format!("{:.2} s", self.seconds));
        line("peak memory", bytes(self.peak_memory_bytes));
        out.push_str(&format!(
            "\n  {:<8} {:>7} {:>15} {:>11} {:>9} {:>12}\n",
            "stage", "tasks", "rows", "bytes", "time", "peak memory"
        ));
        for stage in &self.stages {
            out.push_str(&format!(
                "  {:<8} {:>7} {:>15} {:>11} {:>7.2} s {:>12}\n",
                stage.name,
                grouped(stage.tasks as u64),
                grouped(stage.rows),
                bytes(stage.bytes),
                stage.seconds,
                bytes(stage.peak_memory_bytes)
            ));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1234567), "1,234,567");
        assert_eq!(grouped(123), "123");
    }
}
