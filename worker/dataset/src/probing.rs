//! Linear probing over one array of slots, which are keys or empty: what [`crate::pair_set`] and [`crate::wide_set`] share.
//!
//! A search begins at the home of its key. The number of slots is a power of two, and one of them is empty. Not here: the
//! home of a key, and how many slots there are.

/// Inserts a key; whether it is new.
#[inline]
pub(crate) fn insert<K: Copy + PartialEq>(slots: &mut [K], empty: K, home: usize, key: K) -> bool {
    let mask = slots.len() - 1;
    let mut at = home;
    loop {
        let slot = slots[at];
        if slot == key {
            return false;
        }
        if slot == empty {
            slots[at] = key;
            return true;
        }
        at = (at + 1) & mask;
    }
}

/// Replaces the slots by this number of them, with the same keys.
pub(crate) fn resize<K: Copy + PartialEq>(
    slots: &mut Vec<K>,
    empty: K,
    count: usize,
    home: impl Fn(K) -> usize,
) {
    let old = std::mem::replace(slots, vec![empty; count]);
    for key in keys(&old, empty) {
        let mut at = home(key);
        while slots[at] != empty {
            at = (at + 1) & (count - 1);
        }
        slots[at] = key;
    }
}

/// All keys, in no order.
pub(crate) fn keys<K: Copy + PartialEq>(slots: &[K], empty: K) -> impl Iterator<Item = K> + '_ {
    slots.iter().copied().filter(move |&key| key != empty)
}
