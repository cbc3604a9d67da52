//! `tally gc`: removes what dead jobs left at an output in an object store: open uploads, records, and
//! decisions to publish that were not carried out.
//!
//! Not here: outputs in local folders, which the next job cleans up.

use std::time::Duration;

use chrono::TimeDelta;
use clap::Args;
use serde::Serialize;
use tally_common::counts::counted;
use tally_common::runtime::block_on;
use tally_coordinator::publish::sweep::{Swept, sweep};

use crate::output::{OutputFormat, json};
use crate::{Stop, duration, say};

/// Arguments of `tally gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Root of the output: an s3://, gs:// or az:// URL
    #[arg(long, value_name = "URL")]
    output: String,
    /// Show what would be done, without doing it
    #[arg(long)]
    dry_run: bool,
    /// Minimum age of what is removed or carried out: younger objects may belong to a running job
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse)]
    older_than: Duration,
    /// Output format of the result
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

#[derive(Serialize)]
struct Report<'a> {
    dry_run: bool,
    #[serde(flatten)]
    swept: &'a Swept,
}

/// Runs the command.
pub(crate) fn main(args: &GcArgs) -> Result<(), Stop> {
    let age =
        TimeDelta::from_std(args.older_than).map_err(|_| Stop::Usage("--older-than is too long".into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Stop::Failed(format!("the runtime cannot be started: {e}")))?;
    let swept = block_on(&runtime, sweep(&args.output, age, args.dry_run));
    let swept = swept.map_err(|e| Stop::Failed(e.to_string()))?;
    match args.output_format {
        OutputFormat::Json => say(&json(&Report { dry_run: args.dry_run, swept: &swept })?),
        OutputFormat::Table => say(&table(&swept, args.dry_run)),
    }?;
    match swept.failed.len() {
        0 => Ok(()),
        failed => Err(Stop::Failed(format!(
            "{} could not be handled:\n  {}",
            counted(failed, "object"),
            swept.failed.join("\n  ")
        ))),
    }
}

fn table(swept: &Swept, dry_run: bool) -> String {
    let (carried, removed) = if dry_run { ("to carry out", "to remove") } else { ("carried out", "removed") };
    let lines = |what: &str, found: &[String]| -> String {
        found.iter().map(|name| format!("{what}  {name}\n")).collect()
    };
    let text = lines(&format!("decision {carried}"), &swept.decisions)
        + &lines(&format!("upload {removed}"), &swept.uploads)
        + &lines(&format!("record {removed}"), &swept.records);
    if text.is_empty() && swept.failed.is_empty() { "nothing is left over\n".into() } else { text }
}
