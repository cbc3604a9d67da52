//! A sample of each row of the table, and the page that documents it.

use std::io;

use tally_common::disk::is_full;
use tally_common::stores::urls;
use tally_proto::class::differences;
use tally_proto::limits::TooLarge;
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

#[test]
fn each_rejected_attempt_has_its_class() {
    let text = || "it says so".to_string();
    let bad = AttemptError::BadResult { attempt: attempt(), what: "nonsense" };
    for (error, name, retried) in [
        (AttemptError::NoUpload { what: text(), again: true }, "Attempt.NoUpload", true),
        (AttemptError::NoUpload { what: text(), again: false }, "Attempt.UploadRefused", false),
        (AttemptError::NoOrder(text()), "Attempt.NoOrder", true),
        (bad, "Attempt.BadResult", true),
        (AttemptError::OtherRows(text()), "Attempt.OtherRows", false),
        (AttemptError::too_large(&attempt(), TooLarge(5 << 20)), "Attempt.TooLarge", false),
        (AttemptError::TooManyRowGroups(9), "Attempt.RowGroups", false),
    ] {
        assert_eq!(row(CoordinatorError::Attempt(&error)).error, name);
        let reason = error.to_string();
        let expect = if retried { Failure::Retryable { reason } } else { Failure::Fatal { reason } };
        assert_eq!(Failure::from(error), expect);
    }
}

#[test]
fn a_task_that_an_old_worker_cannot_run_counts_as_refused() {
    let error = AttemptError::OldWorker("upgrade it".into());
    assert_eq!(row(CoordinatorError::Attempt(&error)).error, "Attempt.OldWorker");
    assert_eq!(Failure::from(error), Failure::Refused { reason: "upgrade it".into() });
}

#[test]
fn each_error_outside_of_attempts_has_its_class() {
    let io = |code| io::Error::from_raw_os_error(code);
    let text = || "it says so".to_string();
    let url = || urls::open("ftp://x/y").expect_err("an error");
    let listed = |source| ListError::Read { table: "addons", path: "/in".into(), source };
    let place = FilePosition { file: "part-7.parquet".into(), ..FilePosition::default() };
    let schema = SchemaError::Missing {
        table: "addons",
        column: "client_id".into(),
        wanted: "string",
        files: 1,
        example: "part-7.parquet".into(),
    };
    for (error, name) in [
        (PlanError::List(ListError::Url(url())), "Plan.Inputs"),
        (PlanError::List(listed(io(EIO))), "Plan.Listing"),
        (PlanError::Scan(ScanError::Io { place, what: text() }), "Plan.Footer"),
        (PlanError::Schema(schema), "Plan.Schema"),
        (PlanError::TooLarge { files: 7, bytes: 1 << 40 }, "Plan.TooLarge"),
        (PlanError::Panic, "Plan.Panic"),
        (PlanError::List(ListError::Panic), "Plan.Panic"),
    ] {
        let found = row(CoordinatorError::Plan(&error));
        assert_eq!((found.error, found.class), (name, Class::Fatal), "{error}");
    }
    let path = || "/out".to_string();
    let what = "the staged day cannot be made";
    let store = |transient| PublishError::Store { url: "s3://b/x".into(), what, reason: text(), transient };
    let full = io::Error::from(io::ErrorKind::StorageFull);
    assert!(is_full(&full) && !is_full(&io(EIO)));
    for (error, name, class) in [
        (PublishError::Url(url()), "Publish.Url", Class::Fatal),
        (PublishError::Full { path: path(), what, source: full }, "Publish.Full", Class::AfterWaiting),
        (PublishError::Io { path: path(), what, source: io(EIO) }, "Publish.Io", Class::Fatal),
        (PublishError::Replaced { path: path() }, "Publish.Replaced", Class::Fatal),
        (store(true), "Publish.Store", Class::AfterWaiting),
        (store(false), "Publish.Refused", Class::Fatal),
    ] {
        let found = row(CoordinatorError::Publish(&error));
        assert_eq!((found.error, found.class), (name, class), "{error}");
    }
}

#[test]
fn the_design_has_the_same_table() {
    let found = differences(TABLE, DESIGN, "| error that the coordinator finds |");
    assert!(found.is_empty(), "failure-model.md:\n{}", found.join("\n"));
}
