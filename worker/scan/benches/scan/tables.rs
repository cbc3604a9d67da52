//! The rows of the benchmarks: two tables of `addon_aggregates`, and pings of `addon_aggregates_v2`.
//!
//! Not here: their files (`scene`).

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, Fields};
use tally_dataset::uuid;

use crate::scene::must;

/// Rows of a table, except for pings.
pub const ROWS: usize = 1 << 18;
/// Pings, whose lists have about three times as many elements as there are rows in other tables.
pub const PINGS: usize = 1 << 15;
const CLIENTS: usize = 20_000;
const ADDON_IDS: usize = 20_000;

/// Random numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 8) as usize % end
    }

    fn flags(&mut self, of_thousand: usize) -> BooleanArray {
        (0..ROWS).map(|_| (self.below(2000) > 0).then(|| self.below(1000) < of_thousand)).collect()
    }
}

/// Client ids of `rows` rows, each repeated in `run` consecutive ones, like the rows of a ping.
fn clients(numbers: &mut Numbers, rows: usize, run: usize) -> StringArray {
    let ids: Vec<String> = (0..CLIENTS)
        .map(|at| (at as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
        .map(|id| String::from_utf8_lossy(&uuid::format(id)).into_owned())
        .collect();
    let mut pings = (0..).map(|_| numbers.below(CLIENTS));
    let mut of_ping = 0;
    (0..rows)
        .map(|row| {
            if row % run == 0 {
                of_ping = pings.next().unwrap_or(0);
            }
            ids[of_ping].as_str()
        })
        .map(Some)
        .collect()
}

/// Half of the rows have one of eight system add-ons, the rest any add-on.
fn addon_ids(numbers: &mut Numbers) -> StringArray {
    (0..ROWS)
        .map(|_| match numbers.below(2) {
            0 => Some(format!("system{}@mozilla.org", numbers.below(8))),
            _ => Some(format!("addon{}@example.org", numbers.below(ADDON_IDS))),
        })
        .collect()
}

/// The table `addons`.
pub fn addons_table() -> RecordBatch {
    let mut numbers = Numbers(1);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("client_id", Arc::new(clients(&mut numbers, ROWS, 7))),
        ("addon_id", Arc::new(addon_ids(&mut numbers))),
        ("foreign_install", Arc::new(numbers.flags(220))),
        ("is_system", Arc::new(numbers.flags(500))),
        ("user_disabled", Arc::new(numbers.flags(120))),
        ("app_disabled", Arc::new(numbers.flags(50))),
    ];
    table(columns)
}

/// Lists of 0 to 13 add-ons, each with its install day, some of them null.
fn active_addons(numbers: &mut Numbers) -> ListArray {
    let lengths: Vec<usize> = (0..ROWS).map(|_| numbers.below(14)).collect();
    let days: Int32Array = (0..lengths.iter().sum())
        .map(|_| (numbers.below(1000) > 0).then(|| 15_000 + numbers.below(2000) as i32))
        .collect();
    let fields = Fields::from(vec![Field::new("install_day", DataType::Int32, true)]);
    let addons = StructArray::new(fields.clone(), vec![Arc::new(days)], None);
    let element = Arc::new(Field::new("element", DataType::Struct(fields), true));
    ListArray::new(element, OffsetBuffer::from_lengths(lengths), Arc::new(addons), None)
}

/// The table `main_summary` of `addon_aggregates`.
pub fn main_table() -> RecordBatch {
    let mut numbers = Numbers(2);
    let dates: Int64Array =
        (0..ROWS).map(|_| (numbers.below(100) > 0).then(|| 15_000 + numbers.below(2000) as i64)).collect();
    let themes: StringArray = (0..ROWS)
        .map(|_| match numbers.below(100) {
            0..3 => None,
            3..88 => Some("{972ce4c6-7e08-4474-a285-3208198ce6fd}".to_string()),
            _ => Some(format!("theme{}@personas.mozilla.org", numbers.below(500))),
        })
        .collect();
    let field = Fields::from(vec![Field::new("addon_id", DataType::Utf8, true)]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("client_id", Arc::new(clients(&mut numbers, ROWS, 1))),
        ("profile_creation_date", Arc::new(dates)),
        ("active_theme", Arc::new(StructArray::new(field, vec![Arc::new(themes)], None))),
        ("active_addons", Arc::new(active_addons(&mut numbers))),
    ];
    table(columns)
}

fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    must(RecordBatch::try_from_iter_with_nullable(columns))
}

