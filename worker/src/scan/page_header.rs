//! Page headers of a column chunk: Thrift's compact protocol, just as much of it as they use.
//!
//! The Parquet crate keeps its header type to itself; reading it here lets pages be streamed,
//! checked and decompressed into buffers that are used again. The format is that of
//! `parquet.thrift` (struct `PageHeader`). All input is foreign: nothing here trusts a length.

/// What a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    Data,
    DataV2 { def_bytes: usize, rep_bytes: usize, compressed: bool },
    Dictionary,
    Other,
}

/// A page's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub kind: PageKind,
    pub compressed_size: usize,
    pub uncompressed_size: usize,
    pub crc: Option<u32>,
    pub num_values: usize,
    /// The encoding's number in the format.
    pub encoding: i32,
    /// The encoding of version 1's levels.
    pub def_encoding: i32,
    pub rep_encoding: i32,
}

/// Why there is no header in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// The bytes end too soon.
    Short,
    Malformed(&'static str),
}

use HeaderError::{Malformed, Short};

/// How deep unknown structures may nest.
const MAX_DEPTH: u32 = 16;

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A field's number and wire type.
struct FieldHeader {
    id: i16,
    kind: u8,
}

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, HeaderError> {
        let byte = *self.bytes.get(self.at).ok_or(Short)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, HeaderError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number of more than 64 bits"))
    }

    fn zigzag(&mut self) -> Result<i64, HeaderError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn int(&mut self) -> Result<i32, HeaderError> {
        i32::try_from(self.zigzag()?).map_err(|_| Malformed("a number out of range"))
    }

    fn size(&mut self) -> Result<usize, HeaderError> {
        usize::try_from(self.int()?).map_err(|_| Malformed("a negative size"))
    }

    fn field(&mut self, last: &mut i16) -> Result<Option<FieldHeader>, HeaderError> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let id = match byte >> 4 {
            0 => i16::try_from(self.zigzag()?).map_err(|_| Malformed("a field number out of range"))?,
            delta => last.checked_add(i16::from(delta)).ok_or(Malformed("a field number out of range"))?,
        };
        *last = id;
        Ok(Some(FieldHeader { id, kind: byte & 0x0f }))
    }

    fn advance(&mut self, bytes: u64) -> Result<(), HeaderError> {
        let left = (self.bytes.len() - self.at) as u64;
        if bytes > left {
            return Err(Short);
        }
        self.at += bytes as usize;
        Ok(())
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Result<(), HeaderError> {
        if depth > MAX_DEPTH {
            return Err(Malformed("structures nested too deep"));
        }
        match kind {
            1 | 2 => Ok(()),
            3 => self.advance(1),
            4..=6 => self.varint().map(drop),
            7 => self.advance(8),
            8 => {
                let length = self.varint()?;
                self.advance(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                // Booleans in lists take a byte each.
                let element = if byte & 0x0f <= 2 { 3 } else { byte & 0x0f };
                (0..count).try_for_each(|_| self.skip(element, depth + 1))
            }
            12 => {
                let mut last = 0;
                while let Some(field) = self.field(&mut last)? {
                    self.skip(field.kind, depth + 1)?;
                }
                Ok(())
            }
            _ => Err(Malformed("a field of unknown type")),
        }
    }

    fn each_field(
        &mut self,
        mut take: impl FnMut(&mut Self, &FieldHeader) -> Result<bool, HeaderError>,
    ) -> Result<(), HeaderError> {
        let mut last = 0;
        while let Some(field) = self.field(&mut last)? {
            if !take(self, &field)? {
                self.skip(field.kind, 0)?;
            }
        }
        Ok(())
    }
}

/// Reads one header from the start of `bytes`; also gives its length.
pub(crate) fn parse(bytes: &[u8]) -> Result<(PageHeader, usize), HeaderError> {
    let mut input = Input { bytes, at: 0 };
    let mut header = PageHeader {
        kind: PageKind::Other,
        compressed_size: 0,
        uncompressed_size: 0,
        crc: None,
        num_values: 0,
        encoding: -1,
        def_encoding: -1,
        rep_encoding: -1,
    };
    let mut page_type = -1;
    let mut body = false;
    let (mut def_bytes, mut rep_bytes, mut compressed) = (0, 0, true);
    input.each_field(|input, field| {
        match field.id {
            1 => page_type = input.int()?,
            2 => header.uncompressed_size = input.size()?,
            3 => header.compressed_size = input.size()?,
            4 => header.crc = Some(input.int()? as u32),
            5 | 7 | 8 => {
                body = true;
                input.each_field(|input, inner| {
                    match (field.id, inner.id) {
                        (_, 1) => header.num_values = input.size()?,
                        (5 | 7, 2) | (8, 4) => header.encoding = input.int()?,
                        (5, 3) => header.def_encoding = input.int()?,
                        (5, 4) => header.rep_encoding = input.int()?,
                        (8, 5) => def_bytes = input.size()?,
                        (8, 6) => rep_bytes = input.size()?,
                        (8, 7) => compressed = inner.kind == 1,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    header.kind = match (page_type, body) {
        (0, true) => PageKind::Data,
        (2, true) => PageKind::Dictionary,
        (3, true) => PageKind::DataV2 { def_bytes, rep_bytes, compressed },
        (0 | 2 | 3, false) => return Err(Malformed("a page header without its details")),
        (-1, _) => return Err(Malformed("a page header without a type")),
        _ => PageKind::Other,
    };
    Ok((header, input.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// type 0, sizes 300 and 200, crc -1, data page header (5 values, encodings 8, 3, 3, and
    /// statistics with a binary of 2 bytes).
    const V1: &[u8] = &[
        0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, 0x90, 0x03, 0x15, 0x01, 0x1c, 0x15, 0x0a, 0x15, 0x10, 0x15, 0x06,
        0x15, 0x06, 0x1c, 0x18, 0x02, b'a', b'b', 0x00, 0x00, 0x00,
    ];

    #[test]
    fn a_header_with_statistics_is_read_whole() {
        let (header, length) = parse(V1).unwrap();
        assert_eq!(length, V1.len());
        assert_eq!(header.kind, PageKind::Data);
        assert_eq!((header.uncompressed_size, header.compressed_size), (300, 200));
        assert_eq!(header.crc, Some(u32::MAX));
        assert_eq!((header.num_values, header.encoding, header.def_encoding), (5, 8, 3));
    }

    #[test]
    fn every_prefix_is_short() {
        for end in 0..V1.len() {
            assert_eq!(parse(&V1[..end]), Err(Short), "{end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((_, length)) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
