//! Footers that are encoded here byte by byte, in forms that current writers do not produce; and the footer of a real
//! writer, compared with the result of the Parquet crate's parser.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, RecordBatch, StringArray, StructArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;

use super::*;

/// A Thrift struct being encoded.
#[derive(Default, Clone)]
struct Struct {
    bytes: Vec<u8>,
    last: i16,
}

impl Struct {
    fn head(mut self, id: i16, kind: u8) -> Self {
        match id - self.last {
            delta @ 1..=15 => self.bytes.push((delta as u8) << 4 | kind),
            _ => {
                self.bytes.push(kind);
                varint(&mut self.bytes, (id << 1) as u64);
            }
        }
        self.last = id;
        self
    }

    fn number(mut self, id: i16, kind: u8, value: i64) -> Self {
        self = self.head(id, kind);
        varint(&mut self.bytes, (value << 1 ^ value >> 63) as u64);
        self
    }

    fn int(self, id: i16, value: i32) -> Self {
        self.number(id, I32, value.into())
    }

    fn long(self, id: i16, value: i64) -> Self {
        self.number(id, I64, value)
    }

    fn text(mut self, id: i16, text: &[u8]) -> Self {
        self = self.head(id, BINARY);
        varint(&mut self.bytes, text.len() as u64);
        self.bytes.extend(text);
        self
    }

    fn inner(mut self, id: i16, inner: Struct) -> Self {
        self = self.head(id, STRUCT);
        self.bytes.extend(inner.end());
        self
    }

