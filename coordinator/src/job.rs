//! What a job is: the day, its inputs and output, and how it is cut.
//!
//! Not here: how it is run.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tally_proto::JobId;
use tally_proto::ids::InvalidId;
use tally_worker::urls;

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

impl JobSpec {
    /// Checks that the inputs and the output can be named, and that the job would not replace what
    /// it reads, nor read what it wrote.
    ///
    /// # Errors
    /// A sentence that names both places.
    pub fn check_places(&self) -> Result<(), String> {
        let day = |url: &str| {
            let root = urls::local_path(url).map_err(|e| e.to_string())?;
            Ok::<_, String>(root.join(date_folder(&self.date)))
        };
        let output = day(&self.output)?;
        for input in &self.inputs {
            let read = day(input)?;
            if read.starts_with(&output) || output.starts_with(&read) {
                let (output, read) = (output.display(), read.display());
                return Err(format!("the output {output} and the input {read} overlap: give another output"));
            }
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(addons: &str, output: &str, fits: bool) {
        let spec = JobSpec {
            id: new_id("20170227").unwrap(),
            dataset: "addon_aggregates".into(),
            date: "20170227".into(),
            inputs: vec![addons.into(), "/data/main_summary/v3".into()],
            output: output.into(),
            target_file_size: 1,
            cut: Cut::default(),
        };
        assert_eq!(spec.check_places().is_ok(), fits, "{addons} {output}");
    }

    #[test]
    fn a_job_never_replaces_what_it_reads() {
        check("/data/addons/v2", "/data/addons/agg/v1", true);
        check("/data/addons", "/data/addons/agg", true);
        check("/data/addons/v2", "/data/addons/v2", false);
        check("/data/addons/v2", "/data/addons/v2/submission_date_s3=20170227/agg", false);
        check("/data/submission_date_s3=20170227/in", "/data", false);
        check("/data/addons/v2", "/data/addons/v1/../v2/", false);
        check("ftp://x/addons", "/data/out", false);
    }
}
