//! A sample of each row: its class, its text, and the failure that is sent to the scheduler. Errors come from what fails
//! in the same way in production, as far as this crate can make it fail. The conversion of store and page errors to the
//! rows `Scan.*` is tested in tally-scan (`error`).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema};
use object_store::local::LocalFileSystem;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use tally_common::budget::Budget;
use tally_common::stores::urls;
use tally_dataset::ReduceError;
use tally_proto::class::differences;
use tally_proto::convert::required;
use tally_proto::{AttemptId, Failure, JobId, StageId, TaskId, WorkerId};
use tally_scan::footer::Footers;
use tally_scan::{FilePosition, InputFile};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::peers::OutputLocation;

/// The page of the design that has the same table.
const DESIGN: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/docs/architecture/failure-model.md"));

/// Memory that a budget never has.
fn never<E>(error: impl FnOnce(tally_common::budget::Shortage) -> E) -> E {
    error(Budget::new(10).reserve(11).unwrap_err())
}

/// Memory that another task holds.
fn now<E>(error: impl FnOnce(tally_common::budget::Shortage) -> E) -> E {
    let budget = Budget::new(10);
    let _held = budget.for_task(CancellationToken::new()).reserve(6).unwrap();
    let waits = budget.for_task(CancellationToken::new());
    error(waits.reserve_within(6, Duration::ZERO).unwrap_err())
}

