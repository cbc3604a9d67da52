//! The `tally` command: arguments in, exit code out.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 the
//! job failed, 2 wrong usage, 130 interrupted.

mod demo;
mod generate;
mod objectives;
mod progress;
mod run;
mod size;

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// The job failed.
pub const FAILED: u8 = 1;
/// The arguments make no sense together.
pub const USAGE: u8 = 2;
/// Interrupted by the user.
pub const INTERRUPTED: u8 = 130;

/// Exact distinct counts over a day of Parquet telemetry.
#[derive(Debug, Parser)]
#[command(name = "tally", version, propagate_version = true)]
struct Cli {
    /// What to log on standard error, for example `info` or `tally_worker=debug`
    #[arg(long, global = true, env = "TALLY_LOG", default_value = "warn")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn a day of telemetry into addon_aggregates, in this process
    Run(run::RunArgs),
    /// Write a synthetic day, and the totals that a right result must have
    Generate(generate::GenerateArgs),
    /// Generate a small day, run the job over it, and show the result
    Demo(demo::DemoArgs),
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
enum Stop {
    /// Arguments that make no sense.
    Usage(String),
    /// It was tried, and failed.
    Failed(String),
    /// The user wanted it to end.
    Interrupted,
}

/// Parses the arguments, runs the command, gives its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = log_to_stderr(&cli.log) {
        eprintln!("error: {error}");
        return ExitCode::from(USAGE);
    }
    let done = match cli.command {
        Command::Run(args) => run::main(&args),
        Command::Generate(args) => generate::main(&args),
        Command::Demo(args) => demo::main(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Usage(message)) => {
            eprintln!("error: {message}\n\nFor more information, try '--help'.");
            ExitCode::from(USAGE)
        }
        Err(Stop::Failed(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(FAILED)
        }
        Err(Stop::Interrupted) => {
            eprintln!("interrupted: the output is as it was");
            ExitCode::from(INTERRUPTED)
        }
    }
}

/// Writes to standard output. Whoever closed it early has seen enough.
fn say(text: &str) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Stop::Failed(format!("standard output cannot be written: {e}")))
        }
        _ => Ok(()),
    }
}

fn log_to_stderr(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("--log {filter}: {e}"))?;
    let terminal = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    let log = log.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).with_target(false);
    log.try_init().map_err(|e| e.to_string())
}
