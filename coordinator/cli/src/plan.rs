//! `tally plan`: the plan of a day or of a range of days, without running it: files, bytes, rows, shards, and an estimated time.
//!
//! Not here: how a day is planned (`tally_coordinator::plan`).

use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use tally_common::counts::counted;
use tally_common::runtime::block_on;
use tally_coordinator::job::JobSpec;
use tally_coordinator::plan::listing::ListError;
use tally_coordinator::plan::{self, InputPlan, MapTask, PlanError};
use tally_coordinator::summary::{bytes, grouped};
use tally_dataset::Dataset;
use tally_scan::footer::Footers;

use crate::connect::runtime;
use crate::dates::{DateRange, RangeArgs};
use crate::job_args::{DateArgs, WorkArgs};
use crate::output::{OutputFormat, columns, json, plain};
use crate::{Stop, say, size};

/// Memory for footers.
const FOOTER_BYTES: usize = 64 << 20;

const HELP: &str = "The command reads names and footers of the input files, as a job does. It does not read rows, does not look at the
output, writes nothing and needs no coordinator. Rows of small files in object stores are unknown (-): workers read
their footers.

The estimated time is the bytes of needed columns, divided by --rate and by the number of threads (or of shards, if
those are fewer). The default rate is about that of a day of 111 million clients that was not in the page cache. To use
your own rate, divide the bytes read of a job's summary by its time and threads.

Examples:
  One day:
    export TALLY_ADDONS=day/addons/v2 TALLY_MAIN_SUMMARY=day/main_summary/v3 TALLY_OUTPUT=aggregates
    tally plan --date 20170227
  Two days on a cluster with 32 slots:
    tally plan --from 20170226 --to 20170227 --threads 32";

/// Arguments of `tally plan`.
#[derive(Debug, Args)]
#[command(mut_arg("date", |arg| arg.conflicts_with_all(["from", "to"])), after_help = HELP)]
pub struct PlanArgs {
    #[command(flatten)]
    date: DateArgs,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    work: WorkArgs,
    /// Number of threads for which to plan, or of slots of all workers of a cluster [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Bytes of needed columns that a thread processes in a second, for the estimated time
    #[arg(long, value_name = "SIZE", default_value = "150MB", value_parser = size::parse)]
    rate: u64,
    /// Output format of the plan
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// The state of a planned day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum PlanState {
    /// A job can start.
    Ready,
    /// An input does not have the day.
    NoInputs,
    /// The inputs cannot be read.
    Failed,
}

impl PlanState {
    fn name(self) -> &'static str {
        match self {
            PlanState::Ready => "ready",
            PlanState::NoInputs => "no inputs",
            PlanState::Failed => "failed",
        }
    }
}

/// A planned day.
#[derive(Debug, Serialize)]
struct PlannedDay {
    date: String,
    state: PlanState,
    files: usize,
    /// Bytes of needed columns.
    bytes: u64,
    /// Unknown if workers read footers.
    rows: Option<u64>,
    shards: usize,
    partitions: u32,
    estimated_seconds: f64,
    warnings: Vec<String>,
    reason: Option<String>,
}

/// The speed that the estimated time assumes.
#[derive(Debug, Clone, Copy, Serialize)]
struct Speed {
    threads: usize,
    /// Bytes of needed columns in a second, on a thread.
    bytes_per_thread_second: u64,
}

impl Speed {
    /// The seconds for that many bytes in that many shards.
    fn seconds(self, bytes: u64, shards: usize) -> f64 {
        let busy = self.threads.min(shards).max(1);
        bytes as f64 / (self.bytes_per_thread_second.max(1) as f64 * busy as f64)
    }
}

/// Runs the command.
pub(crate) fn main(args: &PlanArgs) -> Result<(), Stop> {
    let range = match args.range.range()? {
        Some(range) => range,
        None => DateRange::one(args.date.date()?),
    };
    let jobs = range.dates().map(|date| args.work.here(date)).collect::<Result<Vec<JobSpec>, Stop>>()?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or_else(cores, usize::from);
    let speed = Speed { threads, bytes_per_thread_second: args.rate };
    let dataset = match jobs.first() {
        Some(job) => job.configured().map_err(|e| Stop::Usage(e.to_string()))?,
        None => args.work.place()?.dataset,
    };
    let footers = Arc::new(Footers::new(FOOTER_BYTES));
    let days = block_on(&runtime()?, async {
        let mut days = vec![];
        for job in &jobs {
            days.push(plan_day(job, &*dataset, &footers, speed).await);
        }
        days
    });
    match args.output_format {
        OutputFormat::Json => say(&report(&days, speed)?)?,
        OutputFormat::Table => {
            say(&table(&days, speed))?;
            let warnings = days.iter().flat_map(|day| day.warnings.iter().map(move |text| (&day.date, text)));
            warnings.for_each(|(date, text)| eprintln!("warning: {date}: {}", plain(text)));
        }
    }
    let problems: Vec<String> = days.iter().filter_map(PlannedDay::problem).collect();
    match problems.len() {
        0 => Ok(()),
        n => {
            let (all, lines) = (counted(days.len(), "day"), problems.join("\n  "));
            Err(Stop::Failed(format!("{n} of {all} cannot be computed:\n  {lines}")))
        }
    }
}

