//! What real processes report over HTTP, and their settings from files and the environment: meaningful readiness,
//! liveness that neither a drain nor busy cores end, consistent metrics, and mistakes reported with their key and file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tally_tests::autoscaler::{Autoscaler, Scaling};
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::faults::{Drain, Fault, Moment};
use tally_tests::cluster::nodes::worker_bin;
use tally_tests::cluster::truth::Truth;
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::golden::DATE;
use tally_tests::http::{get, metrics};
use tally_tests::output::Place;
use tally_tests::process::Tally;
use tally_tests::table::data_files;
use tally_tests::wait::wait_for;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const FLAGS: &[&str] = &["--shard-bytes", "100KB", "--partitions", "24", "--target-file-size", "1MB"];

fn metrics_add_up_to_what_a_job_did() -> Result<()> {
    let day = Truth::new(&["--clients", "100000", "--narrow"])?;
    with_cluster(Setup { workers: 2, ..Setup::default() }, |cluster| {
        let place = Place::new()?;
        let summary = cluster.client().submit_command(&day.root, &place, FLAGS).run()?.summary()?;
        let tasks: u64 =
            summary.stages.iter().filter(|stage| stage.name != "plan").map(|stage| stage.tasks).sum();
        let mut all = cluster.metrics()?;
        wait_for("the driver's next look", DEADLINE, || {
            all = cluster.metrics()?;
            Ok((all.get("tally_jobs_ended_total{outcome=\"done\"}") == Some(&1.0)).then_some(()))
        })?;
        let value = |name: &str| all.get(name).copied().with_context(|| format!("no {name} in {all:?}"));
        ensure!(value("tally_coordinator_leading")? == 1.0 && value("tally_coordinator_epoch")? >= 1.0);
        ensure!(value("tally_slots")? == 2.0 && value("tally_workers{state=\"attached\"}")? == 2.0);
        ensure!(value("tally_slots_wanted")? == 0.0, "{all:?}");
        ensure!(value("tally_publishes_total{outcome=\"done\"}")? == 1.0, "{all:?}");
        ensure!(value("tally_publishes_total{outcome=\"failed\"}")? == 0.0, "{all:?}");
        ensure!(value("tally_publish_seconds_total")? > 0.0, "{all:?}");
        let files: Vec<u64> = data_files(&place.partition(DATE))?
            .iter()
            .map(|file| Ok(file.metadata()?.len()))
            .collect::<Result<_>>()?;
        let published = ["files", "rows", "bytes"].map(|what| format!("tally_published_{what}_total"));
        let expected = [files.len() as u64, summary.rows, files.iter().sum()];
        for (name, expected) in published.iter().zip(expected) {
            ensure!(value(name)? == expected as f64, "{name} is not {expected}: {all:?}");
        }
        let done =
            |stage: &str| value(&format!("tally_attempts_total{{stage=\"{stage}\",outcome=\"done\"}}"));
        let attempts = done("map")? + done("reduce")? + done("write")?;
        ensure!(attempts >= tasks as f64, "{attempts} attempts for {tasks} tasks");
        let mut read = 0.0;
        for worker in &cluster.workers {
            let page = metrics(worker.http()?)?;
            read += page["tally_worker_read_rows_total"];
            ensure!(page["tally_worker_slots"] == 1.0 && page["tally_worker_attached"] == 1.0, "{page:?}");
            ensure!(page["tally_worker_memory_limit_bytes"] == (256u64 << 20) as f64, "{page:?}");
        }
        // A losing speculative attempt may still run.
        let outcomes = ["done", "cancelled", "fetch_lost", "retryable", "refused", "fatal"];
        wait_for("the same count here and there", DEADLINE, || {
            let here = cluster.metrics()?;
            for outcome in outcomes {
                let suffix = format!("outcome=\"{outcome}\"}}");
                let of = |page: &BTreeMap<String, f64>, name: &str| -> f64 {
                    let samples =
                        page.iter().filter(|(key, _)| key.starts_with(name) && key.ends_with(&suffix));
                    samples.map(|(_, count)| count).sum()
                };
                let mut there = 0.0;
                for worker in &cluster.workers {
                    there += of(&metrics(worker.http()?)?, "tally_worker_attempts_total{");
                }
                if of(&here, "tally_attempts_total{") != there {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })?;
        ensure!(read > 0.0, "no row was read");
        Ok(())
    })
}

/// An alert on an increase sees a coordinator's first failed job only if its series existed before: this includes a
/// coordinator that takes over.
fn a_failed_job_is_an_increase_also_after_a_takeover() -> Result<()> {
    let day = Truth::new(&["--clients", "1000", "--narrow"])?;
    with_cluster(Setup { coordinators: 2, consul: true, workers: 1, ..Setup::quick() }, |cluster| {
        let leader = cluster.leader()?;
        let standby = 1 - leader;
        let page = |cluster: &Cluster| metrics(cluster.coordinators[standby].http()?);
        let before = page(cluster)?;
        ensure!(before["tally_coordinator_leading"] == 0.0, "{before:?}");
        let counters = [
            "tally_jobs_ended_total{outcome=",
            "tally_publishes_total{outcome=",
            "tally_workers_left_total{how=",
        ];
        for name in counters {
            let zeros: Vec<_> = before.iter().filter(|(series, _)| series.starts_with(name)).collect();
            ensure!(zeros.len() >= 2 && zeros.iter().all(|(_, value)| **value == 0.0), "{name}: {zeros:?}");
        }
        cluster.inject(Fault::KillCoordinator(leader))?;
        cluster.wait_attached(1)?;
        let place = Place::new()?;
        let missing = day.root.join("nothing");
        cluster.client().submit_command(&missing, &place, FLAGS).run()?.expect_failure(1, &["addons"])?;
        let failed = "tally_jobs_ended_total{outcome=\"failed\"}";
        wait_for("the failed job", DEADLINE, || Ok((page(cluster)?[failed] == 1.0).then_some(())))?;
        cluster.mend(Fault::KillCoordinator(leader))
    })
}

/// Waits until so many jobs are slower than usual.
fn wait_slow(cluster: &Cluster, expected: f64) -> Result<()> {
    wait_for("slow jobs", DEADLINE, || {
        Ok((cluster.metrics()?.get("tally_jobs_slow") == Some(&expected)).then_some(()))
    })
}

fn a_job_that_is_slower_than_the_last_of_its_kind_is_seen() -> Result<()> {
    let day = Truth::new(&["--clients", "5000", "--narrow"])?;
    // A frozen worker does not become lost.
    let coordinator_flags = vec!["--worker-timeout", "60000"];
    with_cluster(Setup { workers: 1, coordinator_flags, ..Setup::default() }, |cluster| {
        let place = Place::new()?;
        for _ in 0..3 {
            cluster.client().submit_command(&day.root, &place, FLAGS).run()?.summary()?;
        }
        ensure!(cluster.metrics()?["tally_jobs_slow"] == 0.0);
        let published = "tally_last_publish_timestamp_seconds";
        let last = cluster.metrics()?[published];
        let age = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() - last;
        ensure!((-1.0..DEADLINE.as_secs_f64()).contains(&age), "published {age} s ago");
        // The usual duration is known from the journal: the next incarnation of the coordinator knows it.
        cluster.inject(Fault::KillCoordinator(0))?;
        cluster.mend(Fault::KillCoordinator(0))?;
        cluster.wait_attached(1)?;
        ensure!(cluster.metrics()?[published] == last, "the time of the last publish is not known any more");
        // Nothing runs until the job is slower than any other.
        cluster.freeze_workers()?;
        let job = cluster.client().submit(&day.root, &place, FLAGS)?;
        wait_slow(cluster, 1.0)?;
        cluster.release()?;
        job.done()?;
        wait_slow(cluster, 0.0)
    })
}

fn a_drain_and_busy_cores_end_readiness_at_most() -> Result<()> {
    let day = Truth::new(&["--clients", "300000", "--narrow"])?;
    with_cluster(Setup { workers: 1, ..Setup::default() }, |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&day.root, &place, FLAGS, Moment::Stage("map", 0.5))?;
        let busy = Arc::new(AtomicBool::new(true));
        let cores = std::thread::available_parallelism()?.get();
        let burners: Vec<_> = (0..2 * cores)
            .map(|_| {
                let busy = busy.clone();
                std::thread::spawn(move || while busy.load(Ordering::Relaxed) {})
            })
            .collect();
        let fault = Fault::DrainWorker(0, Drain::Signal);
        cluster.inject(fault)?;
        cluster.release_but(fault)?;
        // No worker can take its outputs: it stays, draining.
        let http = cluster.workers[0].http()?;
        let drains = wait_for("a worker that is not ready", DEADLINE, || {
            ensure!(get(http, "/healthz")?.0 == 200, "a drain killed it");
            let (status, why) = get(http, "/readyz")?;
            Ok((status == 503).then_some(why))
        })?;
        ensure!(drains.contains("draining"), "{drains}");
        for _ in 0..50 {
            for address in [http, cluster.coordinators[0].http()?] {
                let (status, said) = get(address, "/healthz")?;
                ensure!(status == 200, "{status} under load: {said}");
            }
        }
        busy.store(false, Ordering::Relaxed);
        burners.into_iter().for_each(|burner| drop(burner.join()));
        cluster.add_worker()?;
        cluster.workers[0].process.wait_done(DEADLINE)?;
        day.check_summary(&place, &job.done()?)?;
        cluster.wait_attached(1)
    })
}

