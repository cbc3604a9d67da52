//! Places values at the positions of their rows or elements, with a filler where there is none: 64 positions at a time, as
//! most words of a validity bitmap are full or empty.
//!
//! Not here: booleans, which are placed bit by bit (`Bits::push_spread`).

use tally_dataset::Bits;

/// Appends an item for each bit of `valid` from `from` on: the next of `values` if it is set, else `filler`.
pub(crate) fn spread<T: Copy + Into<U>, U: Copy>(
    values: &[T],
    valid: &Bits,
    from: usize,
    filler: U,
    out: &mut Vec<U>,
) {
    let to = valid.len();
    if values.len() == to - from {
        out.extend(values.iter().map(|&value| value.into()));
        return;
    }
    let start = out.len();
    out.resize(start + to - from, filler);
    let mut rest = values;
    for (slots, at) in out[start..].chunks_mut(64).zip((from..to).step_by(64)) {
        let mut bits = valid.word_at(at, slots.len());
        let (mine, others) = rest.split_at((bits.count_ones() as usize).min(rest.len()));
        rest = others;
        if mine.len() == slots.len() {
            slots.iter_mut().zip(mine).for_each(|(slot, &value)| *slot = value.into());
            continue;
        }
        for &value in mine {
            slots[bits.trailing_zeros() as usize] = value.into();
            bits &= bits - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_are_placed_at_their_positions(
            before in 0..70usize,
            nulls in prop::collection::vec((any::<bool>(), 1..150usize), 0..9),
            single in prop::collection::vec(prop::bool::weighted(0.9), 0..200),
        ) {
            let runs = nulls.into_iter().flat_map(|(there, count)| std::iter::repeat_n(there, count));
            let items: Vec<Option<i32>> = (1..).zip(runs.chain(single)).map(|(at, there)| there.then_some(at)).collect();
            let mut valid = Bits::default();
            valid.push_run(false, before);
            items.iter().for_each(|item| valid.push_word(u64::from(item.is_some()), 1));
            let values: Vec<i32> = items.iter().copied().flatten().collect();
            let mut out: Vec<i64> = vec![7];
            spread(&values, &valid, before, -1, &mut out);
            let expect: Vec<i64> = items.iter().map(|item| item.map_or(-1, i64::from)).collect();
            prop_assert_eq!(&out[1..], &expect);
        }
    }
}
