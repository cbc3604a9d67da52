//! The manifest of a published day, in the commit record that is stored with the output.

use tally_coordinator::publish::commit_log;

/// The directory of the valid inputs.
pub const DAY: &str = "agg/v1/submission_date_s3=20170227";

/// Reads a commit record like a leader, a later job or `tally gc` before it is executed: it must not name files outside
/// of the day's directory.
pub fn decision(bytes: &[u8]) {
    let Ok(manifest) = commit_log::read(bytes, DAY) else { return };
    for file in &manifest.files {
        let below = file.key.trim_start_matches('/').strip_prefix(DAY);
        assert!(below.is_some_and(|rest| rest.starts_with('/')), "{:?} is outside of the day", file.key);
        assert!(file.key.split('/').all(|part| part != ".."), "{:?} is outside of the day", file.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_inputs_are_decisions() {
        for seed in crate::seeds::decisions() {
            let manifest = commit_log::read(&seed, DAY).unwrap();
            assert_eq!(manifest.job, "20170227-1a2b");
            decision(&seed);
        }
    }
}
