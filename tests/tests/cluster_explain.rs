//! What a cluster says of its jobs and workers while something is wrong, and afterwards: frozen and killed workers, the
//! history of a job across leaders, names of jobs, and the figures of a summary.
//!
//! A frozen store is in `cluster_s3`. Not here: the format of answers (the command's own tests).

use std::fs;

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::faults::{Fault, Moment};
use tally_tests::cluster::truth::{DAY, MANY_TASKS, Truth};
use tally_tests::cluster::view::JobView;
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::generated::Generated;
use tally_tests::output::Place;
use tally_tests::scratch::Scratch;
use tally_tests::wait::{PATIENT, wait_every};

/// Heartbeats come each second, so that the age of one that is missing is at most this when it is shown.
const SHOWN_WITHIN: f64 = 3.0;

#[test]
fn a_frozen_worker_is_shown_before_it_is_lost() -> Result<()> {
    with_cluster(Setup { workers: 2, ..Setup::default() }, |cluster| {
        let place = Place::new()?;
        let fault = Fault::FreezeWorker(0);
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.2))?;
        cluster.release_but(fault)?;
        let id = cluster.worker_view(0)?.worker_id;
        wait_every(PATIENT, "a worker that is shown as silent", DEADLINE, || {
            let view = cluster.worker_view(0)?;
            let shown = view.silent && view.state == "attached";
            let late = view.heartbeat_age_seconds > SHOWN_WITHIN && view.state == "attached";
            ensure!(shown || !late, "it is not shown as silent: {view:?}");
            Ok(shown.then_some(()))
        })?;
        let detail = cluster.client().job(&job.id)?.detail.context("no detail")?;
        let frozen: Vec<_> = detail.running.iter().filter(|task| task.worker_id == id).collect();
        ensure!(!frozen.is_empty(), "the frozen worker runs no task: {detail:?}");
        for task in frozen {
            ensure!(task.worker_silent_seconds.is_some_and(|silent| silent >= 1.5), "{task:?}");
            ensure!(task.host == "127.0.0.1" && task.age_seconds > 0.0, "{task:?}");
        }
        // The sum in the status follows with the driver's next look.
        wait_every(PATIENT, "a table that shows the silent worker", DEADLINE, || {
            let table = cluster.client().tally("job").args(["latest"]).run()?.expect_code(0)?.stdout;
            let named = table.contains(&format!("worker {id} is silent"));
            // Nothing tells when the worker answers.
            ensure!(!named || !table.contains("remaining"), "{table}");
            Ok((named && table.contains("worker silent for")).then_some(()))
        })?;
        let table = cluster.client().tally("workers").run()?.expect_code(0)?.stdout;
        ensure!(table.contains("silent for"), "{table}");
        cluster.mend(fault)?;
        DAY.check_summary(&place, &job.done()?)
    })
}

fn millis(time: Option<&String>) -> Result<i64> {
    let time = time.context("a time is missing")?;
    Ok(chrono::DateTime::parse_from_rfc3339(time)?.timestamp_millis())
}

/// The seconds of a summary are those from the submission to the end, whatever happened in between.
fn check_seconds(job: &JobView) -> Result<()> {
    let span = (millis(job.ended_at.as_ref())? - millis(job.submitted_at.as_ref())?) as f64 / 1000.0;
    let summary = job.summary.as_ref().context("no summary")?;
    let stages: f64 = summary.stages.iter().map(|stage| stage.seconds).sum();
    ensure!((summary.seconds - span).abs() < 0.25, "{} s, but it took {span} s", summary.seconds);
    ensure!((stages - span).abs() < 0.5, "the stages took {stages} s of {span} s");
    ensure!((job.elapsed_seconds - span).abs() < 0.01, "{} s elapsed of {span} s", job.elapsed_seconds);
    Ok(())
}

