//! `tally report`: the objectives of the days of a range, their change against a baseline and against the goals, as a
//! table, as JSON and as a page.
//!
//! Not here: reading days (`tally_coordinator::objectives`), the JSON (`view`), what figures mean (`tally_dataset`).

mod chart;
mod figures;
mod page;
#[cfg(test)]
#[path = "../../../src/objectives/sample_report.rs"]
mod sample_report;
mod text;

use std::path::PathBuf;

use chrono::NaiveDate;
use clap::Args;
use tally_common::runtime::block_on;
use tally_common::secrets;
use tally_coordinator::dates::date_text;
use tally_coordinator::objectives::report::{Report, State};
use tally_coordinator::view;

use crate::connect::runtime;
use crate::dataset_args::OutputArgs;
use crate::dates::{self, RangeArgs};
use crate::output::{OutputFormat, json as line_of_json};
use crate::{Stop, say};
pub(crate) use figures::shown;

const HELP: &str = "States of days (in JSON):
  published           the day has objectives
  without_objectives  an earlier release of Tally or another program wrote the day
  missing             the output does not have the day
  unreadable          the day cannot be read; the command exits with 1

Examples:
  The objectives of a week, against its first day:
    tally report --output aggregates --from 20170227 --to 20170305
  A month against the last day of the year before, as a page with plots:
    tally report --output s3://bucket/aggregates --from 20170201 --to 20170228 --baseline 20161231 --html report.html";

/// Arguments of `tally report`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct ReportArgs {
    #[command(flatten)]
    place: OutputArgs,
    #[command(flatten)]
    range: RangeArgs,
    /// The day that changes and goals refer to [default: the first day of the range]
    #[arg(long, value_name = "YYYYMMDD", value_parser = dates::parse)]
    baseline: Option<NaiveDate>,
    /// Write a page with plots to this file, too; it needs no other file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Output format of the report
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs the command.
pub(crate) fn main(args: &ReportArgs) -> Result<(), Stop> {
    let (dataset, output) = args.place.place()?;
    let wanted: Vec<NaiveDate> = args.range.required()?.dates().collect();
    let baseline = args.baseline.unwrap_or(wanted[0]);
    let report = block_on(&runtime()?, Report::read(&*dataset, &output, &wanted, baseline))
        .map_err(|why| Stop::Usage(format!("--dataset: {why}")))?;
    if !matches!(report.baseline.state, State::Published(_)) {
        let (date, state) = (date_text(report.baseline.date), report.baseline.state.describe());
        eprintln!("warning: the baseline {date} is {state}: changes are not shown; give another --baseline");
    }
    if let Some(file) = &args.html {
        let page = page::page(&report);
        std::fs::write(file, secrets::cut_output(&page).as_bytes())
            .map_err(|e| Stop::Failed(format!("--html {}: {e}", file.display())))?;
    }
    match args.output_format {
        OutputFormat::Json => say(&line_of_json(&view::Report::from(&report))?),
        OutputFormat::Table => say(&text::tables(&report)),
    }?;
    let all = report.days.iter().chain([&report.baseline]);
    let mut unreadable = all.filter_map(|day| match &day.state {
        State::Unreadable(why) => Some(format!("{}: {why}", date_text(day.date))),
        _ => None,
    });
    unreadable.next().map_or(Ok(()), |why| Err(Stop::Failed(why)))
}
