//! Hashes of the rows of partials and of the output, for [`crate::checksum`].
//!
//! A partial's row is hashed as it is stored, with the codes of its run. An output row is hashed by its values, so
//! that any reader of a published day can compute the same hash. Not here: the hash function.

use arrow_array::{
    Array, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt8Array, UInt32Array,
};

use super::{ADDONS, MAIN_SUMMARY};
use crate::DatasetError;
use crate::checksum::{Fingerprint, id, next_order, start, step, text};
use crate::output_rows::named;
use crate::partials::{column, key_bytes, lists, malformed, row_ranges};

/// Maximum number of items in a block.
const BLOCK_ITEMS: usize = 8 << 10;
/// Maximum number of rows in a block.
const BLOCK_ROWS: usize = 1 << 10;

/// The checksum of the rows of each of the ranges that begin and end at `offsets`.
pub(super) fn partials(table: usize, batch: &RecordBatch, offsets: &[u32]) -> Result<Vec<u64>, DatasetError> {
    let ranges = row_ranges(batch, offsets)?;
    let ids = key_bytes(column(batch, "client_id")?)?;
    let states: &UInt8Array = column(batch, "state")?;
    match table {
        ADDONS => {
            let (ends, items) = lists::<UInt32Array>(batch, "items")?;
            let mut addons =
                Addons { ids, states: states.values(), ends, items: items.values(), before: vec![] };
            Ok(ranges.map(|rows| addons.sum(rows)).collect())
        }
        MAIN_SUMMARY => {
            let dates: &Int64Array = column(batch, "profile_creation_date")?;
            let days: &Int32Array = column(batch, "min_install_day")?;
            let (states, dates, days) = (states.values(), dates.values(), days.values());
            let sum = |rows: std::ops::Range<usize>| {
                let columns = ids[rows.clone()].iter().zip(&states[rows.clone()]);
                let columns = columns.zip(&dates[rows.clone()]).zip(&days[rows]);
                columns.fold(0u64, |sum, (((&client, &state), &date), &day)| {
                    let rest = u64::from(day.cast_unsigned()) << 8 | u64::from(state);
                    sum.wrapping_add(step(id(client), date.cast_unsigned(), rest))
                })
            };
            Ok(ranges.map(sum).collect())
        }
        other => Err(malformed(format!("there is no input table {other}"))),
    }
}

/// The columns of the add-ons' partial.
struct Addons<'a> {
    ids: &'a [[u8; 16]],
    states: &'a [u8],
    ends: &'a [i32],
    items: &'a [u32],
    /// Scratch: sums of the hashes of a block's items before each of them, and of all.
    before: Vec<u64>,
}

impl Addons<'_> {
    fn sum(&mut self, rows: std::ops::Range<usize>) -> u64 {
        let mut sum = 0u64;
        let mut from = rows.start;
        while from < rows.end {
            let start = self.ends[from] as usize;
            let most = &self.ends[from + 1..=rows.end.min(from + BLOCK_ROWS)];
            let fitting = most.partition_point(|&end| end as usize - start <= BLOCK_ITEMS);
            // A client with more items than a block is summed alone.
            let to = from + fitting.max(1);
            let items = &self.items[start..self.ends[to] as usize];
            sum = sum.wrapping_add(if fitting == 0 {
                let all = items.iter().fold(0u64, |sum, &item| sum.wrapping_add(item_hash(item)));
                self.row(from, items.len() as u64, all)
            } else {
                self.block(from, to)
            });
            from = to;
        }
        sum
    }

    /// Sums a block of rows. Most clients have few items, so a loop per client would mispredict its end each time.
    fn block(&mut self, from: usize, to: usize) -> u64 {
        let ends = &self.ends[from..=to];
        let first = ends[0] as usize;
        let mut all = 0u64;
        self.before.clear();
        self.before.push(0);
        self.before.extend(self.items[first..ends[to - from] as usize].iter().map(|&item| {
            all = all.wrapping_add(item_hash(item));
            all
        }));
        let mut sum = 0u64;
        for (row, ends) in (from..to).zip(ends.windows(2)) {
            let (start, end) = (ends[0] as usize - first, ends[1] as usize - first);
            let items = self.before[end].wrapping_sub(self.before[start]);
            sum = sum.wrapping_add(self.row(row, (end - start) as u64, items));
        }
        sum
    }

    #[inline]
    fn row(&self, row: usize, count: u64, items: u64) -> u64 {
        step(id(self.ids[row]), items, count << 8 | u64::from(self.states[row]))
    }
}

#[inline]
fn item_hash(item: u32) -> u64 {
    step(start(), u64::from(item), 0)
}

