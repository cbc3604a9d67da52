//! Keys (such as client ids) to dense numbers, so that mappers and reducers keep the state of a key in plain vectors.
//!
//! Not here: the state of a key.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::DatasetError;
use crate::prefetch::prefetch;

/// A key: canonical UUIDs by value, all other strings by their dictionary code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A canonical UUID.
    Uuid(u128),
    /// The dictionary code of any other string.
    Code(u32),
}

/// A map from key to number, 0, 1, 2, … in the order of insertion.
///
/// At most 3/5 of the slots are used, keys by code included: every lookup ends at a free slot, and every
/// number + 1 fits into the slots' mask. [`Self::make_room`] ensures this before [`Self::push`] adds a key.
pub struct KeyTable {
    /// 0 is free; else the number + 1 in the low bits and bits of the hash above it. With four bytes per slot, the table
    /// of a shard fits into the second-level cache.
    slots: Vec<u32>,
    keys: Vec<u128>,
    /// Numbers of the keys by code.
    codes: HashMap<u32, u32, RandomState>,
    /// The same numbers, ascending.
    coded: Vec<u32>,
    seeds: (u64, u64),
}

const MIN_SLOTS: usize = 1 << 10;
/// Slots in a page of memory.
const PAGE_SLOTS: usize = 1 << 10;
/// A slot has at most 32 bits for a number.
const MAX_SLOTS: usize = 1 << 32;
/// Maximum number of keys in a table.
pub const MAX_KEYS: usize = MAX_SLOTS / 5 * 3;
/// Probes whose cache misses overlap.
const BLOCK: usize = 128;

