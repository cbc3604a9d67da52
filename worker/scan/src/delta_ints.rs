//! Integers in the encoding DELTA_BINARY_PACKED: each value is the previous one, plus the minimum difference of its
//! block, plus a packed remainder. The arithmetic wraps, so 32-bit values are the lower halves of 64-bit ones, for any
//! bit widths and minimum differences.
//!
//! No allocation depends on the contents of a stream. Like `hybrid`, a decoder stores offsets and does not borrow. Not
//! here: strings whose lengths are encoded like this (`delta`).

use std::ops::Range;

use tally_dataset::bits::load_bits;

use crate::error::Fault;
use crate::fixed_ints::Int;

/// Values up to this many bits are read with one load.
const LOADED: usize = 56;

/// A decoder of a range of a page's data.
#[derive(Debug, Clone)]
pub(crate) struct DeltaInts {
    /// The bytes that are neither read nor part of the current miniblock.
    rest: Range<usize>,
    /// Values that are not read yet.
    left: u64,
    /// Whether the first of them is `last` itself.
    first: bool,
    last: i64,
    /// The minimum difference of the current block, and the widths of its remaining miniblocks.
    least: i64,
    widths: Range<usize>,
    /// Miniblocks per block, and values per miniblock.
    miniblocks: usize,
    size: usize,
    /// In the current miniblock: the bit offset of the next value, the bits per value, and the number of remaining
    /// values.
    bit: usize,
    width: usize,
    packed: usize,
}

fn end<T>() -> Result<T, Fault> {
    Fault::corrupt("its values end too soon")
}

fn varint(data: &[u8], rest: &mut Range<usize>) -> Result<u64, Fault> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let Some(&byte) = data.get(rest.clone()).and_then(<[u8]>::first) else { return end() };
        rest.start += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Fault::corrupt("an integer has more than 64 bits")
}

