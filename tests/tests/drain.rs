//! Workers of a real cluster that are asked to stop in the middle of a job: they migrate their outputs by Flight, no
//! task runs again, and they exit with 0. A worker that cannot migrate in time reports it, and only its outputs are
//! computed again.
//!
//! Not here: other faults, and drains among them (`chaos`, `chaos_random`); the messages on the wire (the crates' own
//! tests).

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::faults::{Drain, Fault, Moment};
use tally_tests::cluster::truth::{DAY, MANY_TASKS};
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::output::Place;

/// What a worker logs after it has taken over an output of another one.
const TAKEN: &str = "an output was migrated to this worker";
/// What a worker logs that leaves nothing behind.
const DRAINED: &str = "drained: nothing that is needed was lost";
/// The exit code of a worker whose outputs were lost.
const LOST: i32 = 3;

/// The number of outputs that were migrated so far.
fn taken(cluster: &Cluster) -> usize {
    cluster.workers.iter().map(|worker| worker.process.said().matches(TAKEN).count()).sum()
}

/// Waits until a draining worker has ended: it must log that nothing was lost.
fn drained(cluster: &mut Cluster, at: usize) -> Result<()> {
    let process = &mut cluster.workers[at].process;
    process.wait_done(DEADLINE)?;
    ensure!(process.said().contains(DRAINED), "{} does not say that it is drained", process.name());
    Ok(())
}

/// Whether the job has an event of that kind.
fn has_event(cluster: &Cluster, job: &str, kind: &str) -> Result<bool> {
    Ok(cluster.client().events(job)?.iter().any(|event| event.kind == kind))
}

/// No task ran again, no map task failed, and no worker counts as lost.
fn check_nothing_again(cluster: &Cluster, job: &str) -> Result<()> {
    let over = cluster.client().job(job)?;
    ensure!(over.reruns() == 0, "finished tasks were done again: {over:?}");
    ensure!(over.stage("map")?.failed_attempts == 0, "map tasks failed: {over:?}");
    ensure!(!has_event(cluster, job, "worker_lost")?, "a drained worker counts as lost");
    Ok(())
}

/// Drains a worker while a job is at `at`; returns the number of outputs that were migrated.
fn check(cluster: &mut Cluster, at: Moment, drain: Drain) -> Result<usize> {
    let place = Place::new()?;
    let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, at)?;
    let id = job.id.clone();
    let held = cluster.worker_view(0)?.outputs;
    ensure!(held > 0, "worker 0 holds nothing at {at}");
    let before = taken(cluster);
    let fault = Fault::DrainWorker(0, drain);
    cluster.inject(fault)?;
    cluster.release_but(fault)?;
    drained(cluster, 0)?;
    let migrated = taken(cluster) - before;
    let summary = job.done()?;
    DAY.check_summary(&place, &summary)?;
    check_nothing_again(cluster, &id)?;
    cluster.mend(fault)?;
    cluster.wait_attached(3)?;
    cluster.wait_empty()?;
    Ok(migrated)
}

fn a_drain_during_map_and_reduce_loses_nothing() -> Result<()> {
    with_cluster(Setup::quick(), |cluster| {
        for (name, share) in [("map", 0.5), ("reduce", 0.5)] {
            for drain in [Drain::Signal, Drain::Command] {
                let at = Moment::Stage(name, share);
                let migrated = check(cluster, at, drain).with_context(|| format!("{drain:?} at {at}"))?;
                println!("{drain:?} at {at}: {migrated} outputs were migrated");
                // Later, a job may be over before there is anything to migrate.
                ensure!(migrated > 0 || name != "map", "{drain:?} at {at}: nothing was migrated");
            }
        }
        Ok(())
    })
}

