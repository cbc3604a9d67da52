//! The objectives of `addon_aggregates`: what is counted in the output rows of a day, client by client.
//!
//! `deploy/docs/objectives.md` defines the counters for readers, as SQL over the output. Not here: how counts become
//! figures (`crate::objectives`).

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, NullBuffer};

use super::schema::install;
use crate::DatasetError;
use crate::objectives::{CounterSpec, Counting, FigureSpec, FigureValue, ObjectivesSpec};

/// The days in which a profile counts as new, its first day included; and in which its first add-on counts as early.
const FIRST_DAYS: i64 = 14;
/// Buckets of the distribution of add-ons per client.
const BUCKETS: usize = 20;

/// Places among the counters.
mod counter {
    pub(super) const ADDON_CLIENTS: usize = 0;
    pub(super) const ADDONS: usize = 1;
    pub(super) const SELF_INSTALLERS: usize = 2;
    pub(super) const NEW_PROFILES: usize = 3;
    pub(super) const NEW_INSTALLERS: usize = 4;
    /// Four user types: 1, 0, -1 and -2.
    pub(super) const USER_TYPES: usize = 5;
    /// Three themes: 1, 0 and -1; then null.
    pub(super) const THEMES: usize = 9;
    pub(super) const CLIENTS_BY_ADDONS: usize = 13;
}

const fn count(name: &'static str) -> CounterSpec {
    CounterSpec { name, buckets: 1 }
}

/// The counters.
const COUNTERS: [CounterSpec; 14] = [
    count("addon_clients"),
    count("addons"),
    count("self_installers"),
    count("new_profiles"),
    count("new_installers"),
    count("side_loaded_only"),
    count("both_types"),
    count("self_only"),
    count("self_and_unknown"),
    count("custom_theme"),
    count("changed_theme"),
    count("default_theme"),
    count("unknown_theme"),
    CounterSpec { name: "clients_by_addons", buckets: BUCKETS },
];

const OBJECTIVES: &str = "Objectives";
const CLIENTS: &str = "Clients";
const USER_TYPES: &str = "User types";
const THEMES: &str = "Themes";

const fn figure(
    section: &'static str,
    name: &'static str,
    title: &'static str,
    value: FigureValue,
) -> FigureSpec {
    FigureSpec { name, title, section, value, goal_percent: None }
}

const fn counted(section: &'static str, name: &'static str, title: &'static str) -> FigureSpec {
    figure(section, name, title, FigureValue::Count(name))
}

const fn goal(percent: u32, figure: FigureSpec) -> FigureSpec {
    FigureSpec { goal_percent: Some(percent), ..figure }
}

/// The figures.
const FIGURES: [FigureSpec; 18] = [
    goal(5, counted(OBJECTIVES, "self_installers", "Clients with a self-installed add-on")),
    goal(
        3,
        figure(
            OBJECTIVES,
            "addons_per_client",
            "Average number of add-ons per client with add-ons",
            FigureValue::Average("addons", "addon_clients"),
        ),
    ),
    goal(25, counted(OBJECTIVES, "new_installers", "New profiles with an add-on in their first 14 days")),
    counted(CLIENTS, "n_clients", "Clients of the day"),
    counted(CLIENTS, "addon_clients", "Clients with add-ons"),
    figure(
        CLIENTS,
        "self_share",
        "Share of clients with a self-installed add-on",
        FigureValue::Share("self_installers", "n_clients"),
    ),
    counted(CLIENTS, "new_profiles", "New profiles with add-ons"),
    figure(
        CLIENTS,
        "new_share",
        "Share of new profiles with an add-on in their first 14 days",
        FigureValue::Share("new_installers", "new_profiles"),
    ),
    counted(USER_TYPES, "side_loaded_only", "Clients with side-loaded add-ons only"),
    counted(USER_TYPES, "both_types", "Clients with side-loaded and other add-ons"),
    counted(USER_TYPES, "self_only", "Clients with self-installed add-ons only"),
    counted(USER_TYPES, "self_and_unknown", "Clients with self-installed and unknown add-ons"),
    counted(THEMES, "n_custom_theme_clients", "Clients of the day with a custom theme"),
    figure(
        THEMES,
        "theme_share",
        "Share of clients with a custom theme",
        FigureValue::Share("n_custom_theme_clients", "n_clients"),
    ),
    counted(THEMES, "custom_theme", "Clients with add-ons and a custom theme"),
    counted(THEMES, "changed_theme", "Clients with add-ons who changed the theme"),
    counted(THEMES, "default_theme", "Clients with add-ons and the default theme"),
    counted(THEMES, "unknown_theme", "Clients with add-ons without pings"),
];

/// Counters and figures.
pub(super) const SPEC: ObjectivesSpec = ObjectivesSpec {
    counters: &COUNTERS,
    figures: &FIGURES,
    distributions: &[("clients_by_addons", "Clients by their number of add-ons")],
};

