//! Encoder of Snappy's format for callers that know which bytes repeat: literals, and copies of earlier bytes.
//!
//! A stream is the uncompressed length as a varint, then elements. <https://github.com/google/snappy/blob/main/format_description.txt>
//! Not here: finding repeats in arbitrary bytes, which the `snap` crate does.

/// Maximum bytes that one copy element copies.
const COPY: usize = 64;

/// Appends `value` as a varint.
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the header of a literal element of `length` bytes, which must follow. At least one byte, at most 4 GiB.
pub(super) fn literal_head(length: usize, out: &mut Vec<u8>) {
    let n = (length - 1) as u32;
    match n {
        0..60 => out.push((n as u8) << 2),
        60..0x100 => out.extend_from_slice(&[60 << 2, n as u8]),
        0x100..0x1_0000 => {
            out.push(61 << 2);
            out.extend_from_slice(&(n as u16).to_le_bytes());
        }
        _ => {
            out.push(63 << 2);
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
}

/// Appends copies of `length` bytes, each from `offset` bytes before it. Source and destination may overlap.
pub(super) fn copy(offset: u32, mut length: usize, out: &mut Vec<u8>) {
    while length > 0 {
        let n = length.min(COPY);
        length -= n;
        let tag = ((n - 1) as u8) << 2;
        match offset {
            0..0x800 if (4..12).contains(&n) => {
                let high = (offset >> 8) as u8;
                out.extend_from_slice(&[high << 5 | ((n - 4) as u8) << 2 | 1, offset as u8]);
            }
            0..0x1_0000 => {
                out.push(tag | 2);
                out.extend_from_slice(&(offset as u16).to_le_bytes());
            }
            _ => {
                out.push(tag | 3);
                out.extend_from_slice(&offset.to_le_bytes());
            }
        }
    }
}

/// A stream that stores `plain` uncompressed.
pub(super) fn stored(plain: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    varint(plain.len() as u64, &mut out);
    if !plain.is_empty() {
        literal_head(plain.len(), &mut out);
        out.extend_from_slice(plain);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(stream: &[u8]) -> Vec<u8> {
        snap::raw::Decoder::new().decompress_vec(stream).unwrap()
    }

    #[test]
    fn stored_bytes_are_decompressed_for_every_literal_header() {
        for length in [0, 1, 59, 60, 61, 255, 256, 257, 65_535, 65_536, 65_537, 1 << 20] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 7 % 251) as u8).collect();
            assert_eq!(plain(&stored(&bytes)), bytes, "{length}");
        }
    }

    proptest! {
        #[test]
        fn copies_repeat_earlier_bytes(first in prop::collection::vec(any::<u8>(), 1..200_000), back in 1_usize.., length in 1_usize..500) {
            let back = back % first.len() + 1;
            let mut expected = first.clone();
            for _ in 0..length {
                expected.push(expected[expected.len() - back]);
            }
            let mut stream = vec![];
            varint(expected.len() as u64, &mut stream);
            literal_head(first.len(), &mut stream);
            stream.extend_from_slice(&first);
            copy(back as u32, length, &mut stream);
            prop_assert_eq!(plain(&stream), expected);
        }
    }
}
