//! Runs of equal consecutive values: for example, the rows of a ping have the same client.
//!
//! Not here: how values are compared, and the value of a run.

/// The start of each run, in order. [`Runs::begin`] and [`Runs::go_on`] append values.
#[derive(Default)]
pub(crate) struct Runs {
    /// Longer than the number of runs, so that a run is added without a branch.
    begins: Vec<u32>,
    runs: usize,
    values: usize,
}

impl Runs {
    pub(crate) fn clear(&mut self) {
        (self.runs, self.values) = (0, 0);
    }

    /// Number of values.
    pub(crate) fn values(&self) -> usize {
        self.values
    }

    /// The next value differs from the one before.
    pub(crate) fn begin(&mut self) {
        self.compare([()].iter(), |()| false);
    }

    /// The next `values` values equal the one before them.
    pub(crate) fn go_on(&mut self, values: usize) {
        self.values += values;
    }

    /// Appends values. Each for which `same` is true continues the current run.
    #[inline(always)]
    pub(crate) fn compare<T>(
        &mut self,
        values: impl ExactSizeIterator<Item = T>,
        mut same: impl FnMut(T) -> bool,
    ) {
        let most = self.runs + values.len();
        if self.begins.len() < most {
            self.begins.resize(most.next_power_of_two(), 0);
        }
        let begins = &mut self.begins[self.runs..most];
        let (mut runs, first) = (0, self.values as u32);
        self.values += values.len();
        for (at, value) in (first..).zip(values) {
            begins[runs] = at;
            runs += usize::from(!same(value));
        }
        self.runs += runs;
    }

    /// Start and end of each run.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let begins = &self.begins[..self.runs];
        let ends = begins.iter().skip(1).map(|&end| end as usize).chain([self.values]);
        begins.iter().map(|&begin| begin as usize).zip(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_listed_in_order(
            rounds in prop::collection::vec(prop::collection::vec((1..90usize, 0..3u8), 0..40), 1..4),
        ) {
            let mut runs = Runs::default();
            for lengths in rounds {
                runs.clear();
                prop_assert_eq!((runs.iter().count(), runs.values()), (0, 0));
                let mut expect = vec![];
                for (length, method) in lengths {
                    expect.push((runs.values(), runs.values() + length));
                    match method {
                        0 => runs.compare(0..length, |at| at > 0),
                        1 => {
                            runs.begin();
                            runs.go_on(length - 1);
                        }
                        _ => {
                            runs.begin();
                            runs.compare(1..length, |_| true);
                        }
                    }
                }
                prop_assert_eq!(runs.iter().collect::<Vec<_>>(), expect);
            }
        }
    }
}
