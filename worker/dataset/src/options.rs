//! Options of a dataset: what a job may give it besides its tables and its day.
//!
//! Not here: how a command reads an option's file, and how a job carries it.

/// An option of a dataset. Its value is the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionSpec {
    /// The name, in options of commands and in jobs.
    pub name: &'static str,
    /// What the file holds, and what the absence of the option means.
    pub help: &'static str,
}

/// Why a dataset refuses the options of a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// The dataset has no option of that name.
    #[error("the dataset {dataset} has no option {name}")]
    Unknown {
        /// The dataset.
        dataset: &'static str,
        /// The name.
        name: String,
    },
    /// The registry does not have the dataset.
    #[error("the dataset {dataset} is not registered")]
    Unregistered {
        /// The dataset.
        dataset: &'static str,
    },
    /// A value does not have the form that it should have.
    #[error("the value of the option {name} of the dataset {dataset} is invalid: {fault}")]
    Invalid {
        /// The dataset.
        dataset: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        fault: String,
    },
}
