//! The options that describe a job, with their defaults: where a dataset is stored, how it is computed, for which date.
//!
//! Not here: the locations of inputs and output (`dataset_args`), ranges of dates (`dates`), where the job runs.

use std::path::Path;

use chrono::{DateTime, Days, NaiveDate, Utc};
use clap::Args;
use tally_common::stores::urls;
use tally_coordinator::dates::{date_folder, date_text};
use tally_coordinator::expectations::Expectation;
use tally_coordinator::job::{Cut, JobSpec, check_partitions, expectations, ready_marker};
use tally_coordinator::job_id::new_id;
use tally_coordinator::ready_marker::ReadyMarker;
use tally_dataset::Dataset;
use tally_proto::v1;

use crate::dataset_args::{DatasetArgs, DatasetPlace, default_text, variable};
use crate::option_args::OptionArgs;
use crate::{Stop, dates, size};

/// The day of a job.
#[derive(Debug, Args)]
pub struct DateArgs {
    /// The date of the day [default: $date in the environment, else yesterday in UTC]
    #[arg(long, value_name = "YYYYMMDD")]
    date: Option<String>,
}

/// A job of any day.
#[derive(Debug, Args)]
pub struct WorkArgs {
    #[command(flatten)]
    place: DatasetArgs,
    #[command(flatten)]
    options: OptionArgs,
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "280MB",
        value_parser = size::parse,
        help = default_text(file_size_help)
    )]
    target_file_size: u64,
    /// Publish the day only if it meets this condition, for example 'rows >= 0.8 * previous' or
    /// 'null_share(client_id) <= 0.01'; may be repeated
    #[arg(long, value_name = "CONDITION", value_delimiter = ';')]
    expect: Vec<String>,
    /// Name of an empty file in the day's folder that exists only while the day is whole, for example `_SUCCESS`; it
    /// begins with `_` or `.`
    #[arg(long, value_name = "NAME")]
    ready_marker: Option<String>,
    /// Maximum bytes of needed columns in a shard
    #[arg(long, value_name = "SIZE", value_parser = size::parse, hide = true)]
    shard_bytes: Option<u64>,
    /// Number of partitions of the shuffle
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), hide = true)]
    partitions: Option<u32>,
}

/// A job of one day.
#[derive(Debug, Args)]
pub struct JobArgs {
    #[command(flatten)]
    date: DateArgs,
    #[command(flatten)]
    work: WorkArgs,
}

fn file_size_help(dataset: &dyn Dataset) -> String {
    let (bytes, name) = (dataset.bytes_per_row(), dataset.name());
    format!("Target size of output files, estimated at {bytes} bytes per row of {name}")
}

