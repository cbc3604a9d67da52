//! `tally days`: which days the inputs and the output have, which are missing, and which outputs are older than their inputs.
//!
//! Not here: the state of a day (`tally_coordinator::plan::days`).

use clap::Args;
use serde::Serialize;
use tally_common::runtime::block_on;
use tally_coordinator::dates::date_text;
use tally_coordinator::plan::days::{Dates, Day, DayFolder, DayState};
use tally_coordinator::summary::{bytes, grouped};
use tally_coordinator::view::time;
use tally_dataset::Dataset;

use crate::connect::runtime;
use crate::dataset_args::{DatasetArgs, DatasetPlace};
use crate::dates::{DateRange, RangeArgs};
use crate::output::{OutputFormat, columns, json, plain};
use crate::{Stop, say};

const HELP: &str = "States:
  published   the output has the day, and its inputs are not newer
  outdated    an input file was modified after the job of the day was submitted (late data)
  missing     all inputs have the day, and the output does not
  no inputs   an input does not have the day, and neither does the output (in JSON: no_inputs)
  unreadable  a folder of the day cannot be listed

Examples:
  All days from the first to the last one that exists:
    export TALLY_ADDONS=day/addons/v2 TALLY_MAIN_SUMMARY=day/main_summary/v3 TALLY_OUTPUT=aggregates
    tally days
  The days of a month, as JSON:
    tally days --from 20170201 --to 20170228 --output-format json";

/// Arguments of `tally days`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct DaysArgs {
    #[command(flatten)]
    place: DatasetArgs,
    #[command(flatten)]
    range: RangeArgs,
    /// Output format of the list
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// Runs the command.
pub(crate) fn main(args: &DaysArgs) -> Result<(), Stop> {
    let place = args.place.place()?;
    let range = args.range.range()?;
    let roots = place.roots();
    let days = block_on(&runtime()?, async {
        let dates = roots.dates().await.map_err(|e| Stop::Failed(e.to_string()))?;
        warn_of_roots_without_days(&place, &dates);
        let Some(range) = range.map_or_else(|| whole(&dates), |range| Ok(Some(range)))? else {
            return Ok(vec![]);
        };
        Ok::<_, Stop>(roots.days(&dates, range.dates()).await)
    })?;
    match args.output_format {
        OutputFormat::Json => say(&json(&Report::new(&place, &days))?),
        OutputFormat::Table => say(&table(&*place.dataset, &days)),
    }
}

/// From the first to the last date that exists.
fn whole(dates: &Dates) -> Result<Option<DateRange>, Stop> {
    let range = dates.span().map(|(first, last)| DateRange::new(first, last));
    range.transpose().map_err(|e| Stop::Usage(e.to_string()))
}

/// A mistyped root looks like an input without days.
fn warn_of_roots_without_days(place: &DatasetPlace, dates: &Dates) {
    let column = place.dataset.partition_column();
    for ((table, url), dates) in place.dataset.tables().iter().zip(&place.inputs).zip(&dates.inputs) {
        if dates.is_empty() {
            let name = table.name;
            eprintln!(
                "warning: {name}: there is no {column}=YYYYMMDD folder under {url}: is it the table's root?"
            );
        }
    }
}

/// The list in JSON.
#[derive(Serialize)]
struct Report<'a> {
    dataset: &'a str,
    output: &'a str,
    days: Vec<DayReport<'a>>,
}

#[derive(Serialize)]
struct DayReport<'a> {
    date: String,
    state: &'static str,
    inputs: Vec<InputReport<'a>>,
    output: OutputReport,
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct InputReport<'a> {
    table: &'a str,
    files: usize,
    bytes: u64,
    newest: Option<String>,
}

#[derive(Serialize)]
struct OutputReport {
    files: usize,
    bytes: u64,
    as_of: Option<String>,
}

/// The time of a folder.
fn time_of(folder: Option<&DayFolder>) -> Option<String> {
    time(u64::try_from(folder?.time.timestamp_millis()).ok()?)
}

/// Files and bytes of a folder.
fn extent(folder: Option<&DayFolder>) -> (usize, u64) {
    folder.map_or((0, 0), |folder| (folder.files, folder.bytes))
}

