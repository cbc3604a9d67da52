//! A bitmap over the rows of a batch: least significant bit first, as in Parquet and Arrow, so that
//! runs are filled and packed bits are copied word by word.
//!
//! Not here: what the bits mean.

/// A growable bitmap; bits beyond [`Bits::len`] in the last word are zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

const fn low_mask(bits: usize) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

impl Bits {
    /// Number of bits.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes all bits and keeps the memory.
    pub fn clear(&mut self) {
        self.words.clear();
        self.len = 0;
    }

    /// The packed words.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The packed words, to change in place; bits beyond the length must stay zero.
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Whether bit `at` is set; out of range is false.
    #[inline]
    pub fn get(&self, at: usize) -> bool {
        self.words.get(at / 64).is_some_and(|w| (w >> (at % 64)) & 1 == 1)
    }

    /// Sets bit `at`, which must be in range.
    #[inline]
    pub fn set(&mut self, at: usize) {
        self.words[at / 64] |= 1 << (at % 64);
    }

    /// Sets the bits `from..to`, which must be in range.
    pub fn set_range(&mut self, from: usize, to: usize) {
        let mut at = from;
        while at < to {
            let take = (64 - at % 64).min(to - at);
            self.words[at / 64] |= low_mask(take) << (at % 64);
            at += take;
        }
    }

    /// Whether any of the bits `from..to`, which must be in range, is set.
    #[inline]
    pub fn any(&self, from: usize, to: usize) -> bool {
        if to <= from + 64 {
            return from < to && self.word_at(from, to - from) != 0;
        }
        (from..to).step_by(64).any(|at| self.word_at(at, (to - at).min(64)) != 0)
    }

    /// Appends the low `count` (at most 64) bits of `bits`.
    #[inline]
    pub fn push_word(&mut self, bits: u64, count: usize) {
        let bits = bits & low_mask(count);
        let shift = self.len % 64;
        if count == 0 {
            return;
        }
        if shift == 0 {
            self.words.push(bits);
        } else {
            if let Some(last) = self.words.last_mut() {
                *last |= bits << shift;
            }
            if shift + count > 64 {
                self.words.push(bits >> (64 - shift));
            }
        }
        self.len += count;
    }

    /// Appends `count` copies of `bit`.
    pub fn push_run(&mut self, bit: bool, mut count: usize) {
        let word = if bit { u64::MAX } else { 0 };
        let head = (64 - self.len % 64) % 64;
        let first = head.min(count);
        self.push_word(word, first);
        count -= first;
        self.words.resize(self.words.len() + count / 64, word);
        self.len += count / 64 * 64;
        self.push_word(word, count % 64);
    }

    /// Appends `count` bits of `packed`, starting at bit `from`, inverted if `inverted`;
    /// `packed` must hold them.
    pub fn push_packed(&mut self, packed: &[u8], from: usize, count: usize, inverted: bool) {
        let turn = if inverted { u64::MAX } else { 0 };
        let mut at = from;
        let end = from + count;
        while at < end {
            let take = (end - at).min(56);
            self.push_word(load_bits(packed, at) ^ turn, take);
            at += take;
        }
    }

    /// The bits from `at`, `count` (at most 64) of them, which must be in range.
    #[inline]
    pub fn word_at(&self, at: usize, count: usize) -> u64 {
        let (word, shift) = (at / 64, at % 64);
        let mut bits = self.words[word] >> shift;
        if shift + count > 64 {
            bits |= self.words[word + 1] << (64 - shift);
        }
        bits & low_mask(count)
    }

    /// Appends a bit for each bit of `mask` in `from..to`: the next of `packed` where the mask is
    /// set, else zero. `packed` must have as many bits as the mask has ones.
    pub fn push_spread(&mut self, packed: &Bits, mask: &Bits, from: usize, to: usize) {
        let (mut at, mut taken) = (from, 0);
        while at < to {
            let count = (to - at).min(64);
            let mut slots = mask.word_at(at, count);
            let ones = slots.count_ones() as usize;
            let mut bits = if ones > 0 { packed.word_at(taken, ones) } else { 0 };
            if ones < count {
                let mut spread = 0;
                while slots != 0 {
                    spread |= if bits & 1 == 1 { slots & slots.wrapping_neg() } else { 0 };
                    bits >>= 1;
                    slots &= slots - 1;
                }
                bits = spread;
            }
            self.push_word(bits, count);
            at += count;
            taken += ones;
        }
    }

    /// Appends those of the low `count` (at most 64) bits of `bits` that are set in `kept`.
    #[inline]
    pub fn push_kept(&mut self, mut bits: u64, kept: u64, count: usize) {
        // Usually nearly all bits are kept: the others are removed one by one, from the top.
        let mut dropped = !kept & low_mask(count);
        while dropped != 0 {
            let top = 63 - dropped.leading_zeros();
            let below = low_mask(top as usize);
            bits = (bits & below) | (bits >> 1 & !below);
            dropped &= below;
        }
        self.push_word(bits, (kept & low_mask(count)).count_ones() as usize);
    }

