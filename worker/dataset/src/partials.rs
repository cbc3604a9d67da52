//! Building blocks for partials: the batches of rows, one or more per key, that mappers write and reducers read.
//!
//! A key is stored in 16 bytes: a canonical UUID as its value, any other string as its dictionary code; a flag beside
//! it, in a column of the dataset, tells them apart. Not here: which further columns partials have.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray, RecordBatch};
use arrow_buffer::Buffer;

use crate::interner::Interner;
use crate::keys::{Key, KeyTable};
use crate::partition::Partitioner;
use crate::{DatasetError, uuid};

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
    if std::str::from_utf8(value).is_err() {
        let shown = value.iter().take(SHOWN).copied().collect::<Vec<_>>();
        return Err(DatasetError::NotUtf8(shown.escape_ascii().to_string()));
    }
    strings.intern(value).map(Key::Code)
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

/// The process-wide code for a partial's dictionary code; `codes` is the argument of [`crate::Reducer::merge`].
///
/// # Errors
/// [`DatasetError::Malformed`]: the dictionary does not have the code.
#[inline]
pub fn code_of(codes: &[u32], code: u32) -> Result<u32, DatasetError> {
    codes.get(code as usize).copied().ok_or_else(|| malformed("a code that is not in its dictionary"))
}
