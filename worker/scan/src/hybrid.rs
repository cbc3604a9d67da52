//! The format's hybrid of run-length encoding and bit packing, used for levels, dictionary indices and boolean values.
//!
//! A decoder stores offsets and does not borrow, so that it can be stored beside the buffer that it reads.

use tally_dataset::Bits;
use tally_dataset::bits::load_bits;

use crate::error::Fault;

#[derive(Debug, Clone, Copy)]
enum Run {
    Repeated {
        value: u32,
        left: usize,
    },
    /// `bit` is the position of the next value in bits, counted from the start of the data.
    Packed {
        bit: usize,
        left: usize,
    },
}

/// A decoder of a range of a page's data.
#[derive(Debug, Clone)]
pub(crate) struct Hybrid {
    at: usize,
    end: usize,
    width: usize,
    run: Run,
}

/// Bits of a value up to `max`.
pub(crate) fn width_of(max: i16) -> usize {
    16 - (max as u16).leading_zeros() as usize
}

impl Hybrid {
    /// A decoder of values of `width` bits (at most 32) in `data[range]`. Values of zero bits are zeros, as many as are
    /// requested, even if the stream has no runs.
    pub(crate) fn new(range: std::ops::Range<usize>, width: usize) -> Result<Self, Fault> {
        if width > 32 {
            return Fault::corrupt(format!("values have {width} bits"));
        }
        let left = if width == 0 { usize::MAX } else { 0 };
        Ok(Hybrid { at: range.start, end: range.end, width, run: Run::Repeated { value: 0, left } })
    }

    fn left(&self) -> usize {
        match self.run {
            Run::Repeated { left, .. } | Run::Packed { left, .. } => left,
        }
    }

    /// The next run, limited to `most` values.
    fn take(&mut self, data: &[u8], most: usize) -> Result<Run, Fault> {
        while self.left() == 0 {
            self.next_run(data)?;
        }
        let taken = self.left().min(most);
        Ok(match &mut self.run {
            Run::Repeated { value, left } => {
                *left -= taken;
                Run::Repeated { value: *value, left: taken }
            }
            Run::Packed { bit, left } => {
                let from = *bit;
                *left -= taken;
                *bit += taken * self.width;
                Run::Packed { bit: from, left: taken }
            }
        })
    }

