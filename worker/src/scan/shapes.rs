//! Column chunks made by hand, a byte at a time, in shapes that no writer at hand makes any more: what old or odd writers
//! left in files, and how the format says to read it.
//!
//! Not here: shapes that are the matter of one module alone (its own tests).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use parquet::basic::Compression;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::SchemaDescriptor;
use tally_dataset::{Bits, NULL_SYMBOL};
use tokio::runtime::Runtime;

use super::columns::{BoolReader, Flat, Int64Reader};
use super::error::Fault;
use super::feed::Feed;
use super::fetch;
use super::page::Pages;
use super::source::{InputFile, OpenFile};
use super::text::TextReader;
use super::{ScanContext, ScanCounters, checked_range};
use crate::budget::Budget;

const PLAIN: i64 = 0;
const DICTIONARY: i64 = 8;
const RLE: i64 = 3;

/// Thrift's compact protocol: a field that is `step` after the one before.
fn int(step: u8, value: i64) -> Vec<u8> {
    let mut out = vec![step << 4 | 5];
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

fn header(kind: i64, sizes: [usize; 2], crc: &[u8], (step, details): (u8, Vec<u8>)) -> Vec<u8> {
    let [uncompressed, compressed] = sizes.map(|size| size as i64);
    // Where a checksum stands between, the details' number is one less away.
    let step = step - u8::from(!crc.is_empty());
    let head = [int(1, kind), int(1, uncompressed), int(1, compressed), crc.to_vec()].concat();
    [head, vec![step << 4 | 12], details, vec![0, 0]].concat()
}

fn with(kind: i64, body: &[u8], details: (u8, Vec<u8>)) -> Vec<u8> {
    [header(kind, [body.len(); 2], &[], details), body.to_vec()].concat()
}

/// Of a page of version 1.
fn v1_details(values: i64, encoding: i64) -> (u8, Vec<u8>) {
    (2, [int(1, values), int(1, encoding), int(1, RLE), int(1, RLE)].concat())
}

fn v1(values: i64, encoding: i64, body: &[u8]) -> Vec<u8> {
    with(0, body, v1_details(values, encoding))
}

/// Of a page of version 2 with levels of so many bytes; `flag` tells whether it is compressed.
fn v2_details(values: i64, encoding: i64, levels: usize, flag: &[u8]) -> (u8, Vec<u8>) {
    // How many nulls there are is told wrong: nobody needs it.
    let counts = [int(1, values), int(1, values + 3), int(1, values), int(1, encoding)].concat();
    (5, [counts, int(1, levels as i64), int(1, 0), flag.to_vec()].concat())
}

fn dictionary(values: i64, body: &[u8]) -> Vec<u8> {
    with(2, body, (4, [int(1, values), int(1, PLAIN)].concat()))
}

/// Levels of version 1, by their runs.
fn levels(runs: &[u8]) -> Vec<u8> {
    [&(runs.len() as u32).to_le_bytes(), runs].concat()
}

fn longs(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn texts(values: &[&str]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|text| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat())
        .collect()
}

/// What a footer says of a chunk.
struct Chunk {
    column: &'static str,
    rows: usize,
    compression: Compression,
    /// Where its first data page is, and its dictionary.
    offsets: (i64, Option<i64>),
    size: usize,
}

impl Chunk {
    /// One of all of `bytes`, behind the file's first four.
    fn of(column: &'static str, rows: usize, bytes: &[u8]) -> Chunk {
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

/// How the bytes of a file come.
#[derive(Debug, Clone, Copy)]
enum Way {
    Disk,
    /// Of a store, in windows.
    Windows,
    /// Of a store, all at once.
    Whole,
}

/// A value of any column, as text.
type Value = Option<String>;

fn read(chunk: &Chunk, bytes: &[u8], way: Way) -> Result<Vec<Value>, Fault> {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = [b"PAR1", bytes].concat();
    let context = ScanContext {
        io: runtime.handle().clone(),
        window: 16,
        whole: 1 << 20,
        budget: Budget::new(1 << 20),
        cancelled: Arc::default(),
        counters: Arc::new(ScanCounters::default()),
        fetched: Arc::default(),
        rows: Arc::default(),
    };
    assert!(!context.cancelled.load(Ordering::Relaxed));
    let input = match way {
        Way::Disk => {
            let name = folder.path().join("x");
            std::fs::write(&name, &file).unwrap();
            let path = Path::from_absolute_path(&name).unwrap();
            let store = Arc::new(LocalFileSystem::new());
            runtime.block_on(InputFile::head(store, path, name.display().to_string())).unwrap()
        }
        Way::Windows | Way::Whole => {
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
    let feed = match way {
        Way::Disk | Way::Windows => Feed::start(&context, &file, range.clone()),
        Way::Whole => {
            let ranges = [range.clone()];
            let started = fetch::start(&context.io, &file.input, &ranges, &context.budget);
            let (fetch, mut arrivals) = started.unwrap();
            Feed::fetched(&context, range.end - range.start, arrivals.remove(0), fetch)
        }
    };
    let pages = Pages::new(feed, &metadata, (file, range.end), context.budget.clone())?;
    values(&metadata, pages, chunk.rows)
}

fn values(metadata: &ColumnChunkMetaData, pages: Pages, rows: usize) -> Result<Vec<Value>, Fault> {
    let descriptor = metadata.column_descr_ptr();
    let flat = Flat::new(pages, &descriptor);
    let (mut valid, mut all) = (Bits::default(), Bits::default());
    all.push_run(true, rows);
    let value = |valid: &Bits, at, text: String| valid.get(at).then_some(text);
    Ok(match descriptor.physical_type() {
        parquet::basic::Type::INT64 => {
            let mut out = vec![];
            Int64Reader::new(flat, descriptor).read(rows, &mut valid, &mut out)?;
            (0..rows).map(|at| value(&valid, at, out[at].to_string())).collect()
        }
        parquet::basic::Type::BOOLEAN => {
            let mut out = Bits::default();
            BoolReader::new(flat).read(rows, &mut valid, &mut out)?;
            (0..rows).map(|at| value(&valid, at, out.get(at).to_string())).collect()
        }
        _ => {
            let (mut symbols, mut known) = (vec![], vec![]);
            let mut resolve = |texts: &[&[u8]], out: &mut [u32]| {
                for (text, symbol) in texts.iter().zip(out) {
                    *symbol = known.len() as u32;
                    known.push(String::from_utf8_lossy(text).into_owned());
                }
                Ok(())
            };
            TextReader::new(flat).read(rows, &all, &mut symbols, &mut resolve)?;
            let text = |&symbol: &u32| (symbol != NULL_SYMBOL).then(|| known[symbol as usize].clone());
            symbols.iter().map(text).collect()
        }
    })
}

const LONG: &str = "required int64 x;";
const LONG_OR_NULL: &str = "optional int64 x;";
const TEXT: &str = "required binary x (UTF8);";
const TEXT_OR_NULL: &str = "optional binary x (UTF8);";
const FLAG: &str = "required boolean x;";
const FLAG_OR_NULL: &str = "optional boolean x;";

fn check(what: &str, chunk: &Chunk, bytes: &[u8], expect: &[Option<&str>]) {
    let got = read(chunk, bytes, Way::Disk).unwrap_or_else(|fault| panic!("{what}: {fault:?}"));
    assert_eq!(got, expect.iter().map(|value| value.map(str::to_string)).collect::<Vec<_>>(), "{what}");
}

#[test]
fn indices_of_no_bits_have_runs_or_none() {
    for (what, indices) in [
        ("a run", &[0, 8][..]),
        ("a group", &[0, 3]),
        ("runs that say too little", &[0, 2]),
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
        // A dictionary of nothing has no value for any index.
        let bytes = [dictionary(0, &[]), v1(4, DICTIONARY, &body)].concat();
        let told = read(&Chunk::of(TEXT_OR_NULL, 4, &bytes), &bytes, Way::Disk);
        assert!(matches!(told, Err(Fault::Corrupt(_))), "{what}: {told:?}");
    }
}

/// A page of nulls alone, in each encoding, whose body may be left out.
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

/// Two data pages behind a dictionary, and what the footer may leave out.
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

/// Chunks of writers before parquet-mr 1.2.9, whose size lacks the bytes of the dictionary's header.
#[test]
fn a_chunks_size_may_leave_out_its_dictionarys_header() {
    let body = texts(&["one", "two"]);
    let dictionary = dictionary(2, &body);
    let uncounted = dictionary.len() - body.len();
    let expect = ["one", "two", "one", "two", "two", "one"].map(|text| Some(text.to_string()));
    // The last page is longer or shorter than what is left out, or its header is cut, or all of it.
    for padding in [0, 1, uncounted, 40] {
        let filler = vec![0xaa; padding];
        let first = v1(3, DICTIONARY, &[1, 3, 0b010]);
        let second = v1(3, DICTIONARY, &[&[1, 4, 1, 2, 0], &filler[..]].concat());
        let bytes = [&dictionary[..], &first, &second].concat();
        let data = 4 + dictionary.len() as i64;
        for way in [Way::Disk, Way::Windows, Way::Whole] {
            let short =
                |by: usize, offsets| Chunk { offsets, size: bytes.len() - by, ..Chunk::of(TEXT, 6, &bytes) };
            // Behind it: nothing, or another chunk.
            for behind in [vec![], vec![0x15; 300]] {
                let file = [&bytes[..], &behind].concat();
                for offsets in [(data, Some(4)), (4, None)] {
                    for by in [0, 1, uncounted] {
                        let got = read(&short(by, offsets), &file, way);
                        let got = got.unwrap_or_else(|fault| panic!("{way:?} {by} {padding}: {fault:?}"));
                        assert_eq!(got, expect, "{way:?} {by} {padding}");
                    }
                    // More is not forgiven.
                    let told = read(&short(uncounted + 1, offsets), &file, way);
                    assert!(matches!(told, Err(Fault::Corrupt(_))), "{way:?} {padding}: {told:?}");
                }
            }
        }
    }
    // Without a dictionary nothing is.
    let bytes = v1(2, PLAIN, &longs(&[1, 2]));
    let chunk = Chunk { size: bytes.len() - 1, ..Chunk::of(LONG, 2, &bytes) };
    let told = read(&chunk, &[&bytes[..], &[0; 99]].concat(), Way::Disk);
    assert!(matches!(told, Err(Fault::Corrupt(_))), "{told:?}");
}

#[test]
fn pages_that_hold_no_values_are_passed() {
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
fn checksums_count_where_there_are_any() {
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
    let told = read(&chunk(&bytes), &bytes, Way::Disk);
    assert!(matches!(&told, Err(Fault::Corrupt(what)) if what.contains("checksum")), "{told:?}");
}

/// What is stored as it is has the size that it has; what is not, the one that its header says.
#[test]
fn sizes_are_told_wrong_of_pages_that_are_not_compressed() {
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
            let head = header(3, [wrong, null_first.len()], &[], v2_details(3, PLAIN, 2, flag));
            let bytes = [head, null_first.clone()].concat();
            let chunk = Chunk { compression, ..Chunk::of(LONG_OR_NULL, 3, &bytes) };
            check("version 2", &chunk, &bytes, &[None, Some("5"), Some("6")]);
        }
        let packed = snap::raw::Encoder::new().compress_vec(&body).unwrap();
        let head = header(0, [wrong, packed.len()], &[], v1_details(2, PLAIN));
        let bytes = [head, packed].concat();
        let chunk = Chunk { compression: Compression::SNAPPY, ..Chunk::of(LONG, 2, &bytes) };
        let told = read(&chunk, &bytes, Way::Disk);
        assert!(matches!(told, Err(Fault::Corrupt(_))), "{told:?}");
    }
}

/// Booleans in runs: with padding, without, and with more than there is.
#[test]
fn booleans_in_runs_end_as_they_like() {
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