async fn plan_day(job: &JobSpec, dataset: &dyn Dataset, footers: &Arc<Footers>, speed: Speed) -> PlannedDay {
    let planned = plan::plan(job, dataset, footers, speed.threads, true, false).await;
    let (state, reason) = match &planned {
        Ok(_) => (PlanState::Ready, None),
        Err(error @ PlanError::List(ListError::Nothing { .. })) => {
            (PlanState::NoInputs, Some(error.to_string()))
        }
        Err(error) => (PlanState::Failed, Some(error.to_string())),
    };
    let InputPlan { tasks, partitions, files, rows, bytes, warnings, .. } = planned.unwrap_or_default();
    PlannedDay {
        date: job.date.clone(),
        state,
        files,
        bytes,
        rows: (state == PlanState::Ready && !tasks.iter().any(MapTask::is_deferred)).then_some(rows),
        shards: tasks.len(),
        partitions,
        estimated_seconds: speed.seconds(bytes, tasks.len()),
        warnings,
        reason,
    }
}

impl PlannedDay {
    fn problem(&self) -> Option<String> {
        self.reason.as_ref().map(|reason| format!("{}: {}", self.date, plain(reason)))
    }

    fn row(&self) -> [String; 7] {
        let ready = self.state == PlanState::Ready;
        let known = |text: String| if ready { text } else { "-".into() };
        [
            self.date.clone(),
            self.state.name().into(),
            known(grouped(self.files as u64)),
            known(bytes(self.bytes)),
            self.rows.map_or_else(|| "-".into(), grouped),
            known(grouped(self.shards as u64)),
            known(about(self.estimated_seconds)),
        ]
    }
}

/// All days in a line of JSON.
fn report(days: &[PlannedDay], speed: Speed) -> Result<String, Stop> {
    #[derive(Serialize)]
    struct Report<'a> {
        days: &'a [PlannedDay],
        estimated_seconds: f64,
        estimated_from: Speed,
    }
    json(&Report { days, estimated_seconds: total(days), estimated_from: speed })
}

/// The seconds of all days, one after another.
fn total(days: &[PlannedDay]) -> f64 {
    days.iter().map(|day| day.estimated_seconds).sum()
}

/// All days as a table, with the estimated time of all of them.
fn table(days: &[PlannedDay], speed: Speed) -> String {
    let head = ["DATE", "STATE", "FILES", "NEEDED BYTES", "ROWS", "SHARDS", "TIME"].map(String::from);
    let rows: Vec<_> = std::iter::once(head).chain(days.iter().map(PlannedDay::row)).collect();
    let Speed { threads, bytes_per_thread_second } = speed;
    format!(
        "{}\nestimated time, one day after another: {} ({} of needed columns per second and thread, {})\n",
        columns(&rows),
        about(total(days)),
        bytes(bytes_per_thread_second),
        counted(threads, "thread")
    )
}

/// An estimated time.
fn about(seconds: f64) -> String {
    match seconds {
        ..1.0 => "< 1 s".into(),
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimated_time_follows_from_bytes_threads_and_shards() {
        let speed = Speed { threads: 4, bytes_per_thread_second: 100 };
        assert_eq!(speed.seconds(4000, 8), 10.0);
        assert_eq!(speed.seconds(4000, 2), 20.0);
        assert_eq!(speed.seconds(0, 0), 0.0);
        let texts = [0.2, 3.4, 119.0, 120.0, 7199.0, 9000.0].map(about);
        assert_eq!(texts, ["< 1 s", "3 s", "119 s", "2 min", "120 min", "2.5 h"]);
    }

    /// The default of `--rate` is the rate of the largest day that was measured.
    #[test]
    fn the_default_rate_is_the_measured_one() {
        let recorded = include_str!("../../../tests/bench/results/recorded.json");
        let recorded: serde_json::Value = serde_json::from_str(recorded).unwrap();
        let original = &recorded["original"];
        let [bytes, seconds] = ["needed_bytes", "seconds"].map(|name| original[name].as_f64().unwrap());
        assert!(original["how"].as_str().unwrap().contains("not in the page cache, 2 threads"));
        let measured = bytes / seconds / 2.0;
        let rate = size::parse("150MB").unwrap() as f64;
        assert!((0.8..=1.0).contains(&(rate / measured)), "{rate} of {measured}");
    }

    #[test]
    fn days_that_cannot_be_computed_have_no_figures() {
        let speed = Speed { threads: 2, bytes_per_thread_second: 150_000_000 };
        let ready = PlannedDay {
            date: "20170226".into(),
            state: PlanState::Ready,
            files: 3,
            bytes: 3_000_000_000,
            rows: Some(1234),
            shards: 5,
            partitions: 100,
            estimated_seconds: 10.0,
            warnings: vec![],
            reason: None,
        };
        let reason = Some("addons: no data files".to_string());
        let missing = PlannedDay {
            date: "20170227".into(),
            state: PlanState::NoInputs,
            files: 0,
            bytes: 0,
            rows: None,
            shards: 0,
            partitions: 0,
            estimated_seconds: 0.0,
            warnings: vec![],
            reason,
        };
        assert_eq!(missing.problem().unwrap(), "20170227: addons: no data files");
        let text = table(&[ready, missing], speed);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("1,234  5       10 s"), "{text}");
        assert_eq!(
            lines[2].split_whitespace().collect::<Vec<_>>(),
            ["20170227", "no", "inputs", "-", "-", "-", "-", "-"]
        );
        assert!(lines[4].contains("another: 10 s (143.1 MiB of needed"), "{text}");
    }
}
