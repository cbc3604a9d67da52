//! The days under `tests/foreign`: small days of which one file has a shape from a public bug report, with the rows
//! that Apache Spark computed for it, or the expected error.
//!
//! A case's `expect.json` describes the shape, and has the rows in the order of the output's columns, or words of which
//! the error must contain one. Not here: where and how the cases run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::process::Outcome;
use crate::rows::Row;
use crate::table;

/// The minimum number of cases, so that none is lost silently.
const MIN_CASES: usize = 13;

/// A day, and its expected result.
#[derive(Clone, Debug)]
pub struct Case {
    /// The name of its folder.
    pub name: String,
    /// The folder of `addons/v2` and `main_summary/v3`.
    pub day: PathBuf,
    pub expect: Expect,
}

/// The expected result of a day.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    /// These rows, sorted.
    Rows(Vec<Row>),
    /// An error that contains one of these words.
    Error(Vec<String>),
}

/// The contents of `expect.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    shape: String,
    rows: Option<Vec<Columns>>,
    error: Option<Vec<String>>,
}

/// A row as a list of values.
#[derive(Deserialize)]
struct Columns(
    Option<String>,
    Option<bool>,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i32>,
    Option<i64>,
    i32,
    i32,
);

impl From<Columns> for Row {
    fn from(row: Columns) -> Row {
        Row {
            client_id: row.0,
            foreign_install: row.1,
            count: row.2,
            user_type: row.3,
            profile_creation_date: row.4,
            min_install_day: row.5,
            has_custom_theme: row.6,
            n_custom_theme_clients: row.7,
            n_clients: row.8,
        }
    }
}

/// The folder that holds all cases.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign")
}

/// Runs all cases.
///
/// # Errors
/// Gives the reason for each case that fails.
pub fn all(mut run: impl FnMut(&Case) -> Result<()>) -> Result<()> {
    let failed: Vec<String> = cases()?
        .iter()
        .filter_map(|case| run(case).err().map(|error| format!("{}: {error:?}", case.name)))
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

/// The case called `name`.
///
/// # Errors
/// There is no such case.
pub fn case(name: &str) -> Result<Case> {
    cases()?.into_iter().find(|case| case.name == name).with_context(|| format!("there is no case {name}"))
}

/// All cases, which are all folders, by name.
///
/// # Errors
/// A folder is not a case.
pub fn cases() -> Result<Vec<Case>> {
    let mut names = vec![];
    for entry in std::fs::read_dir(root()).with_context(|| format!("listing {}", root().display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    ensure!(names.len() >= MIN_CASES, "only {} cases are left: {names:?}", names.len());
    names.into_iter().map(|name| Case::read(&name).context(name)).collect()
}

impl Case {
    fn read(name: &str) -> Result<Self> {
        let folder = root().join(name);
        let file: File = serde_json::from_str(&std::fs::read_to_string(folder.join("expect.json"))?)?;
        ensure!(!file.shape.is_empty(), "it does not say its shape");
        let expect = match (file.rows, file.error) {
            (Some(rows), None) => {
                let mut rows: Vec<Row> = rows.into_iter().map(Row::from).collect();
                rows.sort();
                Expect::Rows(rows)
            }
            (None, Some(words)) if !words.is_empty() => Expect::Error(words),
            _ => anyhow::bail!("rows or words of an error, one of both"),
        };
        let day = folder.join("in");
        ensure!(day.join("addons/v2").is_dir() && day.join("main_summary/v3").is_dir(), "it has no day");
        Ok(Case { name: name.into(), day, expect })
    }

    /// Checks how a job over the day ended; `read` reads the published day.
    ///
    /// # Errors
    /// The result is not the expected one.
    pub fn check(&self, outcome: Outcome, read: impl FnOnce() -> Result<Vec<Row>>) -> Result<()> {
        match &self.expect {
            Expect::Rows(rows) => {
                outcome.summary()?;
                table::compare(&read()?, rows)
            }
            Expect::Error(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                outcome.expect_failure(1, &[".parquet"])?.expect_any(&words).map(drop)
            }
        }
    }
}
