//! Page headers of a column chunk: Thrift's compact protocol, just as much of it as they use.
//!
//! The Parquet crate keeps its header type to itself; reading it here lets pages be streamed,
//! checked and decompressed into buffers that are used again. The format is that of
//! `parquet.thrift` (struct `PageHeader`). All input is foreign: nothing here trusts a length.

use super::thrift::Input;
use super::thrift::ThriftError::{self, Malformed};

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

/// Reads one header from the start of `bytes`; also gives its length.
pub(crate) fn parse(bytes: &[u8]) -> Result<(PageHeader, usize), ThriftError> {
    let mut input = Input::new(bytes);
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
    Ok((header, input.read()))
}

#[cfg(test)]
mod tests {
    use super::super::thrift::ThriftError::Short;
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
