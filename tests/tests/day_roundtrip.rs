//! The parquet crate reads what the day writer writes, as the same rows: random days in random formats, and every list
//! layout with every kind of null.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use parquet::column::page::Page;
use parquet::file::reader::{FileReader, SerializedFileReader};
use tally_tests::columns::Record;
use tally_tests::day::{DataFile, Format, ListLayout};
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::random::{Shape, random_day};
use tally_tests::rows::{ActiveAddon, MainRow, Theme};
use tally_tests::table;

#[test]
fn random_days_come_back() -> Result<()> {
    for seed in 0..40 {
        let shape = Shape { seed, clients: 12, rows: 8, files: 3, heavy: 30 };
        let day = random_day(shape);
        let place = Place::new()?;
        day.write(place.path(), DATE).with_context(|| format!("{shape:?}"))?;
        let partition = |table: &str| place.path().join(table).join(format!("submission_date_s3={DATE}"));
        for file in &day.main {
            let path = partition(MainRow::TABLE).join(&file.path);
            let context = || format!("{shape:?} {:?}", file.format);
            assert_eq!(table::read_main(&path).with_context(context)?, file.visible_rows(), "{}", context());
        }
        for file in &day.addons {
            let path = partition("addons/v2").join(&file.path);
            let context = || format!("{shape:?} {:?}", file.format);
            assert_eq!(
                table::read_addons(&path).with_context(context)?,
                file.visible_rows(),
                "{}",
                context()
            );
        }
        let all = table::data_files(&partition(MainRow::TABLE))?;
        assert_eq!(all.len(), day.main.len(), "litter counts as data in {shape:?}");
    }
    Ok(())
}

#[test]
fn every_layout_keeps_every_kind_of_null() -> Result<()> {
    let day = |day| Some(ActiveAddon { install_day: day });
    let lists = [
        None,
        Some(vec![]),
        Some(vec![None]),
        Some(vec![day(None)]),
        Some(vec![day(Some(5)), None, day(None), day(Some(-3))]),
    ];
    let themes = [None, Some(Theme { addon_id: None }), Some(Theme { addon_id: Some("t".into()) })];
    let rows: Vec<MainRow> = (0..15)
        .map(|at| MainRow {
            client_id: Some(format!("c{at}")),
            profile_creation_date: (at % 2 == 0).then_some(at),
            active_theme: themes[at as usize % 3].clone(),
            active_addons: lists[at as usize % 5].clone(),
        })
        .collect();
    let missing: [&[&str]; 3] =
        [&[], &["active_addons.install_day"], &["active_theme.addon_id", "profile_creation_date"]];
    for list in ListLayout::ALL {
        for (missing, extras) in missing.iter().zip([false, true, false]) {
            let format = Format { list, extras, page_rows: 2, required: true, ..Format::default() };
            let mut file = DataFile::new("f.parquet", rows.clone(), format);
            file.missing = missing.iter().copied().collect::<BTreeSet<_>>();
            let place = Place::new()?;
            let path = place.path().join(&file.path);
            file.write_to(&path)?;
            assert_eq!(table::read_main(&path)?, file.visible_rows(), "{:?}", file.format);
        }
    }
    Ok(())
}

/// Whether the file has a data page of version 1 that begins in the middle of a list.
fn splits_a_list(file: &Path) -> Result<bool> {
    let reader = SerializedFileReader::new(File::open(file)?)?;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        for column in 0..group.num_columns() {
            if group.metadata().column(column).column_descr().max_rep_level() == 0 {
                continue;
            }
            let mut pages = group.get_column_page_reader(column)?;
            while let Some(page) = pages.get_next_page()? {
                if let Page::DataPage { buf, .. } = page {
                    // Four bytes of length, a run header, and the first level: whole in a run, else the lowest bit.
                    let first = if buf[4] & 1 == 0 { buf[5] } else { buf[5] & 1 };
                    if first != 0 {
                        return Ok(true);
                    }
                }
            }
        }
    }
    Ok(false)
}

#[test]
fn pages_can_end_in_the_middle_of_a_list() -> Result<()> {
    let row = |at: i32| MainRow {
        client_id: Some(format!("c{at}")),
        active_addons: Some((0..at % 5).map(|day| Some(ActiveAddon { install_day: Some(day) })).collect()),
        ..MainRow::default()
    };
    let rows: Vec<_> = (0..50).map(row).collect();
    for list in ListLayout::ALL {
        for (split_lists, required, extras) in
            [(false, false, false), (true, false, true), (true, true, false)]
        {
            let format = Format {
                list,
                split_lists,
                required,
                extras,
                page_rows: 3,
                row_group_rows: 20,
                ..Format::default()
            };
            let file = DataFile::new("f.parquet", rows.clone(), format);
            let place = Place::new()?;
            let path = place.path().join(&file.path);
            file.write_to(&path)?;
            assert_eq!(splits_a_list(&path)?, split_lists);
            assert_eq!(table::read_main(&path)?, file.visible_rows(), "{:?}", file.format);
        }
    }
    Ok(())
}
