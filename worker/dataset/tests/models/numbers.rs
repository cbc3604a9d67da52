//! Numbers and ids drawn from a seed.

/// A stream of numbers (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A size up to `2^bits`, small ones as likely as large ones.
    pub fn size(&mut self, bits: usize) -> usize {
        let bits = self.below(bits + 1);
        self.below((1 << bits) + 1)
    }
}

/// The UUID number `at`: the nil and the max UUID, ids that differ in few bits, and random ones.
pub fn uuid(at: usize) -> u128 {
    let small = at as u128;
    match (at, at % 4) {
        (1, _) => u128::MAX,
        (_, 0) => small,
        (_, 1) => small << 64,
        (_, 2) => small << 96 | small,
        _ => u128::from(Numbers(at as u64).next()) << 64 | small,
    }
}
