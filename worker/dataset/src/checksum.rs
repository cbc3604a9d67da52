//! Checksums of rows and strings, with which each step of a job verifies that it reads what the step before wrote.
//!
//! Not cryptographic: they detect corruption, not attacks. Part files contain checksums in their footers
//! (deploy/docs/architecture/checksums.md), so the formula never changes. Not here: the columns of a row.

use arrow_array::{Array, BinaryArray};

// Digits of pi.
const START: u64 = 0x243f_6a88_85a3_08d3;
const KEY: u64 = 0x1319_8a2e_0370_7344;
const ORDER: u64 = 0xa409_3822_299f_31d1;

/// The number of rows, and two hashes of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Number of rows.
    pub rows: u64,
    /// The wrapping sum of the hashes of all rows: independent of their order.
    pub checksum: u64,
    /// A hash that depends on the order of the rows.
    pub order: u64,
}

impl Fingerprint {
    /// Adds the hash of the next row.
    #[inline]
    pub fn add(&mut self, hash: u64) {
        self.rows += 1;
        self.checksum = self.checksum.wrapping_add(hash);
        self.order = next_order(self.order, hash);
    }
}

/// [`Fingerprint::order`] after another row.
#[inline]
pub fn next_order(order: u64, hash: u64) -> u64 {
    order.wrapping_add(hash).wrapping_mul(ORDER)
}

/// The hash of nothing.
#[inline]
pub fn start() -> u64 {
    START
}

/// The hash with two more words.
#[inline]
pub fn step(hash: u64, a: u64, b: u64) -> u64 {
    let product = u128::from(hash ^ a) * u128::from(b ^ KEY);
    product as u64 ^ (product >> 64) as u64
}

/// The hash of 16 bytes.
#[inline]
pub fn id(bytes: [u8; 16]) -> u64 {
    step_wide(START, u128::from_le_bytes(bytes))
}

/// The hash of the bytes `from..to`, 16 at a time, the last ones padded with zeros. It does not contain their number:
/// the caller adds it.
#[inline]
pub fn text(bytes: &[u8], from: usize, to: usize) -> u64 {
    match <&[u8; 36]>::try_from(&bytes[from..to]) {
        // The length of a UUID: the most frequent one.
        Ok(text) => {
            let words = |at: usize| text[at..].first_chunk().map_or(0, |piece| u128::from_le_bytes(*piece));
            step_wide(step_wide(step_wide(START, words(0)), words(16)), words(20) >> 96)
        }
        Err(_) => any_text(&bytes[from..to]),
    }
}

#[inline]
fn step_wide(hash: u64, words: u128) -> u64 {
    step(hash, words as u64, (words >> 64) as u64)
}

#[inline(never)]
fn any_text(bytes: &[u8]) -> u64 {
    let (whole, rest) = bytes.as_chunks::<16>();
    let hash = whole.iter().fold(START, |hash, piece| step_wide(hash, u128::from_le_bytes(*piece)));
    if rest.is_empty() {
        return hash;
    }
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    step_wide(hash, u128::from_le_bytes(last))
}

/// The fingerprint of a dictionary: depends on its strings and their order.
pub fn dictionary(texts: &BinaryArray) -> u64 {
    let (bytes, ends) = (texts.value_data(), texts.value_offsets());
    let mut all = Fingerprint::default();
    for at in 0..texts.len() {
        let (from, to) = (ends[at] as usize, ends[at + 1] as usize);
        all.add(step(text(bytes, from, to), (to - from) as u64, 0));
    }
    all.order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_hashed_alike_wherever_they_are_stored() {
        let letters: Vec<u8> = (0..200u8).map(|i| i.wrapping_mul(37)).collect();
        let mut seen = std::collections::HashSet::new();
        for length in 0..100 {
            let alone = text(&letters[..length], 0, length);
            for before in [0, 1, 16, 40] {
                let mut around = vec![0xff; before];
                around.extend_from_slice(&letters[..length]);
                let end = around.len();
                assert_eq!(text(&around, before, end), alone, "{length}");
                around.extend([0xff; 16]);
                assert_eq!(text(&around, before, end), alone, "{length}");
            }
            assert!(seen.insert(alone), "{length}");
        }
    }

    #[test]
    fn a_dictionary_tells_its_strings_apart_and_their_order() {
        let of = |texts: &[&str]| dictionary(&BinaryArray::from_iter_values(texts));
        let base = of(&["ab", "c", "longer than sixteen bytes"]);
        let others = [
            of(&[]),
            of(&[""]),
            of(&["c", "ab", "longer than sixteen bytes"]),
            of(&["a", "bc", "longer than sixteen bytes"]),
            of(&["ab", "c", "longer than sixteen bytes", ""]),
            of(&["ab", "c", "longer than sixteen bytes\0"]),
            of(&["ab", "d", "longer than sixteen bytes"]),
        ];
        let distinct: std::collections::HashSet<_> = others.iter().chain([&base]).collect();
        assert_eq!(distinct.len(), others.len() + 1);
        let sliced = BinaryArray::from_iter_values(["x", "ab", "c", "longer than sixteen bytes", "y"]);
        assert_eq!(dictionary(&sliced.slice(1, 3)), base);
    }
}
