//! `--expect`: a day that does not meet its expectations is not published, in one process. On a cluster:
//! `cluster_expectations`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tally_tests::golden::{Case, DATE};
use tally_tests::output::{Place, check_no_spill, check_published, check_unchanged, snapshot};
use tally_tests::process::{Outcome, Tally};
use tally_tests::ranges::{Range, THREE, days, states};

/// The exit code of a day that does not meet an expectation.
const UNMET: i32 = 6;

fn run(place: &Place, flags: &[&str]) -> Result<Outcome> {
    Tally::job(&Case::new("case-05").dir, place).date(DATE).args(flags).run()
}

/// The share of nulls of `foreign_install` in the rows that Spark computed.
fn null_share() -> Result<f64> {
    let rows = Case::new("case-05").expected_rows()?;
    let nulls = rows.iter().filter(|row| row.foreign_install.is_none()).count();
    ensure!(nulls > 0 && nulls < rows.len(), "{nulls}");
    Ok(nulls as f64 / rows.len() as f64)
}

#[test]
fn a_day_that_does_not_meet_an_expectation_is_not_published_and_the_old_day_stays() -> Result<()> {
    let place = Place::new()?;
    place.put_old_output(DATE)?;
    let old = snapshot(&place.published())?;
    let totals = Case::new("case-05").totals()?;
    let (rows, clients, share) = (totals.rows, totals.n_clients, null_share()?);
    let unmet = |expectation: &str, words: &[&str]| -> Result<()> {
        let outcome = run(&place, &["--expect", expectation])?;
        let words: Vec<&str> =
            ["does not meet the expectation", expectation].iter().chain(words).copied().collect();
        outcome.expect_failure(UNMET, &words)?;
        check_unchanged(&old, &snapshot(&place.published())?)?;
        check_no_spill(&place.spill())
    };
    unmet(&format!("rows > {rows}"), &[&format!("rows is {rows}, and the limit is {rows}")])?;
    unmet(&format!("n_clients < {clients}"), &[&format!("n_clients is {clients}")])?;
    unmet("files == 2", &["files is 1, and the limit is 2"])?;
    let below = format!("null_share(foreign_install) <= {}", share * 0.99);
    unmet(&below, &["null_share(foreign_install) is 0."])?;
    // All that are not met are named.
    let outcome = run(&place, &["--expect", "rows < 1", "--expect", "rows > 0", "--expect", "files > 1"])?;
    outcome.expect_failure(UNMET, &["2 expectations", "`rows < 1`", "`files > 1`"])?;
    check_unchanged(&old, &snapshot(&place.published())?)
}

#[test]
fn a_day_that_meets_its_expectations_is_published() -> Result<()> {
    let place = Place::new()?;
    let (totals, share) = (Case::new("case-05").totals()?, null_share()?);
    let expectations = [
        format!("rows == {}", totals.rows),
        format!("n_clients>={}", totals.n_clients),
        "files <= 1".into(),
        format!("null_share(foreign_install) <= {}", share * 1.01),
        format!("null_share(foreign_install) >= {}", share * 0.99),
        "null_share(client_id) == 0".into(),
        "null_share(n_clients) == 0".into(),
        "rows >= 0.8 * previous".into(),
    ];
    let flags: Vec<&str> = expectations.iter().flat_map(|text| ["--expect", text]).collect();
    let outcome = run(&place, &flags)?.expect_code(0)?;
    let summary: Value = serde_json::from_str(&outcome.stdout)?;
    let note = "the expectation `rows >= 0.8 * previous` holds: there is no earlier day";
    ensure!(summary["warnings"] == serde_json::json!([note]), "{outcome}");
    ensure!(outcome.stderr.contains(note), "{outcome}");
    check_published(&place.published(), &place.partition(DATE))
}

