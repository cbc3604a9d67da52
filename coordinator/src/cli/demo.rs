//! `tally demo`: a day made up, the job over it, in this process or by a cluster, and what the result
//! says.

use std::path::{Path, PathBuf};

use clap::Args;
use tally_dataset::addon_aggregates;
use tally_generate::Options;
use tally_proto::v1;

use super::connect::ConnectArgs;
use super::run::{ResourceArgs, run};
use super::{Stop, objectives, say, submit};
use crate::job::{Cut, JobSpec, date_folder, new_id};
use crate::summary::grouped;

const DATE: &str = "20170227";

/// Arguments of `tally demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder for the day and its result; it must not exist yet [default: a new tally-demo-N here]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Clients of the day
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    clients: u64,
    #[command(flatten)]
    resources: ResourceArgs,
    /// Let a cluster do the job: DIR must be where its workers find it too
    #[arg(long, requires = "dir")]
    cluster: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Remove the folder at the end, if all went well
    #[arg(long)]
    remove: bool,
}

fn folder(wanted: Option<&PathBuf>) -> Result<PathBuf, Stop> {
    let fresh = || (1..1000).map(|n| PathBuf::from(format!("tally-demo-{n}"))).find(|path| !path.exists());
    let Some(folder) = wanted.cloned().or_else(fresh) else {
        return Err(Stop::Usage("give --dir: there are too many tally-demo folders here".into()));
    };
    if folder.exists() {
        return Err(Stop::Usage(format!("{} exists: give another --dir", folder.display())));
    }
    Ok(folder)
}

/// Runs the command.
pub(super) fn main(args: &DemoArgs) -> Result<(), Stop> {
    let resources = args.resources.check()?;
    if args.connect.is_named() && !args.cluster {
        return Err(Stop::Usage("--coordinator and --consul are for --cluster: give that, too".into()));
    }
    let mut folder = folder(args.dir.as_ref())?;
    if args.cluster {
        let failed = |e| Stop::Usage(format!("--dir {}: {e}", folder.display()));
        folder = std::path::absolute(&folder).map_err(failed)?;
    }
    let shown = folder.display();
    say(&format!("Generating {} clients' day of telemetry in {shown} ...\n", grouped(args.clients)))?;
    let day = folder.join("telemetry");
    let options =
        Options { output: day.clone(), clients: args.clients, date: DATE.into(), ..Options::default() };
    options.validate().map_err(|e| Stop::Usage(e.to_string()))?;
    let totals = tally_generate::generate(&options, &|_| ()).map_err(|e| Stop::Failed(e.to_string()))?;
    say(&format!(
        "{} pings, {} add-on rows\n\n",
        grouped(totals.main_summary_rows),
        grouped(totals.addons_rows)
    ))?;
    let table = |name: &str| day.join(name).display().to_string();
    let output = folder.join("addon_aggregates");
    let job = JobSpec {
        id: new_id(DATE).map_err(|e| Stop::Failed(e.to_string()))?,
        dataset: addon_aggregates::NAME.into(),
        date: DATE.into(),
        inputs: vec![table("addons/v2"), table("main_summary/v3")],
        output: output.display().to_string(),
        target_file_size: 280_000_000,
        cut: Cut::default(),
    };
    let summary = match args.cluster {
        true => submit::there(&args.connect, &v1::JobSpec::from(&job))?,
        false => run(job, &resources)?,
    };
    say(&summary.table())?;
    let right = [totals.rows, totals.n_clients, totals.n_custom_theme_clients];
    if [summary.rows, summary.n_clients, summary.n_custom_theme_clients] != right {
        return Err(Stop::Failed(format!("the result is wrong: the generator's totals are {right:?}")));
    }
    show_objectives(&output)?;
    if args.remove {
        let failed = |e| Stop::Failed(format!("{shown} cannot be removed: {e}"));
        return std::fs::remove_dir_all(&folder).map_err(failed);
    }
    how_to_read(&output)
}

fn show_objectives(output: &Path) -> Result<(), Stop> {
    let figures = objectives::read(&output.join(date_folder(DATE))).map_err(Stop::Failed)?;
    let share = |part: u64| 100.0 * part as f64 / figures.clients.max(1) as f64;
    say("\nAs the generator's totals say it must be. The day in three objectives:\n\n")?;
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

fn how_to_read(output: &Path) -> Result<(), Stop> {
    say("\nRead it with DuckDB:\n\n")?;
    say(&format!(
        "  select foreign_install, count(distinct client_id), avg(count)\n  from read_parquet('{}/*/*.parquet', hive_partitioning = true) group by 1;\n",
        output.display()
    ))?;
    say(&format!("\nor with Spark:\n\n  spark.read.parquet(\"{}\").printSchema()\n", output.display()))
}
