//! `tally run`: the whole job in this process.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use tally_worker::runner::WorkerConfig;
use tally_worker::spill;

use super::job_args::JobArgs;
use super::output::{OutputFormat, json, say_published};
use super::{INTERRUPTED, Stop, progress, size};
use crate::driver::Ended;
use crate::embedded::{self, Resources};
use crate::job::JobSpec;
use crate::summary::{Summary, bytes};

/// The least memory that a process is run with, whatever its threads.
const LEAST_MEMORY: u64 = 256 << 20;

/// Arguments of `tally run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    resources: ResourceArgs,
    /// How the summary is printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
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
    #[arg(long, value_name = "DIR", default_value_os_t = spill::default_dir())]
    spill_dir: PathBuf,
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

/// Runs the command.
pub(super) fn main(args: &RunArgs) -> Result<(), Stop> {
    let job = args.job.here()?;
    let summary = run(job, &args.resources.check()?)?;
    let text = match args.output_format {
        OutputFormat::Table => summary.table(),
        OutputFormat::Json => json(&summary)?,
    };
    say_published(&text)
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
    match &ended {
        // The driver may still be letting go of the job's outputs: nothing waits for that.
        Ok(_) => runtime.shutdown_background(),
        // A staging folder that is just being made is removed before the process ends.
        Err(_) => drop(runtime),
    }
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
