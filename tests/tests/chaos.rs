//! Processes that are killed, frozen, cut off or asked to stop, each at each stage of a job: the output is exact, is
//! published once and in time, and nothing else is left. Each fault is one row of a table; `check` is the only test.
//!
//! Not here: several faults in a row (`chaos_random`); those of the leader and of Consul (`chaos_leader`).

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::faults::{Drain, Fault, Moment};
use tally_tests::cluster::nodes::QUICK;
use tally_tests::cluster::truth::{DAY, MANY_TASKS};
use tally_tests::cluster::view::JobView;
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::golden::DATE;
use tally_tests::output::{Place, check_unchanged, snapshot, snapshot_without_staging};

/// When the fault may be undone.
#[derive(Clone, Copy, Debug)]
enum Mend {
    /// At once, while the job is still at the same moment.
    AtOnce,
    /// When the job is over: it must succeed without the process.
    Afterwards,
}

/// How many finished tasks may run again.
#[derive(Clone, Copy, Debug)]
enum Reruns {
    /// None: nothing was lost.
    Nothing,
    /// At most as many as the affected worker held.
    WhatWasLost,
    /// Those, and the ones it finished since, while no worker could read its outputs.
    WhatNoWorkerReads,
}

struct Case {
    at: Moment,
    fault: Fault,
    mend: Mend,
    reruns: Reruns,
}

/// Runs a job, injects the fault, and checks everything that must hold.
fn check(cluster: &mut Cluster, case: &Case) -> Result<()> {
    let client = cluster.client();
    let place = Place::new()?;
    let (job, before) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, case.at)?;
    let id = job.id.clone();
    let held = match case.fault {
        Fault::KillWorker(at) | Fault::FreezeWorker(at) | Fault::CutData(at) | Fault::CutControl(at) => {
            cluster.worker_view(at)?.outputs
        }
        Fault::KillAllWorkers => client.workers()?.iter().map(|worker| worker.outputs).sum(),
        _ => 0,
    };
    cluster.inject(case.fault)?;
    if matches!(case.mend, Mend::AtOnce) {
        cluster.mend(case.fault)?;
    }
    cluster.release_but(case.fault)?;
    let summary = job.done()?;
    if matches!(case.mend, Mend::Afterwards) {
        cluster.mend(case.fault)?;
    }
    DAY.check_summary(&place, &summary)?;
    let over = client.wait_over(&id)?;
    let most = match case.reruns {
        Reruns::Nothing => 0,
        Reruns::WhatWasLost => held,
        Reruns::WhatNoWorkerReads => held + to_come(&before, &over)?,
    };
    ensure!(
        over.reruns() <= most,
        "{} tasks were done again, {most} at most were lost: {over:?}",
        over.reruns()
    );
    cluster.wait_attached(3)?;
    cluster.wait_empty()
}

/// Outputs that were still to be produced for other tasks.
fn to_come(before: &JobView, over: &JobView) -> Result<u64> {
    ["map", "reduce"]
        .map(|name| Ok(over.stage(name)?.tasks - before.stage(name).map_or(0, |stage| stage.done)))
        .into_iter()
        .sum()
}

const STAGES: [Moment; 3] =
    [Moment::Stage("map", 0.5), Moment::Stage("reduce", 0.5), Moment::Stage("write", 0.1)];

/// A fault at each stage, on one cluster.
fn check_stages(setup: Setup, cases: &[(Fault, Mend, Reruns)]) -> Result<()> {
    with_cluster(setup, |cluster| {
        for &(fault, mend, reruns) in cases {
            for at in STAGES {
                check(cluster, &Case { at, fault, mend, reruns })
                    .with_context(|| format!("{fault:?} at {at}"))?;
            }
        }
        Ok(())
    })
}

#[test]
fn killed_workers() -> Result<()> {
    check_stages(
        Setup::quick(),
        &[
            (Fault::KillWorker(1), Mend::Afterwards, Reruns::WhatWasLost),
            (Fault::KillAllWorkers, Mend::AtOnce, Reruns::WhatWasLost),
        ],
    )
}

