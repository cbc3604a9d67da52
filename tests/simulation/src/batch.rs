//! Many schedules on several threads, each with its own seeds, until one fails.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::scenario::Limits;
use crate::schedule::{Report, run};
use crate::shrink;

/// The schedules that ran.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Their number.
    pub schedules: u64,
    /// Their events.
    pub events: u64,
    /// The real time that they took.
    pub took: Duration,
    /// The first one that failed.
    pub failed: Option<Report>,
}

/// Runs the schedules of these seeds.
pub fn run_all(seeds: Range<u64>, threads: usize, limits: &Limits) -> Batch {
    let (next, events, stop) = (AtomicU64::new(seeds.start), AtomicU64::new(0), AtomicBool::new(false));
    let failed = Mutex::new(None);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let report = run(seed, limits, false);
                    events.fetch_add(report.events, Ordering::Relaxed);
                    if report.violation.is_some() {
                        stop.store(true, Ordering::Relaxed);
                        failed.lock().get_or_insert(report);
                    }
                }
            });
        }
    });
    let schedules = next.load(Ordering::Relaxed).min(seeds.end) - seeds.start;
    let (events, failed) = (events.load(Ordering::Relaxed), failed.into_inner());
    Batch { schedules, events, took: begun.elapsed(), failed }
}

/// Runs the schedule of each seed twice. Returns in what the runs of a seed differ, for one seed of each thread at most.
pub fn differences(seeds: Range<u64>, threads: usize, limits: &Limits) -> Vec<String> {
    let next = AtomicU64::new(seeds.start);
    let seed = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds.end);
    let find = || std::iter::from_fn(seed).find_map(|seed| difference(seed, limits));
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(find)).collect();
        let ended =
            started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Some("a panic".into())));
        ended.flatten().collect()
    })
}

/// The first line in which two runs of a seed differ.
fn difference(seed: u64, limits: &Limits) -> Option<String> {
    let (one, other) = (run(seed, limits, true), run(seed, limits, true));
    if one.log.is_empty() {
        return Some(format!("seed {seed} has no log"));
    }
    let ends = [&one, &other].map(|it| (it.log.len(), it.events, it.time, &it.violation));
    match one.log.iter().zip(&other.log).find(|(a, b)| a != b) {
        Some((a, b)) => Some(format!("seed {seed} differs:\n  {a}\n  {b}")),
        None => (ends[0] != ends[1]).then(|| format!("seed {seed} ends differently: {ends:?}")),
    }
}

/// What a person needs to know of a schedule that failed: the invariant, the smallest form of it, and the end of its log.
pub fn describe(seed: u64, limits: &Limits, lines: usize) -> String {
    let limits = shrink::shrink(seed, limits);
    let report = run(seed, &limits, true);
    let violation = report.violation.unwrap_or_else(|| "none: the schedule does not repeat itself".into());
    let from = report.log.len().saturating_sub(lines);
    format!(
        "seed {seed} violates an invariant: {violation}\n\nreplay: simulate {} --log\n\nthe last events:\n{}",
        shrink::options(seed, &limits),
        report.log[from..].join("\n")
    )
}
