//! A compact form of lists of outputs: task numbers are mostly successive, and attempts mostly equal.
//!
//! Not here: when they are sent (the coordinator's `service`).

use crate::convert::BadMessage;
use crate::v1::{OutputRef, PackedOutputs, Run, TableOutputs};

/// The maximum number of outputs in a list; no job has more.
const MAX_OUTPUTS: usize = 10_000_000;

/// Packs outputs of one stage.
pub fn pack(outputs: &TableOutputs) -> PackedOutputs {
    let mut packed = PackedOutputs::default();
    for output in &outputs.outputs {
        extend(&mut packed.indices, output.index, |run| run.first.checked_add(run.count));
        extend(&mut packed.attempts, output.attempt, |run| Some(run.first));
        packed.locations.push(output.location);
    }
    packed
}

/// Extends the last run if `next` returns `value` for it, and otherwise starts another run.
pub fn extend(runs: &mut Vec<Run>, value: u32, next: impl Fn(&Run) -> Option<u32>) {
    match runs.last_mut() {
        Some(run) if next(run) == Some(value) => run.count += 1,
        _ => runs.push(Run { first: value, count: 1 }),
    }
}

/// Undoes [`pack`], for outputs of that stage.
///
/// # Errors
/// [`BadMessage::Contradiction`] if the lists have different lengths. No allocation depends on a number that only the
/// message contains.
pub fn unpack(packed: &PackedOutputs, stage: u32) -> Result<TableOutputs, BadMessage> {
    let length = |runs: &[Run]| runs.iter().map(|run| u64::from(run.count)).sum::<u64>();
    let count = packed.locations.len();
    let lengths = [length(&packed.indices), length(&packed.attempts)];
    if lengths.iter().any(|&length| length != count as u64) || count > MAX_OUTPUTS {
        return Err(BadMessage::Contradiction("packed outputs"));
    }
    let indices = packed.indices.iter().flat_map(|run| (0..run.count).map(|at| run.first.wrapping_add(at)));
    let attempts = packed.attempts.iter().flat_map(|run| std::iter::repeat_n(run.first, run.count as usize));
    let outputs = packed.locations.iter().zip(indices.zip(attempts));
    let output =
        |(&location, (index, attempt)): (&u32, (u32, u32))| OutputRef { location, stage, index, attempt };
    Ok(TableOutputs { outputs: outputs.map(output).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn outputs(of: impl IntoIterator<Item = (u32, u32, u32)>) -> TableOutputs {
        let output = |(location, index, attempt)| OutputRef { location, stage: 3, index, attempt };
        TableOutputs { outputs: of.into_iter().map(output).collect() }
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let lists = [
            outputs([]),
            outputs([(0, 0, 0)]),
            outputs((0..300).map(|n| (n % 7, n, 4096 + n / 100))),
            // Out of order, with gaps, at the end of the numbers.
            outputs([(1, 9, 1), (0, 3, 0), (5, 4, 0), (5, u32::MAX, u32::MAX), (0, 0, u32::MAX)]),
        ];
        for list in lists {
            assert_eq!(unpack(&pack(&list), 3), Ok(list));
        }
    }

    #[test]
    fn twenty_thousand_outputs_of_a_thousand_workers_are_two_bytes_each() {
        let list = outputs((0..20_000).map(|n| (n % 1000, n, 4096)));
        assert!(pack(&list).encoded_len() < 40_100, "{}", pack(&list).encoded_len());
    }

    #[test]
    fn lists_that_do_not_fit_are_refused() {
        let good = pack(&outputs((0..3).map(|n| (0, n, 0))));
        for corrupt in [
            (|p: &mut PackedOutputs| p.locations.push(0)) as fn(&mut PackedOutputs),
            |p| p.indices[0].count = u32::MAX,
            |p| p.attempts.push(Run { first: 0, count: u32::MAX }),
            |p| p.indices.clear(),
        ] {
            let mut bad = good.clone();
            corrupt(&mut bad);
            assert!(unpack(&bad, 0).is_err(), "{bad:?}");
        }
    }
}
