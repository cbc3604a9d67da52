//! A string dictionary: strings to small codes. For example add-on ids, and client ids that are no canonical UUIDs.
//!
//! Two codes are equal exactly if the bytes are equal. Not here: the owners of dictionaries. A map task has its own, and a
//! process has one per job for all its reducers (`tally-shuffle`).

use arrow_array::BinaryArray;
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use crate::DatasetError;

/// Maximum number of codes, so that a code and a flag fit into 32 bits.
pub const MAX_CODES: usize = (1 << 30) - 1;

/// A set of strings in the order of insertion; the position is the code.
#[derive(Default)]
pub struct Interner {
    table: HashTable<u32>,
    bytes: Vec<u8>,
    ends: Vec<u32>,
    hasher: RandomState,
}

impl Interner {
    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no strings.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string of `code`, which must be a code of this interner.
    pub fn get(&self, code: u32) -> &[u8] {
        text(&self.bytes, &self.ends, code)
    }

    /// The CRC-32 of the string of `code`, which must be a code of this interner.
    pub fn crc32(&self, code: u32) -> u32 {
        crc32fast::hash(self.get(code))
    }

    /// The code of `value`, which is inserted if it is new.
    ///
    /// # Errors
    /// [`DatasetError::TooManyStrings`] past [`MAX_CODES`] strings or 4 GiB of them.
    pub fn intern(&mut self, value: &[u8]) -> Result<u32, DatasetError> {
        let Interner { table, bytes, ends, hasher } = self;
        let hash = hasher.hash_one(value);
        if let Some(&code) = table.find(hash, |&code| text(bytes, ends, code) == value) {
            return Ok(code);
        }
        let end = u32::try_from(bytes.len() + value.len()).map_err(|_| DatasetError::TooManyStrings)?;
        if ends.len() >= MAX_CODES {
            return Err(DatasetError::TooManyStrings);
        }
        let code = ends.len() as u32;
        bytes.extend_from_slice(value);
        ends.push(end);
        table.insert_unique(hash, code, |&code| hasher.hash_one(text(bytes, ends, code)));
        Ok(code)
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        self.table.allocation_size() + self.bytes.capacity() + self.ends.capacity() * 4
    }

    /// Removes all strings and returns them in the order of their codes.
    ///
    /// # Errors
    /// [`DatasetError::TooLarge`] past 2 GiB of strings.
    pub fn take(&mut self) -> Result<BinaryArray, DatasetError> {
        if i32::try_from(self.bytes.len()).is_err() {
            return Err(DatasetError::TooLarge(self.ends.len()));
        }
        let offsets: Vec<i32> = std::iter::once(0).chain(self.ends.iter().map(|&e| e as i32)).collect();
        let values = Buffer::from_vec(std::mem::take(&mut self.bytes));
        self.ends.clear();
        self.table.clear();
        Ok(BinaryArray::new(OffsetBuffer::new(ScalarBuffer::from(offsets)), values, None))
    }
}

fn text<'a>(bytes: &'a [u8], ends: &[u32], code: u32) -> &'a [u8] {
    let at = code as usize;
    let start = if at == 0 { 0 } else { ends[at - 1] as usize };
    &bytes[start..ends[at] as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Array;

    #[test]
    fn equal_bytes_have_equal_codes_and_come_back_in_order() {
        let mut interner = Interner::default();
        let words: Vec<Vec<u8>> = (0..1000u32).map(|i| vec![b'x'; (i % 37) as usize]).collect();
        for word in &words {
            let code = interner.intern(word).unwrap();
            assert_eq!(interner.get(code), word);
        }
        assert_eq!(interner.len(), 37);
        let array = interner.take().unwrap();
        assert_eq!(array.len(), 37);
        assert_eq!(array.value(5), b"xxxxx");
        assert!(interner.is_empty());
        assert_eq!(interner.intern(b"new").unwrap(), 0);
    }
}