/// Waits until a process reports that status for one of its services, or for all.
fn wait_health(address: SocketAddr, service: &str, expected: ServingStatus) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut health = runtime.block_on(async {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        anyhow::Ok(HealthClient::new(channel))
    })?;
    wait_for(&format!("{expected:?} of {service:?} at {address}"), DEADLINE, || {
        let question = HealthCheckRequest { service: service.into() };
        let answer = runtime.block_on(health.check(question));
        Ok(answer.is_ok_and(|answer| answer.get_ref().status() == expected).then_some(()))
    })
}

fn a_standby_is_ready_and_answers_the_autoscaler_as_the_leader_does() -> Result<()> {
    let setup = Setup { coordinators: 2, workers: 1, consul: true, ..Setup::default() };
    with_cluster(setup, |cluster| {
        let leader = cluster.leader()?;
        let standby = 1 - leader;
        let http = [leader, standby].map(|at| cluster.coordinators[at].http());
        for http in http {
            let http = http?;
            wait_for("a ready coordinator", DEADLINE, || Ok((get(http, "/readyz")?.0 == 200).then_some(())))?;
        }
        ensure!(cluster.metrics()?["tally_coordinator_leading"] == 1.0, "not one leader");
        let [leads, stands_by] = [leader, standby].map(|at| cluster.coordinators[at].address());
        for service in ["tally.v1.Control", "tally.v1.Jobs"] {
            wait_health(leads, service, ServingStatus::Serving)?;
            wait_health(stands_by, service, ServingStatus::NotServing)?;
        }
        let worker = cluster.workers[0].address();
        for (address, service) in [
            (leads, ""),
            (stands_by, ""),
            (leads, "externalscaler.ExternalScaler"),
            (stands_by, "externalscaler.ExternalScaler"),
            (worker, ""),
            (worker, "arrow.flight.protocol.FlightService"),
        ] {
            wait_health(address, service, ServingStatus::Serving)?;
        }
        let scaling = Scaling {
            replicas: (0, 1),
            slots_per_worker: "2.5",
            cooldown: DEADLINE,
            stabilization: DEADLINE,
        };
        let address = |at: usize| cluster.coordinators[at].address().to_string();
        let mut asked = [leader, standby].map(|at| Autoscaler::new(&address(at), scaling.clone()));
        for scaler in &mut asked {
            let Ok(scaler) = scaler else { anyhow::bail!("no address") };
            let quiet = |scaler: &mut Autoscaler| {
                scaler.is_active().is_ok_and(|active| !active)
                    && scaler.metric().is_ok_and(|it| it == (0.0, 2.5))
            };
            wait_for("no load", DEADLINE, || Ok(quiet(scaler).then_some(())))?;
        }
        let streams: Vec<_> = asked.iter_mut().flatten().map(Autoscaler::listen).collect();
        let heard = |expected: &[bool]| {
            wait_for(&format!("{expected:?} on both streams"), DEADLINE, || {
                Ok(streams
                    .iter()
                    .all(|state| state.lock().is_ok_and(|state| *state == expected))
                    .then_some(()))
            })
        };
        heard(&[false])?;
        // Frozen workers: the job stays in its state while both are queried.
        let day = Truth::new(&["--clients", "20000", "--narrow"])?;
        let place = Place::new()?;
        cluster.freeze_workers()?;
        let job = cluster.client().submit(&day.root, &place, FLAGS)?;
        let planned = cluster
            .client()
            .wait_for_job(&job.id, "the map stage", |job| job.stage("map").is_ok_and(|map| map.tasks > 0))?;
        let tasks = planned.stage("map")?.tasks as f64;
        for scaler in asked.iter_mut().flatten() {
            let loaded = |scaler: &mut Autoscaler| {
                scaler.metric().is_ok_and(|it| it == (tasks, 2.5))
                    && scaler.is_active().is_ok_and(|active| active)
            };
            wait_for("the load", DEADLINE, || Ok(loaded(scaler).then_some(())))?;
        }
        heard(&[false, true])?;
        cluster.release()?;
        day.check_summary(&place, &job.done()?)?;
        heard(&[false, true, false])
    })
}

