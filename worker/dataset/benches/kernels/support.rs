//! What all kernels use: numbers, results that must be good, and the rows of a reducer. Not here: the kernels.

use tally_dataset::{Reducer, StringDictionary};

/// The same numbers in every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

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
