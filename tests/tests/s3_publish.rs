//! A day in S3 is replaced by one decision: processes are killed before and after each step of it, several publish at
//! once, and in every case the next job, or `tally gc`, leaves one whole day and nothing else.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tally_tests::checksum;
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::python::script_command;
use tally_tests::ranges::states;
use tally_tests::s3::proxy::Fault;
use tally_tests::s3::scene::Scene;
use tally_tests::s3::server::{ADMIN, DATA, OUT};
use tally_tests::s3::{check_nothing_left, day_folder, put_old_output};
use tally_tests::table;

/// How often readers see the day replaced.
const REPLACED: usize = 10;

/// Where a job is killed: a request, how many like it precede it, what of it reaches the store, and whether the new day
/// was decided by then. The first upload and the first delete only test the permissions.
const STEPS: [(&str, &str, usize, Fault, bool); 18] = [
    ("PUT", "/jobs/", 0, Fault::HoldAnswer, false),
    ("PUT", "-probe", 0, Fault::HoldAnswer, false),
    ("POST", "?uploads", 0, Fault::HoldAnswer, false),
    ("DELETE", "uploadId", 0, Fault::HoldAnswer, false),
    ("POST", "?uploads", 1, Fault::Hold, false),
    ("POST", "?uploads", 2, Fault::HoldAnswer, false),
    ("PUT", "partNumber", 1, Fault::Hold, false),
    ("PUT", "partNumber", 1, Fault::HoldAnswer, false),
    ("PUT", "/commits/", 0, Fault::Hold, false),
    ("PUT", "/commits/", 0, Fault::HoldAnswer, true),
    ("POST", "uploadId", 0, Fault::Hold, true),
    ("POST", "uploadId", 1, Fault::HoldAnswer, true),
    ("PUT", ".outcome", 0, Fault::Hold, true),
    ("PUT", ".outcome", 0, Fault::HoldAnswer, true),
    ("POST", "?delete", 1, Fault::Hold, true),
    ("POST", "?delete", 1, Fault::HoldAnswer, true),
    ("PUT", ".done", 0, Fault::Hold, true),
    ("PUT", ".done", 0, Fault::HoldAnswer, true),
];

fn a_kill_at_any_step_leaves_a_day_that_the_next_job_or_gc_makes_whole() -> Result<()> {
    let scene = Scene::new()?;
    for (method, part, skip, fault, decided) in STEPS {
        for by_gc in [false, true] {
            let context = || format!("{method} {part} {skip} {fault:?}, by gc: {by_gc}");
            for key in scene.out.list("agg")? {
                scene.out.remove(&key)?;
            }
            let old = put_old_output(&scene.out)?;
            scene.kill_at(method, part, skip, fault.clone()).with_context(context)?;
            let now = scene.out.list(&day_folder())?;
            if !decided {
                assert_eq!(now, old, "{}: seen before it was decided", context());
            }
            // The mark is the last step.
            let half = decided && !(part == ".done" && matches!(fault, Fault::HoldAnswer));
            let shown = states(&scene.days().run()?.expect_code(0)?)?;
            ensure!((shown == ["unreadable"]) == half, "{}: {shown:?}", context());
            if by_gc {
                let before = scene.out.list("agg")?;
                let shown = scene.gc(&["--dry-run"]).with_context(context)?;
                assert_eq!(scene.out.list("agg")?, before, "{}: a dry run changed something", context());
                let done = scene.gc(&[]).with_context(context)?;
                assert_eq!(shown.lines().count(), done.lines().count(), "{}\n{shown}\n{done}", context());
                if decided {
                    scene.check_day().with_context(context)?;
                } else {
                    assert_eq!(scene.out.list(&day_folder())?, old, "{}", context());
                }
                check_nothing_left(&scene.out).with_context(context)?;
                assert_eq!(scene.gc(&["--dry-run"])?, "nothing is left over\n", "{}", context());
            } else {
                scene.job().run()?.summary().with_context(context)?;
                scene.check_day().with_context(context)?;
                scene.gc(&[])?;
                check_nothing_left(&scene.out).with_context(context)?;
            }
        }
    }
    Ok(())
}

fn of_two_that_publish_at_once_each_is_seen_whole_and_one_stays() -> Result<()> {
    let scene = Scene::new()?;
    put_old_output(&scene.out)?;
    // Both are about to write the same number; the second finds it taken, and waits for the first.
    scene.proxy.break_next("PUT", "/commits/00000001", 0, 2, Fault::Hold);
    let (first, second) = (scene.job().spawn()?, scene.job().spawn()?);
    scene.proxy.wait_held(2)?;
    scene.proxy.heal();
    let (first, second) = (first.wait()?.summary()?, second.wait()?.summary()?);
    scene.check_day()?;
    let files = scene.out.list(&day_folder())?;
    let of = |job: &str| files.iter().filter(|key| key.contains(job)).count() as u64;
    let (a, b) = (of(&first.job_id), of(&second.job_id));
    ensure!((a, b) == (first.files, 0) || (a, b) == (0, second.files), "{files:?}");
    // A job that was overtaken may mark its own record after the other removed it: the next job removes the mark.
    scene.job().run()?.summary()?;
    scene.check_day()?;
    check_nothing_left(&scene.out)
}