fn zigzag(data: &[u8], rest: &mut Range<usize>) -> Result<i64, Fault> {
    let value = varint(data, rest)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

impl DeltaInts {
    /// A decoder of the stream at the start of `data[rest]`. An empty range has no values: some writers store a page of
    /// nulls like this.
    pub(crate) fn new(data: &[u8], mut rest: Range<usize>) -> Result<Self, Fault> {
        let [mut block, mut miniblocks, mut left] = [8, 1, 0];
        let mut last = 0;
        if !rest.is_empty() {
            for number in [&mut block, &mut miniblocks, &mut left] {
                *number = varint(data, &mut rest)?;
            }
            last = zigzag(data, &mut rest)?;
        }
        let size = block.checked_div(miniblocks).unwrap_or(0);
        // A miniblock must end at a byte boundary.
        if size == 0 || size % 8 != 0 || size > u64::from(u32::MAX) || block % miniblocks != 0 {
            return Fault::corrupt(format!(
                "deltas have invalid blocks of {block} values and {miniblocks} miniblocks"
            ));
        }
        Ok(DeltaInts {
            rest,
            left,
            first: left > 0,
            last,
            least: 0,
            widths: 0..0,
            miniblocks: usize::try_from(miniblocks).unwrap_or(usize::MAX),
            size: size as usize,
            bit: 0,
            width: 0,
            packed: 0,
        })
    }

    /// Values that are not read yet.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    fn next_block(&mut self, data: &[u8]) -> Result<(), Fault> {
        self.least = zigzag(data, &mut self.rest)?;
        if self.miniblocks > self.rest.len() {
            return end();
        }
        self.widths = self.rest.start..self.rest.start + self.miniblocks;
        self.rest.start = self.widths.end;
        Ok(())
    }

    /// Goes to the next miniblock. A miniblock without values takes no bytes, whatever its width is.
    fn next_miniblock(&mut self, data: &[u8]) -> Result<(), Fault> {
        if self.widths.is_empty() {
            self.next_block(data)?;
        }
        self.width = usize::from(data.get(self.widths.start).copied().unwrap_or(0));
        self.widths.start += 1;
        if self.width > 64 {
            return Fault::corrupt(format!("differences have {} bits", self.width));
        }
        self.packed = u64::min(self.size as u64, self.left) as usize;
        // Writers may omit the padding of the last miniblock.
        let bytes = (self.size / 8 * self.width).min(self.rest.len());
        if self.packed * self.width > bytes * 8 {
            return end();
        }
        self.bit = self.rest.start * 8;
        self.rest.start += bytes;
        Ok(())
    }

    /// Appends the next `count` values.
    pub(crate) fn read<T: Int>(&mut self, data: &[u8], count: usize, out: &mut Vec<T>) -> Result<(), Fault> {
        if count as u64 > self.left {
            return end();
        }
        let (start, all) = (out.len(), out.len() + count);
        out.resize(all, T::default());
        let mut out = &mut out[start..];
        if self.first && !out.is_empty() {
            self.first = false;
            self.left -= 1;
            out[0] = T::wrap(self.last);
            out = &mut out[1..];
        }
        while !out.is_empty() {
            if self.packed == 0 {
                self.next_miniblock(data)?;
            }
            let (some, others) = out.split_at_mut(self.packed.min(out.len()));
            out = others;
            self.unpack(data, some);
            self.packed -= some.len();
            self.left -= some.len() as u64;
        }
        Ok(())
    }

    /// Unpacks the next values of the current miniblock.
    fn unpack<T: Int>(&mut self, data: &[u8], out: &mut [T]) {
        match self.width {
            0..=7 => self.unpack_groups::<8, T>(data, out),
            8..=14 => self.unpack_groups::<4, T>(data, out),
            15..=28 => self.unpack_groups::<2, T>(data, out),
            29..=LOADED => self.unpack_groups::<1, T>(data, out),
            width => {
                for slot in out {
                    let high = load_bits(data, self.bit + LOADED) & ((1 << (width - LOADED)) - 1);
                    let low = load_bits(data, self.bit) & ((1 << LOADED) - 1);
                    self.last =
                        self.last.wrapping_add(self.least).wrapping_add((high << LOADED | low) as i64);
                    self.bit += width;
                    *slot = T::wrap(self.last);
                }
            }
        }
    }

    /// The same, with `GROUP` values per load.
    fn unpack_groups<const GROUP: usize, T: Int>(&mut self, data: &[u8], out: &mut [T]) {
        let (least, mut last, mut bit, width) = (self.least, self.last, self.bit, self.width);
        let mask = (1 << width) - 1;
        let mut next = |word: u64| {
            last = last.wrapping_add(least).wrapping_add((word & mask) as i64);
            T::wrap(last)
        };
        let (groups, rest) = out.as_chunks_mut::<GROUP>();
        for group in groups {
            let word = load_bits(data, bit);
            for (at, slot) in group.iter_mut().enumerate() {
                *slot = next(word >> (at * width));
            }
            bit += GROUP * width;
        }
        for slot in rest {
            *slot = next(load_bits(data, bit));
            bit += width;
        }
        (self.last, self.bit) = (last, bit);
    }

    /// The end of the stream. Call it before any value is read.
    pub(crate) fn end(mut self, data: &[u8]) -> Result<usize, Fault> {
        self.left = self.left.saturating_sub(1);
        while self.left > 0 {
            self.next_miniblock(data)?;
            self.left -= self.packed as u64;
        }
        Ok(self.rest.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoded::{DeltaShape, delta_stream, put};
    use crate::written;
    use parquet::basic::Encoding;
    use parquet::data_type::{Int32Type, Int64Type};
    use proptest::prelude::*;

    fn shapes() -> impl Strategy<Value = DeltaShape> {
        (1..9usize, 1..6usize, 0..40u32, any::<bool>(), any::<u8>(), any::<bool>()).prop_map(
            |(size, miniblocks, wider, wide, garbage, padded)| DeltaShape {
                size: size * 8,
                miniblocks,
                wider,
                wide,
                garbage,
                padded,
            },
        )
    }

    fn values() -> impl Strategy<Value = Vec<i64>> {
        let near = prop::collection::vec(-3..9i64, 0..200);
        let wild = prop::collection::vec(any::<i64>(), 0..100);
        let ends = prop::collection::vec(
            prop::sample::select(vec![
                0,
                1,
                i64::MIN,
                i64::MAX,
                i64::from(i32::MIN),
                i64::from(i32::MAX),
                -1,
                1 << 33,
            ]),
            0..100,
        );
        // Small deltas also where values wrap.
        let edge = prop::sample::select(vec![i64::MIN, i64::MAX, i64::from(i32::MIN), i64::from(i32::MAX)]);
        let first = prop_oneof![any::<i64>(), edge];
        let same = (first, -2..3i64, 0..300i64).prop_map(|(first, by, count)| {
            (0..count).map(|k| first.wrapping_add(by * (k - count / 2))).collect()
        });
        prop_oneof![near, wild, ends, same]
    }

    /// Reads all values in steps. The stream follows three other bytes, and five bytes follow it.
    fn read<T: Int>(stream: &[u8], count: usize, steps: &[usize]) -> Result<Vec<T>, Fault> {
        let data = [&[0xee; 3][..], stream, &[0xaa; 5]].concat();
        let mut ints = DeltaInts::new(&data, 3..data.len() - 5)?;
        let mut out = vec![];
        for step in steps.iter().cycle() {
            let step = (*step).min(count - out.len());
            if step == 0 {
                break;
            }
            ints.read(&data, step, &mut out)?;
        }
        Ok(out)
    }

    proptest! {
        #[test]
        fn streams_of_every_shape_are_read(
            values in values(),
            shape in shapes(),
            steps in prop::collection::vec(1..90usize, 1..9),
        ) {
            let stream = delta_stream(&values, 64, &shape);
            prop_assert_eq!(read::<i64>(&stream, values.len(), &steps).unwrap(), values.clone());
            let end = DeltaInts::new(&stream, 0..stream.len()).unwrap().end(&stream).unwrap();
            prop_assert_eq!(end, stream.len());
            let narrow: Vec<i32> = values.iter().map(|&value| value as i32).collect();
            prop_assert_eq!(&read::<i32>(&stream, values.len(), &steps).unwrap(), &narrow, "the lower halves");
            let values: Vec<i64> = narrow.iter().map(|&value| i64::from(value)).collect();
            let stream = delta_stream(&values, 32, &shape);
            prop_assert_eq!(read::<i32>(&stream, values.len(), &steps).unwrap(), narrow);
            // One value too many, and a truncated stream.
            prop_assert!(read::<i32>(&stream, values.len() + 1, &[7]).is_err());
            if values.len() > 1 {
                let cut = &stream[..stream.len() / 2];
                prop_assert!(read::<i32>(cut, values.len(), &steps).is_err() || shape.padded);
            }
        }

        #[test]
        fn streams_written_by_the_parquet_crate_are_read(values in values(), steps in prop::collection::vec(1..90usize, 1..9)) {
            let wide = written::page::<Int64Type>(&values, Encoding::DELTA_BINARY_PACKED);
            prop_assert_eq!(read::<i64>(&wide, values.len(), &steps).unwrap(), values.clone());
            let narrow: Vec<i32> = values.iter().map(|&value| value as i32).collect();
            let stream = written::page::<Int32Type>(&narrow, Encoding::DELTA_BINARY_PACKED);
            prop_assert_eq!(read::<i32>(&stream, values.len(), &steps).unwrap(), narrow);
        }

        #[test]
        fn any_bytes_give_a_result(
            stream in prop::collection::vec(prop_oneof![0..9u8, any::<u8>(), Just(0x80)], 0..80),
        ) {
            if let Ok(ints) = DeltaInts::new(&stream, 0..stream.len()) {
                let _ = ints.clone().end(&stream);
                let mut out = vec![0i32; 0];
                let _ = ints.clone().read(&stream, ints.left().min(10_000) as usize, &mut out);
            }
        }
    }

    #[test]
    fn streams_that_state_too_many_values_are_rejected_before_any_allocation() {
        let stream = |head: [u64; 3]| {
            let mut stream = vec![];
            head.into_iter().for_each(|number| put(number, &mut stream));
            stream.extend([0; 8]);
            stream
        };
        for head in [[128, 0, 5], [0, 4, 5], [128, 3, 5], [12, 1, 5], [u64::MAX, 1, 5], [1 << 40, 1, 5]] {
            let stream = stream(head);
            assert!(DeltaInts::new(&stream, 0..stream.len()).is_err(), "{head:?}");
        }
        for head in [[128, 4, u64::MAX], [1 << 36, 1 << 8, 1 << 50], [u64::MAX << 3, u64::MAX >> 3, 1 << 50]]
        {
            let stream = stream(head);
            let Ok(ints) = DeltaInts::new(&stream, 0..stream.len()) else { continue };
            assert!(ints.clone().end(&stream).is_err(), "{head:?}");
            assert!(ints.clone().read::<i32>(&stream, 5000, &mut vec![]).is_err(), "{head:?}");
        }
        assert!(DeltaInts::new(&[0x80, 1, 4], 0..3).is_err(), "it ends before its first value");
        assert_eq!(DeltaInts::new(&[], 0..0).unwrap().left(), 0);
        // An invalid width.
        let stream = [0x80, 1, 4, 2, 0, 0, 65, 0, 0, 0];
        assert!(read::<i64>(&stream, 2, &[1]).is_err());
    }
}
