//! The specification of a job: the day, its inputs and output, and the options of its plan.
//!
//! Not here: how a job runs, its id (`job_id`).

use std::path::Path;
use std::sync::Arc;

use tally_common::stores::urls::{self, UrlError};
use tally_dataset::{Dataset, FolderSpec, dataset};
use tally_proto::dataset_options::{DatasetOptions, OptionsError};
use tally_proto::ids::InvalidId;
use tally_proto::{JobId, v1};

use crate::dataset_config::{DatasetOptionError, configured, shown};
use crate::dates::{date_folder, parse_date};
use crate::expectations::{Expectation, ExpectationError, MAX_EXPECTATIONS};
use crate::job_id::new_id;
use crate::ready_marker::{MarkerError, ReadyMarker};

/// The stages of every job, in order.
pub const STAGES: [&str; 3] = ["map", "reduce", "write"];
/// The number of the map stage.
pub const MAP: u32 = 0;
/// The number of the reduce stage.
pub const REDUCE: u32 = 1;
/// The number of the write stage.
pub const WRITE: u32 = 2;

/// The target size of a part file if a job does not give one.
pub const DEFAULT_TARGET_FILE_SIZE: u64 = 280_000_000;

/// The most partitions that a job may ask for: more than any day needs.
const MAX_PARTITIONS: u32 = 10_000;
/// The longest URL of an input or output, in bytes. Object keys and paths are shorter.
const MAX_URL_BYTES: usize = 8 << 10;

/// A job, validated.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// Its id.
    pub id: JobId,
    /// Name of its dataset.
    pub dataset: String,
    /// The day, `YYYYMMDD`.
    pub date: String,
    /// The day's folder below the roots of inputs and output, see [`date_folder`].
    pub day_folder: String,
    /// URLs of the input tables' roots, in the dataset's order.
    pub inputs: Vec<String>,
    /// URL of the output's root; the day becomes a folder below it.
    pub output: String,
    /// Target size of a part file, in bytes, estimated by the dataset's bytes per row.
    pub target_file_size: u64,
    /// Explicit options of the plan.
    pub cut: Cut,
    /// What the day must meet to be published.
    pub expectations: Vec<Expectation>,
    /// The file in the day's folder that exists only while the day is whole.
    pub ready_marker: Option<ReadyMarker>,
    /// The options of its dataset.
    pub options: DatasetOptions,
}

/// Options of the plan, for tests and tuning; `None` if the planner decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cut {
    /// The most bytes of needed columns in a shard.
    pub shard_bytes: Option<u64>,
    /// Partitions of the shuffle.
    pub partitions: Option<u32>,
}

/// A job that cannot be accepted as it is specified.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The dataset is unknown.
    #[error("there is no dataset {0:?}")]
    Dataset(String),
    /// The date is invalid.
    #[error("{0:?} is not a date: write YYYYMMDD")]
    Date(String),
    /// Another number of inputs than the dataset has tables.
    #[error("{given} inputs instead of {expected}: {names}")]
    Inputs {
        /// Inputs that were given.
        given: usize,
        /// Tables of the dataset.
        expected: usize,
        /// Their names.
        names: String,
    },
    /// No target size.
    #[error("target_file_size is 0: give the bytes of a part file")]
    NoTargetFileSize,
    /// Too many partitions, or none.
    #[error("partitions: give 1 to {MAX_PARTITIONS}")]
    Partitions,
    /// Another number of partitions than the output has folders.
    #[error(
        "partitions: {dataset} has a partition for each of its {count} folders {column}=N: leave it out, or give {count}"
    )]
    FolderPartitions {
        /// The dataset.
        dataset: String,
        /// The column of the folders.
        column: &'static str,
        /// Its folders.
        count: u32,
    },
    /// Shards without bytes.
    #[error("shard_bytes is 0: give the bytes of a shard, or leave it out")]
    NoShardBytes,
    /// An expectation that cannot be checked.
    #[error("expectation {text:?}: {why}")]
    Expectation {
        /// The expectation.
        text: String,
        /// The reason.
        why: ExpectationError,
    },
    /// A name that a ready marker cannot have.
    #[error("ready marker {name:?}: {why}")]
    ReadyMarker {
        /// The name.
        name: String,
        /// The reason.
        why: MarkerError,
    },
    /// Options that no job can have.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Options that the dataset refuses.
    #[error(transparent)]
    DatasetOption(#[from] DatasetOptionError),
    /// Too many expectations.
    #[error("{0} expectations: give at most {MAX_EXPECTATIONS}")]
    Expectations(usize),
    /// A URL that is too long for the journal and for the statuses of jobs.
    #[error("a URL of an input or output has {0} bytes: give at most {MAX_URL_BYTES}")]
    LongUrl(usize),
    /// A relative path.
    #[error("{0:?} is neither an absolute path nor a URL")]
    Relative(String),
    /// An invalid URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// An invalid id.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The folder of a day instead of the root of the output.
    #[error("the output {0} is the folder of a day: give the folder above it, the root of the output")]
    DayFolder(String),
    /// The job would replace what it reads, or one of the tables would contain another.
    #[error("the output {output} and the input {input} overlap: give another output, outside of the inputs")]
    Overlap {
        /// The root of the output.
        output: String,
        /// The root of the input.
        input: String,
    },
}

