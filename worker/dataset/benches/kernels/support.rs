//! What all kernels use: ids, results that must be good, and the rows of a reducer. Not here: the kernels.

use tally_dataset::{Reducer, StringDictionary};

pub use crate::numbers::Numbers;

impl Numbers {
    pub fn ids(&mut self, count: usize) -> Vec<u128> {
        (0..count).map(|_| u128::from(self.next()) << 64 | u128::from(self.next())).collect()
    }
}

/// Benches fail loudly: a wrong result would be a wrong figure.
pub fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// The number of rows that a reducer returns.
pub fn count_rows(reducer: &mut dyn Reducer, strings: &dyn StringDictionary) -> usize {
    let mut rows = 0;
    let mut sink = |batch: arrow_array::RecordBatch| {
        rows += batch.num_rows();
        Ok(())
    };
    must(reducer.finish(strings, &mut sink));
    rows
}
