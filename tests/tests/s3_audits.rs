//! `tally verify` and `tally diff` of days in S3: they use the record of the publish, and copies of the objects.
//!
//! Days in folders: `verify`, `diff`.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow_array::Int64Array;
use serde_json::Value;
use tally_tests::golden::DATE;
use tally_tests::output::{Place, part_files};
use tally_tests::process::{Outcome, Tally};
use tally_tests::rewrite::PartFile;
use tally_tests::s3::scene::Scene;
use tally_tests::s3::server::ADMIN;
use tally_tests::s3::{day_folder, output_url, reach};

fn verify(scene: &Scene) -> Result<Outcome> {
    let verify = Tally::new("verify").args(["--output", &output_url(), "--date", DATE]);
    let verify = verify.args(["--output-format", "json", "--spill-dir"]).args([scene.place.spill()]);
    reach(verify, scene.server.address(), ADMIN).run()
}

/// Checks that something is found, with these words.
fn expect(scene: &Scene, words: &[&str]) -> Result<()> {
    let outcome = verify(scene)?.expect_failure(1, &["is not what its job published"])?;
    let report: Value = serde_json::from_str(&outcome.stdout)?;
    let findings = report["findings"].as_array().context("no findings")?;
    let found = |word: &&str| findings.iter().any(|finding| finding["problem"].to_string().contains(*word));
    ensure!(words.iter().all(found), "{words:?}: {report}");
    Ok(())
}

/// The key and the bytes of an object that was rewritten with a change.
fn rewritten(scene: &Scene, key: &str, change: impl FnOnce(&mut PartFile) -> Result<()>) -> Result<Vec<u8>> {
    let place = Place::new()?;
    let path = place.path().join("part.parquet");
    std::fs::write(&path, scene.out.get(key)?)?;
    let mut part = PartFile::read(&path)?;
    change(&mut part)?;
    part.write(&path)?;
    Ok(std::fs::read(&path)?)
}

fn objects_that_changed_since_their_publish_are_found() -> Result<()> {
    let scene = Scene::new()?;
    scene.job().run()?.summary()?;
    let report = verify(&scene)?.expect_code(0)?;
    let report: Value = serde_json::from_str(&report.stdout)?;
    let totals = scene.case.totals()?;
    ensure!(report["rows"] == totals.rows && report["totals"]["n_clients"] == totals.n_clients, "{report}");
    let keys = scene.out.list(&day_folder())?;
    ensure!(keys.len() > 2, "{keys:?}");
    let bytes = scene.out.get(&keys[1])?;
    // The same rows in other bytes, and a changed value.
    scene.out.put(&keys[1], rewritten(&scene, &keys[1], |_| Ok(()))?)?;
    expect(&scene, &["CRC-32", "and the record of the publish says"])?;
    let changed =
        rewritten(&scene, &keys[1], |part| part.set(1, "count", Arc::new(Int64Array::from(vec![4_711]))));
    scene.out.put(&keys[1], changed?)?;
    expect(&scene, &["a value was changed", "CRC-32", "its rows have the checksum"])?;
    scene.out.put(&keys[1], bytes.clone())?;
    verify(&scene)?.expect_code(0)?;
    // A missing object, and one that no job published.
    scene.out.remove(&keys[1])?;
    expect(&scene, &["missing file: part-00001", "which does not exist", "rows, and their footers say"])?;
    scene.out.put(&keys[1], bytes.clone())?;
    let copy = keys[1].replace(".snappy.parquet", "1.snappy.parquet");
    scene.out.put(&copy, bytes)?;
    expect(&scene, &["did not publish it", "repeats row"])?;
    scene.out.remove(&copy)?;
    verify(&scene)?.expect_code(0)?;
    for key in &keys {
        scene.out.remove(key)?;
    }
    expect(&scene, &["missing file: job", "part-00000"])?;
    ensure!(std::fs::read_dir(scene.place.spill())?.next().is_none(), "copies are left");
    Ok(())
}

fn a_day_in_a_bucket_is_compared_with_one_on_disk() -> Result<()> {
    let scene = Scene::new()?;
    scene.job().run()?.summary()?;
    let local = Place::new()?;
    Tally::job(&scene.case.dir, &local).date(DATE).run()?.expect_code(0)?;
    let url = format!("{}/submission_date_s3={DATE}", output_url());
    let diff = || {
        let diff = Tally::new("diff").args(["--output-format", "json", &url]).args([local.partition(DATE)]);
        reach(diff, scene.server.address(), ADMIN).run()
    };
    diff()?.expect_code(0)?;
    let file = &part_files(&local.partition(DATE))?[0];
    let mut part = PartFile::read(file)?;
    part.set(1, "count", Arc::new(Int64Array::from(vec![4_711])))?;
    part.write(file)?;
    let found = diff()?.expect_failure(1, &["the days differ"])?;
    let found: Value = serde_json::from_str(&found.stdout)?;
    let first = &found["first"][0];
    ensure!(first["only_in_b"][0]["count"] == 4_711 && first["only_in_a"][0]["count"] != 4_711, "{found}");
    Ok(())
}

tally_tests::tests![
    objects_that_changed_since_their_publish_are_found,
    a_day_in_a_bucket_is_compared_with_one_on_disk,
];
