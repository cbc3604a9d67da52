//! Small random folders of `addon_aggregates_v2`, passed to mappers like by the scan, but without files.

use tally_dataset::addon_aggregates_v2::{AddonAggregatesV2, SAMPLES};
use tally_dataset::{BATCH_ROWS, Batch, Bits, Column, Dataset, MapRun, Mapper, Width, uuid};

use crate::days::{Text, bits, flags, resolved};
use crate::numbers::{Numbers, uuid};

/// The folder of all rows.
pub const FOLDER: u32 = 42;

#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    pub addon: Text,
    pub foreign: Option<bool>,
    pub system: Option<bool>,
    pub web: Option<bool>,
    pub day: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AddonsPing {
    pub client: Text,
    pub channel: Text,
    pub version: Text,
    pub locale: Text,
    pub created: Option<i64>,
    /// Null lists have no elements; null elements have null fields.
    pub elements: Vec<Element>,
}

/// All rows of a folder.
pub struct Folder {
    pub pings: Vec<AddonsPing>,
    /// The widths of install days and of profile creation dates.
    pub widths: [Width; 2],
    pub pilots: Vec<Vec<u8>>,
}

/// Ids with and without what the rules look for.
const ADDONS: [&str; 14] = [
    "",
    "a@b",
    "x@mozilla.org",
    "MOZILLA",
    "mozill@a",
    "a\ncliqz",
    "@unified-urlbar-shield",
    "study@shield.mozilla.org",
    "study@shieldxmozilla.org",
    "@testpilot-addon",
    "x@testpilot-addon",
    "pilot@one.org",
    "ä@ö",
    "shield@",
];
const VERSIONS: [&str; 9] = ["57.0", "57.0.1", "100.0", "10.0", "5", "", "äö1", "e\u{301}1", "äö"];
const NARROW_DAYS: [i64; 12] = [
    0,
    -1,
    17_000,
    17_001,
    24_855,
    24_856,
    30_000,
    49_711,
    -24_856,
    -24_857,
    i32::MAX as i64,
    i32::MIN as i64,
];
const WIDE_DAYS: [i64; 8] =
    [i64::MAX, i64::MIN, 106_751_991, 106_751_992, 2_932_897, -719_600, -719_469, 1 << 33];

fn pick<T: Clone>(numbers: &mut Numbers, of: &[T]) -> T {
    of[numbers.below(of.len())].clone()
}

fn day(numbers: &mut Numbers, width: Width) -> i64 {
    match (width, numbers.below(8)) {
        (_, 0..4) => 17_000 + numbers.below(4) as i64,
        (Width::W64, 4..6) => pick(numbers, &WIDE_DAYS),
        _ => pick(numbers, &NARROW_DAYS),
    }
}

impl Folder {
    pub fn random(numbers: &mut Numbers) -> Self {
        let widths = [0; 2].map(|_| if numbers.one_in(2) { Width::W64 } else { Width::W32 });
        let pilots: &[&str] = pick(numbers, &[&[][..], &["@testpilot-addon"], &["pilot@one.org", "a@b"]]);
        let pilots = pilots.iter().map(|id| id.as_bytes().to_vec()).collect();
        let (clients, addons) = (1 + numbers.size(10), 1 + numbers.size(10));
        let nulls = pick(numbers, &[3, 20, 1 << 40]);
        let odd = pick(numbers, &[0, 0, 1, 5, 10]);
        let mut folder = Folder { pings: vec![], widths, pilots };
        let longest = pick(numbers, &[3, 12, 12, 200]);
        let mut last: Option<AddonsPing> = None;
        for _ in 0..numbers.size(12) {
            let mut ping = match &last {
                Some(last) if !numbers.one_in(3) => last.clone(),
                _ => {
                    let at = numbers.below(clients);
                    let id = match at % 10 < odd {
                        true => format!("client-{at}"),
                        false => String::from_utf8_lossy(&uuid::format(uuid(at))).into_owned(),
                    };
                    let channel = pick(numbers, &["release", "beta", ""]);
                    let elements = (0..numbers.below(longest)).map(|_| element(numbers, addons, widths[0]));
                    let elements = elements.collect();
                    AddonsPing {
                        client: (!numbers.one_in(nulls)).then_some(id),
                        channel: Some(channel.into()),
                        version: Some(pick(numbers, &VERSIONS).into()),
                        locale: Some(pick(numbers, &["en-US", "de", ""]).into()),
                        created: Some(day(numbers, widths[1])),
                        elements,
                    }
                }
            };
            change(&mut ping, numbers, nulls, widths);
            folder.pings.push(ping.clone());
            last = Some(ping);
        }
        folder
    }
}

fn element(numbers: &mut Numbers, addons: usize, days: Width) -> Element {
    let addon = match numbers.below(3) {
        0 => pick(numbers, &ADDONS).to_string(),
        _ => format!("addon{}@x", numbers.below(addons)),
    };
    Element {
        addon: Some(addon),
        foreign: Some(numbers.one_in(3)),
        system: Some(numbers.one_in(3)),
        web: Some(numbers.one_in(2)),
        day: Some(day(numbers, days)),
    }
}

