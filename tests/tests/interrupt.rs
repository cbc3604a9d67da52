//! Ctrl-C, SIGTERM and SIGHUP at several moments of a job: exit code 130, the old output unchanged, no staged or spilled
//! files left; or, if the day was already being exchanged, the whole new day. The generator removes its files.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tally_tests::cluster::truth::Truth;
use tally_tests::golden::DATE;
use tally_tests::output::{Place, check_no_spill, check_unchanged, snapshot};
use tally_tests::process::{Running, Tally, tally_bin};
use tally_tests::scratch::Scratch;
use tally_tests::wait::wait_for;

const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until the job has used so much processor time, a new name appears next to the output, or the job has ended.
fn reached(running: &mut Running, place: &Place, ticks: Option<u64>) -> Result<()> {
    wait_for("the moment for Ctrl-C", DEADLINE, || {
        let there = match ticks {
            Some(ticks) => running.cpu_ticks()? >= ticks,
            None => names(place)? > 5,
        };
        Ok((there || running.ended()?).then_some(()))
    })
}

/// The number of names in the folder of the output; the old output itself has five.
fn names(place: &Place) -> Result<usize> {
    let mut folders = vec![place.published()];
    let mut names = 0;
    while let Some(folder) = folders.pop() {
        // A staging folder may disappear during the listing.
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry?.path();
            names += 1;
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(names)
}

#[test]
fn a_request_to_end_leaves_the_old_day_or_the_new_one() -> Result<()> {
    let place = Place::new()?;
    let day = Truth::new(&["--clients", "200000", "--narrow"])?;
    place.put_old_output(DATE)?;
    assert_eq!(names(&place)?, 5);
    let old = snapshot(&place.published())?;
    let mut interrupted = 0;
    // In hundredths of a second of processor time; the last is the moment at which the first staged file appears.
    let moments = [
        (Some(3), Signal::INT),
        (Some(10), Signal::HUP),
        (Some(20), Signal::TERM),
        (Some(40), Signal::INT),
        (None, Signal::HUP),
    ];
    for (ticks, sent) in moments {
        let mut running = Tally::job(&day.root, &place).date(DATE).args(["--threads", "1"]).spawn()?;
        reached(&mut running, &place, ticks)?;
        running.signal(sent)?;
        let outcome = running.wait()?;
        check_no_spill(&place.spill())?;
        match outcome.code() {
            Some(130) => {
                check_unchanged(&old, &snapshot(&place.published())?)?;
                interrupted += 1;
            }
            Some(0) => {
                day.check(&place)?;
                std::fs::remove_dir_all(place.published())?;
                place.put_old_output(DATE)?;
            }
            _ => anyhow::bail!("a job that is interrupted exits with 130\n{outcome}"),
        }
    }
    assert!(interrupted >= 2, "only {interrupted} jobs were interrupted before they ended");
    Ok(())
}

/// A process that was started with `nohup` goes on after its terminal is closed.
#[test]
fn an_ignored_hangup_does_not_end_a_job() -> Result<()> {
    let place = Place::new()?;
    let day = Truth::new(&["--clients", "200000", "--narrow"])?;
    let flags = tally_tests::process::job_args(&day.root, &place.output(), &place.spill());
    let script = "trap '' HUP; exec \"$@\"";
    let job = Tally::wrapped("sh".as_ref(), ["-c", script, "sh"]).args([tally_bin()]).args(["run"]);
    let mut running = job.args(flags).date(DATE).args(["--threads", "1"]).spawn()?;
    reached(&mut running, &place, Some(10))?;
    running.signal(Signal::HUP)?;
    running.wait()?.expect_code(0)?;
    day.check(&place)
}

#[test]
fn an_interrupted_generator_leaves_nothing() -> Result<()> {
    let folder = Scratch::new("tally generate ")?;
    for sent in [Signal::INT, Signal::HUP] {
        let output = folder.path().join("new/day");
        let generate = Tally::new("generate").args(["--clients", "1000000", "--threads", "1", "--output"]);
        let mut running = generate.args([&output]).spawn()?;
        wait_for("the first files", DEADLINE, || {
            Ok((output.join("addons/v2").exists() || running.ended()?).then_some(()))
        })?;
        running.signal(sent)?;
        let outcome = running.wait()?.expect_failure(130, &["interrupted", "removed"])?;
        let left: Vec<_> = std::fs::read_dir(folder.path())?.collect();
        ensure!(left.is_empty(), "{left:?} is left: {outcome}");
    }
    Ok(())
}

/// Standard error is no terminal here: a line per quarter of the files.
#[test]
fn the_generator_shows_its_progress() -> Result<()> {
    let folder = Scratch::new("tally generate ")?;
    let generate = Tally::new("generate").args(["--clients", "2000", "--narrow", "--output"]);
    let outcome = generate.args([folder.path().join("day")]).run()?.expect_code(0)?;
    let shown: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("generating: ")).collect();
    ensure!((1..=4).contains(&shown.len()), "{outcome}");
    ensure!(shown.last().is_some_and(|line| line.contains("101/101 files")), "{outcome}");
    Ok(())
}
