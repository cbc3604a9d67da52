//! The `tally` command: one module per subcommand. `embedded` runs coordinator and workers in this process.
//!
//! Results are written to standard output, everything else to standard error. [`EXIT_CODES`] are part of the interface.
//! Not here: the worker's process (`tally-worker`).

mod backfill;
mod cancel;
mod connect;
mod coordinator;
mod dates;
mod day_results;
mod days;
mod demo;
mod demo_place;
mod embedded;
mod follow;
mod gc;
mod generate;
mod job;
mod job_args;
mod jobs;
mod logs;
mod objectives;
mod output;
mod plan;
mod progress;
mod run;
mod show;
mod show_detail;
mod submit;
mod table_args;
mod wait;
mod watch;
mod workers;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tally_common::config::{self, SettingsError};
use tally_common::logging::{self, LogFormat};
use tally_common::{duration, memory, open_files, secrets, size};
use tally_dataset::registry::{self, Constructor};

/// The job failed.
pub const FAILED: u8 = 1;
/// The arguments are invalid.
pub const USAGE: u8 = 2;
/// The job was cancelled.
pub const CANCELLED: u8 = 3;
/// The job, or its start, took longer than `--timeout`.
pub const TIMED_OUT: u8 = 4;
/// No leading coordinator was found.
pub const NO_LEADER: u8 = 5;
/// The coordinator stopped because another one leads.
pub const DEPOSED: u8 = 20;
/// Interrupted by the user.
pub const INTERRUPTED: u8 = 130;

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes:
    0  done
    1  the job failed, or the coordinator refused
    2  invalid arguments
    3  the job was cancelled
    4  --timeout expired
    5  no leading coordinator was found
   20  the coordinator stopped because another one leads
  130  interrupted; a job of a cluster continues";

/// Exact distinct counts over a day of Parquet telemetry.
#[derive(Debug, Parser)]
#[command(name = "tally", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    /// Log filter, for example `info` or `tally=debug`; logs are written to standard error
    #[arg(long, global = true, env = "TALLY_LOG", default_value = "warn")]
    log: String,
    /// Format of log lines
    #[arg(long, global = true, value_enum, env = "TALLY_LOG_FORMAT", default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compute a day of a dataset in this process
    Run(run::RunArgs),
    /// Compute the days of a range: one job per day, in this process or on a cluster
    Backfill(backfill::BackfillArgs),
    /// Show which days inputs and output have: missing days, and days with late data
    Days(days::DaysArgs),
    /// Show the plan of a day or a range: files, bytes, rows, shards, estimated time; runs nothing
    Plan(plan::PlanArgs),
    /// Run a coordinator: it plans jobs, dispatches tasks to workers and publishes days
    Coordinator(coordinator::CoordinatorArgs),
    /// Generate a synthetic day, and the totals of a correct result
    Generate(generate::GenerateArgs),
    /// Generate a small day, run the job over it, and show the result
    Demo(demo::DemoArgs),
    /// Submit a job to a cluster and wait for its result
    Submit(submit::SubmitArgs),
    /// List a cluster's jobs
    Jobs(jobs::JobsArgs),
    /// Show one job: stages, running tasks and what they wait for, failures, where the time went
    Job(job::JobArgs),
    /// Show what happened in a job
    Logs(logs::LogsArgs),
    /// Wait for the end of a job
    Wait(wait::WaitArgs),
    /// Cancel a job
    Cancel(cancel::CancelArgs),
    /// Remove what dead jobs left at an output in an object store
    Gc(gc::GcArgs),
    /// List a cluster's workers
    Workers(workers::WorkersArgs),
    /// Act on one worker
    #[command(subcommand)]
    Worker(workers::WorkerCommand),
}

/// Why a command ended without a result.
#[derive(Debug)]
enum Stop {
    /// Invalid arguments.
    Usage(String),
    /// It failed.
    Failed(String),
    /// Another coordinator leads; the text names it.
    Deposed(String),
    /// The user interrupted it.
    Interrupted,
    /// The user interrupted the wait; the text describes what continues, or what is left to do.
    Detached(String),
    /// The job was cancelled.
    Cancelled(String),
    /// The timeout expired.
    TimedOut(String),
    /// No leading coordinator was found.
    NoLeader(String),
}

impl Stop {
    /// The message for standard error, and the exit code.
    fn report(self) -> (String, u8) {
        match self {
            Stop::Usage(why) => (format!("error: {why}\n\nFor more information, try '--help'."), USAGE),
            Stop::Failed(why) => (format!("error: {why}"), FAILED),
            Stop::Interrupted => ("interrupted: the output is unchanged".into(), INTERRUPTED),
            Stop::Detached(why) => (format!("interrupted: {why}"), INTERRUPTED),
            Stop::Cancelled(why) => (format!("cancelled: {why}"), CANCELLED),
            Stop::TimedOut(why) => (format!("timed out: {why}"), TIMED_OUT),
            Stop::NoLeader(why) => (format!("error: {why}"), NO_LEADER),
            Stop::Deposed(why) => (format!("error: another coordinator leads: {why}"), DEPOSED),
        }
    }
}

/// The command with all of its options.
fn command() -> clap::Command {
    let option = || config::option("TALLY_COORDINATOR_CONFIG");
    Cli::command().mut_subcommand("coordinator", |serve| serve.arg(option()))
}

/// The arguments; those of a coordinator may also come from a file.
fn parse() -> Result<Cli, SettingsError> {
    let argv: Vec<_> = std::env::args_os().collect();
    Ok(Cli::from_arg_matches(&config::parse(command(), Some("coordinator"), &argv)?)?)
}

/// Parses the arguments, runs the command with these datasets, and returns its exit code.
pub fn main(datasets: &'static [Constructor]) -> ExitCode {
    registry::install(datasets);
    memory::keep_freed_memory();
    secrets::register_environment();
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Err(error) = logging::to_stderr(&cli.log, cli.log_format) {
        eprintln!("error: {error}");
        return ExitCode::from(USAGE);
    }
    open_files::raise_limit();
    let done = match cli.command {
        Command::Run(args) => run::main(&args),
        Command::Backfill(args) => backfill::main(&args),
        Command::Days(args) => days::main(&args),
        Command::Plan(args) => plan::main(&args),
        Command::Coordinator(args) => coordinator::main(&args),
        Command::Generate(args) => generate::main(&args),
        Command::Demo(args) => demo::main(&args),
        Command::Submit(args) => submit::main(&args),
        Command::Jobs(args) => jobs::main(&args),
        Command::Job(args) => job::main(&args),
        Command::Logs(args) => logs::main(&args),
        Command::Wait(args) => wait::main(&args),
        Command::Cancel(args) => cancel::main(&args),
        Command::Gc(args) => gc::main(&args),
        Command::Workers(args) => workers::main(&args),
        Command::Worker(command) => workers::worker(&command),
    };
    let Err(stop) = done else { return ExitCode::SUCCESS };
    let (text, code) = stop.report();
    eprintln!("{}", secrets::cut(&text));
    ExitCode::from(code)
}

/// Writes to standard output. It is no error if the reader closed it early.
fn say(text: &str) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    match out.write_all(secrets::cut_output(text).as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Stop::Failed(format!("standard output cannot be written: {e}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_taken_from_the_first_source_that_has_it() {
        tally_tests::settings::check_layers(
            "tests::every_option_is_taken_from_the_first_source_that_has_it",
            command,
            Some("coordinator"),
            |command, argv| config::parse(command, Some("coordinator"), argv).map_err(|e| e.to_string()),
        );
    }
}