/// Changes a field or two, so that rows are nearly equal.
fn change(ping: &mut AddonsPing, numbers: &mut Numbers, nulls: usize, widths: [Width; 2]) {
    match numbers.below(12) {
        0 => ping.created = Some(day(numbers, widths[1])),
        1 => ping.version = Some(pick(numbers, &VERSIONS).into()),
        2 => ping.elements.truncate(numbers.below(5)),
        3 => ping.elements.reverse(),
        _ => (),
    }
    if numbers.one_in(nulls) {
        match numbers.below(4) {
            0 => ping.channel = None,
            1 => ping.version = None,
            2 => ping.locale = None,
            _ => ping.created = None,
        }
    }
    for at in 0..ping.elements.len() {
        if numbers.one_in(nulls.min(40)) {
            let changed = &mut ping.elements[at];
            let flag = [None, Some(false), Some(true)][numbers.below(3)];
            match numbers.below(6) {
                0 => changed.addon = None,
                1 => changed.foreign = flag,
                2 => changed.system = flag,
                3 => changed.web = flag,
                4 => changed.day = (!numbers.one_in(2)).then(|| day(numbers, widths[0])),
                _ => *changed = Element { addon: None, foreign: None, system: None, web: None, day: None },
            }
        }
    }
}

/// How mappers receive rows. Only the shards affect the order of the result's rows.
#[derive(Clone, Copy, Debug)]
pub struct PingCut {
    pub shard: usize,
    pub batch: usize,
    pub block: usize,
    pub flush: usize,
}

impl PingCut {
    pub fn random(numbers: &mut Numbers) -> Self {
        PingCut { shard: 1 + numbers.size(12), batch: 0, block: 0, flush: 0 }.with_other_flushes(numbers)
    }

    pub fn with_other_flushes(self, numbers: &mut Numbers) -> Self {
        let [batch, block, flush] = [BATCH_ROWS, 300, 20].map(|most| 1 + numbers.size(12).min(most - 1));
        PingCut { batch: batch.max(self.shard / 50), block, flush, ..self }
    }
}

/// The runs of all shards.
pub fn map_folder(folder: &Folder, cut: PingCut) -> Vec<MapRun> {
    let dataset = AddonAggregatesV2::new(&folder.pilots);
    let mut mapper = dataset.mapper(0, SAMPLES, Some(FOLDER));
    let mut runs = vec![];
    for shard in folder.pings.chunks(cut.shard) {
        for (at, rows) in shard.chunks(cut.batch.min(BATCH_ROWS)).enumerate() {
            consume(&mut *mapper, rows, folder.widths, cut.block);
            assert!(mapper.footprint() > 0);
            if (at + 1) % cut.flush == 0 {
                runs.push(mapper.flush().unwrap());
            }
        }
        if !mapper.is_empty() {
            runs.push(mapper.flush().unwrap());
        }
    }
    runs
}

fn consume(mapper: &mut dyn Mapper, rows: &[AddonsPing], widths: [Width; 2], block: usize) {
    let elements: Vec<Element> = rows.iter().flat_map(|row| row.elements.clone()).collect();
    let all = |rows: usize| {
        let mut all = Bits::default();
        all.push_run(true, rows);
        all
    };
    let mut text = |column: usize, texts: Vec<Text>| Column::Text {
        codes: resolved(mapper, column, &texts, &all(texts.len()), block),
    };
    let of_rows = |of: fn(&AddonsPing) -> &Text| rows.iter().map(|row| of(row).clone()).collect();
    let columns = vec![
        text(0, of_rows(|row| &row.client)),
        text(1, of_rows(|row| &row.channel)),
        text(2, of_rows(|row| &row.version)),
        text(3, of_rows(|row| &row.locale)),
        days(rows.iter().map(|row| row.created), widths[1]),
        text(5, elements.iter().map(|element| element.addon.clone()).collect()),
        flags(&elements, |element| element.foreign),
        flags(&elements, |element| element.system),
        flags(&elements, |element| element.web),
        days(elements.iter().map(|element| element.day), widths[0]),
    ];
    let ends = rows.iter().scan(0, |end, row| {
        *end += row.elements.len() as u32;
        Some(*end)
    });
    let batch = Batch { rows: rows.len(), columns, ends: ends.collect() };
    let mut selected = all(rows.len());
    mapper.select(&batch, &mut selected);
    mapper.consume(&batch, &selected);
}

/// Values of nulls are unspecified. A file without the column has nulls of the other width.
fn days(values: impl Iterator<Item = Option<i64>> + Clone, width: Width) -> Column {
    let valid = bits(values.clone().map(|day| day.is_some()));
    let width = if valid.count() > 0 { width } else { Width::default() };
    Column::Int { valid, value: values.map(|day| day.unwrap_or(99)).collect(), width }
}
