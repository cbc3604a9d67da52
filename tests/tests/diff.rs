//! `tally diff`: days with the same rows are equal whatever their files are, and the rows that differ are shown.
//!
//! In object stores: `s3_audits`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, Int32Array, Int64Array};
use serde_json::Value;
use tally_tests::generated::Generated;
use tally_tests::golden::{CASES, Case, DATE};
use tally_tests::output::{Place, part_files};
use tally_tests::process::{Outcome, Tally};
use tally_tests::rewrite::PartFile;
use tally_tests::wait::{PATIENT, wait_every};

fn run(root: &Path, place: &Place, flags: &[&str]) -> Result<PathBuf> {
    Tally::job(root, place).date(DATE).args(flags).run()?.expect_code(0)?;
    Ok(place.partition(DATE))
}

fn diff(a: &Path, b: &Path) -> Tally {
    Tally::new("diff").args([a, b]).args(["--output-format", "json"])
}

fn report(outcome: &Outcome) -> Result<Value> {
    serde_json::from_str(&outcome.stdout).with_context(|| outcome.to_string())
}

/// Checks that the days are equal, in both orders.
fn equal(a: &Path, b: &Path) -> Result<()> {
    for (a, b) in [(a, b), (b, a)] {
        let outcome = diff(a, b).run()?.expect_code(0)?;
        let report = report(&outcome)?;
        ensure!(report["equal"] == true && report["differing_keys"] == 0, "{report}");
        ensure!(report["a"]["rows"] == report["b"]["rows"] && report["first"] == serde_json::json!([]));
    }
    Ok(())
}

/// The report about days that differ.
fn different(a: &Path, b: &Path) -> Result<Value> {
    let report = report(&diff(a, b).run()?.expect_failure(1, &["the days differ"])?)?;
    ensure!(report["equal"] == false, "{report}");
    Ok(report)
}

/// A day in two layouts: one file, and many files of other partitions.
struct Two {
    _places: [Place; 2],
    one: PathBuf,
    many: PathBuf,
}

impl Two {
    fn new(case: &str) -> Result<Self> {
        let (root, places) = (Case::new(case).dir, [Place::new()?, Place::new()?]);
        let one = run(&root, &places[0], &["--partitions", "1"])?;
        let many = run(&root, &places[1], &["--partitions", "7", "--target-file-size", "1KB"])?;
        Ok(Two { _places: places, one, many })
    }

    /// Rewrites the single file with a change.
    fn rewrite(&self, change: impl FnOnce(&mut PartFile) -> Result<()>) -> Result<()> {
        let files = part_files(&self.one)?;
        ensure!(files.len() == 1, "{files:?}");
        let mut part = PartFile::read(&files[0])?;
        change(&mut part)?;
        part.write(&files[0])
    }
}

#[test]
fn days_of_all_golden_cases_equal_those_of_spark_and_those_in_other_files() -> Result<()> {
    for name in CASES {
        let two = Two::new(name)?;
        equal(&two.one, &two.many).context(name)?;
        let spark = tempfile::tempdir()?;
        std::fs::copy(Case::new(name).dir.join("expected.parquet"), spark.path().join("part-0.parquet"))?;
        equal(spark.path(), &two.many).context(name)?;
    }
    Ok(())
}

