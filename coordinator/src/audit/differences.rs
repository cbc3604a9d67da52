//! What two multisets of rows do not have in common, by key. Pure, except that entries may be stored in a file.
//!
//! Not here: where the entries come from (`comparison`).

use super::AuditError;
use super::buckets::{BUCKETS, Buckets, Entry};

/// Rows of a key that are shown, of each day.
const MAX_ROWS: usize = 20;

/// A key with rows that only one of the days has: tags of the first of them.
pub(super) struct Differing {
    order: u64,
    /// By day.
    pub(super) only_in: [Vec<u64>; 2],
}

/// What the days do not have in common.
#[derive(Default)]
pub(super) struct Differences {
    /// Rows that only the first day has.
    pub(super) only_in_a: u64,
    /// Rows that only the second day has.
    pub(super) only_in_b: u64,
    /// Their keys.
    pub(super) keys: u64,
    /// The first of these keys.
    pub(super) first: Vec<Differing>,
}

impl Differences {
    /// Compares the entries of two days; keeps the first `shown` keys that differ.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(super) fn of(a: &mut Buckets, b: &mut Buckets, shown: usize) -> Result<Self, AuditError> {
        let mut all = Differences::default();
        for bucket in 0..BUCKETS {
            let (a, b) = (a.take(bucket)?, b.take(bucket)?);
            let (mut a, mut b) = (a.as_slice(), b.as_slice());
            while let Some(key) = [a.first(), b.first()].into_iter().flatten().map(|entry| entry.key).min() {
                let (mine, rest) = a.split_at(a.partition_point(|entry| entry.key <= key));
                let (others, rest_b) = b.split_at(b.partition_point(|entry| entry.key <= key));
                (a, b) = (rest, rest_b);
                all.add(only_in_one(mine, others), shown);
            }
        }
        Ok(all)
    }

    fn add(&mut self, [only_in_a, only_in_b]: [Vec<u64>; 2], shown: usize) {
        let Some(&order) = only_in_a.first().or(only_in_b.first()) else { return };
        self.keys += 1;
        self.only_in_a += only_in_a.len() as u64;
        self.only_in_b += only_in_b.len() as u64;
        if self.first.len() == shown && self.first.last().is_none_or(|last| last.order <= order) {
            return;
        }
        let at = self.first.partition_point(|other| other.order <= order);
        let only_in = [only_in_a, only_in_b].map(|mut tags| {
            tags.truncate(MAX_ROWS);
            tags
        });
        self.first.insert(at, Differing { order, only_in });
        self.first.truncate(shown);
    }
}

/// The tags of the rows of one key that only one of two days has, in order. The entries are sorted.
fn only_in_one(mut a: &[Entry], mut b: &[Entry]) -> [Vec<u64>; 2] {
    let mut only: [Vec<u64>; 2] = [vec![], vec![]];
    loop {
        match (a.first(), b.first()) {
            (Some(mine), Some(other)) if mine.row == other.row => (a, b) = (&a[1..], &b[1..]),
            (Some(mine), other) if other.is_none_or(|other| mine.row < other.row) => {
                only[0].push(mine.tag);
                a = &a[1..];
            }
            (_, Some(other)) => {
                only[1].push(other.tag);
                b = &b[1..];
            }
            (_, None) => break,
        }
    }
    only.iter_mut().for_each(|tags| tags.sort_unstable());
    only
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::buckets::Tag;
    use super::*;

    /// Rows by key, of one day.
    fn buckets(rows: &[(u8, u8)], memory: u64) -> Buckets {
        let mut buckets = Buckets::new(memory, std::env::temp_dir());
        for (row, &(key, value)) in (0..).zip(rows) {
            let tag = Tag { file: 0, row, flags: 0 }.pack();
            let key = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            buckets.add(&[Entry { key, row: u64::from(value), tag }]).unwrap();
        }
        buckets
    }

    proptest! {
        #[test]
        fn the_difference_is_that_of_two_multisets(
            a in prop::collection::vec((0..9u8, 0..3u8), 0..60),
            b in prop::collection::vec((0..9u8, 0..3u8), 0..60),
            shown in 0..5usize,
        ) {
            let count = |rows: &[(u8, u8)], row: (u8, u8)| rows.iter().filter(|other| **other == row).count();
            let all = (0..9u8).flat_map(|key| (0..3u8).map(move |value| (key, value)));
            let more = |a: &[(u8, u8)], b: &[(u8, u8)], row| count(a, row).saturating_sub(count(b, row));
            let (mut only_in_a, mut only_in_b, mut keys) = (0, 0, std::collections::BTreeSet::new());
            for row in all {
                only_in_a += more(&a, &b, row);
                only_in_b += more(&b, &a, row);
                if count(&a, row) != count(&b, row) {
                    keys.insert(row.0);
                }
            }
            let found = Differences::of(&mut buckets(&a, 1), &mut buckets(&b, 1 << 20), shown).unwrap();
            prop_assert_eq!((found.only_in_a, found.only_in_b), (only_in_a as u64, only_in_b as u64));
            prop_assert_eq!(found.keys, keys.len() as u64);
            prop_assert_eq!(found.first.len(), keys.len().min(shown));
            prop_assert!(found.first.is_sorted_by_key(|key| key.order));
        }
    }
}