/// A job of the journal that cannot be resumed.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// The job id is invalid.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The dataset is unknown.
    #[error("there is no dataset {0:?}")]
    Dataset(String),
    /// An expectation that this version cannot check, a ready marker that it does not accept, or options that it does not
    /// have.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// Checks that the partitions that a job asks for are those of its dataset's folders, if it has any.
///
/// # Errors
/// [`SpecError::FolderPartitions`].
pub fn check_partitions(dataset: &dyn Dataset, asked: Option<u32>) -> Result<(), SpecError> {
    match dataset.folders() {
        Some(FolderSpec { column, count }) if asked.is_some_and(|asked| asked != count) => {
            Err(SpecError::FolderPartitions { dataset: dataset.name().into(), column, count })
        }
        _ => Ok(()),
    }
}

/// Reads the expectations of a job.
///
/// # Errors
/// [`SpecError`] names the one that cannot be checked.
pub fn expectations(texts: &[String], dataset: &dyn Dataset) -> Result<Vec<Expectation>, SpecError> {
    if texts.len() > MAX_EXPECTATIONS {
        return Err(SpecError::Expectations(texts.len()));
    }
    let read = |text: &String| {
        let read = text.parse().and_then(|read: Expectation| read.check_names(dataset).map(|()| read));
        read.map_err(|why| SpecError::Expectation { text: text.clone(), why })
    };
    texts.iter().map(read).collect()
}

/// Reads the name of a ready marker.
///
/// # Errors
/// [`SpecError::ReadyMarker`].
pub fn ready_marker(name: Option<&str>) -> Result<Option<ReadyMarker>, SpecError> {
    let read = |name: &str| {
        name.parse().map_err(|why| SpecError::ReadyMarker { name: name.chars().take(80).collect(), why })
    };
    name.map(read).transpose()
}

/// The canonical form of a URL of a client, whose working folder is not known here. Resolving a path blocks.
///
/// # Errors
/// [`SpecError`]: it is too long, a relative path, or not valid.
pub fn canonical_url(url: &str) -> Result<String, SpecError> {
    if url.len() > MAX_URL_BYTES {
        return Err(SpecError::LongUrl(url.len()));
    }
    if !url.contains("://") && !Path::new(url).is_absolute() {
        return Err(SpecError::Relative(url.into()));
    }
    Ok(urls::canonical(url)?)
}

impl JobSpec {
    /// Whether the other job writes the same day of the same output.
    pub fn same_day(&self, other: &JobSpec) -> bool {
        self.date == other.date && self.output == other.output
    }

    /// Whether the other job differs only in its id, target size and plan options.
    pub fn same_work(&self, other: &JobSpec) -> bool {
        let same_dataset = self.dataset == other.dataset && self.options == other.options;
        let same_result = same_dataset && self.inputs == other.inputs;
        let same_publish = self.expectations == other.expectations && self.ready_marker == other.ready_marker;
        self.same_day(other) && same_result && same_publish
    }