fn all_workers_are_replaced_during_a_job() -> Result<()> {
    with_cluster(Setup::quick(), |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.3))?;
        let id = job.id.clone();
        cluster.release_but(Fault::DrainWorker(0, Drain::Signal))?;
        for at in 0..3 {
            let fault = Fault::DrainWorker(at, Drain::Signal);
            cluster.inject(fault)?;
            drained(cluster, at)?;
            cluster.mend(fault)?;
        }
        DAY.check_summary(&place, &job.done()?)?;
        check_nothing_again(cluster, &id)?;
        cluster.wait_attached(3)?;
        cluster.wait_empty()
    })
}

/// Maintenance in Consul, of the service that the worker's agent knows: the third way to ask it to stop.
fn consul_s_maintenance_drains_a_worker_that_holds_outputs() -> Result<()> {
    with_cluster(Setup { consul: true, ..Setup::quick() }, |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.5))?;
        let id = job.id.clone();
        let worker = cluster.worker_view(0)?;
        ensure!(worker.outputs > 0, "it holds nothing: {worker:?}");
        let consul = cluster.consul.as_ref().context("no Consul")?;
        let service = format!("tally-worker-{}", worker.worker_id);
        consul.put(&format!("/v1/agent/service/maintenance/{service}?enable=true&reason=upgrade"))?;
        cluster.release()?;
        drained(cluster, 0)?;
        DAY.check_summary(&place, &job.done()?)?;
        check_nothing_again(cluster, &id)?;
        cluster.workers[0].restart()?;
        cluster.wait_attached(3)?;
        cluster.wait_empty()
    })
}

fn a_worker_without_a_target_waits_for_another_one() -> Result<()> {
    with_cluster(Setup { workers: 1, ..Setup::quick() }, |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.5))?;
        let id = job.id.clone();
        let fault = Fault::DrainWorker(0, Drain::Signal);
        cluster.inject(fault)?;
        cluster.release_but(fault)?;
        cluster.client().wait_for_workers("a draining worker alone", |workers| {
            workers.len() == 1 && workers[0].state == "draining" && workers[0].running == 0
        })?;
        ensure!(cluster.workers[0].process.ended()?.is_none(), "it ended, and its outputs were lost");
        cluster.add_worker()?;
        drained(cluster, 0)?;
        DAY.check_summary(&place, &job.done()?)?;
        check_nothing_again(cluster, &id)?;
        ensure!(has_event(cluster, &id, "worker_left")?, "the event of the end of the drain is missing");
        cluster.wait_attached(1)?;
        cluster.wait_empty()
    })
}

fn a_drain_that_takes_too_long_is_reported_and_lost_outputs_are_computed_again() -> Result<()> {
    let setup = Setup { workers: 1, worker_flags: vec!["--drain-timeout", "1s"], ..Setup::quick() };
    with_cluster(setup, |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.5))?;
        let id = job.id.clone();
        let held = cluster.worker_view(0)?.outputs;
        let fault = Fault::DrainWorker(0, Drain::Signal);
        cluster.inject(fault)?;
        cluster.release_but(fault)?;
        let process = &mut cluster.workers[0].process;
        let status = process.wait(DEADLINE)?;
        ensure!(status.code() == Some(LOST), "it ended with {status}");
        ensure!(process.said().contains("took longer than --drain-timeout"), "it does not say why");
        cluster.workers[0].restart()?;
        DAY.check_summary(&place, &job.done()?)?;
        let over = cluster.client().job(&id)?;
        // Its outputs, and tasks that ended after they were counted: one was running, one's report was in flight.
        ensure!((held..=held + 2).contains(&over.reruns()), "{held} outputs were lost: {over:?}");
        ensure!(has_event(cluster, &id, "worker_lost")?, "the event of the loss is missing");
        cluster.wait_attached(1)?;
        cluster.wait_empty()
    })
}

tally_tests::tests![
    a_drain_during_map_and_reduce_loses_nothing,
    all_workers_are_replaced_during_a_job,
    consul_s_maintenance_drains_a_worker_that_holds_outputs,
    a_worker_without_a_target_waits_for_another_one,
    a_drain_that_takes_too_long_is_reported_and_lost_outputs_are_computed_again,
];
