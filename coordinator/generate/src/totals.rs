//! The totals of a correct `addon_aggregates` of the day, computed client by client from the random numbers of the rows.
//! Not here: any code of the engine, so that its bugs cannot affect the totals.

use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::draw::Draw;
use crate::population::Population;

/// The totals of a correct result, and the sizes of the inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The day, as YYYYMMDD.
    pub date: String,
    /// Rows of `addon_aggregates`.
    pub rows: u64,
    /// The sum of its column `count`.
    pub sum_of_count: u64,
    /// Its `n_clients`: distinct client ids, including null.
    pub n_clients: u64,
    /// Its `n_custom_theme_clients`.
    pub n_custom_theme_clients: u64,
    /// Rows of `main_summary`.
    pub main_summary_rows: u64,
    /// Rows of `addons`, including the all-null ones.
    pub addons_rows: u64,
}

/// The totals of a group of clients.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) rows: u64,
    pub(crate) sum_of_count: u64,
    pub(crate) custom_theme_clients: u64,
}

impl Share {
    /// The totals of a sample's clients.
    pub(crate) fn of_sample(population: &Population, sample: u32) -> Self {
        let mut client = Client::default();
        let mut counter = Counter::default();
        for number in population.members(sample) {
            population.client(number, &mut client);
            counter.add(&client, population.ping_count(number, sample).0);
        }
        counter.share
    }

    pub(crate) fn add(&mut self, other: Share) {
        self.rows += other.rows;
        self.sum_of_count += other.sum_of_count;
        self.custom_theme_clients += other.custom_theme_clients;
    }
}

/// Adds up clients, with buffers for one client.
#[derive(Default)]
struct Counter {
    share: Share,
    /// Per add-on of the client: a bit for each value of foreign_install (null, false, true) in rows that pass the filter.
    seen: Vec<u8>,
    /// The same per distinct add-on id.
    active: Vec<(u32, u8)>,
}

impl Counter {
    fn add(&mut self, client: &Client, pings: u32) {
        let (mut custom_theme, mut dated, mut undated) = (false, false, false);
        self.seen.clear();
        self.seen.resize(client.addons.len(), 0);
        for number in 0..pings {
            let (ping, mut draw) = Population::ping(client, number);
            custom_theme |= ping.theme.is_some_and(|code| code != 0);
            // Only pings with add-ons add a profile_creation_date.
            dated |= !client.addons.is_empty() && ping.profile_creation_date.is_some();
            undated |= !client.addons.is_empty() && ping.profile_creation_date.is_none();
            self.see(client, &mut draw);
        }
        self.share.custom_theme_clients += u64::from(custom_theme);
        if client.id.is_none() {
            return; // The null client has no output rows.
        }
        let repeats = (u64::from(dated) + u64::from(undated)).max(1);
        for count in self.counts(client) {
            self.share.rows += u64::from(count > 0) * repeats;
            self.share.sum_of_count += count * repeats;
        }
    }

    fn see(&mut self, client: &Client, draw: &mut Draw) {
        for (addon, seen) in client.addons.iter().zip(&mut self.seen) {
            let row = addon.row(draw);
            let flags = [row.is_system, row.user_disabled, row.app_disabled];
            if flags == [Some(false); 3] {
                *seen |= match row.foreign_install {
                    None => 1,
                    Some(false) => 2,
                    Some(true) => 4,
                };
            }
        }
    }

    /// The distinct add-ons per foreign_install: null, false, true.
    fn counts(&mut self, client: &Client) -> [u64; 3] {
        self.active.clear();
        self.active.extend(client.addons.iter().map(|addon| addon.code).zip(self.seen.iter().copied()));
        self.active.sort_unstable();
        self.active.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            kept.1 |= if same { later.1 } else { 0 };
            same
        });
        [1, 2, 4].map(|bit| self.active.iter().filter(|(_, seen)| seen & bit != 0).count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Addon;

    fn addon(code: u32, foreign_install: bool) -> Addon {
        Addon {
            code,
            foreign_install,
            user_disabled: false,
            app_disabled: false,
            is_system: false,
            install_day: 1,
            update_day: 1,
        }
    }

    /// Rows and sum of counts of a client with one ping without nulls.
    fn check(id: bool, addons: &[Addon], rows: u64, sum_of_count: u64) {
        let client = Client {
            key: 1,
            id: id.then_some([b'0'; 36]),
            created: 1,
            default_theme: true,
            addons: addons.to_vec(),
        };
        let mut counter = Counter::default();
        counter.add(&client, 1);
        assert_eq!((counter.share.rows, counter.share.sum_of_count), (rows, sum_of_count), "{addons:?}");
    }

    #[test]
    fn clients_add_a_row_for_each_foreign_install_and_count_distinct_addons() {
        check(true, &[], 0, 0);
        check(true, &[addon(9, false)], 1, 1);
        check(true, &[addon(9, false), addon(9, false)], 1, 1);
        check(true, &[addon(9, false), addon(9, true)], 2, 2);
        check(true, &[addon(9, false), addon(8, false), addon(9, true)], 2, 3);
        check(true, &[Addon { is_system: true, ..addon(9, false) }], 0, 0);
        check(true, &[Addon { user_disabled: true, ..addon(9, false) }, addon(9, true)], 1, 1);
        check(true, &[Addon { app_disabled: true, ..addon(9, false) }], 0, 0);
        check(false, &[addon(9, false)], 0, 0);
    }
}
