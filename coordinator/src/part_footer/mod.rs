//! What a part file's footer says about the file and its day, in the key-value metadata with the prefix `tally.`. Write
//! tasks store it, and audits and later jobs read it; `entries` reads the metadata from a file.
//!
//! Not here: the other metadata of a Parquet file, and whether any of it is true (`audit`).

pub mod entries;

use std::collections::{BTreeMap, HashMap};

use tally_dataset::{Dataset, Totals};

use crate::results::checksum_text;

/// The figures of a whole day. All of its part files have the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DayFooter {
    /// The job that wrote it.
    pub job: String,
    /// Its version of the program.
    pub version: String,
    /// The dataset.
    pub dataset: String,
    /// The date, `YYYYMMDD`.
    pub date: String,
    /// Rows, and the dataset's counters.
    pub totals: Totals,
    /// Part files; unknown in days of earlier versions.
    pub files: Option<u64>,
    /// The checksum of all rows, if all workers reported theirs.
    pub checksum: Option<u64>,
    /// Nulls by column of the dataset's reduced rows; unknown in days of earlier versions.
    pub nulls: Option<Vec<u64>>,
    /// The counts of the dataset's objectives, in JSON, if they were counted.
    pub objectives: Option<String>,
}

/// The figures of a part file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartFooter {
    /// Its rows.
    pub rows: u64,
    /// The checksum of its rows, if all workers reported theirs.
    pub checksum: Option<u64>,
    /// Its folder within the day, for example `sample_id=7`, if the dataset has such folders.
    pub folder: Option<String>,
    /// Its day.
    pub day: DayFooter,
}

/// A footer that no job of this dataset wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// A key is missing.
    #[error("its footer does not have the key {0}")]
    Missing(String),
    /// A value has another form.
    #[error("its footer has an invalid value for {key}: {value:?}")]
    Invalid {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
}

/// The names of the columns whose nulls are counted, in their order.
fn counted_columns(dataset: &dyn Dataset) -> Vec<String> {
    dataset.reduced_schema().fields().iter().map(|field| field.name().clone()).collect()
}

impl PartFooter {
    /// The keys and values.
    pub fn entries(&self, dataset: &dyn Dataset) -> HashMap<String, String> {
        let day = &self.day;
        let nulls = day.nulls.as_ref().map(|nulls| {
            let named: BTreeMap<_, _> = counted_columns(dataset).into_iter().zip(nulls).collect();
            serde_json::to_string(&named).unwrap_or_default()
        });
        let known = [
            ("version", day.version.clone()),
            ("job_id", day.job.clone()),
            ("dataset", day.dataset.clone()),
            ("date", day.date.clone()),
            ("rows", self.rows.to_string()),
            ("total_rows", day.totals.rows.to_string()),
        ];
        let optional = [
            ("checksum", self.checksum.map(checksum_text)),
            ("folder", self.folder.clone()),
            ("total_checksum", day.checksum.map(checksum_text)),
            ("total_files", day.files.map(|files| files.to_string())),
            ("total_nulls", nulls),
            ("objectives", day.objectives.clone()),
        ];
        let counters = dataset.totals().iter().zip(&day.totals.counters);
        let counters = counters.map(|(total, value)| (total.name, value.to_string()));
        let optional = optional.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let all = known.into_iter().chain(optional).chain(counters);
        all.map(|(key, value)| (format!("tally.{key}"), value)).collect()
    }

    /// Reads the keys and values of a part file of that dataset.
    ///
    /// # Errors
    /// [`FooterError`]: a job of this dataset did not write it.
    pub fn read(entries: &HashMap<String, String>, dataset: &dyn Dataset) -> Result<Self, FooterError> {
        let entries = Entries(entries);
        let counters = dataset.totals().iter().map(|total| entries.number(total.name));
        let totals =
            Totals { rows: entries.number("total_rows")?, counters: counters.collect::<Result<_, _>>()? };
        let day = DayFooter {
            job: entries.text("job_id")?.into(),
            version: entries.text("version")?.into(),
            dataset: entries.text("dataset")?.into(),
            date: entries.text("date")?.into(),
            totals,
            files: entries.optional("total_files", |text| text.parse().ok())?,
            checksum: entries.checksum("total_checksum")?,
            nulls: entries.optional("total_nulls", |text| {
                let named: HashMap<String, u64> = serde_json::from_str(text).ok()?;
                counted_columns(dataset).iter().map(|column| named.get(column).copied()).collect()
            })?,
            objectives: entries.optional("objectives", |text| Some(text.to_string()))?,
        };
        Ok(PartFooter {
            rows: entries.number("rows")?,
            checksum: entries.checksum("checksum")?,
            folder: entries.optional("folder", |text| Some(text.to_string()))?,
            day,
        })
    }
}

