//! Partials of one partition to output rows.
//!
//! One flat record per client replaces the joins of the definition: a client with add-ons has a row for each of
//! its install kinds, once for each of its groups (profile creation dates), or once with nulls if it has
//! none. Clients without add-ons have no row; they are only counted.
//!
//! Not here: reading inputs ([`super::map_addons`], [`super::map_main`]).

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, Int32Array, Int64Array, RecordBatch, UInt8Array,
    UInt32Array,
};

use super::map_main::{MoreGroups, Record};
use super::schema::{self, NULL_ADDON, install, state};
use super::{ADDONS, CLIENTS, CUSTOM_THEME_CLIENTS, MAIN_SUMMARY, TOTALS};
use crate::keys::KeyTable;
use crate::output_rows::{SINK_ROWS, SINK_TEXT, append_key, nulls, pass_rows, texts};
use crate::pair_set::PairSet;
use crate::partials::{Dictionary, KeyBits, OTHER_PASS, code_of, column, lists, malformed, number_keys};
use crate::{DatasetError, Pass, ReduceError, Reducer, RowSink, Size, StringDictionary, Totals};

/// Items counted at a time.
const BLOCK: usize = 1024;

#[derive(Debug, Clone, Copy, Default)]
struct Client {
    record: Record,
    counts: [u32; install::KINDS],
}

/// Reducer of one pass over one partition.
pub struct AddonReducer {
    pass: Pass,
    clients: KeyTable,
    records: Vec<Client>,
    more: MoreGroups,
    /// `client << 32 | process-wide code << 2 | kind`.
    items: PairSet,
    null_client: u8,
}

/// Upper bound of the bytes that a reducer needs for partials of these sizes.
pub(super) fn bytes(sizes: &[Size]) -> u64 {
    // Saturating, because the sizes come from other processes.
    let sum = |of: fn(&Size) -> u64| sizes.iter().map(of).fold(0, u64::saturating_add);
    let (rows, items) = (sum(|size| size.rows), sum(|size| size.items));
    // At worst, slots have a load of 0.3, and the old and the new slots exist together while a table doubles.
    let client = 16 + std::mem::size_of::<Client>() as u64;
    rows.saturating_mul(client * 2 + 8 * 4).saturating_add(items.saturating_mul(8 * 5))
}

impl AddonReducer {
    /// A reducer of one pass over partials of these sizes, by table.
    pub fn new(pass: Pass, sizes: &[Size]) -> Self {
        // Most partials of one table belong to different clients.
        let share = |all: u64| usize::try_from(all / u64::from(pass.of)).unwrap_or(usize::MAX);
        let clients = share(sizes.iter().map(|size| size.rows).max().unwrap_or(0));
        AddonReducer {
            pass,
            clients: KeyTable::with_capacity(clients),
            records: Vec::with_capacity(clients),
            more: MoreGroups::default(),
            items: PairSet::with_capacity(share(sizes.iter().map(|size| size.items).sum())),
            null_client: 0,
        }
    }

    /// The numbers of the clients in a partial's rows, [`OTHER_PASS`] for those of other passes.
    fn clients(
        &mut self,
        ids: &FixedSizeBinaryArray,
        states: &[u8],
        dictionary: Dictionary<'_>,
    ) -> Result<Vec<u32>, DatasetError> {
        let bits = KeyBits { coded: state::CODED, null: state::NULL_CLIENT };
        let numbers = number_keys(&mut self.clients, self.pass, ids, states, bits, dictionary)?;
        self.records.resize(self.clients.len(), Client::default());
        Ok(numbers)
    }

