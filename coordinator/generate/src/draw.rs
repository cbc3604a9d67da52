//! Reproducible random numbers: a key identifies a stream, and the stream yields numbers. This is not a crate's code, so
//! that a seed gives the same day in all versions. Not here: what is drawn.

/// The odd step of the stream's counter: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A bijection in which every input bit affects all output bits.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The key of a part of `parent`.
pub(crate) fn key(parent: u64, part: u64) -> u64 {
    mix(parent ^ mix(part.wrapping_add(STEP)))
}

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Draw(u64);

impl Draw {
    /// The stream of `key`, from its start.
    pub(crate) fn new(key: u64) -> Self {
        Draw(key)
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A number in 0..bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// An index into `shares`, each with the probability of its share; rounding errors go to the last one.
    pub(crate) fn choice(&mut self, shares: &[f64]) -> usize {
        let mut left = self.unit();
        for (index, share) in shares.iter().enumerate() {
            left -= share;
            if left < 0.0 {
                return index;
            }
        }
        shares.len() - 1
    }

    /// The number of failures before the first success of trials with this probability.
    pub(crate) fn geometric(&mut self, probability: f64) -> u32 {
        ((1.0 - self.unit()).ln() / (1.0 - probability).ln()) as u32
    }

    /// A Pareto (Lomax) number of this shape, at least 0.
    pub(crate) fn pareto(&mut self, shape: f64) -> f64 {
        (1.0 - self.unit()).powf(-1.0 / shape) - 1.0
    }

    /// Puts `items` into a random order.
    pub(crate) fn permute<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// Poisson numbers with one mean, from a table of cumulative probabilities.
#[derive(Debug)]
pub(crate) struct Poisson {
    cumulated: Vec<f64>,
    /// The start of the search, by the first byte of the draw: a binary search would mispredict at every step, and
    /// shuffled days draw these numbers a hundred times.
    guide: Vec<usize>,
}

/// Entries of [`Poisson::guide`].
const GUIDES: usize = 256;

impl Poisson {
    /// The table for `mean`, which is at least 0 and not huge (the table has some mean + 40 * sqrt(mean) entries).
    pub(crate) fn new(mean: f64) -> Self {
        let most = (mean + 40.0 * mean.sqrt() + 40.0) as usize;
        let mut log_factorial = 0.0;
        let mut sum = 0.0;
        let mut cumulated = Vec::with_capacity(most);
        for k in 0..most {
            let k = k as f64;
            log_factorial += k.max(1.0).ln();
            // 0 * ln(0) is NaN, but its limit is 0.
            let log_power = if k == 0.0 { 0.0 } else { k * mean.ln() };
            sum += (log_power - mean - log_factorial).exp();
            cumulated.push(sum);
        }
        let first = |guide| cumulated.partition_point(|&sum| sum <= guide as f64 / GUIDES as f64);
        let guide = (0..GUIDES).map(first).collect();
        Poisson { cumulated, guide }
    }

    /// The next number.
    pub(crate) fn draw(&self, draw: &mut Draw) -> u32 {
        let unit = draw.unit();
        let mut number = self.guide[(unit * GUIDES as f64) as usize];
        while self.cumulated.get(number).is_some_and(|&sum| sum <= unit) {
            number += 1;
        }
        number as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of many draws must be within 2 % of `expect`.
    fn check_mean(expect: f64, mut next: impl FnMut(&mut Draw) -> f64) {
        let mut draw = Draw::new(key(1, 2));
        let mean = (0..200_000).map(|_| next(&mut draw)).sum::<f64>() / 200_000.0;
        assert!((mean - expect).abs() <= expect * 0.02, "mean {mean}, expected {expect}");
    }

    #[test]
    fn distributions_have_their_means() {
        check_mean(0.5, |d| d.unit());
        check_mean(0.22, |d| f64::from(u8::from(d.chance(0.22))));
        check_mean(49.5, |d| d.below(100) as f64);
        check_mean(0.65 / 0.35, |d| f64::from(d.geometric(0.35)));
        check_mean(0.5, |d| d.pareto(3.0));
        check_mean(0.08 + 2.0 * 0.02 + 3.0 * 0.05, |d| d.choice(&[0.85, 0.08, 0.02, 0.05]) as f64);
        for mean in [0.1, 2.5, 900.0] {
            let table = Poisson::new(mean);
            check_mean(mean, |d| f64::from(table.draw(d)));
        }
        let zero = Poisson::new(0.0);
        check_mean(0.0, |d| f64::from(zero.draw(d)));
    }

    #[test]
    fn permuting_keeps_the_items_and_moves_them() {
        let mut items: Vec<u32> = (0..1000).collect();
        Draw::new(3).permute(&mut items);
        let fixed = items.iter().enumerate().filter(|&(i, &v)| i as u32 == v).count();
        assert!(fixed < 20, "{fixed} items stayed");
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
    }
}
