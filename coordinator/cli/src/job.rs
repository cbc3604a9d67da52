//! `tally job ID`: shows one job in any state. Not here: its format (`show`, `show_detail`).

use clap::Args;
use tally_common::runtime::block_on;
use tally_coordinator::client::is_over;
use tally_proto::v1::JobStatus;

use crate::connect::{ConnectArgs, runtime};
use crate::output::OutputFormat;
use crate::watch::{self, Shown};
use crate::{Stop, show};

/// Arguments of `tally job`.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The job's id, an unambiguous prefix of it, or `latest`
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Show the job until it ends: redraw each second on a terminal, otherwise print each change
    #[arg(long)]
    watch: bool,
    /// Output format of the status
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs the command.
pub(crate) fn main(args: &JobArgs) -> Result<(), Stop> {
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    let mut id = args.id.clone();
    block_on(
        &runtime()?,
        watch::show(args.watch, async || {
            let job = client.job(&id).await?;
            // `latest` may be another job later.
            id.clone_from(&job.job);
            let text = show::job(&job, args.output_format)?;
            Ok(Shown { text, key: key(&job), last: is_over(job.state()) })
        }),
    )
}

/// What changes of a job besides times and amounts.
fn key(job: &JobStatus) -> String {
    let detail = job.detail.as_ref();
    let running = detail.into_iter().flat_map(|detail| &detail.running);
    let running: Vec<_> = running
        .map(|task| (&task.stage, task.index, task.attempt, &task.waits_for, task.silent_millis.is_some()))
        .collect();
    let incidents = detail.and_then(|detail| detail.incidents.last()).map(|event| event.number);
    format!("{:?} {} {:?} {running:?} {incidents:?}", job.state(), job.phase, job.stages)
}
