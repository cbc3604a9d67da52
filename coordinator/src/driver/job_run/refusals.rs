//! How often workers had no room for tasks of a job, so that the log does not repeat it for each try: the first refusal of
//! a stage is logged, then the second, the fourth, the eighth, and so on.
//!
//! Not here: when a refused task is tried again (the scheduler).

use std::collections::BTreeMap;

/// Refusals of a job by stage.
#[derive(Debug, Default)]
pub(in crate::driver) struct Refusals(BTreeMap<u32, u64>);

impl Refusals {
    /// Counts a refusal. Returns their number in the stage if this one is to be logged.
    pub(in crate::driver) fn count(&mut self, stage: u32) -> Option<u64> {
        let count = self.0.entry(stage).or_default();
        *count += 1;
        Some(*count).filter(|count| count.is_power_of_two())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_refusals_are_ten_lines() {
        let mut refusals = Refusals::default();
        let logged: Vec<u64> = (0..1000).filter_map(|_| refusals.count(0)).collect();
        assert_eq!(logged, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(refusals.count(1), Some(1));
    }
}
