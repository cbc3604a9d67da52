//! `tally run`: the whole job in this process.

use std::io::IsTerminal;
use std::path::PathBuf;

use chrono::{Days, NaiveDate, Utc};
use clap::{Args, ValueEnum};
use tally_dataset::addon_aggregates;
use tally_worker::runner::WorkerConfig;

use super::{INTERRUPTED, Stop, progress, say, size};
use crate::driver::Ended;
use crate::embedded::{self, Resources};
use crate::job::{Cut, JobSpec, new_id};
use crate::summary::{Summary, bytes};

/// The least memory that a process is run with, whatever its threads.
const LEAST_MEMORY: u64 = 256 << 20;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Arguments of `tally run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Root of the table addons: a path or file:// URL
    #[arg(long, value_name = "URL", default_value = "s3://telemetry-parquet/addons/v2")]
    addons: String,
    /// Root of the table main_summary: a path or file:// URL
    #[arg(long, value_name = "URL", default_value = "s3://telemetry-parquet/main_summary/v3")]
    main_summary: String,
    /// Root of the output; the day becomes the folder submission_date_s3=YYYYMMDD below it
    /// [default: s3://$bucket/addons/agg/v1, and telemetry-parquet where $bucket is not set]
    #[arg(long, value_name = "URL")]
    output: Option<String>,
    /// The day [default: $date in the environment, else yesterday in UTC]
    #[arg(long, value_name = "YYYYMMDD")]
    date: Option<String>,
    #[command(flatten)]
    resources: ResourceArgs,
    /// Size that part files are reckoned with, at 38 bytes a row
    #[arg(long, value_name = "SIZE", default_value = "280MB", value_parser = size::parse)]
    target_file_size: u64,
    /// How the summary is printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
    /// Bytes of needed columns in a shard, at most
    #[arg(long, value_name = "SIZE", value_parser = size::parse, hide = true)]
    shard_bytes: Option<u64>,
    /// Partitions of the shuffle
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), hide = true)]
    partitions: Option<u32>,
}

/// What the process may use.
#[derive(Debug, Args)]
pub struct ResourceArgs {
    /// Memory for tables, shuffle, reduce and writers; what does not fit goes to disk
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size::parse)]
    memory_limit: u64,
    /// Threads in all, shared out among the workers [default: all cores that
    /// the memory limit has room for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Workers in the process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Where data goes that memory has no room for
    #[arg(long, value_name = "DIR", default_value_os_t = default_spill_dir())]
    spill_dir: PathBuf,
}

fn default_spill_dir() -> PathBuf {
    // /tmp is memory on many machines.
    let disk = PathBuf::from("/var/tmp");
    if std::env::var_os("TMPDIR").is_none() && disk.is_dir() { disk } else { std::env::temp_dir() }
}

impl ResourceArgs {
    /// All cores, or as many as the memory limit lets work.
    fn fitting_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let fitting = self.memory_limit / (WorkerConfig::least_memory(1) * 32 / 31 + 1);
        cores.min(usize::try_from(fitting).unwrap_or(cores)).max(1)
    }

    /// The resources, checked.
    ///
    /// # Errors
    /// Where they make no sense together.
    pub(super) fn check(&self) -> Result<Resources, Stop> {
        let workers = usize::from(self.workers);
        let threads = self.threads.map_or_else(|| self.fitting_threads(), usize::from);
        if workers > threads {
            let what = format!("--workers {workers} is more than the {threads} threads: raise --threads");
            return Err(Stop::Usage(what));
        }
        let least = LEAST_MEMORY.max(WorkerConfig::least_memory(threads) * 32 / 31 + workers as u64);
        if self.memory_limit < least {
            return Err(Stop::Usage(format!(
                "--memory-limit {} is too little: {threads} threads need {}; give more, or fewer --threads",
                bytes(self.memory_limit),
                bytes(least)
            )));
        }
        Ok(Resources { workers, threads, memory_limit: self.memory_limit, spill_dir: self.spill_dir.clone() })
    }
}

/// The date asked for: the argument, else the environment, else yesterday in UTC.
fn date(argument: Option<&str>, environment: Option<&str>) -> Result<String, Stop> {
    let (text, source) = match (argument, environment) {
        (Some(text), _) => (text.to_string(), "--date"),
        (None, Some(text)) => (text.to_string(), "date in the environment"),
        (None, None) => {
            let yesterday = Utc::now().date_naive() - Days::new(1);
            (yesterday.format("%Y%m%d").to_string(), "yesterday")
        }
    };
    let digits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
    match NaiveDate::parse_from_str(&text, "%Y%m%d") {
        Ok(_) if digits => Ok(text),
        _ => Err(Stop::Usage(format!("{source} {text:?} is no day: write YYYYMMDD, for example 20170227"))),
    }
}

impl RunArgs {
    fn job(&self) -> Result<JobSpec, Stop> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let date = date(self.date.as_deref(), variable("date").as_deref())?;
        let output = self.output.clone().unwrap_or_else(|| {
            let bucket = variable("bucket").unwrap_or_else(|| "telemetry-parquet".into());
            format!("s3://{bucket}/addons/agg/v1")
        });
        let job = JobSpec {
            id: new_id(&date).map_err(|e| Stop::Usage(e.to_string()))?,
            dataset: addon_aggregates::NAME.into(),
            date,
            inputs: vec![self.addons.clone(), self.main_summary.clone()],
            output,
            target_file_size: self.target_file_size,
            cut: Cut { shard_bytes: self.shard_bytes, partitions: self.partitions },
        };
        job.check_places().map_err(Stop::Usage)?;
        Ok(job)
    }
}

/// Runs the command.
pub(super) fn main(args: &RunArgs) -> Result<(), Stop> {
    let job = args.job()?;
    let summary = run(job, &args.resources.check()?)?;
    let text = match args.output_format {
        OutputFormat::Table => summary.table(),
        OutputFormat::Json => {
            serde_json::to_string(&summary).map_err(|e| Stop::Failed(e.to_string()))? + "\n"
        }
    };
    say(&text).map_err(|stop| match stop {
        Stop::Failed(why) => Stop::Failed(format!("{why}; the day is published")),
        other => other,
    })
}

/// Runs a job in this process to its end.
pub(super) fn run(job: JobSpec, resources: &Resources) -> Result<Summary, Stop> {
    // Two threads drive and fetch; the work is done by the slots' own.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(64).enable_all().build();
    let runtime = runtime.map_err(|e| Stop::Failed(format!("the runtime cannot be started: {e}")))?;
    let ended = runtime.block_on(async {
        let watch =
            |progress| std::io::stderr().is_terminal().then(|| tokio::spawn(progress::show(progress)));
        let mut bar = None;
        let ended = embedded::run(job, resources, |progress| bar = watch(progress), interrupted()).await;
        let ended = ended.map_err(|e| Stop::Failed(e.to_string()));
        if let Some(bar) = bar {
            bar.abort();
            // The bar clears its line as it goes.
            let _ = bar.await;
        }
        let (ended, remains) = ended?;
        match ended {
            Ended::Done(_) => remains.leave(),
            _ => remains.end().await,
        }
        match ended {
            Ended::Done(summary) => Ok(*summary),
            Ended::Failed(reason) => Err(Stop::Failed(reason)),
            Ended::Cancelled => Err(Stop::Interrupted),
        }
    });
    // The driver may still be letting go of the job's outputs: nothing waits for that.
    runtime.shutdown_background();
    ended
}

/// Resolves at the first Ctrl-C or SIGTERM; the second one ends the process as it is.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals' default stands: they end the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tokio::spawn(async move {
        interrupt.recv().await;
        std::process::exit(i32::from(INTERRUPTED));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_comes_from_the_argument_then_the_environment_then_the_clock() {
        assert_eq!(date(Some("20170227"), Some("20160101")).unwrap(), "20170227");
        assert_eq!(date(None, Some("20160101")).unwrap(), "20160101");
        assert_eq!(date(None, None).unwrap().len(), 8);
        for bad in ["2017-02-27", "20170229", "2017022", "", "+2017022"] {
            assert!(matches!(date(Some(bad), None), Err(Stop::Usage(_))), "{bad}");
        }
    }
}
