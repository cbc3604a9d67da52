//! A set of 128-bit keys, for what [`crate::pair_set`] has no room for.
//!
//! Open addressing with linear probing, as there. The hash has a random seed: some bits of keys come from the input.
//! Not here: what the bits of a key mean.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use crate::probing;

/// The key that cannot be inserted.
const EMPTY: u128 = u128::MAX;
const MIN_SLOTS: usize = 1 << 6;

/// A set of keys, each below `u128::MAX`.
pub struct WideSet {
    /// Empty, or a power of two of them.
    slots: Vec<u128>,
    len: usize,
    seeds: (u64, u64),
}

impl Default for WideSet {
    fn default() -> Self {
        let random = RandomState::default();
        WideSet { slots: vec![], len: 0, seeds: (random.hash_one(1), random.hash_one(2)) }
    }
}

/// At most 3/4 of the slots are used.
#[inline]
fn fits(keys: usize, slots: usize) -> bool {
    keys.saturating_mul(4) <= slots.saturating_mul(3)
}

#[inline]
fn home(key: u128, seeds: (u64, u64), slots: usize) -> usize {
    let product = u128::from(key as u64 ^ seeds.0) * u128::from((key >> 64) as u64 ^ seeds.1);
    ((product as u64) ^ (product >> 64) as u64) as usize & (slots - 1)
}

impl WideSet {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Inserts a key; whether it is new.
    pub fn insert(&mut self, key: u128) -> bool {
        debug_assert_ne!(key, EMPTY);
        if !fits(self.len + 1, self.slots.len()) {
            self.grow();
        }
        let home = home(key, self.seeds, self.slots.len());
        let new = probing::insert(&mut self.slots, EMPTY, home, key);
        if new {
            self.len += 1;
        }
        new
    }

    #[cold]
    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(MIN_SLOTS);
        let seeds = self.seeds;
        probing::resize(&mut self.slots, EMPTY, slots, |key| home(key, seeds, slots));
    }

    /// All keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = u128> + '_ {
        probing::keys(&self.slots, EMPTY)
    }

    /// Removes all keys and keeps the memory.
    pub fn clear(&mut self) {
        if self.len > 0 {
            self.slots.fill(EMPTY);
            self.len = 0;
        }
    }

    /// Upper bound of the bytes held after `more` insertions.
    pub fn footprint(&self, more: usize) -> usize {
        let (mut slots, mut bytes) = (self.slots.len(), self.slots.len() * 16);
        while !fits(self.len + more, slots) {
            let next = (slots * 2).max(MIN_SLOTS);
            bytes = (slots + next) * 16;
            slots = next;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn it_is_a_set_through_growth_and_clearing() {
        let mut set = WideSet::default();
        for round in 0..3u128 {
            let keys: Vec<u128> = (0..20_000u128).map(|i| (i * i % 7919) << 96 | (i % 13 + round)).collect();
            let mut plain = HashSet::new();
            for &key in keys.iter().chain([&0, &(u128::MAX - 1), &0]) {
                assert!(set.footprint(1) >= set.len() * 16);
                assert_eq!(set.insert(key), plain.insert(key));
            }
            assert_eq!(set.iter().collect::<HashSet<_>>(), plain);
            assert_eq!((set.len(), set.is_empty()), (plain.len(), false));
            set.clear();
            assert!(set.is_empty() && set.iter().next().is_none());
        }
    }
}
