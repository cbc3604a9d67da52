//! `tally run`: a job in this process. Not here: the workers and the driver (`embedded`).

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tally_common::counts::counted;
use tally_common::local_dir;
use tally_common::runtime::block_on;
use tally_common::signals::EndSignals;
use tally_coordinator::driver::Ended;
use tally_coordinator::job::JobSpec;
use tally_coordinator::summary::{Summary, bytes};
use tally_shuffle::spill;
use tally_worker::shares::WorkerConfig;
use tokio::runtime::Runtime;

use crate::embedded::{self, Remains, Resources};
use crate::job_args::JobArgs;
use crate::output::{OutputFormat, json, say_published};
use crate::{INTERRUPTED, Stop, progress, size};

/// Minimum memory limit for any number of threads.
const MIN_MEMORY: u64 = 256 << 20;

/// Arguments of `tally run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    resources: ResourceArgs,
    /// Output format of the summary
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    output_format: OutputFormat,
}

/// The resources of the process.
#[derive(Debug, Args)]
pub struct ResourceArgs {
    /// Memory limit for tables, shuffle, reduce and writers; what does not fit is spilled to disk
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size::parse)]
    memory_limit: u64,
    /// Number of threads of all workers together [default: all cores, or fewer if
    /// the memory limit is too small]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Number of workers in the process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Folder for data that does not fit into memory
    #[arg(long, value_name = "DIR", default_value_os_t = spill::default_dir(), value_parser = local_dir::parser())]
    spill_dir: PathBuf,
    /// How long tasks are retried when the disk is full, for tests
    #[arg(long, value_name = "MS", default_value_t = 30_000, hide = true)]
    no_room_timeout: u64,
}

impl ResourceArgs {
    /// All cores, or as many as the memory limit allows.
    fn fitting_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let fitting = self.memory_limit / (WorkerConfig::min_memory(1) * 32 / 31 + 1);
        let threads = cores.min(usize::try_from(fitting).unwrap_or(cores)).max(1);
        // Workers have equal shares of the memory, so each share must be enough for the worker with most threads.
        let workers = usize::from(self.workers);
        if workers < threads { threads - threads % workers } else { threads }
    }

    /// The resources of a job, checked.
    ///
    /// # Errors
    /// [`Stop::Usage`]: they do not fit together.
    pub(crate) fn check(&self) -> Result<Resources, Stop> {
        self.share(1)
    }

    /// The resources of each of `jobs` jobs that run at a time, checked: equal shares of threads and memory.
    ///
    /// # Errors
    /// [`Stop::Usage`]: they do not fit together.
    pub(crate) fn share(&self, jobs: u16) -> Result<Resources, Stop> {
        let workers = usize::from(self.workers);
        let all_threads = self.threads.map_or_else(|| self.fitting_threads(), usize::from);
        let threads = all_threads / usize::from(jobs);
        if workers > threads {
            let asked = if jobs == 1 { String::new() } else { format!("--parallel {jobs} with ") };
            let threads = counted(all_threads, "thread");
            return Err(Stop::Usage(format!(
                "{asked}--workers {workers} needs more than {threads}: raise --threads"
            )));
        }
        let largest = WorkerConfig::min_memory(threads.div_ceil(workers)) * workers as u64;
        let least = MIN_MEMORY.max(largest * 32 / 31 + workers as u64);
        let memory_limit = self.memory_limit / u64::from(jobs);
        if memory_limit < least {
            let each =
                if jobs == 1 { String::new() } else { format!(" for each of {}", counted(jobs, "job")) };
            return Err(Stop::Usage(format!(
                "--memory-limit {} is too little for {} of {}{each}: set it to {} or more{}",
                bytes(self.memory_limit),
                counted(threads, "thread"),
                counted(workers, "worker"),
                size::option_above(least * u64::from(jobs)),
                use_fewer(jobs, threads, workers, least > MIN_MEMORY)
            )));
        }
        let no_room_timeout = Duration::from_millis(self.no_room_timeout);
        let spill_dir = self.spill_dir.clone();
        let memory_option = self.memory_limit;
        Ok(Resources { workers, threads, memory_limit, memory_option, spill_dir, no_room_timeout })
    }
}

/// What else lowers the memory that jobs need, as the end of a sentence. Threads and workers do not if the memory is what any
/// job needs.
fn use_fewer(jobs: u16, threads: usize, workers: usize, threads_matter: bool) -> String {
    let threads = match (threads_matter, threads > workers, workers > 1) {
        (true, true, _) => Some("use fewer --threads"),
        (true, false, true) => Some("use fewer --threads and --workers"),
        _ => None,
    };
    let jobs = (jobs > 1).then_some("lower --parallel");
    threads.into_iter().chain(jobs).map(|advice| format!(", or {advice}")).collect()
}

/// Runs the command.
pub(crate) fn main(args: &RunArgs) -> Result<(), Stop> {
    let job = args.job.here()?;
    // The driver may still be releasing the job's outputs; the process does not wait for it.
    let summary = run(job, &args.resources.check()?, Runtime::shutdown_background)?;
    let text = match args.output_format {
        OutputFormat::Table => summary.table(),
        OutputFormat::Json => json(&summary)?,
    };
    say_published(&text)
}