/// Counts rows. The rows of a client follow one another, those of each profile date together.
pub(super) struct ClientCounting {
    /// Days since 1970 of the day that is computed.
    day: i64,
    counts: Vec<u64>,
    client: Client,
}

/// The client of the last rows.
#[derive(Default)]
struct Client {
    id: Vec<u8>,
    /// The install kinds that it has, as bits; none before the first row.
    kinds: u8,
    addons: u64,
    user_type: i64,
    /// Null is -2.
    theme: i64,
    is_new: bool,
    is_new_installer: bool,
}

/// A `has_custom_theme` that is null.
const NO_THEME: i64 = -2;

/// A column of a batch.
struct Nullable<'a, T> {
    values: &'a [T],
    nulls: Option<&'a NullBuffer>,
}

impl<'a, T: ArrowNativeType> Nullable<'a, T> {
    fn of<P: ArrowPrimitiveType<Native = T>>(column: &'a dyn Array) -> Option<Self> {
        let column = column.as_primitive_opt::<P>()?;
        Some(Nullable { values: column.values(), nulls: column.nulls() })
    }

    #[inline]
    fn get(&self, row: usize) -> Option<T> {
        self.nulls.is_none_or(|nulls| nulls.is_valid(row)).then_some(self.values[row])
    }
}

/// The columns of a batch.
struct Columns<'a> {
    ids: &'a StringArray,
    foreign: &'a BooleanBuffer,
    foreign_nulls: Option<&'a NullBuffer>,
    count: &'a [i64],
    user_type: &'a [i64],
    created: Nullable<'a, i64>,
    installed: Nullable<'a, i32>,
    theme: Nullable<'a, i64>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        let [ids, foreign, count, user_type, created, installed, theme] = batch.columns() else {
            return None;
        };
        let foreign = foreign.as_boolean_opt()?;
        Some(Columns {
            ids: ids.as_string_opt()?,
            foreign: foreign.values(),
            foreign_nulls: foreign.nulls(),
            count: count.as_primitive_opt::<Int64Type>()?.values(),
            user_type: user_type.as_primitive_opt::<Int64Type>()?.values(),
            created: Nullable::of::<Int64Type>(created)?,
            installed: Nullable::of::<Int32Type>(installed)?,
            theme: Nullable::of::<Int64Type>(theme)?,
        })
    }

    /// The install kind of a row.
    #[inline]
    fn kind(&self, row: usize) -> u32 {
        match self.foreign_nulls.is_none_or(|nulls| nulls.is_valid(row)) {
            true if self.foreign.value(row) => install::FOREIGN,
            true => install::SELF,
            false => install::UNKNOWN,
        }
    }
}

/// Whether two ids are the same. Those of different clients differ early, which is seen without a call.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.first_chunk::<8>() == b.first_chunk::<8>() && a == b
}

impl ClientCounting {
    /// No rows of a day, given in days since 1970.
    pub(super) fn new(day: i64) -> Self {
        ClientCounting { day, counts: vec![0; SPEC.counts()], client: Client::default() }
    }

    /// Counts the client of the last rows.
    fn end_client(&mut self) {
        let client = &self.client;
        if client.kinds == 0 {
            return;
        }
        let counts = &mut self.counts;
        counts[counter::ADDON_CLIENTS] += 1;
        counts[counter::ADDONS] += client.addons;
        counts[counter::SELF_INSTALLERS] += u64::from(client.kinds & (1 << install::SELF) != 0);
        counts[counter::NEW_PROFILES] += u64::from(client.is_new);
        counts[counter::NEW_INSTALLERS] += u64::from(client.is_new_installer);
        // 1, 0, -1, -2 are at 0, 1, 2, 3.
        let place = |value: i64| (1 - value).clamp(0, 3) as usize;
        counts[counter::USER_TYPES + place(client.user_type)] += 1;
        counts[counter::THEMES + place(client.theme)] += 1;
        let bucket = client.addons.clamp(1, BUCKETS as u64) as usize - 1;
        counts[counter::CLIENTS_BY_ADDONS + bucket] += 1;
    }

    /// Adds a row of the current client.
    #[inline]
    fn add_row(&mut self, columns: &Columns<'_>, row: usize) {
        let (day, client) = (self.day, &mut self.client);
        let kind = columns.kind(row);
        // The rows of further profile dates repeat the counts.
        if client.kinds & (1 << kind) == 0 {
            client.kinds |= 1 << kind;
            client.addons += columns.count[row].cast_unsigned();
        }
        client.user_type = columns.user_type[row];
        client.theme = columns.theme.get(row).unwrap_or(NO_THEME);
        let Some(created) = columns.created.get(row) else { return };
        if created <= day && created > day - FIRST_DAYS {
            client.is_new = true;
            let installed = columns.installed.get(row).map(i64::from);
            client.is_new_installer |= installed.is_some_and(|it| it >= created && it <= day);
        }
    }
}

