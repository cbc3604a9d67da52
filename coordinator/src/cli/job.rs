//! `tally job ID`: one job, whatever its state.

use clap::Args;

use super::connect::{ConnectArgs, runtime};
use super::output::OutputFormat;
use super::{Stop, say, show};

/// Arguments of `tally job`.
#[derive(Debug, Args)]
pub struct JobIdArgs {
    /// The job's id, as `submit` and `jobs` print it
    #[arg(value_name = "ID")]
    pub(super) id: String,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    /// How the status is printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    pub(super) output_format: OutputFormat,
}

/// Runs the command.
pub(super) fn main(args: &JobIdArgs) -> Result<(), Stop> {
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let job = runtime()?.block_on(client.job(&args.id))?;
    say(&show::job(&job, args.output_format)?)
}
