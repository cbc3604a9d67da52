//! Corrupts bytes deterministically, given a seed. Not here: reading them.

/// A small generator of random numbers that is the same on every machine and in every version.
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Numbers(seed)
    }

    /// The next number, by splitmix64.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }
}

/// Values that often break checks of lengths and offsets.
const ODD: [u8; 6] = [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff];

/// Corrupts some bytes of `bytes[range]`, which must not be empty: one bit, one byte, or a run of up to 16.
pub fn bytes(numbers: &mut Numbers, bytes: &mut [u8], range: std::ops::Range<usize>) {
    let at = range.start + numbers.below(range.len());
    match numbers.below(4) {
        0 => bytes[at] ^= 1 << numbers.below(8),
        1 => bytes[at] = ODD[numbers.below(ODD.len())],
        2 => bytes[at] = numbers.number() as u8,
        _ => {
            let end = range.end.min(at + 1 + numbers.below(16));
            bytes[at..end].iter_mut().for_each(|byte| *byte = numbers.number() as u8);
        }
    }
}

/// A corrupted copy: with up to four corrupted positions, or truncated, or with a duplicated part.
pub fn copy(numbers: &mut Numbers, good: &[u8]) -> Vec<u8> {
    let mut copy = good.to_vec();
    if copy.is_empty() {
        return vec![numbers.number() as u8];
    }
    match numbers.below(8) {
        0 => copy.truncate(numbers.below(good.len())),
        1 => {
            let (from, to) = (numbers.below(good.len()), numbers.below(good.len()));
            copy.extend_from_slice(&good[from.min(to)..from.max(to)]);
        }
        _ => {
            for _ in 0..=numbers.below(4) {
                let whole = 0..copy.len();
                bytes(numbers, &mut copy, whole);
            }
        }
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_copy() {
        let good: Vec<u8> = (0..200).collect();
        let corrupted = |seed| copy(&mut Numbers::new(seed), &good);
        assert_eq!(corrupted(7), corrupted(7));
        let changed = (0..100).filter(|&seed| corrupted(seed) != good).count();
        assert!(changed > 90, "{changed} of 100 differ");
        assert_eq!(Numbers::new(0).number(), 0xe220_a839_7b1d_cdaf, "as published");
    }
}
