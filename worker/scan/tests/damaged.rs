//! Files with integers and list elements, damaged at seeded positions: each gives rows or an error, never a panic, and takes
//! no more memory than the budget and a small allowance.
//!
//! Not here: whole files (`elements`), files with checksums, whose rows are compared (`tests/hostile`).

#[path = "files/bounds.rs"]
mod bounds;
// Other tests use all of these modules.
#[path = "files/reading.rs"]
#[allow(dead_code)]
mod reading;
#[path = "files/row_group.rs"]
mod row_group;
#[path = "files/writing.rs"]
#[allow(dead_code)]
mod writing;

use std::error::Error;

use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::schema::types::ColumnPath;

use bounds::{in_time, memory_of};
use reading::{Collect, scan};
use writing::{ALL, FILL, Fill, Numbers, batch, kinds, layout_file, write};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Damaged copies of each file.
const COPIES: usize = 1000;
/// Bytes for pages and dictionaries.
const BUDGET: u64 = 8 << 20;
/// Memory that reading takes in addition to the budget, in bytes: the footer, windows, batches, the runtime.
const BESIDE: usize = 16 << 20;

/// Files of several encodings, codecs and versions of pages, with nulls at every level.
fn files() -> Result<Vec<(String, Vec<u8>)>> {
    let leaf = |name: &str| ColumnPath::from(format!("addons.list.element.{name}"));
    let small = || WriterProperties::builder().set_data_page_size_limit(150).set_write_batch_size(16);
    let plain = || small().set_dictionary_enabled(false);
    let of = |encoding| {
        move |properties: WriterPropertiesBuilder| {
            let days = properties.set_column_encoding(leaf("day"), encoding);
            let texts = match encoding {
                Encoding::PLAIN => Encoding::DELTA_LENGTH_BYTE_ARRAY,
                _ => Encoding::DELTA_BYTE_ARRAY,
            };
            days.set_column_encoding(ColumnPath::from("n"), encoding).set_column_encoding(leaf("id"), texts)
        }
    };
    let delta = of(Encoding::DELTA_BINARY_PACKED);
    let (split, lengths) = (of(Encoding::BYTE_STREAM_SPLIT), of(Encoding::PLAIN));
    let formats = [
        ("dictionary", small(), Compression::SNAPPY),
        ("dictionary that is too long", small().set_dictionary_page_size_limit(90), Compression::LZ4_RAW),
        ("plain", plain(), Compression::GZIP(Default::default())),
        ("delta", delta(plain()), Compression::ZSTD(Default::default())),
        ("split", split(plain()), Compression::UNCOMPRESSED),
        ("lengths", lengths(plain()), Compression::BROTLI(Default::default())),
    ];
    let mut files = vec![];
    for (version, nulls, wide) in
        [(WriterVersion::PARQUET_1_0, 6, false), (WriterVersion::PARQUET_2_0, 0, true)]
    {
        let rows = batch(Fill { rows: 60, nulls, distinct: 20, wide }, &ALL)?;
        for (what, properties, codec) in formats.clone() {
            let properties = properties.set_writer_version(version).set_compression(codec);
            files.push((format!("{what}, {version:?}"), write(&rows, properties)?));
        }
    }
    let rows = kinds(60);
    let fields = "optional binary id (UTF8); optional boolean flag; optional int32 day;";
    let message = format!("repeated group addons {{ {fields} }}");
    files.push(("a bare list".into(), layout_file(&message, [0, 0, 1, 1, 2], [&rows; 3])?));
    let other = write(&batch(Fill { rows: 60, ..FILL }, &["other"])?, small())?;
    files.push(("no needed field".into(), other));
    Ok(files)
}

/// A damaged copy: with up to three damaged places, or cut, or with a part twice.
fn damaged(numbers: &mut Numbers, file: &[u8]) -> Vec<u8> {
    let mut at = |end: usize| numbers.below(end as u64) as usize;
    let mut copy = file.to_vec();
    match at(12) {
        0 => copy.truncate(at(file.len())),
        1 => {
            // The footer stays at the end.
            let (from, to) = (at(file.len()), at(file.len()));
            let again = file[from.min(to)..from.max(to)].to_vec();
            copy.splice(from..from, again);
        }
        2 => {
            let from = at(file.len());
            copy.drain(from..file.len().min(from + 1 + at(20)));
        }
        _ => {
            for _ in 0..=at(3) {
                let place = at(copy.len());
                match at(4) {
                    0 => copy[place] ^= 1 << at(8),
                    1 => copy[place] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][at(6)],
                    2 => copy[place] = at(256) as u8,
                    _ => {
                        let end = copy.len().min(place + 1 + at(12));
                        copy[place..end].iter_mut().for_each(|byte| *byte = at(256) as u8);
                    }
                }
            }
        }
    }
    copy
}

/// Reads damaged copies of a file. Returns how many give rows.
fn read_copies(what: &str, file: &[u8], numbers: &mut Numbers) -> usize {
    let mut read = 0;
    for copy in 0..COPIES {
        let bytes = damaged(numbers, file);
        let (answer, taken) = memory_of(|| {
            let mut rows = Collect::default();
            scan(&bytes, &mut rows, BUDGET).and_then(|read| Ok(read?))
        });
        assert!(taken <= BUDGET as usize + BESIDE, "{what}, copy {copy}: {taken} bytes: {answer:?}");
        match answer.map_err(|error| error.to_string()) {
            Ok(()) => read += 1,
            Err(error) if error == "no row group" => {}
            Err(error) => {
                // A footer whose decoder panics has no other reason.
                let panicked = error.contains("panicked") || error.contains("cannot be decoded; ");
                assert!(!panicked && error.contains("part-7"), "{what}, copy {copy}: {error}");
            }
        }
    }
    read
}

#[test]
fn damaged_files_give_rows_or_errors() -> Result<()> {
    let files = files()?;
    for (what, file) in &files {
        scan(file, &mut Collect::default(), BUDGET)?.map_err(|error| format!("{what}: {error}"))?;
    }
    in_time("damaged files", move || {
        let mut numbers = Numbers::new(11);
        for (what, file) in &files {
            let read = read_copies(what, file, &mut numbers);
            println!("{what}, {} bytes: {read} of {COPIES} give rows", file.len());
            assert!(read > 0 && read < COPIES, "{what}: {read} of {COPIES} copies give rows");
        }
    });
    Ok(())
}
