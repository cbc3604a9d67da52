//! Objects that stand for folders, and keys that are not paths, as consoles and other programs leave them in inputs,
//! outputs and state directories: the first are skipped everywhere, the second are reported before any work.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tally_tests::cluster::nodes::QUICK;
use tally_tests::cluster::{Setup, with_cluster};
use tally_tests::golden::DATE;
use tally_tests::output::{Place, is_part_name};
use tally_tests::s3::proxy::Fault;
use tally_tests::s3::scene::{CASE, Scene};
use tally_tests::s3::server::{ADMIN, DATA, Kind, OUT};
use tally_tests::s3::{OUTPUT, check_nothing_left, day_folder, objectives_key, put_old_output, raw, submit};
use tally_tests::table;

/// The folder of the day's records.
fn records() -> String {
    format!("agg/.v1.tally-staging/submission_date_s3={DATE}")
}

fn input(table: &str) -> String {
    format!("{CASE}/{table}/submission_date_s3={DATE}")
}

/// Checks that, besides markers, there are the day's part files and one finished decision.
fn check_beside_markers(scene: &Scene) -> Result<()> {
    let place = Place::new()?;
    let mut decision = vec![];
    std::fs::create_dir_all(place.partition(DATE))?;
    for key in raw::list(&scene.server, OUT, "agg/")?.into_iter().filter(|key| !key.ends_with('/')) {
        match key.strip_prefix(&format!("{}/", day_folder())) {
            Some(name) if is_part_name(Path::new(name)) => {
                std::fs::write(place.partition(DATE).join(name), scene.out.get(&key)?)?;
            }
            None if key == objectives_key() => {}
            _ => decision.push(key),
        }
    }
    ensure!(decision.iter().all(|key| key.starts_with(&format!("{}/commits/", records()))), "{decision:?}");
    ensure!(decision.len() == 3, "not one decision that is done: {decision:?}");
    table::compare(&table::read_aggregates(&place.partition(DATE))?, &scene.case.expected_rows()?)
}

fn markers_are_passed_over_and_block_no_day() -> Result<()> {
    for kind in [Kind::Seaweed, Kind::Moto] {
        let scene = Scene::of(kind)?;
        put_old_output(&scene.out)?;
        let (day, records) = (day_folder(), records());
        let staging = "agg/.v1.tally-staging/".to_string();
        let above = [format!("{OUTPUT}/"), staging, format!("{records}/")];
        let deep = [format!("{records}/commits/"), format!("{records}/jobs/"), format!("{records}/jobs/a/")];
        // Folders that are named like decisions: a later one, and those still to be made, which SeaweedFS then has no
        // room for.
        let numbers = if kind == Kind::Moto { &[1, 2, 99][..] } else { &[99] };
        let numbered: Vec<String> =
            numbers.iter().map(|number| format!("{records}/commits/{number:08}/")).collect();
        let markers = [&above[..], &deep, &[format!("{day}/"), format!("{day}/sub/")], &numbered].concat();
        raw::put(&scene.server, OUT, &markers)?;
        let (addons, main) = (input("addons/v2"), input("main_summary/v3"));
        let inputs =
            [&addons, &main].map(|day| [format!("{day}/"), format!("{day}/sub/"), format!("{day}/a=1/")]);
        raw::put(&scene.server, DATA, &inputs.concat())?;
        for round in 0..3 {
            let context = || format!("{kind:?}, round {round}");
            let outcome = scene.job().run()?;
            ensure!(!outcome.stderr.contains("empty files are skipped"), "{}: {outcome}", context());
            outcome.summary().with_context(context)?;
            assert_eq!(scene.gc(&[]).with_context(context)?, "nothing is left over\n", "{}", context());
        }
        check_beside_markers(&scene).with_context(|| format!("{kind:?}"))?;
        // Those that are no folder of anything still exist.
        let left = raw::list(&scene.server, OUT, &format!("{day}/"))?;
        ensure!(left.contains(&format!("{day}/")), "{kind:?}: {left:?}");
    }
    Ok(())
}

