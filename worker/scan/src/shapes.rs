//! Column chunks that are encoded by hand, byte by byte, in shapes that current writers do not produce: what old or
//! unusual writers left in files, and how the format requires them to be read.
//!
//! Not here: shapes that concern a single module (its own tests).

use std::ops::Range;
use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use parquet::basic::Compression;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::SchemaDescriptor;
use tally_common::budget::Budget;
use tally_dataset::{Bits, NULL_CODE};
use tokio::runtime::Runtime;

use crate::columns::{BoolReader, IntReader};
use crate::cursor::{Cursor, Wanted};
use crate::error::Fault;
use crate::feed::Feed;
use crate::fetch;
use crate::page::Pages;
use crate::source::{InputFile, OpenFile};
use crate::text::TextReader;
use crate::{ScanContext, ScanCounters, checked_range};

pub(crate) const PLAIN: i64 = 0;
pub(crate) const DICTIONARY: i64 = 8;
const RLE: i64 = 3;

/// A field in Thrift's compact protocol. Its number is `step` larger than that of the previous field.
pub(crate) fn int(step: u8, value: i64) -> Vec<u8> {
    let mut out = vec![step << 4 | 5];
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

/// The header of a page with these uncompressed and compressed sizes.
pub(crate) fn header(kind: i64, sizes: [i64; 2], crc: &[u8], (step, details): (u8, Vec<u8>)) -> Vec<u8> {
    let [uncompressed, compressed] = sizes;
    // With a checksum between them, the number of the details is one step closer.
    let step = step - u8::from(!crc.is_empty());
    let head = [int(1, kind), int(1, uncompressed), int(1, compressed), crc.to_vec()].concat();
    [head, vec![step << 4 | 12], details, vec![0, 0]].concat()
}

pub(crate) fn with(kind: i64, body: &[u8], details: (u8, Vec<u8>)) -> Vec<u8> {
    [header(kind, [body.len() as i64; 2], &[], details), body.to_vec()].concat()
}

/// Details of a data page of version 1.
pub(crate) fn v1_details(values: i64, encoding: i64) -> (u8, Vec<u8>) {
    (2, [int(1, values), int(1, encoding), int(1, RLE), int(1, RLE)].concat())
}

pub(crate) fn v1(values: i64, encoding: i64, body: &[u8]) -> Vec<u8> {
    with(0, body, v1_details(values, encoding))
}

/// Details of a data page of version 2 whose levels have `levels` bytes; `flag` is its field `is_compressed`.
pub(crate) fn v2_details(values: i64, encoding: i64, levels: usize, flag: &[u8]) -> (u8, Vec<u8>) {
    // The number of nulls is wrong, which does not matter.
    let counts = [int(1, values), int(1, values + 3), int(1, values), int(1, encoding)].concat();
    (5, [counts, int(1, levels as i64), int(1, 0), flag.to_vec()].concat())
}

pub(crate) fn dictionary(values: i64, body: &[u8]) -> Vec<u8> {
    with(2, body, (4, [int(1, values), int(1, PLAIN)].concat()))
}

/// Levels of version 1, given their runs.
pub(crate) fn levels(runs: &[u8]) -> Vec<u8> {
    [&(runs.len() as u32).to_le_bytes(), runs].concat()
}

pub(crate) fn longs(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn texts(values: &[&str]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|text| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat())
        .collect()
}

/// The footer's description of a chunk.
pub(crate) struct Chunk {
    column: &'static str,
    rows: usize,
    pub(crate) compression: Compression,
    /// Offsets of its first data page and of its dictionary.
    offsets: (i64, Option<i64>),
    size: usize,
}

impl Chunk {
    /// A chunk of all of `bytes`, after the first four bytes of the file.
    pub(crate) fn of(column: &'static str, rows: usize, bytes: &[u8]) -> Chunk {
        let compression = Compression::UNCOMPRESSED;
        Chunk { column, rows, compression, offsets: (4, None), size: bytes.len() }
    }

    fn metadata(&self) -> ColumnChunkMetaData {
        let schema = parse_message_type(&format!("message m {{ {} }}", self.column)).unwrap();
        let schema = SchemaDescriptor::new(Arc::new(schema));
        ColumnChunkMetaData::builder(schema.column(0))
            .set_compression(self.compression)
            .set_num_values(self.rows as i64)
            .set_data_page_offset(self.offsets.0)
            .set_dictionary_page_offset(self.offsets.1)
            .set_total_compressed_size(self.size as i64)
            .build()
            .unwrap()
    }
}

/// How the bytes of a file are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FeedKind {
    Disk,
    /// From a store, in windows.
    Windows,
    /// From a store, in one fetch.
    Whole,
}

