//! Ranges of days in one process: `tally backfill`, `days` and `plan`, as a user runs them. On a cluster: `cluster_ranges`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_tests::cluster::truth::Truth;
use tally_tests::golden::{Case, DATE};
use tally_tests::output::{check_no_spill, check_unchanged, snapshot};
use tally_tests::process::{Outcome, Tally};
use tally_tests::ranges::{Range, THREE, days, states};
use tally_tests::wait::wait_for;

const DEADLINE: Duration = Duration::from_secs(60);
/// The ends of [`THREE`].
const ENDS: [&str; 2] = [THREE[0], THREE[2]];
/// Resources for two jobs at a time, on any machine.
const TWO_AT_A_TIME: [&str; 6] = ["--parallel", "2", "--threads", "2", "--memory-limit", "1GiB"];

#[test]
fn a_day_without_inputs_fails_and_the_others_are_published() -> Result<()> {
    for parallel in [&[][..], &TWO_AT_A_TIME[..]] {
        let range = Range::new(&[THREE[0], THREE[2]])?;
        let outcome = range.backfill(ENDS).args(parallel).run()?;
        let outcome = outcome.expect_failure(1, &["1 of 3 days", DATE, "no data files"])?;
        let found = days(&outcome)?;
        let dates: Vec<_> = found.iter().map(|day| day.date.as_str()).collect();
        assert_eq!(dates, THREE);
        assert_eq!(states(&outcome)?, ["done", "failed", "done"]);
        let rows = Case::new("case-05").totals()?.rows;
        ensure!(found[0].rows == Some(rows) && found[0].files == Some(1), "{outcome}");
        let reason = found[1].reason.as_deref().context("no reason")?;
        ensure!(reason.contains("no data files") && found[1].rows.is_none(), "{outcome}");
        range.check_published(&[THREE[0], THREE[2]])?;
    }
    Ok(())
}

#[test]
fn only_missing_days_and_days_with_late_data_are_computed_again() -> Result<()> {
    let range = Range::new(&[THREE[0], THREE[2]])?;
    range.backfill(ENDS).run()?.expect_code(1)?;
    range.add(THREE[1])?;
    let before = snapshot(&range.place.partition(THREE[0]))?;
    let outcome = range.backfill(ENDS).args(["--only-missing"]).run()?.expect_code(0)?;
    assert_eq!(states(&outcome)?, ["up_to_date", "done", "up_to_date"]);
    check_unchanged(&before, &snapshot(&range.place.partition(THREE[0]))?)?;
    range.check_published(&THREE)?;
    range.touch(THREE[0])?;
    let outcome = range.backfill(ENDS).args(["--only-missing"]).run()?.expect_code(0)?;
    assert_eq!(states(&outcome)?, ["done", "up_to_date", "up_to_date"]);
    let outcome = range.backfill(ENDS).args(["--only-missing"]).run()?.expect_code(0)?;
    assert_eq!(states(&outcome)?, ["up_to_date"; 3]);
    // Without the flag, all days are computed.
    let outcome = range.backfill(ENDS).run()?.expect_code(0)?;
    assert_eq!(states(&outcome)?, ["done"; 3]);
    range.check_published(&THREE)
}

#[test]
fn the_tables_have_a_row_per_day() -> Result<()> {
    let range = Range::new(&[THREE[0]])?;
    let spill = range.place.spill();
    let table = |command: &str| range.named(Tally::new(command)).args(["--from", THREE[0], "--to", THREE[1]]);
    let backfill = table("backfill").args(["--spill-dir".as_ref(), spill.as_os_str()]);
    let outcome = backfill.run()?.expect_code(1)?;
    let check = |line: usize, words: [&str; 2], outcome: &Outcome| -> Result<()> {
        let found: Vec<_> = outcome.stdout.lines().nth(line).unwrap_or_default().split_whitespace().collect();
        ensure!(found.starts_with(&words), "line {line} does not begin with {words:?}\n{outcome}");
        Ok(())
    };
    check(0, ["DATE", "STATE"], &outcome)?;
    check(1, [THREE[0], "done"], &outcome)?;
    check(2, [THREE[1], "failed"], &outcome)?;
    for note in ["started", "done, "] {
        ensure!(outcome.stderr.contains(&format!("{}: {note}", THREE[0])), "{outcome}");
    }
    let outcome = table("days").run()?.expect_code(0)?;
    check(1, [THREE[0], "published"], &outcome)?;
    check(2, [THREE[1], "no"], &outcome)?;
    ensure!(outcome.stdout.contains("no addons, no main_summary"), "{outcome}");
    ensure!(outcome.stdout.ends_with("\n1 published, 1 no inputs\n"), "{outcome}");
    let outcome = table("plan").run()?.expect_code(1)?;
    check(1, [THREE[0], "ready"], &outcome)?;
    check(2, [THREE[1], "no"], &outcome)?;
    ensure!(outcome.stdout.contains("estimated time, one day after another: < 1 s ("), "{outcome}");
    Ok(())
}

