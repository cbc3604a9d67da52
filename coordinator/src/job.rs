//! What a job is: the day, its inputs and output, and how it is cut.
//!
//! Not here: how it is run.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tally_proto::JobId;
use tally_proto::ids::InvalidId;

/// The stages of every job, in order.
pub const STAGES: [&str; 3] = ["map", "reduce", "write"];
/// Place of the map stage.
pub const MAP: u32 = 0;
/// Place of the reduce stage.
pub const REDUCE: u32 = 1;
/// Place of the write stage.
pub const WRITE: u32 = 2;

/// A job, validated.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// Its id.
    pub id: JobId,
    /// Name of its dataset.
    pub dataset: String,
    /// The day, `YYYYMMDD`.
    pub date: String,
    /// URLs of the input tables' roots, in the dataset's order.
    pub inputs: Vec<String>,
    /// URL of the output's root; the day becomes a folder below it.
    pub output: String,
    /// Bytes of a part file, as the dataset reckons them.
    pub target_file_size: u64,
    /// How the work is cut; `None` where the planner decides.
    pub cut: Cut,
}

/// Explicit choices of the planner's, for tests and tuning.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cut {
    /// Bytes of needed columns in a shard, at most.
    pub shard_bytes: Option<u64>,
    /// Partitions of the shuffle.
    pub partitions: Option<u32>,
}

/// The folder of a day, in inputs and output alike.
pub fn date_folder(date: &str) -> String {
    format!("submission_date_s3={date}")
}

/// A job id that this machine did not give before: the day, the time, the process, a count.
///
/// # Errors
/// [`InvalidId`] only if the date is no date.
pub fn new_id(date: &str) -> Result<JobId, InvalidId> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    JobId::parse(&format!("{date}-{:x}-{:x}-{count}", now.as_millis(), std::process::id()))
}
