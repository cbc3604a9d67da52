//! Small random days, passed to mappers like by the scan, but without files: batches of any size, strings resolved in
//! blocks of any size, flushes between any two batches.

use tally_dataset::addon_aggregates::{ADDONS, AddonAggregates, MAIN_SUMMARY};
use tally_dataset::{BATCH_ROWS, Batch, Bits, Column, Dataset, MapRun, Mapper, NULL_CODE, uuid};

use crate::numbers::{Numbers, uuid};

/// The theme that Firefox ships with.
pub const DEFAULT_THEME: &str = "{972ce4c6-7e08-4474-a285-3208198ce6fd}";

pub type Text = Option<String>;

#[derive(Clone, Debug)]
pub struct Addon {
    pub client: Text,
    pub addon: Text,
    pub foreign: Option<bool>,
    /// `is_system`, `user_disabled`, `app_disabled`.
    pub flags: [Option<bool>; 3],
}

#[derive(Clone, Debug)]
pub struct Ping {
    pub client: Text,
    pub theme: Text,
    pub created: Option<i64>,
    /// The smallest day of the list, if it has an element.
    pub day: Option<Option<i32>>,
}

/// All rows of both tables.
pub struct Day {
    pub addons: Vec<Addon>,
    pub pings: Vec<Ping>,
}

impl Day {
    pub fn random(numbers: &mut Numbers) -> Self {
        let clients = 1 + numbers.size(13);
        let odd = [0, 1, 5, 10, 10][numbers.below(5)];
        let addons = 1 + numbers.size(11);
        let odd_first = numbers.one_in(2);
        let client = |numbers: &mut Numbers| {
            let at = numbers.below(clients);
            let is_odd = if odd_first { at * 10 < clients * odd } else { at % 10 < odd };
            match numbers.below(200) {
                0 => None,
                _ if is_odd => Some(format!("client-{at}")),
                _ => Some(String::from_utf8_lossy(&uuid::format(uuid(at))).into_owned()),
            }
        };
        let flag = |numbers: &mut Numbers, value: bool| match numbers.below(20) {
            0 => None,
            1 => Some(!value),
            _ => Some(value),
        };
        let mut day = Day { addons: vec![], pings: vec![] };
        for _ in 0..numbers.size(15) {
            let (client, foreign) = (client(numbers), numbers.one_in(2));
            let addon = if numbers.one_in(30) { None } else { Some(format!("@{}", numbers.below(addons))) };
            let foreign = flag(numbers, foreign);
            let flags = [0; 3].map(|_| flag(numbers, false));
            day.addons.push(Addon { client, addon, foreign, flags });
        }
        for _ in 0..numbers.size(15) {
            let client = client(numbers);
            let theme =
                [None, Some("other"), Some(""), Some(DEFAULT_THEME)][numbers.below(4)].map(Into::into);
            let created = [None, Some(0), Some(i64::MIN), Some(17_000), Some(17_000)][numbers.below(5)];
            let day_of = numbers.below(40) as i32 - 3;
            let day_of = [None, Some(None), Some(Some(day_of)), Some(Some(day_of))][numbers.below(4)];
            day.pings.push(Ping { client, theme, created, day: day_of });
        }
        if odd_first {
            // The ids with dictionary codes are first in the order of all shards.
            day.addons.sort_by_key(|row| row.client.as_ref().is_some_and(|id| !id.starts_with('c')));
            day.pings.sort_by_key(|row| row.client.as_ref().is_some_and(|id| !id.starts_with('c')));
        }
        day
    }
}

/// How mappers receive rows. It must not affect the result; only the shards affect the order of its rows.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub partitions: u32,
    /// Rows per shard.
    pub shard: usize,
    /// Rows per batch.
    pub batch: usize,
    /// Strings resolved at a time.
    pub block: usize,
    /// Batches between flushes.
    pub flush: usize,
}

impl Cut {
    pub fn random(numbers: &mut Numbers) -> Self {
        let cut = Cut {
            partitions: 1 + numbers.size(5) as u32,
            shard: 1 + numbers.size(15),
            batch: 0,
            block: 0,
            flush: 0,
        };
        cut.with_other_flushes(numbers)
    }

    /// The same shards, with other flushes.
    pub fn with_other_flushes(self, numbers: &mut Numbers) -> Self {
        let [batch, block, flush] = [BATCH_ROWS, 300, 20].map(|most| 1 + numbers.below(most));
        Cut { batch: batch.max(self.shard / 50), block, flush, ..self }
    }
}

/// A map task's runs, with its table.
pub struct Output {
    pub table: usize,
    pub runs: Vec<MapRun>,
}

