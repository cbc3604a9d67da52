//! Permanent refusals of a store are reported at once: each permission that a publish needs is tested before any work,
//! permanent refusals are not retried, and no upload stays open.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use tally_tests::s3::proxy::{Exchange, Fault};
use tally_tests::s3::scene::Scene;
use tally_tests::s3::{check_nothing_left, day_folder, put_old_output};

/// More often than any request is made.
const ALWAYS: usize = 1000;

fn refused(exchanges: &[Exchange], status: u16) -> Vec<&Exchange> {
    exchanges.iter().filter(|exchange| exchange.status == status).collect()
}

/// The requests that are tested before any work, and the error for each refusal.
const PERMISSIONS: [(&str, &str, &[&str]); 7] = [
    ("GET", "prefix=agg", &["objects cannot be listed", "s3:ListBucket"]),
    ("PUT", "/jobs/", &["records cannot be written", "s3:PutObject"]),
    ("GET", "-job", &["objects cannot be read", "s3:GetObject"]),
    ("PUT", "-probe", &["If-None-Match", "s3:PutObject"]),
    ("POST", "?delete", &["objects cannot be removed", "s3:DeleteObject"]),
    ("POST", "?uploads", &["a multipart upload cannot begin", "s3:PutObject"]),
    ("DELETE", "uploadId", &["cannot be aborted", "s3:AbortMultipartUpload"]),
];

fn each_permission_that_is_missing_is_named_before_any_work() -> Result<()> {
    let scene = Scene::new()?;
    let old = put_old_output(&scene.out)?;
    for (method, part, words) in PERMISSIONS {
        let context = || format!("{method} {part}");
        scene.proxy.take();
        scene.proxy.break_next(method, part, 0, 1, Fault::Refuse(403, "AccessDenied"));
        scene.job().run()?.expect_failure(1, words).with_context(context)?;
        scene.proxy.heal();
        let exchanges = scene.proxy.take();
        assert_eq!(refused(&exchanges, 403).len(), 1, "{}: tried again", context());
        let works = |exchange: &Exchange| exchange.target.contains("partNumber");
        ensure!(!exchanges.iter().any(works), "{}: after work was done", context());
        assert_eq!(scene.out.list(&day_folder())?, old, "{}", context());
        check_nothing_left(&scene.out).with_context(context)?;
    }
    scene.job().run()?.summary()?;
    scene.check_day()
}

fn a_decision_that_is_refused_is_not_tried_again_and_leaves_no_upload() -> Result<()> {
    let scene = Scene::new()?;
    let old = put_old_output(&scene.out)?;
    for (status, code) in [(403, "AccessDenied"), (400, "InvalidRequest")] {
        scene.proxy.take();
        scene.proxy.break_next("PUT", "/commits/", 0, ALWAYS, Fault::Refuse(status, code));
        scene.job().run()?.expect_failure(1, &["decision cannot be written", code, "the old day stays"])?;
        scene.proxy.heal();
        assert_eq!(refused(&scene.proxy.take(), status).len(), 1, "{code}: tried again");
        assert_eq!(scene.out.list(&day_folder())?, old, "{code}");
        check_nothing_left(&scene.out).context(code)?;
    }
    Ok(())
}

fn a_decided_day_whose_completion_is_refused_is_carried_out_later() -> Result<()> {
    let scene = Scene::new()?;
    let old = put_old_output(&scene.out)?;
    scene.proxy.break_next("POST", "uploadId", 0, ALWAYS, Fault::Refuse(403, "AccessDenied"));
    let failed = scene.job().run()?;
    failed.expect_failure(1, &["cannot be completed", "AccessDenied", "is decided", "tally gc"])?;
    scene.proxy.heal();
    assert_eq!(scene.out.list(&day_folder())?, old);
    ensure!(scene.gc(&[])?.contains("decision carried out"), "nothing was carried out");
    scene.check_day()?;
    check_nothing_left(&scene.out)
}

fn tasks_that_a_store_refuses_run_once() -> Result<()> {
    let scene = Scene::new()?;
    scene.job().run()?.summary()?;
    // Small files are read by tasks alone. The first upload to begin is the one that is tested before any work.
    for (method, part, skip, words) in [
        ("GET", "/data/case-05/addons", 0, &["cannot be read", "AccessDenied"]),
        ("POST", "?uploads", 1, &["the upload cannot begin", "AccessDenied"]),
        ("PUT", "partNumber", 0, &["a part cannot be uploaded", "AccessDenied"]),
    ] {
        scene.proxy.take();
        scene.proxy.break_next(method, part, skip, ALWAYS, Fault::Refuse(403, "AccessDenied"));
        scene.job().run()?.expect_failure(1, words)?;
        scene.proxy.heal();
        let exchanges = scene.proxy.take();
        let all = refused(&exchanges, 403);
        // Attempts of one part file share a number, and each request of an input has its range.
        let asked = |exchange: &&Exchange| {
            let target = exchange.target.split('?').next().unwrap_or_default();
            let number =
                target.split_once("/part-").map_or(target, |(_, rest)| rest.get(..5).unwrap_or(rest));
            (number.to_string(), exchange.range.clone())
        };
        let once: BTreeSet<_> = all.iter().map(asked).collect();
        ensure!(!all.is_empty() && once.len() == all.len(), "{method} {part}: {} of {all:?}", once.len());
        scene.check_day()?;
        check_nothing_left(&scene.out)?;
    }
    Ok(())
}

tally_tests::tests![
    each_permission_that_is_missing_is_named_before_any_work,
    a_decision_that_is_refused_is_not_tried_again_and_leaves_no_upload,
    a_decided_day_whose_completion_is_refused_is_carried_out_later,
    tasks_that_a_store_refuses_run_once,
];
