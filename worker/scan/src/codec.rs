//! Decompression of pages, into one reused buffer per column chunk.
//!
//! No codec writes more bytes than the page's header states. Not here: the boundaries of pages, and the formats Snappy
//! (`snappy`) and LZ4 (`lz4`).

use std::io::{self, Read};

use bytes::Bytes;
use parquet::basic::Compression;
use zstd::bulk::Decompressor;

use crate::error::Fault;
use crate::lz4;
use crate::snappy::{self, Repeats};

const BROTLI_BUFFER: usize = 4 << 10;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A page's uncompressed bytes.
#[derive(Default)]
pub(crate) struct PageBuffer {
    /// May be longer than the page, whose size is `size`.
    data: Vec<u8>,
    size: usize,
    /// The page after it was shared with a decoder. Replaces `data`.
    shared: Option<Bytes>,
    /// Repeats within the page that its codec found.
    repeats: Repeats,
}

impl PageBuffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.shared {
            Some(page) => page,
            None => &self.data[..self.size],
        }
    }

    /// Known repeats in the page.
    pub(crate) fn repeats(&self) -> &Repeats {
        &self.repeats
    }

    /// The page as a buffer that a decoder may keep.
    pub(crate) fn share(&mut self) -> &Bytes {
        self.shared.get_or_insert_with(|| {
            self.data.truncate(self.size);
            Bytes::from(std::mem::take(&mut self.data))
        })
    }

    /// Releases memory beyond `most` bytes.
    pub(crate) fn shrink(&mut self, most: usize) {
        self.shared = None;
        self.size = self.size.min(most);
        self.data.truncate(most);
        self.data.shrink_to(most);
    }

    /// Room for a page of `size` bytes. It may contain old bytes.
    fn room(&mut self, size: usize) -> &mut [u8] {
        if self.data.len() < size {
            self.data.clear();
            self.data.resize(size, 0);
        }
        self.size = size;
        &mut self.data[..size]
    }
}

/// Decodes into a slice. Returns the number of bytes; one more than the slice has stands for any larger number.
type Inflate = fn(&[u8], &mut [u8]) -> io::Result<usize>;

/// The compression of a chunk.
pub(crate) enum Codec {
    None,
    Snappy,
    /// Codecs whose streams do not state their size.
    Stream(Inflate),
    Lz4,
    Lz4Raw,
    Zstd(Decompressor<'static>),
}

impl Codec {
    pub(crate) fn new(compression: Compression) -> Result<Self, Fault> {
        Ok(match compression {
            Compression::SNAPPY => Codec::Snappy,
            Compression::GZIP(_) => Codec::Stream(gunzip),
            Compression::BROTLI(_) => Codec::Stream(|packed, out| {
                inflate(&mut brotli::Decompressor::new(packed, BROTLI_BUFFER), out)
            }),
            Compression::LZ4 => Codec::Lz4,
            Compression::LZ4_RAW => Codec::Lz4Raw,
            Compression::ZSTD(_) => Codec::Zstd(Decompressor::new().map_err(undecodable)?),
            Compression::UNCOMPRESSED => Codec::None,
            Compression::LZO => {
                return Fault::corrupt("its pages are compressed with LZO, which Tally cannot read");
            }
        })
    }

    /// Whether pages are stored uncompressed.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Codec::None)
    }

    /// The most bytes that a page of `packed` bytes can inflate to, as far as the format limits them: no memory is used for
    /// a page whose header states more.
    pub(crate) fn most(&self, packed: usize) -> usize {
        let ratio = match self {
            Codec::None => 1,
            // A copy of 64 bytes takes three.
            Codec::Snappy => 22,
            // A byte of a length stands for 255 bytes.
            Codec::Lz4 | Codec::Lz4Raw => 256,
            // A block of 128 KiB takes four bytes.
            Codec::Zstd(_) => 32 << 10,
            // Brotli has no limit.
            Codec::Stream(_) => usize::MAX,
        };
        packed.saturating_mul(ratio)
    }