/// A column of dates, of which so many percent are null.
pub fn dates_table(nulls: usize) -> RecordBatch {
    let mut numbers = Numbers(4);
    let date = |_| (numbers.below(100) >= nulls).then(|| 15_000 + numbers.below(2000) as i64);
    let dates: Int64Array = (0..ROWS).map(date).collect();
    table(vec![("profile_creation_date", Arc::new(dates))])
}

/// Lists of 25 add-ons on average, and the number of all.
fn all_addons(numbers: &mut Numbers) -> (ListArray, usize) {
    let lengths: Vec<usize> = (0..PINGS).map(|_| numbers.below(51)).collect();
    let elements = lengths.iter().sum();
    let ids: StringArray = (0..elements)
        .map(|_| match numbers.below(3) {
            0 => Some(format!("addon{}@example.org", numbers.below(ADDON_IDS / 10))),
            _ => Some(format!("system{}@mozilla.org", numbers.below(20))),
        })
        .collect();
    let mut flags = |of_thousand: usize| -> ArrayRef {
        let flag = |_| (numbers.below(2000) > 0).then(|| numbers.below(1000) < of_thousand);
        Arc::new((0..elements).map(flag).collect::<BooleanArray>())
    };
    let (foreign, system, web) = (flags(220), flags(500), flags(600));
    let days: Int32Array = (0..elements)
        .map(|_| (numbers.below(1000) > 0).then(|| 15_000 + numbers.below(2000) as i32))
        .collect();
    let named: Vec<(&str, ArrayRef)> = vec![
        ("addon_id", Arc::new(ids)),
        ("foreign_install", foreign),
        ("is_system", system),
        ("is_web_extension", web),
        ("install_day", Arc::new(days)),
    ];
    let field = |(name, array): (&str, ArrayRef)| (Field::new(name, array.data_type().clone(), true), array);
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = named.into_iter().map(field).unzip();
    let fields = Fields::from(fields);
    let addons = StructArray::new(fields.clone(), arrays, None);
    let element = Arc::new(Field::new("element", DataType::Struct(fields), true));
    (ListArray::new(element, OffsetBuffer::from_lengths(lengths), Arc::new(addons), None), elements)
}

/// The table `main_summary` of `addon_aggregates_v2`, and the number of its list elements.
pub fn pings_table() -> (RecordBatch, usize) {
    let mut numbers = Numbers(3);
    let (addons, elements) = all_addons(&mut numbers);
    let ids = clients(&mut numbers, PINGS, 1);
    let mut one_of = |texts: &[&str]| -> ArrayRef {
        let text = |_| (numbers.below(1000) > 0).then(|| texts[numbers.below(texts.len())]);
        Arc::new((0..PINGS).map(text).collect::<StringArray>())
    };
    let channels = one_of(&["release", "release", "beta", "nightly", "esr"]);
    let versions = one_of(&["57.0", "57.0.1", "56.0.2", "58.0", "52.5.0"]);
    let locales = one_of(&["en-US", "de", "fr", "pt-BR", "zh-CN", "ru"]);
    let date = |_| (numbers.below(100) > 0).then(|| 15_000 + numbers.below(2000) as i64);
    let dates: Int64Array = (0..PINGS).map(date).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("client_id", Arc::new(ids)),
        ("normalized_channel", channels),
        ("app_version", versions),
        ("locale", locales),
        ("profile_creation_date", Arc::new(dates)),
        ("active_addons", Arc::new(addons)),
    ];
    (table(columns), elements)
}
