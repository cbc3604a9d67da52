//! The output through the eyes of those who use it: DuckDB, PyArrow and Polars each read it back, by
//! `tests/readers/check.py`. `tests/run` sets the three up in a virtual environment; without it a bare `cargo test`
//! passes over this with a printed reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tally_tests::golden::{CASES, Case, DATE};
use tally_tests::output::Place;
use tally_tests::process::{Tally, strict};

/// The Python that has the readers: `TALLY_PYTHON`, else the virtual environment that `tests/run` makes in the target
/// folder.
fn python() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TALLY_PYTHON") {
        return Some(path.into());
    }
    let test = std::env::current_exe().ok()?;
    test.ancestors().map(|folder| folder.join("test-venv/bin/python")).find(|path| path.is_file())
}

fn check_script(output: &Path, expected: &Path) -> Result<Option<std::process::Output>> {
    let Some(python) = python() else {
        assert!(
            !strict(),
            "no Python with the readers: neither TALLY_PYTHON nor test-venv in the target folder"
        );
        println!("passed over: no TALLY_PYTHON, and tests/run has made no test-venv");
        return Ok(None);
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers/check.py");
    let mut command = Command::new(&python);
    command.arg(script).args([output, expected]).arg(DATE);
    Ok(Some(command.output().with_context(|| format!("starting {}", python.display()))?))
}

fn expect_readable(output: &Path, expected: &Path) -> Result<()> {
    let Some(done) = check_script(output, expected)? else { return Ok(()) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    assert_eq!(text(&done.stdout).lines().count(), 3, "one line a reader");
    Ok(())
}

#[test]
fn duckdb_pyarrow_and_polars_read_every_golden_output() -> Result<()> {
    for name in CASES {
        let case = Case::new(name);
        let place = Place::new()?;
        // Several files, so that a reader has to put them together.
        let flags = ["--target-file-size", "1KB"];
        Tally::job(&case.dir, &place).date(DATE).args(flags).run()?.summary()?;
        expect_readable(&place.output(), &case.dir.join("expected.parquet")).context(name)?;
    }
    Ok(())
}

/// The script itself: what Spark wrote passes, another case's rows and a foreign file do not.
#[test]
fn the_script_sees_differences() -> Result<()> {
    let (case, other) = (Case::new("case-03"), Case::new("case-05"));
    let place = Place::new()?;
    std::fs::create_dir_all(place.partition(DATE))?;
    let expected = case.dir.join("expected.parquet");
    std::fs::copy(&expected, place.partition(DATE).join("part-0.snappy.parquet"))?;
    expect_readable(&place.output(), &expected)?;
    if let Some(done) = check_script(&place.output(), &other.dir.join("expected.parquet"))? {
        assert!(!done.status.success());
    }
    std::fs::write(place.partition(DATE).join("_SUCCESS"), "done")?;
    if let Some(done) = check_script(&place.output(), &expected)? {
        assert!(!done.status.success());
    }
    Ok(())
}
