//! `tally demo`: generates a synthetic day, runs the job in this process or on a cluster, and shows the
//! result.
//!
//! Not here: where the files are stored (`demo_place`), the figures (`objectives`).

use std::path::Path;

use clap::Args;
use tally_coordinator::job::{Cut, JobSpec, date_folder, new_id};
use tally_coordinator::summary::grouped;
use tally_dataset::addon_aggregates::{self, PARTITION_COLUMN};
use tally_generate::Options;
use tally_proto::v1;

use crate::connect::ConnectArgs;
use crate::demo_place::Place;
use crate::run::{ResourceArgs, run};
use crate::{Stop, objectives, say, submit};

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
    #[arg(long, requires = "dir")]
    cluster: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Remove the folder after success
    #[arg(long)]
    remove: bool,
}

/// Runs the command.
pub(crate) fn main(args: &DemoArgs) -> Result<(), Stop> {
    let resources = args.resources.check()?;
    if args.connect.is_named() && !args.cluster {
        return Err(Stop::Usage("--coordinator and --consul need --cluster".into()));
    }
    let mut place = Place::new(args.dir.as_deref(), &resources.spill_dir)?;
    if args.cluster {
        place = place.absolute()?;
    }
    let shown = place.name("");
    say(&format!("Generating {} clients' day of telemetry in {shown} ...\n", grouped(args.clients)))?;
    let options =
        Options { output: place.files(DAY), clients: args.clients, date: DATE.into(), ..Options::default() };
    options.validate().map_err(|e| Stop::Usage(e.to_string()))?;
    let totals = tally_generate::generate(&options, &|_| ()).map_err(|e| Stop::Failed(e.to_string()))?;
    place.put(DAY)?;
    say(&format!(
        "{} pings, {} add-on rows\n\n",
        grouped(totals.main_summary_rows),
        grouped(totals.addons_rows)
    ))?;
    let table = |name: &str| place.name(&format!("{DAY}/{name}"));
    let job = JobSpec {
        id: new_id(DATE).map_err(|e| Stop::Failed(e.to_string()))?,
        dataset: addon_aggregates::NAME.into(),
        date: DATE.into(),
        day_folder: date_folder(PARTITION_COLUMN, DATE),
        inputs: vec![table("addons/v2"), table("main_summary/v3")],
        output: place.name(OUTPUT),
        target_file_size: 280_000_000,
        expectations: vec![],
        cut: Cut::default(),
    };
    let summary = match args.cluster {
        true => submit::there(&args.connect, &v1::JobSpec::from(&job))?,
        false => run(job, &resources)?,
    };
    say(&summary.table())?;
    let right = [totals.rows, totals.n_clients, totals.n_custom_theme_clients];
    let total = |name| summary.totals.get(name).unwrap_or_default();
    if [summary.rows, total("n_clients"), total("n_custom_theme_clients")] != right {
        return Err(Stop::Failed(format!("the result is wrong: the generator's totals are {right:?}")));
    }
    let day = format!("{OUTPUT}/{}", date_folder(PARTITION_COLUMN, DATE));
    place.fetch(&day)?;
    show_objectives(&place.files(&day))?;
    if args.remove {
        return place.remove();
    }
    how_to_read(&place.name(OUTPUT))
}

fn show_objectives(day: &Path) -> Result<(), Stop> {
    let figures = objectives::read(day).map_err(|e| Stop::Failed(e.to_string()))?;
    let share = |part: u64| 100.0 * part as f64 / figures.clients.max(1) as f64;
    say("\nThe result matches the generator's totals. The day in three objectives:\n\n")?;
    say(&format!(
        "  clients who installed an add-on themselves       {:>9}  ({:.1} % of those with add-ons)\n",
        grouped(figures.self_installed),
        share(figures.self_installed)
    ))?;
    say(&format!("  add-ons a client with add-ons, on average        {:>9.2}\n", figures.addons_per_client))?;
    say(&format!(
        "  clients whose first add-on came within 14 days   {:>9}  ({:.1} %)\n",
        grouped(figures.early),
        share(figures.early)
    ))?;
    Ok(())
}

fn how_to_read(output: &str) -> Result<(), Stop> {
    say("\nRead it with DuckDB:\n\n")?;
    say(&format!(
        "  select foreign_install, count(distinct client_id), avg(count)\n  from read_parquet('{output}/*/*.parquet', hive_partitioning = true) group by 1;\n"
    ))?;
    say(&format!("\nor with Spark:\n\n  spark.read.parquet(\"{output}\").printSchema()\n"))
}
