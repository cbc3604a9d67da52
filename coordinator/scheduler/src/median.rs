//! The running median of a growing set of values, at a logarithmic cost per value.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Values split at their median: the lower half, with the median, and the upper half.
#[derive(Debug, Default)]
pub(crate) struct Median {
    lower: BinaryHeap<u64>,
    upper: BinaryHeap<Reverse<u64>>,
}

impl Median {
    /// Adds a value.
    pub(crate) fn add(&mut self, value: u64) {
        // Each value passes through the lower half, so that only larger values get to the upper half.
        self.lower.push(value);
        if let Some(largest) = self.lower.pop() {
            self.upper.push(Reverse(largest));
        }
        if self.upper.len() > self.lower.len()
            && let Some(Reverse(least)) = self.upper.pop()
        {
            self.lower.push(least);
        }
    }

    /// The median, the lower of the two middle values where their number is even.
    pub(crate) fn get(&self) -> Option<u64> {
        self.lower.peek().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Median;

    proptest! {
        #[test]
        fn it_equals_the_median_of_the_sorted_values(values in prop::collection::vec(0u64..50, 0..40)) {
            let mut median = Median::default();
            values.iter().for_each(|value| median.add(*value));
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let expect = (!sorted.is_empty()).then(|| sorted[(sorted.len() - 1) / 2]);
            prop_assert_eq!(median.get(), expect);
        }
    }
}
