//! Makes a failing schedule smaller: fewer kinds of faults, processes, jobs, files and faults, as long as an invariant is
//! still violated.

use crate::faults::KINDS;
use crate::scenario::{Limits, Scenario};
use crate::schedule::run;

/// Limits with another number of something.
type Reduce = fn(Limits, usize) -> Limits;

/// The words of a violation without ids and numbers: what is the same in a smaller schedule.
fn kind(violation: &str) -> String {
    let plain = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
    violation.split_whitespace().filter(plain).take(6).collect::<Vec<_>>().join(" ")
}

/// The smallest limits below `limits` with which the seed still fails in the same way.
pub fn shrink(seed: u64, limits: &Limits) -> Limits {
    let mut limits = *limits;
    let failed = |limits: &Limits| run(seed, limits, false).violation.map(|violation| kind(&violation));
    let wanted = failed(&limits);
    let fails = |limits: &Limits| wanted.is_some() && failed(limits) == wanted;
    let without = Limits { folders: false, ..limits };
    limits = if limits.folders && fails(&without) { without } else { limits };
    // Several rounds, because one removal may make another one possible.
    for _ in 0..3 {
        let before = limits;
        for (kind, _) in KINDS {
            if Scenario::new(seed, &limits).kinds.has(kind) {
                let tried = Limits { kinds: limits.kinds.without(kind), ..limits };
                limits = if fails(&tried) { tried } else { limits };
            }
        }
        let scenario = Scenario::new(seed, &limits);
        let most_files = scenario.jobs.iter().flat_map(|job| job.day.files).max().unwrap_or(1);
        let partitions = scenario.jobs.iter().map(|job| job.partitions).max().unwrap_or(1);
        let smaller: [(usize, Reduce); 6] = [
            (scenario.jobs.len(), |it, n| Limits { jobs: n, ..it }),
            (scenario.coordinators, |it, n| Limits { coordinators: n, ..it }),
            (scenario.workers.len(), |it, n| Limits { workers: n, ..it }),
            (most_files as usize, |it, n| Limits { files: n as u32, ..it }),
            (partitions as usize, |it, n| Limits { partitions: n as u32, ..it }),
            (scenario.faults.len() + 1, |it, n| Limits { faults: n - 1, ..it }),
        ];
        for (now, with) in smaller {
            if let Some(tried) = (1..now).map(|n| with(limits, n)).find(fails) {
                limits = tried;
            }
        }
        if limits == before {
            break;
        }
    }
    limits
}

/// The options of `simulate` that set these limits.
pub fn options(seed: u64, limits: &Limits) -> String {
    let used = Scenario::new(seed, limits);
    let mut options = vec![format!("--seed {seed}")];
    let kinds = used.kinds.names();
    options.push(format!("--kinds {}", if kinds.is_empty() { "none".into() } else { kinds.join(",") }));
    let default = Limits::default();
    let mut add = |name: &str, value: usize, of_default: usize| {
        if value != of_default {
            options.push(format!("--{name} {value}"));
        }
    };
    add("jobs", limits.jobs, default.jobs);
    add("coordinators", limits.coordinators, default.coordinators);
    add("workers", limits.workers, default.workers);
    add("files", limits.files as usize, default.files as usize);
    add("partitions", limits.partitions as usize, default.partitions as usize);
    add("faults", limits.faults, default.faults);
    if !limits.folders {
        options.push("--no-folders".into());
    }
    options.join(" ")
}
