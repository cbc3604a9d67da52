//! `tally backfill` on a cluster of real processes: a failed day, another run that continues, Ctrl-C, no leader. In one
//! process: `ranges`.

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::client::{Client, DEADLINE, NO_LEADER};
use tally_tests::cluster::truth::Truth;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::golden::DATE;
use tally_tests::ports;
use tally_tests::ranges::{Range, THREE, days, states};
use tally_tests::wait::{PATIENT, wait_every};

/// The ends of [`THREE`].
const ENDS: [&str; 2] = [THREE[0], THREE[2]];

#[test]
fn a_backfill_on_a_cluster_continues_where_days_failed() -> Result<()> {
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        let range = Range::new(&[THREE[0], THREE[2]])?;
        let backfill = |flags: &[&str]| range.between(client.tally("backfill"), ENDS).args(flags).run();
        let outcome = backfill(&["--parallel", "3"])?;
        let outcome = outcome.expect_failure(1, &["1 of 3 days", DATE, "no data files"])?;
        assert_eq!(states(&outcome)?, ["done", "failed", "done"]);
        range.check_published(&[THREE[0], THREE[2]])?;
        range.add(DATE)?;
        let outcome = backfill(&["--only-missing"])?.expect_code(0)?;
        assert_eq!(states(&outcome)?, ["up_to_date", "done", "up_to_date"]);
        range.check_published(&THREE)?;
        let jobs = client.jobs()?;
        let id = days(&outcome)?[1].job_id.clone().context("no job")?;
        ensure!(jobs.len() == 4 && jobs[0].job_id == id, "{jobs:?}");
        Ok(())
    })
}

/// The running job continues, or is cancelled if asked to; no further day starts; the next run follows the running job.
#[test]
fn ctrl_c_starts_no_further_day() -> Result<()> {
    let truth = Truth::new(&["--clients", "200000", "--narrow"])?;
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        for cancel in [false, true] {
            let range = Range::new(&[])?;
            THREE.iter().try_for_each(|date| range.link(&truth.root, date))?;
            let backfill = || range.between(client.tally("backfill"), ENDS).args(["--shard-bytes", "50KB"]);
            let flags = if cancel { &["--cancel-on-interrupt"][..] } else { &[] };
            let mut running = backfill().args(flags).spawn()?;
            wait_every(PATIENT, "the map stage", DEADLINE, || {
                let ours = range.place.output().display().to_string();
                let jobs = client.jobs()?;
                Ok(jobs.iter().any(|job| job.output == ours && job.phase == "map").then_some(()))
            })?;
            running.wait_said("was accepted")?;
            running.interrupt()?;
            let outcome = running.wait()?.expect_failure(130, &["--only-missing"])?;
            let first = if cancel { "cancelled" } else { "running" };
            // A day may have been done before the signal came.
            let found = days(&outcome)?;
            let open: Vec<_> = found.iter().skip_while(|day| day.state == "done").collect();
            ensure!(open.iter().skip(1).all(|day| day.state == "not_started"), "{outcome}");
            if let Some(id) = open.first().and_then(|day| day.job_id.clone()) {
                ensure!(open[0].state == first, "{outcome}");
                ensure!(client.job(&id)?.is_over() || !cancel, "the job was not cancelled");
            }
            let outcome = backfill().args(["--only-missing", "--parallel", "2"]).run()?.expect_code(0)?;
            ensure!(
                states(&outcome)?.iter().all(|state| state == "done" || state == "up_to_date"),
                "{outcome}"
            );
            range.check_days(&THREE)?;
        }
        Ok(())
    })
}

#[test]
fn without_a_leader_no_further_day_starts() -> Result<()> {
    let range = Range::new(&THREE)?;
    let [port] = ports::free(&[])?;
    let address = format!("127.0.0.1:{}", port.number);
    let client =
        Client::new(["--coordinator", &address, "--connect-timeout", "500ms"].map(String::from).to_vec());
    let outcome = range.between(client.tally("backfill"), ENDS).run()?;
    let outcome = outcome.expect_failure(NO_LEADER, &[&address, "3 of 3 days"])?;
    assert_eq!(states(&outcome)?, ["unknown", "not_started", "not_started"]);
    range.check_days(&[])
}
