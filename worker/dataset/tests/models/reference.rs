//! The expected result of a small day, by the documented rules, with maps of the standard library.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::days::{DEFAULT_THEME, Day, Text};

/// `client_id`, `foreign_install`, `count`, `user_type`, `profile_creation_date`, `min_install_day`, `has_custom_theme`.
pub type Row = (String, Option<bool>, i64, i64, Option<i64>, Option<i32>, Option<i64>);

/// The sorted rows, the number of clients, and the number of clients with a custom theme.
pub fn aggregate(day: &Day) -> (Vec<Row>, u64, u64) {
    let mut items: HashMap<&str, BTreeMap<Option<bool>, BTreeSet<&Text>>> = HashMap::new();
    for row in day.addons.iter().filter(|row| row.flags == [Some(false); 3]) {
        if let Some(client) = &row.client {
            items.entry(client).or_default().entry(row.foreign).or_default().insert(&row.addon);
        }
    }
    let mut themes: HashMap<&Text, BTreeSet<i64>> = HashMap::new();
    let mut days: HashMap<&Text, BTreeMap<Option<i64>, Option<i32>>> = HashMap::new();
    for row in &day.pings {
        let custom = row.theme.as_deref().is_some_and(|theme| theme != DEFAULT_THEME);
        themes.entry(&row.client).or_default().insert(if custom { 1 } else { -1 });
        if let Some(day) = row.day {
            let least = days.entry(&row.client).or_default().entry(row.created).or_default();
            *least = least.iter().copied().chain(day).min();
        }
    }
    let mut rows = vec![];
    for (client, kinds) in items {
        let id = Some(client.to_owned());
        let user_type = kinds.keys().map(|&foreign| if foreign == Some(true) { 1 } else { -1 }).sum();
        let theme = themes.get(&id).map(|signs| signs.iter().sum());
        let none = BTreeMap::from([(None, None)]);
        for (&created, &least) in days.get(&id).unwrap_or(&none) {
            let row = |(&foreign, addons): (&Option<bool>, &BTreeSet<&Text>)| {
                (client.to_owned(), foreign, addons.len() as i64, user_type, created, least, theme)
            };
            rows.extend(kinds.iter().map(row));
        }
    }
    rows.sort();
    let custom = themes.values().filter(|signs| signs.iter().sum::<i64>() >= 0).count();
    (rows, themes.len() as u64, custom as u64)
}
