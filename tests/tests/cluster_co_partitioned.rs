//! Days whose folders are laid out like the partitions of the shuffle, on a cluster of real processes: little of the shuffle
//! crosses the network. Other days are exact, too.
//!
//! Not here: placement itself (the scheduler's `affinity`).

use anyhow::{Result, ensure};
use tally_tests::cluster::client::Client;
use tally_tests::cluster::truth::{DAY, Truth};
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::golden_v2::DATE;
use tally_tests::naive_v2::{TEST_PILOT, aggregate};
use tally_tests::output::Place;
use tally_tests::output_v2::{check_summary, read_output, summary_of, with_job};
use tally_tests::pings_v2::read_pings;
use tally_tests::process::{Summary, Tally};
use tally_tests::table;

/// The share of the shuffle's bytes that crossed the network.
fn share(network: u64, all: u64) -> f64 {
    network as f64 / all.max(1) as f64
}

fn network_share(summary: &Summary) -> f64 {
    share(summary.shuffle_network_bytes, summary.shuffle_bytes)
}

/// Jobs of which one has to show the share: on a busy machine a worker may become slow between the stages, and the others
/// take its tasks.
const JOBS: usize = 5;
/// The largest share with the planner's numbers.
const LIMIT: f64 = 0.1;
/// The same with other numbers of partitions: each that another worker takes is a larger part of the shuffle.
const LIMIT_OF_FEW: f64 = 0.2;

/// The smallest share of the shuffle that crossed the network, until one is at most `most`. Every job has to be exact.
fn smallest_share(client: &Client, flags: &[&str], most: f64) -> Result<f64> {
    let mut smallest = f64::INFINITY;
    for _ in 0..JOBS {
        let place = Place::new()?;
        let summary = client.submit_command(&DAY.root, &place, flags).run()?.summary()?;
        DAY.check_summary(&place, &summary)?;
        ensure!(summary.shuffle_bytes > 1 << 20, "{summary:?}");
        let share = network_share(&summary);
        println!("{flags:?}: {share:.3} of {} bytes crossed the network", summary.shuffle_bytes);
        smallest = smallest.min(share);
        if smallest <= most {
            break;
        }
    }
    Ok(smallest)
}

#[test]
fn at_most_a_tenth_of_the_shuffle_of_a_co_partitioned_day_crosses_the_network() -> Result<()> {
    for worker_slots in ["1", "2"] {
        with_cluster(Setup { worker_slots, ..Setup::default() }, |cluster| {
            let client = cluster.client();
            // With the planner's numbers, and with partitions of several samples and of parts of a sample.
            let few = [&["--partitions", "50"][..], &["--partitions", "200"]];
            for (flags, most) in [(&[][..], LIMIT), (few[0], LIMIT_OF_FEW), (few[1], LIMIT_OF_FEW)] {
                let share = smallest_share(&client, flags, most)?;
                ensure!(share <= most, "{share} of the shuffle crossed the network with {flags:?}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The folders of a shuffled day have the same names, and say nothing about its rows.
#[test]
fn a_day_whose_folders_say_nothing_is_exact() -> Result<()> {
    let day = Truth::new(&["--clients", "100000", "--narrow", "--shuffle"])?;
    with_cluster(Setup::default(), |cluster| {
        let place = Place::new()?;
        let summary = cluster.client().submit_command(&day.root, &place, &[]).run()?.summary()?;
        day.check_summary(&place, &summary)?;
        let share = network_share(&summary);
        ensure!(share > 0.3, "only {share} of the shuffle crossed the network: {summary:?}");
        Ok(())
    })
}

/// Every job has to be exact, and one of [`JOBS`] has to show the share.
#[test]
fn at_most_a_tenth_of_the_shuffle_of_version_2_crosses_the_network() -> Result<()> {
    let place = Place::new()?;
    let root = place.path().join("day");
    Tally::new("generate")
        .args(["--dataset", "addon_aggregates_v2", "--clients", "50000", "--date", DATE, "--output"])
        .args([&root])
        .run()?
        .expect_code(0)?;
    let (pings, widths) = read_pings(&root.join(format!("main_summary/v4/submission_date_s3={DATE}")))?;
    let expected = aggregate(&pings, widths, &[TEST_PILOT.to_string()]);
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        let mut smallest = f64::INFINITY;
        for _ in 0..JOBS {
            let summary = summary_of(with_job(client.tally("submit"), &root, &place, DATE, None))?;
            table::compare(&read_output(&place, DATE)?, &expected)?;
            check_summary(&summary, &expected)?;
            ensure!(summary.shuffle_bytes > 1 << 20, "{summary:?}");
            let share = share(summary.shuffle_network_bytes, summary.shuffle_bytes);
            println!("version 2: {share:.3} of {} bytes crossed the network", summary.shuffle_bytes);
            smallest = smallest.min(share);
            if smallest <= LIMIT {
                return Ok(());
            }
        }
        anyhow::bail!("{smallest} of the shuffle crossed the network")
    })
}
