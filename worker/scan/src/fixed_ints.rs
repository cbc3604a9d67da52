//! Integers that each take their type's number of bytes: the encodings PLAIN and BYTE_STREAM_SPLIT.
//!
//! Like `hybrid`, a decoder stores offsets and does not borrow. Not here: packed integers (`delta_ints`, `hybrid`).

use std::ops::Range;

use crate::error::Fault;

/// An integer type of the format: INT32 or INT64.
pub(crate) trait Int: Copy + Default {
    /// The lower bits of `wide`.
    fn wrap(wide: i64) -> Self;

    /// The value in the first bytes, least significant byte first; 0 if there are too few bytes.
    fn from_plain(bytes: &[u8]) -> Self;
}

impl Int for i32 {
    fn wrap(wide: i64) -> Self {
        wide as i32
    }

    fn from_plain(bytes: &[u8]) -> Self {
        bytes.first_chunk().map_or(0, |value| i32::from_le_bytes(*value))
    }
}

impl Int for i64 {
    fn wrap(wide: i64) -> Self {
        wide
    }

    fn from_plain(bytes: &[u8]) -> Self {
        bytes.first_chunk().map_or(0, |value| i64::from_le_bytes(*value))
    }
}

/// A decoder of a range of a page's data.
#[derive(Debug, Clone)]
pub(crate) enum FixedInts {
    /// The bytes of the values that are not read yet.
    Plain(Range<usize>),
    /// A stream for each byte of a value, one after the other.
    Split {
        /// The next value's first byte.
        at: usize,
        /// The end of the first stream.
        end: usize,
        /// Bytes of each stream, one for each value.
        stride: usize,
    },
}

impl FixedInts {
    pub(crate) fn plain(body: Range<usize>) -> Self {
        FixedInts::Plain(body)
    }

    pub(crate) fn split<T: Int>(body: Range<usize>) -> Self {
        let stride = body.len() / size_of::<T>();
        FixedInts::Split { at: body.start, end: body.start + stride, stride }
    }

    /// Appends the next `count` values of `data`.
    pub(crate) fn read<T: Int>(&mut self, data: &[u8], count: usize, out: &mut Vec<T>) -> Result<(), Fault> {
        match self {
            FixedInts::Plain(rest) => {
                if count > rest.len() / size_of::<T>() {
                    return Fault::corrupt("its values end too soon");
                }
                let end = rest.start + count * size_of::<T>();
                out.extend(data[rest.start..end].chunks_exact(size_of::<T>()).map(T::from_plain));
                rest.start = end;
            }
            FixedInts::Split { at, end, stride } => {
                if count > *end - *at {
                    return Fault::corrupt("its values end too soon");
                }
                out.extend((*at..*at + count).map(|first| {
                    let byte = |which: usize| i64::from(data[first + which * *stride]) << (8 * which);
                    T::wrap((0..size_of::<T>()).map(byte).sum())
                }));
                *at += count;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::written;
    use parquet::basic::Encoding;
    use parquet::data_type::{DataType, Int32Type, Int64Type};
    use proptest::prelude::*;

    /// Reads all values in steps. The page follows three other bytes, and five bytes follow it.
    fn read<T: Int>(encoding: Encoding, page: &[u8], count: usize, steps: &[usize]) -> Result<Vec<T>, Fault> {
        let data = [&[0xee; 3][..], page, &[0xaa; 5]].concat();
        let body = 3..data.len() - 5;
        let mut ints = match encoding {
            Encoding::PLAIN => FixedInts::plain(body),
            _ => FixedInts::split::<T>(body),
        };
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

    fn check<D: DataType<T: Int>>(values: &[D::T], steps: &[usize]) {
        for encoding in [Encoding::PLAIN, Encoding::BYTE_STREAM_SPLIT] {
            let page = written::page::<D>(values, encoding);
            assert_eq!(page.len(), size_of_val(values), "{encoding}");
            assert_eq!(read::<D::T>(encoding, &page, values.len(), steps).unwrap(), values, "{encoding}");
            let beyond = read::<D::T>(encoding, &page, values.len() + 1, steps);
            assert!(beyond.is_err(), "{encoding}, one value too many");
            let cut = &page[..page.len().saturating_sub(1)];
            let short = read::<D::T>(encoding, cut, values.len(), steps);
            assert!(short.is_err() || values.is_empty(), "{encoding}, one byte too few");
        }
    }

    proptest! {
        #[test]
        fn pages_written_by_the_parquet_crate_are_read(
            values in prop::collection::vec(any::<i64>(), 0..200),
            steps in prop::collection::vec(1..90usize, 1..9),
        ) {
            check::<Int64Type>(&values, &steps);
            let narrow: Vec<i32> = values.iter().map(|&value| value as i32).collect();
            check::<Int32Type>(&narrow, &steps);
        }
    }
}
