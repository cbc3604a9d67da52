//! The objectives of published days: their corner cases, their table, and `tally report`. That every published day states what
//! its rows have is checked wherever a test reads an output (`Place::read_output`), also on clusters with lost workers.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tally_tests::day::{DataFile, Day, Format};
use tally_tests::generated::Generated;
use tally_tests::golden::{CASES, Case, DATE};
use tally_tests::objectives::{file_of, row_of};
use tally_tests::output::{Place, check_unchanged, snapshot};
use tally_tests::process::{Outcome, Tally};
use tally_tests::python::run_script;
use tally_tests::rows::{ActiveAddon, AddonRow, MainRow, Theme};

/// The golden date, in days since 1970.
const TODAY: i64 = 17_224;
/// The date after it.
const NEXT: &str = "20170228";

/// A client with add-ons of these install types, and a ping for each profile date and install day.
fn client(
    id: &str,
    kinds: &[Option<bool>],
    profiles: &[(Option<i64>, Option<i32>)],
) -> (Vec<AddonRow>, Vec<MainRow>) {
    let addon = |(number, kind): (usize, &Option<bool>)| AddonRow {
        client_id: Some(id.into()),
        addon_id: Some(format!("addon-{number}")),
        foreign_install: *kind,
        is_system: Some(false),
        user_disabled: Some(false),
        app_disabled: Some(false),
    };
    let ping = |&(created, install_day): &(Option<i64>, Option<i32>)| MainRow {
        client_id: Some(id.into()),
        profile_creation_date: created,
        active_theme: Some(Theme { addon_id: Some("theme".into()) }),
        active_addons: Some(vec![Some(ActiveAddon { install_day })]),
    };
    (kinds.iter().enumerate().map(addon).collect(), profiles.iter().map(ping).collect())
}

/// A day with the corner cases of new profiles.
fn corners() -> Day {
    let (own, foreign, unknown) = (Some(false), Some(true), None);
    let at = |days: i64| Some(TODAY + days);
    let day = |days: i64| i32::try_from(TODAY + days).ok();
    let clients = [
        // New on its second profile date; both install types.
        client("both", &[own, foreign], &[(at(-14), day(-14)), (at(-13), day(-13))]),
        client("today", &[own], &[(at(0), day(0))]),
        client("future profile", &[own], &[(at(1), day(1))]),
        client("future install", &[own], &[(at(-1), day(1))]),
        client("install before profile", &[foreign], &[(at(-5), day(-6))]),
        client("no install day", &[foreign], &[(at(-5), None)]),
        client("no date", &[unknown], &[(None, day(0))]),
        client(
            "extreme",
            &[own, unknown],
            &[(Some(i64::MIN), Some(i32::MIN)), (Some(i64::MAX), Some(i32::MAX))],
        ),
        // The early install day belongs to a profile that is not new.
        client("two profiles", &[own], &[(at(-20), day(-19)), (at(-2), day(-3))]),
        client("many", &[own; 25], &[]),
        // No active add-ons: no rows.
        client("none", &[], &[(at(0), day(0))]),
    ];
    let (addons, main): (Vec<_>, Vec<_>) = clients.into_iter().unzip();
    let (mut addons, mut main) = (addons.concat(), main.concat());
    // The null client has pings and add-ons, but no rows.
    addons.push(AddonRow { client_id: None, ..addons[0].clone() });
    main.push(MainRow { client_id: None, ..main[0].clone() });
    let file = |name: &str| name.to_string();
    Day {
        main: vec![DataFile::new(file("part-0.parquet"), main, Format::default())],
        addons: vec![DataFile::new(file("part-0.parquet"), addons, Format::default())],
        litter: vec![],
    }
}

