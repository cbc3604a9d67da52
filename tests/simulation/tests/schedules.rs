//! Schedules of simulated clusters: many random ones, and those that once found a fault.
//!
//! TALLY_SCHEDULES is the number of random schedules (default 100,000), TALLY_SCHEDULES_FROM the first seed.

use tally_simulation::batch::{describe, run_all};
use tally_simulation::{Limits, run};

/// Lines of the log that a failure prints.
const LINES: usize = 200;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_schedule_violates_an_invariant() {
    let first = number("TALLY_SCHEDULES_FROM", 0);
    let seeds = first..first + number("TALLY_SCHEDULES", 100_000);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let batch = run_all(seeds, threads, &Limits::default());
    let per_second = batch.schedules as f64 / batch.took.as_secs_f64();
    println!("{} schedules, {} events, {per_second:.0} schedules per second", batch.schedules, batch.events);
    if let Some(failed) = batch.failed {
        panic!("{}\n\n{}", failed.violation.unwrap_or_default(), describe(failed.seed, LINES));
    }
}

#[test]
fn a_seed_gives_the_same_schedule_again() {
    for seed in [1, 7, 23, 42, 99, 1234] {
        let limits = Limits::default();
        let (one, other) = (run(seed, &limits, true), run(seed, &limits, true));
        assert!(!one.log.is_empty());
        let differs = one.log.iter().zip(&other.log).position(|(a, b)| a != b);
        let differs = differs.map(|at| (one.log[at].clone(), other.log[at].clone()));
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!((one.log.len(), one.events, one.time), (other.log.len(), other.events, other.time));
    }
}
