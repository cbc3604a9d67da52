//! Rows of `main_summary` to partials: the theme bits of each client, and the least install day
//! of each of its profile creation dates.
//!
//! A theme is custom where its add-on id is neither null nor the default theme's. A ping whose
//! list of add-ons is null or empty makes no group; a null date is a group like any other, and a
//! group whose days are all null has a null. The null client only has theme bits: it counts
//! among the clients, and never reaches the output.

use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, RecordBatch};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::map_addons::{ClientColumns, bucket_offsets, partitions_of, resolve_clients};
use super::schema::{self, state};
use crate::batch::{BATCH_ROWS, Batch, NULL_SYMBOL};
use crate::bits::Bits;
use crate::clients::{ClientKey, ClientTable, grown};
use crate::interner::Interner;
use crate::partition::Partitioner;
use crate::prefetch::prefetch;
use crate::{DatasetError, MapRun, Mapper};

const CLIENT: usize = 0;
const THEME: usize = 1;
const CREATED: usize = 2;
const INSTALLED: usize = 3;

const DEFAULT_THEME: &[u8] = b"{972ce4c6-7e08-4474-a285-3208198ce6fd}";
/// Symbol of the default theme; every other theme's is 1.
const DEFAULT_SYMBOL: u32 = 0;

/// What is known of a client: its state bits, and its first group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Record {
    pub(super) created: i64,
    pub(super) day: i32,
    pub(super) state: u8,
}

/// Groups of clients that have more than one: (client, date) to the least day.
pub(super) type MoreGroups = HashMap<(u32, Option<i64>), Option<i32>, RandomState>;

impl Record {
    /// The record's group, if it has one.
    pub(super) fn group(&self) -> Option<(Option<i64>, Option<i32>)> {
        let has = |bit| self.state & bit != 0;
        has(state::GROUP)
            .then(|| (has(state::DATE).then_some(self.created), has(state::DAY).then_some(self.day)))
    }

    /// Takes a group into client number `client`'s record, or beside it if that holds another.
    #[inline]
    pub(super) fn merge(
        &mut self,
        client: u32,
        created: Option<i64>,
        day: Option<i32>,
        more: &mut MoreGroups,
    ) {
        let date = if created.is_some() { state::DATE } else { 0 };
        if self.state & state::GROUP == 0 {
            self.state |= state::GROUP | date;
            self.created = created.unwrap_or(0);
        } else if self.state & state::DATE != date || self.created != created.unwrap_or(0) {
            let least = more.entry((client, created)).or_insert(day);
            *least = match (*least, day) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            return;
        }
        if let Some(day) = day {
            let known = self.state & state::DAY != 0;
            self.day = if known { self.day.min(day) } else { day };
            self.state |= state::DAY;
        }
    }
}

/// Mapper of the table `main_summary`.
pub struct MainMapper {
    clients: ClientTable,
    records: Vec<Record>,
    more: MoreGroups,
    texts: Interner,
    /// Theme bits of the null client.
    null_client: u8,
    partitioner: Partitioner,
}

impl MainMapper {
    /// A mapper into so many partitions.
    pub fn new(partitions: u32) -> Self {
        MainMapper {
            clients: ClientTable::default(),
            records: vec![],
            more: MoreGroups::default(),
            texts: Interner::default(),
            null_client: 0,
            partitioner: Partitioner::new(partitions),
        }
    }
}

/// The state bits of a group.
fn group_state(created: Option<i64>, day: Option<i32>) -> u8 {
    let bit = |set, bit| if set { bit } else { 0 };
    state::GROUP | bit(created.is_some(), state::DATE) | bit(day.is_some(), state::DAY)
}

impl Mapper for MainMapper {
    fn select(&self, _: &Batch, _: &mut Bits) {}