fn corner_cases_are_counted_as_they_are_defined() -> Result<()> {
    let place = Place::new()?;
    let root = place.path().join("day");
    corners().write(&root, DATE)?;
    for flags in [
        &["--partitions", "1"][..],
        &["--partitions", "7"],
        &["--partitions", "64", "--target-file-size", "1KB"],
    ] {
        Tally::job(&root, &place).date(DATE).args(flags).run()?.summary()?;
        place.read_output(DATE).with_context(|| format!("{flags:?}"))?;
        let row = row_of(&file_of(&place.partition(DATE)))?;
        let all = |names: &[&str]| names.iter().map(|name| row[*name].clone()).collect::<Vec<_>>();
        assert_eq!(all(&["n_clients", "addon_clients", "addons", "self_installers"]), [11, 10, 36, 7]);
        assert_eq!(all(&["new_profiles", "new_installers"]), [6, 2]);
        assert_eq!(all(&["side_loaded_only", "both_types", "self_only", "self_and_unknown"]), [2, 1, 6, 1]);
        assert_eq!(all(&["custom_theme", "unknown_theme"]), [9, 1]);
        assert_eq!(row["addons_per_client"], json!(3.6));
        let buckets = row["clients_by_addons"].as_array().context("no list")?;
        assert_eq!((&buckets[0], &buckets[1], &buckets[19]), (&json!(7), &json!(2), &json!(1)));
    }
    Ok(())
}

/// A published day, a day that Spark wrote, and no third day.
fn two_days() -> Result<Place> {
    let place = Place::new()?;
    Tally::job(&Case::new("case-05").dir, &place).date(DATE).run()?.summary()?;
    let other = place.partition(NEXT);
    std::fs::create_dir_all(&other)?;
    std::fs::copy(Case::new("case-05").dir.join("expected.parquet"), other.join("part-0.snappy.parquet"))?;
    Ok(place)
}

fn report(place: &Place, from: &str, to: &str) -> Tally {
    let output = place.output();
    Tally::new("report").args(["--from", from, "--to", to, "--output"]).args([output])
}

fn parsed(outcome: &Outcome) -> Result<Value> {
    serde_json::from_str(&outcome.stdout).with_context(|| outcome.to_string())
}

fn a_report_has_every_day_of_the_range() -> Result<()> {
    let place = two_days()?;
    let html = place.path().join("report.html");
    let run = |from: &str| report(&place, from, "20170301").args(["--html".as_ref(), html.as_os_str()]);
    let outcome = run(DATE).args(["--output-format", "json"]).run()?.expect_code(0)?;
    let document = parsed(&outcome)?;
    let days = document["days"].as_array().context("no days")?;
    let states: Vec<_> = days.iter().map(|day| (day["date"].clone(), day["state"].clone())).collect();
    let state = |date: &str, state: &str| (json!(date), json!(state));
    assert_eq!(
        states,
        [state(DATE, "published"), state(NEXT, "without_objectives"), state("20170301", "missing")]
    );
    let row = row_of(&file_of(&place.partition(DATE)))?;
    for figure in document["figures"].as_array().context("no figures")? {
        let name = figure["name"].as_str().context("no name")?;
        let found = &days[0]["figures"][name];
        assert_eq!(found["value"], row[name], "{name}");
        let change =
            if row[name].as_f64().is_some_and(|value| value > 0.0) { json!(0.0) } else { Value::Null };
        assert_eq!(found["change_percent"], change, "{name}");
    }
    assert_eq!(days[0]["distributions"]["clients_by_addons"], row["clients_by_addons"]);
    let outcome = run(DATE).run()?.expect_code(0)?;
    for text in ["Objectives", "no objectives", "missing", "baseline"] {
        ensure!(outcome.stdout.contains(text), "no {text}\n{outcome}");
    }
    let page = std::fs::read_to_string(&html)?;
    for text in ["<svg", "</desc>", "Days without objectives: 20170228", "Missing days: 20170301"] {
        ensure!(page.contains(text), "no {text} in the page");
    }
    ensure!(page.contains(&format!("{}</td>", row["addon_clients"])), "no value in the page");
    for text in ["http:", "https:", "src=", "href=", "<script"] {
        ensure!(!page.contains(text), "{text} in the page");
    }
    // A baseline that has no objectives is named, and there are no changes.
    let baseline = ["--baseline", NEXT, "--output-format", "json"];
    let outcome = run(DATE).args(baseline).run()?.expect_code(0)?;
    ensure!(outcome.stderr.contains("the baseline 20170228 is without objectives"), "{outcome}");
    let document = parsed(&outcome)?;
    assert_eq!(document["days"][0]["figures"]["addon_clients"]["change_percent"], Value::Null);
    assert_eq!(document["baseline"]["state"], "without_objectives");
    Ok(())
}

