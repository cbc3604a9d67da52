//! `tally jobs`: all jobs that the leader knows, newest first.

use clap::Args;

use super::connect::{ConnectArgs, runtime};
use super::output::OutputFormat;
use super::{Stop, say, show};

/// Arguments of `tally jobs`.
#[derive(Debug, Args)]
pub struct JobsArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs the command.
pub(super) fn main(args: &JobsArgs) -> Result<(), Stop> {
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let jobs = runtime()?.block_on(client.jobs())?;
    say(&show::jobs(&jobs, args.output_format)?)
}
