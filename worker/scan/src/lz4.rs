//! Pages of the format's old codec LZ4, whose framing the format does not specify.
//!
//! Files contain Hadoop's blocks (Spark, Hive, Impala, parquet-cpp), LZ4's own frames (old versions of the Parquet
//! crate), and bare LZ4 blocks (old versions of parquet-cpp). The framing is found by trial: the right one gives
//! exactly the number of bytes that the page's header states. Nothing is written beyond these.
//!
//! Not here: the contents of LZ4 blocks and frames (`lz4_flex`).

use std::io::Read;

use lz4_flex::block::decompress_into;
use lz4_flex::frame::FrameDecoder;

use crate::error::Fault;

/// Decodes `packed` into all of `out`.
///
/// # Errors
/// [`Fault::Corrupt`] if no framing gives that size.
pub(crate) fn decompress(packed: &[u8], out: &mut [u8]) -> Result<(), Fault> {
    hadoop(packed, out, Empty::Bare)
        .or_else(|| hadoop(packed, out, Empty::Packed))
        .or_else(|| frames(packed, out))
        .or_else(|| bare(packed, out).ok().map(drop))
        .ok_or_else(|| Fault::Corrupt(format!("a page's LZ4 stream does not give {} bytes", out.len())))
}

/// Decodes one LZ4 block into all of `out`.
///
/// # Errors
/// [`Fault::Corrupt`] if the block is invalid or has another size.
pub(crate) fn bare(packed: &[u8], out: &mut [u8]) -> Result<(), Fault> {
    match decompress_into(packed, out) {
        Ok(size) if size == out.len() => Ok(()),
        Ok(size) => Fault::corrupt(format!("a page's LZ4 block has {size} bytes instead of {}", out.len())),
        Err(error) => Fault::corrupt(format!("a page's LZ4 block is broken: {error}")),
    }
}

/// What follows the size of an empty block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    /// Nothing, as written by Hadoop.
    Bare,
    /// One part, as in any other block, as written by parquet-cpp.
    Packed,
}

/// A big-endian number of four bytes.
fn number(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*number) as usize)
}

/// Hadoop's framing: any number of blocks of any size. Each has its uncompressed size, then parts until this size is
/// reached; each part has its compressed size. `None` if `packed` has another framing.
fn hadoop(mut packed: &[u8], out: &mut [u8], empty: Empty) -> Option<()> {
    let mut done = 0;
    while !packed.is_empty() {
        let size = number(&mut packed)?;
        let block = out.get_mut(done..)?.get_mut(..size)?;
        done += size;
        let mut filled = 0;
        let mut parts = usize::from(size == 0 && empty == Empty::Packed);
        while filled < size || parts > 0 {
            let length = number(&mut packed)?;
            let (part, rest) = packed.split_at_checked(length)?;
            packed = rest;
            if length > 0 {
                filled += decompress_into(part, &mut block[filled..]).ok()?;
            }
            parts = 0;
        }
    }
    (done == out.len()).then_some(())
}