fn a_day_that_cannot_be_read_is_named() -> Result<()> {
    let place = two_days()?;
    std::fs::write(place.partition(NEXT).join("part-0.snappy.parquet"), "no Parquet file at all")?;
    let outcome = report(&place, DATE, NEXT).run()?;
    let outcome = outcome.expect_failure(1, &[NEXT, "part-0.snappy.parquet is not a Parquet file"])?;
    ensure!(outcome.stdout.contains("unreadable"), "{outcome}");
    report(&place, NEXT, DATE).run()?.expect_failure(2, &["the range ends before it begins"])?;
    Ok(())
}

/// The day is published, and the report reads it.
fn a_table_that_cannot_be_written_is_a_warning() -> Result<()> {
    let place = Place::new()?;
    let blocked = file_of(&place.partition(DATE));
    let folder = blocked.parent().and_then(Path::parent).context("no folder")?;
    std::fs::create_dir_all(place.output())?;
    std::fs::write(folder, "a file")?;
    let outcome = Tally::job(&Case::new("case-05").dir, &place).date(DATE).run()?.expect_code(0)?;
    ensure!(outcome.stderr.contains("the objectives table cannot be updated"), "{outcome}");
    let outcome = report(&place, DATE, DATE).run()?.expect_code(0)?;
    ensure!(outcome.stdout.contains("baseline"), "{outcome}");
    Ok(())
}

/// The table follows the output: it has the day of the last publish, and a failed job changes neither.
fn the_table_has_the_day_of_the_output() -> Result<()> {
    let place = Place::new()?;
    let mut seen = vec![];
    for name in ["case-05", "case-03"] {
        Tally::job(&Case::new(name).dir, &place).date(DATE).run()?.summary()?;
        place.read_output(DATE)?;
        seen.push(row_of(&file_of(&place.partition(DATE)))?);
    }
    ensure!(seen[0] != seen[1], "two days with the same objectives");
    let before = snapshot(&place.published())?;
    let nothing = place.path().join("nothing");
    Tally::job(&nothing, &place).date(DATE).run()?.expect_code(1)?;
    check_unchanged(&before, &snapshot(&place.published())?)
}

fn duckdb_computes_the_same_by_the_documented_statement() -> Result<()> {
    let check = |place: &Place, name: &str| -> Result<()> {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/docs/objectives.md");
        let done = run_script("objectives.py", &[place.output().as_os_str(), document.as_os_str()])?;
        let said = [&done.stdout[..], &done.stderr].map(String::from_utf8_lossy).concat();
        ensure!(done.status.success() && said.contains("figures"), "{name}: {said}");
        Ok(())
    };
    for name in CASES {
        let place = Place::new()?;
        let flags = ["--target-file-size", "1KB", "--partitions", "5"];
        Tally::job(&Case::new(name).dir, &place).date(DATE).args(flags).run()?.summary()?;
        check(&place, name)?;
    }
    let place = Place::new()?;
    let day = Generated::new(place.path(), &["--clients", "50000", "--narrow"])?;
    Tally::job(&day.root, &place).date(DATE).run()?.summary()?;
    check(&place, "a generated day")?;
    corners().write(&place.path().join("corners"), DATE)?;
    Tally::job(&place.path().join("corners"), &place).date(DATE).run()?.summary()?;
    check(&place, "corner cases")
}

tally_tests::tests![
    corner_cases_are_counted_as_they_are_defined,
    a_report_has_every_day_of_the_range,
    a_day_that_cannot_be_read_is_named,
    a_table_that_cannot_be_written_is_a_warning,
    the_table_has_the_day_of_the_output,
    duckdb_computes_the_same_by_the_documented_statement,
];
