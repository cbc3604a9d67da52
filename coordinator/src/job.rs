//! What a job is: the day, its inputs and output, and how it is cut.
//!
//! Not here: how it is run.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::NaiveDate;
use tally_dataset::dataset;
use tally_proto::ids::InvalidId;
use tally_proto::{JobId, v1};
use tally_worker::urls;

/// The stages of every job, in order.
pub const STAGES: [&str; 3] = ["map", "reduce", "write"];
/// Place of the map stage.
pub const MAP: u32 = 0;
/// Place of the reduce stage.
pub const REDUCE: u32 = 1;
/// Place of the write stage.
pub const WRITE: u32 = 2;

/// More partitions than any day needs.
const MOST_PARTITIONS: u32 = 10_000;

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
    /// Whether the other job makes the same day of the same output.
    pub fn same_day(&self, other: &JobSpec) -> bool {
        self.date == other.date && self.output == other.output
    }

    /// Whether the other job is the same but for its id and how it is cut.
    pub fn same_work(&self, other: &JobSpec) -> bool {
        self.same_day(other) && self.dataset == other.dataset && self.inputs == other.inputs
    }

    /// A job that somebody asks for, under a new id; places are given back as absolute paths, so
    /// that the same place has one name.
    ///
    /// # Errors
    /// A sentence that names what makes no sense.
    pub fn asked(asked: v1::JobSpec) -> Result<Self, String> {
        let dataset =
            dataset(&asked.dataset).ok_or_else(|| format!("there is no dataset {:?}", asked.dataset))?;
        let digits = asked.date.len() == 8 && asked.date.bytes().all(|b| b.is_ascii_digit());
        if !digits || NaiveDate::parse_from_str(&asked.date, "%Y%m%d").is_err() {
            return Err(format!("{:?} is no day: write YYYYMMDD", asked.date));
        }
        let tables = dataset.tables();
        if asked.inputs.len() != tables.len() {
            let names: Vec<_> = tables.iter().map(|table| table.name).collect();
            return Err(format!(
                "{} inputs instead of {}: {}",
                asked.inputs.len(),
                tables.len(),
                names.join(", ")
            ));
        }
        if asked.target_file_size == 0 {
            return Err("target_file_size is 0: give the bytes of a part file".into());
        }
        if asked.partitions.is_some_and(|partitions| !(1..=MOST_PARTITIONS).contains(&partitions)) {
            return Err(format!("partitions: give 1 to {MOST_PARTITIONS}"));
        }
        if asked.shard_bytes == Some(0) {
            return Err("shard_bytes is 0: give the bytes of a shard, or leave it out".into());
        }
        let place = |url: &String| {
            if !url.contains("://") && !Path::new(url).is_absolute() {
                return Err(format!("{url:?} is no absolute path and no URL"));
            }
            urls::place(url).map_err(|e| e.to_string())
        };
        let mut spec = JobSpec {
            id: new_id(&asked.date).map_err(|e| e.to_string())?,
            dataset: asked.dataset,
            date: asked.date,
            inputs: asked.inputs.iter().map(place).collect::<Result<_, String>>()?,
            output: String::new(),
            target_file_size: asked.target_file_size,
            cut: Cut { shard_bytes: asked.shard_bytes, partitions: asked.partitions },
        };
        spec.output = place(&asked.output)?;
        spec.check_places()?;
        Ok(spec)
    }

    /// A job of the journal's.
    ///
    /// # Errors
    /// [`InvalidId`].
    pub fn recorded(job: &str, spec: v1::JobSpec) -> Result<Self, InvalidId> {
        Ok(JobSpec {
            id: JobId::parse(job)?,
            dataset: spec.dataset,
            date: spec.date,
            inputs: spec.inputs,
            output: spec.output,
            target_file_size: spec.target_file_size,
            cut: Cut { shard_bytes: spec.shard_bytes, partitions: spec.partitions },
        })
    }

    /// Checks that the inputs and the output can be named, and that the job would not replace what
    /// it reads, nor read what it wrote.
    ///
    /// # Errors
    /// A sentence that names both places.
    pub fn check_places(&self) -> Result<(), String> {
        let day = |url: &str| {
            let root = urls::place(url).map_err(|e| e.to_string())?;
            Ok::<_, String>(Path::new(&root).join(date_folder(&self.date)))
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

impl From<&JobSpec> for v1::JobSpec {
    fn from(spec: &JobSpec) -> Self {
        v1::JobSpec {
            dataset: spec.dataset.clone(),
            date: spec.date.clone(),
            inputs: spec.inputs.clone(),
            output: spec.output.clone(),
            target_file_size: spec.target_file_size,
            shard_bytes: spec.cut.shard_bytes,
            partitions: spec.cut.partitions,
        }
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