#[test]
fn a_day_is_compared_with_the_day_that_was_published_before() -> Result<()> {
    let range = Range::new(&THREE)?;
    let run =
        |date: &str, flags: &[&str]| range.of(Tally::new("run")).args(["--date", date]).args(flags).run();
    let rows = Case::new("case-05").totals()?.rows;
    run(THREE[0], &[])?.expect_code(0)?;
    let more = ["--expect", "rows >= 1.01 * previous"];
    let words = [format!("rows is {rows}"), format!("({rows} on 20170226)")];
    // A folder without part files is not a published day.
    std::fs::create_dir(range.place.partition(DATE))?;
    run(THREE[2], &more)?.expect_failure(UNMET, &[&words[0], &words[1]])?;
    std::fs::remove_dir(range.place.partition(DATE))?;
    // Days after it do not count.
    run(THREE[2], &[])?.expect_code(0)?;
    run(DATE, &more)?.expect_failure(UNMET, &[&words[0], &words[1]])?;
    let as_before = ["rows >= 1 * previous", "n_clients == previous", "files <= previous"];
    let share = "null_share(foreign_install) <= 1.01 * previous";
    let flags: Vec<&str> = as_before.iter().chain([&share]).flat_map(|text| ["--expect", text]).collect();
    let outcome = run(DATE, &flags)?.expect_code(0)?;
    ensure!(!outcome.stderr.contains("holds"), "{outcome}");
    // A day that another program wrote has no figures.
    let folder = range.place.partition(THREE[1]);
    std::fs::remove_dir_all(&folder)?;
    std::fs::create_dir(&folder)?;
    std::fs::copy(Case::new("case-05").dir.join("expected.parquet"), folder.join("part-0.parquet"))?;
    let outcome = run(THREE[2], &more)?.expect_code(0)?;
    ensure!(outcome.stderr.contains("the part files of 20170227 do not have rows"), "{outcome}");
    Ok(())
}

#[test]
fn a_backfill_shows_the_days_that_do_not_meet_an_expectation() -> Result<()> {
    let range = Range::new(&THREE)?;
    let ends = [THREE[0], THREE[2]];
    // Only the first day has no day before it.
    let more = ["--expect", "rows >= 1.01 * previous"];
    let outcome = range.backfill(ends).args(more).run()?.expect_failure(UNMET, &["2 of 3 days"])?;
    assert_eq!(states(&outcome)?, ["done", "unmet", "unmet"]);
    let reason = days(&outcome)?[1].reason.clone().context("no reason")?;
    ensure!(reason.contains("`rows >= 1.01 * previous`"), "{reason}");
    range.check_published(&[THREE[0]])?;
    // With other failures, the command fails as a whole.
    range.remove_main_summary(THREE[2])?;
    let outcome = range.backfill(ends).args(more).run()?.expect_failure(1, &["2 of 3 days"])?;
    assert_eq!(states(&outcome)?, ["done", "unmet", "failed"]);
    Ok(())
}

#[test]
fn expectations_may_be_set_in_the_environment_and_wrong_ones_are_refused_before_any_work() -> Result<()> {
    let place = Place::new()?;
    let job = || Tally::job(&Case::new("case-05").dir, &place).date(DATE);
    let several = job().env("TALLY_EXPECT", "rows > 0; files > 1").run()?;
    several.expect_failure(UNMET, &["`files > 1`"])?;
    let wrong = |text: &str, words: &[&str]| job().args(["--expect", text]).run()?.expect_failure(2, words);
    // The error is JSON, as the result would be.
    wrong("clients > 0", &[r#"there is no figure \"clients\""#, "n_clients"])?;
    wrong("null_share(addon_id) < 1", &[r#"no column \"addon_id\""#, "client_id"])?;
    wrong("rows is large", &["write FIGURE COMPARISON NUMBER"])?;
    ensure!(snapshot(&place.published())?.is_empty());
    job().env("TALLY_EXPECT", "").run()?.expect_code(0)?;
    Ok(())
}
