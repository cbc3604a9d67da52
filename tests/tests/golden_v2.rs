//! Every golden case of `addon_aggregates_v2` gives exactly the output of Spark, in one process and on a cluster.

use std::ffi::OsStr;

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::golden_tests;
use tally_tests::golden_v2::{CASES, Case, DATE};
use tally_tests::naive_v2::{TEST_PILOT, aggregate};
use tally_tests::output::Place;
use tally_tests::output_v2::{check_summary, read_output, summary_of, with_job};
use tally_tests::pings_v2::read_pings;
use tally_tests::process::Tally;
use tally_tests::table;

/// Flags that split the same day in different ways; the first are the defaults.
const CUTS: [&[&str]; 4] = [
    &[],
    &["--workers", "1", "--threads", "1", "--memory-limit", "256MiB", "--shard-bytes", "1"],
    &["--workers", "2", "--threads", "4", "--memory-limit", "2GiB", "--shard-bytes", "512"],
    &["--workers", "3", "--threads", "3", "--memory-limit", "2GiB", "--shard-bytes", "1GiB"],
];

fn check_case(case: &Case, place: &Place, command: Tally) -> Result<()> {
    let expected = case.expected_rows()?;
    let command = with_job(command, &case.dir, place, DATE, case.pilots_file().as_deref());
    let summary = summary_of(command)?;
    table::compare(&read_output(place, DATE)?, &expected)?;
    ensure!(summary.date == DATE, "{summary:?}");
    check_summary(&summary, &expected)
}

fn check(name: &str) -> Result<()> {
    let case = Case::new(name);
    // One output for all runs: each replaces that of the previous one.
    let place = Place::new()?;
    for cut in CUTS {
        let spill = place.spill();
        let command = Tally::new("run").args(cut).args([OsStr::new("--spill-dir"), spill.as_os_str()]);
        check_case(&case, &place, command).with_context(|| format!("{name} with {cut:?}"))?;
    }
    Ok(())
}

golden_tests! {
    CASES, check;
    case_01: "case-01",
    case_02: "case-02",
    case_03: "case-03",
    case_04: "case-04",
    case_05: "case-05",
    case_06: "case-06",
    case_07: "case-07",
    case_08: "case-08",
    case_09: "case-09",
    case_10: "case-10",
    case_11: "case-11",
    case_12: "case-12",
    case_13: "case-13",
}

#[test]
fn golden_cases_on_a_cluster_of_three_workers() -> Result<()> {
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        for name in CASES {
            let (case, place) = (Case::new(name), Place::new()?);
            for flags in [&[][..], &["--shard-bytes", "512"]] {
                let command = client.tally("submit").args(flags);
                check_case(&case, &place, command).with_context(|| format!("{name} with {flags:?}"))?;
            }
        }
        Ok(())
    })
}

/// Map tasks of jobs with other options alternate in the only slot.
#[test]
fn jobs_with_other_options_share_a_slot() -> Result<()> {
    let mut found = None;
    for case in CASES.map(Case::new) {
        let day = case.dir.join(format!("main_summary/v4/submission_date_s3={DATE}"));
        let (pings, widths) = read_pings(&day)?;
        let plain = aggregate(&pings, widths, &[TEST_PILOT.to_string()]);
        if plain != case.expected_rows()? {
            found = Some((case, plain));
        }
    }
    let (case, plain) = found.context("the ids of no case change its rows")?;
    with_cluster(Setup { workers: 1, ..Setup::default() }, |cluster| {
        let client = cluster.client();
        let file = case.pilots_file();
        for _ in 0..5 {
            let mut jobs = vec![];
            for (pilots, expected) in [(file.as_deref(), case.expected_rows()?), (None, plain.clone())] {
                let place = Place::new()?;
                let command = client.tally("submit").args(["--shard-bytes", "1"]);
                jobs.push((with_job(command, &case.dir, &place, DATE, pilots).spawn()?, place, expected));
            }
            for (running, place, expected) in jobs {
                running.wait()?.expect_code(0)?;
                table::compare(&read_output(&place, DATE)?, &expected)?;
            }
        }
        Ok(())
    })
}

/// A sample that has no rows any more loses those that it had.
#[test]
fn samples_without_rows_replace_those_that_had_some() -> Result<()> {
    let place = Place::new()?;
    for name in ["case-04", "case-06"] {
        check_case(&Case::new(name), &place, Tally::new("run")).with_context(|| name.to_string())?;
    }
    Ok(())
}
