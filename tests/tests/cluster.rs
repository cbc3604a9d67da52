//! Jobs on a cluster of real processes, without faults: golden cases, several jobs at once, submits that meet a running
//! job, cancels. Faults are in `chaos`; wrong usage is in `cluster_errors`.

use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::client::DEADLINE;
use tally_tests::cluster::faults::Moment;
use tally_tests::cluster::nodes::Worker;
use tally_tests::cluster::truth::{DAY, MANY_TASKS, Truth};
use tally_tests::cluster::{Cluster, Setup, with_cluster};
use tally_tests::golden::{CASES, Case, DATE};
use tally_tests::output::{Place, check_unchanged, snapshot, snapshot_without_staging};
use tally_tests::process::{Summary, Tally};
use tally_tests::table;
use tally_tests::wait::wait_for;

/// Many small tasks, so that all workers take part even in a small day.
const SMALL_TASKS: &[&str] = &["--shard-bytes", "512", "--partitions", "7"];

static LARGE: LazyLock<Truth> =
    LazyLock::new(|| Truth::new(&["--clients", "1500000", "--narrow"]).expect("a day that succeeds"));

fn check_case(case: &Case, place: &Place, summary: &Summary) -> Result<()> {
    let rows = place.read_output(DATE)?;
    table::compare(&rows, &case.expected_rows()?)?;
    let totals = case.totals()?;
    let found = (summary.rows, summary.n_clients, summary.n_custom_theme_clients);
    ensure!(found == (totals.rows, totals.n_clients, totals.n_custom_theme_clients), "{summary:?}");
    let files = table::data_files(&place.partition(DATE))?.len() as u64;
    ensure!(summary.files == files, "{files} files, but {summary:?}");
    Ok(())
}

#[test]
fn golden_cases_one_after_another() -> Result<()> {
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        for name in CASES {
            let case = Case::new(name);
            let place = Place::new()?;
            place.put_old_output(DATE)?;
            for flags in [&[][..], SMALL_TASKS] {
                let context = || format!("{name} with {flags:?}");
                let summary = client.submit_command(&case.dir, &place, flags).run()?.summary();
                let summary = summary.with_context(context)?;
                check_case(&case, &place, &summary).with_context(context)?;
            }
        }
        Ok(())
    })
}

#[test]
fn golden_cases_all_at_once() -> Result<()> {
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        let mut jobs = Vec::new();
        for name in CASES {
            let (case, place) = (Case::new(name), Place::new()?);
            let running = client.submit_command(&case.dir, &place, SMALL_TASKS).spawn()?;
            jobs.push((case, place, running));
        }
        for (case, place, running) in jobs {
            let context = case.dir.display().to_string();
            let summary = running.wait()?.summary().with_context(|| context.clone())?;
            check_case(&case, &place, &summary).with_context(|| context)?;
        }
        let listed = client.jobs()?;
        ensure!(listed.len() == CASES.len() && listed.iter().all(|job| job.state == "done"), "{listed:?}");
        Ok(())
    })
}

/// A small job that is submitted later does not wait for a large one.
#[test]
fn a_small_job_passes_a_large_one() -> Result<()> {
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        let (place, small_place) = (Place::new()?, Place::new()?);
        let map = Moment::Stage("map", 0.01);
        let (first, _) = cluster.submit_held(&LARGE.root, &place, &["--shard-bytes", "200KB"], map)?;
        cluster.release()?;
        let case = Case::new("case-05");
        let summary = client.submit_command(&case.dir, &small_place, &[]).run()?.summary()?;
        let meanwhile = client.job(&first.id)?;
        ensure!(!meanwhile.is_over(), "the small job waited for the large one: {meanwhile:?}");
        check_case(&case, &small_place, &summary)?;
        LARGE.check_summary(&place, &first.done()?)
    })
}

