//! Hashes of the rows of partials and of the output, for [`crate::checksum`].
//!
//! A partial's row is hashed as it is stored, with the codes of its run; the order of its items says nothing. An output row
//! is hashed by its values, so that any reader of a published day can compute the same hash. Not here: the hash function.

use arrow_array::{Array, Int64Array, RecordBatch, StringArray};

use super::ping_schema::{DATES, KEYS, SUMS};
use super::reduce_groups::Partials;
use crate::DatasetError;
use crate::checksum::{Fingerprint, id, start, step, text};
use crate::output_rows::named;
use crate::partials::{key_bytes, row_ranges};

/// The checksum of the rows of each of the ranges that begin and end at `offsets`.
pub(super) fn partials(batch: &RecordBatch, offsets: &[u32]) -> Result<Vec<u64>, DatasetError> {
    let ranges = row_ranges(batch, offsets)?;
    let Partials { ids, states, kinds, dates, ends, items } = Partials::of(batch)?;
    let ids = key_bytes(ids)?;
    let row = |row: usize| {
        let items = &items[ends[row] as usize..ends[row + 1] as usize];
        let sum = items.iter().fold(0u64, |sum, &item| sum.wrapping_add(step(start(), item, 0)));
        let [channel, version, locale] = kinds.map(|codes| u64::from(codes[row]));
        let hash = step(id(ids[row]), dates[row].cast_unsigned(), channel << 32 | version);
        step(hash, sum, (items.len() as u64) << 40 | locale << 8 | u64::from(states[row]))
    };
    Ok(ranges.map(|rows| rows.fold(0u64, |sum, at| sum.wrapping_add(row(at)))).collect())
}

/// A nullable string of a row: its hash, and its length with a bit that tells null from the empty string.
fn text_words(column: &StringArray, row: usize) -> (u64, u64) {
    if column.is_null(row) {
        return (0, 0);
    }
    let ends = column.value_offsets();
    let (from, to) = (ends[row] as usize, ends[row + 1] as usize);
    (text(column.value_data(), from, to), ((to - from) as u64) << 1 | 1)
}

