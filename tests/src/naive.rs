//! The definition of `addon_aggregates` as a chain of relational steps over vectors, one function per step, with nested
//! loops for joins and linear search for groups. It is slow on purpose: the code is too simple to have the errors of
//! the engine. Not here: Parquet, memory limits, speed.

use serde::{Deserialize, Serialize};

use crate::rows::{AddonRow, MainRow, Row};

/// The theme that Firefox ships with; anything else that is not null counts as custom.
pub const DEFAULT_THEME: &str = "{972ce4c6-7e08-4474-a285-3208198ce6fd}";

/// The day's output and its two global counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aggregates {
    /// Sorted.
    pub rows: Vec<Row>,
    pub n_clients: i32,
    pub n_custom_theme_clients: i32,
}

type Id = Option<String>;

/// Rule 2's groups: (client_id, foreign_install, count).
type InstallGroup = (Id, Option<bool>, i64);

/// Computes the day from all rows of both tables.
pub fn aggregate(main: &[MainRow], addons: &[AddonRow]) -> Aggregates {
    let groups = count_by_client_and_install(addons);
    let user_types = user_types(&groups);
    let themes = has_custom_theme(main);
    let days = install_days(main);
    let n_clients = distinct(main.iter().map(|row| row.client_id.clone())).len() as i32;
    let n_custom_theme_clients =
        distinct(themes.iter().filter(|(_, sum)| *sum >= 0).map(|(id, _)| id.clone())).len() as i32;

    let mut rows = Vec::new();
    for (client_id, foreign_install, count) in &groups {
        for (_, user_type) in user_types.iter().filter(|(id, _)| joins(id, client_id)) {
            for (profile_creation_date, min_install_day) in
                left_join(client_id, &days, |day| &day.0, |day| (day.1, day.2), (None, None))
            {
                for has_custom_theme in
                    left_join(client_id, &themes, |theme| &theme.0, |theme| Some(theme.1), None)
                {
                    rows.push(Row {
                        client_id: client_id.clone(),
                        foreign_install: *foreign_install,
                        count: *count,
                        user_type: Some(*user_type),
                        profile_creation_date,
                        min_install_day,
                        has_custom_theme,
                        n_custom_theme_clients,
                        n_clients,
                    });
                }
            }
        }
    }
    rows.sort();
    Aggregates { rows, n_clients, n_custom_theme_clients }
}

/// Rules 1 and 2: distinct (client, flag, add-on) of the rows that pass, counted by (client, flag).
fn count_by_client_and_install(addons: &[AddonRow]) -> Vec<InstallGroup> {
    let passing = addons.iter().filter(|row| {
        row.is_system == Some(false) && row.user_disabled == Some(false) && row.app_disabled == Some(false)
    });
    let triples =
        distinct(passing.map(|row| (row.client_id.clone(), row.foreign_install, row.addon_id.clone())));
    let keys = distinct(triples.iter().map(|(id, flag, _)| (id.clone(), *flag)));
    keys.into_iter()
        .map(|(id, flag)| {
            let count = triples.iter().filter(|triple| triple.0 == id && triple.1 == flag).count() as i64;
            (id, flag, count)
        })
        .collect()
}

/// Rule 3: the sum of signs over a client's groups; false and null are both -1.
fn user_types(groups: &[InstallGroup]) -> Vec<(Id, i64)> {
    distinct(groups.iter().map(|group| group.0.clone()))
        .into_iter()
        .map(|id| {
            let sum = groups
                .iter()
                .filter(|group| group.0 == id)
                .map(|group| if group.1 == Some(true) { 1 } else { -1 })
                .sum();
            (id, sum)
        })
        .collect()
}

/// Rule 4: the sum of a client's distinct theme signs.
fn has_custom_theme(main: &[MainRow]) -> Vec<(Id, i64)> {
    let signs = distinct(main.iter().map(|row| {
        let theme = row.active_theme.as_ref().and_then(|theme| theme.addon_id.as_deref());
        let sign = match theme {
            Some(id) if id != DEFAULT_THEME => 1i64,
            _ => -1,
        };
        (row.client_id.clone(), sign)
    }));
    distinct(signs.iter().map(|(id, _)| id.clone()))
        .into_iter()
        .map(|id| {
            let sum = signs.iter().filter(|sign| sign.0 == id).map(|sign| sign.1).sum();
            (id, sum)
        })
        .collect()
}

/// Rule 5: exploded lists, grouped by (client, creation date), with the least day that is not null.
fn install_days(main: &[MainRow]) -> Vec<(Id, Option<i64>, Option<i32>)> {
    let mut exploded = Vec::new();
    for row in main {
        for element in row.active_addons.iter().flatten() {
            let day = element.as_ref().and_then(|addon| addon.install_day);
            exploded.push((row.client_id.clone(), row.profile_creation_date, day));
        }
    }
    distinct(exploded.iter().map(|(id, date, _)| (id.clone(), *date)))
        .into_iter()
        .map(|(id, date)| {
            let least = exploded
                .iter()
                .filter(|row| row.0 == id && row.1 == date)
                .filter_map(|(_, _, day)| *day)
                .min();
            (id, date, least)
        })
        .collect()
}