/// Rows hashed at a time: one word of each bitmap.
const BLOCK: usize = 64;

/// Which values of a column are not null, a word for each block of rows.
fn valid(column: &dyn Array) -> Vec<u64> {
    match column.nulls() {
        Some(nulls) => nulls.inner().bit_chunks().iter_padded().collect(),
        None => vec![u64::MAX; column.len().div_ceil(BLOCK)],
    }
}

/// Adds output rows to a fingerprint.
pub(super) fn reduced(batch: &RecordBatch, all: &mut Fingerprint) -> Result<(), DatasetError> {
    let ids: &StringArray = named(batch, "client_id")?;
    let foreign: &BooleanArray = named(batch, "foreign_install")?;
    let counts: &Int64Array = named(batch, "count")?;
    let user_types: &Int64Array = named(batch, "user_type")?;
    let dates: &Int64Array = named(batch, "profile_creation_date")?;
    let days: &Int32Array = named(batch, "min_install_day")?;
    let themes: &Int64Array = named(batch, "has_custom_theme")?;
    let (bytes, ends) = (ids.value_data(), ids.value_offsets());
    let install: Vec<u64> = foreign.values().bit_chunks().iter_padded().collect();
    let [known_install, dated, known_day, themed] = [foreign as &dyn Array, dates, days, themes].map(valid);
    let mut texts = [0u64; BLOCK];
    for block in 0..batch.num_rows().div_ceil(BLOCK) {
        let from = block * BLOCK;
        let to = batch.num_rows().min(from + BLOCK);
        let ends = &ends[from..=to];
        for (hash, ends) in texts.iter_mut().zip(ends.windows(2)) {
            *hash = text(bytes, ends[0] as usize, ends[1] as usize);
        }
        let texts = &texts[..to - from];
        let (counts, user_types) = (&counts.values()[from..to], &user_types.values()[from..to]);
        let (dates, days) = (&dates.values()[from..to], &days.values()[from..to]);
        let themes = &themes.values()[from..to];
        // The lowest bits are those of the current row.
        let (mut dated, mut known, mut themed) = (dated[block], known_day[block], themed[block]);
        let (mut install, mut unknown) = (install[block] & known_install[block], !known_install[block]);
        let (mut checksum, mut order) = (all.checksum, all.order);
        for row in 0..to - from {
            let length = (ends[row + 1] - ends[row]) as u64;
            let nulls = (themed & 1) << 4 | (known & 1) << 3 | (dated & 1) << 2;
            let head = length << 8 | nulls | (unknown & 1) << 1 | install & 1;
            // A null counts as 0, whatever its stored value.
            let date = dates[row].cast_unsigned() & (dated & 1).wrapping_neg();
            let day = i64::from(days[row]).cast_unsigned() & (known & 1).wrapping_neg();
            let theme = themes[row].cast_unsigned() & (themed & 1).wrapping_neg();
            (dated, known, themed) = (dated >> 1, known >> 1, themed >> 1);
            (install, unknown) = (install >> 1, unknown >> 1);
            let hash = step(start(), head, counts[row].cast_unsigned());
            let hash = step(hash, user_types[row].cast_unsigned(), date) ^ texts[row];
            let hash = step(hash, day, theme);
            checksum = checksum.wrapping_add(hash);
            order = next_order(order, hash);
        }
        *all = Fingerprint { rows: all.rows + (to - from) as u64, checksum, order };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use arrow_array::builder::{Int64Builder, ListBuilder, UInt32Builder};
    use arrow_array::{ArrayRef, FixedSizeBinaryArray};
    use arrow_select::take::take_record_batch;
    use proptest::prelude::*;

    use super::super::schema;
    use super::*;

    type AddonRow = (u128, u8, Vec<u32>);
    type MainRow = (u128, u8, i64, i32);

    fn head(ids: impl Iterator<Item = u128>, states: impl Iterator<Item = u8>) -> [ArrayRef; 2] {
        let ids = ids.map(|id| Some(id.to_be_bytes()));
        let ids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids, 16).unwrap();
        let ids = FixedSizeBinaryArray::new(16, ids.values().clone(), None);
        [Arc::new(ids), Arc::new(UInt8Array::from_iter_values(states))]
    }

    fn addons(rows: &[AddonRow]) -> RecordBatch {
        let [ids, states] = head(rows.iter().map(|row| row.0), rows.iter().map(|row| row.1));
        let field = arrow_schema::Field::new("item", arrow_schema::DataType::UInt32, false);
        let mut lists = ListBuilder::new(UInt32Builder::new()).with_field(field);
        for (.., items) in rows {
            lists.values().append_slice(items);
            lists.append(true);
        }
        let columns: Vec<ArrayRef> = vec![ids, states, Arc::new(lists.finish())];
        RecordBatch::try_new(schema::addons_partial(), columns).unwrap()
    }

    fn main(rows: &[MainRow]) -> RecordBatch {
        let [ids, states] = head(rows.iter().map(|row| row.0), rows.iter().map(|row| row.1));
        let dates = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)));
        let days = Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.3)));
        RecordBatch::try_new(schema::main_partial(), vec![ids, states, dates, days]).unwrap()
    }

    fn sum(table: usize, batch: &RecordBatch) -> u64 {
        partials(table, batch, &[0, batch.num_rows() as u32]).unwrap()[0]
    }

    /// The sum does not depend on how the rows are divided and ordered.
    fn check_cuts(table: usize, batch: &RecordBatch, at: usize) -> Result<(), TestCaseError> {
        let (all, rows) = (sum(table, batch), batch.num_rows());
        let at = at.min(rows);
        let cut = partials(table, batch, &[0, at as u32, at as u32, rows as u32]).unwrap();
        prop_assert_eq!(cut.iter().fold(0u64, |sum, one| sum.wrapping_add(*one)), all);
        let slices = [batch.slice(0, at), batch.slice(at, rows - at)];
        prop_assert_eq!(sum(table, &slices[0]), cut[0]);
        prop_assert_eq!(sum(table, &slices[1]), cut[2]);
        let order =
            UInt32Array::from_iter_values((0..rows as u32).map(|row| (row + at as u32) % rows.max(1) as u32));
        let turned = take_record_batch(batch, &order).unwrap();
        prop_assert_eq!(sum(table, &turned), all);
        Ok(())
    }

    proptest! {
        #[test]
        fn sums_of_addons_do_not_depend_on_cuts_and_order_but_on_every_value(
            rows in prop::collection::vec((any::<u128>(), any::<u8>(), prop::collection::vec(any::<u32>(), 0..9)), 1..60),
            at in 0..60usize,
            which in 0..4usize,
            bit in 0..32u32,
        ) {
            let batch = addons(&rows);
            check_cuts(ADDONS, &batch, at)?;
            let mut other = rows.clone();
            let row = at % rows.len();
            let (id, state, items) = &mut other[row];
            match (which, items.is_empty()) {
                (0, _) => *id ^= 1 << (bit * 4),
                (1, _) => *state ^= 1 << (bit % 8),
                (2, false) => items[0] ^= 1 << bit,
                (3, false) => drop(items.pop()),
                _ => items.push(bit),
            }
            prop_assert_ne!(sum(ADDONS, &addons(&other)), sum(ADDONS, &batch));
        }

        #[test]
        fn sums_of_pings_do_not_depend_on_cuts_and_order_but_on_every_value(
            rows in prop::collection::vec((any::<u128>(), any::<u8>(), any::<i64>(), any::<i32>()), 1..60),
            at in 0..60usize,
            which in 0..4usize,
            bit in 0..32u32,
        ) {
            let batch = main(&rows);
            check_cuts(MAIN_SUMMARY, &batch, at)?;
            let mut other = rows.clone();
            let row = at % rows.len();
            let (id, state, date, day) = &mut other[row];
            match which {
                0 => *id ^= 1 << (bit * 4),
                1 => *state ^= 1 << (bit % 8),
                2 => *date ^= 1 << (bit * 2),
                _ => *day ^= 1 << bit,
            }
            prop_assert_ne!(sum(MAIN_SUMMARY, &main(&other)), sum(MAIN_SUMMARY, &batch));
        }
    }

    /// Values swapped between rows: each column as a whole has the same values.
    #[test]
    fn what_belongs_to_another_row_is_told_apart() {
        let pings = |dates: [i64; 2], days: [i32; 2]| {
            sum(MAIN_SUMMARY, &main(&[(1, 3, dates[0], days[0]), (2, 3, dates[1], days[1])]))
        };
        let seen =
            [pings([7, 8], [1, 2]), pings([8, 7], [1, 2]), pings([7, 8], [2, 1]), pings([7, 9], [1, 1])];
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 4);
        let installed =
            |one: &[u32], two: &[u32]| sum(ADDONS, &addons(&[(1, 0, one.into()), (2, 0, two.into())]));
        let seen = [
            installed(&[1, 2], &[3]),
            installed(&[1], &[2, 3]),
            installed(&[3], &[1, 2]),
            installed(&[], &[1, 2, 3]),
        ];
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 4);
        assert_eq!(installed(&[2, 1], &[3]), seen[0], "the order of a client's add-ons says nothing");
    }

    /// Clients with more items than a block, and with none, next to each other.
    #[test]
    fn clients_of_many_addons_are_summed_like_others() {
        let items =
            |count: usize| (0..count as u32).map(|item| item.wrapping_mul(0x9e37_79b9)).collect::<Vec<_>>();
        let counts = [0, 3, BLOCK_ITEMS - 1, BLOCK_ITEMS, BLOCK_ITEMS + 1, 0, 3 * BLOCK_ITEMS, 1, 5];
        let rows: Vec<AddonRow> = (0..).zip(counts).map(|(id, count)| (id, 1, items(count))).collect();
        let alone = |row: &AddonRow| {
            let items = row.2.iter().fold(0u64, |sum, &item| sum.wrapping_add(item_hash(item)));
            step(id(row.0.to_be_bytes()), items, (row.2.len() as u64) << 8 | u64::from(row.1))
        };
        let expected = rows.iter().fold(0u64, |sum, row| sum.wrapping_add(alone(row)));
        assert_eq!(sum(ADDONS, &addons(&rows)), expected);
        let many: Vec<AddonRow> =
            (0..3 * BLOCK_ROWS as u128).map(|id| (id, 1, items(id as usize % 4))).collect();
        let expected = many.iter().fold(0u64, |sum, row| sum.wrapping_add(alone(row)));
        assert_eq!(sum(ADDONS, &addons(&many)), expected);
    }

    #[test]
    fn batches_of_other_shapes_are_refused() {
        let batch = main(&[(1, 3, 7, 8)]);
        for offsets in [&[0, 2][..], &[1, 0, 1]] {
            assert!(partials(MAIN_SUMMARY, &batch, offsets).is_err(), "{offsets:?}");
        }
        assert!(partials(ADDONS, &batch, &[0, 1]).is_err());
        assert!(partials(2, &batch, &[0, 1]).is_err());
        assert!(reduced(&batch, &mut Fingerprint::default()).is_err());
    }

    fn output(dates: [Option<i64>; 2], ids: [&str; 2], foreign: [Option<bool>; 2]) -> Fingerprint {
        let mut date = Int64Builder::new();
        dates.iter().for_each(|value| date.append_option(*value));
        let long = |value| -> ArrayRef { Arc::new(Int64Array::from(vec![value; 2])) };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(ids)),
            Arc::new(BooleanArray::from(foreign.to_vec())),
            long(4),
            long(-1),
            Arc::new(date.finish()),
            Arc::new(Int32Array::from(vec![None, Some(17_000)])),
            long(1),
        ];
        let batch = RecordBatch::try_new(schema::reduced(), columns).unwrap();
        let (mut whole, mut split) = (Fingerprint::default(), Fingerprint::default());
        reduced(&batch, &mut whole).unwrap();
        reduced(&batch.slice(0, 1), &mut split).unwrap();
        reduced(&batch.slice(1, 1), &mut split).unwrap();
        assert_eq!(whole, split);
        whole
    }

    #[test]
    fn output_rows_are_told_apart_by_value_and_nulls_are_no_zeros() {
        let base = output([Some(0), Some(5)], ["a", "b"], [Some(true), None]);
        let others = [
            output([None, Some(5)], ["a", "b"], [Some(true), None]),
            output([Some(5), Some(0)], ["a", "b"], [Some(true), None]),
            output([Some(0), Some(5)], ["b", "a"], [Some(true), None]),
            output([Some(0), Some(5)], ["a", "b\0"], [Some(true), None]),
            output([Some(0), Some(5)], ["a", "b"], [Some(true), Some(false)]),
            output([Some(0), Some(5)], ["a", "b"], [None, Some(true)]),
        ];
        let distinct: HashSet<u64> = others.iter().chain([&base]).map(|all| all.checksum).collect();
        assert_eq!(distinct.len(), others.len() + 1);
    }

    #[test]
    fn the_order_of_rows_shows_in_the_fingerprint_alone() {
        let hashes = [3u64, 1 << 63, 77, u64::MAX];
        let of = |order: [usize; 4]| {
            let mut all = Fingerprint::default();
            order.iter().for_each(|&at| all.add(hashes[at]));
            all
        };
        let (one, other) = (of([0, 1, 2, 3]), of([1, 0, 2, 3]));
        assert_eq!((one.rows, one.checksum), (other.rows, other.checksum));
        assert_ne!(one.order, other.order);
        assert_ne!(one.order, of([0, 1, 3, 2]).order);
    }
}
