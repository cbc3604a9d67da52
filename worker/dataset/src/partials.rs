//! Building blocks for partials: the batches of rows, one or more per key, that mappers write and reducers read.
//!
//! A key is stored in 16 bytes: a canonical UUID as its value, any other string as its dictionary code; a flag beside
//! it, in a column of the dataset, tells them apart. Not here: which further columns partials have.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray, ListArray, RecordBatch};
use arrow_buffer::Buffer;

use crate::interner::Interner;
use crate::keys::{Key, KeyTable, pass_of_text, pass_of_uuid};
use crate::partition::Partitioner;
use crate::{DatasetError, Pass, StringDictionary, uuid};

/// Keys resolved at a time.
const BLOCK: usize = 128;
/// Bytes of an invalid string that an error shows.
const SHOWN: usize = 100;

/// Writes the numbers that `keys` gives to these strings into `numbers`: what [`crate::Mapper::resolve`] does for a key
/// column. Strings other than canonical UUIDs are added to `strings`.
///
/// # Errors
/// [`DatasetError::TooManyKeys`], [`DatasetError::TooManyStrings`] or [`DatasetError::NotUtf8`].
pub fn resolve_keys(
    keys: &mut KeyTable,
    strings: &mut Interner,
    values: &[&[u8]],
    numbers: &mut [u32],
) -> Result<(), DatasetError> {
    for (values, numbers) in values.chunks(BLOCK).zip(numbers.chunks_mut(BLOCK)) {
        let mut ids = [0u128; BLOCK];
        if uuid::parse_many(values, &mut ids) {
            keys.intern_uuids(&ids[..values.len()], numbers)?;
            continue;
        }
        for (&value, number) in values.iter().zip(numbers) {
            *number = keys.intern(match uuid::parse(value) {
                Some(id) => Key::Uuid(id),
                None => string_key(strings, value)?,
            })?;
        }
    }
    Ok(())
}

#[cold]
fn string_key(strings: &mut Interner, value: &[u8]) -> Result<Key, DatasetError> {
    strings.intern(utf8(value)?.as_bytes()).map(Key::Code)
}

/// A value of a column that the output has, as text.
///
/// # Errors
/// [`DatasetError::NotUtf8`].
#[inline]
pub fn utf8(value: &[u8]) -> Result<&str, DatasetError> {
    std::str::from_utf8(value).map_err(|_| {
        let shown = value.iter().take(SHOWN).copied().collect::<Vec<_>>();
        DatasetError::NotUtf8(shown.escape_ascii().to_string())
    })
}

/// The partition of each key, in the order of their numbers.
pub fn partitions_of(keys: &KeyTable, strings: &Interner, partitioner: &Partitioner) -> Vec<u32> {
    let of = |key| match key {
        Key::Uuid(id) => partitioner.of_uuid(id),
        Key::Code(code) => partitioner.of_text(strings.get(code)),
    };
    keys.iter().map(of).collect()
}

/// Running sums of the number of elements in each of `buckets`: one entry more than buckets, as in
/// [`crate::MapRun::offsets`].
pub fn bucket_offsets(buckets: u32, of: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut offsets = vec![0u32; buckets as usize + 1];
    for bucket in of {
        offsets[bucket as usize + 1] += 1;
    }
    for at in 1..offsets.len() {
        offsets[at] += offsets[at - 1];
    }
    offsets
}

/// The key column of partials, filled in any order of rows.
pub struct KeyColumn(Vec<u128>);

impl KeyColumn {
    /// A column of `rows` rows.
    pub fn new(rows: usize) -> Self {
        KeyColumn(vec![0; rows])
    }

    /// Sets the key of row `at`; whether it is stored as a dictionary code, which the partial must say elsewhere.
    #[inline]
    pub fn set(&mut self, at: usize, key: Key) -> bool {
        // In the memory order of the id's bytes, so that the array needs no copy.
        match key {
            Key::Uuid(id) => {
                self.0[at] = u128::from_ne_bytes(id.to_be_bytes());
                false
            }
            Key::Code(code) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&code.to_le_bytes());
                self.0[at] = u128::from_ne_bytes(bytes);
                true
            }
        }
    }

    /// The array: 16 bytes per row, a UUID with its first digit first, or a code in the first four bytes, little-endian.
    pub fn finish(self) -> ArrayRef {
        Arc::new(FixedSizeBinaryArray::new(16, Buffer::from_vec(self.0), None))
    }
}

/// The error for a partial that does not have the schema that it should have.
pub fn malformed(what: impl Into<String>) -> DatasetError {
    DatasetError::Malformed(what.into())
}

/// The column with that name and type, without nulls.
///
/// # Errors
/// [`DatasetError::Malformed`]: there is none.
pub fn column<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, DatasetError> {
    let found = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<T>());
    found
        .filter(|column| column.null_count() == 0)
        .ok_or_else(|| malformed(format!("no column {name} of the right type without nulls")))
}

/// The lists of a column: row `r` has the items from `offsets[r]` to `offsets[r + 1]`.
///
/// # Errors
/// [`DatasetError::Malformed`]: there is no such column, or its items have another type.
pub fn lists<'a, T: Array + 'static>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<(&'a [i32], &'a T), DatasetError> {
    let lists: &ListArray = column(batch, name)?;
    let items = lists.values().as_any().downcast_ref::<T>();
    Ok((lists.value_offsets(), items.ok_or_else(|| malformed(format!("{name} of another type")))?))
}

