//! Workers that start and stop with the load, by the external scaler, with KEDA and the HPA simulated over real
//! processes. Its trace is written to the file that `TALLY_SCALING_TRACE` names.
//!
//! Not here: single drains (`drain`), what health and metrics say (`cluster_seen`).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_tests::autoscaler::{Autoscaler, Scaling};
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::faults::Moment;
use tally_tests::cluster::truth::Truth;
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::output::Place;

/// A job of many small tasks in all stages.
const FLAGS: &[&str] = &["--shard-bytes", "100KB", "--partitions", "24", "--target-file-size", "1MB"];
/// Maximum number of workers, before a user lowers it to half.
const MAX_WORKERS: usize = 4;
const JOBS_OF_BURST: usize = 4;

fn scaling() -> Scaling {
    Scaling {
        replicas: (0, MAX_WORKERS),
        slots_per_worker: "1",
        cooldown: Duration::from_secs(2),
        stabilization: Duration::from_secs(1),
    }
}

/// No finished task ran again, and no map task failed: drains lose nothing.
fn check_nothing_again(cluster: &Cluster, id: &str) -> Result<()> {
    let over = cluster.client().job(id)?;
    ensure!(over.state == "done", "{over:?}");
    ensure!(over.reruns() == 0, "finished tasks were done again: {over:?}");
    ensure!(over.stage("map")?.failed_attempts == 0, "map tasks failed: {over:?}");
    Ok(())
}

/// A job is submitted without any worker. The scaler requests one worker, then as many as there is work for.
fn from_zero(cluster: &mut Cluster, scaler: &mut Autoscaler, day: &Truth) -> Result<()> {
    scaler.phase = "from zero";
    scaler
        .until(cluster, "a quiet scaler", |scaler, _| Ok(scaler.is_active().is_ok_and(|active| !active)))?;
    ensure!(scaler.replicas() == 0, "there are workers without jobs");
    let place = Place::new()?;
    let job = cluster.client().submit(&day.root, &place, FLAGS)?;
    scaler.hold = true;
    let waiting = cluster
        .client()
        .wait_for_job(&job.id, "a job that waits", |job| job.state == "waiting_for_workers")?;
    let tasks = waiting.stage("map")?.tasks;
    ensure!(tasks > MAX_WORKERS as u64, "only {tasks} map tasks");
    scaler.until(cluster, "the work to be seen", |scaler, _| Ok(scaler.replicas() > 0))?;
    // New workers are frozen until all are attached, however slow this machine is.
    scaler.until(cluster, "as many workers as may be", |scaler, _| Ok(scaler.replicas() == MAX_WORKERS))?;
    scaler.hold = false;
    cluster.release()?;
    scaler.until(cluster, "the end of the first job", |_, cluster| {
        Ok(cluster.client().job(&job.id)?.is_over())
    })?;
    let id = job.id.clone();
    day.check_summary(&place, &job.done()?)?;
    check_nothing_again(cluster, &id)
}

/// Half of the workers stop in the middle of a job: no task runs again.
fn down_in_the_middle(cluster: &mut Cluster, scaler: &mut Autoscaler, day: &Truth) -> Result<()> {
    scaler.phase = "down in the middle";
    scaler.scaling.replicas = (MAX_WORKERS, MAX_WORKERS);
    scaler.until(cluster, "all workers at work", |_, cluster| {
        let workers = cluster.client().workers()?;
        Ok(workers.len() == MAX_WORKERS && workers.iter().all(|worker| worker.state == "attached"))
    })?;
    let place = Place::new()?;
    let (job, _) = cluster.submit_held(&day.root, &place, FLAGS, Moment::Stage("map", 0.5))?;
    scaler.scaling.replicas = (0, MAX_WORKERS / 2);
    scaler.step(cluster)?;
    ensure!(scaler.replicas() == MAX_WORKERS / 2, "{} workers", scaler.replicas());
    cluster.release()?;
    scaler.until(cluster, "the end of the second job", |_, cluster| {
        Ok(cluster.client().job(&job.id)?.is_over())
    })?;
    let id = job.id.clone();
    day.check_summary(&place, &job.done()?)?;
    scaler.scaling.replicas = (0, MAX_WORKERS);
    check_nothing_again(cluster, &id)
}

/// Several jobs at once, and the coordinator is restarted in the middle of them.
fn burst(cluster: &mut Cluster, scaler: &mut Autoscaler, day: &Truth) -> Result<()> {
    scaler.phase = "burst";
    let mut jobs = Vec::new();
    for _ in 0..JOBS_OF_BURST {
        let place = Place::new()?;
        jobs.push((cluster.client().submit_detached(&day.root, &place, FLAGS)?, place));
    }
    scaler.step(cluster)?;
    let before = scaler.replicas();
    cluster.coordinators[0].process.terminate()?;
    cluster.coordinators[0].process.wait_done(DEADLINE)?;
    scaler.phase = "no coordinator";
    for _ in 0..3 {
        scaler.step(cluster)?;
    }
    ensure!(scaler.replicas() == before, "workers started or stopped without a coordinator");
    cluster.coordinators[0].restart()?;
    scaler.phase = "burst";
    scaler.until(cluster, "the end of the burst", |_, cluster| {
        let Ok(listed) = cluster.client().jobs() else { return Ok(false) };
        let over = |id: &String| listed.iter().any(|job| job.job_id == *id && job.is_over());
        Ok(jobs.iter().all(|(id, _)| over(id)))
    })?;
    for (id, place) in jobs {
        check_nothing_again(cluster, &id)?;
        day.check(&place).with_context(|| id.clone())?;
    }
    Ok(())
}

/// No work is left: all workers stop, and lose nothing.
fn to_zero(cluster: &mut Cluster, scaler: &mut Autoscaler) -> Result<()> {
    scaler.phase = "to zero";
    scaler.until(cluster, "no workers", |scaler, _| Ok(scaler.replicas() == 0))?;
    scaler.until(cluster, "no worker attached", |_, cluster| Ok(cluster.client().workers()?.is_empty()))?;
    for worker in &mut cluster.workers {
        worker.process.wait_done(DEADLINE)?;
    }
    let lost = cluster.metrics()?.get("tally_workers_left_total{how=\"lost\"}").copied();
    ensure!(lost == Some(0.0), "{lost:?} workers were lost");
    Ok(())
}

#[test]
fn workers_follow_the_load_from_zero_to_zero_and_lose_nothing() -> Result<()> {
    let day = Truth::new(&["--clients", "300000", "--narrow"])?;
    // A worker that is frozen for a while is not dead.
    let coordinator_flags = vec!["--worker-timeout", "60000"];
    with_cluster(Setup { workers: 0, coordinator_flags, ..Setup::default() }, |cluster| {
        let address = cluster.coordinators[0].address().to_string();
        let mut scaler = Autoscaler::new(&address, scaling())?;
        let done = from_zero(cluster, &mut scaler, &day)
            .and_then(|()| down_in_the_middle(cluster, &mut scaler, &day))
            .and_then(|()| burst(cluster, &mut scaler, &day))
            .and_then(|()| to_zero(cluster, &mut scaler));
        if let Some(file) = std::env::var_os("TALLY_SCALING_TRACE") {
            std::fs::write(file, scaler.csv())?;
        }
        done?;
        ensure!(scaler.peak == MAX_WORKERS, "never more than {} workers", scaler.peak);
        cluster.wait_empty()
    })
}
