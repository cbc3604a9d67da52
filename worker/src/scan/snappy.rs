//! Snappy decompression into a buffer that is used again.
//!
//! Pages of telemetry are rows of a ping next to each other: long copies at short distances. Here
//! they are made 32 bytes a step, and no page is cleared before it is written. Safe code; the
//! format is that of Snappy's `format_description.txt`. Other codecs are the Parquet crate's.

use super::error::Fault;

/// Bytes that a step may write beyond the end of what it copies.
pub(crate) const SLACK: usize = 64;

fn damaged<T>(what: &str) -> Result<T, Fault> {
    Fault::corrupt(format!("a page's Snappy stream {what}"))
}

/// The decompressed size that a stream announces, and where its elements begin.
fn header(input: &[u8]) -> Option<(usize, usize)> {
    let mut size = 0u64;
    for (at, &byte) in input.iter().enumerate().take(5) {
        size |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(size).ok()?, at + 1));
        }
    }
    None
}

/// Decompresses `input` to `out[start..start + size]`; `out` must have [`SLACK`] bytes after that,
/// whose content is lost.
pub(crate) fn decompress(input: &[u8], out: &mut [u8], start: usize, size: usize) -> Result<(), Fault> {
    let Some((announced, mut at)) = header(input) else { return damaged("has no header") };
    if announced != size {
        return damaged(&format!("announces {announced} bytes instead of {size}"));
    }
    let end = start + size;
    debug_assert!(out.len() >= end + SLACK);
    let mut to = start;
    while let Some(&tag) = input.get(at) {
        at += 1;
        if tag & 3 == 0 {
            let length = literal_length(input, tag, &mut at);
            if length > end - to || length > input.len() - at {
                return damaged("has a literal that is too long");
            }
            literal(input, at, out, to, length);
            at += length;
            to += length;
            continue;
        }
        let (length, distance) = match tag & 3 {
            1 => {
                let low = usize::from(input.get(at).copied().unwrap_or(0));
                at += 1;
                (usize::from(tag >> 2 & 7) + 4, usize::from(tag >> 5) << 8 | low)
            }
            2 => {
                let distance = input.get(at..at + 2).map_or(0, |b| usize::from(b[0]) | usize::from(b[1]) << 8);
                at += 2;
                (usize::from(tag >> 2) + 1, distance)
            }
            _ => {
                let bytes = input.get(at..at + 4).and_then(|b| b.try_into().ok());
                at += 4;
                (usize::from(tag >> 2) + 1, bytes.map_or(0, |b| u32::from_le_bytes(b) as usize))
            }
        };
        // A distance that could not be read is 0.
        if distance == 0 || distance > to - start || length > end - to {
            return damaged("has a copy that leaves the page");
        }
        copy(out, to, distance, length);
        to += length;
    }
    if to == end { Ok(()) } else { damaged(&format!("ends after {} of {size} bytes", to - start)) }
}

#[inline]
fn literal_length(input: &[u8], tag: u8, at: &mut usize) -> usize {
    let short = usize::from(tag >> 2);
    if short < 60 {
        return short + 1;
    }
    let bytes = short - 59;
    let Some(length) = input.get(*at..*at + bytes) else { return usize::MAX };
    *at += bytes;
    length.iter().rev().fold(0usize, |sum, &b| sum << 8 | usize::from(b)).saturating_add(1)
}

/// Moves `N` bytes within `out` by way of registers; false where they are not there.
#[inline]
fn step<const N: usize>(out: &mut [u8], from: usize, to: usize) {
    if let Some(&bytes) = out.get(from..).and_then(|o| o.first_chunk::<N>())
        && let Some(slot) = out.get_mut(to..).and_then(|o| o.first_chunk_mut::<N>())
    {
        *slot = bytes;
    }
}

#[inline]
fn literal(input: &[u8], at: usize, out: &mut [u8], to: usize, length: usize) {
    if length <= 32
        && let Some(bytes) = input.get(at..).and_then(|i| i.first_chunk::<32>())
        && let Some(slot) = out.get_mut(to..).and_then(|o| o.first_chunk_mut::<32>())
    {
        *slot = *bytes;
        return;
    }
    out[to..to + length].copy_from_slice(&input[at..at + length]);
}

/// Repeats what lies `distance` before `to`; a step never reads what it has yet to write.
#[inline]
fn copy(out: &mut [u8], to: usize, distance: usize, length: usize) {
    let from = to - distance;
    if distance >= 32 {
        for done in (0..length).step_by(32) {
            step::<32>(out, from + done, to + done);
        }
    } else if distance >= 8 {
        for done in (0..length).step_by(8) {
            step::<8>(out, from + done, to + done);
        }
    } else {
        for done in 0..length {
            out[to + done] = out[from + done];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(plain: &[u8], start: usize) {
        let packed = snap::raw::Encoder::new().compress_vec(plain).unwrap();
        let mut out = vec![0xaa; start + plain.len() + SLACK];
        decompress(&packed, &mut out, start, plain.len()).unwrap();
        assert!(out[..start].iter().all(|&b| b == 0xaa), "what lies before is not touched");
        assert_eq!(&out[start..start + plain.len()], plain);
    }

    proptest! {
        #[test]
        fn what_snappy_compressed_comes_back(
            parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..90), 1..40usize), 0..40),
            start in 0..9usize,
        ) {
            let plain: Vec<u8> = parts.iter().flat_map(|(bytes, times)| bytes.repeat(*times)).collect();
            check(&plain, start);
        }

        #[test]
        fn damaged_streams_end_in_the_same_answer_as_the_crates(
            plain in prop::collection::vec(0..4u8, 0..300),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut packed = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
            for (at, byte) in damage { let at = at.index(packed.len()); packed[at] = byte; }
            let expect = snap::raw::Decoder::new().decompress_vec(&packed).ok().filter(|p| p.len() == plain.len());
            let mut out = vec![0; plain.len() + SLACK];
            let ours = decompress(&packed, &mut out, 0, plain.len()).ok().map(|()| out[..plain.len()].to_vec());
            prop_assert_eq!(ours, expect);
        }
    }

    #[test]
    fn elements_of_every_kind_are_read() {
        // A literal with a length of its own bytes, and copies with one, two and four bytes of distance.
        let long: Vec<u8> = (0..100_000u32).map(|i| (i * i >> 7) as u8).collect();
        check(&long, 3);
        let mut stream = vec![16, 0x0c, b'a', b'b', b'c', b'd', 0x01, 4, 0x0e, 4, 0, 0x0f, 1, 0, 0, 0];
        stream[0] = 16;
        let mut out = [0; 16 + SLACK];
        decompress(&stream, &mut out, 0, 16).unwrap();
        assert_eq!(&out[..16], b"abcdabcdabcddddd");
    }
}
