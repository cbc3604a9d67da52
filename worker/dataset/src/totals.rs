//! Counters of a partition or of a job.
//!
//! Not here: what they count; their names are in [`crate::Dataset::totals`].

use std::ops::{AddAssign, Index, IndexMut};

/// Output rows, and the counters that a dataset names. They add up over partitions, as partitions share no key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Output rows.
    pub rows: u64,
    /// Values of the counters, in the order of [`crate::Dataset::totals`].
    pub counters: Vec<u64>,
}

impl Totals {
    /// All zero.
    pub fn zero(counters: usize) -> Self {
        Totals { rows: 0, counters: vec![0; counters] }
    }
}

impl Index<usize> for Totals {
    type Output = u64;

    fn index(&self, counter: usize) -> &u64 {
        &self.counters[counter]
    }
}

impl IndexMut<usize> for Totals {
    fn index_mut(&mut self, counter: usize) -> &mut u64 {
        &mut self.counters[counter]
    }
}

impl AddAssign<&Totals> for Totals {
    fn add_assign(&mut self, other: &Totals) {
        self.rows += other.rows;
        self.counters.resize(self.counters.len().max(other.counters.len()), 0);
        for (counter, more) in self.counters.iter_mut().zip(&other.counters) {
            *counter += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_one_by_one() {
        let mut all = Totals::default();
        all += &Totals { rows: 2, counters: vec![1, 5] };
        all += &Totals { rows: 3, counters: vec![10, 0] };
        assert_eq!(all, Totals { rows: 5, counters: vec![11, 5] });
        all += &Totals::zero(2);
        assert_eq!((all[0], all[1]), (11, 5));
    }
}
