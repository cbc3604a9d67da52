//! A set of 64-bit keys. `addon_aggregates` packs (client, add-on, flag) into one: the hottest set of its mappers and
//! reducers.
//!
//! Open addressing with linear probing over one array of words: a probe reads one cache line, where a general
//! hash set with control bytes reads two.
//!
//! Not here: what the bits of a key mean.

use crate::prefetch::prefetch;
use crate::probing;

/// The key that cannot be inserted.
const EMPTY: u64 = u64::MAX;
const MIN_SLOTS: usize = 1 << 10;
/// Probes whose cache misses overlap.
const BLOCK: usize = 128;

/// A set of keys, each below `u64::MAX`.
pub struct PairSet {
    slots: Vec<u64>,
    len: usize,
}

impl Default for PairSet {
    fn default() -> Self {
        PairSet { slots: vec![EMPTY; MIN_SLOTS], len: 0 }
    }
}

#[inline]
fn home(key: u64, slots: usize) -> usize {
    // Fibonacci hashing: the product's high bits depend on all bits of the key.
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - slots.trailing_zeros())) as usize
}

impl PairSet {
    /// A set with room for `keys` before it grows.
    pub fn with_capacity(keys: usize) -> Self {
        let slots = (keys * 5 / 3 + 1).next_power_of_two().max(MIN_SLOTS);
        PairSet { slots: vec![EMPTY; slots], len: 0 }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Inserts a key; whether it is new.
    #[inline]
    pub fn insert(&mut self, key: u64) -> bool {
        debug_assert_ne!(key, EMPTY);
        if self.len * 5 >= self.slots.len() * 3 {
            self.grow();
        }
        let home = home(key, self.slots.len());
        let new = probing::insert(&mut self.slots, EMPTY, home, key);
        if new {
            self.len += 1;
        }
        new
    }

    /// Inserts many keys; calls `new` with the index in `keys` of each new one. The first slots of
    /// all keys are prefetched, so that their cache misses overlap.
    #[inline]
    pub fn insert_many(&mut self, keys: &[u64], mut new: impl FnMut(usize)) {
        for (block, keys) in keys.chunks(BLOCK).enumerate() {
            for &key in keys {
                prefetch(&self.slots, home(key, self.slots.len()));
            }
            for (at, &key) in keys.iter().enumerate() {
                if self.insert(key) {
                    new(block * BLOCK + at);
                }
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        let slots = self.slots.len() * 2;
        probing::resize(&mut self.slots, EMPTY, slots, |key| home(key, slots));
    }

    /// All keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        probing::keys(&self.slots, EMPTY)
    }

    /// Removes all keys and keeps the memory.
    pub fn clear(&mut self) {
        self.slots.fill(EMPTY);
        self.len = 0;
    }

    /// Upper bound of the bytes held after `more` insertions.
    pub fn footprint(&self, more: usize) -> usize {
        let mut slots = self.slots.len();
        let mut bytes = slots * 8;
        while (self.len + more) * 5 >= slots * 3 {
            bytes = slots * 8 + slots * 16;
            slots *= 2;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn it_is_a_set_through_growth_and_clearing() {
        let mut set = PairSet::default();
        for round in 0..3u64 {
            let keys: Vec<u64> =
                (0..20_000u64).map(|i| ((i * i % 7919) << 32) | ((i % 13) + round)).collect();
            let mut plain = HashSet::new();
            for &key in &keys {
                assert_eq!(set.insert(key), plain.insert(key));
            }
            assert_eq!(set.iter().collect::<HashSet<_>>(), plain);
            assert_eq!(set.len(), plain.len());
            let more: Vec<u64> = (0..30_000u64).map(|i| ((i % 9001) << 32) | (i % 7)).collect();
            let mut fresh = vec![];
            set.insert_many(&more, |at| fresh.push(more[at]));
            let expect: Vec<u64> = more.iter().copied().filter(|&key| plain.insert(key)).collect();
            assert_eq!(fresh, expect);
            set.clear();
        }
    }
}
