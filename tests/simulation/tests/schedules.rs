//! Schedules of simulated clusters: many random ones, and those that once found a fault.
//!
//! TALLY_SCHEDULES is the number of random schedules (default 100,000), TALLY_SCHEDULES_FROM the first seed.

use tally_simulation::Limits;
use tally_simulation::batch::{describe, differences, run_all};

/// Lines of the log that a failure prints.
const LINES: usize = 200;
/// Seeds that are run twice.
const REPEATED: u64 = 2000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_schedule_violates_an_invariant() {
    let first = number("TALLY_SCHEDULES_FROM", 0);
    let seeds = first..first + number("TALLY_SCHEDULES", 100_000);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = Limits::default();
    let batch = run_all(seeds, threads, &limits);
    let per_second = batch.schedules as f64 / batch.took.as_secs_f64();
    println!("{} schedules, {} events, {per_second:.0} schedules per second", batch.schedules, batch.events);
    if let Some(failed) = batch.failed {
        panic!("{}\n\n{}", failed.violation.unwrap_or_default(), describe(failed.seed, &limits, LINES));
    }
}

#[test]
fn a_seed_gives_the_same_schedule_again_whatever_runs_beside_it() {
    let first = number("TALLY_SCHEDULES_FROM", 0);
    // More threads than cores, so that a thread is interrupted anywhere.
    let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let differences = differences(first..first + REPEATED, threads, &Limits::default());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
