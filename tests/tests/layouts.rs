//! Every list layout with every codec, page version and encoding, one job for each combination, nullable and required
//! columns side by side; and all combinations as files of a single day.

use anyhow::{Context, Result};
use parquet::basic::Compression;
use tally_tests::day::{DataFile, Day, Format, ListLayout, ValueEncoding};
use tally_tests::golden::DATE;
use tally_tests::output::Place;
use tally_tests::process::Tally;
use tally_tests::rows::{ActiveAddon, AddonRow, MainRow, Theme};
use tally_tests::{naive, table};

/// Pings of some clients; with `nulls`, they include every kind of null.
fn pings(nulls: bool) -> Vec<MainRow> {
    let some = |at: usize, every: usize| !nulls || !at.is_multiple_of(every);
    let row = |at: usize| {
        let addon = |i: usize| {
            let day = some(at + i, 3).then_some(17_000 - (at * 7 + i * 3) as i32 % 90);
            some(at + i, 4).then_some(ActiveAddon { install_day: day })
        };
        let theme = ["{972ce4c6-7e08-4474-a285-3208198ce6fd}", "dark@themes"][at % 3 % 2];
        MainRow {
            client_id: some(at, 13).then(|| client(at)),
            profile_creation_date: some(at, 6).then_some(16_000 + (at % 2) as i64),
            active_theme: some(at, 5).then(|| Theme { addon_id: some(at, 7).then(|| theme.into()) }),
            active_addons: some(at, 9).then(|| (0..at % 4).map(addon).collect()),
        }
    };
    (0..90).map(row).collect()
}

/// Add-ons of the same clients.
fn installed(nulls: bool) -> Vec<AddonRow> {
    let some = |at: usize, every: usize| !nulls || !at.is_multiple_of(every);
    let row = |at: usize| AddonRow {
        client_id: some(at, 19).then(|| client(at / 2)),
        addon_id: some(at, 8).then(|| format!("addon-with-a-longer-name-{}@example.org", at % 23)),
        foreign_install: some(at, 11).then_some(at.is_multiple_of(3)),
        is_system: some(at, 17).then_some(at.is_multiple_of(5)),
        user_disabled: some(at, 12).then_some(at % 7 == 2),
        app_disabled: some(at, 14).then_some(at % 9 == 4),
    };
    (0..160).map(row).collect()
}

/// A UUID for each client, some in upper case.
fn client(at: usize) -> String {
    let id = format!("{:08x}-1234-4abc-8def-{:012x}", (at % 25) * 0x1234_5677, at % 25);
    if at.is_multiple_of(10) { id.to_uppercase() } else { id }
}

/// Two files per table: one with nulls, and one without, whose columns are required.
fn day(name: &str, format: &Format) -> Day {
    let required = Format { required: true, row_group_rows: 40, ..format.clone() };
    Day {
        main: vec![
            DataFile::new(format!("part-{name}-0.parquet"), pings(true), format.clone()),
            DataFile::new(format!("part-{name}-1.parquet"), pings(false), required.clone()),
        ],
        addons: vec![
            DataFile::new(format!("part-{name}-0.parquet"), installed(true), format.clone()),
            DataFile::new(format!("part-{name}-1.parquet"), installed(false), required),
        ],
        litter: Vec::new(),
    }
}

fn check(day: &Day) -> Result<()> {
    let place = Place::new()?;
    let root = place.path().join("day");
    day.write(&root, DATE)?;
    let expected = naive::aggregate(&day.main_rows(), &day.addon_rows());
    assert!(expected.rows.len() > 40, "a day that says something");
    let job = Tally::job(&root, &place).date(DATE).args(["--workers", "1", "--threads", "2"]);
    let summary = job.run()?.summary()?;
    table::compare(&place.read_output(DATE)?, &expected.rows)?;
    assert_eq!(summary.n_clients, expected.n_clients as u64);
    assert_eq!(summary.n_custom_theme_clients, expected.n_custom_theme_clients as u64);
    Ok(())
}

/// Every layout, page version and encoding with one codec.
fn formats(codec: Compression) -> Vec<Format> {
    let mut formats = Vec::new();
    for list in ListLayout::ALL {
        for pages_v2 in [false, true] {
            for encoding in ValueEncoding::ALL {
                // Pages of a few rows, so that chunks have many, and a dictionary can overflow between two.
                formats.push(Format { list, codec, pages_v2, encoding, page_rows: 7, ..Format::default() });
            }
        }
    }
    formats
}

fn check_codec(codec: Compression) -> Result<()> {
    for format in formats(codec) {
        check(&day("0", &format)).with_context(|| format!("{format:?}"))?;
    }
    Ok(())
}

macro_rules! codecs {
    ($($test:ident: $codec:expr,)*) => {
        $(
            #[test]
            fn $test() -> Result<()> {
                check_codec($codec)
            }
        )*

        #[test]
        fn every_codec_is_here() {
            assert_eq!([$($codec),*], tally_tests::random::codecs());
        }
    };
}

codecs! {
    uncompressed: Compression::UNCOMPRESSED,
    snappy: Compression::SNAPPY,
    gzip: Compression::GZIP(Default::default()),
    zstd: Compression::ZSTD(Default::default()),
    brotli: Compression::BROTLI(Default::default()),
    lz4_raw: Compression::LZ4_RAW,
    lz4: Compression::LZ4,
}

#[test]
fn all_formats_as_files_of_one_day() -> Result<()> {
    let mut all = Day::default();
    let formats = tally_tests::random::codecs().into_iter().flat_map(formats);
    for (at, format) in formats.step_by(5).enumerate() {
        let one = day(&at.to_string(), &format);
        all.main.extend(one.main);
        all.addons.extend(one.addons);
    }
    check(&all)
}

/// Pages that end in the middle of a list, of every length, in every layout.
#[test]
fn lists_that_go_on_in_the_next_page() -> Result<()> {
    for list in ListLayout::ALL {
        for page_rows in [1, 2, 3, 11] {
            let format = Format { list, page_rows, split_lists: true, ..Format::default() };
            check(&day("0", &format)).with_context(|| format!("{format:?}"))?;
        }
    }
    Ok(())
}