impl Counting for ClientCounting {
    fn add(&mut self, rows: &RecordBatch) -> Result<(), DatasetError> {
        let malformed = || DatasetError::Malformed("rows of another schema".into());
        let columns = Columns::of(rows).ok_or_else(malformed)?;
        let (text, offsets) = (columns.ids.value_data(), columns.ids.value_offsets());
        let id = |row: usize| &text[offsets[row] as usize..offsets[row + 1] as usize];
        for row in 0..rows.num_rows() {
            let same = match row {
                0 => self.client.kinds != 0 && is_same(&self.client.id, id(0)),
                _ => is_same(id(row - 1), id(row)),
            };
            if !same {
                self.end_client();
                let id = std::mem::take(&mut self.client.id);
                self.client = Client { id, ..Client::default() };
            }
            self.add_row(&columns, row);
        }
        if let Some(last) = rows.num_rows().checked_sub(1) {
            self.client.id.clear();
            self.client.id.extend_from_slice(id(last));
        }
        Ok(())
    }

    fn counts(mut self: Box<Self>) -> Vec<u64> {
        self.end_client();
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{BooleanArray, Int32Array, Int64Array};

    use super::super::schema;
    use super::*;

    const DAY: i64 = 17_224;

    type TestRow = (&'static str, Option<bool>, i64, i64, Option<i64>, Option<i32>, Option<i64>);

    fn batch(rows: &[TestRow]) -> RecordBatch {
        let columns: Vec<arrow_array::ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| Some(row.0)).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| Some(row.3)).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.4).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.5).collect::<Int32Array>()),
            Arc::new(rows.iter().map(|row| row.6).collect::<Int64Array>()),
        ];
        RecordBatch::try_new(schema::reduced(), columns).unwrap()
    }

    /// The counts by name, of rows that come in batches of that size.
    fn count(rows: &[TestRow], size: usize) -> crate::objectives::Counts {
        let mut counting = Box::new(ClientCounting::new(DAY));
        for rows in rows.chunks(size) {
            counting.add(&batch(rows)).unwrap();
        }
        crate::objectives::Counts::of(&COUNTERS, &counting.counts()).unwrap()
    }

    #[test]
    fn a_client_counts_once_however_its_rows_are_split() {
        let (new, old) = (Some(DAY - 13), Some(DAY - 14));
        let rows: [TestRow; 10] = [
            // Two profile dates with both types: 3 add-ons, new by its second date.
            ("a", Some(false), 2, 0, old, Some(1), Some(1)),
            ("a", Some(true), 1, 0, old, Some(1), Some(1)),
            ("a", Some(false), 2, 0, new, Some(DAY as i32 - 13), Some(1)),
            ("a", Some(true), 1, 0, new, Some(DAY as i32 - 13), Some(1)),
            // The empty id is a client of its own.
            ("", None, 25, -1, None, None, None),
            ("b", Some(false), 1, -2, Some(DAY), Some(DAY as i32 - 1), Some(0)),
            ("b", None, 1, -2, Some(DAY), Some(DAY as i32 - 1), Some(0)),
            ("c", Some(true), 1, 1, Some(DAY), Some(DAY as i32 + 1), Some(-1)),
            ("d", Some(true), 20, 1, Some(DAY + 1), Some(DAY as i32 + 1), Some(-1)),
            ("e", Some(true), 1, 1, Some(i64::MIN), None, Some(-1)),
        ];
        for size in 1..=rows.len() {
            let counts = count(&rows, size);
            let all =
                |names: &[&str]| names.iter().map(|name| counts.count(name).unwrap()).collect::<Vec<_>>();
            assert_eq!(all(&["addon_clients", "addons", "self_installers"]), [6, 52, 2], "{size}");
            // The add-on of b is older than its profile, and that of c is in the future.
            assert_eq!(all(&["new_profiles", "new_installers"]), [3, 1], "{size}");
            assert_eq!(
                all(&["side_loaded_only", "both_types", "self_only", "self_and_unknown"]),
                [3, 1, 1, 1]
            );
            assert_eq!(
                all(&["custom_theme", "changed_theme", "default_theme", "unknown_theme"]),
                [1, 1, 3, 1]
            );
            let buckets = counts.buckets("clients_by_addons").unwrap();
            assert_eq!((buckets[..3].to_vec(), buckets[19]), (vec![2, 1, 1], 2), "{size}");
        }
    }

    #[test]
    fn without_rows_all_counts_are_zero() {
        let mut counting = Box::new(ClientCounting::new(DAY));
        counting.add(&batch(&[])).unwrap();
        assert_eq!(counting.counts(), vec![0; SPEC.counts()]);
        let other = RecordBatch::new_empty(schema::addons_partial());
        assert!(ClientCounting::new(DAY).add(&other).is_err());
    }
}
