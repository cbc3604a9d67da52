//! The golden cases of `addon_aggregates_v2` under `tests/golden-v2`: small days with the output that Apache Spark computed
//! for them. Not here: running anything over them.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::golden::expected_json;
use crate::naive_v2::RowV2;
use crate::output_v2::{SUMS, read_rows};

/// The date of every golden day.
pub const DATE: &str = "20180101";

/// The names of the cases, each a folder under `tests/golden-v2`.
pub const CASES: [&str; 13] = [
    "case-01", "case-02", "case-03", "case-04", "case-05", "case-06", "case-07", "case-08", "case-09",
    "case-10", "case-11", "case-12", "case-13",
];

/// The folder that holds all cases.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden-v2")
}

/// One case: its folder holds `main_summary/v4`.
#[derive(Clone, Debug)]
pub struct Case {
    pub dir: PathBuf,
}

impl Case {
    /// The case called `name`.
    pub fn new(name: &str) -> Self {
        Self { dir: root().join(name) }
    }

    /// The file of further Test Pilot ids, if the case has one.
    pub fn pilots_file(&self) -> Option<PathBuf> {
        Some(self.dir.join("test-pilot-ids.txt")).filter(|path| path.is_file())
    }

    /// The Test Pilot ids that the case was run with.
    pub fn pilots(&self) -> Result<Vec<String>> {
        Ok(serde_json::from_value(expected_json::<Value>(&self.dir)?["test_pilot_ids"].clone())?)
    }

    /// The rows that Spark wrote, sorted; they agree with the totals that it counted.
    pub fn expected_rows(&self) -> Result<Vec<RowV2>> {
        let mut rows = read_rows(&self.dir.join("expected.parquet"), None)?;
        rows.sort();
        let json: Value = expected_json(&self.dir)?;
        ensure!(json["rows"] == rows.len(), "{} rows, but {json}", rows.len());
        for (at, name) in SUMS.iter().enumerate() {
            let sum: i64 = rows.iter().map(|row| row.sums[at]).sum();
            ensure!(json["totals"][name] == sum, "{name} is {sum}, but {json}");
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::case_folders;
    use crate::pings_v2::read_pings;
    use crate::{naive_v2, table};

    #[test]
    fn every_folder_is_a_listed_case() {
        assert_eq!(case_folders(&root()), CASES);
    }

    #[test]
    fn the_reference_agrees_with_spark() {
        for name in CASES {
            let case = Case::new(name);
            let day = case.dir.join(format!("main_summary/v4/submission_date_s3={DATE}"));
            let (pings, widths) = read_pings(&day).unwrap();
            let found = naive_v2::aggregate(&pings, widths, &case.pilots().unwrap());
            let expected = case.expected_rows().unwrap();
            table::compare(&found, &expected).unwrap_or_else(|error| panic!("{name}, {widths:?}: {error}"));
        }
    }
}