    /// Appends the bits `from + i` of `other` for each bit `i` that is set in `mask`; `other` must have all
    /// of them.
    pub fn push_where(&mut self, other: &Bits, from: usize, mask: &Bits) {
        for (at, &kept) in (0..mask.len).step_by(64).zip(&mask.words) {
            let count = (mask.len - at).min(64);
            self.push_kept(other.word_at(from + at, count), kept, count);
        }
    }

    /// Number of set bits.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Number of set bits in `from..to`.
    pub fn count_range(&self, from: usize, to: usize) -> usize {
        let mut at = from;
        let mut total = 0;
        while at < to {
            let take = (64 - at % 64).min(to - at);
            let word = (self.words[at / 64] >> (at % 64)) & low_mask(take);
            total += word.count_ones() as usize;
            at += take;
        }
        total
    }

    /// The positions of set bits in `from..to`, ascending.
    pub fn ones(&self, from: usize, to: usize) -> Ones<'_> {
        let to = to.min(self.len);
        let word = self.words.get(from / 64).map_or(0, |w| w & !low_mask(from % 64));
        Ones { words: &self.words, at: from / 64, word, to }
    }
}

/// At least 56 bits of `packed` from bit `at`, zeros beyond its end.
#[inline]
pub fn load_bits(packed: &[u8], at: usize) -> u64 {
    let byte = at / 8;
    let word = match packed.get(byte..byte + 8) {
        Some(eight) => u64::from_le_bytes(eight.try_into().unwrap_or_default()),
        None => {
            let mut padded = [0; 8];
            let rest = packed.get(byte..).unwrap_or_default();
            padded[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(padded)
        }
    };
    word >> (at % 8)
}

/// Iterator over set bits.
pub struct Ones<'a> {
    words: &'a [u64],
    at: usize,
    word: u64,
    to: usize,
}

impl Iterator for Ones<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.word == 0 {
            self.at += 1;
            if self.at * 64 >= self.to {
                return None;
            }
            self.word = self.words[self.at];
        }
        let bit = self.at * 64 + self.word.trailing_zeros() as usize;
        self.word &= self.word - 1;
        (bit < self.to).then_some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_way_to_push_gives_the_bits_pushed(
            parts in prop::collection::vec((0..3u8, any::<bool>(), prop::collection::vec(any::<u8>(), 1..40), 0..9usize), 0..12)
        ) {
            let mut bits = Bits::default();
            let mut plain: Vec<bool> = vec![];
            for (way, bit, bytes, skip) in parts {
                match way {
                    0 => { bits.push_run(bit, bytes.len() * 7); plain.extend(vec![bit; bytes.len() * 7]); }
                    1 => {
                        let count = bytes.len() * 8 - skip.min(7);
                        bits.push_packed(&bytes, skip.min(7), count, bit);
                        plain.extend((0..count).map(|i| { let b = i + skip.min(7); (bytes[b / 8] >> (b % 8) & 1 == 1) != bit }));
                    }
                    _ => { bits.push_word(u64::from(bytes[0]), 3); plain.extend((0..3).map(|i| bytes[0] >> i & 1 == 1)); }
                }
            }
            prop_assert_eq!(bits.len(), plain.len());
            for (i, &b) in plain.iter().enumerate() { prop_assert_eq!(bits.get(i), b, "bit {}", i); }
            let (from, to) = (plain.len() / 3, plain.len() - plain.len() / 5);
            let ones: Vec<usize> = (from..to).filter(|&i| plain[i]).collect();
            prop_assert_eq!(bits.count_range(from, to), ones.len());
            prop_assert_eq!(&bits.ones(from, to).collect::<Vec<_>>(), &ones);
            let mut packed = Bits::default();
            ones.iter().for_each(|i| packed.push_word(u64::from(i % 3 == 0), 1));
            let mut spread = Bits::default();
            spread.push_run(true, from % 70);
            spread.push_spread(&packed, &bits, from, to);
            for (at, i) in (from..to).enumerate() { prop_assert_eq!(spread.get(from % 70 + at), plain[i] && i % 3 == 0); }
            let mut mask = Bits::default();
            (from..to).for_each(|i| mask.push_word(u64::from(i % 5 > 1 || i % 130 < 60), 1));
            let mut kept = Bits::default();
            kept.push_where(&bits, from, &mask);
            let expect: Vec<bool> = (from..to).filter(|i| mask.get(i - from)).map(|i| plain[i]).collect();
            prop_assert_eq!((0..kept.len()).map(|i| kept.get(i)).collect::<Vec<_>>(), expect);
            prop_assert_eq!(bits.any(from, to), !ones.is_empty());
            let mut more = bits.clone();
            more.set_range(from, to);
            for (i, &b) in plain.iter().enumerate() { prop_assert_eq!(more.get(i), b || (from..to).contains(&i)); }
            prop_assert_eq!(bits.count(), plain.iter().filter(|b| **b).count());
        }
    }
}
