//! Random small days of `main_summary/v4`: nearly equal pings and elements, odd ids, versions and days, nulls at every
//! level, files in every format, in folders of samples that are used, ignored, or spelled in another way. Not here: writing
//! them (`day`) or their expected output (`naive_v2`).

use std::path::Path;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::day::{DataFile, OtherWidths, write_table};
use crate::pings_v2::{AddonV2, PingV2, Sampled, sample_of};
use crate::random::random_format;

/// The size of a random day; the seed decides the rest.
#[derive(Clone, Copy, Debug)]
pub struct ShapeV2 {
    pub seed: u64,
    pub clients: usize,
    /// Maximum pings of a client.
    pub pings: usize,
    /// Maximum files.
    pub files: usize,
}

/// One day.
#[derive(Clone, Debug)]
pub struct DayV2 {
    pub files: Vec<DataFile<PingV2>>,
    pub widths: OtherWidths,
    /// The content of the file of Test Pilot ids, if there is one, and the ids that count.
    pub pilots_file: Option<String>,
    pub pilots: Vec<String>,
}

impl DayV2 {
    /// Writes the day under `root`, as `main_summary/v4`.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, root: &Path, date: &str) -> Result<()> {
        write_table(&self.files, root, date)
    }

    /// All pings as a reader sees them.
    ///
    /// # Errors
    /// Never for the folders of this module.
    pub fn pings(&self) -> Result<Vec<Sampled>> {
        let mut pings = vec![];
        for file in &self.files {
            let sample = sample_of(Path::new(&file.path))?;
            pings.extend(file.visible_rows().into_iter().map(|row| (sample, row)));
        }
        Ok(pings)
    }
}

const FOLDERS: [&str; 9] = ["0", "7", "07", "99", "100", "250", "-1", "__HIVE_DEFAULT_PARTITION__", "42"];
const ADDONS: [&str; 13] = [
    "",
    "a@b",
    "x@mozilla.org",
    "MOZILLA@x",
    "a\ncliqz",
    "@unified-urlbar-shield",
    "study@shield.mozilla.org",
    "study@shieldxmozilla.org",
    "@testpilot-addon",
    "pilot@one.org",
    " spaced ",
    "дополнение",
    "b@c",
];
const VERSIONS: [&str; 9] = ["57.0", "57.0.1", "100.0", "10.0", "5", "", "äö1", "e\u{301}1", "57"];
const DAYS: [i64; 9] = [0, -1, 17_000, 24_855, 24_856, 30_000, -24_856, 2_147_483_647, -2_147_483_648];
const WIDE_DAYS: [i64; 7] = [i64::MAX, i64::MIN, 106_751_991, 106_751_992, 2_932_897, -719_600, -719_469];
const COLUMNS: [&str; 11] = [
    "client_id",
    "normalized_channel",
    "app_version",
    "locale",
    "profile_creation_date",
    "active_addons",
    "active_addons.addon_id",
    "active_addons.foreign_install",
    "active_addons.is_system",
    "active_addons.is_web_extension",
    "active_addons.install_day",
];

fn pick<T: Clone>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())].clone()
}

fn day(rng: &mut StdRng, wide: bool) -> i64 {
    match rng.random_range(0..10) {
        0..6 => rng.random_range(17_000..17_004),
        6..8 if wide => pick(rng, &WIDE_DAYS),
        _ => pick(rng, &DAYS),
    }
}