#[test]
fn one_changed_value_is_shown_with_its_client() -> Result<()> {
    let two = Two::new("case-05")?;
    let mut client = String::new();
    two.rewrite(|part| {
        client = part.rows.column(0).as_string::<i32>().value(3).to_string();
        part.set(3, "count", Arc::new(Int64Array::from(vec![4_711])))
    })?;
    let report = different(&two.one, &two.many)?;
    ensure!(report["rows_only_in_a"] == 1 && report["rows_only_in_b"] == 1, "{report}");
    ensure!(report["differing_keys"] == 1 && report["first"][0]["key"] == client, "{report}");
    let first = &report["first"][0];
    let (mine, other) = (&first["only_in_a"][0], &first["only_in_b"][0]);
    ensure!(mine["count"] == 4_711 && mine["client_id"] == client, "{report}");
    ensure!(other["client_id"] == client && other["count"] != 4_711, "{report}");
    ensure!(mine["user_type"] == other["user_type"], "{report}");
    // The table for people.
    let text = Tally::new("diff").args([&two.one, &two.many]).run()?.expect_code(1)?.stdout;
    for words in ["1 row only in A, 1 row only in B, of 1 value of client_id", &client, "count=4711"] {
        ensure!(text.contains(words), "{words}: {text}");
    }
    Ok(())
}

#[test]
fn a_missing_row_and_a_row_that_is_there_twice_are_shown() -> Result<()> {
    let two = Two::new("case-05")?;
    let (mut missing, mut twice) = (String::new(), String::new());
    two.rewrite(|part| {
        let rows = part.rows.num_rows() as u64;
        let id = |row: usize| part.rows.column(0).as_string::<i32>().value(row).to_string();
        (missing, twice) = (id(0), id(rows as usize - 1));
        ensure!(missing != twice);
        part.take((1..rows).chain([rows - 1]))
    })?;
    let report = different(&two.many, &two.one)?;
    ensure!(report["a"]["rows"] == report["b"]["rows"], "{report}");
    ensure!(report["rows_only_in_a"] == 1 && report["rows_only_in_b"] == 1, "{report}");
    let first = report["first"].as_array().context("no differences")?;
    let of = |key: &str| first.iter().find(|found| found["key"] == key).context("the client is not named");
    let (missing, twice) = (of(&missing)?, of(&twice)?);
    let count = |found: &Value, side: &str| found[side].as_array().map_or(0, Vec::len);
    ensure!((count(missing, "only_in_a"), count(missing, "only_in_b")) == (1, 0), "{report}");
    ensure!((count(twice, "only_in_a"), count(twice, "only_in_b")) == (0, 1), "{report}");
    // Only so many clients are shown, and all of them are counted.
    let few = diff(&two.many, &two.one).args(["--limit", "1"]).run()?.expect_code(1)?;
    let few: Value = serde_json::from_str(&few.stdout)?;
    ensure!(few["differing_keys"] == 2 && few["first"].as_array().map_or(0, Vec::len) == 1, "{few}");
    Ok(())
}

#[test]
fn a_count_of_the_whole_day_is_one_difference_and_in_one_row_it_is_a_row() -> Result<()> {
    let two = Two::new("case-05")?;
    let clients = Case::new("case-05").totals()?.n_clients;
    two.rewrite(|part| {
        let all: ArrayRef = Arc::new(Int32Array::from(vec![9_999; part.rows.num_rows()]));
        let mut columns = part.rows.columns().to_vec();
        let at = part.schema().index_of("n_clients")?;
        columns[at] = all;
        part.rows = arrow_array::RecordBatch::try_new(part.schema(), columns)?;
        Ok(())
    })?;
    let found = different(&two.one, &two.many)?;
    ensure!(found["differing_keys"] == 0, "{found}");
    let constant = serde_json::json!([{ "column": "n_clients", "a": 9_999, "b": clients }]);
    ensure!(found["constants"] == constant, "{found}");
    // In one row of a file, and in all rows of one of several files.
    let two = Two::new("case-05")?;
    two.rewrite(|part| part.set(2, "n_clients", Arc::new(Int32Array::from(vec![9_999]))))?;
    let found = different(&two.one, &two.many)?;
    ensure!(
        found["rows_only_in_a"] == 1 && found["first"][0]["only_in_a"][0]["n_clients"] == 9_999,
        "{found}"
    );
    let two = Two::new("case-05")?;
    let file = &part_files(&two.many)?[1];
    let mut part = PartFile::read(file)?;
    for row in 0..part.rows.num_rows() {
        part.set(row, "n_clients", Arc::new(Int32Array::from(vec![9_999])))?;
    }
    part.write(file)?;
    let found = different(&two.one, &two.many)?;
    ensure!(found["rows_only_in_b"] == part.rows.num_rows(), "{found}");
    Ok(())
}

