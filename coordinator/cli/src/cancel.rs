//! `tally cancel ID`: cancels a job. Not here: waiting for its end.

use clap::Args;
use tally_common::runtime::block_on;

use crate::connect::{ConnectArgs, runtime};
use crate::output::OutputFormat;
use crate::{Stop, say, show};

/// Arguments of `tally cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The job's id, an unambiguous prefix of it, or `latest`
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Output format of the status
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs the command.
pub(crate) fn main(args: &CancelArgs) -> Result<(), Stop> {
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let job = block_on(&runtime()?, client.cancel(&args.id))?;
    show::cancelled(&job)?;
    say(&show::job(&job, args.output_format)?)
}
