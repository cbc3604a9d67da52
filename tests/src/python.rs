//! The Python that has DuckDB, PyArrow and Polars, and the scripts under `tests/readers` that use them. Not here:
//! setting it up, which `tests/run` does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};

use crate::process::strict;

/// `TALLY_PYTHON`, else the virtual environment that `tests/run` makes in the target folder.
fn python() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TALLY_PYTHON") {
        return Some(path.into());
    }
    let test = std::env::current_exe().ok()?;
    test.ancestors().map(|folder| folder.join("test-venv/bin/python")).find(|path| path.is_file())
}

/// A program that was installed beside that Python.
pub fn beside_python(name: &str) -> Option<PathBuf> {
    Some(python()?.parent()?.join(name)).filter(|path| path.is_file())
}

/// Runs `tests/readers/SCRIPT`; nothing, with a printed reason, where there is no Python.
///
/// # Panics
/// Where there is no Python and `tests/run` asked for strictness.
pub fn run_script(script: &str, args: &[&OsStr]) -> Result<Option<Output>> {
    let Some(mut command) = script_command(script) else { return Ok(None) };
    Ok(Some(command.args(args).output().with_context(|| format!("starting {command:?}"))?))
}

/// The command that runs `tests/readers/SCRIPT`.
///
/// # Panics
/// As [`run_script`].
pub fn script_command(script: &str) -> Option<Command> {
    let Some(python) = python() else {
        assert!(
            !strict(),
            "no Python with the readers: neither TALLY_PYTHON nor test-venv in the target folder"
        );
        println!("passed over: no TALLY_PYTHON, and tests/run has made no test-venv");
        return None;
    };
    let mut command = Command::new(&python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("readers").join(script));
    Some(command)
}
