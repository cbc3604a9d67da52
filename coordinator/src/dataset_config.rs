//! The dataset of a job with the options of the job, and what is shown of these.
//!
//! Not here: what an option means (`tally_dataset`), how options travel (`tally_proto::dataset_options`).

use std::sync::Arc;

use tally_common::sha256::sha256;
use tally_dataset::{Dataset, OptionError, OptionSpec};
use tally_proto::dataset_options::DatasetOptions;
use tally_proto::v1;

/// A dataset refuses an option.
#[derive(Debug, thiserror::Error)]
#[error("{error}; {}", known_options(dataset, options))]
pub struct DatasetOptionError {
    error: OptionError,
    dataset: &'static str,
    options: Vec<OptionSpec>,
}

fn known_options(dataset: &str, options: &[OptionSpec]) -> String {
    if options.is_empty() {
        return format!("{dataset} has no options");
    }
    let lines = options.iter().map(|option| format!("{} ({})", option.name, option.help));
    format!("the options of {dataset} are: {}", lines.collect::<Vec<_>>().join(", "))
}

/// A dataset with the options of a job.
///
/// # Errors
/// [`DatasetOptionError`] names the options that the dataset has.
pub fn configured(
    dataset: Arc<dyn Dataset>,
    options: &DatasetOptions,
) -> Result<Arc<dyn Dataset>, DatasetOptionError> {
    if options.is_empty() {
        return Ok(dataset);
    }
    dataset.with_options(options.by_name()).map_err(|error| DatasetOptionError {
        error,
        dataset: dataset.name(),
        options: dataset.options().to_vec(),
    })
}

/// What an option is in the status of a job: its content is not shown.
pub fn shown((name, content): (&String, &Vec<u8>)) -> v1::DatasetOption {
    let (size, sha256) = (content.len() as u64, sha256(content).to_vec());
    v1::DatasetOption { name: name.clone(), content: vec![], size, sha256 }
}

#[cfg(test)]
mod tests {
    use tally_common::sha256::hex;
    use tally_dataset::addon_aggregates::AddonAggregates;

    use super::*;

    #[test]
    fn a_refused_option_names_those_that_there_are() {
        let dataset: Arc<dyn Dataset> = Arc::new(AddonAggregates::new());
        let none = DatasetOptions::default();
        assert!(Arc::ptr_eq(&configured(dataset.clone(), &none).unwrap(), &dataset));
        let list = DatasetOptions::new([("list".to_string(), vec![])]).unwrap();
        let error = configured(dataset, &list).err().unwrap().to_string();
        assert!(
            error.contains("no option list") && error.ends_with("addon_aggregates has no options"),
            "{error}"
        );
        let options = [OptionSpec { name: "ids", help: "one in a line" }];
        assert_eq!(known_options("toy", &options), "the options of toy are: ids (one in a line)");
    }

    #[test]
    fn the_content_of_an_option_is_shown_by_its_digest() {
        let option = shown((&"list".to_string(), &b"abc".to_vec()));
        assert_eq!((option.name.as_str(), option.content.len(), option.size), ("list", 0, 3));
        assert!(hex(&option.sha256).starts_with("ba7816bf8f01cfea"));
    }
}
