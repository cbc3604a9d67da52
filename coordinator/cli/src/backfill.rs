//! `tally backfill`: one job per day of a range, in this process or on a cluster. A day that fails does not stop the others.
//!
//! Not here: one job (`run`, `submit`), the states and the table of the days (`day_results`).

use std::cell::RefCell;
use std::collections::BTreeSet;

use chrono::NaiveDate;
use clap::Args;
use futures::future::{FutureExt, LocalBoxFuture, Shared};
use futures::{StreamExt, stream};
use tally_common::runtime::block_on;
use tally_common::secrets;
use tally_coordinator::dates::date_text;
use tally_coordinator::plan::days::DayState;
use tally_coordinator::summary::Summary;

use crate::connect::ConnectArgs;
use crate::dates::{DateRange, RangeArgs};
use crate::day_results::{DayResult, ResultState, show, verdict};
use crate::embedded::Resources;
use crate::follow::Display;
use crate::job_args::WorkArgs;
use crate::output::OutputFormat;
use crate::run::{self, ResourceArgs};
use crate::{EXIT_CODES, Stop, say, submit};

const EXAMPLES: &str = "Examples:
  Three days, in this process:
    export TALLY_ADDONS=day/addons/v2 TALLY_MAIN_SUMMARY=day/main_summary/v3 TALLY_OUTPUT=aggregates
    tally backfill --from 20170226 --to 20170228
  Only the days that are missing or older than their inputs, for example after Ctrl-C or a failure:
    tally backfill --from 20170226 --to 20170228 --only-missing
  On a cluster, three days at a time:
    tally backfill --coordinator localhost:7070 --from 20170226 --to 20170228 --parallel 3";

/// Arguments of `tally backfill`.
#[derive(Debug, Args)]
#[command(
    mut_arg("from", |arg| arg.required(true)),
    mut_arg("to", |arg| arg.required(true)),
    after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}")
)]
pub struct BackfillArgs {
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    work: WorkArgs,
    /// Number of days that are computed at a time; in this process they share --threads and --memory-limit
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    parallel: u16,
    /// Skip days that the output already has and whose inputs are not newer; inputs and output are listed from this machine
    #[arg(long)]
    only_missing: bool,
    #[command(flatten)]
    resources: ResourceArgs,
    /// Run the jobs on the cluster that the environment or the file of --config names; --coordinator and --consul on the
    /// command line imply it
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Cancel the running jobs of a cluster at Ctrl-C, SIGTERM and SIGHUP; otherwise they continue
    #[arg(long)]
    cancel_on_interrupt: bool,
    /// Output format of the results
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// A backfill under way.
struct Backfill<'a> {
    args: &'a BackfillArgs,
    /// The resources of each job in this process; `None` on a cluster.
    resources: Option<Resources>,
    /// Resolves at Ctrl-C, for every day.
    interrupted: Shared<LocalBoxFuture<'static, ()>>,
    /// No coordinator leads: no further day starts.
    unreachable: RefCell<Option<String>>,
}

/// Runs the command.
pub(crate) fn main(args: &BackfillArgs) -> Result<(), Stop> {
    let range = args.range.required()?;
    let on_cluster = args.cluster || ConnectArgs::is_named();
    let resources = match on_cluster {
        true => None,
        false => Some(args.resources.share(args.parallel)?),
    };
    // Before any work: all days are valid, and the cluster has a name.
    for date in range.dates() {
        match on_cluster {
            true => args.work.elsewhere(date).map(drop)?,
            false => args.work.here(date).map(drop)?,
        }
    }
    if on_cluster {
        args.connect.client(|_| ())?;
    }
    let interrupted = run::interrupted().boxed_local().shared();
    let backfill = Backfill { args, resources, interrupted, unreachable: RefCell::default() };
    let runtime = run::engine_runtime()?;
    let (days, interrupted) = block_on(&runtime, async {
        let days = backfill.all(range).await?;
        Ok::<_, Stop>((days, backfill.is_interrupted()))
    })?;
    // Waits for what cancelled jobs still remove.
    drop(runtime);
    say(&show(&days, args.output_format)?)?;
    verdict(&days, backfill.unreachable.into_inner(), interrupted)
}

impl Backfill<'_> {
    /// Computes all days of the range; returns their results in the order of their dates.
    async fn all(&self, range: DateRange) -> Result<Vec<DayResult>, Stop> {
        let skipped = match self.args.only_missing {
            true => tokio::select! {
                published = self.published(range) => published?,
                // No day starts.
                () = self.interrupted.clone() => BTreeSet::new(),
            },
            false => BTreeSet::new(),
        };
        let days = range.dates().map(|date| self.day(date, skipped.contains(&date)));
        let days = stream::iter(days).buffer_unordered(usize::from(self.args.parallel));
        let mut days: Vec<DayResult> = days.collect().await;
        days.sort_by(|a, b| a.date().cmp(b.date()));
        Ok(days)
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.clone().now_or_never().is_some()
    }

    /// The days of the range that the output has, and whose inputs are not newer.
    async fn published(&self, range: DateRange) -> Result<BTreeSet<NaiveDate>, Stop> {
        let place = self.args.work.place()?;
        let roots = place.roots();
        let dates = roots.dates().await.map_err(|e| Stop::Failed(e.to_string()))?;
        // The others have no output.
        let candidates = range.dates().filter(|date| dates.output.contains(date));
        let days = roots.days(&dates, candidates).await;
        let published = days.into_iter().filter(|day| day.state() == DayState::Published);
        Ok(published.map(|day| day.date).collect())
    }

    async fn day(&self, date: NaiveDate, skipped: bool) -> DayResult {
        if skipped {
            return DayResult::without_job(date, ResultState::UpToDate);
        }
        if self.is_interrupted() || self.unreachable.borrow().is_some() {
            return DayResult::without_job(date, ResultState::NotStarted);
        }
        eprintln!("{}: started", date_text(date));
        let mut job = None;
        let ended = match &self.resources {
            Some(resources) => self.here(date, resources, &mut job).await,
            None => self.there(date, &mut job).await,
        };
        if let Err(Stop::NoLeader(why)) = &ended {
            *self.unreachable.borrow_mut() = Some(why.clone());
        }
        let result = DayResult::ended(date, job, &ended);
        eprintln!("{}", secrets::cut(&result.line()));
        result
    }

    /// Computes a day in this process.
    async fn here(
        &self,
        date: NaiveDate,
        resources: &Resources,
        job: &mut Option<String>,
    ) -> Result<Summary, Stop> {
        let spec = self.args.work.here(date)?;
        *job = Some(spec.id.to_string());
        let (ended, remains) =
            run::one(spec, resources, self.args.parallel == 1, self.interrupted.clone()).await?;
        remains.end().await;
        run::summary(ended)
    }

    /// Computes a day on the cluster.
    async fn there(&self, date: NaiveDate, job: &mut Option<String>) -> Result<Summary, Stop> {
        let BackfillArgs { connect, output_format, parallel, cancel_on_interrupt, .. } = self.args;
        let spec = self.args.work.elsewhere(date)?;
        let display = match *parallel {
            1 => Display::new(*output_format),
            _ => Display::lines(*output_format),
        };
        let took = |id: &str| *job = Some(id.into());
        submit::run_there(connect, &spec, display, took, self.interrupted.clone(), *cancel_on_interrupt).await
    }
}