    /// Decompresses a page of `size` bytes from `raw`, whose first `plain` bytes, at most `size`, are not compressed.
    pub(crate) fn unpack(
        &mut self,
        raw: &[u8],
        plain: usize,
        size: usize,
        page: &mut PageBuffer,
    ) -> Result<(), Fault> {
        page.shared = None;
        page.repeats.clear();
        if plain == raw.len() || self.is_none() {
            page.room(raw.len()).copy_from_slice(raw);
            return Ok(());
        }
        let (plain, packed) = raw.split_at(plain);
        let mut repeats = std::mem::take(&mut page.repeats);
        let (levels, values) = page.room(size).split_at_mut(plain.len());
        levels.copy_from_slice(plain);
        match self {
            Codec::Snappy => {
                snappy::decompress(packed, values, &mut repeats)?;
                // Repeats are relative to the decoded values, which follow the uncompressed levels.
                let before = plain.len() as u32;
                repeats.iter_mut().for_each(|(from, to)| (*from, *to) = (*from + before, *to + before));
            }
            Codec::Stream(inflate) => check_size(inflate(packed, values), values.len())?,
            // Reads all frames, and fails if they have more bytes than `values`.
            Codec::Zstd(context) => check_size(context.decompress_to_buffer(packed, values), values.len())?,
            Codec::Lz4 => lz4::decompress(packed, values)?,
            Codec::Lz4Raw => lz4::bare(packed, values)?,
            Codec::None => {}
        }
        page.repeats = repeats;
        Ok(())
    }
}

fn undecodable(error: io::Error) -> Fault {
    Fault::Corrupt(format!("a page cannot be decompressed: {error}"))
}

/// Checks that a codec wrote the `size` bytes of the page's header.
fn check_size(written: io::Result<usize>, size: usize) -> Result<(), Fault> {
    let written = written.map_err(undecodable)?;
    if written == size {
        return Ok(());
    }
    let more = if written < size { "less" } else { "more" };
    Fault::corrupt(format!("a page inflates to {more} than the {size} bytes that its header states"))
}

/// Reads everything into `out`, and one byte more if there is one: codecs verify checksums at the end.
fn inflate(from: &mut dyn Read, out: &mut [u8]) -> io::Result<usize> {
    let (mut done, mut beyond) = (0, [0]);
    loop {
        let into = if done < out.len() { &mut out[done..] } else { &mut beyond };
        match from.read(into)? {
            0 => return Ok(done),
            read if done == out.len() => return Ok(done + read),
            read => done += read,
        }
    }
}

