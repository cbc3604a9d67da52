//! Random days, split at random, against the naive reference. A failure prints the shape (with its seed) that proptest
//! shrank it to; the same shape always gives the same day. `PROPTEST_CASES` sets the number of cases.

use anyhow::{Context, Result};
use proptest::prelude::*;
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::process::Tally;
use tally_tests::random::{Shape, random_day};
use tally_tests::seeds::cases;
use tally_tests::{naive, table};

/// How a job is split.
#[derive(Clone, Debug)]
struct Cut {
    workers: usize,
    threads: usize,
    partitions: usize,
    shard_bytes: u64,
}

fn shape() -> impl Strategy<Value = Shape> {
    let heavy = prop_oneof![3 => Just(0usize), 1 => 1..300usize];
    (any::<u64>(), 0..24usize, 0..10usize, 1..5usize, heavy)
        .prop_map(|(seed, clients, rows, files, heavy)| Shape { seed, clients, rows, files, heavy })
}

fn cut() -> impl Strategy<Value = Cut> {
    let shard_bytes = prop_oneof![Just(1u64), 100..5_000u64, Just(1 << 30)];
    let partitions = prop_oneof![Just(1usize), 2..9usize, Just(101)];
    (1..4usize, 0..3usize, partitions, shard_bytes).prop_map(|(workers, more, partitions, shard_bytes)| Cut {
        workers,
        threads: workers + more,
        partitions,
        shard_bytes,
    })
}

fn check(shape: Shape, cut: &Cut, place: &Place) -> Result<()> {
    let day = random_day(shape);
    let root = place.path().join("day");
    day.write(&root, DATE)?;
    let expected = naive::aggregate(&day.main_rows(), &day.addon_rows());
    let summary = Tally::job(&root, place)
        .date(DATE)
        .args(["--workers", &cut.workers.to_string(), "--threads", &cut.threads.to_string()])
        .args(["--partitions", &cut.partitions.to_string(), "--shard-bytes", &cut.shard_bytes.to_string()])
        .run()?
        .summary()?;
    table::compare(&place.read_output(DATE)?, &expected.rows)?;
    assert_eq!(summary.rows, expected.rows.len() as u64);
    assert_eq!(summary.n_clients, expected.n_clients as u64);
    assert_eq!(summary.n_custom_theme_clients, expected.n_custom_theme_clients as u64);
    Ok(())
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
        let result = check(shape, &cut, &place);
        prop_assert!(result.is_ok(), "{:?}", result);
    }
}

/// The same few larger days in every run, so that a failure on one machine is a failure on all.
#[test]
fn fixed_days_match_the_naive_reference() -> Result<()> {
    let cut = Cut { workers: 2, threads: 2, partitions: 5, shard_bytes: 500 };
    for seed in 0..6 {
        let place = Place::new()?;
        let shape = Shape { seed, clients: 20, rows: 9, files: 4, heavy: 400 };
        check(shape, &cut, &place).with_context(|| format!("{shape:?} {cut:?}"))?;
    }
    Ok(())
}