/// The entries of a footer by key, which are given without the prefix.
struct Entries<'a>(&'a HashMap<String, String>);

impl<'a> Entries<'a> {
    fn text(&self, key: &str) -> Result<&'a str, FooterError> {
        let key = format!("tally.{key}");
        self.0.get(&key).map(String::as_str).ok_or(FooterError::Missing(key))
    }

    fn optional<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, FooterError> {
        let Ok(text) = self.text(key) else { return Ok(None) };
        let invalid = || FooterError::Invalid { key: format!("tally.{key}"), value: text.into() };
        parse(text).map(Some).ok_or_else(invalid)
    }

    fn number(&self, key: &str) -> Result<u64, FooterError> {
        let number = self.optional(key, |text| text.parse().ok())?;
        number.ok_or_else(|| FooterError::Missing(format!("tally.{key}")))
    }

    fn checksum(&self, key: &str) -> Result<Option<u64>, FooterError> {
        let has_form = |text: &&str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        self.optional(key, |text| {
            Some(text).filter(has_form).and_then(|text| u64::from_str_radix(text, 16).ok())
        })
    }
}

#[cfg(test)]
mod tests {
    use tally_dataset::addon_aggregates::AddonAggregates;

    use super::*;

    fn footer() -> PartFooter {
        let day = DayFooter {
            job: "20170227-1-1-0".into(),
            version: "0.1.0".into(),
            dataset: "addon_aggregates".into(),
            date: "20170227".into(),
            totals: Totals { rows: 9, counters: vec![5, 2] },
            files: Some(2),
            checksum: Some(0xa1),
            nulls: Some(vec![0, 1, 0, 0, 2, 3, 4]),
            objectives: Some(r#"{"new":1}"#.into()),
        };
        PartFooter { rows: 4, checksum: Some(u64::MAX), folder: Some("sample_id=7".into()), day }
    }

    #[test]
    fn a_footer_is_read_as_it_was_written() {
        let dataset = AddonAggregates::new();
        let entries = footer().entries(&dataset);
        assert_eq!(entries["tally.checksum"], "ffffffffffffffff");
        assert_eq!(entries["tally.total_checksum"], "00000000000000a1");
        assert_eq!((&*entries["tally.n_clients"], &*entries["tally.total_files"]), ("5", "2"));
        assert!(entries["tally.total_nulls"].contains(r#""foreign_install":1"#), "{entries:?}");
        assert_eq!(PartFooter::read(&entries, &dataset), Ok(footer()));
        let mut earlier = footer();
        (earlier.day.files, earlier.day.nulls, earlier.checksum) = (None, None, None);
        earlier.folder = None;
        let entries = earlier.entries(&dataset);
        assert!(!entries.contains_key("tally.total_nulls") && !entries.contains_key("tally.folder"));
        assert_eq!(PartFooter::read(&entries, &dataset), Ok(earlier));
    }

    #[test]
    fn other_footers_are_refused_and_the_key_is_named() {
        let dataset = AddonAggregates::new();
        let changed = |key: &str, value: Option<&str>| {
            let mut entries = footer().entries(&dataset);
            match value {
                Some(value) => entries.insert(key.into(), value.into()),
                None => entries.remove(key),
            };
            PartFooter::read(&entries, &dataset).unwrap_err().to_string()
        };
        for key in ["tally.job_id", "tally.rows", "tally.total_rows", "tally.n_clients"] {
            assert_eq!(changed(key, None), format!("its footer does not have the key {key}"));
        }
        for (key, value) in [
            ("tally.rows", "-1"),
            ("tally.checksum", "+fffffffffffffff"),
            ("tally.checksum", "1"),
            ("tally.total_nulls", "{}"),
            ("tally.total_files", ""),
        ] {
            let error = changed(key, Some(value));
            assert!(error.contains(&format!("invalid value for {key}: {value:?}")), "{error}");
        }
        assert!(PartFooter::read(&HashMap::new(), &dataset).is_err());
    }
}
