//! `tally wait JOB`: waits for the end of a job, and exits as `tally submit` does. Not here: the exit codes (`submit`).

use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use tally_common::runtime::block_on;

use crate::connect::{ConnectArgs, runtime};
use crate::follow::Display;
use crate::output::OutputFormat;
use crate::submit::{after, continues, end_signals, finish};
use crate::{Stop, duration};

/// Arguments of `tally wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The job's id, an unambiguous prefix of it, or `latest`
    #[arg(value_name = "JOB")]
    job: String,
    #[command(flatten)]
    connect: ConnectArgs,
    /// How long to wait for the job's end; the job continues after that
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Output format of the summary
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs the command.
pub(crate) fn main(args: &WaitArgs) -> Result<(), Stop> {
    block_on(&runtime()?, wait(args))
}

async fn wait(args: &WaitArgs) -> Result<(), Stop> {
    let display = Rc::new(Display::new(args.output_format));
    let notices = display.clone();
    let mut client = args.connect.client(move |text| notices.note(text))?;
    let mut interrupts = end_signals()?;
    let mut job = args.job.clone();
    let ended = async {
        job = client.job(&args.job).await?.job;
        client.follow(&job, |status| display.show(status)).await
    };
    let late = tokio::select! {
        status = ended => return finish(&status?, args.output_format),
        () = interrupts.next() => None,
        () = after(args.timeout) => args.timeout,
    };
    let text = continues(&job);
    Err(match late {
        Some(limit) => Stop::TimedOut(format!("the job did not end within {limit:?}; {text}")),
        None => Stop::Detached(text),
    })
}
