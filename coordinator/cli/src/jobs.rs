//! `tally jobs`: lists all jobs of the leader, newest first. Not here: the format (`show`).

use clap::Args;
use tally_common::runtime::block_on;

use crate::connect::{ConnectArgs, runtime};
use crate::output::OutputFormat;
use crate::{Stop, say, show};

/// Arguments of `tally jobs`.
#[derive(Debug, Args)]
pub struct JobsArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Output format of the list
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs the command.
pub(crate) fn main(args: &JobsArgs) -> Result<(), Stop> {
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let jobs = block_on(&runtime()?, client.jobs())?;
    say(&show::jobs(&jobs, args.output_format)?)
}
