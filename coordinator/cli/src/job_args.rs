//! The options that describe a job, for `run` and `submit`, with their defaults.
//!
//! Not here: the roots of tables (`table_args`), where the job runs.

use std::path::Path;
use std::sync::Arc;

use chrono::{Days, NaiveDate, Utc};
use clap::Args;
use tally_common::stores::urls;
use tally_coordinator::job::{Cut, JobSpec, date_folder, new_id};
use tally_dataset::{Dataset, registry};
use tally_proto::v1;

use crate::table_args::TableArgs;
use crate::{Stop, size};

/// The default of `$bucket`.
const BUCKET: &str = "telemetry-parquet";

/// The dataset, its day, its inputs and its output.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The dataset to compute
    #[arg(long, value_name = "NAME", default_value_t = default_text(|dataset| dataset.name().into()))]
    dataset: String,
    #[command(flatten)]
    tables: TableArgs,
    #[arg(long, value_name = "URL", help = default_text(output_help))]
    output: Option<String>,
    /// The date of the day [default: $date in the environment, else yesterday in UTC]
    #[arg(long, value_name = "YYYYMMDD")]
    date: Option<String>,
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "280MB",
        value_parser = size::parse,
        help = default_text(file_size_help)
    )]
    target_file_size: u64,
    /// Maximum bytes of needed columns in a shard
    #[arg(long, value_name = "SIZE", value_parser = size::parse, hide = true)]
    shard_bytes: Option<u64>,
    /// Number of partitions of the shuffle
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), hide = true)]
    partitions: Option<u32>,
}

/// A text about the default dataset.
fn default_text(text: impl Fn(&dyn Dataset) -> String) -> String {
    registry::datasets().next().map(|dataset| text(&*dataset)).unwrap_or_default()
}

fn output_help(dataset: &dyn Dataset) -> String {
    let default = dataset
        .default_output()
        .map(|folder| format!(" [default: s3://$bucket/{folder}, where $bucket defaults to {BUCKET}]"));
    let column = dataset.partition_column();
    let help = format!("Root of the output; the day is stored below it, in the folder {column}=YYYYMMDD");
    help + &default.unwrap_or_default()
}

fn file_size_help(dataset: &dyn Dataset) -> String {
    let (bytes, name) = (dataset.bytes_per_row(), dataset.name());
    format!("Target size of output files, estimated at {bytes} bytes per row of {name}")
}

/// The date of the job: the argument, else the environment, else yesterday in UTC.
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
        _ => {
            Err(Stop::Usage(format!("{source} {text:?} is not a date: write YYYYMMDD, for example 20170227")))
        }
    }
}

/// The absolute path, for machines that share the file system; URLs are unchanged. Links are
/// not resolved, because they may have other targets on the machines of the cluster.
fn absolute(url: &str) -> Result<String, Stop> {
    if url.contains("://") {
        // The coordinator records the URL in its journal.
        urls::check_no_credentials(url).map_err(|e| Stop::Usage(e.to_string()))?;
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

    /// The dataset of the job.
    fn dataset(&self) -> Result<Arc<dyn Dataset>, Stop> {
        registry::dataset(&self.dataset).ok_or_else(|| {
            let names: Vec<_> = registry::datasets().map(|dataset| dataset.name()).collect();
            let (name, names) = (&self.dataset, names.join(", "));
            Stop::Usage(format!("--dataset: there is no dataset {name:?}; the datasets are: {names}"))
        })
    }

    fn output(&self, dataset: &dyn Dataset) -> Result<String, Stop> {
        if let Some(output) = &self.output {
            return Ok(output.clone());
        }
        let missing =
            || Stop::Usage(format!("the dataset {} has no default output: give --output", self.dataset));
        let folder = dataset.default_output().ok_or_else(missing)?;
        let bucket = variable("bucket").unwrap_or_else(|| BUCKET.into());
        Ok(format!("s3://{bucket}/{folder}"))
    }

    /// The job for this process, with its paths and URLs checked.
    ///
    /// # Errors
    /// [`Stop::Usage`].
    pub(crate) fn here(&self) -> Result<JobSpec, Stop> {
        let (dataset, date) = (self.dataset()?, self.date()?);
        let job = JobSpec {
            id: new_id(&date).map_err(|e| Stop::Usage(e.to_string()))?,
            dataset: self.dataset.clone(),
            day_folder: date_folder(dataset.partition_column(), &date),
            date,
            inputs: self.tables.roots(&*dataset)?,
            output: self.output(&*dataset)?,
            target_file_size: self.target_file_size,
            cut: Cut { shard_bytes: self.shard_bytes, partitions: self.partitions },
        };
        job.check_overlap().map_err(|e| Stop::Usage(e.to_string()))?;
        Ok(job)
    }

    /// The job for a cluster, which checks paths and URLs itself.
    ///
    /// # Errors
    /// [`Stop::Usage`].
    pub(crate) fn elsewhere(&self) -> Result<v1::JobSpec, Stop> {
        let dataset = self.dataset()?;
        let roots = self.tables.roots(&*dataset)?;
        Ok(v1::JobSpec {
            dataset: self.dataset.clone(),
            date: self.date()?,
            inputs: roots.iter().map(|root| absolute(root)).collect::<Result<_, Stop>>()?,
            output: absolute(&self.output(&*dataset)?)?,
            target_file_size: self.target_file_size,
            shard_bytes: self.shard_bytes,
            partitions: self.partitions,
        })
    }
}

fn variable(name: &str) -> Option<String> {
    tally_common::environment::text(name)
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
        for bad in ["", "s3://user:secret@bucket/day", "az://c/x?sig=secret"] {
            assert!(matches!(absolute(bad), Err(Stop::Usage(why)) if !why.contains("secret")), "{bad}");
        }
    }
}
