//! The output as other tools read it, by `tests/readers/check.py`: DuckDB, PyArrow and Polars each read it back. And
//! inputs from other writers, by `tests/readers/rewrite.py`: the same three rewrite golden days. `tests/run` sets them
//! up.

use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result};
use tally_tests::golden::{CASES, Case, DATE};
use tally_tests::output::Place;
use tally_tests::process::Tally;
use tally_tests::python::run_script;
use tally_tests::{naive, table};

fn check_script(output: &Path, expected: &Path) -> Result<Output> {
    run_script("check.py", &[output.as_ref(), expected.as_ref(), DATE.as_ref()])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn expect_readable(output: &Path, expected: &Path) -> Result<()> {
    let done = check_script(output, expected)?;
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    assert_eq!(text(&done.stdout).lines().count(), 3, "one line a reader");
    Ok(())
}

fn duckdb_pyarrow_and_polars_read_every_golden_output() -> Result<()> {
    for name in CASES {
        let case = Case::new(name);
        let place = Place::new()?;
        // Several files, so that a reader has to combine them.
        let flags = ["--target-file-size", "1KB"];
        Tally::job(&case.dir, &place).date(DATE).args(flags).run()?.summary()?;
        expect_readable(&place.output(), &case.dir.join("expected.parquet")).context(name)?;
    }
    Ok(())
}

/// The script itself: the output of Spark passes, another case's rows and a foreign file do not.
fn the_script_sees_differences() -> Result<()> {
    let (case, other) = (Case::new("case-03"), Case::new("case-05"));
    let place = Place::new()?;
    std::fs::create_dir_all(place.partition(DATE))?;
    let expected = case.dir.join("expected.parquet");
    std::fs::copy(&expected, place.partition(DATE).join("part-0.snappy.parquet"))?;
    expect_readable(&place.output(), &expected)?;
    assert!(!check_script(&place.output(), &other.dir.join("expected.parquet"))?.status.success());
    std::fs::write(place.partition(DATE).join("_SUCCESS"), "done")?;
    assert!(!check_script(&place.output(), &expected)?.status.success());
    Ok(())
}

fn days_written_by_others_give_the_same_output() -> Result<()> {
    for writer in ["duckdb", "duckdb-v2", "polars", "pyarrow", "pyarrow-tiny"] {
        for name in ["case-03", "case-05", "case-13-legacy-lists"] {
            let case = Case::new(name);
            let place = Place::new()?;
            let root = place.path().join("day");
            for table in ["addons/v2", "main_summary/v3"] {
                let (source, target) = (case.dir.join(table), root.join(table));
                let args = [source.as_os_str(), target.as_os_str(), writer.as_ref()];
                let done = run_script("rewrite.py", &args)?;
                assert!(done.status.success(), "{writer}: {}", text(&done.stderr));
            }
            let context = || format!("{name} written by {writer}");
            let partition = |table: &str| root.join(table).join(format!("submission_date_s3={DATE}"));
            let main = table::read_main(&partition("main_summary/v3"))?;
            let addons = table::read_addons(&partition("addons/v2"))?;
            let kept = naive::aggregate(&main, &addons).rows;
            table::compare(&kept, &case.expected_rows()?)
                .with_context(|| format!("{} lost rows", context()))?;
            Tally::job(&root, &place).date(DATE).run()?.summary().with_context(context)?;
            table::compare(&place.read_output(DATE)?, &case.expected_rows()?).with_context(context)?;
        }
    }
    Ok(())
}

tally_tests::tests![
    duckdb_pyarrow_and_polars_read_every_golden_output,
    the_script_sees_differences,
    days_written_by_others_give_the_same_output,
];