/// SQL's equality of join keys: a null equals nothing.
fn joins(left: &Id, right: &Id) -> bool {
    left.is_some() && left == right
}

/// All matches of `id` in `right`, or one `missing` if there are none.
fn left_join<R, T: Clone>(
    id: &Id,
    right: &[R],
    key: impl Fn(&R) -> &Id,
    value: impl Fn(&R) -> T,
    missing: T,
) -> Vec<T> {
    let matches: Vec<T> = right.iter().filter(|row| joins(key(row), id)).map(value).collect();
    if matches.is_empty() { vec![missing] } else { matches }
}

/// The distinct values in order of first appearance; here, unlike in a join, two nulls are the same value.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen: Vec<T> = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{ActiveAddon, Theme};

    fn addon(id: &str, addon: Option<&str>, foreign: Option<bool>) -> AddonRow {
        AddonRow {
            client_id: Some(id.into()),
            addon_id: addon.map(Into::into),
            foreign_install: foreign,
            is_system: Some(false),
            user_disabled: Some(false),
            app_disabled: Some(false),
        }
    }

    fn ping(id: Option<&str>, date: Option<i64>, theme: Option<&str>, days: &[Option<i32>]) -> MainRow {
        MainRow {
            client_id: id.map(Into::into),
            profile_creation_date: date,
            active_theme: theme.map(|theme| Theme { addon_id: Some(theme.into()) }),
            active_addons: Some(
                days.iter().map(|day| Some(ActiveAddon { install_day: *day })).collect::<Vec<_>>(),
            ),
        }
    }

    /// (foreign_install, count, user_type) of each output row.
    fn groups(addons: &[AddonRow]) -> Vec<(Option<bool>, i64, Option<i64>)> {
        aggregate(&[], addons)
            .rows
            .into_iter()
            .map(|row| (row.foreign_install, row.count, row.user_type))
            .collect()
    }

    #[test]
    fn a_null_addon_is_one_more_value_and_a_null_flag_a_group_of_minus_one() {
        let rows = [
            addon("a", Some("x"), Some(false)),
            addon("a", Some("x"), Some(false)),
            addon("a", None, Some(false)),
            addon("a", None, None),
        ];
        assert_eq!(groups(&rows), [(None, 1, Some(-2)), (Some(false), 2, Some(-2))]);
    }

    #[test]
    fn every_filter_fails_on_null_and_on_true() {
        let pass = addon("a", Some("x"), Some(true));
        let fails = [
            AddonRow { is_system: None, ..pass.clone() },
            AddonRow { is_system: Some(true), ..pass.clone() },
            AddonRow { user_disabled: None, ..pass.clone() },
            AddonRow { app_disabled: Some(true), ..pass.clone() },
        ];
        assert_eq!(groups(&fails), []);
        assert_eq!(groups(&[pass]), [(Some(true), 1, Some(1))]);
    }

    #[test]
    fn a_client_with_two_creation_dates_gets_its_rows_twice() {
        let main = [
            ping(Some("a"), Some(3), None, &[Some(7), None, Some(5)]),
            ping(Some("a"), None, None, &[None]),
            ping(Some("a"), Some(9), None, &[]),
        ];
        let out = aggregate(&main, &[addon("a", Some("x"), Some(true))]);
        let dates: Vec<_> =
            out.rows.iter().map(|row| (row.profile_creation_date, row.min_install_day)).collect();
        assert_eq!(dates, [(None, None), (Some(3), Some(5))]);
    }

    #[test]
    fn themes_sum_over_distinct_signs_and_the_null_client_counts() {
        let main = [
            ping(Some("a"), None, Some("t1"), &[]),
            ping(Some("a"), None, Some("t2"), &[]),
            ping(Some("b"), None, Some("t1"), &[]),
            ping(Some("b"), None, Some(DEFAULT_THEME), &[]),
            ping(Some("c"), None, None, &[]),
            ping(None, None, Some("t1"), &[]),
        ];
        let addons: Vec<_> = ["a", "b", "c", "d"].map(|id| addon(id, Some("x"), Some(true))).into();
        let out = aggregate(&main, &addons);
        let themes: Vec<_> = out.rows.iter().map(|row| row.has_custom_theme).collect();
        assert_eq!(themes, [Some(1), Some(0), Some(-1), None]);
        assert_eq!((out.n_clients, out.n_custom_theme_clients), (4, 3));
    }

    #[test]
    fn a_null_client_never_reaches_the_output() {
        let rows = [AddonRow { client_id: None, ..addon("a", Some("x"), Some(true)) }];
        assert_eq!(aggregate(&[], &rows).rows, []);
    }
}