#[test]
fn wrong_ranges_are_refused_before_any_work() -> Result<()> {
    let range = Range::new(&THREE)?;
    let before = snapshot(range.place.path())?;
    let refused = |flags: &[&str], words: &[&str]| -> Result<()> {
        for command in ["backfill", "days", "plan"] {
            let outcome = range.of(Tally::new(command)).args(flags).run()?;
            outcome.expect_failure(2, words).with_context(|| format!("{command} {flags:?}"))?;
        }
        Ok(())
    };
    refused(&["--from", "20170228", "--to", "20170226"], &["--from 20170228 is after --to 20170226"])?;
    refused(&["--from", "19000101", "--to", "20170226"], &["at most 3660"])?;
    refused(&["--from", "2017-02-26", "--to", "20170226"], &["--from", "write YYYYMMDD"])?;
    refused(&["--from", "20170226"], &["--to"])?;
    range.of(Tally::new("backfill")).run()?.expect_failure(2, &["--from", "--to"])?;
    let both = ["--date", DATE, "--from", THREE[0], "--to", THREE[2]];
    range.of(Tally::new("plan")).args(both).run()?.expect_failure(2, &["--date"])?;
    let many = ["--parallel", "3", "--threads", "2"];
    range.backfill(ENDS).args(many).run()?.expect_failure(2, &["--parallel 3", "2 threads"])?;
    range.backfill(ENDS).args(["--cluster"]).run()?.expect_failure(2, &["--coordinator"])?;
    check_unchanged(&before, &snapshot(range.place.path())?)
}

#[test]
fn days_says_what_is_published_outdated_and_missing() -> Result<()> {
    let range = Range::new(&[THREE[0], THREE[2]])?;
    let listed = |flags: &[&str]| -> Result<Vec<String>> {
        states(&range.of(Tally::new("days")).args(flags).run()?.expect_code(0)?)
    };
    // Without a range: from the first day to the last one.
    assert_eq!(listed(&[])?, ["missing", "no_inputs", "missing"]);
    range.backfill([THREE[0], THREE[0]]).run()?.expect_code(0)?;
    assert_eq!(listed(&[])?, ["published", "no_inputs", "missing"]);
    range.touch(THREE[0])?;
    assert_eq!(listed(&[])?, ["outdated", "no_inputs", "missing"]);
    range.remove_main_summary(THREE[2])?;
    assert_eq!(listed(&["--from", THREE[1], "--to", "20170301"])?, ["no_inputs"; 3]);
    // An output of another program, older than its inputs.
    range.place.put_old_output(THREE[1])?;
    range.add(THREE[1])?;
    range.touch(THREE[1])?;
    assert_eq!(listed(&["--from", THREE[1], "--to", THREE[1]])?, ["outdated"]);
    Ok(())
}

#[test]
fn days_of_a_wrong_root_are_warned_of() -> Result<()> {
    let range = Range::new(&[])?;
    let outcome = range.of(Tally::new("days")).run()?.expect_code(0)?;
    ensure!(days(&outcome)?.is_empty(), "{outcome}");
    for table in ["addons", "main_summary"] {
        ensure!(
            outcome.stderr.contains(&format!("warning: {table}: there is no submission_date_s3=")),
            "{outcome}"
        );
    }
    Ok(())
}

#[test]
fn plan_shows_what_a_job_would_do_and_does_nothing() -> Result<()> {
    let range = Range::new(&[THREE[0], THREE[2]])?;
    let before = snapshot(range.place.path())?;
    let one = range.of(Tally::new("plan")).args(["--date", THREE[0], "--shard-bytes", "512"]);
    let outcome = one.run()?.expect_code(0)?;
    let found = days(&outcome)?;
    let [day] = &found[..] else { anyhow::bail!("{outcome}") };
    assert_eq!((day.date.as_str(), day.state.as_str()), (THREE[0], "ready"));
    ensure!(day.files > Some(2) && day.rows > Some(0) && day.shards > Some(2), "{outcome}");
    let all = range.between(Tally::new("plan"), ENDS).args(["--threads", "8"]).run()?;
    let outcome = all.expect_failure(1, &["1 of 3 days", DATE, "no data files"])?;
    assert_eq!(states(&outcome)?, ["ready", "no_inputs", "ready"]);
    let json: serde_json::Value = serde_json::from_str(&outcome.stdout)?;
    let total = json["estimated_seconds"].as_f64().context("no estimated time")?;
    ensure!((0.0..60.0).contains(&total) && json["estimated_from"]["threads"] == 8, "{outcome}");
    check_unchanged(&before, &snapshot(range.place.path())?)?;
    // The plan is that of the job.
    let job = range.backfill([THREE[0], THREE[0]]).run()?.expect_code(0)?;
    ensure!(days(&job)?[0].state == "done", "{job}");
    Ok(())
}

#[test]
fn ctrl_c_stops_a_backfill_that_can_be_continued() -> Result<()> {
    let day = Truth::new(&["--clients", "200000", "--narrow"])?;
    let range = Range::new(&[])?;
    let dates = ["20170221", "20170222", "20170223", "20170224", "20170225", "20170226"];
    dates.iter().try_for_each(|date| range.link(&day.root, date))?;
    let ends = [dates[0], dates[5]];
    let mut running = range.backfill(ends).args(["--threads", "1"]).spawn()?;
    wait_for("the first day", DEADLINE, || {
        Ok((range.place.partition(dates[0]).exists() || running.ended()?).then_some(()))
    })?;
    running.interrupt()?;
    let outcome = running.wait()?.expect_failure(130, &["not done", "--only-missing"])?;
    let found = days(&outcome)?;
    let known = |state: &str| ["done", "cancelled", "not_started"].contains(&state);
    ensure!(found.len() == 6 && found.iter().all(|day| known(&day.state)), "{outcome}");
    ensure!(found[0].state == "done" && found[5].state == "not_started", "{outcome}");
    let done: Vec<&str> =
        found.iter().filter(|day| day.state == "done").map(|day| day.date.as_str()).collect();
    range.check_days(&done)?;
    check_no_spill(&range.place.spill())?;
    let again = range.backfill(ends).args(["--only-missing"]).run()?.expect_code(0)?;
    for (first, second) in found.iter().zip(days(&again)?) {
        let expect = if first.state == "done" { "up_to_date" } else { "done" };
        ensure!(second.state == expect, "{again}");
    }
    range.check_days(&dates)
}
