//! Decompression of pages, into one buffer a column chunk that is used again.
//!
//! Not here: where pages begin and end. Snappy is our own (`snappy`); the other codecs are the Parquet
//! crate's, but for those that it would let inflate further than the page's header says.

use std::io::Read;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::compression::{CodecOptionsBuilder, create_codec};

use super::error::Fault;
use super::snappy::{self, Repeats};

const BROTLI_BUFFER: usize = 4 << 10;

/// A page's bytes, uncompressed.
#[derive(Default)]
pub(crate) struct PageBuffer {
    /// Longer than the page, whose size is `size`.
    data: Vec<u8>,
    size: usize,
    /// The page where it is shared with a decoder; stands before `data`.
    shared: Option<Bytes>,
    /// Within the page, as far as its codec tells.
    repeats: Repeats,
}

impl PageBuffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.shared {
            Some(page) => page,
            None => &self.data[..self.size],
        }
    }

    /// What is known to repeat in it.
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

    /// Gives back what is beyond `most` bytes.
    pub(crate) fn shrink(&mut self, most: usize) {
        self.shared = None;
        self.size = self.size.min(most);
        self.data.truncate(most);
        self.data.shrink_to(most);
    }

    /// Room for a page of `size` bytes; what is in it need not be cleared.
    fn room(&mut self, size: usize) -> &mut [u8] {
        if self.data.len() < size {
            self.data.clear();
            self.data.resize(size, 0);
        }
        self.size = size;
        &mut self.data[..size]
    }
}

/// How the chunk is compressed.
pub(crate) enum Codec {
    None,
    Snappy,
    /// Codecs that do not know how much they will give, read as far as the header says.
    Stream(for<'a> fn(&'a [u8]) -> Box<dyn Read + 'a>),
    Other(Box<dyn parquet::compression::Codec>),
}

impl Codec {
    pub(crate) fn new(compression: Compression) -> Result<Self, Fault> {
        if compression == Compression::SNAPPY {
            return Ok(Codec::Snappy);
        }
        if matches!(compression, Compression::GZIP(_)) {
            return Ok(Codec::Stream(|raw| Box::new(flate2::read::MultiGzDecoder::new(raw))));
        }
        if matches!(compression, Compression::BROTLI(_)) {
            return Ok(Codec::Stream(|raw| Box::new(brotli::Decompressor::new(raw, BROTLI_BUFFER))));
        }
        // Old Hadoop writers framed LZ4 in three ways; the codec tries them in turn.
        let options = CodecOptionsBuilder::default().set_backward_compatible_lz4(true).build();
        Ok(create_codec(compression, &options)?.map_or(Codec::None, Codec::Other))
    }

    /// Unpacks a page of `size` bytes from `raw`, whose first `plain` bytes are not compressed.
    pub(crate) fn unpack(
        &mut self,
        raw: &[u8],
        plain: usize,
        size: usize,
        page: &mut PageBuffer,
    ) -> Result<(), Fault> {
        page.shared = None;
        page.repeats.clear();
        if plain == raw.len() || matches!(self, Codec::None) {
            page.room(raw.len()).copy_from_slice(raw);
            return Ok(());
        }
        let (plain, packed) = raw.split_at(plain);
        match self {
            Codec::Snappy => {
                let mut repeats = std::mem::take(&mut page.repeats);
                let (levels, values) = page.room(size).split_at_mut(plain.len());
                levels.copy_from_slice(plain);
                if !values.is_empty() {
                    snappy::decompress(packed, values, &mut repeats)?;
                }
                // They are told of what was decoded, which levels that are not compressed stand before.
                let before = plain.len() as u32;
                repeats.iter_mut().for_each(|(from, to)| (*from, *to) = (*from + before, *to + before));
                page.repeats = repeats;
            }
            Codec::Stream(open) => {
                page.data.clear();
                page.data.extend_from_slice(plain);
                // One byte more than there may be tells a page that would inflate without end.
                let most = (size - plain.len()) as u64 + 1;
                let read = open(packed).take(most).read_to_end(&mut page.data);
                read.map_err(|e| Fault::Corrupt(format!("a page cannot be decompressed: {e}")))?;
                page.size = page.data.len();
            }
            Codec::Other(codec) => {
                page.data.clear();
                page.data.extend_from_slice(plain);
                if size > plain.len() {
                    codec.decompress(packed, &mut page.data, Some(size - plain.len()))?;
                }
                page.size = page.data.len();
            }
            Codec::None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::snappy::STRIDE;

    /// Plain strings of a UUID's length: ten and ten of the same, then others.
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
    fn what_repeats_is_told_of_the_page_with_its_levels() {
        let (body, mut page) = (page(), PageBuffer::default());
        unpack(&mut Codec::Snappy, &packed(&body), 0, body.len(), &mut page);
        assert!(!page.repeats().is_empty());
        assert_eq!(page.bytes(), body);
        // Levels that would themselves make what stands behind them look moved.
        let levels: Vec<u8> = (0..64).collect();
        let raw = [&levels[..], &packed(&body)].concat();
        unpack(&mut Codec::Snappy, &raw, levels.len(), levels.len() + body.len(), &mut page);
        assert!(!page.repeats().is_empty());
        assert_eq!(page.bytes(), [&levels[..], &body].concat());
    }

    #[test]
    fn nothing_is_told_of_the_page_before() {
        let (body, mut page) = (page(), PageBuffer::default());
        let other: Vec<u8> = (0..200).collect();
        let mut zipped = vec![];
        let gzip = Compression::GZIP(Default::default());
        let options = CodecOptionsBuilder::default().build();
        create_codec(gzip, &options).unwrap().unwrap().compress(&other, &mut zipped).unwrap();
        let raws = [packed(&other), other.clone(), zipped];
        for (raw, codec) in raws.iter().zip([Compression::SNAPPY, Compression::UNCOMPRESSED, gzip]) {
            unpack(&mut Codec::Snappy, &packed(&body), 0, body.len(), &mut page);
            assert!(!page.repeats().is_empty());
            unpack(&mut Codec::new(codec).unwrap(), raw, 0, other.len(), &mut page);
            assert_eq!((page.bytes(), page.repeats().len()), (&other[..], 0), "{codec}");
        }
        unpack(&mut Codec::Snappy, &packed(&body), 0, body.len(), &mut page);
        unpack(&mut Codec::Snappy, &other, other.len(), other.len(), &mut page);
        assert!(page.repeats().is_empty(), "a page of version 2 that is not compressed");
    }
}