#[test]
fn the_same_submit_finds_the_running_job_and_another_is_refused() -> Result<()> {
    let truth = Truth::new(&["--clients", "200000", "--narrow"])?;
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        let place = Place::new()?;
        let flags = ["--shard-bytes", "100KB"];
        // Frozen, so that it is not over too soon.
        let (first, _) = cluster.submit_held(&truth.root, &place, &flags, Moment::Stage("map", 0.0))?;
        for _ in 0..3 {
            let again = client.submit_detached(&truth.root, &place, &flags)?;
            ensure!(again == first.id, "{again} beside {}", first.id);
        }
        // The same output and date from other inputs.
        let case = Case::new("case-01");
        let refused = client.submit_command(&case.dir, &place, &[]).run()?;
        refused.expect_failure(1, &["refuses", &first.id])?;
        let running = client.jobs()?.into_iter().filter(|job| !job.is_over());
        let running: Vec<_> = running.map(|job| job.job_id).collect();
        ensure!(running == [first.id.clone()], "{running:?}");
        cluster.release()?;
        truth.check_summary(&place, &first.done()?)?;
        // Afterwards the output is free for other jobs.
        let summary = client.submit_command(&case.dir, &place, &[]).run()?.summary()?;
        check_case(&case, &place, &summary)
    })
}

/// Cancels in the long stages: the old day stays, staged files, outputs and spilled files are removed, other jobs finish.
#[test]
fn cancel_releases_everything_and_affects_no_other_job() -> Result<()> {
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        for stage in ["map", "reduce", "write"] {
            let (place, other_place) = (Place::new()?, Place::new()?);
            place.put_old_output(DATE)?;
            let (job, _) = cluster.submit_held(&DAY.root, &place, MANY_TASKS, Moment::Stage(stage, 0.2))?;
            let before = snapshot_without_staging(&place.published())?;
            let other = client.submit(&DAY.root, &other_place, MANY_TASKS)?;
            client.tally("cancel").args([&job.id]).run()?.expect_code(0)?;
            cluster.release()?;
            job.ended()?.expect_failure(3, &["cancelled"]).context(stage)?;
            check_unchanged(&before, &snapshot(&place.published())?).context(stage)?;
            DAY.check_summary(&other_place, &other.done()?).context(stage)?;
            cluster.wait_empty().context(stage)?;
        }
        Ok(())
    })
}

/// The same when memory had no room for all outputs: files and memory of every worker are released.
#[test]
fn cancel_gives_back_what_was_spilled() -> Result<()> {
    let setup = Setup { workers: 2, worker_memory: "100MiB", ..Setup::default() };
    with_cluster(setup, |cluster| {
        let place = Place::new()?;
        let (job, _) = cluster.submit_held(&LARGE.root, &place, NARROW, Moment::Stage("map", 0.9))?;
        let spilled = cluster.spilled()?;
        ensure!(!spilled.is_empty(), "nothing was spilled");
        for file in &spilled {
            let folder = file.parent().context("a file has a folder")?;
            for (path, private) in [(file.as_path(), 0o600), (folder, 0o700)] {
                let mode = path.metadata()?.permissions().mode() & 0o777;
                ensure!(mode == private, "{} may be read by others: {mode:o}", path.display());
            }
        }
        cluster.release()?;
        cluster.client().tally("cancel").args([&job.id]).run()?.expect_code(0)?;
        job.ended()?.expect_failure(3, &["cancelled"])?;
        cluster.wait_empty()?;
        ensure!(!place.output().exists(), "something was published");
        Ok(())
    })
}

/// Bytes that a worker of the next tests may spill: far less than the day's outputs beyond its memory.
const SPILL_LIMIT: u64 = 8_000_000;
const NARROW: &[&str] = &["--shard-bytes", "200KB", "--partitions", "40"];

fn narrow_worker() -> Setup {
    let worker_flags = vec!["--spill-limit", "8MB"];
    Setup { workers: 1, worker_memory: "100MiB", worker_flags, ..Setup::default() }
}

fn check_spilled(worker: &Worker) -> Result<()> {
    let bytes = worker.spilled_bytes()?;
    ensure!(bytes <= SPILL_LIMIT, "{bytes} bytes are spilled");
    Ok(())
}

/// A worker whose spill folder is at its limit accepts no further work; the job waits for one that has room, and continues.
#[test]
fn a_worker_refuses_work_before_its_spill_folder_overflows() -> Result<()> {
    with_cluster(narrow_worker(), |cluster| {
        let place = Place::new()?;
        let job = cluster.client().submit(&LARGE.root, &place, NARROW)?;
        let refusal = "of the 7.6 MiB that --spill-limit allows are in use";
        wait_for("a refusal", DEADLINE, || {
            check_spilled(&cluster.workers[0])?;
            Ok(cluster.workers[0].process.said().contains(refusal).then_some(()))
        })?;
        // The limit is that of the first worker only; the second has room for the rest of the day.
        cluster.setup().worker_flags.clear();
        cluster.add_worker()?;
        let summary = job.done_while(|| check_spilled(&cluster.workers[0]))?;
        LARGE.check_summary(&place, &summary)?;
        cluster.wait_attached(2)
    })
}

