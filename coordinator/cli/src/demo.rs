//! `tally demo`: generates a synthetic day, runs the job in this process or on a cluster, and shows the
//! result.
//!
//! Not here: where the files are stored (`demo_place`), what is counted (`tally_dataset`).

use clap::Args;
use serde::Serialize;
use tally_common::counts::counted;
use tally_common::runtime::block_on;
use tally_coordinator::dates::date_folder;
use tally_coordinator::job::{Cut, JobSpec};
use tally_coordinator::job_id::new_id;
use tally_coordinator::objectives::day::{self, FoundDay};
use tally_coordinator::summary::Summary;
use tally_dataset::Dataset;
use tally_dataset::addon_aggregates::{self, AddonAggregates, PARTITION_COLUMN};
use tally_generate::Options;
use tally_proto::dataset_options::DatasetOptions;
use tally_proto::v1;

use crate::connect::{ConnectArgs, runtime};
use crate::demo_place::Place;
use crate::generate::generated;
use crate::output::{OutputFormat, columns, json};
use crate::run::{ResourceArgs, run};
use crate::{Stop, report, say, submit};

const DATE: &str = "20170227";
/// Folders of the tables and of the result.
const DAY: &str = "telemetry";
const OUTPUT: &str = "addon_aggregates";

/// Arguments of `tally demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder for the day and its result: a path, or an s3://, gs:// or az:// URL; it must not exist
    /// [default: a new folder tally-demo-N in the current one]
    #[arg(long, value_name = "URL")]
    dir: Option<String>,
    /// Number of clients
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    clients: u64,
    #[command(flatten)]
    resources: ResourceArgs,
    /// Run the job on a cluster; its workers must have access to --dir
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Remove the folder after success
    #[arg(long)]
    remove: bool,
    /// Output format of the result
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// The result in JSON.
#[derive(Serialize)]
struct Report<'a> {
    day: String,
    output: String,
    summary: &'a Summary,
}

/// Runs the command.
pub(crate) fn main(args: &DemoArgs) -> Result<(), Stop> {
    let resources = args.resources.check()?;
    if ConnectArgs::is_named() && !args.cluster {
        return Err(Stop::Usage("--coordinator and --consul need --cluster".into()));
    }
    let mut place = Place::new(args.dir.as_deref(), &resources.spill_dir)?;
    if args.cluster {
        place = place.absolute()?;
    }
    let shown = place.name("");
    let table = args.output_format == OutputFormat::Table;
    let tell = |text: &str| if table { say(text) } else { Ok(()) };
    tell(&format!("Generating a day of {} in {shown} ...\n", counted(args.clients, "client")))?;
    let options =
        Options { output: place.files(DAY), clients: args.clients, date: DATE.into(), ..Options::default() };
    let totals = generated(&options, args.output_format)?;
    place.put(DAY)?;
    tell(&format!(
        "{}, {}\n\n",
        counted(totals.main_summary_rows, "ping"),
        counted(totals.addons_rows, "add-on row")
    ))?;
    let input = |name: &str| place.name(&format!("{DAY}/{name}"));
    let job = JobSpec {
        id: new_id(DATE).map_err(|e| Stop::Failed(e.to_string()))?,
        dataset: addon_aggregates::NAME.into(),
        date: DATE.into(),
        day_folder: date_folder(PARTITION_COLUMN, DATE),
        inputs: vec![input("addons/v2"), input("main_summary/v3")],
        output: place.name(OUTPUT),
        target_file_size: 280_000_000,
        expectations: vec![],
        ready_marker: None,
        options: DatasetOptions::default(),
        cut: Cut::default(),
    };
    let summary = match args.cluster {
        true => submit::there(&args.connect, &v1::JobSpec::from(&job))?,
        false => run(job, &resources, drop)?,
    };
    tell(&summary.table())?;
    let right = [totals.rows, totals.n_clients, totals.n_custom_theme_clients];
    let total = |name| summary.totals.get(name).unwrap_or_default();
    if [summary.rows, total("n_clients"), total("n_custom_theme_clients")] != right {
        return Err(Stop::Failed(format!("the result is wrong: the generator's totals are {right:?}")));
    }
    if table {
        show_objectives(&place.name(OUTPUT), &date_folder(PARTITION_COLUMN, DATE))?;
    } else {
        let (day, output) = (place.name(DAY), place.name(OUTPUT));
        say(&json(&Report { day, output, summary: &summary })?)?;
    }
    match (args.remove, table) {
        (true, _) => place.remove(),
        (false, true) => how_to_read(&place.name(OUTPUT)),
        (false, false) => Ok(()),
    }
}

/// Shows the figures that have goals.
fn show_objectives(output: &str, folder: &str) -> Result<(), Stop> {
    let dataset = AddonAggregates::new();
    let found = block_on(&runtime()?, day::read(&dataset, output, folder));
    let FoundDay::Objectives(day) = found.map_err(|e| Stop::Failed(e.to_string()))? else {
        return Err(Stop::Failed(format!("{output}/{folder} does not state its objectives")));
    };
    let figures = dataset.objectives().map(|spec| spec.figures).unwrap_or_default();
    let rows: Vec<_> = figures
        .iter()
        .filter(|figure| figure.goal_percent.is_some())
        .map(|figure| [format!("  {}", figure.title), report::shown(figure, day.counts.figure(figure.value))])
        .collect();
    say(&format!(
        "\nThe result matches the generator's totals. The day in three objectives:\n\n{}",
        columns(&rows)
    ))
}

fn how_to_read(output: &str) -> Result<(), Stop> {
    say("\nRead it with DuckDB:\n\n")?;
    say(&format!(
        "  select foreign_install, count(distinct client_id), avg(count)\n  from read_parquet('{output}/*/*.parquet', hive_partitioning = true) group by 1;\n"
    ))?;
    say(&format!("\nor with Spark:\n\n  spark.read.parquet(\"{output}\").printSchema()\n"))
}