pub fn map(day: &Day, cut: Cut) -> Vec<Output> {
    let dataset = AddonAggregates::new();
    let addons =
        Table { number: ADDONS, texts: &[0, 1], client: |row: &Addon| &row.client, columns: addon_columns };
    let pings = Table {
        number: MAIN_SUMMARY,
        texts: &[0, 1],
        client: |row: &Ping| &row.client,
        columns: ping_columns,
    };
    let second = |row: &Addon| row.addon.clone();
    let mut outputs = addons.map(&dataset, &day.addons, cut, second);
    outputs.extend(pings.map(&dataset, &day.pings, cut, |row: &Ping| row.theme.clone()));
    outputs
}

struct Table<R> {
    number: usize,
    texts: &'static [usize],
    client: fn(&R) -> &Text,
    columns: fn(&[R]) -> Vec<Column>,
}

impl<R> Table<R> {
    fn map(
        &self,
        dataset: &AddonAggregates,
        rows: &[R],
        cut: Cut,
        second: impl Fn(&R) -> Text,
    ) -> Vec<Output> {
        // One mapper for all shards, as in a slot.
        let mut mapper = dataset.mapper(self.number, cut.partitions, None);
        let mut outputs = vec![];
        for shard in rows.chunks(cut.shard) {
            let mut runs = vec![];
            for (at, rows) in shard.chunks(cut.batch.min(BATCH_ROWS)).enumerate() {
                let mut batch = Batch { rows: rows.len(), columns: (self.columns)(rows), ends: vec![] };
                let mut selected = Bits::default();
                selected.push_run(true, rows.len());
                mapper.select(&batch, &mut selected);
                for &column in self.texts {
                    let texts: Vec<Text> = match column {
                        0 => rows.iter().map(|row| (self.client)(row).clone()).collect(),
                        _ => rows.iter().map(&second).collect(),
                    };
                    let codes = resolved(&mut *mapper, column, &texts, &selected, cut.block);
                    batch.columns[column] = Column::Text { codes };
                }
                mapper.consume(&batch, &selected);
                if (at + 1) % cut.flush == 0 {
                    runs.push(mapper.flush().unwrap());
                }
            }
            if !mapper.is_empty() {
                runs.push(mapper.flush().unwrap());
            }
            outputs.push(Output { table: self.number, runs });
        }
        outputs
    }
}

/// The codes of the selected rows; those of other rows are arbitrary.
pub fn resolved(
    mapper: &mut dyn Mapper,
    column: usize,
    texts: &[Text],
    selected: &Bits,
    block: usize,
) -> Vec<u32> {
    let mut codes: Vec<u32> =
        texts.iter().map(|text| if text.is_none() { NULL_CODE } else { 12_345_678 }).collect();
    let wanted: Vec<usize> = selected.ones(0, texts.len()).filter(|&row| texts[row].is_some()).collect();
    for rows in wanted.chunks(block) {
        let values: Vec<&[u8]> =
            rows.iter().filter_map(|&row| texts[row].as_ref()).map(String::as_bytes).collect();
        let mut found = vec![0; values.len()];
        mapper.resolve(column, &values, &mut found).unwrap();
        rows.iter().zip(found).for_each(|(&row, code)| codes[row] = code);
    }
    codes
}

pub fn bits(all: impl Iterator<Item = bool>) -> Bits {
    let mut bits = Bits::default();
    all.for_each(|bit| bits.push_word(u64::from(bit), 1));
    bits
}

pub fn flags<R>(rows: &[R], of: impl Fn(&R) -> Option<bool>) -> Column {
    Column::Bool {
        valid: bits(rows.iter().map(|row| of(row).is_some())),
        value: bits(rows.iter().map(|row| of(row).unwrap_or(false))),
    }
}

fn addon_columns(rows: &[Addon]) -> Vec<Column> {
    let text = || Column::Text { codes: vec![] };
    let mut columns = vec![text(), text(), flags(rows, |row| row.foreign)];
    columns.extend((0..3).map(|at| flags(rows, |row| row.flags[at])));
    columns
}

fn ping_columns(rows: &[Ping]) -> Vec<Column> {
    let text = || Column::Text { codes: vec![] };
    let created = Column::Int64 {
        valid: bits(rows.iter().map(|row| row.created.is_some())),
        value: rows.iter().map(|row| row.created.unwrap_or(99)).collect(),
    };
    let days = Column::ListMin {
        present: bits(rows.iter().map(|row| row.day.is_some())),
        valid: bits(rows.iter().map(|row| row.day.flatten().is_some())),
        value: rows.iter().map(|row| row.day.flatten().unwrap_or(-99)).collect(),
    };
    vec![text(), text(), created, days]
}
