//! `tally logs JOB`: the events of a job. Not here: their format (`show_detail`), which events there are (the coordinator).

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tally_common::runtime::block_on;
use tally_coordinator::view::Event;
use tally_proto::v1::EventPage;
use tokio::time::sleep;

use crate::connect::{ConnectArgs, runtime};
use crate::output::{OutputFormat, json};
use crate::show_detail::line;
use crate::{Stop, say, unread};

/// Between two requests for new events.
const INTERVAL: Duration = Duration::from_millis(500);

/// Arguments of `tally logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The job's id, an unambiguous prefix of it, or `latest`
    #[arg(value_name = "JOB")]
    job: String,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Print new events until the job ends
    #[arg(long, short)]
    follow: bool,
    /// Output format: lines of text, or one line of JSON per event
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

#[derive(Serialize)]
struct Logged<'a> {
    job_id: &'a str,
    #[serde(flatten)]
    event: Event<'a>,
}

fn text(page: &EventPage, format: OutputFormat) -> Result<String, Stop> {
    let lines = page.events.iter().map(|event| match format {
        OutputFormat::Table => Ok(line(event) + "\n"),
        OutputFormat::Json => json(&Logged { job_id: &page.job, event: event.into() }),
    });
    lines.collect()
}

/// Runs the command.
pub(crate) fn main(args: &LogsArgs) -> Result<(), Stop> {
    let mut client = args.connect.client(|text| eprintln!("{text}"))?;
    block_on(&runtime()?, async {
        let mut page = client.events(&args.job, 0).await?;
        if page.left_out > 0 {
            eprintln!("{} events of attempts and workers are left out", page.left_out);
        }
        let mut last = 0;
        loop {
            say(&text(&page, args.output_format)?)?;
            last = page.events.last().map_or(last, |event| event.number);
            if page.over || !args.follow || unread() {
                return Ok(());
            }
            sleep(INTERVAL).await;
            // The id, because `latest` may be another job by now.
            let job = std::mem::take(&mut page.job);
            page = client.events(&job, last).await?;
        }
    })
}