    fn resolve(&mut self, column: usize, values: &[&[u8]], symbols: &mut [u32]) -> Result<(), DatasetError> {
        if column == THEME {
            for (&value, symbol) in values.iter().zip(symbols) {
                *symbol = if value == DEFAULT_THEME { DEFAULT_SYMBOL } else { 1 };
            }
            return Ok(());
        }
        resolve_clients(&mut self.clients, &mut self.texts, values, symbols)?;
        self.records.resize(self.clients.len(), Record::default());
        Ok(())
    }

    fn consume(&mut self, batch: &Batch, selected: &Bits) {
        let (client, theme) = (batch.text(CLIENT), batch.text(THEME));
        let (dated, created) = batch.int64(CREATED);
        let (present, known, day) = batch.list_min(INSTALLED);
        // So that the records' cache misses overlap.
        client.iter().for_each(|&client| prefetch(&self.records, client as usize));
        for row in selected.ones(0, batch.rows) {
            let custom = theme[row] != NULL_SYMBOL && theme[row] != DEFAULT_SYMBOL;
            let bit = if custom { state::CUSTOM } else { state::DEFAULT };
            if client[row] == NULL_SYMBOL {
                self.null_client |= bit;
                continue;
            }
            let record = &mut self.records[client[row] as usize];
            record.state |= bit;
            if present.get(row) {
                let created = dated.get(row).then(|| created[row]);
                let day = known.get(row).then(|| day[row]);
                record.merge(client[row], created, day, &mut self.more);
            }
        }
    }

    fn footprint(&self) -> usize {
        let run = (self.clients.len() + self.more.len()) * (16 + 1 + 8 + 4 + 4);
        self.clients.footprint(BATCH_ROWS)
            + grown(&self.records, BATCH_ROWS)
            + 3 * self.more.allocation_size()
            + 2 * self.texts.memory()
            + run
    }

    fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.null_client == 0
    }

    fn flush(&mut self) -> Result<MapRun, DatasetError> {
        let partition = partitions_of(&self.clients, &self.texts, &self.partitioner);
        let null = (self.null_client != 0).then_some(0);
        let further = self.more.keys().map(|&(client, _)| partition[client as usize]);
        let offsets = bucket_offsets(
            self.partitioner.partitions(),
            partition.iter().copied().chain(further).chain(null),
        );
        let rows = *offsets.last().unwrap_or(&0) as usize;
        let mut next = offsets.clone();
        let mut place = |partition: u32| {
            let at = &mut next[partition as usize];
            *at += 1;
            *at as usize - 1
        };
        let mut columns = ClientColumns::new(rows);
        let (mut created, mut day) = (vec![0i64; rows], vec![0i32; rows]);
        let mut keys = Vec::with_capacity(if self.more.is_empty() { 0 } else { self.clients.len() });
        for ((key, &partition), record) in self.clients.iter().zip(&partition).zip(&self.records) {
            let at = place(partition);
            columns.set(at, key, record.state);
            (created[at], day[at]) = (record.created, record.day);
            if keys.capacity() > 0 {
                keys.push(key);
            }
        }
        for (&(client, date), &least) in &self.more {
            let at = place(partition[client as usize]);
            columns.set(at, keys[client as usize], group_state(date, least));
            (created[at], day[at]) = (date.unwrap_or(0), least.unwrap_or(0));
        }
        if null.is_some() {
            columns.set(place(0), ClientKey::Uuid(0), self.null_client | state::NULL_CLIENT);
        }
        self.clients.clear();
        self.records.clear();
        self.more = MoreGroups::default();
        self.null_client = 0;
        let [ids, states] = columns.finish();
        let dates = Arc::new(Int64Array::from(created));
        let days = Arc::new(Int32Array::from(day));
        let batch = RecordBatch::try_new(schema::main_partial(), vec![ids, states, dates, days])
            .map_err(|e| DatasetError::Malformed(e.to_string()))?;
        Ok(MapRun { batch, offsets, dictionary: self.texts.take()? })
    }
}
