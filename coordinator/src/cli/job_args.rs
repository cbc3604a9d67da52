//! Which job: the options that `run` and `submit` share, with their defaults.
//!
//! Not here: where the job runs.

use std::path::Path;

use chrono::{Days, NaiveDate, Utc};
use clap::Args;
use tally_dataset::addon_aggregates;
use tally_proto::v1;

use super::{Stop, size};
use crate::job::{Cut, JobSpec, new_id};

/// What to compute, from what, and where to.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// Root of the table addons: a path, or an s3://, gs://, az:// or file:// URL
    #[arg(long, value_name = "URL", default_value = "s3://telemetry-parquet/addons/v2")]
    addons: String,
    /// Root of the table main_summary, like it
    #[arg(long, value_name = "URL", default_value = "s3://telemetry-parquet/main_summary/v3")]
    main_summary: String,
    /// Root of the output; the day becomes the folder submission_date_s3=YYYYMMDD below it
    /// [default: s3://$bucket/addons/agg/v1, and telemetry-parquet where $bucket is not set]
    #[arg(long, value_name = "URL")]
    output: Option<String>,
    /// The day [default: $date in the environment, else yesterday in UTC]
    #[arg(long, value_name = "YYYYMMDD")]
    date: Option<String>,
    /// Size that part files are reckoned with, at 38 bytes a row
    #[arg(long, value_name = "SIZE", default_value = "280MB", value_parser = size::parse)]
    target_file_size: u64,
    /// Bytes of needed columns in a shard, at most
    #[arg(long, value_name = "SIZE", value_parser = size::parse, hide = true)]
    shard_bytes: Option<u64>,
    /// Partitions of the shuffle
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), hide = true)]
    partitions: Option<u32>,
}

/// The date asked for: the argument, else the environment, else yesterday in UTC.
fn date(argument: Option<&str>, environment: Option<&str>) -> Result<String, Stop> {
    let (text, source) = match (argument, environment) {
        (Some(text), _) => (text.to_string(), "--date"),
        (None, Some(text)) => (text.to_string(), "date in the environment"),
        (None, None) => {
            let yesterday = Utc::now().date_naive() - Days::new(1);
            (yesterday.format("%Y%m%d").to_string(), "yesterday")
        }
    };
    let digits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
    match NaiveDate::parse_from_str(&text, "%Y%m%d") {
        Ok(_) if digits => Ok(text),
        _ => Err(Stop::Usage(format!("{source} {text:?} is no day: write YYYYMMDD, for example 20170227"))),
    }
}

/// A path as every machine that shares the file system finds it; URLs stay as they are. Links are
/// not resolved: they may lead elsewhere where the job runs.
fn absolute(url: &str) -> Result<String, Stop> {
    if url.contains("://") {
        return Ok(url.to_string());
    }
    let path = std::path::absolute(Path::new(url)).map_err(|e| Stop::Usage(format!("{url:?}: {e}")))?;
    let text = path.into_os_string().into_string();
    text.map_err(|path| Stop::Usage(format!("{} is not UTF-8: it cannot be sent", path.display())))
}

impl JobArgs {
    fn date(&self) -> Result<String, Stop> {
        date(self.date.as_deref(), variable("date").as_deref())
    }

    fn output(&self) -> String {
        self.output.clone().unwrap_or_else(|| {
            let bucket = variable("bucket").unwrap_or_else(|| "telemetry-parquet".into());
            format!("s3://{bucket}/addons/agg/v1")
        })
    }

    /// The job for this process, its places checked.
    ///
    /// # Errors
    /// Where they make no sense.
    pub(super) fn here(&self) -> Result<JobSpec, Stop> {
        let date = self.date()?;
        let job = JobSpec {
            id: new_id(&date).map_err(|e| Stop::Usage(e.to_string()))?,
            dataset: addon_aggregates::NAME.into(),
            date,
            inputs: vec![self.addons.clone(), self.main_summary.clone()],
            output: self.output(),
            target_file_size: self.target_file_size,
            cut: Cut { shard_bytes: self.shard_bytes, partitions: self.partitions },
        };
        job.check_places().map_err(Stop::Usage)?;
        Ok(job)
    }

    /// The job for a cluster, which checks its places itself.
    ///
    /// # Errors
    /// Where the date is none, or a path cannot be sent.
    pub(super) fn elsewhere(&self) -> Result<v1::JobSpec, Stop> {
        Ok(v1::JobSpec {
            dataset: addon_aggregates::NAME.into(),
            date: self.date()?,
            inputs: vec![absolute(&self.addons)?, absolute(&self.main_summary)?],
            output: absolute(&self.output())?,
            target_file_size: self.target_file_size,
            shard_bytes: self.shard_bytes,
            partitions: self.partitions,
        })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_comes_from_the_argument_then_the_environment_then_the_clock() {
        assert_eq!(date(Some("20170227"), Some("20160101")).unwrap(), "20170227");
        assert_eq!(date(None, Some("20160101")).unwrap(), "20160101");
        assert_eq!(date(None, None).unwrap().len(), 8);
        for bad in ["2017-02-27", "20170229", "2017022", "", "+2017022"] {
            assert!(matches!(date(Some(bad), None), Err(Stop::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn paths_are_sent_from_the_root() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute("day/addons").unwrap(), here.join("day/addons").display().to_string());
        assert_eq!(absolute("/day").unwrap(), "/day");
        assert_eq!(absolute("s3://bucket/day").unwrap(), "s3://bucket/day");
        assert_eq!(absolute("file:///day").unwrap(), "file:///day");
        assert!(matches!(absolute(""), Err(Stop::Usage(_))));
    }
}
