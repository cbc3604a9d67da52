//! Parquet files with wrong bytes at 300 seeded places each: pages with checksums give a named error or the right rows;
//! pages without, and footers, whatever they say, but no panic, no hang, and no memory by what the bytes say.
//!
//! Not here: bytes that a fuzzer thought of (`replay`).

// What fails here fails the test.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaDataReader};
use tally_dataset::addon_aggregates::{ADDONS, MAIN_SUMMARY};
use tally_hostile::pages::bodies;
use tally_hostile::parquet::{BUDGET, Read, Reader};
use tally_hostile::seeds::files;
use tally_hostile::spoil::{Numbers, bytes};

/// Places that are spoilt, one at a time, of each kind.
const PLACES: u64 = 300;
/// What reading takes beside the budget, in bytes: footers, mappers, windows, the runtime.
const BESIDE: usize = 48 << 20;
/// A file of some kilobytes that takes longer hangs, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Counts what is allocated, and the most that ever was.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
/// One test at a time counts.
static TURN: Mutex<()> = Mutex::new(());

// SAFETY: all is left to the system's allocator; only sizes are added up.
#[allow(unsafe_code, reason = "there is no other way to see allocations")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is spoilt of a file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    /// Pages without their headers: what a checksum covers.
    Bodies,
    /// Pages with their headers.
    Pages,
    /// The footer with its length and mark.
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

/// Reads spoilt copies of a file: `check` sees each answer beside the right one. Says how many failed.
fn spoilt(
    table: usize,
    file: &[u8],
    ranges: &[Range<usize>],
    check: fn(&Read, Result<Read, String>),
) -> usize {
    let reader = Reader::new().unwrap();
    let right = reader.read(table, file).unwrap();
    let mut failed = 0;
    for place in 0..PLACES {
        let mut copy = file.to_vec();
        let mut numbers = Numbers::new(place);
        let range = ranges[numbers.below(ranges.len())].clone();
        bytes(&mut numbers, &mut copy, range);
        let before = NOW.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        let answer = reader.read(table, &copy);
        let taken = MOST.load(Ordering::Relaxed).saturating_sub(before);
        assert!(taken <= BUDGET as usize + BESIDE, "place {place}: {taken} bytes were taken: {answer:.300?}");
        if let Err(error) = &answer {
            assert!(error.contains("part-0.parquet"), "place {place}: the file is not named: {error}");
            failed += 1;
        }
        check(&right, answer);
    }
    failed
}

/// The same for all files of a kind, on a thread of its own that must end in time.
fn all(kind: &'static str, part: Part, check: fn(&Read, Result<Read, String>)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for (table, name) in [(ADDONS, "addons"), (MAIN_SUMMARY, "main_summary")] {
        for format in ["dictionary-snappy", "plain-gzip", "delta-zstd-v2", "runs-snappy", "runs-snappy-v2"] {
            let name = format!("{name}-{format}-{kind}");
            let file = files(&name).remove(0);
            let ranges = ranges(&file, part);
            let (done, over) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                let failed = spoilt(table, &file, &ranges, check);
                // Whoever waits may have given up.
                let _ = done.send(failed);
            });
            match over.recv_timeout(PATIENCE) {
                Ok(failed) => {
                    println!("{name}, {part:?}: {failed} of {PLACES} fail");
                    assert!(failed > 0, "no byte of {name} counts");
                }
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name}: a file is still being read"),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    std::panic::resume_unwind(thread.join().unwrap_err())
                }
            }
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