    fn merge_main(&mut self, batch: &RecordBatch, dictionary: Dictionary<'_>) -> Result<(), DatasetError> {
        let ids: &FixedSizeBinaryArray = column(batch, "client_id")?;
        let states: &UInt8Array = column(batch, "state")?;
        let dates: &Int64Array = column(batch, "profile_creation_date")?;
        let days: &Int32Array = column(batch, "min_install_day")?;
        let numbers = self.clients(ids, states.values(), dictionary)?;
        for (row, &number) in numbers.iter().enumerate() {
            let bits = states.value(row);
            if bits & state::NULL_CLIENT != 0 {
                if self.pass.index == 0 {
                    self.null_client |= bits & state::THEMES;
                }
                continue;
            }
            if number == OTHER_PASS {
                continue;
            }
            let record = &mut self.records[number as usize].record;
            record.state |= bits & state::THEMES;
            if bits & state::GROUP != 0 {
                let date = (bits & state::DATE != 0).then(|| dates.value(row));
                let day = (bits & state::DAY != 0).then(|| days.value(row));
                record.merge(number, date, day, &mut self.more);
            }
        }
        Ok(())
    }

    fn merge_addons(&mut self, batch: &RecordBatch, dictionary: Dictionary<'_>) -> Result<(), DatasetError> {
        let ids: &FixedSizeBinaryArray = column(batch, "client_id")?;
        let states: &UInt8Array = column(batch, "state")?;
        let (offsets, items) = lists::<UInt32Array>(batch, "items")?;
        let items = items.values();
        let numbers = self.clients(ids, states.values(), dictionary)?;
        let mut keys = Vec::with_capacity(BLOCK);
        for (row, &number) in numbers.iter().enumerate() {
            if number == OTHER_PASS {
                continue;
            }
            for &item in &items[offsets[row] as usize..offsets[row + 1] as usize] {
                let kind = item & 3;
                let code = match item >> 2 {
                    NULL_ADDON => NULL_ADDON,
                    code => code_of(dictionary.codes, code)?,
                };
                if kind as usize >= install::KINDS {
                    return Err(malformed("an item of an unknown install kind"));
                }
                keys.push(u64::from(number) << 32 | u64::from(code << 2 | kind));
            }
            if keys.len() >= BLOCK {
                self.count(&mut keys);
            }
        }
        self.count(&mut keys);
        Ok(())
    }

    /// Counts the new items by client and kind.
    fn count(&mut self, keys: &mut Vec<u64>) {
        let records = &mut self.records;
        self.items.insert_many(keys, |at| {
            let client = &mut records[(keys[at] >> 32) as usize];
            client.counts[(keys[at] & 3) as usize] += 1;
        });
        keys.clear();
    }

    /// Further groups, sorted by client and date: the order of the hash table differs between processes.
    fn further_groups(&mut self) -> Vec<(u32, Option<i64>, Option<i32>)> {
        let mut further: Vec<_> =
            self.more.drain().map(|((client, date), day)| (client, date, day)).collect();
        further.sort_unstable();
        further
    }
}

impl Reducer for AddonReducer {
    fn merge(
        &mut self,
        table: usize,
        batch: &RecordBatch,
        codes: &[u32],
        strings: &dyn StringDictionary,
    ) -> Result<(), DatasetError> {
        let dictionary = Dictionary { codes, strings };
        match table {
            ADDONS => self.merge_addons(batch, dictionary),
            MAIN_SUMMARY => self.merge_main(batch, dictionary),
            other => Err(malformed(format!("there is no input table {other}"))),
        }
    }

    fn memory(&self) -> usize {
        self.clients.footprint(0)
            + self.records.capacity() * std::mem::size_of::<Client>()
            + self.items.footprint(0)
            + self.more.allocation_size()
    }

