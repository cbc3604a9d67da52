//! The datasets of the jobs on a worker, each with the options of its job. A dataset is made once per job, by the first slot that
//! needs it, and lives as long as the job's outputs.
//!
//! Not here: what options mean (`tally_dataset`).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tally_dataset::{Dataset, registry};
use tally_proto::JobId;
use tally_proto::dataset_options::DatasetOptions;
use tally_shuffle::error::TaskError;

/// The datasets by job.
#[derive(Default)]
pub(super) struct JobDatasets(Mutex<HashMap<JobId, Arc<JobDataset>>>);

impl JobDatasets {
    /// The dataset of a job.
    pub(super) fn of(&self, job: &JobId) -> Arc<JobDataset> {
        self.0.lock().entry(job.clone()).or_default().clone()
    }

    /// Drops the dataset of a job as soon as no task uses it.
    pub(super) fn release(&self, job: &JobId) {
        self.0.lock().remove(job);
    }
}

/// The dataset of a job, once it is made. All task messages of a job name the same dataset and have the same options.
#[derive(Default)]
pub(super) struct JobDataset(OnceLock<Result<Arc<dyn Dataset>, String>>);

impl JobDataset {
    /// The dataset of that name with these options.
    ///
    /// # Errors
    /// [`TaskError::InvalidTask`]: there is none, or it refuses the options.
    pub(super) fn get(&self, name: &str, options: &DatasetOptions) -> Result<Arc<dyn Dataset>, TaskError> {
        self.0.get_or_init(|| make(name, options)).clone().map_err(TaskError::InvalidTask)
    }
}

fn make(name: &str, options: &DatasetOptions) -> Result<Arc<dyn Dataset>, String> {
    let dataset = registry::dataset(name).ok_or_else(|| format!("there is no dataset {name:?}"))?;
    match options.is_empty() {
        true => Ok(dataset),
        false => dataset.with_options(options.by_name()).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_made_once_per_job_and_again_after_its_release() {
        let (datasets, options) = (JobDatasets::default(), DatasetOptions::default());
        let get =
            |job: &str| datasets.of(&JobId::parse(job).unwrap()).get("addon_aggregates", &options).unwrap();
        let (first, again, other) = (get("a"), get("a"), get("b"));
        assert!(Arc::ptr_eq(&first, &again) && !Arc::ptr_eq(&first, &other));
        datasets.release(&JobId::parse("a").unwrap());
        assert!(!Arc::ptr_eq(&first, &get("a")));
    }

    #[test]
    fn an_unknown_dataset_and_an_unknown_option_fail_every_task_of_the_job() {
        let given = DatasetOptions::new([("list".to_string(), vec![])]).unwrap();
        let get = |job: &JobDataset, name: &str| job.get(name, &given).err().map(|error| error.to_string());
        let (unknown, refused) = (JobDataset::default(), JobDataset::default());
        for _ in 0..2 {
            assert!(get(&unknown, "nothing").unwrap().contains("there is no dataset \"nothing\""));
            assert!(get(&refused, "addon_aggregates").unwrap().contains("list"));
        }
    }
}
