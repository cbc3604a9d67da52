//! The summary of an ended job, for people and programs.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tally_dataset::{TotalSpec, Totals};

/// An ended job. The JSON form is stable: fields are added, never changed. A field that another version does not write
/// is empty.
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
    /// The dataset's counters, each as a field.
    #[serde(flatten)]
    pub totals: NamedTotals,
    /// Bytes fetched from the inputs, footers included.
    pub bytes_read: u64,
    /// Shuffled bytes of partials.
    pub shuffle_bytes: u64,
    /// Bytes of them that reduce tasks received from other workers, as they were sent.
    pub shuffle_network_bytes: u64,
    /// Bytes spilled to disk.
    pub spilled_bytes: u64,
    /// Wall time from the start to the end of the publish.
    pub seconds: f64,
    /// The peak of the process's resident memory.
    pub peak_memory_bytes: u64,
    /// The stages, in order.
    pub stages: Vec<StageSummary>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// The counters of a job's dataset by name, in the dataset's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedTotals(pub Vec<(String, u64)>);

impl NamedTotals {
    /// A job's totals under the names that its dataset gives them.
    pub fn new(names: &[TotalSpec], totals: &Totals) -> Self {
        let named = names.iter().zip(&totals.counters);
        NamedTotals(named.map(|(total, value)| (total.name.to_string(), *value)).collect())
    }

    /// The counter with that name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| *value)
    }
}

impl Serialize for NamedTotals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for NamedTotals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CountersVisitor)
    }
}

/// Collects the remaining fields of a summary: numbers are counters, anything else is a field of another version and is
/// ignored.
struct CountersVisitor;

impl<'de> Visitor<'de> for CountersVisitor {
    type Value = NamedTotals;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counters by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<NamedTotals, A::Error> {
        let mut totals = vec![];
        while let Some((name, value)) = fields.next_entry::<String, serde_json::Value>()? {
            totals.extend(value.as_u64().map(|value| (name, value)));
        }
        Ok(NamedTotals(totals))
    }
}

/// One phase of an ended job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StageSummary {
    /// `plan`, `map`, `reduce`, `write` or `publish`.
    pub name: Cow<'static, str>,
    /// Its tasks.
    pub tasks: usize,
    /// Rows read (map) or written (reduce, write).
    pub rows: u64,
    /// Bytes fetched (plan, map) or written (reduce, write).
    pub bytes: u64,
    /// Wall time.
    pub seconds: f64,
    /// The peak of resident memory during the phase.
    pub peak_memory_bytes: u64,
}

pub use tally_common::counts::grouped;
pub use tally_common::size::text as bytes;

impl Summary {
    /// The summary as a table.
    pub fn table(&self) -> String {
        let mut out = format!("job {} for {}\n\n", self.job_id, self.date);
        let mut line = |name: &str, value: String| out.push_str(&figure_line(name, &value));
        line("rows", grouped(self.rows));
        line("files", grouped(self.files as u64));
        for (name, value) in &self.totals.0 {
            line(name, grouped(*value));
        }
        line("bytes read", bytes(self.bytes_read));
        line("bytes shuffled", bytes(self.shuffle_bytes));
        line("over the network", bytes(self.shuffle_network_bytes));
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

/// The width of the lines of figures, without their indent.
const FIGURE_WIDTH: usize = 41;

/// A line of a table of figures: the values of all lines end in the same column.
pub fn figure_line(name: &str, value: &str) -> String {
    let width = FIGURE_WIDTH.saturating_sub(name.len() + 1);
    format!("  {name} {value:>width$}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_in_one_column_also_after_long_names() {
        let counters = [("n_clients", 7), ("n_foreign_installed_addons", 30_000)];
        let totals = NamedTotals(counters.map(|(name, value)| (name.to_string(), value)).to_vec());
        let table = Summary { totals, ..Summary::default() }.table();
        let ends: Vec<usize> = table.lines().skip(2).take(4).map(str::len).collect();
        assert_eq!(ends, [FIGURE_WIDTH + 2; 4], "{table}");
    }

    #[test]
    fn counters_are_fields_of_the_summary_whatever_the_version() {
        let counters = [("n_clients", 7), ("n_custom_theme_clients", 3)];
        let totals = NamedTotals(counters.map(|(name, value)| (name.to_string(), value)).to_vec());
        let text = serde_json::to_string(&Summary { rows: 9, totals: totals.clone(), ..Summary::default() });
        let text = text.unwrap();
        let expect = r#"{"job_id":"","date":"","rows":9,"files":0,"n_clients":7,"n_custom_theme_clients":3,"bytes_read":0,"#;
        assert!(text.starts_with(expect), "{text}");
        let later = text.replacen('{', r#"{"some_text":"of another version","some_list":[1],"#, 1);
        for text in [text, later] {
            let read: Summary = serde_json::from_str(&text).unwrap();
            assert_eq!((read.rows, &read.totals), (9, &totals));
            assert_eq!((read.totals.get("n_clients"), read.totals.get("rows")), (Some(7), None));
        }
        let earlier: Summary = serde_json::from_str(r#"{"rows":1}"#).unwrap();
        assert_eq!((earlier.rows, earlier.totals), (1, NamedTotals::default()));
    }
}
