//! The golden cases under `tests/golden`: small days with the output that Apache Spark computed for them, and what they
//! share with those of other datasets. Not here: running anything over them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::rows::Row;
use crate::table;

/// The date of every golden day.
pub const DATE: &str = "20170227";

/// The names of the cases, each a folder under `tests/golden`.
pub const CASES: [&str; 13] = [
    "case-01",
    "case-02",
    "case-03",
    "case-04",
    "case-05",
    "case-06",
    "case-07",
    "case-08",
    "case-09",
    "case-10",
    "case-11",
    "case-12",
    "case-13-legacy-lists",
];

/// The contents of `expected.json`: the totals of a case.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    pub n_clients: u64,
    pub n_custom_theme_clients: u64,
    pub rows: u64,
}

/// The folder that holds all cases.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// One case: its folder holds `addons/v2` and `main_summary/v3`.
#[derive(Clone, Debug)]
pub struct Case {
    pub dir: PathBuf,
}

impl Case {
    /// The case called `name`.
    pub fn new(name: &str) -> Self {
        Self { dir: root().join(name) }
    }

    /// The rows that Spark wrote, sorted.
    pub fn expected_rows(&self) -> Result<Vec<Row>> {
        table::read_aggregates(&self.dir.join("expected.parquet"))
    }

    /// The totals that Spark counted.
    pub fn totals(&self) -> Result<Totals> {
        expected_json(&self.dir)
    }
}

/// The contents of `expected.json` in the folder of a case.
pub(crate) fn expected_json<T: DeserializeOwned>(case: &Path) -> Result<T> {
    let path = case.join("expected.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))
}

/// The names of the folders of cases in a folder, sorted.
#[cfg(test)]
pub(crate) fn case_folders(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("case-"))
        .collect();
    names.sort();
    names
}

/// Tests that call `check(NAME)`, one for each golden case, and one that compares their names with the list of all cases.
#[macro_export]
macro_rules! golden_tests {
    ($cases:expr, $check:ident; $($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() -> ::anyhow::Result<()> {
                $check($name)
            }
        )*

        #[test]
        fn no_case_is_left_out() {
            assert_eq!(&[$($name),*][..], &$cases[..]);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_is_a_listed_case() {
        assert_eq!(case_folders(&root()), CASES);
    }
}