    /// Validates a requested job and gives it a new id. Inputs and output become absolute paths or URLs, so that each
    /// location has one name.
    ///
    /// # Errors
    /// [`SpecError`] names the invalid field.
    pub fn asked(asked: v1::JobSpec) -> Result<Self, SpecError> {
        let dataset = dataset(&asked.dataset).ok_or_else(|| SpecError::Dataset(asked.dataset.clone()))?;
        if parse_date(&asked.date).is_none() {
            return Err(SpecError::Date(asked.date));
        }
        let tables = dataset.tables();
        if asked.inputs.len() != tables.len() {
            let names: Vec<_> = tables.iter().map(|table| table.name).collect();
            let (given, expected, names) = (asked.inputs.len(), tables.len(), names.join(", "));
            return Err(SpecError::Inputs { given, expected, names });
        }
        if asked.target_file_size == 0 {
            return Err(SpecError::NoTargetFileSize);
        }
        if asked.partitions.is_some_and(|partitions| !(1..=MAX_PARTITIONS).contains(&partitions)) {
            return Err(SpecError::Partitions);
        }
        check_partitions(&*dataset, asked.partitions)?;
        if asked.shard_bytes == Some(0) {
            return Err(SpecError::NoShardBytes);
        }
        let options = DatasetOptions::try_from(asked.options)?;
        let dataset = configured(dataset, &options)?;
        let expectations = expectations(&asked.expectations, &*dataset)?;
        let ready_marker = ready_marker(asked.ready_marker.as_deref())?;
        let mut spec = JobSpec {
            id: new_id(&asked.date)?,
            dataset: asked.dataset,
            day_folder: date_folder(dataset.partition_column(), &asked.date),
            date: asked.date,
            inputs: asked.inputs.iter().map(|url| canonical_url(url)).collect::<Result<_, SpecError>>()?,
            output: String::new(),
            target_file_size: asked.target_file_size,
            cut: Cut { shard_bytes: asked.shard_bytes, partitions: asked.partitions },
            expectations,
            ready_marker,
            options,
        };
        spec.output = canonical_url(&asked.output)?;
        spec.check_locations()?;
        Ok(spec)
    }

    /// A job from the journal.
    ///
    /// # Errors
    /// [`RecordedError`].
    pub fn recorded(job: &str, spec: v1::JobSpec) -> Result<Self, RecordedError> {
        let id = JobId::parse(job)?;
        let Some(dataset) = dataset(&spec.dataset) else { return Err(RecordedError::Dataset(spec.dataset)) };
        Ok(JobSpec {
            id,
            dataset: spec.dataset,
            day_folder: date_folder(dataset.partition_column(), &spec.date),
            date: spec.date,
            inputs: spec.inputs,
            output: spec.output,
            target_file_size: spec.target_file_size,
            cut: Cut { shard_bytes: spec.shard_bytes, partitions: spec.partitions },
            expectations: expectations(&spec.expectations, &*dataset)?,
            ready_marker: ready_marker(spec.ready_marker.as_deref())?,
            options: DatasetOptions::try_from(spec.options).map_err(SpecError::from)?,
        })
    }

    /// Its dataset, with its options.
    ///
    /// # Errors
    /// [`SpecError`]: this process does not have the dataset, or the dataset refuses the options.
    pub fn configured(&self) -> Result<Arc<dyn Dataset>, SpecError> {
        let dataset = dataset(&self.dataset).ok_or_else(|| SpecError::Dataset(self.dataset.clone()))?;
        Ok(configured(dataset, &self.options)?)
    }

    /// The specification for the journal, with the contents of its options.
    pub fn record(&self) -> v1::JobSpec {
        v1::JobSpec { options: self.options.to_messages(), ..self.into() }
    }

    /// Checks that the URLs are valid, that neither the output is in an input nor an input in the output, and that the output
    /// is not the folder of a day: readers of a table, and of a day, read all files below it.
    ///
    /// # Errors
    /// [`SpecError`] names the roots.
    pub fn check_locations(&self) -> Result<(), SpecError> {
        let output = urls::canonical(&self.output)?;
        for input in &self.inputs {
            let input = urls::canonical(input)?;
            let (written, read) = (Path::new(&output), Path::new(&input));
            if read.starts_with(written) || written.starts_with(read) {
                return Err(SpecError::Overlap { output, input });
            }
        }
        let column = self.day_folder.split('=').next().unwrap_or_default();
        let name = output.rsplit('/').next().unwrap_or_default();
        match name.split_once('=').is_some_and(|(key, _)| key == column) {
            true => Err(SpecError::DayFolder(output)),
            false => Ok(()),
        }
    }
}

