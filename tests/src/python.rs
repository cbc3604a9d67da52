//! The Python that has DuckDB, PyArrow and Polars, and the scripts under `tests/readers` that use them. Not here: its
//! setup, which `tests/run` does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::harness::Missing;
use crate::rows::Row;
use crate::table;

/// `TALLY_PYTHON`, else the virtual environment that `tests/run` makes in the target folder.
///
/// # Errors
/// [`Missing`] if there is neither.
pub fn python() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TALLY_PYTHON").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let found =
        test.ancestors().map(|folder| folder.join("test-venv/bin/python")).find(|path| path.is_file());
    let missing = "no TALLY_PYTHON and no test-venv in the target folder; `tests/run` makes one";
    Ok(found.ok_or_else(|| Missing(missing.into()))?)
}

/// A program that is installed beside that Python.
///
/// # Errors
/// [`Missing`] if it is not there.
pub fn beside_python(name: &str) -> Result<PathBuf> {
    let path = python()?.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Missing(format!("no {name} beside the tests' Python; `tests/run` sets it up")).into())
}

/// Runs `tests/readers/SCRIPT`.
///
/// # Errors
/// [`Missing`] if there is no Python.
pub fn run_script(script: &str, args: &[&OsStr]) -> Result<Output> {
    let mut command = script_command(script)?;
    command.args(args).output().with_context(|| format!("starting {command:?}"))
}

/// The command that runs `tests/readers/SCRIPT`.
///
/// # Errors
/// As [`run_script`].
pub fn script_command(script: &str) -> Result<Command> {
    let mut command = Command::new(python()?);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("readers").join(script));
    Ok(command)
}

/// The expected output of the day of `date` under `root`, as DuckDB computes it by `tests/readers/reference.py`;
/// sorted. The file `out` is written for this.
///
/// # Errors
/// [`Missing`] if there is no Python; DuckDB cannot read the day.
pub fn expected_by_duckdb(root: &Path, date: &str, out: &Path) -> Result<Vec<Row>> {
    let done = run_script("reference.py", &[root.as_ref(), date.as_ref(), out.as_ref()])?;
    ensure!(done.status.success(), "reference.py: {}", String::from_utf8_lossy(&done.stderr));
    table::read_aggregates(out)
}
