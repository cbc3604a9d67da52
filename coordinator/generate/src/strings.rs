//! The strings of a day: add-on ids, names, versions, themes, and the few values of the other columns, as values of Arrow
//! dictionaries that all blocks share. Not here: which string a row has.

use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use chrono::NaiveDate;

/// Number of built-in add-ons, which are first in the dictionaries.
pub(crate) const SYSTEM_ADDONS: u32 = 8;
/// Number of themes besides the default one, which has code 0.
pub(crate) const CUSTOM_THEMES: u32 = 500;
/// Number of countries.
pub(crate) const COUNTRIES: u32 = 200;
/// The shares of [`Strings::channels`].
pub(crate) const CHANNEL_SHARES: [f64; 4] = [0.85, 0.08, 0.02, 0.05];
/// The shares of [`systems`].
pub(crate) const SYSTEM_SHARES: [f64; 3] = [0.9, 0.07, 0.03];

const DEFAULT_THEME: &str = "{972ce4c6-7e08-4474-a285-3208198ce6fd}";

/// Values of the dictionaries; a row's code is its index.
#[derive(Debug)]
pub(crate) struct Strings {
    pub(crate) addons: AddonStrings,
    pub(crate) themes: ArrayRef,
    pub(crate) theme_name: ArrayRef,
    pub(crate) channels: ArrayRef,
    pub(crate) systems: ArrayRef,
    pub(crate) countries: ArrayRef,
    pub(crate) start_date: ArrayRef,
}

impl Strings {
    /// The strings of a day with `addons` add-ons besides the system add-ons.
    pub(crate) fn new(addons: u32, date: NaiveDate) -> Self {
        let themes = (0..CUSTOM_THEMES).map(|i| format!("theme{i}@personas.mozilla.org"));
        Strings {
            addons: AddonStrings::new(addons, []),
            themes: values([DEFAULT_THEME.to_owned()].into_iter().chain(themes)),
            theme_name: values(["theme".to_owned()]),
            channels: values(["release", "beta", "nightly", "esr"].map(String::from)),
            systems: systems(),
            countries: countries(),
            start_date: values([format!("{}T00:00:00.0+00:00", date.format("%Y-%m-%d"))]),
        }
    }
}

/// The strings of add-ons; the code of an add-on is the index of its strings.
#[derive(Debug)]
pub(crate) struct AddonStrings {
    pub(crate) ids: ArrayRef,
    pub(crate) names: ArrayRef,
    pub(crate) versions: ArrayRef,
    /// The only type.
    pub(crate) kind: ArrayRef,
}

impl AddonStrings {
    /// The strings of the system add-ons, the ones with these ids, and `addons` others.
    pub(crate) fn new(addons: u32, special: impl IntoIterator<Item = String>) -> Self {
        let system = (0..SYSTEM_ADDONS).map(|i| format!("system{i}@mozilla.org"));
        let ids: Vec<String> = system.chain(special).chain((0..addons).map(addon_id)).collect();
        let all = ids.len();
        AddonStrings {
            ids: values(ids),
            names: values((0..all).map(|i| format!("Add-on number {i}"))),
            versions: values((0..all).map(|i| format!("{}.{}.{}", i % 9, i % 7, i % 11))),
            kind: values(["extension".to_owned()]),
        }
    }
}

/// The operating systems, with the shares [`SYSTEM_SHARES`].
pub(crate) fn systems() -> ArrayRef {
    values(["Windows_NT", "Darwin", "Linux"].map(String::from))
}

/// The countries.
pub(crate) fn countries() -> ArrayRef {
    values((0..COUNTRIES).map(|i| format!("C{i:02}")))
}

/// A dictionary of these values.
pub(crate) fn values(words: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(words))
}

/// Every third add-on has a GUID, the others have an address, as in production.
fn addon_id(number: u32) -> String {
    if number.is_multiple_of(3) {
        format!("{{{:08x}-0000-4000-8000-{number:012x}}}", number.wrapping_mul(2_654_435_761))
    } else {
        format!("addon{number}@example{}.org", number % 97)
    }
}
