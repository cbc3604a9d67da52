//! The numbers of attempts by term: leaders of successive epochs use different numbers. A task with more attempts than fit into
//! an epoch's numbers would use those of the next epoch.
//!
//! Not here: the numbers that people see (`tally_proto::ids`).

use tally_proto::ids::ATTEMPT_BITS;

/// Epochs that have different numbers.
const EPOCHS: u32 = 1 << (u32::BITS - ATTEMPT_BITS);

/// The number of each task's first attempt in an epoch.
pub fn first_attempt(epoch: u64) -> u32 {
    let epoch = epoch % u64::from(EPOCHS);
    (epoch as u32) << ATTEMPT_BITS
}

/// Whether an attempt's number is one of an epoch before the one whose attempts begin at `first`.
pub(super) fn is_earlier(first: u32, attempt: u32) -> bool {
    let terms = (first >> ATTEMPT_BITS).wrapping_sub(attempt >> ATTEMPT_BITS) % EPOCHS;
    (1..EPOCHS / 2).contains(&terms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successive_epochs_share_no_attempt_numbers() {
        assert_eq!([1, 2, (1 << 20) + 1].map(first_attempt), [4096, 8192, 4096]);
        assert_eq!(first_attempt((1 << 20) - 1), u32::MAX - 4095);
    }

    #[test]
    fn numbers_of_earlier_epochs_are_known_also_after_the_last_number() {
        let first = first_attempt(5);
        assert!(is_earlier(first, first - 1) && is_earlier(first, 0) && !is_earlier(first, first));
        assert!(!is_earlier(first, first + 4095) && !is_earlier(first, first_attempt(6)));
        assert!(is_earlier(first_attempt(1 << 20), u32::MAX) && !is_earlier(u32::MAX, 0));
    }
}
