//! A sample of each row: its class, and the failure that is sent to the scheduler.

use std::io;

use arrow_schema::ArrowError;
use parquet::errors::ParquetError;
use tally_common::budget::{Budget, Shortage};
use tally_common::stores::urls;
use tally_dataset::ReduceError;
use tally_proto::class::differences;
use tally_proto::{Failure, JobId, StageId, TaskId, WorkerId};
use tally_scan::FilePosition;

use super::*;

/// The page of the design that has the same table.
const DESIGN: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/docs/architecture/failure-model.md"));

fn never() -> Shortage {
    Budget::new(10).reserve(11).unwrap_err()
}

fn now() -> Shortage {
    Shortage::Now { bytes: 1 << 20, raise: "1GiB".into() }
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn spill(error: SpillError) -> TaskError {
    TaskError::Store(StoreError::Spill(error))
}

fn spill_disk(source: io::Error) -> SpillError {
    SpillError::disk(std::path::Path::new("/spill"), "spilling failed", source)
}

fn spill_limit() -> SpillError {
    SpillError::Limit { path: "/spill".into(), used: 9, more: 2, limit: 10 }
}

fn worker() -> WorkerId {
    WorkerId::parse("w-1").unwrap()
}

fn task() -> TaskId {
    TaskId { job: JobId::parse("j").unwrap(), stage: StageId(0), index: 3 }
}

/// A sample of each row, with its class.
fn samples() -> Vec<(&'static str, TaskError, Class)> {
    use Class::{AfterWaiting, Elsewhere, Fatal, InputAgain, Stopped};
    let place = || FilePosition { file: "part-7.parquet".into(), ..FilePosition::default() };
    let (what, text) = ("a page", || "it says so".to_string());
    let lost = TaskError::Lost { worker: worker(), task: task(), reason: text() };
    let upload = |again| TaskError::Upload { url: "s3://b/x".into(), what: text(), again };
    let url = urls::open("ftp://x/y").err().map(TaskError::Url);
    let dataset = || DatasetError::TooManyStrings;
    let of_scan = |error| TaskError::Scan(error);
    let share = TaskError::Share { wanted: 2, share: 1, raise: "1GiB".into() };
    vec![
        ("Scan.Corrupt", of_scan(ScanError::Corrupt { place: place(), what: text() }), Fatal),
        ("Scan.Changed", of_scan(ScanError::Changed { place: place(), what: text() }), Fatal),
        ("Scan.Io", of_scan(ScanError::Io { place: place(), what: text() }), Elsewhere),
        ("Scan.Refused", of_scan(ScanError::Refused { place: place(), what: text() }), Fatal),
        ("Scan.Memory", of_scan(ScanError::Memory { place: place(), what, why: never() }), Fatal),
        (
            "Scan.MemoryHeld",
            of_scan(ScanError::MemoryHeld { place: place(), what, why: now() }),
            AfterWaiting,
        ),
        ("Scan.Dataset", of_scan(ScanError::Dataset { place: place(), source: dataset() }), Fatal),
        ("Dataset", TaskError::Dataset(dataset()), Fatal),
        ("Store.SpillFull", spill(spill_disk(full())), AfterWaiting),
        ("Store.SpillLimit", spill(spill_limit()), AfterWaiting),
        ("Store.SpillDisk", spill(spill_disk(broken())), Elsewhere),
        ("Store.Arrow", TaskError::Store(StoreError::Arrow(ArrowError::ParseError(text()))), Elsewhere),
        ("Memory", TaskError::memory("strings")(never()), Fatal),
        ("MemoryHeld", TaskError::memory("strings")(now()), AfterWaiting),
        ("Share", share, Elsewhere),
        ("OutputFull", TaskError::write("/out/part-0", "writing failed", full()), AfterWaiting),
        ("Write", TaskError::write("/out/part-0", "writing failed", broken()), Elsewhere),
        ("Upload", upload(true), Elsewhere),
        ("Upload.Refused", upload(false), Fatal),
        ("Url", url.expect("an error"), Elsewhere),
        ("Lost", lost, InputAgain),
        ("Busy", TaskError::Busy { worker: worker(), reason: text() }, AfterWaiting),
        ("Unsendable", TaskError::Unsendable { worker: worker(), reason: text() }, Fatal),
        ("Incomplete", TaskError::Incomplete(text()), Elsewhere),
        ("RowGroups", TaskError::RowGroups { partition: 3, rows: 1 }, Fatal),
        ("Sums", TaskError::Sums(text()), Elsewhere),
        ("Encode", TaskError::from(ParquetError::General(text())), Elsewhere),
        ("InvalidTask", TaskError::InvalidTask(text()), Fatal),
        ("NoSlot", TaskError::NoSlot { worker: worker() }, AfterWaiting),
        ("NotBegun", TaskError::NotBegun { worker: worker(), what: text() }, Elsewhere),
        ("Panic", TaskError::Panic(text()), Elsewhere),
        ("Cancelled", TaskError::Cancelled, Stopped),
    ]
}

#[test]
fn each_error_has_its_class_and_failure() {
    for (name, error, class) in samples() {
        let found = row(&error);
        assert_eq!((found.error, found.class), (name, class), "{error}");
        let text = error.to_string();
        let failure = Failure::from(error);
        match class {
            Class::Elsewhere => assert_eq!(failure, Failure::Retryable { reason: text }),
            Class::AfterWaiting => assert_eq!(failure, Failure::Refused { reason: text }),
            Class::Fatal => assert_eq!(failure, Failure::Fatal { reason: text }),
            Class::Stopped => assert_eq!(failure, Failure::Cancelled),
            Class::InputAgain => assert_eq!(
                failure,
                Failure::FetchLost { worker: worker(), task: task(), reason: "it says so".into() }
            ),
        }
    }
}

#[test]
fn each_row_has_a_sample() {
    let sampled: Vec<_> = samples().into_iter().map(|(name, ..)| name).collect();
    let rows: Vec<_> = TABLE.iter().map(|row| row.error).collect();
    assert_eq!(sampled, rows);
}

#[test]
fn the_design_has_the_same_table() {
    let found = differences(TABLE, DESIGN, "| error of a task |");
    assert!(found.is_empty(), "failure-model.md:\n{}", found.join("\n"));
}

/// The class of an error that passed through a `Write` inside the Parquet crate's writer.
fn carried_through(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> &'static str {
    let io = io::Error::other(error);
    row(&TaskError::from(ParquetError::from(io))).error
}

#[test]
fn an_error_keeps_its_class_on_its_way_through_others() {
    assert_eq!(carried_through(spill_disk(full())), "Store.SpillFull");
    assert_eq!(carried_through(spill_limit()), "Store.SpillLimit");
    assert_eq!(carried_through(TaskError::Cancelled), "Cancelled");
    assert_eq!(carried_through(io::Error::other(spill_disk(full()))), "Store.SpillFull");
    assert_eq!(carried_through("something else"), "Encode");
    let counted = ParquetError::External(Box::new(DatasetError::TooLarge(1)));
    assert_eq!(row(&TaskError::from(counted)).error, "Dataset");
    // A reducer's sink: with a converted error, as in `reduce`, and with an unconverted one.
    let parquet = || ParquetError::from(io::Error::other(spill_disk(full())));
    for sink in
        [ReduceError::Sink(Box::new(TaskError::from(parquet()))), ReduceError::Sink(Box::new(parquet()))]
    {
        assert_eq!(row(&TaskError::from(sink)).error, "Store.SpillFull");
    }
}

#[test]
fn messages_name_the_options_to_change() {
    for (error, part) in [
        (spill(spill_disk(full())), "--spill-dir"),
        (spill(spill_limit()), "set --spill-limit to 64MiB or more"),
        (TaskError::memory("strings")(never()), "set --memory-limit to 64MiB or more"),
        (
            TaskError::write("/out/part-0", "writing failed", full()),
            "free space there, or set another --output",
        ),
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
}
