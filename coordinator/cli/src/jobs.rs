//! `tally jobs`: lists all jobs of the leader, newest first. Not here: the format (`show`).

use clap::Args;
use tally_common::runtime::block_on;
use tally_proto::v1::JobStatus;

use crate::connect::{ConnectArgs, runtime};
use crate::output::OutputFormat;
use crate::watch::{self, Shown};
use crate::{Stop, show};

/// Arguments of `tally jobs`.
#[derive(Debug, Args)]
pub struct JobsArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Show the list until Ctrl-C: redraw each second on a terminal, otherwise print each change
    #[arg(long)]
    watch: bool,
    /// Output format of the list
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs the command.
pub(crate) fn main(args: &JobsArgs) -> Result<(), Stop> {
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    block_on(
        &runtime()?,
        watch::show(args.watch, async || {
            let jobs = client.jobs().await?;
            let doing = |job: &JobStatus| (job.job.clone(), show::doing(job));
            let key = format!("{:?}", jobs.iter().map(doing).collect::<Vec<_>>());
            Ok(Shown { text: show::jobs(&jobs, args.output_format)?, key, last: false })
        }),
    )
}