/// The date of the job: the argument, else the environment, else the day before `now` in UTC.
fn date(argument: Option<&str>, environment: Option<&str>, now: DateTime<Utc>) -> Result<NaiveDate, Stop> {
    let (text, source) = match (argument, environment) {
        (Some(text), _) => (text, "--date"),
        (None, Some(text)) => (text, "date in the environment"),
        (None, None) => return Ok(now.date_naive() - Days::new(1)),
    };
    dates::parse(text).map_err(|why| Stop::Usage(format!("{source} {text:?} is not a date: {why}")))
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

impl DateArgs {
    /// The date.
    ///
    /// # Errors
    /// [`Stop::Usage`].
    pub(crate) fn date(&self) -> Result<NaiveDate, Stop> {
        self.date_before(Utc::now())
    }

    /// The date; the default is the day before `now`.
    fn date_before(&self, now: DateTime<Utc>) -> Result<NaiveDate, Stop> {
        date(self.date.as_deref(), variable("date").as_deref(), now)
    }
}

impl WorkArgs {
    /// The dataset and its URLs, which are not checked.
    ///
    /// # Errors
    /// [`Stop::Usage`].
    pub(crate) fn place(&self) -> Result<DatasetPlace, Stop> {
        self.place.place()
    }

    /// The expectations; a variable that is empty has none.
    fn given_expectations(&self) -> Vec<String> {
        self.expect.iter().filter(|text| !text.trim().is_empty()).cloned().collect()
    }

    /// The expectations, checked.
    fn expectations(&self, dataset: &dyn Dataset) -> Result<Vec<Expectation>, Stop> {
        expectations(&self.given_expectations(), dataset).map_err(|e| Stop::Usage(e.to_string()))
    }

    /// The ready marker, checked.
    fn marker(&self) -> Result<Option<ReadyMarker>, Stop> {
        ready_marker(self.ready_marker.as_deref()).map_err(|e| Stop::Usage(e.to_string()))
    }

    /// The job of a day for this process, with its paths and URLs checked. Its id has the current time.
    ///
    /// # Errors
    /// [`Stop::Usage`].
    pub(crate) fn here(&self, date: NaiveDate) -> Result<JobSpec, Stop> {
        let (DatasetPlace { dataset, inputs, output }, date) = (self.place()?, date_text(date));
        let expectations = self.expectations(&*dataset)?;
        check_partitions(&*dataset, self.partitions).map_err(|e| Stop::Usage(e.to_string()))?;
        let options = self.options.options(&dataset)?;
        let job = JobSpec {
            id: new_id(&date).map_err(|e| Stop::Usage(e.to_string()))?,
            dataset: dataset.name().into(),
            day_folder: date_folder(dataset.partition_column(), &date),
            date,
            inputs,
            output,
            target_file_size: self.target_file_size,
            cut: Cut { shard_bytes: self.shard_bytes, partitions: self.partitions },
            expectations,
            ready_marker: self.marker()?,
            options,
        };
        job.check_locations().map_err(|e| Stop::Usage(e.to_string()))?;
        Ok(job)
    }

    /// The job of a day for a cluster, which checks paths and URLs itself.
    ///
    /// # Errors
    /// [`Stop::Usage`].
    pub(crate) fn elsewhere(&self, date: NaiveDate) -> Result<v1::JobSpec, Stop> {
        let DatasetPlace { dataset, inputs, output } = self.place()?;
        self.expectations(&*dataset)?;
        let options = self.options.options(&dataset)?.to_messages();
        Ok(v1::JobSpec {
            dataset: dataset.name().into(),
            date: date_text(date),
            inputs: inputs.iter().map(|root| absolute(root)).collect::<Result<_, Stop>>()?,
            output: absolute(&output)?,
            target_file_size: self.target_file_size,
            shard_bytes: self.shard_bytes,
            partitions: self.partitions,
            expectations: self.given_expectations(),
            ready_marker: self.marker()?.map(|marker| marker.to_string()),
            options,
        })
    }
}

impl JobArgs {
    /// The job for this process.
    ///
    /// # Errors
    /// [`Stop::Usage`].
    pub(crate) fn here(&self) -> Result<JobSpec, Stop> {
        self.work.here(self.date.date()?)
    }

    /// The job for a cluster. Its default date is the day before `now`.
    ///
    /// # Errors
    /// [`Stop::Usage`].
    pub(crate) fn elsewhere(&self, now: DateTime<Utc>) -> Result<v1::JobSpec, Stop> {
        self.work.elsewhere(self.date.date_before(now)?)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::{Command, FromArgMatches};
    use tally_common::config;
    use tally_coordinator::job::DEFAULT_TARGET_FILE_SIZE;
    use tally_tests::settings::{Shared, check_shared};

    use super::*;

    #[test]
    fn the_date_is_taken_from_the_first_source_that_has_it() {
        let shared =
            Shared { long: "date", variables: &["date"], prefix: "2017011", default: Some("20170227") };
        let now = "2017-02-28T00:30:00Z".parse().unwrap();
        let test = "job_args::tests::the_date_is_taken_from_the_first_source_that_has_it";
        check_shared(test, shared, |flags| {
            let command = DateArgs::augment_args(Command::new("program").arg(config::option()));
            let argv = [&[OsString::from("program")], flags].concat();
            let matches = config::parse(config::with_variables(command), &[], &argv).unwrap();
            let args = DateArgs::from_arg_matches(&matches).unwrap();
            Some(date_text(args.date_before(now).unwrap()))
        });
    }

    #[test]
    fn the_date_comes_from_the_argument_then_the_environment_then_the_clock() {
        let now = "2017-02-28T00:30:00Z".parse().unwrap();
        let text = |argument, environment| date_text(date(argument, environment, now).unwrap());
        assert_eq!(text(Some("20170227"), Some("20160101")), "20170227");
        assert_eq!(text(None, Some("20160101")), "20160101");
        assert_eq!(text(None, None), "20170227");
        for bad in ["2017-02-27", "20170229", "2017022", "", "+2017022"] {
            assert!(matches!(date(Some(bad), None, now), Err(Stop::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn the_default_target_size_is_that_of_the_http_api() {
        let command = WorkArgs::augment_args(Command::new("program"));
        let matches = command.try_get_matches_from(["program"]).unwrap();
        assert_eq!(WorkArgs::from_arg_matches(&matches).unwrap().target_file_size, DEFAULT_TARGET_FILE_SIZE);
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
