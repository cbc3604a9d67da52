//! Client ids to dense numbers, so that everything else about a client is kept in plain vectors.
//!
//! Not here: what is kept of a client.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::prefetch::prefetch;

/// A client's identity: canonical UUIDs by value, all other ids by their code in an interner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKey {
    /// A canonical UUID.
    Uuid(u128),
    /// The code of any other string.
    Code(u32),
}

/// A map from client to number, 0, 1, 2, … in order of arrival.
pub struct ClientTable {
    /// 0 is free; else the number + 1, and above it as much of the hash's high half as there is room for: four bytes
    /// a slot keep the table of a shard in the second-level cache.
    slots: Vec<u32>,
    keys: Vec<u128>,
    /// Numbers of clients known by code, and where they lie among all.
    codes: HashMap<u32, u32, RandomState>,
    coded: Vec<u32>,
    seeds: (u64, u64),
}

const MIN_SLOTS: usize = 1 << 10;
/// Probes under way at once.
const BLOCK: usize = 128;

impl Default for ClientTable {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

/// Folds 128 product bits to 64, seeded so that crafted ids do not collide at will.
#[inline]
fn hash(key: u128, seeds: (u64, u64)) -> u64 {
    let product = u128::from(key as u64 ^ seeds.0) * u128::from((key >> 64) as u64 ^ seeds.1);
    (product as u64) ^ (product >> 64) as u64
}

impl ClientTable {
    /// A table with room for `clients` before it grows.
    pub fn with_capacity(clients: usize) -> Self {
        let random = RandomState::default();
        let slots = (clients * 5 / 3 + 1).next_power_of_two().max(MIN_SLOTS);
        ClientTable {
            slots: vec![0; slots],
            keys: Vec::with_capacity(clients),
            codes: HashMap::default(),
            coded: vec![],
            seeds: (random.hash_one(1), random.hash_one(2)),
        }
    }

    /// Clients held.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of a client; a new one if it was not seen before.
    #[inline]
    pub fn intern(&mut self, key: ClientKey) -> u32 {
        match key {
            ClientKey::Uuid(id) => self.intern_uuid(id),
            ClientKey::Code(code) => self.intern_code(code),
        }
    }

