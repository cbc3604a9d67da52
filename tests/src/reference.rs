//! A second implementation of `addon_aggregates`, with sorting and the maps of the standard library, for days that are
//! too large for the nested loops of `naive`. `tests/reference.rs` compares it with the output of Spark, with `naive`
//! and with DuckDB.
//!
//! Not here: any code of the engine, whose tables it checks.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;

use crate::naive::{Aggregates, DEFAULT_THEME};
use crate::rows::{AddonRow, MainRow, Row};
use crate::table;

/// The number of a string or a null: counting compares them often.
type Number = usize;

/// A day that is being aggregated.
#[derive(Default)]
pub struct Reference {
    numbers: HashMap<Option<String>, Number>,
    /// Rule 2's (client, foreign_install, add-on), of the rows that pass rule 1.
    installed: Vec<(Number, Option<bool>, Number)>,
    /// Rule 4's (client, sign).
    signs: Vec<(Number, i64)>,
    /// Rule 5's (client, creation date, least day of the ping).
    days: Vec<(Number, Option<i64>, Option<i32>)>,
}

impl Reference {
    /// Computes the day of `date` whose tables are stored under `root` as `addons/v2` and `main_summary/v3`.
    ///
    /// # Errors
    /// A file cannot be read by the parquet crate.
    pub fn of_day(root: &Path, date: &str) -> Result<Aggregates> {
        let mut day = Self::default();
        let partition = |table: &str| root.join(table).join(format!("submission_date_s3={date}"));
        for file in table::data_files(&partition("addons/v2"))? {
            day.add_addons(table::read_addons(&file)?);
        }
        for file in table::data_files(&partition("main_summary/v3"))? {
            day.add_pings(table::read_main(&file)?);
        }
        Ok(day.finish())
    }

    /// Computes the day from all rows of both tables.
    pub fn of_rows(main: Vec<MainRow>, addons: Vec<AddonRow>) -> Aggregates {
        let mut day = Self::default();
        day.add_addons(addons);
        day.add_pings(main);
        day.finish()
    }

    fn number(&mut self, text: Option<String>) -> Number {
        let next = self.numbers.len();
        *self.numbers.entry(text).or_insert(next)
    }

    fn add_addons(&mut self, rows: Vec<AddonRow>) {
        for row in rows {
            if [row.is_system, row.user_disabled, row.app_disabled] == [Some(false); 3] {
                let (client, addon) = (self.number(row.client_id), self.number(row.addon_id));
                self.installed.push((client, row.foreign_install, addon));
            }
        }
    }

    fn add_pings(&mut self, rows: Vec<MainRow>) {
        for row in rows {
            let client = self.number(row.client_id);
            let theme = row.active_theme.and_then(|theme| theme.addon_id);
            self.signs.push((client, if theme.is_some_and(|id| id != DEFAULT_THEME) { 1 } else { -1 }));
            let addons = row.active_addons.unwrap_or_default();
            if !addons.is_empty() {
                let days = addons.iter().flatten().filter_map(|addon| addon.install_day);
                self.days.push((client, row.profile_creation_date, days.min()));
            }
        }
    }

    fn finish(mut self) -> Aggregates {
        let mut names: Vec<Option<String>> = vec![None; self.numbers.len()];
        self.numbers.drain().for_each(|(name, number)| names[number] = name);
        let (themes, days) = (self.themes(), self.least_days());
        let n_clients = themes.len() as i32;
        let n_custom_theme_clients = themes.values().filter(|sum| **sum >= 0).count() as i32;
        let mut rows = Vec::new();
        self.installed.sort_unstable();
        self.installed.dedup();
        for of_client in self.installed.chunk_by(|a, b| a.0 == b.0) {
            let client = of_client[0].0;
            // A null client matches no row in a join.
            let Some(client_id) = &names[client] else { continue };
            let groups: Vec<_> = of_client.chunk_by(|a, b| a.1 == b.1).collect();
            let sign = |foreign: Option<bool>| if foreign == Some(true) { 1 } else { -1 };
            let user_type = groups.iter().map(|group| sign(group[0].1)).sum();
            for group in &groups {
                for (date, day) in days.get(&client).map_or(&[(None, None)][..], Vec::as_slice) {
                    rows.push(Row {
                        client_id: Some(client_id.clone()),
                        foreign_install: group[0].1,
                        count: group.len() as i64,
                        user_type: Some(user_type),
                        profile_creation_date: *date,
                        min_install_day: *day,
                        has_custom_theme: themes.get(&client).copied(),
                        n_custom_theme_clients,
                        n_clients,
                    });
                }
            }
        }
        rows.sort_unstable();
        Aggregates { rows, n_clients, n_custom_theme_clients }
    }

    /// Rule 4: the sum of each client's distinct signs.
    fn themes(&mut self) -> HashMap<Number, i64> {
        self.signs.sort_unstable();
        self.signs.dedup();
        let mut sums = HashMap::new();
        for (client, sign) in &self.signs {
            *sums.entry(*client).or_default() += sign;
        }
        sums
    }

    /// Rule 5: each client's groups.
    #[expect(clippy::type_complexity, reason = "the columns of a relation")]
    fn least_days(&mut self) -> HashMap<Number, Vec<(Option<i64>, Option<i32>)>> {
        self.days.sort_unstable();
        let mut least: HashMap<_, Vec<_>> = HashMap::new();
        for group in self.days.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (client, date, _) = group[0];
            let day = group.iter().filter_map(|row| row.2).min();
            least.entry(client).or_default().push((date, day));
        }
        least
    }
}
