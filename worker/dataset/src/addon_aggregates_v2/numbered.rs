//! Dense numbers of (owner, key), for owners that usually have one key: the pings of a client, the groups of a client, the
//! profile dates of a group.
//!
//! The first key of an owner is found by the owner's own number; the others are in a hash table. Not here: what owners and
//! keys are.

use std::hash::Hash;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::DatasetError;
use crate::keys::grown;
use crate::prefetch::prefetch;

/// No number.
const NONE: u32 = u32::MAX;

/// A map from (owner, key) to number, 0, 1, 2, … in the order of insertion.
pub(super) struct Numbered<K> {
    /// The number of the first key, by owner.
    first: Vec<u32>,
    /// By number.
    all: Vec<(u32, K)>,
    further: HashMap<(u32, K), u32, RandomState>,
}

impl<K> Default for Numbered<K> {
    fn default() -> Self {
        Numbered { first: vec![], all: vec![], further: HashMap::default() }
    }
}

impl<K: Copy + Eq + Hash> Numbered<K> {
    /// With room for this number of owners and keys before it grows.
    pub(super) fn with_capacity(keys: usize) -> Self {
        Numbered {
            first: Vec::with_capacity(keys),
            all: Vec::with_capacity(keys),
            further: HashMap::default(),
        }
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The owner and the key of each number.
    pub(super) fn all(&self) -> &[(u32, K)] {
        &self.all
    }

    /// Sets the number of owners. Others may have keys, too.
    pub(super) fn resize(&mut self, owners: usize) {
        self.first.resize(owners, NONE);
    }

    /// Prefetches what the first key of an owner is found by.
    #[inline]
    pub(super) fn prefetch(&self, owner: u32) {
        prefetch(&self.first, owner as usize);
    }

    /// The number of a key, which is inserted if it is new.
    ///
    /// # Errors
    /// [`DatasetError::TooManyKeys`].
    #[inline]
    pub(super) fn number(&mut self, owner: u32, key: K) -> Result<u32, DatasetError> {
        let new = self.all.len() as u32;
        if self.all.len() >= NONE as usize {
            return Err(DatasetError::TooManyKeys);
        }
        let number = match self.first.get_mut(owner as usize) {
            Some(first) if *first == NONE => {
                *first = new;
                new
            }
            Some(&mut first) if self.all[first as usize].1 == key => first,
            _ => *self.further.entry((owner, key)).or_insert(new),
        };
        if number == new {
            self.all.push((owner, key));
        }
        Ok(number)
    }

    /// Removes all entries and owners, and keeps most of the memory.
    pub(super) fn clear(&mut self) {
        self.first.clear();
        self.all.clear();
        self.further = HashMap::default();
    }

    /// Upper bound of the bytes held after `more` insertions.
    pub(super) fn footprint(&self, more: usize) -> usize {
        let entry = std::mem::size_of::<((u32, K), u32)>() + 1;
        let further = match self.further.capacity() - self.further.len() {
            room if room >= more => self.further.allocation_size(),
            // The old and the new table, which has slots for twice as many entries.
            _ => self.further.allocation_size() + (self.further.len() + more) * entry * 3,
        };
        grown(&self.first, more) + grown(&self.all, more) + further
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn numbers_are_those_of_a_map() {
        let mut numbered = Numbered::with_capacity(3);
        for _ in 0..2 {
            let mut model = HashMap::new();
            numbered.resize(100);
            for at in 0..5_000u32 {
                let owner = if at.is_multiple_of(11) { u32::MAX } else { at * at % 101 };
                let key = at.is_multiple_of(7).then_some(at % 5);
                let next = model.len() as u32;
                let expect = *model.entry((owner, key)).or_insert(next);
                numbered.prefetch(owner);
                assert_eq!(numbered.number(owner, key), Ok(expect));
                assert_eq!(numbered.all()[expect as usize], (owner, key));
            }
            assert_eq!(numbered.len(), model.len());
            assert!(numbered.footprint(1) >= numbered.len() * 12);
            numbered.clear();
            assert_eq!(numbered.len(), 0);
        }
    }
}