#[test]
fn drained_workers() -> Result<()> {
    check_stages(
        Setup::quick(),
        &[
            (Fault::DrainWorker(0, Drain::Signal), Mend::Afterwards, Reruns::Nothing),
            (Fault::DrainWorker(1, Drain::Command), Mend::Afterwards, Reruns::Nothing),
        ],
    )
}

#[test]
fn hung_workers() -> Result<()> {
    check_stages(Setup::quick(), &[(Fault::FreezeWorker(2), Mend::Afterwards, Reruns::WhatWasLost)])
}

#[test]
fn cut_networks() -> Result<()> {
    check_stages(
        Setup { proxied: true, ..Setup::quick() },
        &[
            (Fault::CutData(0), Mend::Afterwards, Reruns::WhatNoWorkerReads),
            (Fault::CutControl(1), Mend::Afterwards, Reruns::WhatWasLost),
            (Fault::BreakControl(2), Mend::AtOnce, Reruns::Nothing),
        ],
    )
}

#[test]
fn coordinators_that_come_back() -> Result<()> {
    check_stages(
        Setup::quick(),
        &[
            (Fault::KillCoordinator(0), Mend::AtOnce, Reruns::Nothing),
            (Fault::EndCoordinator(0), Mend::AtOnce, Reruns::Nothing),
        ],
    )
}

/// Killed around the exchange, repeatedly: before it, during it, after it.
#[test]
fn a_coordinator_that_dies_while_it_publishes() -> Result<()> {
    with_cluster(Setup::quick(), |cluster| {
        for round in 0..5 {
            let case = Case {
                at: Moment::Committed,
                fault: Fault::KillCoordinator(0),
                mend: Mend::AtOnce,
                reruns: Reruns::Nothing,
            };
            check(cluster, &case).with_context(|| format!("round {round}"))?;
        }
        Ok(())
    })
}

/// A slow worker gets a speculative attempt of its task; when it continues, none of its outputs is lost.
#[test]
fn a_slow_worker() -> Result<()> {
    // With the default timeouts: it counts as slow before it counts as lost.
    with_cluster(Setup::default(), |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.8))?;
        let lag = Fault::FreezeWorker(0);
        cluster.release_but(lag)?;
        let second = |job: &JobView| job.stages.iter().any(|stage| stage.second_attempts > 0);
        cluster.client().wait_for_job(&job.id, "a speculative attempt", second)?;
        cluster.mend(lag)?;
        let id = job.id.clone();
        DAY.check_summary(&place, &job.done()?)?;
        let over = cluster.client().job(&id)?;
        ensure!(over.reruns() == 0, "finished tasks were done reruns: {over:?}");
        cluster.wait_attached(3)?;
        cluster.wait_empty()
    })
}

/// Without any worker, a job waits and reports it; with new workers it continues, and without them it fails in time
/// with the reason.
#[test]
fn no_worker_is_left() -> Result<()> {
    let limit = ["--no-workers-timeout", "6s"];
    let coordinator_flags = [QUICK, &limit].concat();
    with_cluster(Setup { coordinator_flags, ..Setup::default() }, |cluster| {
        for come_back in [true, false] {
            let context = || format!("workers come back: {come_back}");
            let place = Place::new()?;
            place.put_old_output(DATE)?;
            let (job, _) =
                cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("reduce", 0.3))?;
            let before = snapshot_without_staging(&place.published())?;
            cluster.inject(Fault::KillAllWorkers)?;
            let waits = |job: &JobView| job.state == "waiting_for_workers";
            cluster.client().wait_for_job(&job.id, "a job that waits", waits).with_context(context)?;
            if come_back {
                cluster.mend(Fault::KillAllWorkers)?;
                DAY.check_summary(&place, &job.done()?).with_context(context)?;
            } else {
                job.ended()?.expect_failure(1, &["no worker", "6 s"]).with_context(context)?;
                check_unchanged(&before, &snapshot(&place.published())?)?;
                cluster.mend(Fault::KillAllWorkers)?;
            }
            cluster.wait_attached(3)?;
            cluster.wait_empty()?;
        }
        Ok(())
    })
}