/// A value of any column, formatted.
pub(crate) type Value = Option<String>;

/// The values of a chunk.
pub(crate) fn read(chunk: &Chunk, bytes: &[u8], feed_kind: FeedKind) -> Result<Vec<Value>, Fault> {
    read_pages(chunk, bytes, feed_kind, |metadata, pages| values(metadata, pages, chunk.rows))
}

/// Passes the pages of a chunk to `read`.
pub(crate) fn read_pages<T>(
    chunk: &Chunk,
    bytes: &[u8],
    feed_kind: FeedKind,
    read: impl FnOnce(&ColumnChunkMetaData, Pages) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = [b"PAR1", bytes].concat();
    let context = ScanContext {
        io: runtime.handle().clone(),
        window: 16,
        whole: 1 << 20,
        budget: Budget::new(1 << 20),
        cancelled: Default::default(),
        counters: Arc::new(ScanCounters::default()),
        fetched: Arc::default(),
        rows: Arc::default(),
    };
    assert!(!context.cancelled.is_cancelled());
    let input = match feed_kind {
        FeedKind::Disk => {
            let name = folder.path().join("x");
            std::fs::write(&name, &file).unwrap();
            let path = Path::from_absolute_path(&name).unwrap();
            let store = Arc::new(LocalFileSystem::new());
            runtime.block_on(InputFile::head(store, path, name.display().to_string())).unwrap()
        }
        FeedKind::Windows | FeedKind::Whole => {
            let store = Arc::new(InMemory::new());
            runtime.block_on(store.put(&Path::from("x"), file.into())).unwrap();
            runtime.block_on(InputFile::head(store, Path::from("x"), "s3://b/x".into())).unwrap()
        }
    };
    let file = Arc::new(OpenFile::open(input).unwrap());
    let metadata = chunk.metadata();
    let Some(range) = checked_range(&metadata, file.input.size) else {
        return Fault::corrupt("beyond the file");
    };
    let feed = match feed_kind {
        FeedKind::Disk | FeedKind::Windows => Feed::start(&context, &file, range.clone()),
        FeedKind::Whole => {
            let ranges = [range.clone()];
            let requests = fetch::requests(&ranges, 0);
            let started = fetch::start(&context.io, &file.input, &ranges, requests, &context.budget);
            let (fetch, mut arrivals) = started.unwrap();
            Feed::fetched(&context, "", range.end - range.start, arrivals.remove(0), fetch)
        }
    };
    let pages = Pages::new(feed, &metadata, (file, range.end), context.budget.clone())?;
    read(&metadata, pages)
}

fn values(metadata: &ColumnChunkMetaData, pages: Pages, rows: usize) -> Result<Vec<Value>, Fault> {
    let descriptor = metadata.column_descr_ptr();
    let cursor = Cursor::rows(pages, &descriptor);
    let (mut valid, wanted) = (Bits::default(), Wanted::Entries(rows));
    let value = |valid: &Bits, at, text: String| valid.get(at).then_some(text);
    Ok(match descriptor.physical_type() {
        parquet::basic::Type::INT64 => {
            let mut out = vec![];
            IntReader::<i64>::new(cursor).read(wanted, &mut valid, &mut out)?;
            (0..rows).map(|at| value(&valid, at, out[at].to_string())).collect()
        }
        parquet::basic::Type::BOOLEAN => {
            let mut out = Bits::default();
            BoolReader::new(cursor).read(wanted, &mut valid, &mut out)?;
            (0..rows).map(|at| value(&valid, at, out.get(at).to_string())).collect()
        }
        _ => {
            let (mut codes, mut known) = (vec![], vec![]);
            let mut resolve = |texts: &[&[u8]], out: &mut [u32]| {
                for (text, code) in texts.iter().zip(out) {
                    *code = known.len() as u32;
                    known.push(String::from_utf8_lossy(text).into_owned());
                }
                Ok(())
            };
            TextReader::new(cursor).read(wanted, None, &mut codes, &mut resolve)?;
            let text = |&code: &u32| (code != NULL_CODE).then(|| known[code as usize].clone());
            codes.iter().map(text).collect()
        }
    })
}