/// Decodes consecutive members. Other bytes after them are ignored, as by gzip itself.
fn gunzip(mut packed: &[u8], out: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    loop {
        let mut member = flate2::bufread::GzDecoder::new(packed);
        done += inflate(&mut member, &mut out[done..])?;
        packed = member.into_inner();
        if done > out.len() || !packed.starts_with(&GZIP_MAGIC) {
            return Ok(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snappy::STRIDE;
    use std::io::Write;

    /// Plain strings of a UUID's length: two times ten equal ones, then others.
    fn page() -> Vec<u8> {
        let texts =
            (0..32u8).map(|k| if k < 20 { [b'a' + k / 10; STRIDE - 4] } else { [b'a' + k; STRIDE - 4] });
        texts.flat_map(|text| [&(STRIDE as u32 - 4).to_le_bytes()[..], &text].concat()).collect()
    }

    fn packed(page: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(page).unwrap()
    }

    fn unpack(codec: &mut Codec, raw: &[u8], plain: usize, size: usize, page: &mut PageBuffer) {
        codec.unpack(raw, plain, size, page).unwrap();
        for &(from, to) in page.repeats() {
            let (from, to, bytes) = (from as usize, to as usize, page.bytes());
            assert!(from < to && bytes[from..to] == bytes[from - STRIDE..to - STRIDE], "{from} to {to}");
        }
    }

    #[test]
    fn repeats_are_relative_to_the_page_with_its_levels() {
        let (body, mut page) = (page(), PageBuffer::default());
        unpack(&mut Codec::Snappy, &packed(&body), 0, body.len(), &mut page);
        assert!(!page.repeats().is_empty());
        assert_eq!(page.bytes(), body);
        // Levels would change the offsets of the repeats if they were ignored.
        let levels: Vec<u8> = (0..64).collect();
        let raw = [&levels[..], &packed(&body)].concat();
        unpack(&mut Codec::Snappy, &raw, levels.len(), levels.len() + body.len(), &mut page);
        assert!(!page.repeats().is_empty());
        assert_eq!(page.bytes(), [&levels[..], &body].concat());
    }

    #[test]
    fn repeats_of_the_previous_page_are_dropped() {
        let (body, mut page) = (page(), PageBuffer::default());
        let other: Vec<u8> = (0..200).collect();
        let raws = [packed(&other), other.clone(), compress(GZIP(), &other), compress(ZSTD(), &other)];
        let codecs = [Compression::SNAPPY, Compression::UNCOMPRESSED, GZIP(), ZSTD()];
        for (raw, codec) in raws.iter().zip(codecs) {
            unpack(&mut Codec::Snappy, &packed(&body), 0, body.len(), &mut page);
            assert!(!page.repeats().is_empty());
            unpack(&mut Codec::new(codec).unwrap(), raw, 0, other.len(), &mut page);
            assert_eq!((page.bytes(), page.repeats().len()), (&other[..], 0), "{codec}");
        }
        unpack(&mut Codec::Snappy, &packed(&body), 0, body.len(), &mut page);
        unpack(&mut Codec::Snappy, &other, other.len(), other.len(), &mut page);
        assert!(page.repeats().is_empty(), "a page of version 2 that is not compressed");
    }

    fn compress(codec: Compression, bytes: &[u8]) -> Vec<u8> {
        match codec {
            Compression::SNAPPY => packed(bytes),
            Compression::GZIP(_) => {
                let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::BROTLI(_) => {
                let mut packed = vec![];
                brotli::BrotliCompress(&mut &*bytes, &mut packed, &Default::default()).unwrap();
                packed
            }
            Compression::ZSTD(_) => zstd::bulk::compress(bytes, 1).unwrap(),
            Compression::LZ4_RAW => lz4_flex::block::compress(bytes),
            // Hadoop's framing: both sizes, then the block.
            Compression::LZ4 => {
                let packed = lz4_flex::block::compress(bytes);
                let sizes = [bytes.len(), packed.len()].map(|size| (size as u32).to_be_bytes());
                [sizes.as_flattened(), &packed].concat()
            }
            other => panic!("{other}"),
        }
    }

    const GZIP: fn() -> Compression = || Compression::GZIP(Default::default());
    const ZSTD: fn() -> Compression = || Compression::ZSTD(Default::default());

    #[test]
    fn pages_of_several_members_are_read_whole() {
        let all: Vec<u8> = (0..200_000u32).map(|at| (at / 300) as u8).collect();
        let (a, b) = all.split_at(70_001);
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], &[1, 2, 3]].concat();
        let gzip = |bytes: &[u8]| compress(GZIP(), bytes);
        let zstd = |bytes: &[u8]| compress(ZSTD(), bytes);
        let table = [
            (GZIP(), vec![gzip(a), gzip(b)]),
            (GZIP(), vec![gzip(&[]), gzip(a), gzip(&[]), gzip(b), gzip(&[])]),
            (GZIP(), vec![gzip(&all), vec![0; 5]]),
            (ZSTD(), vec![zstd(a), zstd(b)]),
            (ZSTD(), vec![zstd(&[]), zstd(a), skipped, zstd(&[]), zstd(b)]),
        ];
        for (at, (codec, members)) in table.into_iter().enumerate() {
            let mut page = PageBuffer::default();
            let levels = [9; 7];
            let raw = [&levels[..], &members.concat()].concat();
            unpack(&mut Codec::new(codec).unwrap(), &raw, 7, all.len() + 7, &mut page);
            assert!(page.bytes() == [&levels[..], &all].concat(), "row {at}, {codec}");
        }
    }

    #[test]
    fn no_codec_gives_more_or_fewer_bytes_than_the_header_states() {
        let all = vec![7; 3 << 20];
        let codecs = [
            Compression::SNAPPY,
            GZIP(),
            Compression::BROTLI(Default::default()),
            Compression::LZ4,
            ZSTD(),
            Compression::LZ4_RAW,
        ];
        for codec in codecs {
            let packed = compress(codec, &all);
            let twice = packed.repeat(2);
            let empty = compress(codec, &[]);
            for (raw, size) in [
                (&packed, 0),
                (&packed, 1000),
                (&packed, all.len() - 1),
                (&packed, all.len() + 1),
                (&twice, all.len() / 2),
                (&empty, 1),
            ] {
                let mut page = PageBuffer::default();
                let mut codec = Codec::new(codec).unwrap();
                let result = codec.unpack(raw, 0, size, &mut page);
                // The reader of pages compares the size with the header.
                assert!(result.is_err() || page.bytes().len() != size, "{size} bytes");
                assert!(page.data.capacity() <= 2 * size.max(16), "{} bytes of {size}", page.data.capacity());
            }
            let mut page = PageBuffer::default();
            unpack(&mut Codec::new(codec).unwrap(), &empty, 0, 0, &mut page);
            assert!(page.bytes().is_empty(), "{codec}");
        }
    }

    #[test]
    fn a_decompression_bomb_takes_no_memory() {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(vec![]);
        (0..64).for_each(|_| encoder.write_all(&[0; 1 << 20]).unwrap());
        let bomb = encoder.finish().unwrap().repeat(4);
        let mut page = PageBuffer::default();
        assert!(Codec::new(Compression::LZ4).unwrap().unpack(&bomb, 0, 1000, &mut page).is_err());
        assert!(page.data.capacity() <= 2000, "{}", page.data.capacity());
    }
}
