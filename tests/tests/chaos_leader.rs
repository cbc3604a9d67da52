//! Two coordinators that elect a leader through a real Consul: the leader dies, is asked to stop, or hangs, at each
//! stage of a job; and Consul itself dies, hangs, or restarts without its data. The output is exact and published once;
//! a standby takes over in time; a waiting `tally submit` follows; the former leader changes nothing.
//!
//! Not here: workers that fail (`chaos`), one coordinator alone (there, too).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::faults::{Fault, Moment};
use tally_tests::cluster::truth::{DAY, MANY_TASKS};
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::golden::{Case, DATE};
use tally_tests::output::{Place, check_unchanged, snapshot};
use tally_tests::table;
use tally_tests::wait::{PATIENT, wait_every};

/// A session of Consul ends 20 s after its last renewal, twice its TTL, and the standby claims an epoch at once:
/// measured are 17 to 20 s, also on a busy machine; the rest is for a machine that stalls.
const AFTER_A_KILL: Duration = Duration::from_secs(30);
/// Measured are 0.1 s. Far less than the minimum of 17 s without a release of the key.
const AFTER_AN_END: Duration = Duration::from_secs(8);

fn setup() -> Setup {
    Setup { coordinators: 2, consul: true, ..Setup::quick() }
}

/// Waits until another coordinator leads and answers; returns how long that took.
fn succeeded(cluster: &Cluster, before: usize, job: &str) -> Result<Duration> {
    let client = cluster.client();
    let start = Instant::now();
    wait_every(PATIENT, "another leader", DEADLINE, || {
        if cluster.leader()? == before {
            return Ok(None);
        }
        Ok(client.job_if_led(job)?.map(drop))
    })?;
    Ok(start.elapsed())
}

fn check(cluster: &mut Cluster, at: Moment, fault: fn(usize) -> Fault, within: Duration) -> Result<()> {
    let place = Place::new()?;
    let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, at)?;
    let id = job.id.clone();
    let old = cluster.leader()?;
    let fault = fault(old);
    cluster.inject(fault)?;
    cluster.release_but(fault)?;
    let took = succeeded(cluster, old, &id)?;
    println!("{fault:?} at {at}: another led after {:.1} s", took.as_secs_f64());
    ensure!(took <= within, "another leader after {took:?}");
    DAY.check_summary(&place, &job.done()?)?;
    let over = cluster.client().job(&id)?;
    ensure!(over.reruns() == 0, "finished tasks were done again: {over:?}");
    let published = snapshot(&place.published())?;
    cluster.mend(fault)?;
    // A former leader that returns finds that another one leads, and stays standby.
    cluster.wait_attached(3)?;
    ensure!(cluster.leader()? != old, "coordinator {old} took the lead back");
    let case = Case::new("case-05");
    let other = Place::new()?;
    cluster.client().submit_command(&case.dir, &other, &[]).run()?.summary()?;
    check_unchanged(&published, &snapshot(&place.published())?)?;
    cluster.wait_empty()
}

const STAGES: [Moment; 4] =
    [Moment::Stage("map", 0.5), Moment::Stage("reduce", 0.5), Moment::Stage("write", 0.1), Moment::Committed];

fn check_stages(stages: &[Moment], fault: fn(usize) -> Fault, within: Duration) -> Result<()> {
    with_cluster(setup(), |cluster| {
        for &at in stages {
            check(cluster, at, fault, within).with_context(|| at.to_string())?;
        }
        Ok(())
    })
}

fn a_leader_that_is_asked_to_go() -> Result<()> {
    check_stages(&STAGES[..3], Fault::EndCoordinator, AFTER_AN_END)
}

fn a_leader_that_is_killed() -> Result<()> {
    check_stages(&STAGES[..1], Fault::KillCoordinator, AFTER_A_KILL)
}

fn at_the_commit_a_leader_is_killed() -> Result<()> {
    check_stages(&STAGES[3..], Fault::KillCoordinator, AFTER_A_KILL)
}

/// The leader hangs until another has finished its job, resumes, and must not do anything more: also between its
/// decision to publish and the exchange, or after it.
fn a_leader_that_hangs() -> Result<()> {
    check_stages(&[STAGES[1], STAGES[3]], Fault::FreezeCoordinator, AFTER_A_KILL)
}

