//! Reads the pages of a column chunk, checks them, and splits them into their parts.
//!
//! Not here: decompression (`codec`), the meaning of the values.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::file::metadata::ColumnChunkMetaData;
use tally_common::budget::{Budget, Reservation};

use crate::codec::{Codec, PageBuffer};
use crate::error::Fault;
use crate::feed::Feed;
use crate::hybrid::{Hybrid, width_of};
use crate::page_header::{PageHeader, PageKind, parse};
use crate::snappy::Repeats;
use crate::source::OpenFile;
use crate::thrift::ThriftError;

/// A page header larger than this, including its statistics, is considered corrupt.
const MAX_HEADER: usize = 16 << 20;
const FIRST_PEEK: usize = 1 << 10;
/// Maximum bytes of a dictionary's header that a chunk's size may omit.
const MAX_UNCOUNTED_HEADER: usize = 100;
/// Pages up to this size are part of a scan's fixed allowance. Larger pages are reserved.
pub(crate) const ALLOWED_PAGE: usize = 2 << 20;

/// A data page's parts, as ranges of [`Pages::data`].
#[derive(Debug, Clone)]
pub(crate) struct DataPage {
    pub values: usize,
    pub encoding: Encoding,
    pub rep: Option<Hybrid>,
    pub def: Option<Hybrid>,
    pub body: Range<usize>,
}

/// The next page of a chunk.
pub(crate) enum Page {
    Data(DataPage),
    Dictionary { values: usize },
}

/// Reader of a chunk's pages.
pub(crate) struct Pages {
    feed: Feed,
    codec: Codec,
    page: PageBuffer,
    max_rep: i16,
    max_def: i16,
    /// Values of the chunk that are not in a page read so far.
    missing: u64,
    file: Arc<OpenFile>,
    /// The range after the chunk's stated end that may still belong to it.
    behind: Range<u64>,
    budget: Budget,
    reserved: Option<Reservation>,
}

fn encoding_of(number: i32) -> Result<Encoding, Fault> {
    Ok(match number {
        0 => Encoding::PLAIN,
        2 | 8 => Encoding::RLE_DICTIONARY,
        3 => Encoding::RLE,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        other => return Fault::corrupt(format!("a page has the unknown encoding {other}")),
    })
}

impl Pages {
    /// The pages of a chunk that ends at `end` in `file`, according to its footer.
    pub(crate) fn new(
        feed: Feed,
        chunk: &ColumnChunkMetaData,
        (file, end): (Arc<OpenFile>, u64),
        budget: Budget,
    ) -> Result<Self, Fault> {
        let descriptor = chunk.column_descr();
        Ok(Pages {
            feed,
            codec: Codec::new(chunk.compression())?,
            page: PageBuffer::default(),
            max_rep: descriptor.max_rep_level(),
            max_def: descriptor.max_def_level(),
            missing: u64::try_from(chunk.num_values()).unwrap_or(0),
            file,
            behind: end..end,
            budget,
            reserved: None,
        })
    }

    /// The uncompressed bytes of the page that was read last.
    pub(crate) fn data(&self) -> &[u8] {
        self.page.bytes()
    }

    /// Known repeats in the page that was read last.
    pub(crate) fn repeats(&self) -> &Repeats {
        self.page.repeats()
    }

    /// The page that was read last, with its memory reservation, for a caller that keeps it.
    pub(crate) fn keep(&mut self) -> (Bytes, Option<Reservation>) {
        (self.page.share().clone(), self.reserved.take())
    }

    /// The budget for large allocations.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Reserves memory for `what`, unless it fits a scan's allowance.
    pub(crate) fn reserve(&self, bytes: usize, what: &'static str) -> Result<Option<Reservation>, Fault> {
        if bytes <= ALLOWED_PAGE {
            return Ok(None);
        }
        self.budget.reserve(bytes).map(Some).map_err(|why| Fault::Memory(what, why))
    }

    /// The next page; `None` at the chunk's end.
    pub(crate) fn next(&mut self) -> Result<Option<Page>, Fault> {
        while self.missing > 0 {
            let header = self.header()?;
            // Pages without values may have any content.
            if header.kind == PageKind::Other || header.num_values == 0 && header.kind != PageKind::Dictionary
            {
                self.look_behind(header.compressed_size)?;
                self.feed.take(header.compressed_size)?;
                continue;
            }
            if header.kind != PageKind::Dictionary {
                self.missing = self.missing.checked_sub(header.num_values as u64).ok_or_else(|| {
                    let (values, missing) = (header.num_values, self.missing);
                    Fault::Corrupt(format!("a page has {values} values where its chunk has {missing} more"))
                })?;
            }
            self.read(&header)?;
            if header.kind == PageKind::Dictionary {
                if !matches!(header.encoding, 0 | 2) {
                    return Fault::corrupt(format!(
                        "a dictionary has the unsupported encoding {}",
                        header.encoding
                    ));
                }
                return Ok(Some(Page::Dictionary { values: header.num_values }));
            }
            return self.cut(&header).map(Page::Data).map(Some);
        }
        Ok(None)
    }

