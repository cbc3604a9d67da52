//! Runs every target with its valid inputs, with the corpus of its fuzzer, and with seeded corrupted copies.
//! `PROPTEST_CASES` sets the number of copies, as for other random tests.
//!
//! Not here: files that are corrupted at known positions, and their expected rows (`corrupt`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tally_hostile::mutate::{Numbers, copy};
use tally_hostile::parquet::{Kind, Reader};
use tally_hostile::{TARGETS, Target};
use tally_tests::seeds::cases;

/// Default number of corrupted copies per target.
const COPIES: u64 = 1500;

fn copies() -> u64 {
    cases().map_or(COPIES, |cases| u64::from(cases) * 10)
}

/// Runs a target. A panic is reported with its input.
fn run(target: &Target, bytes: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.body)(bytes))).is_err() {
        let file = std::env::temp_dir().join(format!("tally-finding-{}", target.name));
        // Kept for debugging.
        let kept = std::fs::write(&file, bytes).is_ok();
        panic!("{} panics on {what}; the input is kept ({kept}) in {}", target.name, file.display());
    }
}

fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target.name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |entry: std::fs::DirEntry| {
        (entry.path().display().to_string(), std::fs::read(entry.path()).expect("an input"))
    };
    let mut inputs: Vec<_> = entries.map(|entry| read(entry.expect("an entry"))).collect();
    inputs.sort();
    inputs
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    for (at, seed) in seeds.iter().enumerate() {
        run(target, seed, &format!("valid input {at}"));
    }
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "there is no corpus of {name}");
    for (file, input) in &corpus {
        run(target, input, file);
    }
    for number in 0..copies() {
        let mut numbers = Numbers::new(number);
        let seed = numbers.below(seeds.len());
        run(target, &copy(&mut numbers, &seeds[seed]), &format!("copy {number} of valid input {seed}"));
    }
}

#[test]
fn tickets() {
    replay("ticket");
}

#[test]
fn what_workers_say() {
    replay("worker_message");
}

#[test]
fn what_coordinators_say() {
    replay("coordinator_message");
}

#[test]
fn records_of_a_journal() {
    replay("journal");
}

#[test]
fn manifests_of_days() {
    replay("manifest");
}

#[test]
fn answers_of_consul() {
    replay("consul");
}

#[test]
fn files_of_settings() {
    replay("config");
}

#[test]
fn files_of_addons() {
    replay("addons");
}

#[test]
fn files_of_main_summary() {
    replay("main_summary");
}

#[test]
fn files_of_pings() {
    replay("pings");
}

/// A footer whose schema nests deeply, at eight bytes per level: a recursive parser would overflow the stack.
#[test]
fn a_schema_that_nests_too_deep_is_rejected() {
    const LEVELS: usize = 150_000;
    let size = |mut value: usize| {
        let mut bytes = vec![];
        while value > 0x7f {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    };
    // Version 1; a list of nodes, each with repetition 0, name "g" and one child; the last is an integer.
    let mut footer = vec![0x15, 2, 0x19, 0xfc];
    footer.extend(size(LEVELS + 1));
    footer.extend([0x35, 0, 0x18, 1, b'g', 0x15, 2, 0].repeat(LEVELS));
    footer.extend([0x15, 2, 0x25, 0, 0x18, 1, b'c', 0]);
    // No rows and no row groups.
    footer.extend([0x16, 0, 0x19, 0x0c, 0]);
    let length = u32::try_from(footer.len()).expect("a short footer").to_le_bytes();
    let file = [b"PAR1", &footer[..], &length, b"PAR1"].concat();
    for kind in Kind::ALL {
        let error = Reader::new(kind).expect("a day").read(&file).expect_err("it is refused");
        assert!(error.contains("part-0.parquet") && error.contains("nests too deep"), "{error}");
    }
}

/// Each target must be replayed, and have a fuzzer.
#[test]
fn every_target_has_its_fuzzer() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("the fuzzers' manifest");
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
        assert!(fuzz.join(format!("fuzz_targets/{}.rs", target.name)).is_file(), "{}", target.name);
    }
}
