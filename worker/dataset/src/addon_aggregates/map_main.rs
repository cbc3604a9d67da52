//! Rows of `main_summary` to partials: the theme bits of each client, and the minimum install day
//! of each of its profile creation dates.
//!
//! A theme is custom if its add-on id is neither null nor that of the default theme. A ping whose
//! list of add-ons is null or empty adds no group; a null date is a group like any other, and the minimum of a
//! group whose days are all null is null. The null client only has theme bits: it is counted
//! as a client, but never reaches the output.
//!
//! Not here: merging partials ([`super::reduce`]).

use std::sync::Arc;

use arrow_array::{Int32Array, Int64Array, RecordBatch};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::map_addons::ClientColumns;
use super::schema::{self, state};
use crate::batch::{BATCH_ROWS, Batch, NULL_CODE};
use crate::bits::Bits;
use crate::interner::Interner;
use crate::keys::{Key, KeyTable, grown};
use crate::partials::{bucket_offsets, partitions_of, resolve_keys};
use crate::partition::Partitioner;
use crate::prefetch::prefetch;
use crate::{DatasetError, MapRun, Mapper};

const CLIENT: usize = 0;
const THEME: usize = 1;
const CREATED: usize = 2;
const INSTALLED: usize = 3;

const DEFAULT_THEME: &[u8] = b"{972ce4c6-7e08-4474-a285-3208198ce6fd}";
/// Code of the default theme; all other themes have the code 1.
const DEFAULT_THEME_CODE: u32 = 0;

/// A client: its state bits, and its first group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Record {
    pub(super) created: i64,
    pub(super) day: i32,
    pub(super) state: u8,
}

/// Further groups of clients that have several: (client, date) to the minimum day.
pub(super) type MoreGroups = HashMap<(u32, Option<i64>), Option<i32>, RandomState>;

impl Record {
    /// The record's group, if it has one.
    pub(super) fn group(&self) -> Option<(Option<i64>, Option<i32>)> {
        let has = |bit| self.state & bit != 0;
        has(state::GROUP)
            .then(|| (has(state::DATE).then_some(self.created), has(state::DAY).then_some(self.day)))
    }

    /// Merges a group into the record of client number `client`, or into `more` if the record has another group.
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
    clients: KeyTable,
    records: Vec<Record>,
    more: MoreGroups,
    strings: Interner,
    /// Theme bits of the null client.
    null_client: u8,
    partitioner: Partitioner,
}

impl MainMapper {
    /// A mapper into `partitions` partitions.
    pub fn new(partitions: u32) -> Self {
        MainMapper {
            clients: KeyTable::default(),
            records: vec![],
            more: MoreGroups::default(),
            strings: Interner::default(),
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

    fn resolve(&mut self, column: usize, values: &[&[u8]], codes: &mut [u32]) -> Result<(), DatasetError> {
        if column == THEME {
            for (&value, code) in values.iter().zip(codes) {
                *code = if value == DEFAULT_THEME { DEFAULT_THEME_CODE } else { 1 };
            }
            return Ok(());
        }
        resolve_keys(&mut self.clients, &mut self.strings, values, codes)?;
        self.records.resize(self.clients.len(), Record::default());
        Ok(())
    }

    fn consume(&mut self, batch: &Batch, selected: &Bits) {
        let (client, theme) = (batch.text(CLIENT), batch.text(THEME));
        let (dated, created) = batch.int64(CREATED);
        let (present, known, day) = batch.list_min(INSTALLED);
        // Cache misses of the records overlap.
        client.iter().for_each(|&client| prefetch(&self.records, client as usize));
        for row in selected.ones(0, batch.rows) {
            let custom = theme[row] != NULL_CODE && theme[row] != DEFAULT_THEME_CODE;
            let bit = if custom { state::CUSTOM } else { state::DEFAULT };
            if client[row] == NULL_CODE {
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
            + 2 * self.strings.memory()
            + run
    }

    fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.null_client == 0
    }

    fn flush(&mut self) -> Result<MapRun, DatasetError> {
        let partition = partitions_of(&self.clients, &self.strings, &self.partitioner);
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
            columns.set(place(0), Key::Uuid(0), self.null_client | state::NULL_CLIENT);
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
        Ok(MapRun { batch, offsets, dictionary: self.strings.take()? })
    }
}
