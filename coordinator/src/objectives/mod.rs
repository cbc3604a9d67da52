//! The objectives of a published day: how part files state them, how they are read back (`day`), the report about
//! several days (`report`), and the table beside the output that repeats them for other programs (`table`).
//!
//! The footers of the part files are the record: they are published with the rows, in one step, so counts and rows are
//! always of one job. Not here: what is counted (`tally_dataset`), and how reports are shown
//! (`view`, `tally report`).

pub mod day;
pub mod report;
#[cfg(test)]
pub(crate) mod sample_report;
pub mod table;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use tally_dataset::objectives::MAX_COUNTS;
use tally_dataset::{Counts, Dataset};

/// The key of the counts in the footers of part files.
pub const OBJECTIVES_KEY: &str = "tally.objectives";
/// The maximum number of counters that are read from a footer.
const MAX_COUNTERS: usize = MAX_COUNTS;

/// The value of a counter in a footer: a number, or those of a distribution's buckets.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Value {
    Count(u64),
    Buckets(Vec<u64>),
}

/// The text of counts in a footer: a JSON object.
pub fn text_of(counts: &Counts) -> String {
    let value = |buckets: &[u64]| match buckets {
        [count] => Value::Count(*count),
        buckets => Value::Buckets(buckets.to_vec()),
    };
    let values: BTreeMap<&str, Value> = counts.iter().map(|(name, buckets)| (name, value(buckets))).collect();
    serde_json::to_string(&values).unwrap_or_default()
}

/// The objectives of a published day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayObjectives {
    /// Rows of the day.
    pub rows: u64,
    /// The checksum of the day, if its part files state one.
    pub checksum: Option<String>,
    /// The dataset's totals and counters.
    pub counts: Counts,
}

/// Reads the objectives of a day from the entries of one of its part files' footers; `None` if they are not stated.
fn from_footer(dataset: &dyn Dataset, entries: &HashMap<String, String>) -> Option<DayObjectives> {
    let text = |key: &str| entries.get(key).map(String::as_str);
    let stated: BTreeMap<String, Value> = serde_json::from_str(text(OBJECTIVES_KEY)?).ok()?;
    let mut counts = Counts::default();
    for total in dataset.totals() {
        if let Some(value) = text(&format!("tally.{}", total.name)).and_then(|text| text.parse().ok()) {
            counts.set(total.name, vec![value]);
        }
    }
    for (name, value) in stated.into_iter().take(MAX_COUNTERS) {
        let buckets = match value {
            Value::Count(count) => vec![count],
            Value::Buckets(buckets) if buckets.len() <= MAX_COUNTS => buckets,
            Value::Buckets(_) => return None,
        };
        counts.set(&name, buckets);
    }
    let rows = text("tally.total_rows")?.parse().ok()?;
    Some(DayObjectives { rows, checksum: text("tally.total_checksum").map(str::to_string), counts })
}

#[cfg(test)]
mod tests {
    use tally_dataset::addon_aggregates::AddonAggregates;

    use super::*;

    fn footer(entries: &[(&str, &str)]) -> HashMap<String, String> {
        entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn counts_are_read_back_as_they_were_written() {
        let dataset = AddonAggregates::new();
        let spec = dataset.objectives().unwrap();
        let values: Vec<u64> = (0..spec.counts() as u64).collect();
        let mut counts = Counts::of(spec.counters, &values).unwrap();
        let text = text_of(&counts);
        let entries = [
            (OBJECTIVES_KEY, text.as_str()),
            ("tally.total_rows", "9"),
            ("tally.total_checksum", "00ff"),
            ("tally.n_clients", "77"),
        ];
        let read = from_footer(&dataset, &footer(&entries)).unwrap();
        counts.set("n_clients", vec![77]);
        assert_eq!((read.rows, read.checksum.as_deref()), (9, Some("00ff")));
        let sorted = |counts: &Counts| {
            counts
                .iter()
                .map(|(name, buckets)| (name.to_string(), buckets.to_vec()))
                .collect::<BTreeMap<_, _>>()
        };
        assert_eq!(sorted(&read.counts), sorted(&counts));
    }

    #[test]
    fn a_footer_without_counts_states_no_objectives() {
        let dataset = AddonAggregates::new();
        let read = |entries: &[(&str, &str)]| from_footer(&dataset, &footer(entries));
        assert_eq!(read(&[("tally.total_rows", "9"), ("tally.n_clients", "77")]), None);
        let many = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(MAX_COUNTS));
        for bad in ["", "{}x", r#"{"a":-1}"#, r#"{"a":"1"}"#, "[1]", &many] {
            assert_eq!(read(&[(OBJECTIVES_KEY, bad), ("tally.total_rows", "9")]), None, "{bad}");
        }
        assert_eq!(read(&[(OBJECTIVES_KEY, r#"{"a":1}"#)]), None);
        assert!(read(&[(OBJECTIVES_KEY, r#"{"a":1}"#), ("tally.total_rows", "9")]).is_some());
    }
}
