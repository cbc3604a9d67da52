//! The datasets of this process. `main` installs them; the engine looks them up by name.
//!
//! A binary with other datasets passes another list to the library's entry points; the engine crates do not change.
//! Not here: what a dataset is ([`crate::Dataset`]).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::Dataset;
use crate::addon_aggregates::AddonAggregates;
use crate::addon_aggregates_v2::AddonAggregatesV2;
use crate::options::OptionError;

/// Makes a dataset.
pub type Constructor = fn() -> Arc<dyn Dataset>;

/// The datasets of Tally's own binaries; the first one is the default.
pub const BUILT_IN: &[Constructor] =
    &[|| Arc::new(AddonAggregates::new()), || Arc::new(AddonAggregatesV2::default())];

static INSTALLED: OnceLock<&[Constructor]> = OnceLock::new();

/// Sets the datasets of this process; the first one is the default. Called once, at the start of `main`: it has no
/// effect after another call or after a lookup, which installs [`BUILT_IN`].
pub fn install(datasets: &'static [Constructor]) {
    INSTALLED.get_or_init(|| datasets);
}

/// All datasets of this process, the default first.
pub fn datasets() -> impl Iterator<Item = Arc<dyn Dataset>> {
    INSTALLED.get_or_init(|| BUILT_IN).iter().map(|make| make())
}

/// The dataset with that name, if there is one.
pub fn dataset(name: &str) -> Option<Arc<dyn Dataset>> {
    datasets().find(|dataset| dataset.name() == name)
}

/// The registered dataset of that name, if no options are given.
///
/// # Errors
/// [`OptionError::Unknown`], [`OptionError::Unregistered`].
pub(crate) fn without_options(
    name: &'static str,
    values: &BTreeMap<String, Vec<u8>>,
) -> Result<Arc<dyn Dataset>, OptionError> {
    match values.keys().next() {
        Some(option) => Err(OptionError::Unknown { dataset: name, name: option.clone() }),
        None => dataset(name).ok_or(OptionError::Unregistered { dataset: name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_datasets_are_found_by_name() {
        assert_eq!(datasets().next().unwrap().name(), "addon_aggregates");
        assert!(dataset("addon_aggregates").is_some() && dataset("addon_aggregates_v2").is_some());
        assert!(dataset("nothing").is_none());
    }

    #[test]
    fn a_dataset_takes_its_options_and_no_others() {
        let found = dataset("addon_aggregates_v2").unwrap();
        let name = found.options()[0].name;
        assert!(found.with_options(&BTreeMap::from([(name.into(), b"a@b\n".to_vec())])).is_ok());
        let given = BTreeMap::from([(name.to_string(), vec![]), ("other".into(), vec![])]);
        assert!(
            matches!(found.with_options(&given).err(), Some(OptionError::Unknown { name, .. }) if name == "other")
        );
    }

    #[test]
    fn a_dataset_without_options_refuses_every_name() {
        let found = dataset("addon_aggregates").unwrap();
        assert!(found.with_options(&BTreeMap::new()).is_ok_and(|same| same.name() == found.name()));
        let given = BTreeMap::from([("list".to_string(), vec![])]);
        let refused = found.with_options(&given).err();
        assert_eq!(refused, Some(OptionError::Unknown { dataset: "addon_aggregates", name: "list".into() }));
    }
}
