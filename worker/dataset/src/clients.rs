//! Client ids to dense numbers, so that everything else about a client is kept in plain vectors.
//!
//! Not here: what is kept of a client.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::DatasetError;
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
///
/// At most 3/5 as many clients as slots, those known by code among them: so a look-up always ends at a free slot, and
/// every number + 1 fits into the slots' mask. Only [`Self::make_room`] sees to that, and only [`Self::push`] adds a client.
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
/// A slot has 32 bits for a number.
const MAX_SLOTS: usize = 1 << 32;
/// Clients in a table, at most.
pub const MAX_CLIENTS: usize = MAX_SLOTS / 5 * 3;
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

/// Slots for so many clients, where there are `slots` already.
#[inline]
fn slots_for(clients: usize, mut slots: usize) -> usize {
    while !fits(clients, slots) {
        slots *= 2;
    }
    slots
}

#[inline]
fn fits(clients: usize, slots: usize) -> bool {
    clients.saturating_mul(5) < slots * 3
}

impl ClientTable {
    /// A table with room for `clients` before it grows.
    pub fn with_capacity(clients: usize) -> Self {
        let random = RandomState::default();
        ClientTable {
            slots: vec![0; slots_for(clients.min(MAX_CLIENTS - 1), MIN_SLOTS)],
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
    ///
    /// # Errors
    /// [`DatasetError::TooManyClients`].
    #[inline]
    pub fn intern(&mut self, key: ClientKey) -> Result<u32, DatasetError> {
        self.make_room(1)?;
        Ok(match key {
            ClientKey::Uuid(id) => self.place(id, hash(id, self.seeds)),
            ClientKey::Code(code) => self.place_code(code),
        })
    }

    /// The numbers of many canonical UUIDs, in order of `ids`.
    ///
    /// A probe waits for memory twice, for its slot and for its key. Asking for the slots of all
    /// probes, then for their keys, lets these waits overlap; what is not found so (new clients,
    /// collisions) goes the ordinary way, by then with its lines in the cache.
    ///
    /// # Errors
    /// [`DatasetError::TooManyClients`].
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
        Ok(())
    }

    /// Grows until `more` clients fit.
    #[inline]
    fn make_room(&mut self, more: usize) -> Result<(), DatasetError> {
        let clients = self.keys.len() + more;
        if fits(clients, self.slots.len()) { Ok(()) } else { self.grow(clients) }
    }

    /// The number of a new client, which [`Self::make_room`] was asked for.
    #[inline]
    fn push(&mut self, key: u128) -> u32 {
        debug_assert!(fits(self.keys.len() + 1, self.slots.len()), "no room was made for a client");
        self.keys.push(key);
        (self.keys.len() - 1) as u32
    }

    /// The number of a client by its hash.
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
        // Its place in `keys` is never compared: no slot points there.
        let number = self.push(u128::from(code));
        self.codes.insert(code, number);
        self.coded.push(number);
        number
    }

    #[cold]
    fn grow(&mut self, clients: usize) -> Result<(), DatasetError> {
        if !fits(clients, MAX_SLOTS) {
            return Err(DatasetError::TooManyClients);
        }
        let slots = slots_for(clients, self.slots.len());
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
        Ok(())
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
        let slots = slots_for(self.keys.len() + more, self.slots.len());
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

/// In which of `passes` a client is taken whose id is a canonical UUID. All passes of all attempts must agree, in whatever
/// process they run: a function of the id alone, independent of its partition.
#[inline]
pub fn pass_of_uuid(id: u128, passes: u32) -> u32 {
    pass_of(id, 0x2545_f491_4f6c_dd1d, passes)
}

/// Likewise of any other client, by the CRC-32 of its id: codes differ from process to process.
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
        let mut table = ClientTable::default();
        let key = |i: u32| {
            if i % 10 == 3 {
                ClientKey::Code(i)
            } else {
                ClientKey::Uuid(u128::from(i) << 70 | u128::from(i))
            }
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
        let (mut one_by_one, mut at_once) = (ClientTable::default(), ClientTable::default());
        let each: Vec<u32> = ids.iter().map(|&id| one_by_one.intern(ClientKey::Uuid(id)).unwrap()).collect();
        let mut many = vec![0; ids.len()];
        at_once.intern_uuids(&ids, &mut many).unwrap();
        assert_eq!(many, each);
        assert!(at_once.iter().eq(one_by_one.iter()));
    }

    #[test]
    fn a_table_that_cannot_number_more_clients_says_so() {
        let mut table = ClientTable::default();
        assert_eq!(table.make_room(MAX_CLIENTS + 1), Err(DatasetError::TooManyClients));
        assert_eq!((table.slots.len(), table.intern(ClientKey::Code(7))), (MIN_SLOTS, Ok(0)));
        assert!(fits(MAX_CLIENTS, MAX_SLOTS) && !fits(MAX_CLIENTS + 1, MAX_SLOTS));
    }

    fn assert_shared_out(clients: u32, of: impl Fn(u32, u32) -> u32, what: &str) {
        for passes in [1, 2, 3, 7, 16, 100] {
            let mut counts = vec![0; passes as usize];
            (0..clients).for_each(|i| counts[of(i, passes) as usize] += 1);
            let even = clients / passes;
            assert!(counts.iter().all(|&c| c > even * 3 / 4 && c < even * 5 / 4), "{what}: {counts:?}");
        }
    }

    #[test]
    fn passes_share_the_clients_out() {
        let uuid = |i: u32| (u128::from(i) << 64) | (u128::from(i) * 3);
        assert_shared_out(100_000, |i, passes| pass_of_uuid(uuid(i), passes), "UUIDs");
        // Of one partition, as passes cut those: what the partition took of the CRC is not missing here.
        for partitions in [1, 4, 7, 64, 100, 101] {
            let crc32s = (0..).map(|i| crc32fast::hash(format!("client-{i:09}").as_bytes()));
            let mine: Vec<u32> =
                crc32s.filter(|crc32| crc32 % partitions == partitions / 2).take(40_000).collect();
            let of = |i: u32, passes| pass_of_text(mine[i as usize], passes);
            assert_shared_out(40_000, of, &format!("texts of one of {partitions} partitions"));
        }
    }

    /// What an attempt on an older or newer worker must agree on.
    #[test]
    fn the_passes_of_clients_are_fixed_for_ever() {
        let uuids = [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210];
        assert_eq!(uuids.map(|id| pass_of_uuid(id, 1000)), UUID_PASSES);
        let texts = ["", "x", "client-000123", "клиент"];
        assert_eq!(texts.map(|id| pass_of_text(crc32fast::hash(id.as_bytes()), 1000)), TEXT_PASSES);
    }

    const UUID_PASSES: [u32; 4] = [190, 274, 59, 869];
    const TEXT_PASSES: [u32; 4] = [788, 904, 524, 306];
}
