//! Runs simulated schedules by their seeds, and replays one with its log.

use std::ops::Range;
use std::process::ExitCode;

use clap::Parser;
use tally_simulation::batch::{describe, differences, run_all};
use tally_simulation::faults::{KINDS, Kinds};
use tally_simulation::{Limits, run};

/// Runs simulated clusters. Fails if a schedule violates an invariant.
#[derive(Parser)]
#[command(name = "simulate")]
struct Args {
    /// The seed of one schedule.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Seeds, as FIRST..END without the last one.
    #[arg(long, value_parser = range)]
    seeds: Option<Range<u64>>,
    /// Print the log of the schedule.
    #[arg(long)]
    log: bool,
    /// Reduce a schedule that fails, and print the end of its log.
    #[arg(long)]
    shrink: bool,
    /// Run each of the seeds twice, and compare the logs.
    #[arg(long, requires = "seeds")]
    twice: bool,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Only these kinds of faults, separated by commas; `none` for none.
    #[arg(long, value_parser = kinds)]
    kinds: Option<Kinds>,
    /// At most so many jobs.
    #[arg(long)]
    jobs: Option<usize>,
    /// At most so many coordinators.
    #[arg(long)]
    coordinators: Option<usize>,
    /// At most so many workers.
    #[arg(long)]
    workers: Option<usize>,
    /// At most so many files of a table.
    #[arg(long)]
    files: Option<u32>,
    /// At most so many partitions.
    #[arg(long)]
    partitions: Option<u32>,
    /// Only the first faults.
    #[arg(long)]
    faults: Option<usize>,
    /// Journals and outputs are in the object store only. Otherwise half of the schedules have some in folders.
    #[arg(long)]
    no_folders: bool,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (first, end) = text.split_once("..").ok_or("write FIRST..END")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number"));
    Ok(number(first)?..number(end)?)
}

fn kinds(text: &str) -> Result<Kinds, String> {
    let mut kinds = Kinds::NONE;
    for name in text.split(',').filter(|name| *name != "none") {
        let found = KINDS.iter().find(|(_, known)| *known == name);
        let names: Vec<&str> = KINDS.iter().map(|(_, name)| *name).collect();
        let (kind, _) = found.ok_or_else(|| format!("{name:?} is none of {}", names.join(", ")))?;
        kinds = kinds.with(*kind);
    }
    Ok(kinds)
}

impl Args {
    fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            kinds: self.kinds.unwrap_or(default.kinds),
            coordinators: self.coordinators.unwrap_or(default.coordinators).max(1),
            workers: self.workers.unwrap_or(default.workers).max(1),
            jobs: self.jobs.unwrap_or(default.jobs),
            files: self.files.unwrap_or(default.files).max(1),
            partitions: self.partitions.unwrap_or(default.partitions).max(1),
            faults: self.faults.unwrap_or(default.faults),
            folders: !self.no_folders,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let limits = args.limits();
    // A panic is a violation like others, and is reported with its schedule.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = args.seed {
        if args.shrink {
            println!("{}", describe(seed, &limits, 200));
            return ExitCode::FAILURE;
        }
        let report = run(seed, &limits, args.log);
        report.log.iter().for_each(|line| println!("{line}"));
        let (events, seconds) = (report.events, report.time / 1_000_000);
        return match report.violation {
            None => {
                println!("seed {seed}: {events} events in {seconds} s of virtual time");
                ExitCode::SUCCESS
            }
            Some(violation) => {
                println!("seed {seed} violates an invariant: {violation}");
                ExitCode::FAILURE
            }
        };
    }
    let seeds = args.seeds.clone().unwrap_or(0..1000);
    if args.twice {
        let differences = differences(seeds, args.threads, &limits);
        differences.iter().for_each(|difference| println!("{difference}"));
        return if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let batch = run_all(seeds, args.threads, &limits);
    let per_second = batch.schedules as f64 / batch.took.as_secs_f64();
    println!("{} schedules, {} events, {per_second:.0} schedules per second", batch.schedules, batch.events);
    match batch.failed {
        None => ExitCode::SUCCESS,
        Some(failed) if args.shrink => {
            println!("{}", describe(failed.seed, &limits, 200));
            ExitCode::FAILURE
        }
        Some(failed) => {
            println!("seed {} violates an invariant: {}", failed.seed, failed.violation.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