#[test]
fn days_are_named_by_their_folders_or_by_outputs_and_a_date() -> Result<()> {
    let root = Case::new("case-05").dir;
    let places = [Place::new()?, Place::new()?];
    for place in &places {
        run(&root, place, &[])?;
    }
    let [a, b] = [places[0].output(), places[1].output()];
    let dated = |date: &str| diff(&a, &b).args(["--date", date]).run();
    dated(DATE)?.expect_code(0)?;
    dated("20170228")?.expect_failure(7, &["no data files", "the existing days are: 20170227"])?;
    diff(&a, &b).run()?.expect_failure(2, &["folders of several days", "--date"])?;
    dated("2017-02-28")?.expect_failure(2, &["YYYYMMDD"])?;
    // Other files are no day of the dataset.
    let other = tempfile::tempdir()?;
    let addons = root.join("addons/v2").join(format!("submission_date_s3={DATE}"));
    let input = tally_tests::table::data_files(&addons)?;
    std::fs::copy(&input[0], other.path().join("part-0.parquet"))?;
    let outcome = diff(&places[0].partition(DATE), other.path()).run()?;
    outcome.expect_failure(7, &["is not a part file of addon_aggregates", "it has the columns"])?;
    Ok(())
}

/// The largest resident memory of a process in bytes, sampled until it ends. It only grows, so the last sample is enough.
fn peak(mut command: tally_tests::process::Running) -> Result<(Outcome, u64)> {
    let mut peak = 0;
    let status = format!("/proc/{}/status", command.id());
    wait_every(PATIENT, "the end of the comparison", std::time::Duration::from_secs(180), || {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) << 10);
        Ok(command.ended()?.then_some(()))
    })?;
    Ok((command.wait()?, peak))
}

/// Two days of many rows, with memory for a third of them: what does not fit is stored in a temporary file.
#[test]
fn large_days_are_compared_in_bounded_memory() -> Result<()> {
    let places = [Place::new()?, Place::new()?];
    let day = Generated::new(places[0].path(), &["--clients", "1500000", "--narrow"])?;
    let one = run(&day.root, &places[0], &[])?;
    let many = run(&day.root, &places[1], &["--target-file-size", "4MB"])?;
    let limit: u64 = 128 << 20;
    // Per row 24 bytes, and as many again while lists grow: more than the limit's share of a day.
    ensure!(day.totals.rows * 48 > limit / 6, "{} rows fit into memory", day.totals.rows);
    let bounded = |a: &Path, b: &Path| {
        diff(a, b)
            .args(["--memory-limit", "128MiB", "--threads", "1", "--spill-dir"])
            .args([places[0].spill()])
    };
    let (outcome, equal) = peak(bounded(&one, &many).spawn()?)?;
    let found = report(&outcome.expect_code(0)?)?;
    ensure!(found["a"]["rows"] == day.totals.rows && found["b"]["rows"] == day.totals.rows, "{found}");
    let file = &part_files(&many)?[1];
    let mut part = PartFile::read(file)?;
    part.set(5, "count", Arc::new(Int64Array::from(vec![4_711])))?;
    part.write(file)?;
    let (outcome, different) = peak(bounded(&one, &many).spawn()?)?;
    let found = report(&outcome.expect_code(1)?)?;
    ensure!(found["differing_keys"] == 1 && found["first"][0]["only_in_b"][0]["count"] == 4_711, "{found}");
    ensure!(equal.max(different) < limit, "{equal} and {different} bytes at the peak");
    ensure!(std::fs::read_dir(places[0].spill())?.next().is_none(), "files are left");
    Ok(())
}