/// The bytes of keys.
///
/// # Errors
/// [`DatasetError::Malformed`]: a key has another length.
pub fn key_bytes(keys: &FixedSizeBinaryArray) -> Result<&[[u8; 16]], DatasetError> {
    let (bytes, rest) = keys.value_data().as_chunks::<16>();
    if bytes.len() != keys.len() || !rest.is_empty() {
        return Err(malformed("keys of other than 16 bytes"));
    }
    Ok(bytes)
}

/// The ranges of rows of a batch that begin and end at `offsets`, see [`crate::Dataset::partial_checksums`].
///
/// # Errors
/// [`DatasetError::Malformed`]: the batch does not have these rows.
pub fn row_ranges<'a>(
    batch: &RecordBatch,
    offsets: &'a [u32],
) -> Result<impl Iterator<Item = Range<usize>> + use<'a>, DatasetError> {
    let rows = offsets.last().map_or(0, |&end| end as usize);
    if rows > batch.num_rows() || !offsets.is_sorted() {
        return Err(malformed("offsets that are not those of its rows"));
    }
    Ok(offsets.windows(2).map(|ends| ends[0] as usize..ends[1] as usize))
}

/// The process-wide code for a partial's dictionary code; `codes` is the argument of [`crate::Reducer::merge`].
///
/// # Errors
/// [`DatasetError::Malformed`]: the dictionary does not have the code.
#[inline]
pub fn code_of(codes: &[u32], code: u32) -> Result<u32, DatasetError> {
    codes.get(code as usize).copied().ok_or_else(|| malformed("a code that is not in its dictionary"))
}

/// In place of a key's number: another pass takes the key, or the key is null.
pub const OTHER_PASS: u32 = u32::MAX;

/// Bits of the `state` column of partials that tell how their keys are stored.
#[derive(Debug, Clone, Copy)]
pub struct KeyBits {
    /// The key is a dictionary code.
    pub coded: u8,
    /// The key is null.
    pub null: u8,
}

/// The strings of a partial's codes.
#[derive(Clone, Copy)]
pub struct Dictionary<'a> {
    /// The process-wide code for each of its codes.
    pub codes: &'a [u32],
    /// The strings of the process-wide codes.
    pub strings: &'a dyn StringDictionary,
}

/// The numbers that `keys` gives to the keys of partials, [`OTHER_PASS`] for those of other passes and for null.
///
/// # Errors
/// [`DatasetError::Malformed`] or [`DatasetError::TooManyKeys`].
pub fn number_keys(
    keys: &mut KeyTable,
    pass: Pass,
    ids: &FixedSizeBinaryArray,
    states: &[u8],
    bits: KeyBits,
    dictionary: Dictionary<'_>,
) -> Result<Vec<u32>, DatasetError> {
    let ids = key_bytes(ids)?;
    if ids.len() != states.len() {
        return Err(malformed("another number of keys than of states"));
    }
    let mut numbers = vec![OTHER_PASS; ids.len()];
    if pass.of == 1 && states.iter().all(|state| state & (bits.coded | bits.null) == 0) {
        let ids: Vec<u128> = ids.iter().map(|&id| u128::from_be_bytes(id)).collect();
        keys.intern_uuids(&ids, &mut numbers)?;
        return Ok(numbers);
    }
    let mut coded = dictionary.coded(ids, states, bits, pass.of)?.into_iter();
    for ((&id, &state), number) in ids.iter().zip(states).zip(&mut numbers) {
        if state & bits.null != 0 {
            continue;
        }
        let (key, taken_by) = if state & bits.coded == 0 {
            let id = u128::from_be_bytes(id);
            (Key::Uuid(id), pass_of_uuid(id, pass.of))
        } else {
            coded.next().ok_or_else(|| malformed("a key without its code"))?
        };
        if taken_by == pass.index {
            *number = keys.intern(key)?;
        }
    }
    Ok(numbers)
}

impl Dictionary<'_> {
    /// The keys by code, in the order of their rows, and the pass of each. A key occurs once per run, or few times, so a
    /// cache of passes would not be faster.
    fn coded(
        &self,
        ids: &[[u8; 16]],
        states: &[u8],
        bits: KeyBits,
        passes: u32,
    ) -> Result<Vec<(Key, u32)>, DatasetError> {
        let rows =
            ids.iter().zip(states).filter(|(_, state)| **state & (bits.coded | bits.null) == bits.coded);
        let codes = rows.map(|(id, _)| code_of(self.codes, u32::from_le_bytes([id[0], id[1], id[2], id[3]])));
        let codes = codes.collect::<Result<Vec<u32>, _>>()?;
        let mut crc32s = vec![0; codes.len()];
        if passes > 1 {
            crc32s.copy_from_slice(&codes);
            self.strings.crc32s(&mut crc32s);
        }
        let key = |(code, crc32)| (Key::Code(code), pass_of_text(crc32, passes));
        Ok(codes.into_iter().zip(crc32s).map(key).collect())
    }
}