/// If no worker has room, the job fails in time, naming the worker's limit; everything is released.
#[test]
fn a_job_for_which_no_spill_folder_has_room_fails() -> Result<()> {
    let coordinator_flags = vec!["--no-workers-timeout", "3s"];
    with_cluster(Setup { coordinator_flags, ..narrow_worker() }, |cluster| {
        let client = cluster.client();
        let place = Place::new()?;
        place.put_old_output(DATE)?;
        let before = snapshot(&place.published())?;
        let failed = client.submit_command(&LARGE.root, &place, NARROW).run()?;
        failed.expect_failure(1, &["--spill-limit", "7.6 MiB"])?;
        check_unchanged(&before, &snapshot(&place.published())?)?;
        cluster.wait_empty()?;
        let case = Case::new("case-05");
        let summary = client.submit_command(&case.dir, &place, &[]).run()?.summary()?;
        check_case(&case, &place, &summary)
    })
}

/// A submit that is interrupted, or times out, leaves its job running, or cancels it if asked to.
#[test]
fn a_submit_may_end_before_its_job() -> Result<()> {
    let truth = Truth::new(&["--clients", "200000", "--narrow"])?;
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        // Frozen, so that no job is over too soon.
        cluster.freeze_workers()?;
        let abandoned = Place::new()?;
        let flags = ["--shard-bytes", "50KB", "--timeout", "1ms"];
        client
            .submit_command(&truth.root, &abandoned, &flags)
            .run()?
            .expect_failure(4, &["timed_out", "within 1ms"])?;
        let place = Place::new()?;
        let flags = ["--shard-bytes", "50KB"];
        let id = client.submit_detached(&truth.root, &place, &flags)?;
        let mut waiting = client.submit_command(&truth.root, &place, &flags).spawn()?;
        waiting.wait_said("following it")?;
        client.wait_for_job(&id, "the map stage", |job| job.phase == "map")?;
        waiting.interrupt()?;
        waiting.wait()?.expect_failure(130, &["continues", &id])?;
        cluster.release()?;
        ensure!(client.wait_over(&id)?.state == "done", "the job did not go on");
        truth.check(&place)?;
        cluster.freeze_workers()?;
        let place = Place::new()?;
        let id = client.submit_detached(&truth.root, &place, &flags)?;
        let more = ["--shard-bytes", "50KB", "--cancel-on-interrupt", "--timeout", "100ms"];
        client.submit_command(&truth.root, &place, &more).run()?.expect_failure(4, &["cancelled", &id])?;
        cluster.release()?;
        ensure!(client.wait_over(&id)?.state == "cancelled");
        Ok(())
    })
}

/// A demo that is interrupted cancels its job.
#[test]
fn a_demo_may_end_before_its_job() -> Result<()> {
    with_cluster(Setup::default(), |cluster| {
        let client = cluster.client();
        cluster.freeze_workers()?;
        let place = Place::new()?;
        let folder = format!("{}", place.path().join("demo").display());
        let demo = client.tally("demo").args(["--cluster", "--clients", "1000", "--dir", &folder]);
        let mut waiting = demo.spawn()?;
        waiting.wait_said("was accepted")?;
        waiting.interrupt()?;
        waiting.wait_said("cancelling job")?;
        cluster.release()?;
        waiting.wait()?.expect_failure(3, &["was cancelled"])?;
        Ok(())
    })
}

/// A cluster publishes the same output as one process.
#[test]
fn a_cluster_and_one_process_take_turns_on_an_output() -> Result<()> {
    let case = Case::new("case-07");
    let place = Place::new()?;
    with_cluster(Setup::default(), |cluster: &mut Cluster| {
        for round in 0..2 {
            let context = || format!("round {round}");
            let summary = Tally::job(&case.dir, &place).date(DATE).run()?.summary()?;
            check_case(&case, &place, &summary).with_context(context)?;
            let client = cluster.client();
            let summary = client.submit_command(&case.dir, &place, SMALL_TASKS).run()?.summary()?;
            check_case(&case, &place, &summary).with_context(context)?;
        }
        Ok(())
    })
}