impl Default for KeyTable {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

/// Folds 128 product bits to 64. The seeds prevent crafted ids from colliding.
#[inline]
fn hash(key: u128, seeds: (u64, u64)) -> u64 {
    let product = u128::from(key as u64 ^ seeds.0) * u128::from((key >> 64) as u64 ^ seeds.1);
    (product as u64) ^ (product >> 64) as u64
}

/// The number of slots for this number of keys, at least `slots`.
#[inline]
fn slots_for(keys: usize, mut slots: usize) -> usize {
    while !fits(keys, slots) {
        slots *= 2;
    }
    slots
}

/// Free slots, in pages that are written once. Most pages are read before a key is inserted into them. A read maps a page
/// of zeros, so that the insertion would fault again, and would interrupt all threads of the process to replace the page.
fn free_slots(slots: usize) -> Vec<u32> {
    let mut free = vec![0; slots];
    for page in free.chunks_mut(PAGE_SLOTS) {
        page[0] = std::hint::black_box(0);
    }
    free
}

#[inline]
fn fits(keys: usize, slots: usize) -> bool {
    keys.saturating_mul(5) < slots * 3
}

impl KeyTable {
    /// A table with room for `keys` before it grows.
    pub fn with_capacity(keys: usize) -> Self {
        let random = RandomState::default();
        KeyTable {
            slots: free_slots(slots_for(keys.min(MAX_KEYS - 1), MIN_SLOTS)),
            keys: Vec::with_capacity(keys),
            codes: HashMap::default(),
            coded: vec![],
            seeds: (random.hash_one(1), random.hash_one(2)),
        }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of a key, which is inserted if it is new.
    ///
    /// # Errors
    /// [`DatasetError::TooManyKeys`].
    #[inline]
    pub fn intern(&mut self, key: Key) -> Result<u32, DatasetError> {
        self.make_room(1)?;
        Ok(match key {
            Key::Uuid(id) => self.place(id, hash(id, self.seeds)),
            Key::Code(code) => self.place_code(code),
        })
    }

    /// The numbers of many canonical UUIDs, in order of `ids`.
    ///
    /// A probe has two cache misses, for its slot and for its key. Prefetching the slots of all
    /// probes, then their keys, lets these misses overlap. Keys that are not found this way (new ones,
    /// collisions) are looked up one by one, with their cache lines already loaded.
    ///
    /// # Errors
    /// [`DatasetError::TooManyKeys`].
    pub fn intern_uuids(&mut self, ids: &[u128], numbers: &mut [u32]) -> Result<(), DatasetError> {
        for (ids, numbers) in ids.chunks(BLOCK).zip(numbers.chunks_mut(BLOCK)) {
            self.make_room(ids.len())?;
            let mut first = [(0u64, 0u32); BLOCK];
            let mask = self.slots.len() - 1;
            let number_bits = mask as u32;
            for (&id, (hashed, _)) in ids.iter().zip(&mut first) {
                *hashed = hash(id, self.seeds);
                prefetch(&self.slots, *hashed as usize & mask);
            }
            for (hashed, slot) in &mut first[..ids.len()] {
                *slot = self.slots[*hashed as usize & mask];
                prefetch(&self.keys, (*slot & number_bits).wrapping_sub(1) as usize);
            }
            let mut held = [0u128; BLOCK];
            for (held, (_, slot)) in held.iter_mut().zip(&first) {
                *held = self.keys.get((*slot & number_bits).wrapping_sub(1) as usize).copied().unwrap_or(0);
            }
            // New keys are unpredictable: they are collected without a branch.
            let mut missing = [0u8; BLOCK];
            let mut count = 0;
            for (at, (((&id, &(_, slot)), held), number)) in
                ids.iter().zip(&first).zip(held).zip(&mut *numbers).enumerate()
            {
                *number = (slot & number_bits).wrapping_sub(1);
                missing[count] = at as u8;
                count += usize::from((slot == 0) | (held != id));
            }
            for &at in &missing[..count] {
                let at = usize::from(at);
                numbers[at] = self.place(ids[at], first[at].0);
            }
        }
        Ok(())
    }

    /// Grows until `more` keys fit.
    #[inline]
    fn make_room(&mut self, more: usize) -> Result<(), DatasetError> {
        let keys = self.keys.len() + more;
        if fits(keys, self.slots.len()) { Ok(()) } else { self.grow(keys) }
    }

    /// Appends a new key, for which [`Self::make_room`] made room; its number.
    #[inline]
    fn push(&mut self, key: u128) -> u32 {
        debug_assert!(fits(self.keys.len() + 1, self.slots.len()), "no room was made for a key");
        self.keys.push(key);
        (self.keys.len() - 1) as u32
    }

    /// The number of a UUID with this hash, which is inserted if it is new.
    fn place(&mut self, id: u128, hash: u64) -> u32 {
        let mask = self.slots.len() - 1;
        let number_bits = mask as u32;
        let tag = (hash >> 32) as u32 & !number_bits;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                let number = self.push(id);
                self.slots[at] = tag | (number + 1);
                return number;
            }
            if slot & !number_bits == tag {
                let number = (slot & number_bits) - 1;
                if self.keys[number as usize] == id {
                    return number;
                }
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn place_code(&mut self, code: u32) -> u32 {
        if let Some(&known) = self.codes.get(&code) {
            return known;
        }
        // No slot points to this entry of `keys`, so it is never compared.
        let number = self.push(u128::from(code));
        self.codes.insert(code, number);
        self.coded.push(number);
        number
    }

    #[cold]
    fn grow(&mut self, keys: usize) -> Result<(), DatasetError> {
        if !fits(keys, MAX_SLOTS) {
            return Err(DatasetError::TooManyKeys);
        }
        let slots = slots_for(keys, self.slots.len());
        self.slots = vec![];
        self.slots = free_slots(slots);
        let number_bits = (slots - 1) as u32;
        let mut coded = self.coded.iter().copied().peekable();
        for (number, &id) in (0u32..).zip(&self.keys) {
            if coded.next_if_eq(&number).is_some() {
                continue;
            }
            let hash = hash(id, self.seeds);
            let mut at = hash as usize & (slots - 1);
            while self.slots[at] != 0 {
                at = (at + 1) & (slots - 1);
            }
            self.slots[at] = (hash >> 32) as u32 & !number_bits | (number + 1);
        }
        Ok(())
    }

    /// All keys, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = Key> + '_ {
        let mut coded = self.coded.iter().copied().peekable();
        (0u32..).zip(&self.keys).map(move |(number, &id)| match coded.next_if_eq(&number) {
            Some(_) => Key::Code(id as u32),
            None => Key::Uuid(id),
        })
    }

    /// Removes all keys and keeps the memory.
    pub fn clear(&mut self) {
        self.slots.fill(0);
        self.keys.clear();
        self.codes.clear();
        self.coded.clear();
    }

    /// Upper bound of the bytes held after `more` insertions.
    pub fn footprint(&self, more: usize) -> usize {
        let slots = slots_for(self.keys.len() + more, self.slots.len());
        slots * 4 + grown(&self.keys, more) + self.codes.allocation_size() * 2 + self.coded.capacity() * 4
    }
}

/// Upper bound of a vector's bytes after `more` pushes, the old and the new memory together while it moves.
pub fn grown<T>(vec: &Vec<T>, more: usize) -> usize {
    let size = std::mem::size_of::<T>();
    if vec.len() + more > vec.capacity() {
        (vec.capacity() + (vec.capacity() * 2).max(vec.len() + more)) * size
    } else {
        vec.capacity() * size
    }
}

/// The pass of a key that is a canonical UUID. All attempts in all processes must agree on it, so it depends only on the
/// id; it is independent of the id's partition.
#[inline]
pub fn pass_of_uuid(id: u128, passes: u32) -> u32 {
    pass_of(id, 0x2545_f491_4f6c_dd1d, passes)
}

/// The pass of any other key, from the CRC-32 of the string: dictionary codes differ between processes.
#[inline]
pub fn pass_of_text(crc32: u32, passes: u32) -> u32 {
    pass_of(u128::from(crc32), 0x9e37_79b9_7f4a_7c15, passes)
}

#[inline]
fn pass_of(id: u128, salt: u64, passes: u32) -> u32 {
    let mixed = hash(id, (salt, 0xd6e8_feb8_6659_fd93));
    ((u128::from(mixed) * u128::from(passes)) >> 64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_stable_through_growth() {
        let mut table = KeyTable::default();
        let key = |i: u32| {
            if i % 10 == 3 { Key::Code(i) } else { Key::Uuid(u128::from(i) << 70 | u128::from(i)) }
        };
        for i in 0..30_000 {
            assert_eq!(table.intern(key(i)), Ok(i));
        }
        for i in (0..30_000).rev() {
            assert_eq!(table.intern(key(i)), Ok(i));
        }
        assert!(table.iter().eq((0..30_000).map(key)));
        let ids: Vec<u128> = (0..40_000u32).map(|i| u128::from(i) << 70 | u128::from(i)).collect();
        let mut numbers = vec![0; ids.len()];
        table.intern_uuids(&ids, &mut numbers).unwrap();
        assert!((0..30_000u32).filter(|i| i % 10 != 3).all(|i| numbers[i as usize] == i));
        let mut again = vec![0; ids.len()];
        table.intern_uuids(&ids, &mut again).unwrap();
        assert_eq!(numbers, again);
        assert_eq!(table.len(), 30_000 + 10_000 + 3_000);
        table.clear();
        assert_eq!(table.intern(key(7)), Ok(0));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn many_get_the_numbers_that_each_would_in_the_order_they_come() {
        let ids: Vec<u128> = (0..1_000u128).map(|i| (i * i % 389) * (1 << 90 | 1)).collect();
        assert_eq!(ids[0], 0, "what an empty place holds is an id, too");
        let (mut one_by_one, mut at_once) = (KeyTable::default(), KeyTable::default());
        let each: Vec<u32> = ids.iter().map(|&id| one_by_one.intern(Key::Uuid(id)).unwrap()).collect();
        let mut many = vec![0; ids.len()];
        at_once.intern_uuids(&ids, &mut many).unwrap();
        assert_eq!(many, each);
        assert!(at_once.iter().eq(one_by_one.iter()));
    }

    #[test]
    fn a_table_that_cannot_number_more_keys_says_so() {
        let mut table = KeyTable::default();
        assert_eq!(table.make_room(MAX_KEYS + 1), Err(DatasetError::TooManyKeys));
        assert_eq!((table.slots.len(), table.intern(Key::Code(7))), (MIN_SLOTS, Ok(0)));
        assert!(fits(MAX_KEYS, MAX_SLOTS) && !fits(MAX_KEYS + 1, MAX_SLOTS));
    }

    fn assert_even(keys: u32, of: impl Fn(u32, u32) -> u32, what: &str) {
        for passes in [1, 2, 3, 7, 16, 100] {
            let mut counts = vec![0; passes as usize];
            (0..keys).for_each(|i| counts[of(i, passes) as usize] += 1);
            let even = keys / passes;
            assert!(counts.iter().all(|&c| c > even * 3 / 4 && c < even * 5 / 4), "{what}: {counts:?}");
        }
    }

    #[test]
    fn passes_divide_the_keys_evenly() {
        let uuid = |i: u32| (u128::from(i) << 64) | (u128::from(i) * 3);
        assert_even(100_000, |i, passes| pass_of_uuid(uuid(i), passes), "UUIDs");
        // Keys of one partition: the bits of the CRC that decide the partition do not bias the pass.
        for partitions in [1, 4, 7, 64, 100, 101] {
            let crc32s = (0..).map(|i| crc32fast::hash(format!("client-{i:09}").as_bytes()));
            let mine: Vec<u32> =
                crc32s.filter(|crc32| crc32 % partitions == partitions / 2).take(40_000).collect();
            let of = |i: u32, passes| pass_of_text(mine[i as usize], passes);
            assert_even(40_000, of, &format!("texts of one of {partitions} partitions"));
        }
    }

    /// Attempts on workers of other versions must agree on these.
    #[test]
    fn the_passes_of_keys_never_change() {
        let uuids = [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210];
        assert_eq!(uuids.map(|id| pass_of_uuid(id, 1000)), UUID_PASSES);
        let texts = ["", "x", "client-000123", "клиент"];
        assert_eq!(texts.map(|id| pass_of_text(crc32fast::hash(id.as_bytes()), 1000)), TEXT_PASSES);
    }

    const UUID_PASSES: [u32; 4] = [190, 274, 59, 869];
    const TEXT_PASSES: [u32; 4] = [788, 904, 524, 306];
}
