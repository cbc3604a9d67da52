//! Random days of `addon_aggregates_v2`, split at random, against the naive reference, in one process and on a cluster. A
//! failure prints the shape (with its seed) that proptest shrank it to; the same shape always gives the same day.
//! `PROPTEST_CASES` sets the number of cases.

use anyhow::{Context, Result};
use proptest::prelude::*;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::golden_v2::DATE;
use tally_tests::naive_v2::aggregate;
use tally_tests::output::Place;
use tally_tests::output_v2::{SUMS, check_summary, read_output, summary_of, with_job};
use tally_tests::process::Tally;
use tally_tests::random_v2::{ShapeV2, random_day};
use tally_tests::seeds::cases;
use tally_tests::table;

/// How a job is split.
#[derive(Clone, Debug)]
struct Cut {
    workers: usize,
    threads: usize,
    shard_bytes: u64,
}

fn shape() -> impl Strategy<Value = ShapeV2> {
    (any::<u64>(), 0..20usize, 0..12usize, 1..6usize).prop_map(|(seed, clients, pings, files)| ShapeV2 {
        seed,
        clients,
        pings,
        files,
    })
}

fn cut() -> impl Strategy<Value = Cut> {
    let shard_bytes = prop_oneof![Just(1u64), 100..5_000u64, Just(1 << 30)];
    (1..4usize, 0..3usize, shard_bytes).prop_map(|(workers, more, shard_bytes)| Cut {
        workers,
        threads: workers + more,
        shard_bytes,
    })
}

fn check(shape: ShapeV2, place: &Place, command: Tally) -> Result<()> {
    let day = random_day(shape);
    let root = place.path().join("day");
    if root.exists() {
        std::fs::remove_dir_all(&root)?;
    }
    day.write(&root, DATE)?;
    let pilots = place.path().join("pilots.txt");
    if let Some(text) = &day.pilots_file {
        std::fs::write(&pilots, text)?;
    }
    let expected = aggregate(&day.pings()?, day.widths, &day.pilots);
    let file = day.pilots_file.is_some().then_some(pilots.as_path());
    let summary = summary_of(with_job(command, &root, place, DATE, file))?;
    table::compare(&read_output(place, DATE)?, &expected)?;
    check_summary(&summary, &expected)
}

fn run(cut: &Cut) -> Tally {
    Tally::new("run")
        .args(["--workers", &cut.workers.to_string(), "--threads", &cut.threads.to_string()])
        .args(["--shard-bytes", &cut.shard_bytes.to_string()])
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases().unwrap_or(60),
        failure_persistence: None,
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_days_match_the_naive_reference(shape in shape(), cut in cut()) {
        let place = Place::new().expect("a temporary folder");
        let result = check(shape, &place, run(&cut));
        prop_assert!(result.is_ok(), "{:?}", result);
    }
}

/// The same few larger days in every run, so that a failure on one machine is a failure on all.
#[test]
fn fixed_days_match_the_naive_reference() -> Result<()> {
    let cut = Cut { workers: 2, threads: 2, shard_bytes: 500 };
    for seed in 0..8 {
        let shape = ShapeV2 { seed, clients: 30, pings: 15, files: 6 };
        check(shape, &Place::new()?, run(&cut)).with_context(|| format!("{shape:?} {cut:?}"))?;
    }
    Ok(())
}

/// The totals of the generator, which shares no code with the engine.
#[test]
fn a_generated_day_has_the_totals_of_its_generator() -> Result<()> {
    let place = Place::new()?;
    let root = place.path().join("day");
    let generated = Tally::new("generate")
        .args(["--dataset", "addon_aggregates_v2", "--clients", "20000", "--date", DATE])
        .args(["--output-format", "json", "--output"])
        .args([&root])
        .run()?
        .expect_code(0)?;
    let expected: serde_json::Value = serde_json::from_str(&generated.stdout)?;
    for shard_bytes in [1, 1 << 30] {
        let cut = Cut { workers: 2, threads: 2, shard_bytes };
        let summary = summary_of(with_job(run(&cut), &root, &place, DATE, None))?;
        let rows = read_output(&place, DATE)?;
        check_summary(&summary, &rows)?;
        assert_eq!(expected["rows"], rows.len());
        assert_eq!(expected["n_clients"], summary.n_clients);
        for (at, name) in SUMS.iter().enumerate() {
            assert_eq!(expected[name], rows.iter().map(|row| row.sums[at]).sum::<i64>(), "{name}");
        }
    }
    Ok(())
}

#[test]
fn random_days_match_the_naive_reference_on_a_cluster() -> Result<()> {
    with_cluster(Setup::default(), |cluster| {
        let (client, place) = (cluster.client(), Place::new()?);
        for seed in 100..112 {
            let shape = ShapeV2 { seed, clients: 25, pings: 12, files: 1 + seed as usize % 7 };
            let bytes = ["1", "700", "1GiB"][seed as usize % 3];
            let command = client.tally("submit").args(["--shard-bytes", bytes]);
            check(shape, &place, command).with_context(|| format!("{shape:?}, {bytes} per shard"))?;
        }
        Ok(())
    })
}
