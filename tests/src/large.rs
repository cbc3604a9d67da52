//! Random days of 500 to 60,000 clients: UUIDs, odd ids and mixtures of them, either kind first, up to 30,000 add-ons,
//! files in every format. Large enough that every table of the engine grows. Not here: hostile ids and numbers one by
//! one (`random`), the expected output of the days (`reference`).

use std::path::Path;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::day::{Day, Format};
use crate::golden::DATE;
use crate::naive::Aggregates;
use crate::random::{Folders, addon_row, drop_columns, files, litter, main_row, random_format, uuid};
use crate::reference::Reference;

/// The order of a table's rows.
#[derive(Clone, Copy, Debug)]
enum Order {
    ByClient,
    OddFirst,
    UuidsFirst,
    Shuffled,
}

/// The forms of ids that are not UUIDs; each day has two of these at most.
#[derive(Clone, Copy, Debug)]
enum Odd {
    Numbered,
    Short,
    UpperCase,
    Spaced,
    WithoutDashes,
    Long,
    OtherScript,
}

const ODD: [Odd; 7] =
    [Odd::Numbered, Odd::Short, Odd::UpperCase, Odd::Spaced, Odd::WithoutDashes, Odd::Long, Odd::OtherScript];

/// What a seed decides about a day, besides its rows.
#[derive(Clone, Debug)]
pub struct LargeDay {
    clients: usize,
    /// The share of clients whose ids are odd.
    odd: f64,
    looks: [Odd; 2],
    /// Whether ids differ in few bits instead of being random.
    close: bool,
    addons: usize,
    /// Maximum rows of a table that an ordinary client has.
    rows: usize,
    /// Rows that an additional client has in each table.
    heavy: usize,
    nulls: f64,
    order: Order,
    folders: Folders,
    files: usize,
}

/// A number up to `most`; small ones are as likely as large ones.
fn scale(rng: &mut StdRng, least: usize, most: usize) -> usize {
    let log = rng.random_range((least as f64).ln()..=(most as f64).ln());
    (log.exp().round() as usize).clamp(least, most)
}

impl LargeDay {
    /// The day of a seed, always the same, and its rows.
    pub fn new(seed: u64) -> (Self, Day) {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        let orders = [Order::ByClient, Order::OddFirst, Order::UuidsFirst, Order::Shuffled];
        let plan = LargeDay {
            clients: scale(rng, 500, 60_000),
            odd: [0.0, 0.001, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..6)],
            looks: [ODD[rng.random_range(0..ODD.len())], ODD[rng.random_range(0..ODD.len())]],
            close: rng.random_bool(0.3),
            addons: scale(rng, 1, 30_000),
            rows: rng.random_range(1..4),
            heavy: if rng.random_bool(0.25) { scale(rng, 100, 20_000) } else { 0 },
            nulls: [0.0, 0.0, 0.02, 0.2][rng.random_range(0..4)],
            order: orders[rng.random_range(0..4)],
            folders: Folders::ALL[rng.random_range(0..3)],
            files: rng.random_range(1..9),
        };
        let day = plan.day(rng);
        (plan, day)
    }

    fn day(&self, rng: &mut StdRng) -> Day {
        let (mut main, mut addons) = (vec![], vec![]);
        for at in 0..=self.clients {
            let id = (at < self.clients || self.nulls == 0.0).then(|| self.id(rng, at));
            let heavy = if at == self.clients / 2 { self.heavy } else { 0 };
            let [pings, installed] = [0; 2].map(|_| rng.random_range(0..=self.rows) + heavy);
            main.extend((0..pings).map(|_| main_row(rng, &id, self.nulls, &[0, 1, 1, 2, 4])));
            addons.extend((0..installed).map(|_| {
                let name = format!("addon{}@example.org", rng.random_range(0..self.addons));
                addon_row(rng, &id, self.nulls, name)
            }));
        }
        self.put_in_order(rng, &mut main, |row| row.client_id.as_deref());
        self.put_in_order(rng, &mut addons, |row| row.client_id.as_deref());
        let mut day = Day {
            main: files(rng, main, self.files, self.folders, large_format),
            addons: files(rng, addons, self.files, self.folders, large_format),
            litter: if rng.random() { litter() } else { vec![] },
        };
        if rng.random_bool(0.3) {
            drop_columns(rng, &mut day);
        }
        day
    }

    fn id(&self, rng: &mut StdRng, at: usize) -> String {
        let uuid = match self.close {
            true => format!("{:08x}-0000-4000-8000-{:012x}", at % 7, at / 7),
            false => uuid(rng),
        };
        if !rng.random_bool(self.odd) {
            return uuid;
        }
        match self.looks[rng.random_range(0..2)] {
            Odd::Numbered => format!("client-{at:06}"),
            Odd::Short => format!("{at:x}"),
            // An id of digits alone is still a UUID, which does no harm.
            Odd::UpperCase => uuid.to_uppercase(),
            Odd::Spaced => format!("{uuid} "),
            Odd::WithoutDashes => uuid.replace('-', ""),
            Odd::Long => format!("{at}{}", "x".repeat(rng.random_range(0..120))),
            Odd::OtherScript => format!("клиент-客戶-{at}"),
        }
    }

    fn put_in_order<R>(&self, rng: &mut StdRng, rows: &mut [R], id: impl Fn(&R) -> Option<&str>) {
        let odd = |row: &R| id(row).is_some_and(|id| id.len() != 36);
        match self.order {
            Order::ByClient => {}
            Order::OddFirst => rows.sort_by_key(|row| !odd(row)),
            Order::UuidsFirst => rows.sort_by_key(odd),
            Order::Shuffled => rows.shuffle(rng),
        }
    }
}

/// As [`random_format`], with pages and row groups suited to so many rows.
fn large_format(rng: &mut StdRng, rows: usize) -> Format {
    let parts = [1, 1, 2, 7, 40][rng.random_range(0..5)];
    Format {
        row_group_rows: rows / parts + 1,
        page_rows: [30, 500, 5_000, 20_000][rng.random_range(0..4)],
        ..random_format(rng)
    }
}

/// Writes the day of `seed` under `root` and computes its expected output.
///
/// # Errors
/// It cannot be written.
pub fn write(seed: u64, root: &Path) -> Result<(LargeDay, Aggregates)> {
    let (plan, day) = LargeDay::new(seed);
    day.write(root, DATE)?;
    Ok((plan, Reference::of_rows(day.main_rows(), day.addon_rows())))
}