fn a_wrong_setting_is_reported_with_its_key_and_its_file() -> Result<()> {
    let place = Place::new()?;
    let file = place.path().join("settings.toml");
    let path = file.to_str().context("a path that is text")?;
    let coordinator = |text: &str| {
        std::fs::write(&file, text)?;
        Tally::new("coordinator").args(["--config", path]).run()
    };
    let worker = |text: &str, flags: &[&str]| {
        std::fs::write(&file, text)?;
        Tally::wrapped(&worker_bin(), ["--config", path]).args(flags).run()
    };
    coordinator("max-jobs = 0\nstate-dir = \"/state\"")?.expect_failure(2, &["max-jobs in ", path, "'0'"])?;
    coordinator("max-job = 5")?.expect_failure(2, &[path, "\"max-job\"", "max-jobs"])?;
    coordinator("max-jobs = ")?.expect_failure(2, &[path])?;
    let outcome = worker("memory-limit = \"lots\"\ncoordinator = [\"a:1\"]", &[])?;
    outcome.expect_failure(2, &["--memory-limit", "memory-limit in ", path, "lots"])?;
    worker("slots = 40\nmemory-limit = \"1GiB\"\ncoordinator = [\"a:1\"]", &[])?
        .expect_failure(2, &["--memory-limit", "--slots 40"])?;
    let outcome =
        Tally::wrapped(&worker_bin(), ["--coordinator", "a:1"]).env("TALLY_DRAIN_TIMEOUT", "soon").run()?;
    outcome.expect_failure(2, &["--drain-timeout", "TALLY_DRAIN_TIMEOUT in the environment", "soon"])?;
    let missing = Tally::wrapped(&worker_bin(), ["--config", "/no/such/file"]).run()?;
    missing.expect_failure(2, &["--config /no/such/file"])?;
    Ok(())
}

tally_tests::tests![
    metrics_add_up_to_what_a_job_did,
    a_failed_job_is_an_increase_also_after_a_takeover,
    a_job_that_is_slower_than_the_last_of_its_kind_is_seen,
    a_drain_and_busy_cores_end_readiness_at_most,
    a_standby_is_ready_and_answers_the_autoscaler_as_the_leader_does,
    a_wrong_setting_is_reported_with_its_key_and_its_file,
];
