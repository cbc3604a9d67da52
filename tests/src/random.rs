//! Random small days: hostile ids, extreme numbers, nulls at every level, skew, and files in every format, spread over
//! folders in every way. Not here: writing them (`day`) or their expected output (`naive`).

use parquet::basic::Compression;
use parquet::file::properties::EnabledStatistics;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::columns::Record;
use crate::day::{ArrowNote, DataFile, Day, Format, ListLayout, ValueEncoding};
use crate::naive::DEFAULT_THEME;
use crate::rows::{ActiveAddon, AddonRow, MainRow, Theme};

/// The size of a random day; the seed decides the rest.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub seed: u64,
    pub clients: usize,
    /// Maximum rows of either table that an ordinary client has.
    pub rows: usize,
    /// Maximum files of a table, unless each sample has its own.
    pub files: usize,
    /// Rows that an additional client has in each table.
    pub heavy: usize,
}

/// How many elements the lists of a small day have.
const LIST_LENGTHS: [usize; 5] = [0, 1, 2, 5, 40];

/// How the rows of a table are stored in folders.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Folders {
    None,
    /// `sample_id=crc32(client_id) % 100`, as in production.
    BySample,
    /// `sample_id` folders that do not depend on the client.
    Misleading,
}

impl Folders {
    pub(crate) const ALL: [Self; 3] = [Self::None, Self::BySample, Self::Misleading];
}

/// The day of `shape`, always the same.
pub fn random_day(shape: Shape) -> Day {
    let mut rng = StdRng::seed_from_u64(shape.seed);
    // Only days without any null can have columns that are declared required.
    let nulls = [0.0, 0.0, 0.05, 0.3][rng.random_range(0..4)];
    let mut ids = client_ids(&mut rng, shape.clients);
    if nulls > 0.0 {
        ids.push(None);
    }
    let (mut main, mut addons) = (Vec::new(), Vec::new());
    for (at, id) in ids.iter().enumerate() {
        let heavy = if at == 0 { shape.heavy } else { 0 };
        let (pings, installed) = (rng.random_range(0..=shape.rows), rng.random_range(0..=shape.rows));
        main.extend((0..pings + heavy).map(|_| main_row(&mut rng, id, nulls, &LIST_LENGTHS)));
        addons.extend((0..installed + heavy).map(|_| {
            let name = addon_name(&mut rng);
            addon_row(&mut rng, id, nulls, name)
        }));
    }
    if rng.random() {
        main.shuffle(&mut rng);
        addons.shuffle(&mut rng);
    }
    let folders = Folders::ALL[rng.random_range(0..3)];
    let mut day = Day {
        main: files(&mut rng, main, shape.files, folders, |rng, _| random_format(rng)),
        addons: files(&mut rng, addons, shape.files, folders, |rng, _| random_format(rng)),
        litter: Vec::new(),
    };
    drop_columns(&mut rng, &mut day);
    if rng.random() {
        day.litter = litter();
    }
    day
}

fn client_ids(rng: &mut StdRng, n: usize) -> Vec<Option<String>> {
    let uuid = uuid(rng);
    let mut odd = vec![
        uuid.to_uppercase(),
        uuid.replace('-', ""),
        format!("{{{uuid}}}"),
        format!("{uuid} "),
        uuid[..35].to_owned() + "g",
        uuid.replacen('-', "0", 1),
        uuid[..1].to_uppercase() + &uuid[1..],
        "00000000-0000-0000-0000-000000000000".to_owned(),
        "ffffffff-ffff-ffff-ffff-ffffffffffff".to_owned(),
        uuid,
        String::new(),
        " ".to_owned(),
        "\0".to_owned(),
        "null".to_owned(),
        "not a uuid".to_owned(),
        "sixteen bytes ok".to_owned(),
        "клиент-Ωμέγα-客戶".to_owned(),
        "é".repeat(18),
        "x".repeat(300),
        "y".repeat(70_000),
    ];
    odd.shuffle(rng);
    (0..n)
        .map(|_| match odd.pop().filter(|_| rng.random_bool(0.5)) {
            Some(id) => Some(id),
            None => Some(self::uuid(rng)),
        })
        .collect()
}

