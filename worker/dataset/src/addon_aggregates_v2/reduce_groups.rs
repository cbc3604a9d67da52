//! Partials of one folder to output rows: one for each (client, channel, version, locale), the null client included.
//!
//! Elements are distinct by their ping, which is a group and a profile creation date. Each new one adds to the sums of its
//! group. Rows are ordered by client, in the order in which clients first occur in the partials, then by the group's first
//! occurrence; the null client is last. So their order depends on the input rows and their shards alone.
//!
//! Not here: reading inputs (`map_pings`), and the columns of the output (`group_rows`).

use arrow_array::{FixedSizeBinaryArray, Int64Array, RecordBatch, UInt8Array, UInt32Array, UInt64Array};

use super::TOTALS;
use super::day_text::DayText;
use super::elements::ElementSets;
use super::flags::{self, FOREIGN_BITS, NO_DAY, OWN};
use super::group_rows::{Group, Rows};
use super::numbered::Numbered;
use super::ping_schema::{DAY_BITS, KEYS, NULL_ADDON, SUMS, set_width, state};
use crate::batch::{NULL_CODE, Width};
use crate::keys::{Key, KeyTable};
use crate::output_rows::pass_rows;
use crate::partials::{Dictionary, KeyBits, OTHER_PASS, code_of, column, lists, malformed, number_keys};
use crate::{DatasetError, Pass, ReduceError, Reducer, RowSink, Size, StringDictionary, Totals};

/// The lowest bit of the add-on's code in an element.
const ADDON_AT: u32 = DAY_BITS + flags::BITS;

/// Reducer of one pass over one partition.
pub(super) struct GroupsReducer {
    pass: Pass,
    clients: KeyTable,
    /// By client: the process-wide codes of channel, version and locale.
    keys: Numbered<[u32; 3]>,
    groups: Vec<Group>,
    /// By group: profile creation date.
    pings: Numbered<Option<i64>>,
    /// `process-wide code of the add-on << 38 | day << 6 | flags`; for days of 64 bits, `day` is the code of their bytes.
    elements: ElementSets<u128>,
    dates: Option<Width>,
    days: Option<Width>,
    /// Scratch: the elements of a row.
    row: Vec<u128>,
}

/// Upper bound of the bytes that a reducer needs for partials of these sizes.
pub(super) fn bytes(sizes: &[Size]) -> u64 {
    // Saturating, because the sizes come from other processes.
    let sum = |of: fn(&Size) -> u64| sizes.iter().map(of).fold(0, u64::saturating_add);
    let (rows, items) = (sum(|size| size.rows), sum(|size| size.items));
    let group = 4 + std::mem::size_of::<(u32, [u32; 3])>() + std::mem::size_of::<Group>() + 4;
    let ping = 4 + std::mem::size_of::<(u32, Option<i64>)>() + 8;
    // Vectors that were too small exist twice while they grow. The slots of the keys have a load of 0.3 at worst.
    let vectors = (16 + group + ping) * 3 + 4 * 8;
    // Tables of further groups and further pings, the old and the new one while they grow.
    let tables = (21 + 37) * 4;
    // Elements in the hash set: at worst the old one is full, and the new one twice as large.
    rows.saturating_mul((vectors + tables) as u64).saturating_add(items.saturating_mul(16 * 4))
}

/// The columns of a batch of partials.
pub(super) struct Partials<'a> {
    pub(super) ids: &'a FixedSizeBinaryArray,
    pub(super) states: &'a [u8],
    pub(super) kinds: [&'a [u32]; 3],
    pub(super) dates: &'a [i64],
    pub(super) ends: &'a [i32],
    pub(super) items: &'a [u64],
}

impl<'a> Partials<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Result<Self, DatasetError> {
        let codes = |at: usize| column::<UInt32Array>(batch, KEYS[at]).map(|codes| &codes.values()[..]);
        let (ends, items) = lists::<UInt64Array>(batch, "items")?;
        Ok(Partials {
            ids: column(batch, "client_id")?,
            states: column::<UInt8Array>(batch, "state")?.values(),
            kinds: [codes(1)?, codes(2)?, codes(3)?],
            dates: column::<Int64Array>(batch, "profile_creation_date")?.values(),
            ends,
            items: items.values(),
        })
    }
}

impl GroupsReducer {
    /// A reducer of one pass over partials of these sizes.
    pub(super) fn new(pass: Pass, sizes: &[Size]) -> Self {
        let rows = sizes.iter().fold(0u64, |rows, size| rows.saturating_add(size.rows));
        let rows = usize::try_from(rows / u64::from(pass.of)).unwrap_or(usize::MAX);
        GroupsReducer {
            pass,
            clients: KeyTable::with_capacity(rows),
            keys: Numbered::with_capacity(rows),
            groups: Vec::with_capacity(rows),
            pings: Numbered::with_capacity(rows),
            elements: ElementSets::default(),
            dates: None,
            days: None,
            row: vec![],
        }
    }

    /// The group and the ping of a row.
    fn ping(
        &mut self,
        client: u32,
        kind: [u32; 3],
        date: Option<i64>,
        codes: &[u32],
    ) -> Result<(u32, u32), DatasetError> {
        let mut key = [NULL_CODE; 3];
        for (key, code) in key.iter_mut().zip(kind).filter(|(_, code)| *code != NULL_CODE) {
            *key = code_of(codes, code)?;
        }
        let group = self.keys.number(client, key)?;
        if group as usize == self.groups.len() {
            self.groups.push(Group::EMPTY);
            self.pings.resize(self.groups.len());
        }
        let least = &mut self.groups[group as usize].created;
        *least = least.iter().copied().chain(date).min();
        let ping = self.pings.number(group, date)?;
        self.elements.resize(self.pings.len());
        Ok((group, ping))
    }