/// A wait for memory that a cancelled task gives up.
fn cancelled() -> TaskError {
    let budget = Budget::new(10);
    let _held = budget.for_task(CancellationToken::new()).reserve(6).unwrap();
    let token = CancellationToken::new();
    token.cancel();
    TaskError::memory("strings")(budget.for_task(token).reserve(6).unwrap_err())
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn spill(error: SpillError) -> TaskError {
    TaskError::from(StoreError::from(error))
}

fn spill_disk(source: io::Error) -> SpillError {
    SpillError::disk(Path::new("/spill"), "spilling failed", source)
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

/// The error of reading the footer of a file with these bytes, after `change`.
fn footer(bytes: &[u8], change: impl Fn(&Path)) -> TaskError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part-7.parquet");
    std::fs::write(&path, bytes).unwrap();
    let store = Arc::new(LocalFileSystem::new());
    let key = object_store::path::Path::from_absolute_path(&path).unwrap();
    let found = std::fs::metadata(&path).unwrap();
    let file = InputFile::local(store, key, path.display().to_string(), &found);
    change(&path);
    TaskError::from(Footers::new(1 << 20).get_local(&file).unwrap_err())
}

/// A batch whose columns are not those of its schema.
fn arrow() -> TaskError {
    let schema = Schema::new(vec![Field::new("a", DataType::Int64, false)]);
    TaskError::from(StoreError::from(RecordBatch::try_new(Arc::new(schema), vec![]).unwrap_err()))
}

/// What the text of the error of each row says.
const TEXTS: &[(&str, &[&str])] = &[
    ("Scan.Corrupt", &["part-7.parquet: this is not a Parquet file"]),
    ("Scan.Changed", &["part-7.parquet: ", "no longer exists", "run the job again"]),
    ("Scan.Io", &["part-7.parquet: cannot be read: it says so"]),
    ("Scan.Refused", &["part-7.parquet: cannot be read: it says so"]),
    ("Scan.Memory", &["part-7.parquet: a page: ", "set --memory-limit to"]),
    ("Scan.MemoryHeld", &["part-7.parquet: a page: ", "in use now: run fewer jobs"]),
    ("Scan.Dataset", &["part-7.parquet: more than", "--partitions"]),
    ("Dataset", &["distinct keys", "--partitions"]),
    ("Store.SpillFull", &["/spill: spilling failed", "space", "larger disk with --spill-dir"]),
    ("Store.SpillLimit", &["/spill: ", "set --spill-limit to 64MiB or more"]),
    ("Store.SpillDisk", &["/spill: spilling failed", "check the disk", "--spill-dir"]),
    ("Store.Arrow", &["a shuffled batch cannot be encoded or decoded: "]),
    ("Memory", &["strings: ", "set --memory-limit to 64MiB or more"]),
    ("MemoryHeld", &["strings: ", "run fewer jobs at a time, or set --memory-limit"]),
    ("Share", &["1.0 MiB", "planned for 2.0 MiB", "--memory-limit 1GiB or more"]),
    ("OutputFull", &["/out/part-0: writing failed", "free space there, or set another --output"]),
    ("Write", &["/out/part-0: writing failed", "check that the output is writable"]),
    ("Upload", &["s3://b/x: a part cannot be uploaded: it says so"]),
    ("Upload.Refused", &["s3://b/x: a part cannot be uploaded: it says so"]),
    ("Url", &["ftp://x/y: "]),
    ("Lost", &["the output of task j-s0-t3 is not at worker w-1: it says so"]),
    ("Busy", &["worker w-1 is too busy", "it says so"]),
    ("Unsendable", &["worker w-1 cannot send", "it says so"]),
    ("Incomplete", &["not complete: it says so", "run the same release"]),
    ("RowGroups", &["partition 3", "set a larger --target-file-size"]),
    ("Sums", &["do not agree: it says so"]),
    ("SumsLimit", &["more than 7 of 99 partitions", "set a larger --shard-bytes, or fewer --partitions"]),
    ("Encode", &["rows cannot be encoded as Parquet: "]),
    ("InvalidTask", &["the task message is malformed: ", "holder"]),
    ("NoSlot", &["worker w-1 has no free slot"]),
    ("NotBegun", &["worker w-1 cannot start the task: it says so"]),
    ("Panic", &["the task panicked: it says so"]),
    ("Cancelled", &["cancelled"]),
];

/// A sample of a row: its name, the error, and its class.
type Sample = (&'static str, TaskError, Class);

/// Errors of input files.
fn of_scans() -> Vec<Sample> {
    use Class::{AfterWaiting, Elsewhere, Fatal};
    let place = || FilePosition { file: "part-7.parquet".into(), ..FilePosition::default() };
    let (what, text) = ("a page", || "it says so".to_string());
    let dataset = ScanError::Dataset { place: place(), source: DatasetError::TooManyKeys };
    let gone = |path: &Path| std::fs::remove_file(path).unwrap();
    vec![
        ("Scan.Corrupt", footer(b"no Parquet file", |_| ()), Fatal),
        ("Scan.Changed", footer(b"no Parquet file", gone), Fatal),
        ("Scan.Io", ScanError::Io { place: place(), what: text() }.into(), Elsewhere),
        ("Scan.Refused", ScanError::Refused { place: place(), what: text() }.into(), Fatal),
        ("Scan.Memory", never(|why| ScanError::Memory { place: place(), what, why }).into(), Fatal),
        (
            "Scan.MemoryHeld",
            now(|why| ScanError::MemoryHeld { place: place(), what, why }).into(),
            AfterWaiting,
        ),
        ("Scan.Dataset", dataset.into(), Fatal),
    ]
}

/// A sample of each row.
fn samples() -> Vec<Sample> {
    use Class::{AfterWaiting, Elsewhere, Fatal, InputAgain, Stopped};
    let text = || "it says so".to_string();
    let output = AttemptId { task: task(), attempt: 2 };
    let at = OutputLocation { worker: worker(), address: String::new() };
    let upload = |again| TaskError::Upload { url: "s3://b/x".into(), what: text(), again };
    let url = urls::open("ftp://x/y").err().map(TaskError::Url);
    let share = TaskError::Share { wanted: 2 << 20, share: 1 << 20, raise: "1GiB".into() };
    let encode = ParquetMetaDataReader::decode_metadata(&[1, 2, 3]).unwrap_err();
    let malformed = required::<u32>(None, "holder").unwrap_err();
    let others: Vec<Sample> = vec![
        ("Dataset", DatasetError::TooManyKeys.into(), Fatal),
        ("Store.SpillFull", spill(spill_disk(full())), AfterWaiting),
        ("Store.SpillLimit", spill(spill_limit()), AfterWaiting),
        ("Store.SpillDisk", spill(spill_disk(broken())), Elsewhere),
        ("Store.Arrow", arrow(), Elsewhere),
        ("Memory", never(TaskError::memory("strings")), Fatal),
        ("MemoryHeld", now(TaskError::memory("strings")), AfterWaiting),
        ("Share", share, Elsewhere),
        ("OutputFull", TaskError::write("/out/part-0", "writing failed", full()), AfterWaiting),
        ("Write", TaskError::write("/out/part-0", "writing failed", broken()), Elsewhere),
        ("Upload", upload(true), Elsewhere),
        ("Upload.Refused", upload(false), Fatal),
        ("Url", url.expect("an error"), Elsewhere),
        ("Lost", at.lost(&output, "it says so"), InputAgain),
        ("Busy", TaskError::Busy { worker: worker(), reason: text() }, AfterWaiting),
        ("Unsendable", TaskError::Unsendable { worker: worker(), reason: text() }, Fatal),
        ("Incomplete", TaskError::Incomplete(text()), Elsewhere),
        ("RowGroups", TaskError::RowGroups { partition: 3, rows: 1 }, Fatal),
        ("Sums", TaskError::Sums(text()), Elsewhere),
        ("SumsLimit", TaskError::SumsLimit { partitions: 99, most: 7 }, Fatal),
        ("Encode", TaskError::from(encode), Elsewhere),
        ("InvalidTask", TaskError::from(malformed), Fatal),
        ("NoSlot", TaskError::NoSlot { worker: worker() }, AfterWaiting),
        ("NotBegun", TaskError::NotBegun { worker: worker(), what: text() }, Elsewhere),
        ("Panic", TaskError::Panic(text()), Elsewhere),
        ("Cancelled", cancelled(), Stopped),
    ];
    of_scans().into_iter().chain(others).collect()
}

#[test]
fn each_error_has_its_class_text_and_failure() {
    for ((name, error, class), &(of, said)) in samples().into_iter().zip(TEXTS) {
        assert_eq!(of, name);
        let found = row(&error);
        assert_eq!((found.error, found.class), (name, class), "{error}");
        let text = error.to_string();
        assert!(said.iter().all(|part| text.contains(part)), "{name} does not say {said:?}: {text}");
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
    let texts: Vec<_> = TEXTS.iter().map(|(name, _)| *name).collect();
    let rows: Vec<_> = TABLE.iter().map(|row| row.error).collect();
    assert_eq!((&sampled, &texts), (&rows, &rows));
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
