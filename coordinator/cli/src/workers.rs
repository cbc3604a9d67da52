//! `tally workers` lists the leader's workers, `tally worker drain ID` drains one. Not here: the format (`show`).

use clap::{Args, Subcommand};
use tally_common::runtime::block_on;
use tally_proto::v1::WorkerStatus;

use crate::connect::{ConnectArgs, runtime};
use crate::output::OutputFormat;
use crate::watch::{self, Shown};
use crate::{Stop, examples, say, show};

/// Arguments of `tally workers`.
#[derive(Debug, Args)]
pub struct WorkersArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Show the list until Ctrl-C: redraw each second on a terminal, otherwise print each change
    #[arg(long)]
    watch: bool,
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
    block_on(
        &runtime()?,
        watch::show(args.watch, async || {
            let workers = client.workers().await?;
            let state = |worker: &WorkerStatus| {
                (worker.worker.clone(), worker.state.clone(), worker.silent, worker.running)
            };
            let key = format!("{:?}", workers.iter().map(state).collect::<Vec<_>>());
            Ok(Shown { text: show::workers(&workers, args.output_format)?, key, last: false })
        }),
    )
}

/// Runs `tally worker drain`.
pub(crate) fn worker(command: &WorkerCommand) -> Result<(), Stop> {
    let WorkerCommand::Drain(args) = command;
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let worker = block_on(&runtime()?, client.drain(&args.id))?;
    say(&show::worker(&worker, args.output_format)?)
}
