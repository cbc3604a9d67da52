//! The options of a job's dataset: by name, the content of a file that the client read. They travel with the job: in its
//! submission, in the journal, and to each worker.
//!
//! Not here: what an option means (`tally_dataset`), how a client reads files.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::v1;

/// The most bytes of all options of a job together, names included. A message and a record of the journal have room for them.
pub const MAX_OPTION_BYTES: usize = 1 << 20;

/// The options of a job. Copies share the content.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DatasetOptions(Arc<BTreeMap<String, Vec<u8>>>);

/// Options that a job cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// They are too large.
    #[error("the dataset's options have more than {} KiB together", MAX_OPTION_BYTES >> 10)]
    TooLarge,
    /// Two of them have the same name.
    #[error("the dataset's option {0} is given twice")]
    Repeated(String),
}

impl DatasetOptions {
    /// Options by name.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn new(options: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Self, OptionsError> {
        let (mut all, mut bytes) = (BTreeMap::new(), 0);
        for (name, content) in options {
            bytes += name.len() + content.len();
            if bytes > MAX_OPTION_BYTES {
                return Err(OptionsError::TooLarge);
            }
            if all.contains_key(&name) {
                return Err(OptionsError::Repeated(name));
            }
            all.insert(name, content);
        }
        Ok(DatasetOptions(Arc::new(all)))
    }

    /// The contents by name.
    pub fn by_name(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The form in messages and in the journal.
    pub fn to_messages(&self) -> Vec<v1::DatasetOption> {
        let option = |(name, content): (&String, &Vec<u8>)| v1::DatasetOption {
            name: name.clone(),
            content: content.clone(),
            ..v1::DatasetOption::default()
        };
        self.0.iter().map(option).collect()
    }
}

impl TryFrom<Vec<v1::DatasetOption>> for DatasetOptions {
    type Error = OptionsError;

    fn try_from(options: Vec<v1::DatasetOption>) -> Result<Self, OptionsError> {
        DatasetOptions::new(options.into_iter().map(|option| (option.name, option.content)))
    }
}

/// The contents may be secret, so only their sizes are shown.
impl fmt::Debug for DatasetOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self.0.iter().map(|(name, content)| (name, content.len()));
        f.debug_map().entries(sizes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str, bytes: usize) -> (String, Vec<u8>) {
        (name.into(), vec![7; bytes])
    }

    #[test]
    fn options_arrive_as_they_were_sent_and_are_not_shown() {
        let options = DatasetOptions::new([option("b", 2), option("a", 0)]).unwrap();
        assert_eq!(DatasetOptions::try_from(options.to_messages()), Ok(options.clone()));
        assert_eq!(format!("{options:?}"), r#"{"a": 0, "b": 2}"#);
        assert!(DatasetOptions::default().is_empty() && !options.is_empty());
        let twice = DatasetOptions::new([option("a", 1), option("a", 1)]);
        assert_eq!(twice, Err(OptionsError::Repeated("a".into())));
    }

    #[test]
    fn the_size_of_all_options_together_is_limited() {
        let of = |bytes| DatasetOptions::new([option("a", bytes), option("b", MAX_OPTION_BYTES / 2)]);
        let half = MAX_OPTION_BYTES / 2;
        assert!(of(half - 2).is_ok());
        assert_eq!(of(half - 1), Err(OptionsError::TooLarge));
    }
}