    fn next_run(&mut self, data: &[u8]) -> Result<(), Fault> {
        let data = data.get(..self.end).unwrap_or_default();
        let mut head = 0u64;
        for shift in (0..).step_by(7) {
            let Some(&byte) = data.get(self.at) else {
                return Fault::corrupt("its levels or indices end too soon");
            };
            self.at += 1;
            if shift > 28 {
                return Fault::corrupt("the length of a run has more than 32 bits");
            }
            head |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if head & 1 == 0 {
            let bytes = self.width.div_ceil(8);
            let Some(value) = data.get(self.at..self.at + bytes) else {
                return Fault::corrupt("a run has no value");
            };
            let value = value.iter().rev().fold(0u32, |v, &b| v << 8 | u32::from(b));
            self.at += bytes;
            self.run = Run::Repeated { value, left: (head >> 1) as usize };
        } else {
            // Writers may omit the padding of the last group.
            let bytes = (head >> 1) as usize * self.width;
            let there = bytes.min(data.len() - self.at);
            self.run = Run::Packed { bit: self.at * 8, left: there * 8 / self.width };
            self.at += there;
        }
        Ok(())
    }

    /// Appends the next `count` values.
    pub(crate) fn read(&mut self, data: &[u8], mut count: usize, out: &mut Vec<u32>) -> Result<(), Fault> {
        while count > 0 {
            match self.take(data, count)? {
                Run::Repeated { value, left } => {
                    out.resize(out.len() + left, value);
                    count -= left;
                }
                Run::Packed { bit, left } => {
                    unpack(data, bit, self.width, left, out);
                    count -= left;
                }
            }
        }
        Ok(())
    }

    /// Appends the result of `test` for each of the next `count` values.
    pub(crate) fn read_test(
        &mut self,
        data: &[u8],
        mut count: usize,
        test: impl Fn(u32) -> bool + Copy,
        out: &mut Bits,
    ) -> Result<(), Fault> {
        while count > 0 {
            match self.take(data, count)? {
                Run::Repeated { value, left } => {
                    out.push_run(test(value), left);
                    count -= left;
                }
                Run::Packed { bit, left } => {
                    test_packed(data, bit, self.width, left, test, out);
                    count -= left;
                }
            }
        }
        Ok(())
    }
}

fn test_packed(
    data: &[u8],
    bit: usize,
    width: usize,
    count: usize,
    test: impl Fn(u32) -> bool + Copy,
    out: &mut Bits,
) {
    match (width, test(0), test(1)) {
        (1, zero, one) if zero == one => return out.push_run(zero, count),
        (1, inverted, _) => return out.push_packed(data, bit, count, inverted),
        _ => {}
    }
    // As many values as one load contains.
    let mask = (1u64 << width) - 1;
    let most = (56 / width).min(32);
    let mut at = 0;
    while at < count {
        let take = most.min(count - at);
        let word = load_bits(data, bit + at * width);
        let bits =
            (0..take).fold(0, |bits, k| bits | u64::from(test((word >> (k * width) & mask) as u32)) << k);
        out.push_word(bits, take);
        at += take;
    }
}

/// Appends `count` packed values of `width` bits, starting at bit `bit` of `data`.
fn unpack(data: &[u8], bit: usize, width: usize, count: usize, out: &mut Vec<u32>) {
    let mask = (1u64 << width) - 1;
    let start = out.len();
    out.resize(start + count, 0);
    let (groups, rest) = out[start..].as_chunks_mut::<8>();
    let mut at = bit;
    // Values are packed from byte boundaries in groups of eight, so a group starts at a whole byte: one load contains
    // several values.
    if width <= 7 && at.is_multiple_of(8) && !groups.is_empty() {
        for group in groups {
            let word = load_bits(data, at);
            for (value, slot) in group.iter_mut().enumerate() {
                *slot = (word >> (value * width) & mask) as u32;
            }
            at += 8 * width;
        }
    } else if width <= 14 {
        for group in groups {
            for (quad, slots) in group.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let word = load_bits(data, at + quad * 4 * width);
                for (value, slot) in slots.iter_mut().enumerate() {
                    *slot = (word >> (value * width) & mask) as u32;
                }
            }
            at += 8 * width;
        }
    } else {
        for group in groups {
            for (value, slot) in group.iter_mut().enumerate() {
                *slot = (load_bits(data, at + value * width) & mask) as u32;
            }
            at += 8 * width;
        }
    }
    for slot in rest {
        *slot = (load_bits(data, at) & mask) as u32;
        at += width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoded::hybrid_run;
    use crate::written;
    use parquet::data_type::Int64Type;
    use proptest::prelude::*;

    /// Streams of real writers, and streams that the format's text permits.
    #[test]
    fn runs_may_be_empty_too_long_or_end_within_a_group() {
        let eight = [1, 0, 1, 1, 0, 1, 0, 0];
        let table: [(&str, usize, &[u8], &[u32]); 8] = [
            ("more groups than there are bytes", 1, &[0x15, 0b0010_1101], &eight),
            ("a group that ends in mid-byte", 3, &[0x03, 0b1000_1000, 0b1100_0110], &[0, 1, 2, 3, 4]),
            ("a run of more values than there are", 1, &[0xfe, 0xff, 0xff, 0xff, 0x0f, 1], &[1; 7]),
            ("runs of no values", 1, &[0x00, 0x01, 0x01, 0x00, 0x00, 0x06, 0x01], &[1; 3]),
            ("a length in more bytes than it needs", 1, &[0x86, 0x80, 0x00, 0x01], &[1; 3]),
            ("two bytes of a value", 9, &[0x04, 0x01, 0x01], &[257; 2]),
            ("four bytes of a value", 32, &[0x04, 0xff, 0xff, 0xff, 0xff], &[u32::MAX; 2]),
            (
                "a run, then groups",
                2,
                &[0x02, 0x03, 0x03, 0b1110_0100, 0b0001_1011],
                &[3, 0, 1, 2, 3, 3, 2, 1, 0],
            ),
        ];
        for (what, width, stream, expect) in table {
            let data = [stream, &[0xff; 9]].concat();
            let mut hybrid = Hybrid::new(0..stream.len(), width).unwrap();
            let mut out = vec![];
            hybrid.read(&data, expect.len(), &mut out).unwrap_or_else(|fault| panic!("{what}: {fault:?}"));
            assert_eq!(out, expect, "{what}");
        }
        for (what, width, stream) in [
            ("nothing", 1, &[][..]),
            ("no value", 1, &[0x06]),
            ("half a value", 9, &[0x06, 1]),
            ("groups of no bytes", 1, &[0x07]),
        ] {
            let result = Hybrid::new(0..stream.len(), width).unwrap().read(stream, 1, &mut vec![]);
            assert!(result.is_err(), "{what}");
        }
    }

    proptest! {
        #[test]
        fn encoded_values_are_read_in_any_steps(
            width in 1usize..=32,
            runs in prop::collection::vec((any::<u32>(), 1usize..40, any::<bool>()), 0..40),
            steps in prop::collection::vec(1usize..70, 1..20),
        ) {
            let mask = ((1u64 << width) - 1) as u32;
            let (mut values, mut data) = (vec![], vec![0xee; 3]);
            for (nth, &(v, n, same)) in runs.iter().enumerate() {
                // Only the last group may have fewer than eight values.
                let n = if same || nth + 1 == runs.len() { n } else { n.next_multiple_of(8) };
                let run: Vec<u32> =
                    (0..n as u32).map(|i| if same { v } else { v.wrapping_mul(i | 1) } & mask).collect();
                hybrid_run(&run, width, !same, &mut data);
                values.extend(run);
            }
            let mut all = Hybrid::new(3..data.len(), width).unwrap();
            let mut equal = all.clone();
            let (mut out, mut bits) = (vec![], Bits::default());
            let wanted = values.first().copied().unwrap_or(0);
            for step in steps.iter().cycle() {
                let step = (*step).min(values.len() - out.len());
                if step == 0 { break; }
                all.read(&data, step, &mut out).unwrap();
                equal.read_test(&data, step, |value| value == wanted, &mut bits).unwrap();
            }
            prop_assert_eq!(&out, &values);
            for (i, &v) in values.iter().enumerate() { prop_assert_eq!(bits.get(i), v == wanted); }
        }

        #[test]
        fn indices_written_by_the_parquet_crate_are_read(
            runs in prop::collection::vec((0..900i64, 1usize..40), 1..60),
        ) {
            let values: Vec<i64> = runs.iter().flat_map(|&(v, n)| vec![v; n]).collect();
            let data = written::indices::<Int64Type>(&values);
            let mut hybrid = Hybrid::new(1..data.len(), usize::from(data[0])).unwrap();
            let mut out = vec![];
            hybrid.read(&data, values.len(), &mut out).unwrap();
            // A writer numbers the values in their order.
            let mut seen = vec![];
            for (&value, &index) in values.iter().zip(&out) {
                if index as usize == seen.len() { seen.push(value); }
                prop_assert_eq!(seen.get(index as usize), Some(&value));
            }
        }

        /// With runs of any lengths, without runs, and with invalid bytes.
        #[test]
        fn values_of_no_bits_are_zeros(stream in prop::collection::vec(any::<u8>(), 0..5), steps in prop::collection::vec(1..9000usize, 1..5)) {
            let mut hybrid = Hybrid::new(0..stream.len(), 0).unwrap();
            let mut equal = hybrid.clone();
            for step in steps {
                let (mut out, mut bits) = (vec![], Bits::default());
                hybrid.read(&stream, step, &mut out).unwrap();
                prop_assert_eq!(out, vec![0; step]);
                equal.read_test(&stream, step, |value| value == 0, &mut bits).unwrap();
                prop_assert_eq!(bits.count(), step);
            }
        }

        #[test]
        fn any_bytes_give_a_result(data in prop::collection::vec(any::<u8>(), 0..60), width in 0usize..=32) {
            let mut out = vec![];
            // 10,000 values of any bytes give values or an error, and never hang.
            let _ = Hybrid::new(0..data.len(), width).unwrap().read(&data, 10_000, &mut out);
        }
    }
}
