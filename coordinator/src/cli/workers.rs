//! `tally workers` and `tally worker drain ID`: who works for the leader, and who should stop to.

use clap::{Args, Subcommand};

use super::connect::{ConnectArgs, runtime};
use super::output::OutputFormat;
use super::{Stop, say, show};

/// Arguments of `tally workers`.
#[derive(Debug, Args)]
pub struct WorkersArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// What can be done with one worker.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Let a worker go: it gets no more tasks, hands over what is needed, and ends
    Drain(DrainArgs),
}

/// Arguments of `tally worker drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The worker's id, as `workers` prints it
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    connect: ConnectArgs,
    /// How the worker's status is printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs `tally workers`.
pub(super) fn main(args: &WorkersArgs) -> Result<(), Stop> {
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let workers = runtime()?.block_on(client.workers())?;
    say(&show::workers(&workers, args.output_format)?)
}

/// Runs `tally worker drain`.
pub(super) fn worker(command: &WorkerCommand) -> Result<(), Stop> {
    let WorkerCommand::Drain(args) = command;
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let worker = runtime()?.block_on(client.drain(&args.id))?;
    say(&show::worker(&worker, args.output_format)?)
}
