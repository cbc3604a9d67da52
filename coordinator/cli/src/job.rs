//! `tally job ID`: shows one job in any state. Not here: its format (`show`).

use clap::Args;
use tally_common::runtime::block_on;

use crate::connect::{ConnectArgs, runtime};
use crate::output::OutputFormat;
use crate::{Stop, say, show};

/// Arguments of `tally job`.
#[derive(Debug, Args)]
pub struct JobIdArgs {
    /// The job's id, as `submit` and `jobs` print it
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    /// Output format of the status
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    pub(crate) output_format: OutputFormat,
}

/// Runs the command.
pub(crate) fn main(args: &JobIdArgs) -> Result<(), Stop> {
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let job = block_on(&runtime()?, client.job(&args.id))?;
    say(&show::job(&job, args.output_format)?)
}
