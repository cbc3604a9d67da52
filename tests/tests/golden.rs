//! Every golden case gives exactly the output of Spark, however the work is split: workers, threads, memory, shards,
//! partitions.

use std::ffi::OsStr;

use anyhow::{Context, Result};
use tally_tests::golden::{CASES, Case, DATE};
use tally_tests::golden_tests;
use tally_tests::output::Place;
use tally_tests::process::{Summary, Tally};
use tally_tests::table;

/// Flags that split the same day in different ways; the first are the defaults. The smaller limit has room for two threads.
const CUTS: [&[&str]; 8] = [
    &[],
    &["--workers", "1", "--threads", "1", "--memory-limit", "2GiB"],
    &[
        "--workers",
        "1",
        "--threads",
        "2",
        "--memory-limit",
        "256MiB",
        "--shard-bytes",
        "1",
        "--partitions",
        "7",
    ],
    &[
        "--workers",
        "2",
        "--threads",
        "2",
        "--memory-limit",
        "256MiB",
        "--shard-bytes",
        "4096",
        "--partitions",
        "1",
    ],
    &[
        "--workers",
        "2",
        "--threads",
        "4",
        "--memory-limit",
        "2GiB",
        "--shard-bytes",
        "512",
        "--partitions",
        "64",
    ],
    &[
        "--workers",
        "3",
        "--threads",
        "3",
        "--memory-limit",
        "2GiB",
        "--shard-bytes",
        "1",
        "--partitions",
        "3",
    ],
    &[
        "--workers",
        "4",
        "--threads",
        "4",
        "--memory-limit",
        "2GiB",
        "--shard-bytes",
        "20KB",
        "--partitions",
        "16",
    ],
    &[
        "--workers",
        "1",
        "--threads",
        "4",
        "--memory-limit",
        "2GiB",
        "--shard-bytes",
        "1GiB",
        "--partitions",
        "101",
    ],
];

fn check_totals(case: &Case, summary: &Summary) -> Result<()> {
    let totals = case.totals()?;
    assert_eq!(summary.rows, totals.rows);
    assert_eq!(summary.n_clients, totals.n_clients);
    assert_eq!(summary.n_custom_theme_clients, totals.n_custom_theme_clients);
    assert_eq!(summary.date, DATE);
    Ok(())
}

fn check(name: &str) -> Result<()> {
    let case = Case::new(name);
    let expected = case.expected_rows()?;
    // One output for all runs: each replaces the output of the previous one, and the first replaces an output of
    // another kind.
    let place = Place::new()?;
    place.put_old_output(DATE)?;
    for cut in CUTS {
        let summary = Tally::job(&case.dir, &place).date(DATE).args(cut).run()?.summary()?;
        let context = || format!("{name} with {cut:?}");
        let rows = place.read_output(DATE).with_context(context)?;
        table::compare(&rows, &expected).with_context(context)?;
        check_totals(&case, &summary).with_context(context)?;
        assert_eq!(
            summary.files,
            table::data_files(&place.partition(DATE))?.len() as u64,
            "{name} with {cut:?}"
        );
        if cut.starts_with(&["--workers", "1"]) {
            assert_eq!(summary.files, 1, "{name} with {cut:?}");
        }
    }
    Ok(())
}

golden_tests! {
    CASES, check;
    case_01: "case-01",
    case_02: "case-02",
    case_03: "case-03",
    case_04: "case-04",
    case_05: "case-05",
    case_06: "case-06",
    case_07: "case-07",
    case_08: "case-08",
    case_09_a_day_without_rows: "case-09",
    case_10: "case-10",
    case_11: "case-11",
    case_12: "case-12",
    case_13_legacy_lists: "case-13-legacy-lists",
}

/// `file://` URLs that contain a space, and the date from the environment.
#[test]
fn urls_and_the_date_of_the_environment() -> Result<()> {
    let case = Case::new("case-05");
    let place = Place::new()?;
    let url = |path: std::path::PathBuf| format!("file://{}", path.display()).replace(' ', "%20");
    let summary = Tally::new("run")
        .args(["--addons", &url(case.dir.join("addons/v2"))])
        .args(["--main-summary", &url(case.dir.join("main_summary/v3"))])
        .args(["--output", &url(place.output())])
        .args(["--output-format", "json"])
        .env("date", DATE)
        .run()?
        .summary()?;
    check_totals(&case, &summary)?;
    table::compare(&place.read_output(DATE)?, &case.expected_rows()?)
}

/// Other dates of the same dataset stay unchanged.
#[test]
fn other_dates_of_the_output_stay() -> Result<()> {
    let case = Case::new("case-01");
    let place = Place::new()?;
    place.put_old_output("20170225")?;
    let before = tally_tests::output::snapshot(&place.partition("20170225"))?;
    for date in [DATE, "20170226"] {
        Tally::job(&case.dir, &place).date(date).run()?.summary()?;
    }
    tally_tests::output::check_unchanged(
        &before,
        &tally_tests::output::snapshot(&place.partition("20170225"))?,
    )?;
    table::compare(&table::read_aggregates(&place.partition(DATE))?, &case.expected_rows()?)
}

/// The summary's figures are consistent.
#[test]
fn the_summary_is_consistent() -> Result<()> {
    let case = Case::new("case-05");
    let place = Place::new()?;
    let summary = Tally::job(&case.dir, &place).date(DATE).run()?.summary()?;
    assert!(!summary.job_id.is_empty());
    assert!(summary.bytes_read > 0 && summary.peak_memory_bytes > 0 && summary.seconds > 0.0, "{summary:?}");
    for stage in &summary.stages {
        assert!(stage.seconds <= summary.seconds, "{summary:?}");
        assert!(stage.peak_memory_bytes <= summary.peak_memory_bytes, "{summary:?}");
    }
    for name in ["map", "reduce", "write"] {
        let stage = summary.stages.iter().find(|stage| stage.name == name).context(name)?;
        assert!(stage.tasks > 0 && stage.rows > 0 && stage.bytes > 0, "{summary:?}");
    }
    Ok(())
}

/// The text format has a table with the same numbers.
#[test]
fn the_table_says_the_totals() -> Result<()> {
    let case = Case::new("case-03");
    let place = Place::new()?;
    let outcome = Tally::new("run")
        .args([OsStr::new("--addons"), case.dir.join("addons/v2").as_os_str()])
        .args([OsStr::new("--main-summary"), case.dir.join("main_summary/v3").as_os_str()])
        .args([OsStr::new("--output"), place.output().as_os_str()])
        .args(["--output-format", "table", "--date", DATE])
        .run()?
        .expect_code(0)?;
    let totals = case.totals()?;
    for number in [totals.rows, totals.n_clients, totals.n_custom_theme_clients] {
        assert!(outcome.stdout.contains(&number.to_string()), "{outcome}");
    }
    Ok(())
}