fn readers_see_one_whole_day_at_least_while_it_is_replaced() -> Result<()> {
    let scene = Scene::new()?;
    let summary = scene.job().run()?.summary()?;
    let mut script = script_command("poll_s3.py")?;
    let stop = scene.place.path().join("stop");
    script.args([&scene.server.address().to_string(), &format!("{OUT}/{}", day_folder())]);
    script.args([scene.case.totals()?.rows.to_string(), summary.files.to_string()]).arg(&stop);
    script.envs(ADMIN.environment(scene.server.address())).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut reader = script.spawn()?;
    for _ in 0..REPLACED {
        // The time between the first completion and the delete is long enough to be observed.
        scene.proxy.heal();
        // Before it, the permission is tested and the day is removed from the objectives table.
        scene.proxy.break_next("POST", "?delete", 2, 1, Fault::Slow(Duration::from_millis(300)));
        scene.proxy.break_next("POST", "uploadId", 1, 2, Fault::Slow(Duration::from_millis(200)));
        scene.job().run()?.summary()?;
        ensure!(reader.try_wait()?.is_none(), "the readers ended early");
    }
    std::fs::write(&stop, "")?;
    let done = reader.wait_with_output()?;
    let (counts, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    ensure!(done.status.success(), "{counts}{errors}");
    println!("{}", counts.trim());
    for reader in ["pyarrow", "polars"] {
        ensure!(counts.contains(&format!("\"{reader}\": ")), "{counts}");
    }
    Ok(())
}

fn an_aborted_upload_fails_the_job_and_the_old_day_stays() -> Result<()> {
    let scene = Scene::new()?;
    let old = put_old_output(&scene.out)?;
    scene.proxy.break_next("PUT", "/commits/", 0, 1, Fault::Hold);
    let running = scene.job().spawn()?;
    scene.proxy.wait_held(1)?;
    ensure!(scene.gc(&[])?.contains("upload removed"), "nothing was removed");
    scene.proxy.heal();
    running.wait()?.expect_failure(1, &["an upload was removed", "submit again"])?;
    assert_eq!(scene.out.list(&day_folder())?, old);
    scene.job().run()?.summary()?;
    scene.check_day()?;
    check_nothing_left(&scene.out)
}

fn a_job_that_fails_or_is_interrupted_leaves_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let old = put_old_output(&scene.out)?;
    scene.proxy.break_next("PUT", "partNumber", 0, 1000, Fault::Refuse(403, "AccessDenied"));
    scene.job().run()?.expect_failure(1, &["a part cannot be uploaded", "AccessDenied", "s3://out/agg"])?;
    assert_eq!(scene.out.list(&day_folder())?, old);
    check_nothing_left(&scene.out)?;
    scene.proxy.heal();
    scene.proxy.break_next("PUT", "partNumber", 0, 1, Fault::Hold);
    let mut running = scene.job().spawn()?;
    scene.proxy.wait_held(1)?;
    running.interrupt()?;
    let outcome = running.wait()?;
    outcome.expect_code(130)?;
    scene.proxy.heal();
    assert_eq!(scene.out.list(&day_folder())?, old);
    check_nothing_left(&scene.out).context(DATE)
}

fn the_record_of_a_publish_is_the_days_manifest() -> Result<()> {
    let scene = Scene::new()?;
    let summary = scene.job().run()?.summary()?;
    let commits = scene.out.list(&format!("agg/.v1.tally-staging/submission_date_s3={DATE}/commits"))?;
    let record: Value = serde_json::from_slice(&scene.out.get(commits.first().context("no record")?)?)?;
    let manifest = &record["manifest"];
    assert_eq!(manifest["job"], summary.job_id.as_str());
    let rows = scene.case.totals()?.rows;
    assert_eq!(manifest["rows"], rows);
    assert!(manifest["version"].is_string(), "{manifest}");
    let list = |name: &str| manifest[name].as_array().cloned().context("no list");
    let data = scene.server.client(DATA)?;
    let inputs = list("inputs")?;
    assert!(!inputs.is_empty());
    for input in inputs {
        let url = input["url"].as_str().context("no URL")?;
        let key = url.strip_prefix(&format!("s3://{DATA}/")).context("another bucket")?;
        assert_eq!(input["bytes"], data.get(key)?.len());
        assert!(input["etag"].as_str().is_some_and(|etag| !etag.is_empty()), "{input}");
    }
    let files = list("files")?;
    assert_eq!(files.len() as u64, summary.files);
    assert_eq!(files.iter().filter_map(|file| file["rows"].as_u64()).sum::<u64>(), rows);
    let place = Place::new()?;
    let mut sum = 0u64;
    for file in files {
        let bytes = scene.out.get(file["key"].as_str().context("no key")?)?;
        assert_eq!(file["bytes"], bytes.len());
        assert_eq!(file["crc32"], crc32fast::hash(&bytes));
        let path = place.path().join("part.parquet");
        std::fs::write(&path, &bytes)?;
        let checksum = checksum::of(&table::read_aggregates(&path)?);
        assert_eq!(file["checksum"], format!("{checksum:016x}"));
        sum = sum.wrapping_add(checksum);
    }
    assert_eq!(manifest["checksum"], format!("{sum:016x}"));
    Ok(())
}

tally_tests::tests![
    a_kill_at_any_step_leaves_a_day_that_the_next_job_or_gc_makes_whole,
    of_two_that_publish_at_once_each_is_seen_whole_and_one_stays,
    readers_see_one_whole_day_at_least_while_it_is_replaced,
    an_aborted_upload_fails_the_job_and_the_old_day_stays,
    a_job_that_fails_or_is_interrupted_leaves_nothing,
    the_record_of_a_publish_is_the_days_manifest,
];