    fn finish(
        &mut self,
        strings: &dyn StringDictionary,
        sink: &mut RowSink<'_>,
    ) -> Result<Totals, ReduceError> {
        self.items = PairSet::default();
        let further = self.further_groups();
        let mut further = further.as_slice();
        let custom = |bits: u8| u64::from(bits & state::CUSTOM != 0);
        let mut totals = Totals::zero(TOTALS.len());
        if self.null_client != 0 {
            totals[CLIENTS] += 1;
            totals[CUSTOM_THEME_CLIENTS] += custom(self.null_client);
        }
        let mut rows = Rows::default();
        let mut id = Vec::new();
        for ((number, key), client) in (0u32..).zip(self.clients.iter()).zip(&self.records) {
            let mine = further.iter().take_while(|&&(client, ..)| client == number).count();
            let (own, rest) = further.split_at(mine);
            further = rest;
            let bits = client.record.state;
            // A client that only occurs in addons is no client of main_summary.
            if bits & state::THEMES != 0 {
                totals[CLIENTS] += 1;
                totals[CUSTOM_THEME_CLIENTS] += custom(bits);
            }
            if client.counts == [0; install::KINDS] {
                continue;
            }
            id.clear();
            append_key(key, strings, &mut id);
            let groups =
                client.record.group().into_iter().chain(own.iter().map(|&(_, date, day)| (date, day)));
            let none = client.record.group().is_none().then_some((None, None));
            for group in groups.chain(none) {
                rows.push_group(&id, client, group);
                if rows.len() >= SINK_ROWS || rows.text.len() >= SINK_TEXT {
                    pass_rows(std::mem::take(&mut rows).finish()?, &mut totals, sink)?;
                }
            }
        }
        if rows.len() > 0 {
            pass_rows(rows.finish()?, &mut totals, sink)?;
        }
        Ok(totals)
    }
}

/// Output columns, filled row by row.
#[derive(Default)]
struct Rows {
    text: Vec<u8>,
    ends: Vec<usize>,
    foreign: Vec<Option<bool>>,
    count: Vec<i64>,
    user_type: Vec<i64>,
    created: Vec<i64>,
    created_valid: Vec<bool>,
    day: Vec<i32>,
    day_valid: Vec<bool>,
    theme: Vec<i64>,
    theme_valid: Vec<bool>,
}

impl Rows {
    fn len(&self) -> usize {
        self.count.len()
    }

    /// Adds the rows of a client for one of its groups: one for each of its install kinds.
    fn push_group(&mut self, id: &[u8], client: &Client, (date, day): (Option<i64>, Option<i32>)) {
        let [own, foreign, unknown] = client.counts.map(|count| i64::from(count > 0));
        let bits = client.record.state;
        let bit = |bit| i64::from(bits & bit != 0);
        for (kind, value) in
            [(install::SELF, Some(false)), (install::FOREIGN, Some(true)), (install::UNKNOWN, None)]
        {
            let count = client.counts[kind as usize];
            if count == 0 {
                continue;
            }
            self.text.extend_from_slice(id);
            self.ends.push(self.text.len());
            self.foreign.push(value);
            self.count.push(i64::from(count));
            self.user_type.push(foreign - own - unknown);
            self.created.push(date.unwrap_or(0));
            self.created_valid.push(date.is_some());
            self.day.push(day.unwrap_or(0));
            self.day_valid.push(day.is_some());
            self.theme.push(bit(state::CUSTOM) - bit(state::DEFAULT));
            self.theme_valid.push(bits & state::THEMES != 0);
        }
    }

    fn finish(self) -> Result<RecordBatch, DatasetError> {
        let columns: Vec<ArrayRef> = vec![
            texts(self.text, self.ends, None)?,
            Arc::new(BooleanArray::from(self.foreign)),
            Arc::new(Int64Array::from(self.count)),
            Arc::new(Int64Array::from(self.user_type)),
            Arc::new(Int64Array::new(self.created.into(), nulls(self.created_valid))),
            Arc::new(Int32Array::new(self.day.into(), nulls(self.day_valid))),
            Arc::new(Int64Array::new(self.theme.into(), nulls(self.theme_valid))),
        ];
        RecordBatch::try_new(schema::reduced(), columns).map_err(|e| malformed(e.to_string()))
    }
}