pub(crate) fn uuid(rng: &mut StdRng) -> String {
    let hex = format!("{:032x}", rng.random::<u128>());
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

pub(crate) fn main_row(rng: &mut StdRng, id: &Option<String>, nulls: f64, lengths: &[usize]) -> MainRow {
    const DATES: [i64; 8] = [0, -1, 17_224, 16_000, 15_999, i64::MAX, i64::MIN, 1 << 33];
    let client_id = id.clone().filter(|_| !rng.random_bool(nulls / 10.0));
    // Most pings agree on the date, so that a client has one group, several or (with nulls) a null one.
    let date = if rng.random_bool(0.6) { DATES[2] } else { DATES[rng.random_range(0..DATES.len())] };
    let theme = [DEFAULT_THEME, "theme@personas", "", "{972CE4C6-7E08-4474-A285-3208198CE6FD}"];
    let theme = if rng.random_bool(0.7) { theme[0] } else { theme[rng.random_range(0..theme.len())] };
    let theme = Theme { addon_id: some(rng, nulls, theme.to_owned()) };
    let n = lengths[rng.random_range(0..lengths.len())];
    let list = (0..n)
        .map(|_| {
            let addon = ActiveAddon { install_day: install_day(rng, nulls) };
            some(rng, nulls, addon)
        })
        .collect();
    MainRow {
        client_id,
        profile_creation_date: some(rng, nulls, date),
        active_theme: some(rng, nulls, theme),
        active_addons: some(rng, nulls, list),
    }
}

fn install_day(rng: &mut StdRng, nulls: f64) -> Option<i32> {
    let day = match rng.random_range(0..10) {
        0 => [0, -1, i32::MAX, i32::MIN][rng.random_range(0..4)],
        _ => rng.random_range(15_000..17_300),
    };
    some(rng, nulls, day)
}

fn addon_name(rng: &mut StdRng) -> String {
    match rng.random_range(0..20) {
        0 => String::new(),
        1 => DEFAULT_THEME.to_owned(),
        2 => format!("дополнение {}", "long".repeat(500)),
        _ => format!("addon{}@example.org", rng.random_range(0..12)),
    }
}

pub(crate) fn addon_row(rng: &mut StdRng, id: &Option<String>, nulls: f64, name: String) -> AddonRow {
    let foreign = rng.random_bool(0.4);
    let mut off = || rng.random_bool(0.2);
    let flags = [off(), off(), off()];
    AddonRow {
        client_id: id.clone().filter(|_| !rng.random_bool(nulls / 10.0)),
        addon_id: some(rng, nulls, name),
        foreign_install: some(rng, nulls, foreign),
        is_system: some(rng, nulls, flags[0]),
        user_disabled: some(rng, nulls, flags[1]),
        app_disabled: some(rng, nulls, flags[2]),
    }
}

fn some<T>(rng: &mut StdRng, nulls: f64, value: T) -> Option<T> {
    (!rng.random_bool(nulls)).then_some(value)
}

/// Spreads `rows` over files, at least one, some of them possibly without rows.
pub(crate) fn files<R: Record>(
    rng: &mut StdRng,
    rows: Vec<R>,
    most: usize,
    folders: Folders,
    format: impl Fn(&mut StdRng, usize) -> Format,
) -> Vec<DataFile<R>> {
    let n = rng.random_range(1..=most.max(1));
    let mut buckets: std::collections::BTreeMap<String, Vec<R>> = Default::default();
    for at in 0..n {
        let folder = match folders {
            Folders::None => String::new(),
            Folders::BySample => continue,
            Folders::Misleading => format!("sample_id={}/", at % 3),
        };
        buckets.insert(format!("{folder}part-{at:05}"), Vec::new());
    }
    let names: Vec<String> = buckets.keys().cloned().collect();
    for row in rows {
        let name = match (folders, row.client_id()) {
            (Folders::BySample, None) => "sample_id=__HIVE_DEFAULT_PARTITION__/part-00000".to_owned(),
            (Folders::BySample, Some(id)) => {
                format!("sample_id={}/part-00000", crc32fast::hash(id.as_bytes()) % 100)
            }
            _ => names[rng.random_range(0..names.len())].clone(),
        };
        buckets.entry(name).or_default().push(row);
    }
    if buckets.is_empty() {
        buckets.insert("sample_id=0/part-00000".to_owned(), Vec::new());
    }
    buckets
        .into_iter()
        .map(|(name, rows)| {
            let format = format(rng, rows.len());
            DataFile::new(format!("{name}.parquet"), rows, format)
        })
        .collect()
}

/// Leaves columns out of some files. Those that at least one file of the day must have stay in the first.
pub(crate) fn drop_columns(rng: &mut StdRng, day: &mut Day) {
    const MAIN: [&str; 5] = [
        "profile_creation_date",
        "active_theme",
        "active_theme.addon_id",
        "active_addons",
        "active_addons.install_day",
    ];
    const ADDONS: [&str; 6] =
        ["client_id", "addon_id", "foreign_install", "is_system", "user_disabled", "app_disabled"];
    for (at, file) in day.main.iter_mut().enumerate() {
        file.missing.extend(MAIN.iter().filter(|_| rng.random_bool(0.08)));
        if at > 0 && rng.random_bool(0.04) {
            file.missing.insert("client_id");
        }
    }
    for file in day.addons.iter_mut().skip(1) {
        file.missing.extend(ADDONS.iter().filter(|_| rng.random_bool(0.03)));
    }
}

/// Files of real tables that are not data: markers, checksums, hidden folders, and another date's broken file.
pub(crate) fn litter() -> Vec<String> {
    let partition = format!("submission_date_s3={}", crate::golden::DATE);
    vec![
        "_SUCCESS".to_owned(),
        format!("{partition}/_SUCCESS"),
        format!("{partition}/_metadata"),
        format!("{partition}/.part-00000.parquet.crc"),
        format!("{partition}/_temporary/0/part-00000.parquet"),
        format!("{partition}/.hidden/part-00000.parquet"),
        "submission_date_s3=20170226/part-00000.parquet".to_owned(),
    ]
}

/// A random format of those that this module can write.
pub fn random_format(rng: &mut StdRng) -> Format {
    let codecs = codecs();
    Format {
        list: ListLayout::ALL[rng.random_range(0..ListLayout::ALL.len())],
        codec: codecs[rng.random_range(0..codecs.len())],
        pages_v2: rng.random(),
        encoding: ValueEncoding::ALL[rng.random_range(0..ValueEncoding::ALL.len())],
        row_group_rows: [1, 3, 17, 1 << 20][rng.random_range(0..4)],
        page_rows: [1, 2, 5, 20_000][rng.random_range(0..4)],
        split_lists: rng.random_bool(0.2),
        required: rng.random(),
        arrow: [ArrowNote::None, ArrowNote::Large, ArrowNote::Dictionary, ArrowNote::View]
            [rng.random_range(0..4)],
        extras: rng.random(),
        order: rng.random_range(0..8),
        empty_row_group: rng.random_bool(0.2),
        statistics: [EnabledStatistics::None, EnabledStatistics::Chunk, EnabledStatistics::Page]
            [rng.random_range(0..3)],
        widths: Default::default(),
    }
}

/// Every codec that writers still support, at its default level.
pub fn codecs() -> [Compression; 7] {
    [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
        Compression::BROTLI(Default::default()),
        Compression::LZ4_RAW,
        Compression::LZ4,
    ]
}