/// Adds output rows to a fingerprint.
pub(super) fn output(batch: &RecordBatch, all: &mut Fingerprint) -> Result<(), DatasetError> {
    let texts = [KEYS[0], KEYS[1], KEYS[2], KEYS[3], DATES[0], DATES[1]];
    let texts = texts.iter().map(|name| named::<StringArray>(batch, name)).collect::<Result<Vec<_>, _>>()?;
    let sums = SUMS.iter().map(|name| named::<Int64Array>(batch, name)).collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        let mut hash = texts.iter().fold(start(), |hash, column| {
            let (text, length) = text_words(column, row);
            step(hash, text, length)
        });
        for column in &sums {
            // A null, which no job writes, is not 0.
            let (sum, null) =
                if column.is_null(row) { (0, 1) } else { (column.value(row).cast_unsigned(), 0) };
            hash = step(hash, sum, null);
        }
        all.add(hash);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use arrow_array::{ArrayRef, FixedSizeBinaryArray, ListArray, UInt8Array, UInt32Array, UInt64Array};
    use arrow_buffer::OffsetBuffer;
    use arrow_schema::{DataType, Field};

    use super::super::ping_schema;
    use super::*;

    type PartialRow = (u128, u8, [u32; 3], i64, Vec<u64>);

    fn partial(rows: &[PartialRow]) -> RecordBatch {
        let ids: Vec<u8> = rows.iter().flat_map(|row| row.0.to_be_bytes()).collect();
        let codes = |at: usize| -> ArrayRef {
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.2[at])))
        };
        let field = Arc::new(Field::new("item", DataType::UInt64, false));
        let offsets = OffsetBuffer::from_lengths(rows.iter().map(|row| row.4.len()));
        let items: Vec<u64> = rows.iter().flat_map(|row| row.4.clone()).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(FixedSizeBinaryArray::new(16, ids.into(), None)),
            Arc::new(UInt8Array::from_iter_values(rows.iter().map(|row| row.1))),
            codes(0),
            codes(1),
            codes(2),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3))),
            Arc::new(ListArray::new(field, offsets, Arc::new(UInt64Array::from(items)), None)),
        ];
        RecordBatch::try_new(ping_schema::partial(), columns).unwrap()
    }

    #[test]
    fn sums_of_partials_do_not_depend_on_their_order_but_on_every_value() {
        let row: PartialRow = (1 << 100 | 5, 4, [1, 2, u32::MAX], -7, vec![10, 20, 1 << 63]);
        let next: PartialRow = (2, 0, [0; 3], 0, vec![]);
        let sum = |rows: &[PartialRow]| partials(&partial(rows), &[0, rows.len() as u32]).unwrap()[0];
        let base = sum(&[row.clone(), next.clone()]);
        assert_eq!(sum(&[next.clone(), row.clone()]), base);
        let cut = partials(&partial(&[row.clone(), next.clone()]), &[0, 1, 1, 2]).unwrap();
        assert_eq!(cut.iter().fold(0u64, |sum, one| sum.wrapping_add(*one)), base);
        let slice = partial(&[next.clone(), row.clone()]).slice(1, 1);
        assert_eq!(partials(&slice, &[0, 1]).unwrap()[0], cut[0]);
        let changed = |change: &dyn Fn(&mut PartialRow)| {
            let mut other = row.clone();
            change(&mut other);
            sum(&[other, next.clone()])
        };
        let others = [
            changed(&|row| row.0 ^= 1 << 9),
            changed(&|row| row.1 ^= 1),
            changed(&|row| row.2 = [2, 1, u32::MAX]),
            changed(&|row| row.2[2] = 0),
            changed(&|row| row.3 = 7),
            changed(&|row| row.4[0] = 11),
            changed(&|row| row.4.truncate(2)),
            changed(&|row| row.4.push(0)),
        ];
        let distinct: HashSet<u64> = others.iter().chain([&base]).copied().collect();
        assert_eq!(distinct.len(), others.len() + 1);
        assert_eq!(changed(&|row| row.4.reverse()), base, "the order of items says nothing");
        for offsets in [&[0, 3][..], &[1, 0, 1]] {
            assert!(partials(&partial(&[row.clone(), next.clone()]), offsets).is_err(), "{offsets:?}");
        }
        assert!(output(&partial(&[row]), &mut Fingerprint::default()).is_err());
    }

    type OutputRow = ([Option<&'static str>; 6], [Option<i64>; 5]);

    fn fingerprint(rows: &[OutputRow]) -> Fingerprint {
        let text =
            |at: usize| -> ArrayRef { Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0[at]))) };
        let sum =
            |at: usize| -> ArrayRef { Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.1[at]))) };
        let columns = (0..4).map(text).chain((0..5).map(sum)).chain((4..6).map(text)).collect();
        let batch = RecordBatch::try_new(ping_schema::output(), columns).unwrap();
        let (mut whole, mut split) = (Fingerprint::default(), Fingerprint::default());
        output(&batch, &mut whole).unwrap();
        (0..rows.len()).for_each(|row| output(&batch.slice(row, 1), &mut split).unwrap());
        assert_eq!(whole, split);
        whole
    }

    #[test]
    fn output_rows_are_told_apart_by_value_and_null_is_neither_zero_nor_empty() {
        let row: OutputRow = ([Some("a"), Some(""), Some("57"), None, Some("20180101"), None], [Some(0); 5]);
        let base = fingerprint(&[row]).checksum;
        let mut others = vec![];
        for at in 0..6 {
            for value in [None, Some(""), Some("b")].into_iter().filter(|value| *value != row.0[at]) {
                let mut other = row;
                other.0[at] = value;
                others.push(fingerprint(&[other]).checksum);
            }
        }
        for at in 0..5 {
            for value in [None, Some(1)] {
                let mut other = row;
                other.1[at] = value;
                others.push(fingerprint(&[other]).checksum);
            }
        }
        let mut swapped = row;
        swapped.0.swap(0, 1);
        others.push(fingerprint(&[swapped]).checksum);
        let distinct: HashSet<u64> = others.iter().chain([&base]).copied().collect();
        assert_eq!(distinct.len(), others.len() + 1);
        let (one, other) = (fingerprint(&[row, swapped]), fingerprint(&[swapped, row]));
        assert_eq!((one.rows, one.checksum), (other.rows, other.checksum));
        assert_ne!(one.order, other.order);
    }
}