/// Consecutive LZ4 frames.
fn frames(packed: &[u8], out: &mut [u8]) -> Option<()> {
    let mut decoder = FrameDecoder::new(packed);
    let mut done = 0;
    loop {
        let left = decoder.get_ref().len();
        // One extra byte detects a frame that inflates to more than the expected size.
        let mut more = [0];
        let into = if done < out.len() { &mut out[done..] } else { &mut more };
        match decoder.read(into).ok()? {
            // The decoder returns 0 once at the end of each frame.
            0 if decoder.get_ref().is_empty() => return (done == out.len()).then_some(()),
            0 if decoder.get_ref().len() == left => return None,
            read => done += read,
        }
        if done > out.len() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lz4_flex::block::compress;
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    use proptest::prelude::*;
    use std::io::Write;

    fn size(bytes: usize) -> [u8; 4] {
        (bytes as u32).to_be_bytes()
    }

    /// A Hadoop block in parts of these sizes.
    fn block(bytes: &[u8], parts: &[usize]) -> Vec<u8> {
        let mut block = size(bytes.len()).to_vec();
        let mut rest = bytes;
        for &part in parts {
            let (part, more) = rest.split_at(part.min(rest.len()));
            let packed = if part.is_empty() { vec![] } else { compress(part) };
            block.extend(size(packed.len()));
            block.extend(packed);
            rest = more;
        }
        assert!(rest.is_empty());
        block
    }

    fn frame(bytes: &[u8], mode: BlockMode) -> Vec<u8> {
        let info = FrameInfo::new().block_mode(mode).block_size(BlockSize::Max64KB).content_checksum(true);
        let mut encoder = FrameEncoder::with_frame_info(info, vec![]);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn page(size: usize) -> Vec<u8> {
        (0..size as u32).map(|at| (at.wrapping_mul(at) >> 7) as u8 & 0x5f).collect()
    }

    #[test]
    fn every_framing_that_files_have_is_read() {
        let all = page(400_000);
        let (a, b) = all.split_at(261_100);
        let nothing = size(0);
        let table = [
            ("one block", vec![block(&all, &[all.len()])]),
            ("blocks", vec![block(a, &[a.len()]), block(b, &[b.len()])]),
            ("a small block first", vec![block(&all[..1], &[1]), block(&all[1..], &[399_999])]),
            ("a small block last", vec![block(&all[..399_999], &[399_999]), block(&all[399_999..], &[1])]),
            ("parts", vec![block(&all, &[65_536, 1, 200_000, 134_463])]),
            ("blocks of parts", vec![block(a, &[100_000, 161_100]), block(b, &[7, 138_893])]),
            ("empty parts", vec![block(a, &[0, 100_000, 0, 0, 161_100]), block(b, &[138_900])]),
            ("parts of no bytes", {
                let packed = compress(b);
                let no_bytes = [&size(1)[..], &[0]].concat();
                let b = [&size(b.len())[..], &no_bytes, &size(packed.len()), &packed].concat();
                vec![block(a, &[a.len()]), b]
            }),
            ("an empty block last", vec![block(&all, &[all.len()]), nothing.to_vec()]),
            ("empty blocks last", vec![block(&all, &[all.len()]), [nothing; 3].concat()]),
            ("an empty block first", vec![nothing.to_vec(), block(&all, &[all.len()])]),
            ("an empty block between", vec![block(a, &[a.len()]), nothing.to_vec(), block(b, &[b.len()])]),
            (
                "a packed empty block last",
                vec![block(&all, &[all.len()]), [&nothing[..], &size(1), &[0]].concat()],
            ),
            (
                "an empty block, then one byte",
                vec![block(&all[..399_999], &[399_999]), nothing.to_vec(), block(&all[399_999..], &[1])],
            ),
            ("a frame", vec![frame(&all, BlockMode::Independent)]),
            ("a frame of linked blocks", vec![frame(&all, BlockMode::Linked)]),
            (
                "frames",
                vec![
                    frame(a, BlockMode::Linked),
                    frame(&[], BlockMode::Linked),
                    frame(b, BlockMode::Independent),
                ],
            ),
            ("a bare block", vec![compress(&all)]),
        ];
        for (what, packed) in table {
            let mut out = vec![1; all.len()];
            decompress(&packed.concat(), &mut out).unwrap_or_else(|fault| panic!("{what}: {fault:?}"));
            assert!(out == all, "{what}");
        }
    }

    #[test]
    fn a_page_of_no_bytes_has_any_framing() {
        for packed in [size(0).to_vec(), size(0).repeat(2), [&size(0)[..], &size(1), &[0]].concat(), vec![0]]
        {
            decompress(&packed, &mut []).unwrap();
        }
        decompress(&frame(&[], BlockMode::Linked), &mut []).unwrap();
    }

    #[test]
    fn other_sizes_and_invalid_streams_are_rejected() {
        let all = page(100_000);
        let streams = [
            block(&all, &[60_000, 40_000]),
            frame(&all, BlockMode::Linked),
            frame(&all, BlockMode::Independent),
            compress(&all),
        ];
        for (at, stream) in streams.iter().enumerate() {
            for size in [0, 1, 99_999, 100_001] {
                assert!(decompress(stream, &mut vec![0; size]).is_err(), "stream {at}, {size} bytes");
            }
            for end in [0, 1, 5, 9, stream.len() / 2, stream.len() - 1] {
                // A frame without its checksum may be valid.
                let result = decompress(&stream[..end], &mut vec![0; all.len()]);
                assert!(result.is_err(), "stream {at}, {end} bytes of it");
            }
        }
        assert!(bare(&streams[3], &mut vec![0; 99_999]).is_err());
        assert!(bare(&streams[3], &mut vec![0; 100_001]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_result(
            packed in prop::collection::vec(prop_oneof![0..3u8, any::<u8>()], 0..200),
            size in 0..300usize,
        ) {
            let _ = decompress(&packed, &mut vec![0; size]);
        }
    }
}
