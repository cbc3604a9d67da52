//! Days whose ids are not UUIDs, or only some of them, in the order and number at which the engine's table of clients
//! once grew too late: rows of one client were counted for another, or the job failed. Not here: single odd ids
//! (`random`).

use anyhow::{Context, Result};
use tally_tests::day::{DataFile, Day, Format, ValueEncoding};
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::process::Tally;
use tally_tests::rows::{ActiveAddon, AddonRow, MainRow};
use tally_tests::{naive, table};

const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// One row group per table, with plain ids, so that they are read in the order of the rows; each row has a group and an
/// add-on of its own.
fn day(ids: &[String]) -> Day {
    let format = Format { encoding: ValueEncoding::Plain, ..Format::default() };
    let main = ids.iter().enumerate().map(|(at, id)| MainRow {
        client_id: Some(id.clone()),
        profile_creation_date: Some(at as i64),
        active_theme: None,
        active_addons: Some(vec![Some(ActiveAddon { install_day: Some(at as i32) })]),
    });
    let addons = ids.iter().enumerate().map(|(at, id)| AddonRow {
        client_id: Some(id.clone()),
        addon_id: Some(format!("{at}@example.org")),
        foreign_install: Some(false),
        is_system: Some(false),
        user_disabled: Some(false),
        app_disabled: Some(false),
    });
    Day {
        main: vec![DataFile::new("part-0.parquet", main.collect(), format.clone())],
        addons: vec![DataFile::new("part-0.parquet", addons.collect(), format)],
        litter: vec![],
    }
}

/// The table's seeds differ in each process, so a fault may show in some runs only.
fn check(ids: &[String]) -> Result<()> {
    let day = day(ids);
    let place = Place::new()?;
    let root = place.path().join("day");
    day.write(&root, DATE)?;
    let expected = naive::aggregate(&day.main_rows(), &day.addon_rows());
    for run in 0..4 {
        let place = Place::new()?;
        Tally::job(&root, &place).date(DATE).args(["--threads", "1"]).run()?.summary()?;
        let actual = place.read_output(DATE)?;
        table::compare(&actual, &expected.rows).with_context(|| format!("run {run}"))?;
    }
    Ok(())
}

fn odd(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("x{at:04}")).collect()
}

#[test]
fn the_nil_uuid_among_odd_ids_keeps_its_rows() -> Result<()> {
    let mut ids = odd(4096);
    ids.extend([NIL, "y", NIL, "z"].map(Into::into));
    check(&ids)
}

#[test]
fn a_uuid_after_4095_odd_ids_is_counted() -> Result<()> {
    let mut ids = odd(4095);
    ids.extend([NIL.replace('0', "7"), NIL.replace('0', "7")]);
    check(&ids)
}

#[test]
fn uuids_among_odd_ids_keep_their_rows_at_each_step_of_growth() -> Result<()> {
    let mut ids = vec![];
    for (at, id) in odd(1300).into_iter().enumerate() {
        ids.push(id);
        if at % 97 < 2 || at % 200 == 199 {
            ids.push(format!("{:08x}-0000-4000-8000-{:012x}", at / 2, at % 3));
        }
    }
    check(&ids)
}