fn journal_has(cluster: &Cluster, text: &str) -> Result<bool> {
    for epoch in fs::read_dir(cluster.state().join("log"))? {
        for record in fs::read_dir(epoch?.path())? {
            let record = record?;
            // Not a file that is still being written, which counts only under its final name.
            if record.file_name().to_str().and_then(|name| name.parse::<u64>().ok()).is_none() {
                continue;
            }
            // A record may be replaced by a snapshot meanwhile.
            let bytes = fs::read(record.path()).unwrap_or_default();
            if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[test]
fn the_history_of_a_job_survives_its_leader_and_is_kept_after_its_end() -> Result<()> {
    with_cluster(Setup::quick(), |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage("map", 0.4))?;
        let lost = cluster.worker_view(0)?.worker_id;
        cluster.inject(Fault::KillWorker(0))?;
        wait_every(PATIENT, "the loss in the journal", DEADLINE, || {
            Ok(journal_has(cluster, "running attempt")?.then_some(()))
        })?;
        cluster.inject(Fault::KillCoordinator(0))?;
        cluster.mend(Fault::KillCoordinator(0))?;
        cluster.release()?;
        let id = job.id.clone();
        DAY.check_summary(&place, &job.done()?)?;
        let client = cluster.client();
        let events = client.events(&id)?;
        ensure!(events.windows(2).all(|two| two[0].number < two[1].number), "{events:?}");
        let has = |kind: &str, stage: Option<&str>| {
            events.iter().any(|event| event.kind == kind && event.stage.as_deref() == stage)
        };
        for stage in ["map", "reduce", "write"] {
            ensure!(
                has("stage_begun", Some(stage)) && has("stage_ended", Some(stage)),
                "{stage}: {events:?}"
            );
        }
        for kind in ["accepted", "taken_over", "ended"] {
            ensure!(has(kind, None), "{kind}: {events:?}");
        }
        ensure!(has("publish", Some("publish")), "{events:?}");
        let of_lost = |kind: &str| {
            events.iter().any(|event| event.kind == kind && event.worker_id.as_ref() == Some(&lost))
        };
        ensure!(of_lost("worker_lost") && of_lost("attempt_failed"), "{events:?}");
        let over = client.job(&id)?;
        check_seconds(&over)?;
        let detail = over.detail.as_ref().context("no detail")?;
        ensure!(detail.incidents.iter().any(|event| event.kind == "worker_lost"), "{detail:?}");
        let map = detail.stage_times.iter().find(|stage| stage.name == "map").context("no map stage")?;
        ensure!(map.task_seconds > 0.0 && map.peak_memory_bytes > 0, "{map:?}");
        // The next leader has it all from the journal.
        cluster.inject(Fault::KillCoordinator(0))?;
        cluster.mend(Fault::KillCoordinator(0))?;
        cluster.wait_attached(2)?;
        let again: Vec<u64> = client.events("latest")?.iter().map(|event| event.number).collect();
        ensure!(again == events.iter().map(|event| event.number).collect::<Vec<_>>(), "{again:?}");
        cluster.workers[0].restart()
    })
}

#[test]
fn a_job_is_named_by_a_prefix_or_as_the_latest_and_can_be_waited_for() -> Result<()> {
    let day = Truth::new(&["--clients", "20000", "--narrow"])?;
    with_cluster(Setup { workers: 1, ..Setup::default() }, |cluster| {
        let client = cluster.client();
        let places = [Place::new()?, Place::new()?];
        let mut ids = vec![];
        for place in &places {
            ids.push(client.submit_detached(&day.root, place, &[])?);
            let waited = client.tally("wait").args(["latest", "--output-format", "json"]).run()?;
            day.check_summary(place, &waited.summary()?)?;
        }
        ensure!(client.job("latest")?.job_id == ids[1]);
        // The last part of an id is a counter, and the part before it the process; the time differs.
        let common = ids[0].bytes().zip(ids[1].bytes()).take_while(|(a, b)| a == b).count();
        for id in &ids {
            ensure!(client.job(&id[..common + 1])?.job_id == *id, "{ids:?}");
        }
        let ambiguous = client.tally("job").args([&ids[0][..common]]).run()?;
        ambiguous.expect_failure(2, &["2 ids", &ids[0], &ids[1]])?;
        client.tally("logs").args(["no-such"]).run()?.expect_failure(1, &["there is no job no-such"])?;
        let over = client.job(&ids[0])?;
        ensure!(over.rows_done == over.input_rows && over.rows_done > 0, "{over:?}");
        check_seconds(&over)?;
        let skew = over.detail.context("no detail")?.partitions.context("no partitions")?;
        ensure!(skew.largest_rows >= skew.median_rows && skew.partitions > 0, "{skew:?}");
        Ok(())
    })
}

#[test]
fn a_summary_has_the_memory_of_workers_and_what_they_spilled() -> Result<()> {
    let folder = Scratch::new("tally day ")?;
    let day = Generated::new(folder.path(), &["--clients", "1500000", "--narrow"])?;
    with_cluster(Setup { workers: 1, worker_memory: "100MiB", ..Setup::default() }, |cluster| {
        let place = Place::new()?;
        let flags = ["--shard-bytes", "2MB", "--partitions", "40"];
        let summary = cluster.client().submit_command(&day.root, &place, &flags).run()?.summary()?;
        ensure!(summary.rows == day.totals.rows, "{summary:?}");
        ensure!(summary.spilled_bytes > 0, "{summary:?}");
        // What the worker wrote to its spill folder since its start, attempts without a result included, comes with its
        // next heartbeat.
        let worker = wait_every(PATIENT, "a worker that reports what it spilled", DEADLINE, || {
            let view = cluster.worker_view(0)?;
            Ok((view.spilled_bytes >= summary.spilled_bytes).then_some(view))
        })?;
        let (spilled, all) = (summary.spilled_bytes, worker.spilled_bytes);
        ensure!(spilled <= all && spilled > all / 2, "{spilled} of {all} bytes");
        ensure!(worker.spill_limit > 0, "{worker:?}");
        // The kernel's maximum of the worker's process.
        let status = fs::read_to_string(format!("/proc/{}/status", cluster.workers[0].process.id()))?;
        let highest = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let highest: u64 = highest.trim().trim_end_matches(" kB").parse::<u64>()? * 1024;
        let peak = summary.peak_memory_bytes;
        ensure!(peak <= highest && peak > highest / 2, "{peak} of {highest}");
        Ok(())
    })
}