    fn header(&mut self) -> Result<PageHeader, Fault> {
        let mut wanted = FIRST_PEEK;
        loop {
            let all = self.feed.remaining();
            let bytes = self.feed.peek(wanted)?;
            let seen = bytes.len();
            match parse(bytes) {
                Ok((header, length)) => {
                    self.feed.take(length)?;
                    // Writers before parquet-mr 1.2.9 did not include these bytes in the chunk's size.
                    if header.kind == PageKind::Dictionary && length <= MAX_UNCOUNTED_HEADER {
                        self.behind.end = self.behind.start.saturating_add(length as u64);
                    }
                    return Ok(header);
                }
                Err(ThriftError::Malformed(what)) => return Fault::corrupt(what),
                Err(ThriftError::Short) if seen as u64 >= all => {
                    if !self.look_behind(seen + 1)? {
                        return Fault::corrupt(format!("its pages end with {} values missing", self.missing));
                    }
                }
                Err(ThriftError::Short) if seen >= MAX_HEADER => {
                    return Fault::corrupt("a page header of more than 16 MiB");
                }
                Err(ThriftError::Short) => wanted = seen * 4,
            }
        }
    }

    /// If fewer than `bytes` remain, extends the chunk as far as allowed. Returns whether it was extended.
    fn look_behind(&mut self, bytes: usize) -> Result<bool, Fault> {
        let behind = self.behind.start..self.behind.end.min(self.file.input.size);
        if bytes as u64 <= self.feed.remaining() || behind.is_empty() {
            return Ok(false);
        }
        self.behind.start = self.behind.end;
        self.feed.extend(&self.file, behind)?;
        Ok(true)
    }

    fn read(&mut self, header: &PageHeader) -> Result<(), Fault> {
        self.look_behind(header.compressed_size)?;
        if header.compressed_size as u64 > self.feed.remaining() {
            return Fault::corrupt("a page extends beyond its column chunk");
        }
        let (levels, packed) = match header.kind {
            PageKind::DataV2 { def_bytes, rep_bytes, compressed } => {
                (def_bytes.saturating_add(rep_bytes), compressed && !self.codec.is_none())
            }
            _ => (0, !self.codec.is_none()),
        };
        // An uncompressed page has the size of its bytes, whatever its header states.
        let size = if packed { header.uncompressed_size } else { header.compressed_size };
        if packed && size > self.codec.most(header.compressed_size) {
            return Fault::corrupt(format!(
                "a page of {} bytes cannot inflate to the {size} bytes that its header states",
                header.compressed_size
            ));
        }
        if self.reserved.take().is_some() {
            self.page.shrink(ALLOWED_PAGE);
        }
        self.reserved = self.reserve(header.compressed_size + size, "a page")?;
        let raw = self.feed.take(header.compressed_size)?;
        if let Some(crc) = header.crc
            && crc32fast::hash(raw) != crc
        {
            return Fault::corrupt("a page's checksum does not match its bytes");
        }
        if levels > raw.len() || levels > size {
            return Fault::corrupt("levels are longer than their page");
        }
        let plain = if packed { levels } else { raw.len() };
        self.codec.unpack(raw, plain, size, &mut self.page)?;
        let got = self.data().len();
        if got != size {
            return Fault::corrupt(format!(
                "a page has {got} bytes instead of the {size} that its header states"
            ));
        }
        Ok(())
    }

    /// A level stream of version 1, which starts with its length in four bytes.
    fn levels_v1(&self, at: &mut usize, max: i16, encoding: i32) -> Result<Option<Hybrid>, Fault> {
        if max == 0 {
            return Ok(None);
        }
        if encoding != 3 {
            return Fault::corrupt(format!("levels have the unsupported encoding {encoding}"));
        }
        let data = self.data();
        let Some(length) = data.get(*at..*at + 4) else {
            return Fault::corrupt("a page ends before its levels");
        };
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default()) as usize;
        let start = *at + 4;
        if length > data.len() - start {
            return Fault::corrupt("levels are longer than their page");
        }
        *at = start + length;
        Hybrid::new(start..*at, width_of(max)).map(Some)
    }

    fn cut(&self, header: &PageHeader) -> Result<DataPage, Fault> {
        let (rep, def, start) = match header.kind {
            PageKind::DataV2 { def_bytes, rep_bytes, .. } => {
                let level =
                    |range, max: i16| (max > 0).then(|| Hybrid::new(range, width_of(max))).transpose();
                let rep = level(0..rep_bytes, self.max_rep)?;
                let def = level(rep_bytes..rep_bytes + def_bytes, self.max_def)?;
                (rep, def, rep_bytes + def_bytes)
            }
            _ => {
                let mut at = 0;
                let rep = self.levels_v1(&mut at, self.max_rep, header.rep_encoding)?;
                let def = self.levels_v1(&mut at, self.max_def, header.def_encoding)?;
                (rep, def, at)
            }
        };
        let encoding = encoding_of(header.encoding)?;
        Ok(DataPage { values: header.num_values, encoding, rep, def, body: start..self.data().len() })
    }
}