/// The leader continues, but its session ends: another one leads, and the former leader learns it from the journal.
fn a_leader_that_is_cut_off_from_consul() -> Result<()> {
    with_cluster(Setup { proxied: true, ..setup() }, |cluster| {
        check(cluster, STAGES[0], Fault::CutConsul, AFTER_A_KILL)
    })
}

/// It resumes in the middle of the job that another one leads now.
fn a_leader_that_wakes_up_in_the_middle() -> Result<()> {
    with_cluster(setup(), |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.2))?;
        let id = job.id.clone();
        let old = cluster.leader()?;
        cluster.inject(Fault::FreezeCoordinator(old))?;
        // The workers stay frozen: the job can't continue before the new leader is there.
        succeeded(cluster, old, &id)?;
        cluster.mend(Fault::FreezeCoordinator(old))?;
        cluster.release_but(Fault::FreezeCoordinator(old))?;
        DAY.check_summary(&place, &job.done()?)?;
        ensure!(cluster.leader()? != old, "coordinator {old} took the lead back");
        cluster.wait_attached(3)?;
        cluster.wait_empty()
    })
}

/// Consul ends in the middle of a job: the job succeeds; no other coordinator leads; new jobs are refused until Consul
/// is back.
fn check_consul_away(
    away: fn(&mut Cluster) -> Result<()>,
    back: fn(&mut Cluster) -> Result<()>,
) -> Result<()> {
    with_cluster(setup(), |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.3))?;
        let leader = cluster.leader()?;
        away(cluster)?;
        cluster.release_but(Fault::KillCoordinator(leader))?;
        DAY.check_summary(&place, &job.done()?)?;
        let direct = cluster.direct_client();
        let case = Case::new("case-05");
        let refused = wait_every(PATIENT, "a refusal", DEADLINE, || {
            let other = Place::new()?;
            let outcome = direct.submit_command(&case.dir, &other, &["--connect-timeout", "1s"]).run()?;
            Ok((outcome.code() != Some(0)).then_some(outcome))
        })?;
        refused.expect_any(&["consul"])?;
        ensure!(cluster.leader()? == leader, "another coordinator led without Consul");
        back(cluster)?;
        let other = Place::new()?;
        let summary = wait_every(PATIENT, "a job after Consul's return", DEADLINE, || {
            let outcome = cluster.client().submit_command(&case.dir, &other, &[]).run()?;
            if outcome.code() == Some(0) { outcome.summary().map(Some) } else { Ok(None) }
        })?;
        ensure!(summary.rows == case.totals()?.rows, "{summary:?}");
        table::compare(&other.read_output(DATE)?, &case.expected_rows()?)?;
        cluster.wait_attached(3)?;
        cluster.wait_empty()
    })
}

fn agent(cluster: &mut Cluster) -> Result<&mut tally_tests::consul::ConsulAgent> {
    cluster.consul.as_mut().context("the cluster has no Consul")
}

fn consul_that_is_killed_and_started_again() -> Result<()> {
    check_consul_away(|cluster| agent(cluster).map(|agent| agent.kill()), |cluster| agent(cluster)?.restart())
}

fn consul_that_hangs() -> Result<()> {
    check_consul_away(|cluster| agent(cluster)?.freeze(), |cluster| agent(cluster)?.thaw())
}

/// Restarted at once, in the middle of a job: the cluster is not affected.
fn consul_that_restarts_at_once() -> Result<()> {
    with_cluster(setup(), |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("reduce", 0.3))?;
        let id = job.id.clone();
        agent(cluster)?.restart()?;
        cluster.release_but(Fault::KillAllWorkers)?;
        DAY.check_summary(&place, &job.done()?)?;
        let over = cluster.direct_client().job(&id)?;
        ensure!(over.reruns() == 0, "finished tasks were done again: {over:?}");
        cluster.wait_attached(3)?;
        cluster.wait_empty()
    })
}

tally_tests::tests![
    a_leader_that_is_asked_to_go,
    a_leader_that_is_killed,
    at_the_commit_a_leader_is_killed,
    a_leader_that_hangs,
    a_leader_that_is_cut_off_from_consul,
    a_leader_that_wakes_up_in_the_middle,
    consul_that_is_killed_and_started_again,
    consul_that_hangs,
    consul_that_restarts_at_once,
];
