//! Random large days, each computed by `tally run` and by a cluster of real processes, two days at a time, against the
//! reference. Days and splits follow from a seed; the first seed of those that share a cluster decides its workers.
//! `TALLY_DAYS` sets the number of days (60); `TALLY_DAY_SEEDS=3,17` runs these again: a failure shows the seeds.
//!
//! Not here: small days with hostile values (`pipeline`), faults (`chaos`).

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tally_tests::cluster::client::Client;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::golden::DATE;
use tally_tests::naive::Aggregates;
use tally_tests::output::Place;
use tally_tests::process::{Summary, Tally};
use tally_tests::{large, table};

/// Days in a run, unless the environment sets it.
const DAYS: usize = 60;
/// Days that share a cluster.
const TOGETHER: usize = 30;
/// Days at a time.
const AT_ONCE: usize = 2;

/// The flags of a day's jobs.
#[derive(Debug)]
struct Flags {
    /// How the job is split.
    cut: Vec<String>,
    /// What `tally run` may use.
    resources: Vec<String>,
}

impl Flags {
    fn new(seed: u64) -> Self {
        // Another random stream than the day's.
        let mut rng = StdRng::seed_from_u64(!seed);
        let few: u32 = rng.random_range(2..9);
        let few = few.to_string();
        let partitions = ["", "1", "1", few.as_str(), "64", "101"][rng.random_range(0..6)];
        let shard = ["", "20KB", "200KB", "1MB"][rng.random_range(0..4)];
        let file = ["", "20KB", "200KB", "2MB"][rng.random_range(0..4)];
        let (workers, more): (u32, u32) = (rng.random_range(1..4), rng.random_range(0..3));
        let threads = workers + more;
        // The minimum for so many threads, most of them in one worker.
        let least = format!("{}MiB", (100 * workers * threads.div_ceil(workers)).max(256));
        let memory = ["", least.as_str()][rng.random_range(0..2)];
        let (workers, threads) = (workers.to_string(), threads.to_string());
        Flags {
            cut: given([
                ("--partitions", partitions),
                ("--shard-bytes", shard),
                ("--target-file-size", file),
            ]),
            resources: given([
                ("--workers", workers.as_str()),
                ("--threads", threads.as_str()),
                ("--memory-limit", memory),
            ]),
        }
    }
}

/// The flags that have a value.
fn given(flags: [(&str, &str); 3]) -> Vec<String> {
    let given = flags.into_iter().filter(|(_, value)| !value.is_empty());
    given.flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]).collect()
}

/// The cluster for the days that start at this seed.
fn setup(seed: u64) -> Setup {
    let mut rng = StdRng::seed_from_u64(seed.rotate_left(32));
    let worker_memory = ["100MiB", "100MiB", "256MiB"][rng.random_range(0..3)];
    Setup { workers: rng.random_range(1..5), worker_memory, ..Setup::default() }
}

fn compare(place: &Place, summary: &Summary, expected: &Aggregates) -> Result<()> {
    table::compare(&place.read_output(DATE)?, &expected.rows)?;
    let said = (summary.rows, summary.n_clients, summary.n_custom_theme_clients);
    let (clients, custom) = (expected.n_clients as u64, expected.n_custom_theme_clients as u64);
    ensure!(said == (expected.rows.len() as u64, clients, custom), "the summary says {said:?}");
    Ok(())
}

fn embedded(root: &Path, flags: &Flags, expected: &Aggregates) -> Result<()> {
    let place = Place::new()?;
    let job = Tally::job(root, &place).date(DATE).args(&flags.cut).args(&flags.resources);
    compare(&place, &job.run()?.summary()?, expected)
}

fn clustered(root: &Path, flags: &Flags, expected: &Aggregates, client: &Client) -> Result<()> {
    let place = Place::new()?;
    let job = client.submit_command(root, &place, &[]).args(&flags.cut);
    compare(&place, &job.run()?.summary()?, expected)
}

fn check(seed: u64, client: &Client) -> Result<()> {
    let dir = Place::new()?;
    let root = dir.path().join("day");
    let (day, expected) = large::write(seed, &root)?;
    let flags = Flags::new(seed);
    let done = embedded(&root, &flags, &expected).context("by tally run");
    let done = done.and_then(|()| clustered(&root, &flags, &expected, client).context("by the cluster"));
    done.with_context(|| format!("{day:?}\n{flags:?}"))
}

/// These days, on one cluster.
fn check_together(seeds: &[u64]) -> Result<()> {
    let Some(&first) = seeds.first() else { return Ok(()) };
    let setup = setup(first);
    let shape = format!("{} workers of {}", setup.workers, setup.worker_memory);
    with_cluster(setup, |cluster| {
        let client = cluster.client();
        let left = Mutex::new(seeds.iter());
        let next = || left.lock().ok().and_then(|mut left| left.next());
        let work = || -> Result<()> {
            while let Some(&seed) = next() {
                let again = if seed == first { first.to_string() } else { format!("{first},{seed}") };
                check(seed, &client)
                    .with_context(|| format!("run it again with TALLY_DAY_SEEDS={again} ({shape})"))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    })
}

/// The seeds that the environment names, else as many random ones as it sets.
fn seeds() -> Result<Vec<u64>> {
    if let Ok(named) = std::env::var("TALLY_DAY_SEEDS") {
        let number = |text: &str| {
            text.trim().parse::<u64>().with_context(|| format!("TALLY_DAY_SEEDS: {text:?} is no number"))
        };
        return named.split(',').map(number).collect();
    }
    let days = match std::env::var("TALLY_DAYS") {
        Ok(days) => {
            days.trim().parse::<usize>().with_context(|| format!("TALLY_DAYS: {days:?} is no number"))?
        }
        Err(_) => DAYS,
    };
    let start = u64::from(rand::random::<u32>());
    Ok((start..).take(days).collect())
}

#[test]
fn random_large_days_match_the_reference() -> Result<()> {
    seeds()?.chunks(TOGETHER).try_for_each(check_together)
}
