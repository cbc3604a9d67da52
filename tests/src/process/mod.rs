//! Runs the built `tally` binary as a user does: as a process, with flags, an exit code, and one JSON object on
//! standard output. Not here: its end (`outcome`), and the expected output of the job.

mod outcome;
mod running;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::output::Place;
use crate::secrets;
pub use outcome::{Outcome, StageSummary, Summary};
pub use running::Running;

/// Timeout after which a run counts as hung.
const DEADLINE: Duration = Duration::from_secs(180);
/// The names of a process's outputs.
const OUTPUTS: [&str; 2] = ["standard output", "standard error"];

/// The binary under test: `TALLY_BIN`, else the `tally` in a folder above the running test, where `cargo build
/// --release` puts it.
///
/// # Panics
/// There is no binary; the message tells how to build it.
pub fn tally_bin() -> PathBuf {
    if let Some(path) = std::env::var_os("TALLY_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "TALLY_BIN is {}, which is no file", path.display());
        return path;
    }
    let test = std::env::current_exe().unwrap_or_default();
    let found = test.ancestors().skip(1).map(|folder| folder.join("tally")).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "no tally binary above {}: build it first with `cargo build --release -p tally`, \
             run all tests with `tests/run`, or name one in TALLY_BIN",
            test.display()
        )
    })
}

/// A command line for the binary, for a single run.
#[derive(Debug)]
pub struct Tally {
    command: Command,
    deadline: Duration,
}

impl Tally {
    /// `tally SUBCOMMAND`, with nothing in the environment that would change its defaults.
    pub fn new(subcommand: &str) -> Self {
        Self::wrapped(&tally_bin(), [OsStr::new(subcommand)])
    }

    /// Another program that finally runs the binary.
    pub fn wrapped(program: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(program);
        clean(&mut command);
        command.args(args);
        Self { command, deadline: DEADLINE }
    }

    /// `tally run` over the day under `root` (`addons/v2` and `main_summary/v3`) into `place`, with JSON output and
    /// no date: add one with [`Tally::date`].
    pub fn job(root: &Path, place: &Place) -> Self {
        Self::new("run").args(job_args(root, &place.output(), &place.spill()))
    }

    /// Adds `--date`.
    pub fn date(self, date: &str) -> Self {
        self.args(["--date", date])
    }

    /// Adds flags.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        secrets::register_variable(name.as_ref(), value.as_ref());
        self.command.env(name, value);
        self
    }

    /// Runs the command to its end.
    pub fn run(self) -> Result<Outcome> {
        self.spawn()?.wait()
    }

    /// Starts the command.
    pub fn spawn(self) -> Result<Running> {
        Running::start(self.command, self.deadline)
    }
}

impl From<Command> for Tally {
    /// A command that is set up in another way.
    fn from(command: Command) -> Self {
        Self { command, deadline: DEADLINE }
    }
}

/// Removes from a command's environment what would change the defaults of the programs under test.
pub fn clean(command: &mut Command) {
    let ours = |name: &OsStr| {
        let name = name.to_string_lossy();
        ["TALLY_", "AWS_", "AZURE_", "AZURITE_", "GOOGLE_", "OTEL_"].iter().any(|ours| name.starts_with(ours))
            || name == "date"
            || name == "bucket"
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
}

/// The flags of `tally run` for the day under `root`.
pub fn job_args(root: &Path, output: &Path, spill: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    for (flag, path) in [
        ("--addons", root.join("addons/v2")),
        ("--main-summary", root.join("main_summary/v3")),
        ("--output", output.to_path_buf()),
        ("--spill-dir", spill.to_path_buf()),
    ] {
        args.extend([flag.into(), path.into_os_string()]);
    }
    args.extend(["--output-format".into(), "json".into()]);
    args
}

/// The outcome of a process that was started in any other way, with both outputs captured; they are searched for secrets.
///
/// # Errors
/// It does not start, or prints a secret.
pub fn output(mut command: Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    for (name, text) in OUTPUTS.into_iter().zip([&output.stdout, &output.stderr]) {
        secrets::check(name, &String::from_utf8_lossy(text))?;
    }
    Ok(output)
}
