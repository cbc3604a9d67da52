//! The table of errors: what the scheduler does about each error of a task.
//!
//! The match over it is exhaustive: an error without a class does not compile. The page
//! deploy/docs/architecture/failure-model.md has the same table, and a test compares the two.

use tally_dataset::DatasetError;
use tally_proto::class::{Class, Row};
use tally_scan::ScanError;

use super::TaskError;
use crate::spill::SpillError;
use crate::store::StoreError;

macro_rules! classes {
    ($($error:literal $pattern:pat => $class:ident $what:literal;)*) => {
        /// Every error of a task.
        pub const TABLE: &[Row] = &[$(Row { error: $error, class: Class::$class, what: $what }),*];

        /// The row of an error.
        pub fn row(error: &TaskError) -> Row {
            match error {
                $($pattern => Row { error: $error, class: Class::$class, what: $what },)*
            }
        }
    };
}

classes! {
    "Scan.Corrupt" TaskError::Scan(ScanError::Corrupt { .. }) => Fatal
        "an input file cannot be decoded";
    "Scan.Changed" TaskError::Scan(ScanError::Changed { .. }) => Fatal
        "an input file changed or disappeared since the job was planned";
    "Scan.Io" TaskError::Scan(ScanError::Io { .. }) => Elsewhere
        "an input file cannot be read (I/O, network)";
    "Scan.Refused" TaskError::Scan(ScanError::Refused { .. }) => Fatal
        "a store or file system refuses an input file (permission, credentials, name)";
    "Scan.Memory" TaskError::Scan(ScanError::Memory { .. }) => Fatal
        "a page, dictionary or batch of strings needs more memory than the worker has for one task";
    "Scan.MemoryHeld" TaskError::Scan(ScanError::MemoryHeld { .. }) => AfterWaiting
        "the same, and the memory is held by other tasks that wait for memory";
    "Scan.Dataset" TaskError::Scan(ScanError::Dataset { .. }) => Fatal
        "a value or a number of values in an input file is beyond a limit of the dataset";
    "Dataset" TaskError::Dataset(
        DatasetError::TooManyStrings
        | DatasetError::TooManyKeys
        | DatasetError::TooLarge(_)
        | DatasetError::NotUtf8(_)
        | DatasetError::LongValue { .. }
        | DatasetError::LongRow { .. }
        | DatasetError::Malformed(_)
        | DatasetError::TotalTooLarge { .. },
    ) => Fatal
        "the same in a partition or in the totals of a day, or partials that are malformed";
    "Store.SpillFull" TaskError::Store(StoreError::Spill(SpillError::NoSpace { .. })) => AfterWaiting
        "the disk of --spill-dir is full, in any stage";
    "Store.SpillLimit" TaskError::Store(StoreError::Spill(SpillError::Limit { .. })) => AfterWaiting
        "--spill-limit is reached, at the start of a task or within it";
    "Store.SpillDisk" TaskError::Store(StoreError::Spill(SpillError::Disk { .. })) => Elsewhere
        "the disk of --spill-dir fails otherwise";
    "Store.Arrow" TaskError::Store(StoreError::Arrow(_)) => Elsewhere
        "a batch cannot be encoded or decoded on its way to or from the spill directory";
    "Memory" TaskError::Memory { .. } => Fatal
        "distinct strings, or the buffers of an upload, need more memory than the worker has for one task";
    "MemoryHeld" TaskError::MemoryHeld { .. } => AfterWaiting
        "the same, and the memory is held by other tasks that wait for memory";
    "Share" TaskError::Share { .. } => Elsewhere
        "a worker has less memory for each slot than the job was planned for";
    "OutputFull" TaskError::OutputFull { .. } => AfterWaiting
        "the disk of the output is full";
    "Write" TaskError::Write { .. } => Elsewhere
        "a part file cannot be written otherwise";
    "Upload" TaskError::Upload { again: true, .. } => Elsewhere
        "a part of an upload fails, after the retries of the request";
    "Upload.Refused" TaskError::Upload { again: false, .. } => Fatal
        "the store refuses a part of an upload (permission, credentials, no such upload)";
    "Url" TaskError::Url(_) => Elsewhere
        "a worker has no settings for a bucket";
    "Lost" TaskError::Lost { .. } => InputAgain
        "the output of another task cannot be read, or is not what was made";
    "Busy" TaskError::Busy { .. } => AfterWaiting
        "the worker that holds an input has been too busy for 120 s to send anything to this worker";
    "Unsendable" TaskError::Unsendable { .. } => Fatal
        "a worker of an earlier release has a row that is larger than a message between workers";
    "Incomplete" TaskError::Incomplete(_) => Elsewhere
        "a task message does not name all inputs of the task";
    "RowGroups" TaskError::RowGroups { .. } => Fatal
        "a partition needs more row groups than the result of a task may list";
    "Sums" TaskError::Sums(_) => Elsewhere
        "the sums of all inputs of a task are not those of the tasks that made them";
    "SumsLimit" TaskError::SumsLimit { .. } => Fatal
        "the map tasks fill too many partitions: the asked size of shards is too small, or there are too many partitions";
    "Encode" TaskError::Encode(_) => Elsewhere
        "rows cannot be encoded as Parquet";
    "InvalidTask" TaskError::InvalidTask(_) => Fatal
        "a task message is malformed";
    "NoSlot" TaskError::NoSlot { .. } => AfterWaiting
        "a worker has no free slot";
    "NotBegun" TaskError::NotBegun { .. } => Elsewhere
        "a worker did not receive the inputs of a task";
    "Panic" TaskError::Panic(_) => Elsewhere
        "a task panicked";
    "Cancelled" TaskError::Cancelled | TaskError::Scan(ScanError::Cancelled) => Stopped
        "the attempt was asked to stop";
}

#[cfg(test)]
mod tests;
