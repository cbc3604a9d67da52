//! Ctrl-C at several moments of a job: exit code 130, the old output unchanged, no staged or spilled files left; or, if
//! the day was already being exchanged, the whole new day.

use std::time::Duration;

use anyhow::Result;
use tally_tests::cluster::truth::Truth;
use tally_tests::golden::DATE;
use tally_tests::output::{Place, check_no_spill, check_unchanged, snapshot};
use tally_tests::process::{Running, Tally};
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
fn ctrl_c_leaves_the_old_day_or_the_new_one() -> Result<()> {
    let place = Place::new()?;
    let day = Truth::new(&["--clients", "200000", "--narrow"])?;
    place.put_old_output(DATE)?;
    assert_eq!(names(&place)?, 5);
    let old = snapshot(&place.published())?;
    let mut interrupted = 0;
    // In hundredths of a second of processor time; the last is the moment at which the first staged file appears.
    for ticks in [Some(3), Some(10), Some(20), Some(40), None] {
        let mut running = Tally::job(&day.root, &place).date(DATE).args(["--threads", "1"]).spawn()?;
        reached(&mut running, &place, ticks)?;
        running.interrupt()?;
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