pub(crate) const LONG: &str = "required int64 x;";
const LONG_OR_NULL: &str = "optional int64 x;";
pub(crate) const TEXT: &str = "required binary x (UTF8);";
const TEXT_OR_NULL: &str = "optional binary x (UTF8);";
pub(crate) const FLAG: &str = "required boolean x;";
const FLAG_OR_NULL: &str = "optional boolean x;";

fn check(what: &str, chunk: &Chunk, bytes: &[u8], expect: &[Option<&str>]) {
    let got = read(chunk, bytes, FeedKind::Disk).unwrap_or_else(|fault| panic!("{what}: {fault:?}"));
    assert_eq!(got, expect.iter().map(|value| value.map(str::to_string)).collect::<Vec<_>>(), "{what}");
}

#[test]
fn indices_of_no_bits_have_runs_or_none() {
    for (what, indices) in [
        ("a run", &[0, 8][..]),
        ("a group", &[0, 3]),
        ("runs that are too short", &[0, 2]),
        ("no run", &[0]),
        ("not even a width", &[]),
    ] {
        let bytes = [dictionary(1, &longs(&[-7])), v1(4, DICTIONARY, indices)].concat();
        check(what, &Chunk::of(LONG, 4, &bytes), &bytes, &[Some("-7"); 4]);
        let bytes = [dictionary(1, &texts(&["seven"])), v1(4, DICTIONARY, indices)].concat();
        check(what, &Chunk::of(TEXT, 4, &bytes), &bytes, &[Some("seven"); 4]);
        // Levels: two values, a null, a value.
        let body = [levels(&[3, 0b1011]), indices.to_vec()].concat();
        let expect = [Some("seven"), Some("seven"), None, Some("seven")];
        let bytes = [dictionary(1, &texts(&["seven"])), v1(4, DICTIONARY, &body)].concat();
        check(what, &Chunk::of(TEXT_OR_NULL, 4, &bytes), &bytes, &expect);
        // An empty dictionary has no value for any index.
        let bytes = [dictionary(0, &[]), v1(4, DICTIONARY, &body)].concat();
        let result = read(&Chunk::of(TEXT_OR_NULL, 4, &bytes), &bytes, FeedKind::Disk);
        assert!(matches!(result, Err(Fault::Corrupt(_))), "{what}: {result:?}");
    }
}

/// A page that has only nulls, in each encoding, may have no body.
#[test]
fn pages_of_nulls_need_no_body() {
    let nulls = levels(&[6, 0]);
    let delta = [0x80, 1, 4, 0, 0];
    for (column, encoding, bodies) in [
        (LONG_OR_NULL, PLAIN, vec![vec![]]),
        (LONG_OR_NULL, DICTIONARY, vec![vec![], vec![0], vec![1]]),
        (LONG_OR_NULL, 5, vec![vec![], delta.to_vec()]),
        (LONG_OR_NULL, 9, vec![vec![]]),
        (TEXT_OR_NULL, PLAIN, vec![vec![]]),
        (TEXT_OR_NULL, DICTIONARY, vec![vec![], vec![0]]),
        (TEXT_OR_NULL, 6, vec![vec![], delta.to_vec()]),
        (TEXT_OR_NULL, 7, vec![vec![], delta.to_vec(), delta.repeat(2)]),
        (FLAG_OR_NULL, PLAIN, vec![vec![]]),
        (FLAG_OR_NULL, RLE, vec![vec![], levels(&[])]),
    ] {
        for body in bodies {
            let bytes = v1(3, encoding, &[&nulls[..], &body].concat());
            check(&format!("{column} {encoding}"), &Chunk::of(column, 3, &bytes), &bytes, &[None; 3]);
            let page = [&nulls[4..], &body].concat();
            for flag in [&[][..], &[0x11], &[0x12]] {
                let bytes = with(3, &page, v2_details(3, encoding, 2, flag));
                let mut chunk = Chunk::of(column, 3, &bytes);
                if body.is_empty() || flag == [0x12] {
                    chunk.compression = Compression::SNAPPY;
                }
                check(&format!("{column} {encoding}, version 2"), &chunk, &bytes, &[None; 3]);
            }
        }
    }
}

