//! The `tally` command: arguments in, exit code out.
//!
//! Results go to standard output, everything else to standard error. Exit codes: [`EXIT_CODES`].

mod cancel;
mod connect;
mod coordinator;
mod demo;
mod demo_place;
mod follow;
mod gc;
mod generate;
mod job;
mod job_args;
mod jobs;
mod objectives;
mod output;
mod progress;
mod run;
mod show;
mod submit;
mod workers;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tally_worker::config::{self, SettingsError};
use tally_worker::logging::{self, LogFormat};
use tally_worker::{duration, size};

/// The job failed.
pub const FAILED: u8 = 1;
/// The arguments make no sense together.
pub const USAGE: u8 = 2;
/// The job was cancelled.
pub const CANCELLED: u8 = 3;
/// The job, or its start, took longer than `--timeout`.
pub const TIMED_OUT: u8 = 4;
/// No coordinator that leads was found.
pub const NO_LEADER: u8 = 5;
/// A coordinator stopped because another one leads.
pub const DEPOSED: u8 = 20;
/// Interrupted by the user.
pub const INTERRUPTED: u8 = 130;

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes:
    0  done
    1  the job failed, or the coordinator refused
    2  wrong usage
    3  the job was cancelled
    4  --timeout is over
    5  no coordinator that leads was found
   20  a coordinator stopped: another one leads
  130  interrupted; a job of a cluster goes on";

/// Exact distinct counts over a day of Parquet telemetry.
#[derive(Debug, Parser)]
#[command(name = "tally", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    /// What to log on standard error, for example `info` or `tally_worker=debug`
    #[arg(long, global = true, env = "TALLY_LOG", default_value = "warn")]
    log: String,
    /// How log lines look
    #[arg(long, global = true, value_enum, env = "TALLY_LOG_FORMAT", default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn a day of telemetry into addon_aggregates, in this process
    Run(run::RunArgs),
    /// Serve: plan jobs, drive workers, publish days
    Coordinator(coordinator::CoordinatorArgs),
    /// Write a synthetic day, and the totals that a right result must have
    Generate(generate::GenerateArgs),
    /// Generate a small day, run the job over it, and show the result
    Demo(demo::DemoArgs),
    /// Hand the job to a cluster, wait for its end and exit with its result
    Submit(submit::SubmitArgs),
    /// List a cluster's jobs
    Jobs(jobs::JobsArgs),
    /// Show one job
    Job(job::JobIdArgs),
    /// Cancel a job
    Cancel(job::JobIdArgs),
    /// Remove what jobs that died left of an output in an object store
    Gc(gc::GcArgs),
    /// List a cluster's workers
    Workers(workers::WorkersArgs),
    /// Act on one worker
    #[command(subcommand)]
    Worker(workers::WorkerCommand),
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
enum Stop {
    /// Arguments that make no sense.
    Usage(String),
    /// It was tried, and failed.
    Failed(String),
    /// Another coordinator leads, as this says.
    Deposed(String),
    /// The user wanted it to end.
    Interrupted,
    /// The user does not wait for it; what goes on.
    Detached(String),
    /// Somebody cancelled the job.
    Cancelled(String),
    /// It took longer than it was given.
    TimedOut(String),
    /// There is nobody to ask.
    NoLeader(String),
}

impl Stop {
    /// The sentence for standard error, and the exit code.
    fn report(self) -> (String, u8) {
        match self {
            Stop::Usage(why) => (format!("error: {why}\n\nFor more information, try '--help'."), USAGE),
            Stop::Failed(why) => (format!("error: {why}"), FAILED),
            Stop::Interrupted => ("interrupted: the output is as it was".into(), INTERRUPTED),
            Stop::Detached(why) => (format!("interrupted: {why}"), INTERRUPTED),
            Stop::Cancelled(why) => (format!("cancelled: {why}"), CANCELLED),
            Stop::TimedOut(why) => (format!("timed out: {why}"), TIMED_OUT),
            Stop::NoLeader(why) => (format!("error: {why}"), NO_LEADER),
            Stop::Deposed(why) => (format!("error: another coordinator leads: {why}"), DEPOSED),
        }
    }
}

/// The arguments; a coordinator's may come from a file, too.
fn parse() -> Result<Cli, SettingsError> {
    let option = || config::option("TALLY_COORDINATOR_CONFIG");
    let command = Cli::command().mut_subcommand("coordinator", |serve| serve.arg(option()));
    let argv: Vec<_> = std::env::args_os().collect();
    Ok(Cli::from_arg_matches(&config::parse(command, Some("coordinator"), &argv)?)?)
}

/// Parses the arguments, runs the command, gives its exit code.
pub fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Err(error) = logging::to_stderr(&cli.log, cli.log_format) {
        eprintln!("error: {error}");
        return ExitCode::from(USAGE);
    }
    let done = match cli.command {
        Command::Run(args) => run::main(&args),
        Command::Coordinator(args) => coordinator::main(&args),
        Command::Generate(args) => generate::main(&args),
        Command::Demo(args) => demo::main(&args),
        Command::Submit(args) => submit::main(&args),
        Command::Jobs(args) => jobs::main(&args),
        Command::Job(args) => job::main(&args),
        Command::Cancel(args) => cancel::main(&args),
        Command::Gc(args) => gc::main(&args),
        Command::Workers(args) => workers::main(&args),
        Command::Worker(command) => workers::worker(&command),
    };
    let Err(stop) = done else { return ExitCode::SUCCESS };
    let (text, code) = stop.report();
    eprintln!("{text}");
    ExitCode::from(code)
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
