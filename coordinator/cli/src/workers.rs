//! `tally workers` lists the leader's workers, `tally worker drain ID` drains one. Not here: the format (`show`).

use clap::{Args, Subcommand};
use tally_common::runtime::block_on;

use crate::connect::{ConnectArgs, runtime};
use crate::output::OutputFormat;
use crate::{Stop, examples, say, show};

/// Arguments of `tally workers`.
#[derive(Debug, Args)]
pub struct WorkersArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Output format of the list
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Commands for one worker.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Drain a worker: it gets no new tasks, migrates its outputs to other workers, and exits
    #[command(after_help = examples::DRAIN)]
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
    /// Output format of the worker's status
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs `tally workers`.
pub(crate) fn main(args: &WorkersArgs) -> Result<(), Stop> {
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let workers = block_on(&runtime()?, client.workers())?;
    say(&show::workers(&workers, args.output_format)?)
}

/// Runs `tally worker drain`.
pub(crate) fn worker(command: &WorkerCommand) -> Result<(), Stop> {
    let WorkerCommand::Drain(args) = command;
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let worker = block_on(&runtime()?, client.drain(&args.id))?;
    say(&show::worker(&worker, args.output_format)?)
}