/// Two data pages after a dictionary, with footers that omit or misstate its offset.
#[test]
fn a_dictionary_is_found_wherever_the_footer_says_it_is() {
    let dictionary = dictionary(2, &texts(&["one", "two"]));
    let (first, second) = (v1(3, DICTIONARY, &[1, 3, 0b010]), v1(2, DICTIONARY, &[1, 4, 1]));
    let bytes = [&dictionary[..], &first, &second].concat();
    let expect = [Some("one"), Some("two"), Some("one"), Some("two"), Some("two")];
    let data = 4 + dictionary.len() as i64;
    for offsets in [(data, Some(4)), (4, None), (4, Some(0)), (4, Some(4)), (4, Some(-1)), (4, Some(data))] {
        let chunk = Chunk { offsets, ..Chunk::of(TEXT, 5, &bytes) };
        check(&format!("{offsets:?}"), &chunk, &bytes, &expect);
    }
}

/// Chunks of writers before parquet-mr 1.2.9: their size does not include the bytes of the dictionary's header.
#[test]
fn the_size_of_a_chunk_may_omit_the_header_of_its_dictionary() {
    let body = texts(&["one", "two"]);
    let dictionary = dictionary(2, &body);
    let uncounted = dictionary.len() - body.len();
    let expect = ["one", "two", "one", "two", "two", "one"].map(|text| Some(text.to_string()));
    // The last page is longer or shorter than the omitted bytes, or its header or all of it is cut.
    for padding in [0, 1, uncounted, 40] {
        let filler = vec![0xaa; padding];
        let first = v1(3, DICTIONARY, &[1, 3, 0b010]);
        let second = v1(3, DICTIONARY, &[&[1, 4, 1, 2, 0], &filler[..]].concat());
        let bytes = [&dictionary[..], &first, &second].concat();
        let data = 4 + dictionary.len() as i64;
        for feed_kind in [FeedKind::Disk, FeedKind::Windows, FeedKind::Whole] {
            let short =
                |by: usize, offsets| Chunk { offsets, size: bytes.len() - by, ..Chunk::of(TEXT, 6, &bytes) };
            // After the chunk: nothing, or another chunk.
            for behind in [vec![], vec![0x15; 300]] {
                let file = [&bytes[..], &behind].concat();
                for offsets in [(data, Some(4)), (4, None)] {
                    for by in [0, 1, uncounted] {
                        let got = read(&short(by, offsets), &file, feed_kind);
                        let got =
                            got.unwrap_or_else(|fault| panic!("{feed_kind:?} {by} {padding}: {fault:?}"));
                        assert_eq!(got, expect, "{feed_kind:?} {by} {padding}");
                    }
                    // A larger difference is an error.
                    let result = read(&short(uncounted + 1, offsets), &file, feed_kind);
                    assert!(matches!(result, Err(Fault::Corrupt(_))), "{feed_kind:?} {padding}: {result:?}");
                }
            }
        }
    }
    // Without a dictionary any difference is an error.
    let bytes = v1(2, PLAIN, &longs(&[1, 2]));
    let chunk = Chunk { size: bytes.len() - 1, ..Chunk::of(LONG, 2, &bytes) };
    let result = read(&chunk, &[&bytes[..], &[0; 99]].concat(), FeedKind::Disk);
    assert!(matches!(result, Err(Fault::Corrupt(_))), "{result:?}");
}

