//! The options of a dataset: `--dataset-option NAME=FILE`. This process reads the files, once; they travel with the job.
//!
//! Not here: which options a dataset has and what they mean (`tally_dataset`).

use std::cell::OnceCell;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tally_coordinator::dataset_config::configured;
use tally_dataset::Dataset;
use tally_proto::dataset_options::{DatasetOptions, MAX_OPTION_BYTES};

use crate::Stop;

/// The files of a dataset's options, from the command line.
#[derive(Debug, Args)]
pub struct OptionArgs {
    /// Option of the dataset, with its value in a file; may be repeated. `tally datasets` shows the options
    #[arg(long = "dataset-option", value_name = "NAME=FILE", value_parser = parse)]
    dataset_option: Vec<OptionFile>,
    /// What was read. Jobs of several days have the same options, whatever happens to the files meanwhile.
    #[arg(skip)]
    read: OnceCell<DatasetOptions>,
}

/// An option and its file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OptionFile {
    name: String,
    file: PathBuf,
}

/// The value of `--dataset-option` has another form.
#[derive(Debug, thiserror::Error)]
#[error("write NAME=FILE")]
struct InvalidOption;

fn parse(text: &str) -> Result<OptionFile, InvalidOption> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok(OptionFile { name: name.into(), file: file.into() })
        }
        _ => Err(InvalidOption),
    }
}

impl OptionFile {
    /// The content of the file.
    fn read(&self) -> Result<Vec<u8>, Stop> {
        let OptionFile { name, file } = self;
        let failed = |why: String| Stop::Usage(format!("--dataset-option {name}: {}: {why}", file.display()));
        let mut content = vec![];
        // One byte more than there may be, which tells that the file is too large.
        let read = File::open(file)
            .and_then(|file| file.take(MAX_OPTION_BYTES as u64 + 1).read_to_end(&mut content));
        read.map_err(|error| failed(error.to_string()))?;
        if content.len() > MAX_OPTION_BYTES {
            return Err(failed(format!("it has more than {} KiB", MAX_OPTION_BYTES >> 10)));
        }
        Ok(content)
    }
}

impl OptionArgs {
    /// The options, checked by the dataset. The files are read at the first call.
    ///
    /// # Errors
    /// [`Stop::Usage`]: a file cannot be read or is too large, or the dataset refuses an option.
    pub(crate) fn options(&self, dataset: &Arc<dyn Dataset>) -> Result<DatasetOptions, Stop> {
        if let Some(read) = self.read.get() {
            return Ok(read.clone());
        }
        // Names first: the content of a file that no option needs does not matter.
        let known = dataset.options();
        if let Some(unknown) =
            self.dataset_option.iter().find(|given| known.iter().all(|known| known.name != given.name))
        {
            let (name, dataset) = (&unknown.name, dataset.name());
            return Err(Stop::Usage(match known {
                [] => format!("--dataset-option {name}: {dataset} has no options"),
                known => {
                    let lines: String =
                        known.iter().map(|known| format!("\n  {}  {}", known.name, known.help)).collect();
                    format!("--dataset-option: {dataset} has no option {name:?}; its options are:{lines}")
                }
            }));
        }
        let mut all = vec![];
        for given in &self.dataset_option {
            all.push((given.name.clone(), given.read()?));
        }
        let usage = |why: String| Stop::Usage(format!("--dataset-option: {why}"));
        let options = DatasetOptions::new(all).map_err(|error| usage(error.to_string()))?;
        configured(dataset.clone(), &options).map_err(|error| usage(error.to_string()))?;
        Ok(self.read.get_or_init(|| options).clone())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;
    use tally_dataset::addon_aggregates::AddonAggregates;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: OptionArgs,
    }

    fn args(given: &[String]) -> OptionArgs {
        let flags = given.iter().flat_map(|given| ["--dataset-option", given]);
        Program::try_parse_from(["tally"].into_iter().chain(flags)).unwrap().args
    }

    fn given(name: &str, file: &Path) -> String {
        format!("{name}={}", file.display())
    }

    #[test]
    fn a_file_is_read_as_it_is_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a=b");
        let read = || args(&[given("list", &file)]).dataset_option[0].read().map_err(|stop| stop.report().0);
        let error = read().unwrap_err();
        assert!(error.contains("--dataset-option list: ") && error.contains("No such file"), "{error}");
        for bytes in [0, 1, MAX_OPTION_BYTES] {
            std::fs::write(&file, vec![0xff; bytes]).unwrap();
            assert_eq!(read().unwrap().len(), bytes);
        }
        std::fs::write(&file, vec![b'x'; MAX_OPTION_BYTES + 1]).unwrap();
        assert!(read().unwrap_err().contains("it has more than 1024 KiB"));
        for bad in ["list", "list=", "=file", ""] {
            assert!(Program::try_parse_from(["tally", "--dataset-option", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dataset_without_options_refuses_one_before_its_file_is_read() {
        let dataset: Arc<dyn Dataset> = Arc::new(AddonAggregates::new());
        let none = args(&[]).options(&dataset).unwrap();
        assert!(none.is_empty());
        let refused = args(&[given("list", Path::new("/none"))]).options(&dataset);
        let error = refused.unwrap_err().report().0;
        assert!(error.contains("--dataset-option list: addon_aggregates has no options"), "{error}");
    }
}
