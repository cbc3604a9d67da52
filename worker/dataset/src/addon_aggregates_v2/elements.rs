//! The distinct elements of pings, as numbers: of many pings few elements each, and mostly the same lists again.
//!
//! The first elements of a ping are stored next to each other. A list of the same ping is compared with them in order, so
//! that an element that is known costs a comparison, not a lookup. What does not fit there is in a hash set. Equality is
//! exact everywhere.
//!
//! Not here: which bits of an element mean what.

use std::ops::Range;

use crate::keys::grown;
use crate::prefetch::prefetch;
use crate::wide_set::WideSet;

/// Maximum number of a ping's elements outside the hash set: the bound of a search among them.
const MAX_FIRST: usize = 64;
/// An element has at most this many bits; above them is the number of its ping.
const ELEMENT_BITS: u32 = 96;

/// Elements of a ping that are stored next to each other.
#[derive(Debug, Clone, Copy, Default)]
struct List {
    start: u32,
    len: u32,
}

impl List {
    #[inline]
    fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }
}

/// Sets of elements of [`ELEMENT_BITS`], one for each ping.
pub(super) struct ElementSets<T> {
    /// By ping.
    lists: Vec<List>,
    first: Vec<T>,
    /// `ping << 96 | element`.
    more: WideSet,
}

impl<T> Default for ElementSets<T> {
    fn default() -> Self {
        ElementSets { lists: vec![], first: vec![], more: WideSet::default() }
    }
}

/// One bit of 64, by the hash of an element.
#[inline]
fn bit(element: u128) -> u64 {
    let folded = element as u64 ^ ((element >> 64) as u64).rotate_left(32);
    1 << (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
}

impl<T: Copy + Eq + Into<u128>> ElementSets<T> {
    /// Number of elements of all pings.
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    /// Makes room for this number of pings.
    pub(super) fn resize(&mut self, pings: usize) {
        self.lists.resize(pings, List::default());
    }

    /// Prefetches where the elements of a ping are stored.
    #[inline]
    pub(super) fn prefetch(&self, ping: u32) {
        prefetch(&self.lists, ping as usize);
    }

    /// Prefetches the elements of a ping.
    #[inline]
    pub(super) fn prefetch_elements(&self, ping: u32) {
        let List { start, len } = self.lists[ping as usize];
        let start = start as usize;
        (0..len as usize)
            .step_by(64 / std::mem::size_of::<T>())
            .for_each(|at| prefetch(&self.first, start + at));
    }

    /// Adds a list of elements to a ping; calls `new` with each one that the ping did not have.
    #[inline]
    pub(super) fn insert(&mut self, ping: u32, elements: &[T], mut new: impl FnMut(T)) {
        let list = self.lists[ping as usize];
        if list.len == 0 {
            return self.insert_first(ping, elements, new);
        }
        // The place of the next element, if the list is the known one.
        let mut next = 0;
        for &element in elements {
            let known = &self.first[list.range()];
            if known.get(next) == Some(&element) {
                next += 1;
                continue;
            }
            match known.iter().position(|&known| known == element) {
                Some(at) => next = at + 1,
                None => {
                    next += 1;
                    if self.more.insert(key(ping, element)) {
                        new(element);
                    }
                }
            }
        }
    }

    /// Adds the first list of a ping.
    fn insert_first(&mut self, ping: u32, elements: &[T], mut new: impl FnMut(T)) {
        let start = self.first.len();
        // The bits of the elements so far: one with another bit is new without a search.
        let mut bits = 0;
        let room = MAX_FIRST.min((u32::MAX as usize).saturating_sub(start));
        for &element in elements {
            let bit = bit(element.into());
            if bits & bit != 0 && self.first[start..].contains(&element) {
                continue;
            }
            if self.first.len() - start < room {
                bits |= bit;
                self.first.push(element);
                new(element);
            } else if self.more.insert(key(ping, element)) {
                new(element);
            }
        }
        self.lists[ping as usize] = List { start: start as u32, len: (self.first.len() - start) as u32 };
    }

    /// The elements of a ping that are not among [`Self::more`].
    pub(super) fn first(&self, ping: u32) -> &[T] {
        &self.first[self.lists[ping as usize].range()]
    }

    /// The other elements, with their pings, in no order.
    pub(super) fn more(&self) -> impl Iterator<Item = (u32, u128)> + '_ {
        self.more.iter().map(|key| ((key >> ELEMENT_BITS) as u32, key & ((1 << ELEMENT_BITS) - 1)))
    }

    /// Removes all pings and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.lists.clear();
        self.first.clear();
        self.more.clear();
    }

    /// Upper bound of the bytes held after another list for each of `pings`, with `elements` in total.
    pub(super) fn footprint(&self, pings: usize, elements: usize) -> usize {
        grown(&self.lists, pings) + grown(&self.first, elements) + self.more.footprint(elements)
    }
}

#[inline]
fn key(ping: u32, element: impl Into<u128>) -> u128 {
    u128::from(ping) << ELEMENT_BITS | element.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// Everything that the sets hold.
    fn all(sets: &ElementSets<u64>, pings: u32) -> Vec<(u32, u128)> {
        let first = |ping| sets.first(ping).iter().map(move |&element| (ping, u128::from(element)));
        (0..pings).flat_map(first).chain(sets.more()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn they_are_sets(
            lists in prop::collection::vec((0..5u32, 0..90u64, prop::collection::vec(0..7u64, 0..100)), 0..40),
            wide in any::<bool>(),
        ) {
            let mut sets = ElementSets::<u64>::default();
            sets.resize(5);
            let mut model = HashSet::new();
            for (ping, from, steps) in lists {
                // Mostly ascending, with repetitions and gaps.
                let elements: Vec<u64> = steps.iter().scan(from, |at, step| {
                    *at += step / 2;
                    Some(if wide { at.wrapping_mul(1 << 57 | 1) >> (*at % 3) } else { *at })
                }).collect();
                let mut new = vec![];
                sets.prefetch(ping);
                sets.prefetch_elements(ping);
                sets.insert(ping, &elements, |element| new.push(element));
                let expect: Vec<u64> =
                    elements.into_iter().filter(|&element| model.insert((ping, u128::from(element)))).collect();
                prop_assert_eq!(new, expect);
                prop_assert_eq!(sets.len(), model.len());
                prop_assert!(sets.footprint(1, 1) >= sets.len() * 8);
            }
            let held = all(&sets, 5);
            prop_assert_eq!(held.len(), model.len());
            prop_assert!(held.iter().all(|one| model.contains(one)));
            sets.clear();
            prop_assert_eq!(sets.len(), 0);
        }
    }

    #[test]
    fn lists_that_change_by_one_element_are_followed() {
        let mut sets = ElementSets::<u64>::default();
        sets.resize(1);
        let mut count = |elements: &[u64]| {
            let mut new = 0;
            sets.insert(0, elements, |_| new += 1);
            new
        };
        assert_eq!(count(&[1, 2, 3, 4, 2]), 4);
        assert_eq!(count(&[1, 2, 3, 4]), 0);
        assert_eq!(count(&[1, 9, 3, 4]), 1);
        assert_eq!(count(&[9, 2, 8, 3, 4, 1]), 1);
        assert_eq!(count(&[]), 0);
        let long: Vec<u64> = (100..400).collect();
        assert_eq!((count(&long), count(&long)), (300, 0));
    }
}
