//! The table of errors that the coordinator itself finds: in attempts, and while it plans and publishes.
//!
//! The match over it is exhaustive, like the one over the errors of tasks (`tally_shuffle::error::classes`). The page
//! deploy/docs/architecture/failure-model.md has the same table, and a test compares the two.

use tally_proto::class::{Class, Row};
use tally_proto::limits::{MAX_TASKS, TooLarge};
use tally_proto::{AttemptId, Failure};
use tally_scan::ScanError;

use crate::job::{MAP, REDUCE};
use crate::plan::PlanError;
use crate::plan::listing::ListError;
use crate::publish::PublishError;

/// The reason for which the coordinator rejects an attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttemptError {
    /// Its upload did not begin.
    #[error("{what}")]
    NoUpload {
        /// The store's error.
        what: String,
        /// Whether another attempt may succeed.
        again: bool,
    },
    /// Its task message could not be built.
    #[error("{0}")]
    NoOrder(String),
    /// Its worker's version cannot run it.
    #[error("{0}")]
    OldWorker(String),
    /// Its result is invalid.
    #[error("{attempt} reported {what}")]
    BadResult {
        /// The attempt.
        attempt: AttemptId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It returned other rows than another attempt of its task.
    #[error("two attempts of a task gave different rows: {0}")]
    OtherRows(String),
    /// Its task message is too large to be sent.
    #[error("the task message of {attempt} cannot be sent: {excess}; {advice}")]
    TooLarge {
        /// The attempt.
        attempt: AttemptId,
        /// The size.
        excess: TooLarge,
        /// What to do.
        advice: &'static str,
    },
    /// The reduce tasks made too many row groups.
    #[error(
        "the reduce tasks made {0} row groups, and a job has at most {MAX_JOB_ROW_GROUPS}: set a larger --target-file-size"
    )]
    TooManyRowGroups(usize),
}

/// The maximum number of row groups that the reduce tasks of a job may make: more than there are part files and partitions.
pub const MAX_JOB_ROW_GROUPS: usize = 2 * MAX_TASKS;

impl AttemptError {
    /// The error for a task message of an attempt that no worker would accept.
    pub fn too_large(attempt: &AttemptId, excess: TooLarge) -> Self {
        let advice = match attempt.task.stage.0 {
            MAP => "rename its input files to shorter names",
            REDUCE => "combine small input files, or run fewer workers",
            _ => "set a smaller --target-file-size",
        };
        AttemptError::TooLarge { attempt: attempt.clone(), excess, advice }
    }
}

/// An error that the coordinator finds.
#[derive(Debug, Clone, Copy)]
pub enum CoordinatorError<'a> {
    /// In an attempt.
    Attempt(&'a AttemptError),
    /// While the inputs are planned.
    Plan(&'a PlanError),
    /// While the output is prepared or published.
    Publish(&'a PublishError),
}

macro_rules! classes {
    ($($error:literal $pattern:pat => $class:ident $what:literal;)*) => {
        /// All errors that the coordinator finds.
        pub const TABLE: &[Row] = &[$(Row { error: $error, class: Class::$class, what: $what }),*];

        /// The row of an error.
        pub fn row(error: CoordinatorError<'_>) -> Row {
            match error {
                $($pattern => Row { error: $error, class: Class::$class, what: $what },)*
            }
        }
    };
}

classes! {
    "Attempt.NoUpload" CoordinatorError::Attempt(AttemptError::NoUpload { again: true, .. }) => Elsewhere
        "the upload of a part file cannot begin, after the retries of the request";
    "Attempt.UploadRefused" CoordinatorError::Attempt(AttemptError::NoUpload { again: false, .. }) => Fatal
        "the store refuses to begin the upload of a part file (permission, credentials, no such bucket)";
    "Attempt.NoOrder" CoordinatorError::Attempt(AttemptError::NoOrder(_)) => Elsewhere
        "a task message cannot be made";
    "Attempt.OldWorker" CoordinatorError::Attempt(AttemptError::OldWorker(_)) => AfterWaiting
        "the worker is of a version that cannot do the task";
    "Attempt.BadResult" CoordinatorError::Attempt(AttemptError::BadResult { .. }) => Elsewhere
        "a result contradicts itself or its task";
    "Attempt.OtherRows" CoordinatorError::Attempt(AttemptError::OtherRows(_)) => Fatal
        "two attempts of a task gave different rows";
    "Attempt.TooLarge" CoordinatorError::Attempt(AttemptError::TooLarge { .. }) => Fatal
        "a task message is larger than a message may be";
    "Attempt.RowGroups" CoordinatorError::Attempt(AttemptError::TooManyRowGroups(_)) => Fatal
        "the reduce tasks made too many row groups: the target size of part files is too small";
    "Plan.Inputs" CoordinatorError::Plan(
        PlanError::List(
            ListError::Url(_)
            | ListError::Unreadable { .. }
            | ListError::Ambiguous { .. }
            | ListError::Nothing { .. },
        )
        | PlanError::Folder(_),
    ) => Fatal
        "the day has no data files, or it is not clear which they are";
    "Plan.Listing" CoordinatorError::Plan(PlanError::List(ListError::Store { .. } | ListError::Read { .. })) => Fatal
        "the day's files cannot be listed, after the retries of the request";
    "Plan.Footer" CoordinatorError::Plan(PlanError::Scan(
        ScanError::Corrupt { .. }
        | ScanError::Changed { .. }
        | ScanError::Io { .. }
        | ScanError::Refused { .. }
        | ScanError::Memory { .. }
        | ScanError::MemoryHeld { .. }
        | ScanError::Dataset { .. }
        | ScanError::Cancelled,
    )) => Fatal
        "a footer cannot be read, after the retries of the request";
    "Plan.Schema" CoordinatorError::Plan(PlanError::Schema(_)) => Fatal
        "a needed column is missing, ambiguous or of another type";
    "Plan.TooLarge" CoordinatorError::Plan(PlanError::TooLarge { .. }) => Fatal
        "the day has so many files that the plan is too large for a journal record";
    "Plan.Panic" CoordinatorError::Plan(PlanError::Panic | PlanError::List(ListError::Panic)) => Fatal
        "planning panicked";
    "Publish.Url" CoordinatorError::Publish(PublishError::Url(_)) => Fatal
        "the output's URL or the settings of its bucket are wrong";
    "Publish.Full" CoordinatorError::Publish(PublishError::Full { .. }) => AfterWaiting
        "the disk of the output is full while the day is staged: tried again for 30 s";
    "Publish.Io" CoordinatorError::Publish(PublishError::Io { .. }) => Fatal
        "the output cannot be written otherwise";
    "Publish.Replaced" CoordinatorError::Publish(PublishError::Replaced { .. }) => Fatal
        "another process published the day after the job was decided, and before a new leader could publish it";
    "Publish.Refused" CoordinatorError::Publish(PublishError::Store { transient: false, .. }) => Fatal
        "a store refuses what publishing needs (permission, credentials, a key that no path can have)";
    "Publish.Store" CoordinatorError::Publish(PublishError::Store { transient: true, .. }) => AfterWaiting
        "a store fails while the day is made visible: tried 10 times, 5 s apart; before the first task the job fails at once";
}

impl From<AttemptError> for Failure {
    fn from(error: AttemptError) -> Self {
        let reason = error.to_string();
        match row(CoordinatorError::Attempt(&error)).class {
            Class::Elsewhere | Class::InputAgain => Failure::Retryable { reason },
            Class::AfterWaiting => Failure::Refused { reason },
            Class::Fatal => Failure::Fatal { reason },
            Class::Stopped => Failure::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests;
