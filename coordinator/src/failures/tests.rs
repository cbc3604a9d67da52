//! A sample of each row of the table, with what its text says, and the page that documents it.

use std::io;

use tally_common::disk::is_full;
use tally_common::stores::urls::{self, UrlError};
use tally_proto::class::differences;
use tally_proto::limits;
use tally_proto::{JobId, StageId, TaskId};
use tally_scan::FilePosition;

use super::*;
use crate::plan::schema::SchemaError;

/// The system's number of an I/O error.
const EIO: i32 = 5;
const DESIGN: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/docs/architecture/failure-model.md"));

fn attempt() -> AttemptId {
    let task = TaskId { job: JobId::parse("j").unwrap(), stage: StageId(1), index: 3 };
    AttemptId { task, attempt: 0 }
}

fn text() -> String {
    "it says so".into()
}

fn io(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn url() -> UrlError {
    urls::open("ftp://x/y").expect_err("an error")
}

/// A sample of a row: its name, the error, its class, and what its text says.
type Sample<E> = (&'static str, E, Class, &'static str);

fn attempts() -> Vec<Sample<AttemptError>> {
    use Class::{AfterWaiting, Elsewhere, Fatal};
    let upload = |again| AttemptError::NoUpload { what: text(), again };
    let bad = AttemptError::BadResult { attempt: attempt(), what: "nonsense" };
    let large = AttemptError::too_large(&attempt(), limits::check(5 << 20).unwrap_err());
    vec![
        ("Attempt.NoUpload", upload(true), Elsewhere, "it says so"),
        ("Attempt.UploadRefused", upload(false), Fatal, "it says so"),
        ("Attempt.NoOrder", AttemptError::NoOrder(text()), Elsewhere, "it says so"),
        ("Attempt.OldWorker", AttemptError::OldWorker(text()), AfterWaiting, "it says so"),
        ("Attempt.BadResult", bad, Elsewhere, "j-s1-t3-a0 reported nonsense"),
        ("Attempt.OtherRows", AttemptError::OtherRows(text()), Fatal, "gave different rows: it says so"),
        ("Attempt.TooLarge", large, Fatal, "a message has at most 4194304; combine small input files"),
        ("Attempt.RowGroups", AttemptError::TooManyRowGroups(9), Fatal, "set a larger --target-file-size"),
    ]
}

fn plans() -> Vec<Sample<PlanError>> {
    use Class::Fatal;
    let listed = ListError::Read { table: "addons", path: "/in".into(), source: io(EIO) };
    let place = FilePosition { file: "part-7.parquet".into(), ..FilePosition::default() };
    let footer = PlanError::from(ScanError::Io { place, what: text() });
    let schema = PlanError::from(SchemaError::Missing {
        table: "addons",
        column: "client_id".into(),
        wanted: "string",
        files: 1,
        example: "part-7.parquet".into(),
    });
    let large = PlanError::TooLarge { files: 7, bytes: 1 << 40 };
    vec![
        ("Plan.Inputs", PlanError::from(ListError::from(url())), Fatal, "ftp://x/y: "),
        ("Plan.Listing", PlanError::from(listed), Fatal, "addons: /in cannot be read: "),
        ("Plan.Footer", footer, Fatal, "part-7.parquet: cannot be read: it says so"),
        ("Plan.Schema", schema, Fatal, "addons: the column client_id (string) is in none of"),
        ("Plan.TooLarge", large, Fatal, "7 files has 1.0 TiB"),
        ("Plan.Panic", PlanError::Panic, Fatal, "reading the footers of the inputs panicked"),
        ("Plan.Panic", PlanError::from(ListError::Panic), Fatal, "listing the inputs panicked"),
    ]
}

fn publishes() -> Vec<Sample<PublishError>> {
    use Class::{AfterWaiting, Fatal};
    let path = || "/out".to_string();
    let what = "the staged day cannot be made";
    let store = |transient| PublishError::Store { url: "s3://b/x".into(), what, reason: text(), transient };
    let full = io::Error::from(io::ErrorKind::StorageFull);
    assert!(is_full(&full) && !is_full(&io(EIO)));
    let full = PublishError::Full { path: path(), what, source: full };
    let broken = PublishError::Io { path: path(), what, source: io(EIO) };
    let replaced = PublishError::Replaced { path: path() };
    let said = "s3://b/x: the staged day cannot be made: it says so";
    vec![
        ("Publish.Url", PublishError::from(url()), Fatal, "ftp://x/y: "),
        ("Publish.Full", full, AfterWaiting, "make room there, or give another --output"),
        ("Publish.Io", broken, Fatal, "check that the output is writable"),
        ("Publish.Replaced", replaced, Fatal, "submit again to replace it"),
        ("Publish.Refused", store(false), Fatal, said),
        ("Publish.Store", store(true), AfterWaiting, said),
    ]
}

#[test]
fn each_rejected_attempt_has_its_class_text_and_failure() {
    for (name, error, class, said) in attempts() {
        let found = row(CoordinatorError::Attempt(&error));
        let reason = error.to_string();
        assert_eq!((found.error, found.class), (name, class), "{reason}");
        assert!(reason.contains(said), "{name} does not say {said:?}: {reason}");
        let expect = match class {
            Class::AfterWaiting => Failure::Refused { reason },
            Class::Fatal => Failure::Fatal { reason },
            _ => Failure::Retryable { reason },
        };
        assert_eq!(Failure::from(error), expect);
    }
}

#[test]
fn each_error_outside_of_attempts_has_its_class_and_text() {
    let plans = plans();
    let plans = plans.iter().map(|(name, error, class, said)| {
        (*name, row(CoordinatorError::Plan(error)), *class, *said, error.to_string())
    });
    let publishes = publishes();
    let publishes = publishes.iter().map(|(name, error, class, said)| {
        (*name, row(CoordinatorError::Publish(error)), *class, *said, error.to_string())
    });
    for (name, found, class, said, reason) in plans.chain(publishes) {
        assert_eq!((found.error, found.class), (name, class), "{reason}");
        assert!(reason.contains(said), "{name} does not say {said:?}: {reason}");
    }
}

#[test]
fn each_row_has_a_sample() {
    let mut sampled: Vec<_> = attempts().into_iter().map(|(name, ..)| name).collect();
    sampled.extend(plans().into_iter().map(|(name, ..)| name));
    sampled.extend(publishes().into_iter().map(|(name, ..)| name));
    sampled.dedup();
    let rows: Vec<_> = TABLE.iter().map(|row| row.error).collect();
    assert_eq!(sampled, rows);
}

#[test]
fn the_design_has_the_same_table() {
    let found = differences(TABLE, DESIGN, "| error that the coordinator finds |");
    assert!(found.is_empty(), "failure-model.md:\n{}", found.join("\n"));
}
