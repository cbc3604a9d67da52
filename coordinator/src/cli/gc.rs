//! `tally gc`: what jobs that died left of an output in an object store: open uploads, records, and
//! decisions to publish that nobody carried out.
//!
//! Not here: outputs on files, whose next job removes what is left.

use std::time::Duration;

use chrono::TimeDelta;
use clap::Args;
use serde::Serialize;

use super::output::{OutputFormat, json};
use super::{Stop, duration, say};
use crate::publish::objects::{Swept, sweep};

/// Arguments of `tally gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Root of the output: an s3://, gs:// or az:// URL
    #[arg(long, value_name = "URL")]
    output: String,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Leave alone what is younger: it may be a job's that lives
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse)]
    older_than: Duration,
    /// How the result is printed
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
pub(super) fn main(args: &GcArgs) -> Result<(), Stop> {
    let age = TimeDelta::from_std(args.older_than)
        .map_err(|_| Stop::Usage("--older-than is longer than time is reckoned".into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Stop::Failed(format!("the runtime cannot be started: {e}")))?;
    let swept = runtime.block_on(sweep(&args.output, age, args.dry_run));
    let swept = swept.map_err(|e| Stop::Failed(e.to_string()))?;
    match args.output_format {
        OutputFormat::Json => say(&json(&Report { dry_run: args.dry_run, swept: &swept })?),
        OutputFormat::Table => say(&table(&swept, args.dry_run)),
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
    if text.is_empty() { "nothing is left over\n".into() } else { text }
}
