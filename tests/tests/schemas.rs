//! Files of one day that differ in their columns: what is merged, what is null, and what causes a warning. The schemas
//! that can't be merged are in `errors`.

use anyhow::{Context, Result};
use tally_tests::day::{DataFile, Day, Format};
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::process::{Outcome, Tally};
use tally_tests::rows::{ActiveAddon, AddonRow, MainRow, Theme};
use tally_tests::{naive, table};

fn pings(first: usize) -> Vec<MainRow> {
    let row = |at: usize| MainRow {
        client_id: Some(format!("client {}", at / 2)),
        profile_creation_date: Some(at as i64 % 3),
        active_theme: Some(Theme { addon_id: Some("custom".into()) }),
        active_addons: Some(vec![Some(ActiveAddon { install_day: Some(at as i32) })]),
    };
    (first..first + 20).map(row).collect()
}

fn installed(first: usize) -> Vec<AddonRow> {
    let row = |at: usize| AddonRow {
        client_id: Some(format!("client {}", at / 2)),
        addon_id: Some(format!("addon {}", at % 5)),
        foreign_install: Some(at.is_multiple_of(2)),
        is_system: Some(false),
        user_disabled: Some(false),
        app_disabled: Some(false),
    };
    (first..first + 20).map(row).collect()
}

/// Two files in each table; the second has other columns in another order.
fn day() -> Day {
    let other = Format { extras: true, order: 5, ..Format::default() };
    Day {
        main: vec![
            DataFile::new("part-0.parquet", pings(0), Format::default()),
            DataFile::new("part-1.parquet", pings(10), other.clone()),
        ],
        addons: vec![
            DataFile::new("part-0.parquet", installed(0), Format::default()),
            DataFile::new("part-1.parquet", installed(10), other),
        ],
        litter: Vec::new(),
    }
}

fn check(day: &Day) -> Result<Outcome> {
    let place = Place::new()?;
    let root = place.path().join("day");
    day.write(&root, DATE)?;
    let expected = naive::aggregate(&day.main_rows(), &day.addon_rows());
    assert!(!expected.rows.is_empty());
    let outcome = Tally::job(&root, &place).date(DATE).run()?.expect_code(0)?;
    table::compare(&place.read_output(DATE)?, &expected.rows)?;
    Ok(outcome)
}

/// Everything that may be missing from a main_summary file, alone and together.
const MAIN: [&[&str]; 7] = [
    &["profile_creation_date"],
    &["active_theme"],
    &["active_theme.addon_id"],
    &["active_addons"],
    &["active_addons.install_day"],
    &["client_id"],
    &["active_theme", "active_addons", "profile_creation_date"],
];

#[test]
fn a_main_summary_file_may_lack_columns_that_others_have() -> Result<()> {
    for missing in MAIN {
        for at in [0, 1] {
            let mut day = day();
            day.main[at].missing.extend(missing);
            check(&day).with_context(|| format!("file {at} is without {missing:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_main_summary_column_in_no_file_is_null_with_a_warning() -> Result<()> {
    for missing in MAIN.into_iter().filter(|missing| *missing != ["client_id"]) {
        let mut day = day();
        day.main.iter_mut().for_each(|file| file.missing.extend(missing));
        let context = || format!("all files are without {missing:?}");
        let outcome = check(&day).with_context(context)?;
        let leaf = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
        for name in missing.iter().copied() {
            let lines: Vec<_> = outcome.stderr.lines().filter(|line| line.contains(leaf(name))).collect();
            assert!(!lines.is_empty(), "{missing:?}: no warning names {name}\n{outcome}");
        }
        assert!(outcome.stderr.to_lowercase().contains("warn"), "{missing:?}: no warning\n{outcome}");
    }
    Ok(())
}

#[test]
fn an_addons_file_may_lack_columns_with_a_warning_that_counts_the_rows() -> Result<()> {
    for name in ["client_id", "addon_id", "foreign_install", "is_system", "user_disabled", "app_disabled"] {
        let mut day = day();
        // 20 rows in the first file, 17 in the second: the count shows which.
        day.addons[1].rows.truncate(17);
        day.addons[1].missing.insert(name);
        let outcome = check(&day).with_context(|| format!("one file is without {name}"))?;
        let warned = outcome.stderr.lines().any(|line| line.contains(name) && line.contains("17"));
        assert!(warned && outcome.stderr.to_lowercase().contains("warn"), "{name}\n{outcome}");
    }
    Ok(())
}

/// Only the needed leaves of the day's own files are merged: the files here disagree about every unused column.
#[test]
fn columns_that_are_not_read_may_disagree() -> Result<()> {
    let mut day = day();
    for (at, file) in day.main.iter_mut().enumerate() {
        file.format = Format { extras: true, order: 3 + at as u64, ..Format::default() };
    }
    for (at, file) in day.addons.iter_mut().enumerate() {
        file.format = Format { extras: true, order: 3 + at as u64, ..Format::default() };
    }
    check(&day)?;
    Ok(())
}

#[test]
fn files_without_rows_and_names_that_are_no_data_change_nothing() -> Result<()> {
    let mut day = day();
    for (at, empty_row_group) in [(2, false), (3, true)] {
        let format = Format { empty_row_group, ..Format::default() };
        day.main.push(DataFile::new(format!("sample_id={at}/part-0.parquet"), Vec::new(), format.clone()));
        day.addons.push(DataFile::new(format!("sample_id={at}/deeper=1/part-0.parquet"), Vec::new(), format));
    }
    day.litter = ["_SUCCESS", "_metadata", ".part-0.parquet.crc", "_temporary/0/part-0.parquet"]
        .map(|name| format!("submission_date_s3={DATE}/{name}"))
        .into();
    day.litter.push("submission_date_s3=20170226/part-0.parquet".into());
    check(&day)?;
    Ok(())
}