    /// The numbers of many canonical UUIDs, in order of `ids`.
    ///
    /// A probe waits for memory twice, for its slot and for its key. Asking for the slots of all
    /// probes, then for their keys, lets these waits overlap; what is not found so (new clients,
    /// collisions) goes the ordinary way, by then with its lines in the cache.
    pub fn intern_uuids(&mut self, ids: &[u128], numbers: &mut [u32]) {
        for (ids, numbers) in ids.chunks(BLOCK).zip(numbers.chunks_mut(BLOCK)) {
            while (self.keys.len() + ids.len()) * 5 >= self.slots.len() * 3 {
                self.grow();
            }
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
            // Which are new is not to be foretold: they are noted without a branch.
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
    }

    #[inline]
    fn intern_uuid(&mut self, id: u128) -> u32 {
        if self.keys.len() * 5 >= self.slots.len() * 3 {
            self.grow();
        }
        self.place(id, hash(id, self.seeds))
    }

    /// The number of a client by its hash, while there is a free slot.
    fn place(&mut self, id: u128, hash: u64) -> u32 {
        let mask = self.slots.len() - 1;
        let number_bits = mask as u32;
        let tag = (hash >> 32) as u32 & !number_bits;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                let number = self.keys.len() as u32;
                self.slots[at] = tag | (number + 1);
                self.keys.push(id);
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
    fn intern_code(&mut self, code: u32) -> u32 {
        let number = self.keys.len() as u32;
        let found = *self.codes.entry(code).or_insert(number);
        if found == number {
            // Its place in `keys` is never compared: no slot points there.
            self.keys.push(u128::from(code));
            self.coded.push(number);
        }
        found
    }

    #[cold]
    fn grow(&mut self) {
        let slots = self.slots.len() * 2;
        self.slots = vec![];
        self.slots = vec![0; slots];
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
    }

    /// All clients, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = ClientKey> + '_ {
        let mut coded = self.coded.iter().copied().peekable();
        (0u32..).zip(&self.keys).map(move |(number, &id)| match coded.next_if_eq(&number) {
            Some(_) => ClientKey::Code(id as u32),
            None => ClientKey::Uuid(id),
        })
    }

    /// Removes all clients, keeping the memory.
    pub fn clear(&mut self) {
        self.slots.fill(0);
        self.keys.clear();
        self.codes.clear();
        self.coded.clear();
    }

    /// Bytes held at worst after `more` insertions.
    pub fn footprint(&self, more: usize) -> usize {
        let mut slots = self.slots.len();
        while (self.keys.len() + more) * 5 >= slots * 3 {
            slots *= 2;
        }
        slots * 4 + grown(&self.keys, more) + self.codes.allocation_size() * 2 + self.coded.capacity() * 4
    }
}

/// Bytes a vector may hold at worst after `more` pushes, old and new together while it moves.
pub fn grown<T>(vec: &Vec<T>, more: usize) -> usize {
    let size = std::mem::size_of::<T>();
    if vec.len() + more > vec.capacity() {
        (vec.capacity() + (vec.capacity() * 2).max(vec.len() + more)) * size
    } else {
        vec.capacity() * size
    }
}

/// In which of `passes` a client is taken: independent of its partition and of any seed, as all
/// passes must agree.
#[inline]
pub fn pass_of(key: ClientKey, passes: u32) -> u32 {
    let (id, salt) = match key {
        ClientKey::Uuid(id) => (id, 0x2545_f491_4f6c_dd1d),
        ClientKey::Code(code) => (u128::from(code), 0x9e37_79b9_7f4a_7c15),
    };
    let mixed = hash(id, (salt, 0xd6e8_feb8_6659_fd93));
    ((u128::from(mixed) * u128::from(passes)) >> 64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_stable_through_growth() {
        let mut table = ClientTable::default();
        let key = |i: u32| {
            if i % 10 == 3 {
                ClientKey::Code(i)
            } else {
                ClientKey::Uuid(u128::from(i) << 70 | u128::from(i))
            }
        };
        for i in 0..30_000 {
            assert_eq!(table.intern(key(i)), i);
        }
        for i in (0..30_000).rev() {
            assert_eq!(table.intern(key(i)), i);
        }
        assert!(table.iter().eq((0..30_000).map(key)));
        let ids: Vec<u128> = (0..40_000u32).map(|i| u128::from(i) << 70 | u128::from(i)).collect();
        let mut numbers = vec![0; ids.len()];
        table.intern_uuids(&ids, &mut numbers);
        assert!((0..30_000u32).filter(|i| i % 10 != 3).all(|i| numbers[i as usize] == i));
        let mut again = vec![0; ids.len()];
        table.intern_uuids(&ids, &mut again);
        assert_eq!(numbers, again);
        assert_eq!(table.len(), 30_000 + 10_000 + 3_000);
        table.clear();
        assert_eq!(table.intern(key(7)), 0);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn many_get_the_numbers_that_each_would_in_the_order_they_come() {
        let ids: Vec<u128> = (0..1_000u128).map(|i| (i * i % 389) * (1 << 90 | 1)).collect();
        assert_eq!(ids[0], 0, "what an empty place holds is an id, too");
        let (mut one_by_one, mut at_once) = (ClientTable::default(), ClientTable::default());
        let each: Vec<u32> = ids.iter().map(|&id| one_by_one.intern(ClientKey::Uuid(id))).collect();
        let mut many = vec![0; ids.len()];
        at_once.intern_uuids(&ids, &mut many);
        assert_eq!(many, each);
        assert!(at_once.iter().eq(one_by_one.iter()));
    }

    #[test]
    fn passes_share_the_clients_out() {
        let mut counts = [0; 7];
        for i in 0..70_000u128 {
            counts[pass_of(ClientKey::Uuid((i << 64) | (i * 3)), 7) as usize] += 1;
        }
        assert!(counts.iter().all(|&c| (8_000..12_000).contains(&c)), "{counts:?}");
    }
}