    /// A list with its header.
    fn list(mut self, id: i16, kind: u8, elements: Vec<Vec<u8>>) -> Self {
        self = self.head(id, LIST);
        match elements.len() {
            few @ ..15 => self.bytes.push((few as u8) << 4 | kind),
            many => {
                self.bytes.push(0xf0 | kind);
                varint(&mut self.bytes, many as u64);
            }
        }
        self.bytes.extend(elements.concat());
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn texts(parts: &[&str]) -> Vec<Vec<u8>> {
    let text = |part: &&str| [&[part.len() as u8], part.as_bytes()].concat();
    parts.iter().map(text).collect()
}

/// `x`, `g.y`, and a column whose name looks like the path of the second.
fn schema() -> Vec<Vec<u8>> {
    let leaf = |name: &str| Struct::default().int(1, 1).int(3, 0).text(4, name.as_bytes()).end();
    let group =
        |name: &str, children| Struct::default().int(3, 0).text(4, name.as_bytes()).int(5, children).end();
    vec![group("root", 3), leaf("x"), group("g", 1), leaf("y"), leaf("g.y")]
}

/// The metadata of a chunk. Its data offset distinguishes it from other chunks.
fn meta(path: &[&str], data: i64) -> Struct {
    let meta = Struct::default().int(1, 1).list(2, I32, vec![vec![0]]).list(3, BINARY, texts(path));
    meta.int(4, 0).long(5, 7).long(6, 100).long(7, 90).long(9, data)
}

fn chunk(path: &[&str], data: i64) -> Vec<u8> {
    Struct::default().long(2, data).inner(3, meta(path, data)).end()
}

fn group(chunks: Vec<Vec<u8>>) -> Vec<u8> {
    Struct::default().list(1, STRUCT, chunks).long(2, 300).long(3, 7).end()
}

fn file(groups: Vec<Vec<u8>>) -> Vec<u8> {
    Struct::default().int(1, 2).list(2, STRUCT, schema()).long(3, 7).list(4, STRUCT, groups).end()
}

/// The data offsets of the chunks, and the chunks that cannot be read.
type Places = (Vec<i64>, Vec<(usize, Unreadable)>);

/// The data offset of each column, in the order of the schema.
fn places(bytes: &[u8]) -> Result<Places, String> {
    let (metadata, unreadable) = decode(bytes).map_err(|fault| format!("{fault:?}"))?;
    let mut why: Vec<_> = unreadable.into_iter().map(|((_, leaf), why)| (leaf, why)).collect();
    why.sort_by_key(|(leaf, _)| *leaf);
    let columns = metadata.row_group(0).columns();
    // An unreadable chunk must not look like a valid one.
    let unread: Vec<usize> = (0..columns.len()).filter(|&leaf| columns[leaf].num_values() < 0).collect();
    assert_eq!(unread, why.iter().map(|(leaf, _)| *leaf).collect::<Vec<_>>());
    for (chunk, column) in columns.iter().zip(metadata.file_metadata().schema_descr().columns()) {
        assert_eq!(chunk.column_path(), column.path());
    }
    Ok((columns.iter().map(|chunk| chunk.data_page_offset()).collect(), why))
}

#[test]
fn a_chunk_belongs_to_the_column_that_its_path_names() {
    let (x, gy, dot): (&[&str], &[&str], &[&str]) = (&["x"], &["g", "y"], &["g.y"]);
    let all = [(x, 10), (gy, 20), (dot, 30)];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let chunks = order.map(|at| chunk(all[at].0, all[at].1));
        assert_eq!(places(&file(vec![group(chunks.to_vec())])), Ok((vec![10, 20, 30], vec![])), "{order:?}");
    }
    let of = |chunks: [(&[&str], i64); 3]| {
        places(&file(vec![group(chunks.map(|(path, data)| chunk(path, data)).to_vec())]))
    };
    // Without paths, chunks are at the positions of their columns.
    assert_eq!(of([(&[], 10), (&[], 20), (&[], 30)]), Ok((vec![10, 20, 30], vec![])));
    // Missing and duplicate chunks are unreadable.
    let (twice, missing) = (Unreadable::Twice, Unreadable::Missing);
    assert_eq!(of([(gy, 10), (gy, 20), (dot, 30)]), Ok((vec![0, 0, 30], vec![(0, missing), (1, twice)])));
    assert_eq!(
        of([(gy, 10), (gy, 20), (gy, 30)]),
        Ok((vec![0; 3], vec![(0, missing), (1, twice), (2, missing)]))
    );
    assert_eq!(of([(x, 10), (&["g", "z"], 20), (dot, 30)]), Ok((vec![10, 0, 30], vec![(1, missing)])));
    // The path of a group does not name a column.
    assert_eq!(of([(x, 10), (&["g"], 20), (dot, 30)]), Ok((vec![10, 0, 30], vec![(1, missing)])));
}

#[test]
fn missing_or_additional_chunks_are_an_error() {
    for count in [0, 2, 4] {
        let error = places(&file(vec![group(vec![chunk(&["x"], 10); count])])).unwrap_err();
        assert!(error.contains("row group 0") && error.contains("column chunks"), "{error}");
    }
}

#[test]
fn empty_lists_may_have_any_element_type() {
    for kind in 0..=15 {
        // No row groups.
        let none = Struct::default().int(1, 2).list(2, STRUCT, schema()).long(3, 0).list(4, kind, vec![]);
        let none = none.list(5, kind, vec![]).list(7, kind, vec![]).end();
        let (metadata, _) = decode(&none).unwrap();
        assert_eq!((metadata.num_row_groups(), metadata.file_metadata().num_rows()), (0, 0), "{kind}");
        // Lists of a chunk and of a row group: encodings, key-value metadata, page encodings, path; sorting columns.
        let meta = Struct::default().int(1, 1).list(2, kind, vec![]).list(3, kind, vec![]);
        let meta =
            meta.int(4, 0).long(5, 7).long(7, 90).list(8, kind, vec![]).long(9, 10).list(13, kind, vec![]);
        let chunk = Struct::default().long(2, 0).inner(3, meta).end();
        let group = Struct::default().list(1, STRUCT, vec![chunk; 3]).long(2, 0).long(3, 7);
        let group = group.list(4, kind, vec![]).end();
        assert_eq!(places(&file(vec![group])), Ok((vec![10; 3], vec![])), "{kind}");
        // A schema of one node.
        let bare = Struct::default().int(1, 2).list(2, STRUCT, vec![Struct::default().text(4, b"r").end()]);
        let empty = Struct::default().list(1, kind, vec![]).long(2, 0).long(3, 7).end();
        let (metadata, _) = decode(&bare.long(3, 7).list(4, STRUCT, vec![empty]).end()).unwrap();
        assert_eq!(metadata.file_metadata().num_rows(), 7);
        // An empty schema is an error.
        assert!(
            decode(&Struct::default().int(1, 2).list(2, kind, vec![]).long(3, 0).list(4, kind, vec![]).end())
                .is_err()
        );
    }
    // A list that has elements must state their type.
    let wrong = Struct::default().int(1, 2).list(2, STRUCT, schema()).long(3, 7).list(4, I32, vec![vec![0]]);
    assert!(decode(&wrong.end()).is_err());
}

#[test]
fn unneeded_contents_may_be_anything() {
    let bad = b"\xff\xfe\x80";
    let pair = Struct::default().text(1, bad).text(2, bad).end();
    // Invalid UTF-8; unknown fields of every type, also before the schema; row groups before the schema.
    let chunks = vec![chunk(&["x"], 10), chunk(&["g", "y"], 20), chunk(&["g.y"], 30)];
    let file = Struct::default()
        .list(4, STRUCT, vec![group(chunks)])
        .int(1, 2)
        .text(40, bad)
        .list(2, STRUCT, schema())
        .long(3, 7)
        .list(5, STRUCT, vec![pair])
        .text(6, bad)
        .list(7, STRUCT, vec![Struct::default().inner(9, Struct::default()).end(); 3])
        .inner(60, Struct::default().list(1, I32, vec![vec![2], vec![4]]))
        .head(70, 11);
    let mut bytes = file.bytes;
    // A map of two entries of strings and integers, and an empty one; a set; a boolean; eight bytes.
    bytes.extend([2, 0x85, 1, b'k', 4, 1, b'l', 6]);
    bytes.extend([0x1b, 0]);
    bytes.extend([0x1a, 0x23, 7, 7]);
    bytes.extend([0x11]);
    bytes.extend([0x17, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
    assert_eq!(places(&bytes), Ok((vec![10, 20, 30], vec![])));
    let (metadata, _) = decode(&bytes).unwrap();
    assert_eq!(metadata.file_metadata().created_by(), Some("\u{fffd}\u{fffd}\u{fffd}"));
}

#[test]
fn chunks_that_are_encrypted_or_of_unknown_codecs_are_unreadable_and_no_others() {
    let (x, dot) = (chunk(&["x"], 10), chunk(&["g.y"], 30));
    let of = |middle: Struct| places(&file(vec![group(vec![middle.end(), dot.clone(), x.clone()])]));
    let why = |why| Ok((vec![10, 0, 30], vec![(1, why)]));
    let path: &[&str] = &["g", "y"];
    let footer_key = Struct::default().inner(1, Struct::default());
    let own_key = Struct::default().inner(2, Struct::default().list(1, BINARY, texts(path)).text(2, b"key"));
    // With the footer's key; with its own key and encrypted metadata, without and with additional plain metadata.
    assert_eq!(
        of(Struct::default().long(2, 0).inner(3, meta(path, 20)).inner(8, footer_key)),
        why(Unreadable::Encrypted)
    );
    assert_eq!(
        of(Struct::default().long(2, 0).inner(8, own_key.clone()).text(9, b"??")),
        why(Unreadable::Encrypted)
    );
    assert_eq!(
        of(Struct::default().long(2, 0).inner(3, meta(path, 20)).inner(8, own_key).text(9, b"??")),
        why(Unreadable::Encrypted)
    );
    let codec = |number| {
        let meta =
            Struct::default().list(3, BINARY, texts(path)).int(4, number).long(5, 7).long(7, 9).long(9, 20);
        of(Struct::default().long(2, 0).inner(3, meta))
    };
    assert_eq!(codec(7), Ok((vec![10, 20, 30], vec![])));
    assert_eq!(codec(8), why(Unreadable::Codec(8)));
    assert_eq!(codec(-1), why(Unreadable::Codec(-1)));
    // Without metadata.
    assert!(of(Struct::default().long(2, 0)).is_err());
    // Each unreadable chunk takes memory.
    let many =
        vec![group(vec![Struct::default().inner(8, Struct::default()).end(); 3]); MAX_UNREADABLE / 3 + 1];
    let error = places(&file(many)).unwrap_err();
    assert!(error.contains("encrypted"), "{error}");
}

#[test]
fn rows_are_the_sum_of_the_row_groups_and_never_negative() {
    let chunks = || vec![chunk(&["x"], 10), chunk(&["g", "y"], 20), chunk(&["g.y"], 30)];
    let (metadata, _) = decode(&file(vec![group(chunks()), group(chunks())])).unwrap();
    assert_eq!(metadata.file_metadata().num_rows(), 14);
    for rows in [-1, i64::MIN] {
        let group = Struct::default().list(1, STRUCT, chunks()).long(2, 0).long(3, rows).end();
        assert!(decode(&file(vec![group])).is_err());
    }
    let group = Struct::default().list(1, STRUCT, chunks()).long(2, 0).long(3, i64::MAX).end();
    assert!(decode(&file(vec![group.clone(), group])).is_err());
}

#[test]
fn truncated_footers_are_an_error() {
    let chunks = vec![chunk(&["x"], 10), chunk(&["g", "y"], 20), chunk(&["g.y"], 30)];
    let whole = file(vec![group(chunks)]);
    for length in 0..whole.len() {
        assert!(decode(&whole[..length]).is_err(), "{length} of {}", whole.len());
    }
    for missing in [1, 2, 3, 4] {
        let field = |file: Struct, id| match id {
            id if id == missing => file,
            1 => file.int(1, 2),
            2 => file.list(2, STRUCT, schema()),
            3 => file.long(3, 0),
            _ => file.list(4, STRUCT, vec![]),
        };
        assert!(decode(&(1..=4).fold(Struct::default(), field).end()).is_err(), "without {missing}");
    }
}

#[test]
fn the_footer_of_a_real_writer_is_decoded_as_by_the_parquet_crate() {
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "b"]));
    let pair: ArrayRef =
        Arc::new(StructArray::try_from(vec![("n", numbers.clone()), ("t", texts.clone())]).unwrap());
    let batch = RecordBatch::try_from_iter([("n", numbers), ("pair", pair), ("t", texts)]).unwrap();
    for compression in [Compression::SNAPPY, Compression::ZSTD(Default::default()), Compression::LZ4_RAW] {
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer = ArrowWriter::try_new(vec![], batch.schema(), Some(properties)).unwrap();
        for _ in 0..3 {
            writer.write(&batch).unwrap();
            writer.flush().unwrap();
        }
        let bytes = writer.into_inner().unwrap();
        let body = bytes.len() - FOOTER_SIZE;
        let length = FooterTail::try_from(&bytes[body..]).unwrap().metadata_length();
        let body = &bytes[body - length..body];
        let (ours, unreadable) = decode(body).unwrap();
        let theirs = ParquetMetaDataReader::decode_metadata(body).unwrap();
        assert!(unreadable.is_empty());
        assert_eq!(ours.file_metadata().schema(), theirs.file_metadata().schema());
        assert_eq!(ours.file_metadata().num_rows(), theirs.file_metadata().num_rows());
        assert_eq!(ours.file_metadata().created_by(), theirs.file_metadata().created_by());
        assert_eq!(ours.num_row_groups(), 3);
        for (ours, theirs) in ours.row_groups().iter().zip(theirs.row_groups()) {
            assert_eq!(
                (ours.num_rows(), ours.total_byte_size()),
                (theirs.num_rows(), theirs.total_byte_size())
            );
            for (a, b) in ours.columns().iter().zip(theirs.columns()) {
                assert_eq!(a.column_descr(), b.column_descr());
                assert_eq!(a.byte_range(), b.byte_range());
                assert_eq!(a.compression(), b.compression());
                assert_eq!((a.num_values(), a.uncompressed_size()), (b.num_values(), b.uncompressed_size()));
                assert_eq!(a.data_page_offset(), b.data_page_offset());
                assert_eq!(a.dictionary_page_offset(), b.dictionary_page_offset());
            }
        }
    }
}
