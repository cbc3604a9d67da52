//! The `tally` command: one module per subcommand. `embedded` runs coordinator and workers in this process.
//!
//! Results are written to standard output, everything else to standard error. [`EXIT_CODES`] are part of the interface.
//! Not here: the worker's process (`tally-worker`).

mod audit_args;
mod backfill;
mod cancel;
mod command_line;
mod completions;
mod connect;
mod coordinator;
mod dataset_args;
mod datasets;
mod dates;
mod day_results;
mod days;
mod demo;
mod demo_place;
mod diff;
mod embedded;
mod examples;
mod failure;
mod follow;
mod gc;
mod generate;
mod job;
mod job_args;
mod jobs;
mod logs;
mod man;
mod notify_args;
mod option_args;
mod output;
mod plan;
mod progress;
mod report;
mod run;
mod show;
mod show_detail;
mod submit;
mod table_args;
mod top;
mod verify;
mod wait;
mod watch;
mod workers;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::event::{PollFd, PollFlags, Timespec};
use tally_common::logging::{self, LogFormat};
use tally_common::{duration, memory, open_files, secrets, size, stores};
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
/// The day does not meet an expectation.
pub const UNMET: u8 = 6;
/// A published day cannot be read.
pub const UNREADABLE: u8 = 7;
/// The coordinator stopped because another one leads.
pub const DEPOSED: u8 = 20;
/// Interrupted by the user.
pub const INTERRUPTED: u8 = 130;

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes:
    0  done
    1  the job failed, or the coordinator refused; verify: the day was changed; diff: the days differ
    2  invalid arguments
    3  the job was cancelled
    4  --timeout expired
    5  no leading coordinator was found
    6  the day does not meet an expectation, so it is not published
    7  a published day cannot be read (verify, diff)
   20  the coordinator stopped because another one leads
  130  interrupted; a job of a cluster continues";

/// Exact distinct counts over a day of Parquet telemetry.
#[derive(Debug, Parser)]
#[command(name = "tally", version = command_line::VERSION, propagate_version = true, after_help = command_line::help())]
struct Cli {
    /// Log filter, for example `info` or `tally=debug`; logs are written to standard error
    #[arg(long, global = true, help_heading = command_line::GLOBAL, default_value = "warn")]
    log: String,
    /// Format of log lines
    #[arg(long, global = true, help_heading = command_line::GLOBAL, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compute a day of a dataset in this process
    #[command(after_help = examples::RUN)]
    Run(run::RunArgs),
    /// Compute the days of a range: one job per day, in this process or on a cluster
    Backfill(backfill::BackfillArgs),
    /// List the datasets: meaning, inputs, options, output columns
    Datasets(datasets::DatasetsArgs),
    /// Show which days inputs and output have: missing days, and days with late data
    Days(days::DaysArgs),
    /// Show the plan of a day or a range: files, bytes, rows, shards, estimated time; runs nothing
    Plan(plan::PlanArgs),
    /// Report the objectives of a range of days: values, changes and goals, as tables, JSON or a page
    Report(report::ReportArgs),
    /// Verify that a published day is what its job published
    Verify(verify::VerifyArgs),
    /// Compare two published days
    Diff(diff::DiffArgs),
    /// Run a coordinator: it plans jobs, dispatches tasks to workers and publishes days
    #[command(after_help = examples::COORDINATOR)]
    Coordinator(coordinator::CoordinatorArgs),
    /// Generate a synthetic day, and the totals of a correct result
    Generate(generate::GenerateArgs),
    /// Generate a small day, run the job over it, and show the result
    #[command(after_help = examples::DEMO)]
    Demo(demo::DemoArgs),
    /// Submit a job to a cluster and wait for its result
    Submit(submit::SubmitArgs),
    /// List a cluster's jobs
    #[command(after_help = examples::JOBS)]
    Jobs(jobs::JobsArgs),
    /// Show jobs and workers of a cluster live, on the whole screen of a terminal
    #[command(after_help = examples::TOP)]
    Top(top::TopArgs),
    /// Show one job: stages, running tasks and what they wait for, failures, where the time went
    #[command(after_help = examples::JOB)]
    Job(job::JobArgs),
    /// Show what happened in a job
    #[command(after_help = examples::LOGS)]
    Logs(logs::LogsArgs),
    /// Wait for the end of a job
    #[command(after_help = examples::WAIT)]
    Wait(wait::WaitArgs),
    /// Cancel a job
    #[command(after_help = examples::CANCEL)]
    Cancel(cancel::CancelArgs),
    /// Remove what dead jobs left at an output in an object store
    #[command(after_help = examples::GC)]
    Gc(gc::GcArgs),
    /// List a cluster's workers
    #[command(after_help = examples::WORKERS)]
    Workers(workers::WorkersArgs),
    /// Act on one worker
    #[command(subcommand)]
    Worker(workers::WorkerCommand),
    /// Print a shell's completions of commands and options
    Completions(completions::CompletionsArgs),
    /// Write a manual page per command
    Man(man::ManArgs),
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
    /// The day does not meet an expectation.
    Unmet(String),
    /// A published day cannot be read.
    Unreadable(String),
}

/// Parses the arguments, runs the command with these datasets, and returns its exit code.
pub fn main(datasets: &'static [Constructor]) -> ExitCode {
    registry::install(datasets);
    memory::keep_freed_memory();
    secrets::register_environment();
    let (cli, format) = match command_line::parse() {
        Ok(parsed) => parsed,
        Err(error) => return failure::invalid(error),
    };
    if let Err(error) = logging::to_stderr(&cli.log, command_line::log_format(&cli, format)) {
        return failure::report(Stop::Usage(error.to_string()), format);
    }
    open_files::raise_limit();
    if !matches!(cli.command, Command::Coordinator(_)) {
        stores::fail_fast();
    }
    let done = match cli.command {
        Command::Run(args) => run::main(&args),
        Command::Backfill(args) => backfill::main(&args),
        Command::Datasets(args) => datasets::main(&args),
        Command::Days(args) => days::main(&args),
        Command::Plan(args) => plan::main(&args),
        Command::Report(args) => report::main(&args),
        Command::Verify(args) => verify::main(&args),
        Command::Diff(args) => diff::main(&args),
        Command::Coordinator(args) => coordinator::main(&args),
        Command::Generate(args) => generate::main(&args),
        Command::Demo(args) => demo::main(&args),
        Command::Submit(args) => submit::main(&args),
        Command::Jobs(args) => jobs::main(&args),
        Command::Top(args) => top::main(&args),
        Command::Job(args) => job::main(&args),
        Command::Logs(args) => logs::main(&args),
        Command::Wait(args) => wait::main(&args),
        Command::Cancel(args) => cancel::main(&args),
        Command::Gc(args) => gc::main(&args),
        Command::Workers(args) => workers::main(&args),
        Command::Worker(command) => workers::worker(&command),
        Command::Completions(args) => completions::main(&args),
        Command::Man(args) => man::main(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => failure::report(stop, format),
    }
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

/// Whether no process reads standard output any more; false for files and terminals. A command that waits for changes writes
/// nothing, so no write shows it.
fn unread() -> bool {
    let out = std::io::stdout();
    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    let asked = rustix::event::poll(&mut polled, Some(&Timespec::default()));
    asked.is_ok() && polled.iter().any(|fd| fd.revents().contains(PollFlags::ERR))
}