impl<'a> Report<'a> {
    fn new(place: &'a DatasetPlace, days: &'a [Day]) -> Self {
        let day = |day: &'a Day| {
            let inputs = place.dataset.tables().iter().zip(&day.inputs).map(|(table, input)| {
                let (files, bytes) = extent(input.as_ref());
                InputReport { table: table.name, files, bytes, newest: time_of(input.as_ref()) }
            });
            let (files, bytes) = extent(day.output.as_ref());
            DayReport {
                date: date_text(day.date),
                state: day.state().name(),
                inputs: inputs.collect(),
                output: OutputReport { files, bytes, as_of: time_of(day.output.as_ref()) },
                reason: day.problem.as_deref(),
            }
        };
        let days = days.iter().map(day).collect();
        Report { dataset: place.dataset.name(), output: &place.output, days }
    }
}

/// The list as a table, with the number of days in each state.
fn table(dataset: &dyn Dataset, days: &[Day]) -> String {
    let head = [
        "DATE",
        "STATE",
        "INPUT FILES",
        "INPUT BYTES",
        "NEWEST INPUT",
        "OUTPUT FILES",
        "OUTPUT AS OF",
        "NOTE",
    ];
    let missing = || "-".to_string();
    let row = |day: &Day| {
        let sizes = day.inputs.iter().map(|input| extent(input.as_ref()));
        let (files, input_bytes) = sizes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        let newest = day.inputs.iter().flatten().max_by_key(|input| input.time);
        let without = dataset.tables().iter().zip(&day.inputs).filter(|(_, input)| input.is_none());
        let without: Vec<&str> = without.map(|(table, _)| table.name).collect();
        let note = match (&day.problem, without.is_empty()) {
            (Some(problem), _) => plain(problem),
            (None, true) => String::new(),
            (None, false) => format!("no {}", without.join(", no ")),
        };
        let output = day.output.as_ref();
        [
            date_text(day.date),
            day.state().name().replace('_', " "),
            grouped(files as u64),
            bytes(input_bytes),
            time_of(newest).unwrap_or_else(missing),
            output.map_or_else(missing, |output| grouped(output.files as u64)),
            time_of(output).unwrap_or_else(missing),
            note,
        ]
    };
    let rows: Vec<_> = std::iter::once(head.map(String::from)).chain(days.iter().map(row)).collect();
    format!("{}\n{}", columns(&rows), counts(days))
}

/// The number of days in each state.
fn counts(days: &[Day]) -> String {
    use DayState::{Missing, NoInputs, Outdated, Published, Unreadable};
    let count = |state: DayState| {
        let number = days.iter().filter(|day| day.state() == state).count();
        (number > 0).then(|| format!("{} {}", grouped(number as u64), state.name().replace('_', " ")))
    };
    let counts: Vec<String> =
        [Published, Outdated, Missing, NoInputs, Unreadable].into_iter().filter_map(count).collect();
    if counts.is_empty() { "no days\n".into() } else { format!("{}\n", counts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use tally_coordinator::dates::parse_date;
    use tally_dataset::addon_aggregates::AddonAggregates;

    use super::*;

    #[test]
    fn the_table_shows_what_is_missing_and_counts_states() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let folder = |seconds| Some(DayFolder { files: 2, bytes: 1024, time: at(seconds) });
        let day = |date, inputs: [Option<DayFolder>; 2], output| Day {
            date: parse_date(date).unwrap(),
            inputs: inputs.to_vec(),
            output,
            problem: None,
        };
        let days = [
            day("20170225", [folder(1_488_153_600), folder(5)], folder(1_488_153_601)),
            day("20170226", [folder(9), None], None),
            day("20170227", [folder(9), folder(7)], folder(8)),
        ];
        let text = table(&AddonAggregates::new(), &days);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("published") && lines[1].contains("2017-02-27T00:00:00.000Z"), "{text}");
        assert!(lines[2].contains("no inputs") && lines[2].ends_with("no main_summary"), "{text}");
        assert!(lines[3].contains("outdated") && lines[3].contains("4  "), "{text}");
        assert_eq!(lines[5], "1 published, 1 outdated, 1 no inputs");
        assert_eq!(counts(&[]), "no days\n");
    }
}
