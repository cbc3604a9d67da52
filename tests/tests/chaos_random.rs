//! Seeded random schedules of a few faults, over jobs one after another: each job's output is exact and published once,
//! and at the end nothing is left. `TALLY_CHAOS_SEEDS=3,17-20` runs other schedules, each in its own cluster, and
//! `TALLY_CHAOS_AT_ONCE` clusters run at a time; the seed and each fault are printed.
//!
//! Not here: each fault alone, at a known moment (`chaos`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tally_tests::cluster::client::Client;
use tally_tests::cluster::faults::{Drain, Fault};
use tally_tests::cluster::truth::{DAY, MANY_TASKS};
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::output::Place;
use tally_tests::seeds;
use tally_tests::wait::{PATIENT, wait_every};

const FAULTS: usize = 6;
const WORKERS: usize = 3;
/// Time without progress after which the next fault is injected.
const IMPATIENT: Duration = Duration::from_secs(3);

/// One entry of a schedule.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Tasks that must end before it happens.
    after: u64,
    fault: Fault,
    /// Tasks that must end before it is undone.
    lasts: u64,
}

/// The faults of a seed, in order; the same seed always gives the same.
fn schedule(seed: u64) -> Vec<Entry> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut fault = || {
        let worker = rng.random_range(0..WORKERS);
        match rng.random_range(0..12) {
            0 | 1 => Fault::KillWorker(worker),
            2 => Fault::DrainWorker(worker, Drain::Signal),
            3 => Fault::DrainWorker(worker, Drain::Command),
            4 => Fault::FreezeWorker(worker),
            5 => Fault::CutData(worker),
            6 => Fault::CutControl(worker),
            7 => Fault::BreakControl(worker),
            8 | 9 => Fault::KillCoordinator(0),
            10 => Fault::EndCoordinator(0),
            _ => Fault::FreezeCoordinator(0),
        }
    };
    let faults: Vec<_> = (0..FAULTS).map(|_| fault()).collect();
    let entry = |fault| Entry { after: rng.random_range(0..40), fault, lasts: rng.random_range(0..30) };
    faults.into_iter().map(entry).collect()
}

/// Waits until so many more tasks have ended, the job is over, or there was no progress for a while. Returns whether
/// the job is over.
fn progress(client: &Client, job: &str, tasks: u64) -> Result<bool> {
    let start = Instant::now();
    let mut first = None;
    wait_every(PATIENT, "some progress", IMPATIENT * 4, || {
        let seen = client.job_if_led(job)?;
        if let Some(job) = &seen {
            let first = *first.get_or_insert(job.done());
            if job.is_over() {
                return Ok(Some(true));
            }
            if job.done() >= first + tasks {
                return Ok(Some(false));
            }
        }
        Ok((start.elapsed() > IMPATIENT).then_some(false))
    })
}

/// One job, with faults for as long as it runs.
fn job(seed: u64, cluster: &mut Cluster, faults: &mut impl Iterator<Item = Entry>) -> Result<()> {
    let client = cluster.client();
    let place = Place::new()?;
    let job = client.submit(&DAY.root, &place, MANY_TASKS)?;
    let id = job.id.clone();
    let start = Instant::now();
    for entry in faults {
        println!("seed {seed} {:6.2} s {entry:?}", start.elapsed().as_secs_f64());
        let mut over = progress(&client, &id, entry.after)?;
        cluster.inject(entry.fault).with_context(|| format!("{entry:?}"))?;
        over = over || progress(&client, &id, entry.lasts)?;
        cluster.mend(entry.fault).with_context(|| format!("{entry:?}"))?;
        if over {
            break;
        }
    }
    DAY.check_summary(&place, &job.done()?)?;
    println!("seed {seed} {:6.2} s job {id} is right", start.elapsed().as_secs_f64());
    Ok(())
}

fn check(seed: u64) -> Result<()> {
    let setup = Setup { workers: WORKERS, proxied: true, ..Setup::quick() };
    with_cluster(setup, |cluster| {
        let mut faults = schedule(seed).into_iter().peekable();
        while faults.peek().is_some() {
            cluster.wait_attached(WORKERS)?;
            job(seed, cluster, &mut faults)?;
        }
        cluster.wait_attached(WORKERS)?;
        cluster.wait_empty()
    })
}

#[test]
fn random_faults() -> Result<()> {
    let seeds = std::env::var("TALLY_CHAOS_SEEDS").unwrap_or_else(|_| "1".into());
    let seeds = seeds::read(&seeds).with_context(|| format!("TALLY_CHAOS_SEEDS is {seeds:?}"))?;
    let at_once = std::env::var("TALLY_CHAOS_AT_ONCE").unwrap_or_else(|_| "1".into());
    let at_once: usize = at_once.parse().with_context(|| format!("TALLY_CHAOS_AT_ONCE is {at_once:?}"))?;
    let next = AtomicUsize::new(0);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let run = || -> Vec<String> {
            let mut wrong = vec![];
            while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = check(seed) {
                    wrong.push(format!("TALLY_CHAOS_SEEDS={seed} runs it again: {error:?}"));
                }
            }
            wrong
        };
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|_| vec!["a panic".into()]))
            .collect()
    });
    ensure!(wrong.is_empty(), "{} of {} schedules failed\n{}", wrong.len(), seeds.len(), wrong.join("\n"));
    Ok(())
}

#[test]
fn a_seed_is_a_schedule() {
    let text = |seed| format!("{:?}", schedule(seed));
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}
