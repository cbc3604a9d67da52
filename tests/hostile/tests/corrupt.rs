//! Parquet files with corrupted bytes, each at 300 seeded positions. Pages with checksums give an error that names the
//! file, or the right rows. Pages without checksums, and footers, give any result, but no panic, no hang, and no memory
//! use by what the bytes state.
//!
//! Not here: the inputs that fuzzers found (`replay`).

// A panic fails the test.
#![allow(clippy::unwrap_used)]

#[path = "../../../worker/scan/tests/files/bounds.rs"]
mod bounds;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bounds::{in_time, memory_of};
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaDataReader};
use tally_hostile::mutate::{Numbers, bytes};
use tally_hostile::pages::bodies;
use tally_hostile::parquet::{BUDGET, Kind, Read, Reader};
use tally_hostile::seeds::files;

/// Number of corrupted positions per file and kind, one at a time.
const PLACES: u64 = 300;
/// Memory that reading takes in addition to the budget, in bytes: footers, mappers, windows, the runtime.
const BESIDE: usize = 48 << 20;

/// Serializes the tests, because they share the counters.
static TURN: Mutex<()> = Mutex::new(());

/// The part of a file that is corrupted.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    /// Pages without their headers: the bytes that a checksum covers.
    Bodies,
    /// Pages with their headers.
    Pages,
    /// The footer with its length and magic bytes.
    Footer,
}

fn ranges(file: &[u8], part: Part) -> Vec<Range<usize>> {
    let tail = &file[file.len() - FOOTER_SIZE..];
    let length = FooterTail::try_from(tail).unwrap().metadata_length();
    let footer = file.len() - FOOTER_SIZE - length;
    if part == Part::Footer {
        return std::iter::once(footer..file.len()).collect();
    }
    let metadata = ParquetMetaDataReader::decode_metadata(&file[footer..file.len() - FOOTER_SIZE]).unwrap();
    let chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
    let chunk = |(start, length): (u64, u64)| start as usize..(start + length) as usize;
    let chunks = chunks.map(|column| chunk(column.byte_range()));
    let ranges: Vec<_> = match part {
        Part::Bodies => chunks.flat_map(|chunk| bodies(file, chunk).expect("pages")).collect(),
        _ => chunks.collect(),
    };
    ranges.into_iter().filter(|range| !range.is_empty()).collect()
}

/// Reads corrupted copies of a file. `check` gets the expected and the actual result. Returns the number of errors.
fn corrupted(
    kind: Kind,
    file: &[u8],
    ranges: &[Range<usize>],
    check: fn(&Read, Result<Read, String>),
) -> usize {
    let reader = Reader::new(kind).unwrap();
    let right = reader.read(file).unwrap();
    let mut failed = 0;
    for place in 0..PLACES {
        let mut copy = file.to_vec();
        let mut numbers = Numbers::new(place);
        let range = ranges[numbers.below(ranges.len())].clone();
        bytes(&mut numbers, &mut copy, range);
        let (answer, taken) = memory_of(|| reader.read(&copy));
        assert!(taken <= BUDGET as usize + BESIDE, "place {place}: {taken} bytes were taken: {answer:.300?}");
        if let Err(error) = &answer {
            assert!(error.contains("part-0.parquet"), "place {place}: the file is not named: {error}");
            failed += 1;
        }
        check(&right, answer);
    }
    failed
}

/// The formats of the files of each kind.
const FORMATS: [&str; 5] =
    ["dictionary-snappy", "plain-gzip", "delta-zstd-v2", "runs-snappy", "runs-snappy-v2"];
/// A format that only files of pings have.
const SPLIT: &str = "split-none";

/// The same for all files with or without checksums, on a thread that must end in time.
fn all(sums: &'static str, part: Part, check: fn(&Read, Result<Read, String>)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for kind in Kind::ALL {
        let split = (kind == Kind::Pings).then_some(SPLIT);
        for format in FORMATS.into_iter().chain(split) {
            let name = format!("{}-{format}-{sums}", kind.name());
            let file = files(&name).remove(0);
            let ranges = ranges(&file, part);
            let failed = in_time(&name, move || corrupted(kind, &file, &ranges, check));
            println!("{name}, {part:?}: {failed} of {PLACES} fail");
            assert!(failed > 0, "no corrupted byte of {name} is detected");
        }
    }
}

#[test]
fn pages_with_checksums_give_a_named_error_or_the_right_rows() {
    all("sums", Part::Bodies, |right, answer| {
        if let Ok(read) = answer {
            assert_eq!(read.rows(), right.rows(), "wrong rows in spite of checksums");
            assert_eq!(read.runs.len(), right.runs.len());
        }
    });
}

#[test]
fn pages_without_checksums_do_no_harm() {
    all("bare", Part::Pages, |_, _| ());
}

#[test]
fn footers_do_no_harm() {
    all("sums", Part::Footer, |_, _| ());
}