/// Runs a job in this process to its end. If it is done, `shut_down` ends its runtime. A process that goes on to use the same
/// store waits until the runtime has ended: otherwise a request may take a connection that is about to close with it.
pub(crate) fn run(
    job: JobSpec,
    resources: &Resources,
    shut_down: impl FnOnce(Runtime),
) -> Result<Summary, Stop> {
    let runtime = engine_runtime()?;
    let ended = block_on(&runtime, async {
        let (ended, remains) = one(job, resources, true, interrupted()).await?;
        match ended {
            Ended::Done(_) => remains.leave(),
            _ => remains.end().await,
        }
        summary(ended)
    });
    match &ended {
        Ok(_) => shut_down(runtime),
        // Wait, so that a staging folder that is being created is removed before the process ends.
        Err(_) => drop(runtime),
    }
    ended
}

/// A runtime for jobs in this process.
///
/// # Errors
/// The system cannot start it.
pub(crate) fn engine_runtime() -> Result<Runtime, Stop> {
    // Two threads run the driver and fetch; tasks run on the threads of the slots.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(64).enable_all().build();
    runtime.map_err(|e| Stop::Failed(format!("the runtime cannot be started: {e}")))
}

/// Runs a job in this process until it ends, or is cancelled because `interrupted` resolves. With `bar`, a terminal shows
/// its progress.
///
/// # Errors
/// [`Stop::Failed`]: the job did not start.
pub(crate) async fn one(
    job: JobSpec,
    resources: &Resources,
    bar: bool,
    interrupted: impl Future<Output = ()>,
) -> Result<(Ended, Remains), Stop> {
    let watch =
        |progress| (bar && std::io::stderr().is_terminal()).then(|| tokio::spawn(progress::show(progress)));
    let mut shown = None;
    let ended = embedded::run(job, resources, |progress| shown = watch(progress), interrupted).await;
    if let Some(shown) = shown {
        shown.abort();
        // The bar clears its line when it ends.
        let _ = shown.await;
    }
    ended.map_err(|e| Stop::Failed(e.to_string()))
}

/// The summary of an ended job, if its day is published.
///
/// # Errors
/// [`Stop`]: it is not.
pub(crate) fn summary(ended: Ended) -> Result<Summary, Stop> {
    match ended {
        Ended::Done(summary) => Ok(*summary),
        Ended::Failed(reason) => Err(Stop::Failed(reason)),
        Ended::Unmet(reason) => Err(Stop::Unmet(reason)),
        Ended::Cancelled => Err(Stop::Interrupted),
    }
}

/// Resolves at the first request to end; the second one ends the process at once.
pub(crate) async fn interrupted() {
    let Ok(mut signals) = EndSignals::new() else {
        // Without handlers, signals end the process.
        return std::future::pending().await;
    };
    signals.next().await;
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(i32::from(INTERRUPTED));
    });
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        resources: ResourceArgs,
    }

    #[test]
    fn jobs_at_a_time_share_threads_and_memory() {
        let share = |line: &[&str], jobs| {
            let line = ["tally"].iter().chain(line);
            let shared = Program::parse_from(line).resources.share(jobs);
            shared
                .map(|each| (each.threads, each.memory_limit))
                .map_err(|stop| stop.report().0.lines().next().unwrap_or_default().to_string())
        };
        assert_eq!(share(&["--threads", "5", "--memory-limit", "2GiB"], 2), Ok((2, 1 << 30)));
        assert_eq!(share(&["--threads", "5", "--memory-limit", "2GiB"], 1), Ok((5, 2 << 30)));
        let error = share(&["--threads", "2"], 3).unwrap_err();
        assert!(error.contains("--parallel 3 with --workers 1 needs more than 2 threads"), "{error}");
        let error = share(&["--threads", "2", "--memory-limit", "300MiB"], 2).unwrap_err();
        assert!(error.ends_with("each of 2 jobs: set it to 512MiB or more, or lower --parallel"), "{error}");
        // The advice is what helps.
        let error = |line: &[&str]| share(&[line, &["--memory-limit", "200MiB"]].concat(), 1).unwrap_err();
        let one = error(&["--threads", "1"]);
        assert!(one.ends_with("for 1 thread of 1 worker: set it to 256MiB or more"), "{one}");
        assert!(error(&["--threads", "8"]).ends_with(" or more, or use fewer --threads"));
        assert!(error(&["--threads", "8", "--workers", "8"]).ends_with("use fewer --threads and --workers"));
    }

    #[test]
    fn tasks_are_retried_on_a_full_disk_for_half_a_minute() {
        let timeout = |line: &[&str]| Program::parse_from(line).resources.check().unwrap().no_room_timeout;
        assert_eq!(timeout(&["tally", "--threads", "1"]), Duration::from_secs(30));
        assert_eq!(
            timeout(&["tally", "--threads", "1", "--no-room-timeout", "10"]),
            Duration::from_millis(10)
        );
    }
}
