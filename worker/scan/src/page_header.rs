//! Page headers of a column chunk, read from Thrift's compact protocol.
//!
//! The Parquet crate does not export its header type. Reading headers here allows pages to be streamed, checked and
//! decompressed into reused buffers. The format is struct `PageHeader` of `parquet.thrift`. All input is untrusted: no
//! length is used without a check.

use crate::thrift::ThriftError::{self, Malformed};
use crate::thrift::ThriftReader;

/// The kind of a page.
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
    /// The format's number of the encoding.
    pub encoding: i32,
    /// The encoding of the levels in version 1.
    pub def_encoding: i32,
    pub rep_encoding: i32,
}

/// The part of a header that is specific to the kind of page.
struct Details {
    num_values: usize,
    encoding: i32,
    def_encoding: i32,
    rep_encoding: i32,
    def_bytes: usize,
    rep_bytes: usize,
    compressed: bool,
}

impl Details {
    const NONE: Details = Details {
        num_values: 0,
        encoding: -1,
        def_encoding: -1,
        rep_encoding: -1,
        def_bytes: 0,
        rep_bytes: 0,
        compressed: true,
    };
}

/// Reads the details that are in the header's field `field`.
fn details(input: &mut ThriftReader<'_>, field: i16) -> Result<Details, ThriftError> {
    let mut details = Details::NONE;
    input.each_field(|input, inner| {
        match (field, inner.id) {
            (_, 1) => details.num_values = input.size()?,
            (DATA | DICTIONARY, 2) | (DATA_V2, 4) => details.encoding = input.int()?,
            (DATA, 3) => details.def_encoding = input.int()?,
            (DATA, 4) => details.rep_encoding = input.int()?,
            (DATA_V2, 5) => details.def_bytes = input.size()?,
            (DATA_V2, 6) => details.rep_bytes = input.size()?,
            (DATA_V2, 7) => details.compressed = inner.kind == 1,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(details)
}

/// The field of a header that has the details of each kind of page.
const DATA: i16 = 5;
const DICTIONARY: i16 = 7;
const DATA_V2: i16 = 8;

/// Reads one header from the start of `bytes`. Also returns its length.
pub(crate) fn parse(bytes: &[u8]) -> Result<(PageHeader, usize), ThriftError> {
    let mut input = ThriftReader::new(bytes);
    let (mut page_type, mut compressed_size, mut uncompressed_size, mut crc) = (-1, 0, 0, None);
    // Some writers store the details of several kinds; the page's type decides.
    let (mut data, mut dictionary, mut data_v2) = (None, None, None);
    input.each_field(|input, field| {
        match field.id {
            1 => page_type = input.int()?,
            2 => uncompressed_size = input.size()?,
            3 => compressed_size = input.size()?,
            // Signed in the format, but some writers store it unsigned.
            4 => crc = Some(input.zigzag()? as u32),
            DATA => data = Some(details(input, DATA)?),
            DICTIONARY => dictionary = Some(details(input, DICTIONARY)?),
            DATA_V2 => data_v2 = Some(details(input, DATA_V2)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let details = match page_type {
        0 => data,
        2 => dictionary,
        3 => data_v2,
        -1 => return Err(Malformed("a page header has no type")),
        _ => Some(Details::NONE),
    };
    let details = details.ok_or(Malformed("a page header does not have the details of its page type"))?;
    let Details { num_values, encoding, def_encoding, rep_encoding, def_bytes, rep_bytes, compressed } =
        details;
    let kind = match page_type {
        0 => PageKind::Data,
        2 => PageKind::Dictionary,
        3 => PageKind::DataV2 { def_bytes, rep_bytes, compressed },
        _ => PageKind::Other,
    };
    let header = PageHeader {
        kind,
        compressed_size,
        uncompressed_size,
        crc,
        num_values,
        encoding,
        def_encoding,
        rep_encoding,
    };
    Ok((header, input.read()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thrift::ThriftError::Short;
    use proptest::prelude::*;

    /// Type 0, sizes 300 and 200, CRC -1, data page header (5 values, encodings 8, 3, 3, and
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

    fn parsed(parts: &[&[u8]]) -> (PageHeader, usize) {
        parse(&parts.concat()).unwrap_or_else(|error| panic!("{parts:?}: {error:?}"))
    }

    /// Unknown fields between known ones, from other structs or later versions of the format, are skipped.
    #[test]
    fn unknown_fields_of_any_type_are_skipped() {
        let (head, tail) = (&V1[..2], &V1[2..]);
        let expect = parsed(&[V1]).0;
        let unknown: &[&[u8]] = &[
            // An empty list of every type, in both forms; a set.
            &[0x09, 0x00],
            &[0x09, 0x03],
            &[0x09, 0x0c],
            &[0x09, 0x0f],
            &[0x09, 0xf0, 0x00],
            &[0x09, 0xfc, 0x00],
            &[0x0a, 0x00],
            // Lists of booleans, structs, lists, and many integers.
            &[0x09, 0x21, 1, 2],
            &[0x09, 0x22, 1, 2],
            &[0x09, 0x2c, 0x15, 0x02, 0x00, 0x00],
            &[0x09, 0x29, 0x00, 0x15, 0x02],
            &[0x09, 0xf5, 0x02, 0x80, 0x01, 0x03],
            // Maps: empty, strings to booleans, integers to empty lists.
            &[0x0b, 0x00],
            &[0x0b, 0x01, 0x81, 0x01, b'x', 0x01],
            &[0x0b, 0x02, 0x59, 0x02, 0x00, 0x04, 0x00],
            // Booleans, a byte, a double, bytes, an empty struct, a UUID.
            &[0x01],
            &[0x02],
            &[0x03, 0xff],
            &[0x07, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x08, 0x03, 0xff, 0xfe, 0x00],
            &[0x0c, 0x00],
            &[0x0d, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        ];
        for value in unknown {
            // As field 40 with an explicit number, so that the number of field 2 is explicit as well.
            let (kind, value) = (value[0], &value[1..]);
            let all: &[&[u8]] = &[head, &[kind, 80], value, &[0x05, 0x04], &tail[1..]];
            let (header, length) = parsed(all);
            assert_eq!((header, length), (expect, all.concat().len()), "{kind}, {value:?}");
            // Also as the last field of the details.
            let (front, end) = V1.split_at(V1.len() - 2);
            let all: &[&[u8]] = &[front, &[kind, 80], value, end];
            assert_eq!(parsed(all).0, expect, "{kind}, {value:?}");
        }
        for kind in [0x00, 0x0e, 0x0f] {
            let all: &[&[u8]] = &[head, &[kind | 0x20], tail];
            let result = parse(&all.concat());
            assert!(matches!(result, Err(Malformed(_))), "{kind}: {result:?}");
        }
        let all: &[&[u8]] = &[head, &[0x2b, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x11], tail];
        assert!(parse(&all.concat()).is_err(), "an endless map");
    }

    #[test]
    fn the_details_of_the_page_type_are_used() {
        // Type 3, sizes 40 and 20; details of a dictionary and of a page of version 1 precede those of version 2.
        let before: &[u8] =
            &[0x15, 0x06, 0x15, 0x50, 0x15, 0x28, 0x2c, 0x15, 0x02, 0x15, 0x10, 0x15, 0x06, 0x15, 0x06, 0x00];
        let dictionary: &[u8] = &[0x2c, 0x15, 0x04, 0x15, 0x04, 0x00];
        // 7 values, 1 null, 7 rows, encoding 8, levels of 3 and 0 bytes.
        let v2: &[u8] = &[0x1c, 0x15, 0x0e, 0x15, 0x02, 0x15, 0x0e, 0x15, 0x10, 0x15, 0x06, 0x15, 0x00];
        for (flag, expect) in [(&[][..], true), (&[0x11], true), (&[0x12], false)] {
            // With statistics that are not UTF-8.
            let (header, _) = parsed(&[
                before,
                dictionary,
                v2,
                flag,
                &[0x0c, 0x10, 0x18, 0x02, 0xff, 0x00, 0x36, 0x01, 0x00, 0x00, 0x00],
            ]);
            let kind = PageKind::DataV2 { def_bytes: 3, rep_bytes: 0, compressed: expect };
            assert_eq!((header.kind, header.num_values, header.encoding), (kind, 7, 8));
            assert_eq!((header.uncompressed_size, header.compressed_size), (40, 20));
        }
        assert!(parse(&[before, dictionary, &[0x00]].concat()).is_err(), "no details of version 2");
    }

    #[test]
    fn checksums_are_signed_or_not() {
        for crc in [&[0x15, 0x01][..], &[0x16, 0xfe, 0xff, 0xff, 0xff, 0x1f]] {
            let (header, _) = parsed(&[&V1[..8], crc, &V1[10..]]);
            assert_eq!(header.crc, Some(u32::MAX));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_result(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((_, length)) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