/// The day of `shape`, always the same.
pub fn random_day(shape: ShapeV2) -> DayV2 {
    let mut rng = StdRng::seed_from_u64(shape.seed);
    let rng = &mut rng;
    let widths = OtherWidths { wide_days: rng.random_bool(0.3), narrow_dates: rng.random_bool(0.3) };
    let nulls = pick(rng, &[0.0, 0.02, 0.3]);
    let files = rng.random_range(1..=shape.files.max(1));
    let mut rows: Vec<Vec<PingV2>> = vec![vec![]; files];
    for client in 0..shape.clients {
        let mut ping = random_ping(rng, client, widths);
        for _ in 0..rng.random_range(0..=shape.pings) {
            change(rng, &mut ping, nulls, widths);
            rows[rng.random_range(0..files)].push(ping.clone());
        }
    }
    let file = |(at, rows): (usize, Vec<PingV2>)| {
        // Every column is in a file that is read: the first one.
        let folder = if at == 0 { pick(rng, &FOLDERS[..4]) } else { pick(rng, &FOLDERS) };
        let mut format = random_format(rng);
        format.widths = widths;
        let mut file = DataFile::new(format!("sample_id={folder}/part-{at:05}.parquet"), rows, format);
        if at > 0 {
            file.missing.extend(COLUMNS.iter().filter(|_| rng.random_bool(0.04)));
        }
        file
    };
    let files = rows.into_iter().enumerate().map(file).collect();
    let (pilots_file, pilots): (Option<&str>, &[&str]) = pick(
        rng,
        &[
            (None, &["@testpilot-addon"][..]),
            (Some("pilot@one.org\n\na@b\n"), &["@testpilot-addon", "pilot@one.org", "a@b"]),
            (Some(" spaced \r\n"), &["@testpilot-addon", " spaced "]),
            (Some("\n"), &[]),
        ],
    );
    let pilots = pilots.iter().map(ToString::to_string).collect();
    DayV2 { files, widths, pilots_file: pilots_file.map(Into::into), pilots }
}

fn random_ping(rng: &mut StdRng, client: usize, widths: OtherWidths) -> PingV2 {
    let id = match client % 5 {
        0 => format!("client-{client}"),
        1 => String::new(),
        _ => format!("{:08x}-1234-4abc-8def-{client:012x}", client.wrapping_mul(2_654_435_761) as u32),
    };
    let length = pick(rng, &[0, 1, 3, 8, 80]);
    PingV2 {
        client_id: (client % 7 != 3).then_some(id),
        normalized_channel: Some(pick(rng, &["release", "beta", ""]).into()),
        app_version: Some(pick(rng, &VERSIONS).into()),
        locale: Some(pick(rng, &["en-US", "de", ""]).into()),
        profile_creation_date: Some(day(rng, !widths.narrow_dates)),
        active_addons: Some((0..length).map(|_| Some(random_addon(rng, widths))).collect()),
    }
}

fn random_addon(rng: &mut StdRng, widths: OtherWidths) -> AddonV2 {
    AddonV2 {
        addon_id: Some(pick(rng, &ADDONS).into()),
        foreign_install: Some(rng.random_bool(0.3)),
        is_system: Some(rng.random_bool(0.3)),
        is_web_extension: Some(rng.random()),
        install_day: Some(day(rng, widths.wide_days)),
    }
}

/// Changes a few fields, so that the next ping is nearly equal.
fn change(rng: &mut StdRng, ping: &mut PingV2, nulls: f64, widths: OtherWidths) {
    match rng.random_range(0..14) {
        0 => ping.profile_creation_date = Some(day(rng, !widths.narrow_dates)),
        1 => ping.app_version = Some(pick(rng, &VERSIONS).into()),
        2 => ping.normalized_channel = None,
        3 => ping.active_addons = None,
        4 => ping.active_addons = Some(vec![Some(random_addon(rng, widths)); 2]),
        _ => (),
    }
    if rng.random_bool(nulls / 2.0) {
        ping.locale = None;
    }
    if rng.random_bool(nulls) {
        ping.profile_creation_date = None;
    }
    for element in ping.active_addons.iter_mut().flatten() {
        let Some(addon) = element else { continue };
        match rng.random_range(0..30) {
            0 => addon.foreign_install = pick(rng, &[None, Some(false), Some(true)]),
            1 => addon.is_system = pick(rng, &[None, Some(false), Some(true)]),
            2 => addon.is_web_extension = pick(rng, &[None, Some(false), Some(true)]),
            3 => addon.install_day = Some(day(rng, widths.wide_days)),
            _ => (),
        }
        if rng.random_bool(nulls / 4.0) {
            match rng.random_range(0..3) {
                0 => addon.addon_id = None,
                1 => addon.install_day = None,
                _ => *element = None,
            }
        }
    }
}