/// The specification in the status of a job, without the contents of its options.
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
            expectations: spec.expectations.iter().map(ToString::to_string).collect(),
            ready_marker: spec.ready_marker.as_ref().map(ToString::to_string),
            options: spec.options.by_name().iter().map(shown).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_jobs::{asked, job};

    fn check(addons: &str, output: &str, fits: bool) {
        let inputs = vec![addons.into(), "/data/main_summary/v3".into()];
        let spec = JobSpec { inputs, output: output.into(), ..job() };
        assert_eq!(spec.check_locations().is_ok(), fits, "{addons} {output}");
    }

    #[test]
    fn urls_are_limited_because_statuses_and_records_have_them() {
        let with = |bytes: usize| {
            let output = format!("/{}", "x/".repeat(bytes / 2))[..bytes].to_string();
            JobSpec::asked(v1::JobSpec { output, ..asked() })
        };
        assert!(with(MAX_URL_BYTES - 1).is_ok() && with(MAX_URL_BYTES).is_ok());
        assert!(matches!(with(MAX_URL_BYTES + 1), Err(SpecError::LongUrl(_))));
    }

    #[test]
    fn expectations_are_checked_when_a_job_is_submitted_and_sent_as_they_were_written() {
        let with = |texts: &[&str]| {
            let expectations = texts.iter().map(|text| text.to_string()).collect();
            JobSpec::asked(v1::JobSpec { expectations, ..asked() })
        };
        let texts = ["rows >= 0.8*previous", "null_share(user_type) == 0"];
        let spec = with(&texts).unwrap();
        let sent = v1::JobSpec::from(&spec);
        assert_eq!(sent.expectations, texts);
        let recorded = JobSpec::recorded(spec.id.as_str(), sent).unwrap();
        assert!(recorded.same_work(&spec) && !recorded.same_work(&with(&texts[..1]).unwrap()));
        let error = with(&["rows > 1", "clients > 1"]).unwrap_err().to_string();
        assert!(error.starts_with("expectation \"clients > 1\": there is no figure"), "{error}");
        assert!(matches!(with(&["rows > 1"; MAX_EXPECTATIONS + 1]), Err(SpecError::Expectations(65))));
    }

    #[test]
    fn a_ready_marker_is_part_of_the_job() {
        let with = |name: Option<&str>| {
            JobSpec::asked(v1::JobSpec { ready_marker: name.map(String::from), ..asked() })
        };
        let spec = with(Some("_SUCCESS")).unwrap();
        let recorded = JobSpec::recorded(spec.id.as_str(), (&spec).into()).unwrap();
        assert_eq!(recorded.ready_marker.as_ref().map(ReadyMarker::name), Some("_SUCCESS"));
        assert!(recorded.same_work(&spec) && !recorded.same_work(&with(None).unwrap()));
        // A record of a version without markers.
        assert!(JobSpec::recorded("a", (&with(None).unwrap()).into()).unwrap().ready_marker.is_none());
        for bad in ["", "SUCCESS", "_a/b", "_metadata"] {
            assert!(matches!(with(Some(bad)), Err(SpecError::ReadyMarker { .. })), "{bad}");
        }
    }

    #[test]
    fn jobs_with_other_options_are_other_work_and_the_journal_keeps_the_contents() {
        let spec = JobSpec::asked(asked()).unwrap();
        let with = |content: &[u8]| {
            let options = DatasetOptions::new([("list".to_string(), content.to_vec())]).unwrap();
            JobSpec { options, ..spec.clone() }
        };
        let (one, other) = (with(b"a"), with(b"b"));
        assert!(one.same_work(&with(b"a")) && one.same_day(&other));
        assert!(!one.same_work(&other) && !one.same_work(&spec) && !spec.same_work(&one));
        let recorded = JobSpec::recorded(one.id.as_str(), one.record()).unwrap();
        assert!(recorded.same_work(&one));
        // Records of earlier versions have no options.
        assert!(JobSpec::recorded(spec.id.as_str(), spec.record()).unwrap().options.is_empty());
        let status = v1::JobSpec::from(&one);
        assert!(status.options[0].content.is_empty() && status.options[0].size == 1);
        // This dataset has no options.
        assert!(matches!(one.configured(), Err(SpecError::DatasetOption(_))));
        assert!(matches!(JobSpec::asked(one.record()), Err(SpecError::DatasetOption(_))));
    }

    #[test]
    fn a_job_never_replaces_what_it_reads_and_adds_nothing_to_it() {
        check("/data/addons/v2", "/data/addons/agg/v1", true);
        check("s3://b/addons/v2", "s3://b/addons/v2x", true);
        check("/data/addons", "/data/addons/agg", false);
        check("/data/agg/addons", "/data/agg", false);
        check("s3://b/addons/v2", "s3://b/addons/v2/agg/", false);
        check("s3://b/addons/v2", "s3://b", false);
        check("/data/addons/v2", "/data/addons/v2", false);
        check("/data/addons/v2", "/data/addons/v2/submission_date_s3=20170227/agg", false);
        check("/data/submission_date_s3=20170227/in", "/data", false);
        check("/data/addons/v2", "/data/addons/v1/../v2/", false);
        check("ftp://x/addons", "/data/out", false);
        check("/data/addons/v2", "/data/out/submission_date_s3=20170226", false);
        check("s3://b/addons/v2", "s3://b/out/submission_date_s3=20170227/", false);
        check("/data/addons/v2", "/data/out/submission_date_s3=20170227/v1", true);
        check("/data/addons/v2", "/data/out/version=1", true);
    }
}
