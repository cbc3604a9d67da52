//! Several processes and one decision: whatever each of them sees of uploads that are being completed, one whole day
//! stays. And what `tally gc` leaves alone: young decisions, and days whose record it cannot read, which do not block
//! other days.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tally_tests::cluster::client::DEADLINE;
use tally_tests::process::Running;
use tally_tests::s3::proxy::{Fault, Proxy};
use tally_tests::s3::scene::Scene;
use tally_tests::s3::{check_nothing_left, day_folder, put_old_output};
use tally_tests::wait::wait_for;

/// More often than any request is made.
const ALWAYS: usize = 1000;
/// Lookups of missing objects before they become visible.
const LATE: usize = 6;

/// A job that holds its first completion, and `tally gc`, to which the store answers that there is no such upload, and
/// does not see the part file the first so many times.
fn meet(scene: &Scene, blind: usize) -> Result<(Running, Proxy, Vec<String>)> {
    let old = put_old_output(&scene.out)?;
    scene.proxy.break_next("POST", "uploadId", 0, ALWAYS, Fault::Hold);
    let owner = scene.job().spawn()?;
    scene.proxy.wait_held(1)?;
    let second = Proxy::before(scene.server.address())?;
    second.break_next("POST", "uploadId", 0, ALWAYS, Fault::Refuse(404, "NoSuchUpload"));
    second.break_next("HEAD", "/part-", 0, blind, Fault::Refuse(404, "NoSuchKey"));
    Ok((owner, second, old))
}

fn who_sees_an_upload_late_waits_for_it_and_undoes_nothing() -> Result<()> {
    for blind in [LATE, ALWAYS] {
        let scene = Scene::new()?;
        let (owner, second, _) = meet(&scene, blind)?;
        let gc = scene.gc_at(second.address(), "1ms").spawn()?;
        // It has seen that the upload no longer exists.
        wait_for("the second process", DEADLINE, || {
            let looks = second.exchanges().iter().any(|s| s.method == "HEAD" && s.target.contains("/part-"));
            Ok(looks.then_some(()))
        })?;
        scene.proxy.heal();
        owner.wait()?.summary().with_context(|| format!("blind {blind} times"))?;
        gc.wait()?.expect_code(0)?;
        scene.check_day().with_context(|| format!("blind {blind} times"))?;
        check_nothing_left(&scene.out)?;
    }
    Ok(())
}

fn what_one_took_back_the_other_does_not_publish() -> Result<()> {
    let scene = Scene::new()?;
    let (owner, second, old) = meet(&scene, ALWAYS)?;
    // The uploads stay open, so that completing them succeeds later.
    second.break_next("DELETE", "uploadId", 0, ALWAYS, Fault::Refuse(404, "NoSuchUpload"));
    scene.gc_at(second.address(), "1ms").run()?.expect_code(0)?;
    assert_eq!(scene.out.list(&day_folder())?, old);
    // Its completions succeed, but the day was abandoned.
    scene.proxy.heal();
    owner.wait()?.expect_failure(1, &["an upload was removed", "submit again"])?;
    assert_eq!(scene.out.list(&day_folder())?, old, "the old day is not as it was");
    scene.job().run()?.summary()?;
    scene.check_day()?;
    check_nothing_left(&scene.out)
}

fn gc_leaves_young_decisions_to_their_owners() -> Result<()> {
    let scene = Scene::new()?;
    put_old_output(&scene.out)?;
    scene.kill_at("POST", "uploadId", 0, Fault::Hold)?;
    let before = scene.out.list("agg")?;
    let young = scene.gc_at(scene.server.address(), "1h").run()?.expect_code(0)?;
    assert_eq!(young.stdout, "nothing is left over\n");
    assert_eq!(scene.out.list("agg")?, before);
    ensure!(scene.out.open_uploads()? > 0, "its uploads were given up");
    ensure!(scene.gc(&[])?.contains("decision carried out"), "it was not carried out");
    scene.check_day()?;
    check_nothing_left(&scene.out)
}

fn a_damaged_record_stops_gc_for_no_other_day() -> Result<()> {
    let scene = Scene::new()?;
    put_old_output(&scene.out)?;
    scene.kill_at("PUT", "/commits/", 0, Fault::HoldAnswer)?;
    // Days before and after it.
    let damaged = ["20170101", "20171231"]
        .map(|day| format!("agg/.v1.tally-staging/submission_date_s3={day}/commits/00000001"));
    for key in &damaged {
        scene.out.put(key, b"{\"nonce\":".to_vec())?;
    }
    let shown =
        scene.gc_at(scene.server.address(), "1ms").args(["--dry-run", "--output-format", "json"]).run()?;
    let shown: Value = serde_json::from_str(&shown.expect_code(1)?.stdout)?;
    assert_eq!(shown["failed"].as_array().map(Vec::len), Some(2), "{shown}");
    let done = scene.gc_at(scene.server.address(), "1ms").run()?;
    let done = done.expect_failure(1, &["20170101", "20171231", "record of a publish is damaged"])?;
    ensure!(done.stdout.contains("decision carried out"), "{done}");
    scene.check_day()?;
    for key in &damaged {
        scene.out.remove(key)?;
    }
    assert_eq!(scene.gc(&[])?, "nothing is left over\n");
    check_nothing_left(&scene.out)
}

fn a_damaged_record_may_be_removed_and_the_day_is_published_again() -> Result<()> {
    let scene = Scene::new()?;
    put_old_output(&scene.out)?;
    scene.job().run()?.summary()?;
    let commits = format!("agg/.v1.tally-staging/{}/commits", day_folder().trim_start_matches("agg/v1/"));
    let keys = scene.out.list(&commits)?;
    let record = keys.iter().find(|key| key.ends_with("/00000001")).context("no record")?;
    // The rest of the decision stays, as the message and the runbook describe it.
    ensure!(keys.iter().any(|key| key.ends_with("/00000001.done")), "{keys:?}");
    scene.out.put(record, b"{\"nonce\":".to_vec())?;
    scene.job().run()?.expect_failure(1, &["record of a publish is damaged"])?;
    scene.out.remove(record)?;
    scene.job().run()?.summary()?;
    scene.check_day()?;
    let keys = scene.out.list(&commits)?;
    ensure!(keys.iter().all(|key| key.contains("/00000002")), "the day's last decision is {keys:?}");
    check_nothing_left(&scene.out)
}

tally_tests::tests![
    who_sees_an_upload_late_waits_for_it_and_undoes_nothing,
    what_one_took_back_the_other_does_not_publish,
    gc_leaves_young_decisions_to_their_owners,
    a_damaged_record_stops_gc_for_no_other_day,
    a_damaged_record_may_be_removed_and_the_day_is_published_again,
];