    /// The elements of a row, with process-wide codes.
    fn row(&mut self, items: &[u64], width: Width, codes: &[u32]) -> Result<(), DatasetError> {
        self.row.clear();
        let mut days = false;
        for &item in items {
            let flags = item as u32 & ((1 << flags::BITS) - 1);
            let mut day = (item >> flags::BITS) as u32;
            let addon = match (item >> ADDON_AT) as u32 {
                NULL_ADDON => NULL_CODE,
                code => code_of(codes, code)?,
            };
            if flags & NO_DAY == 0 {
                days = true;
                if width == Width::W64 {
                    day = code_of(codes, day)?;
                }
            }
            let low = u64::from(day) << flags::BITS | u64::from(flags);
            self.row.push(u128::from(addon) << ADDON_AT | u128::from(low));
        }
        if days { set_width(&mut self.days, width) } else { Ok(()) }
    }

    /// Adds the elements of a row to a ping and its group.
    fn count(
        &mut self,
        (group, ping): (u32, u32),
        width: Width,
        strings: &dyn StringDictionary,
    ) -> Result<(), DatasetError> {
        let group = &mut self.groups[group as usize];
        let mut misfit = false;
        self.elements.insert(ping, &self.row, |element| {
            let flags = element as u32 & ((1 << flags::BITS) - 1);
            group.add(flags);
            if flags & (FOREIGN_BITS | NO_DAY) == OWN {
                let day = (element >> flags::BITS) as u32;
                let days = match width {
                    Width::W32 => Some(i64::from(day.cast_signed())),
                    Width::W64 => wide_day(day, strings),
                };
                misfit |= days.is_none();
                let text = days.map_or(DayText::NONE, |days| DayText::new(days, width));
                group.first = group.first.min(text);
            }
        });
        if misfit { Err(malformed("a day of other than eight bytes")) } else { Ok(()) }
    }
}

/// The day of 64 bits that has this process-wide code.
fn wide_day(code: u32, strings: &dyn StringDictionary) -> Option<i64> {
    let mut bytes = Vec::with_capacity(8);
    strings.append(code, &mut bytes);
    bytes.try_into().ok().map(i64::from_le_bytes)
}

impl Reducer for GroupsReducer {
    fn merge(
        &mut self,
        table: usize,
        batch: &RecordBatch,
        codes: &[u32],
        strings: &dyn StringDictionary,
    ) -> Result<(), DatasetError> {
        if table != 0 {
            return Err(malformed(format!("there is no input table {table}")));
        }
        let Partials { ids, states, kinds, dates, ends, items } = Partials::of(batch)?;
        let bits = KeyBits { coded: state::CODED, null: state::NULL_CLIENT };
        let dictionary = Dictionary { codes, strings };
        let clients = number_keys(&mut self.clients, self.pass, ids, states, bits, dictionary)?;
        self.keys.resize(self.clients.len());
        let width = |state: u8, bit| if state & bit == 0 { Width::W32 } else { Width::W64 };
        for (row, (&client, &state)) in clients.iter().zip(states).enumerate() {
            let client = match client {
                _ if state & state::NULL_CLIENT != 0 && self.pass.index == 0 => NULL_CODE,
                OTHER_PASS => continue,
                client => client,
            };
            let date = (state & state::DATED != 0).then(|| dates[row]);
            if date.is_some() {
                set_width(&mut self.dates, width(state, state::WIDE_DATES))?;
            }
            let ping = self.ping(client, kinds.map(|codes| codes[row]), date, codes)?;
            let days = width(state, state::WIDE_DAYS);
            self.row(&items[ends[row] as usize..ends[row + 1] as usize], days, codes)?;
            self.count(ping, days, strings)?;
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        self.clients.footprint(0)
            + self.keys.footprint(0)
            + self.groups.capacity() * std::mem::size_of::<Group>()
            + self.pings.footprint(0)
            + self.elements.footprint(0, 0)
            + self.row.capacity() * 16
    }

    fn finish(
        &mut self,
        strings: &dyn StringDictionary,
        sink: &mut RowSink<'_>,
    ) -> Result<Totals, ReduceError> {
        self.elements = ElementSets::default();
        self.pings = Numbered::default();
        let mut totals = Totals::zero(TOTALS.len());
        let clients: Vec<Key> = self.clients.iter().collect();
        let keys = self.keys.all();
        let mut order: Vec<u32> = (0..keys.len() as u32).collect();
        order.sort_unstable_by_key(|&group| (keys[group as usize].0, group));
        let mut rows = Rows::new(self.dates.unwrap_or_default());
        let mut last = None;
        for group in order {
            let ((client, codes), group) = (keys[group as usize], &self.groups[group as usize]);
            if last.replace(client) != Some(client) {
                totals[0] += 1;
            }
            (0..SUMS.len()).for_each(|sum| totals[1 + sum] += group.sums[sum]);
            rows.push(clients.get(client as usize).copied(), codes, group, strings);
            if rows.is_full() {
                pass_rows(rows.take()?, &mut totals, sink)?;
            }
        }
        if rows.len() > 0 {
            pass_rows(rows.take()?, &mut totals, sink)?;
        }
        Ok(totals)
    }
}