/// Previous versions took the day's marker for an old file, so that their record names the day itself and could not be
/// read back: the job, all later ones and `tally gc` failed on it.
fn a_day_that_a_marker_blocked_recovers_by_itself() -> Result<()> {
    for by_gc in [false, true] {
        let scene = Scene::new()?;
        put_old_output(&scene.out)?;
        raw::put(&scene.server, OUT, &[format!("{}/", day_folder())])?;
        // Such a job stopped after its record.
        scene.kill_at("PUT", "/commits/", 0, Fault::HoldAnswer)?;
        let key = format!("{}/commits/00000001", records());
        let mut record: Value = serde_json::from_slice(&scene.out.get(&key)?)?;
        let old = record["old"].as_array_mut().context("no list")?;
        ensure!(!old.contains(&json!(day_folder())), "the day is still taken for a file of its own");
        old.insert(0, json!(day_folder()));
        scene.out.put(&key, serde_json::to_vec(&record)?)?;
        if by_gc {
            ensure!(scene.gc(&[])?.contains("decision carried out"), "nothing was carried out");
        } else {
            scene.job().run()?.summary()?;
            scene.gc(&[])?;
        }
        check_beside_markers(&scene).with_context(|| format!("by gc: {by_gc}"))?;
    }
    Ok(())
}

fn a_key_that_is_no_path_is_named_before_any_work() -> Result<()> {
    // SeaweedFS treats two slashes as one.
    let scene = Scene::of(Kind::Moto)?;
    put_old_output(&scene.out)?;
    let in_output = format!("{}//x.parquet", day_folder());
    let in_input = format!("{}//x.parquet", input("addons/v2"));
    for (bucket, key, what) in [(OUT, &in_output, "s3://out/agg/v1"), (DATA, &in_input, "s3://data/case-05")]
    {
        raw::put(&scene.server, bucket, std::slice::from_ref(key))?;
        let before = raw::list(&scene.server, OUT, "")?;
        scene.proxy.take();
        scene.job().run()?.expect_failure(1, &[what, key, "remove or rename this object"])?;
        let exchanges = scene.proxy.take();
        ensure!(exchanges.iter().all(|exchange| exchange.method == "GET"), "{exchanges:?}");
        let listed: Vec<_> =
            exchanges.iter().filter(|exchange| exchange.target.contains("list-type")).collect();
        ensure!(listed.len() <= 3, "a listing was tried again: {listed:?}");
        assert_eq!(raw::list(&scene.server, OUT, "")?, before);
        raw::remove(&scene.server, bucket, std::slice::from_ref(key))?;
    }
    scene.job().run()?.summary()?;
    scene.check_day()?;
    check_nothing_left(&scene.out)
}

fn markers_in_a_state_directory_are_no_records() -> Result<()> {
    let scene = Scene::new()?;
    let markers =
        ["state/", "state/log/", "state/log/1/", "state/log/old/", "state/log/1/sub/"].map(String::from);
    raw::put(&scene.server, OUT, &markers)?;
    let setup = Setup {
        workers: 1,
        coordinator_flags: QUICK.to_vec(),
        environment: ADMIN.environment(scene.server.address()).to_vec(),
        state_dir: Some("s3://out/state".into()),
        ..Setup::default()
    };
    with_cluster(setup, |cluster| {
        submit(&cluster.client(), CASE).run()?.summary()?;
        // The next incarnation reads the journal.
        cluster.coordinators[0].process.kill()?;
        cluster.coordinators[0].restart()?;
        submit(&cluster.client(), CASE).run()?.summary()?;
        scene.check_day()
    })
}

tally_tests::tests![
    markers_are_passed_over_and_block_no_day,
    a_day_that_a_marker_blocked_recovers_by_itself,
    a_key_that_is_no_path_is_named_before_any_work,
    markers_in_a_state_directory_are_no_records,
];