#[test]
fn pages_without_values_are_skipped() {
    let one = |value| v1(1, PLAIN, &longs(&[value]));
    let index = with(1, &[9; 30], (3, vec![]));
    let unknown = with(77, &[9; 3], (9, int(1, 5)));
    let nothing = v1(0, PLAIN, &[]);
    let rubbish = v1(0, 77, &[9; 5]);
    let wrong_sum = [header(0, [3, 3], &int(1, 1), v1_details(0, PLAIN)), vec![1, 2, 3]].concat();
    let bytes = [nothing.clone(), one(1), index, rubbish, one(2), unknown, wrong_sum, one(3), vec![0xff; 20]]
        .concat();
    check("all", &Chunk::of(LONG, 3, &bytes), &bytes, &[Some("1"), Some("2"), Some("3")]);
}

#[test]
fn checksums_are_compared_if_present() {
    let body = longs(&[5, 6]);
    let page =
        |crc: &[u8], body: &[u8]| [header(0, [16, 16], crc, v1_details(2, PLAIN)), body.to_vec()].concat();
    let right = crc32fast::hash(&body);
    let chunk = |bytes: &[u8]| Chunk::of(LONG, 2, bytes);
    for crc in [vec![], int(1, i64::from(right as i32)), int(1, i64::from(right))] {
        let bytes = page(&crc, &body);
        check("right", &chunk(&bytes), &bytes, &[Some("5"), Some("6")]);
    }
    let bytes = page(&int(1, i64::from(right as i32) ^ 1), &body);
    let result = read(&chunk(&bytes), &bytes, FeedKind::Disk);
    assert!(matches!(&result, Err(Fault::Corrupt(what)) if what.contains("checksum")), "{result:?}");
}

/// An uncompressed page has the size of its bytes; a compressed one must have the size that its header states.
#[test]
fn wrong_sizes_of_uncompressed_pages_are_ignored() {
    let body = longs(&[5, 6]);
    let null_first = [&[3, 0b110][..], &body].concat();
    for wrong in [0, 1, 1000] {
        let bytes = [header(0, [wrong, 16], &[], v1_details(2, PLAIN)), body.clone()].concat();
        check("version 1", &Chunk::of(LONG, 2, &bytes), &bytes, &[Some("5"), Some("6")]);
        for (flag, compression) in [
            (&[][..], Compression::UNCOMPRESSED),
            (&[0x11], Compression::UNCOMPRESSED),
            (&[0x12], Compression::SNAPPY),
            (&[0x12], Compression::UNCOMPRESSED),
        ] {
            let head = header(3, [wrong, null_first.len() as i64], &[], v2_details(3, PLAIN, 2, flag));
            let bytes = [head, null_first.clone()].concat();
            let chunk = Chunk { compression, ..Chunk::of(LONG_OR_NULL, 3, &bytes) };
            check("version 2", &chunk, &bytes, &[None, Some("5"), Some("6")]);
        }
        let packed = snap::raw::Encoder::new().compress_vec(&body).unwrap();
        let head = header(0, [wrong, packed.len() as i64], &[], v1_details(2, PLAIN));
        let bytes = [head, packed].concat();
        let chunk = Chunk { compression: Compression::SNAPPY, ..Chunk::of(LONG, 2, &bytes) };
        let result = read(&chunk, &bytes, FeedKind::Disk);
        assert!(matches!(result, Err(Fault::Corrupt(_))), "{result:?}");
    }
}

/// Booleans in runs: with padding, without it, and with trailing bytes.
#[test]
fn runs_of_booleans_may_have_padding_or_trailing_bytes() {
    for runs in [
        levels(&[3, 0b101]),
        levels(&[9, 0b101]),
        [levels(&[3, 0b101]), vec![7; 9]].concat(),
        [vec![99, 0, 0, 0], vec![3, 0b101]].concat(),
    ] {
        let bytes = v1(3, RLE, &runs);
        check(
            &format!("{runs:?}"),
            &Chunk::of(FLAG, 3, &bytes),
            &bytes,
            &[Some("true"), Some("false"), Some("true")],
        );
    }
}

#[test]
fn a_range_is_what_the_footer_says() {
    let chunk = Chunk { offsets: (9, Some(0)), ..Chunk::of(LONG, 1, &[0; 5]) };
    let expect: Option<Range<u64>> = Some(9..14);
    assert_eq!(checked_range(&chunk.metadata(), 14), expect);
    assert_eq!(checked_range(&chunk.metadata(), 13), None);
}
