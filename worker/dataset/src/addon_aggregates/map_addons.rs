//! Rows of `addons` to partials: the distinct add-ons of each client and install kind.
//!
//! A row counts where `is_system`, `user_disabled` and `app_disabled` are all false; a null is
//! not false. A null add-on id is one more distinct value, a null `foreign_install` a kind of its
//! own. Rows of the null client never reach the output and are dropped here.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch, UInt8Array, UInt32Array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field};

use super::schema::{self, NULL_ADDON, install, state};
use crate::batch::{BATCH_ROWS, Batch, NULL_SYMBOL};
use crate::bits::Bits;
use crate::clients::{ClientKey, ClientTable};
use crate::interner::Interner;
use crate::pair_set::PairSet;
use crate::partition::Partitioner;
use crate::{DatasetError, MapRun, Mapper, client_id};

/// Client ids resolved at a time.
const BLOCK: usize = 128;
const CLIENT: usize = 0;
const ADDON: usize = 1;
const FOREIGN: usize = 2;
const FILTERS: std::ops::Range<usize> = 3..6;

/// Mapper of the table `addons`.
pub struct AddonsMapper {
    clients: ClientTable,
    texts: Interner,
    /// `client << 32 | code << 2 | kind`.
    items: PairSet,
    /// Items of the batch in hand.
    keys: Vec<u64>,
    partitioner: Partitioner,
}

impl AddonsMapper {
    /// A mapper into so many partitions.
    pub fn new(partitions: u32) -> Self {
        AddonsMapper {
            clients: ClientTable::default(),
            texts: Interner::default(),
            items: PairSet::default(),
            keys: vec![],
            partitioner: Partitioner::new(partitions),
        }
    }
}

/// The numbers of clients by their ids; strings that are no canonical UUIDs are interned.
pub(super) fn resolve_clients(
    clients: &mut ClientTable,
    texts: &mut Interner,
    values: &[&[u8]],
    symbols: &mut [u32],
) -> Result<(), DatasetError> {
    for (values, symbols) in values.chunks(BLOCK).zip(symbols.chunks_mut(BLOCK)) {
        let mut ids = [0u128; BLOCK];
        if client_id::parse_many(values, &mut ids) {
            clients.intern_uuids(&ids[..values.len()], symbols)?;
            continue;
        }
        for (&value, symbol) in values.iter().zip(symbols) {
            *symbol = clients.intern(match client_id::parse(value) {
                Some(id) => ClientKey::Uuid(id),
                None => odd_key(texts, value)?,
            })?;
        }
    }
    Ok(())
}

#[cold]
fn odd_key(texts: &mut Interner, value: &[u8]) -> Result<ClientKey, DatasetError> {
    if std::str::from_utf8(value).is_err() {
        let shown = value.iter().take(100).copied().collect::<Vec<_>>();
        return Err(DatasetError::NotUtf8(shown.escape_ascii().to_string()));
    }
    texts.intern(value).map(ClientKey::Code)
}

/// The columns `client_id` and `state` of partials, filled at given places.
pub(super) struct ClientColumns {
    ids: Vec<u128>,
    states: Vec<u8>,
}

impl ClientColumns {
    pub(super) fn new(rows: usize) -> Self {
        ClientColumns { ids: vec![0; rows], states: vec![0; rows] }
    }

    #[inline]
    pub(super) fn set(&mut self, at: usize, key: ClientKey, state: u8) {
        // Kept in memory order of the id's bytes, so that no copy is needed for the array.
        (self.ids[at], self.states[at]) = match key {
            ClientKey::Uuid(id) => (u128::from_ne_bytes(id.to_be_bytes()), state),
            ClientKey::Code(code) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&code.to_le_bytes());
                (u128::from_ne_bytes(bytes), state | state::CODED)
            }
        };
    }

    pub(super) fn finish(self) -> [ArrayRef; 2] {
        let ids =
            arrow::array::FixedSizeBinaryArray::new(16, arrow::buffer::Buffer::from_vec(self.ids), None);
        [Arc::new(ids), Arc::new(UInt8Array::from(self.states))]
    }
}

/// The partition of each client, in order of their numbers.
pub(super) fn partitions_of(clients: &ClientTable, texts: &Interner, partitioner: &Partitioner) -> Vec<u32> {
    let of = |key| match key {
        ClientKey::Uuid(id) => partitioner.of_uuid(id),
        ClientKey::Code(code) => partitioner.of_text(texts.get(code)),
    };
    clients.iter().map(of).collect()
}

/// Running sums of how many elements fall into each of `buckets`: one more entry than buckets.
pub(super) fn bucket_offsets(buckets: u32, of: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut offsets = vec![0u32; buckets as usize + 1];
    for bucket in of {
        offsets[bucket as usize + 1] += 1;
    }
    for at in 1..offsets.len() {
        offsets[at] += offsets[at - 1];
    }
    offsets
}

impl Mapper for AddonsMapper {
    fn select(&self, batch: &Batch, selected: &mut Bits) {
        for at in FILTERS {
            let (valid, value) = batch.bool(at);
            for ((word, valid), value) in
                selected.words_mut().iter_mut().zip(valid.words()).zip(value.words())
            {
                *word &= valid & !value;
            }
        }
    }

    fn resolve(&mut self, column: usize, values: &[&[u8]], symbols: &mut [u32]) -> Result<(), DatasetError> {
        if column == CLIENT {
            return resolve_clients(&mut self.clients, &mut self.texts, values, symbols);
        }
        for (value, symbol) in values.iter().zip(symbols) {
            *symbol = self.texts.intern(value)?;
        }
        Ok(())
    }

    fn consume(&mut self, batch: &Batch, selected: &Bits) {
        let (client, addon) = (batch.text(CLIENT), batch.text(ADDON));
        let (known, foreign) = batch.bool(FOREIGN);
        for row in selected.ones(0, batch.rows) {
            if client[row] == NULL_SYMBOL {
                continue;
            }
            let kind = match (known.get(row), foreign.get(row)) {
                (false, _) => install::UNKNOWN,
                (true, true) => install::FOREIGN,
                (true, false) => install::SELF,
            };
            let code = if addon[row] == NULL_SYMBOL { NULL_ADDON } else { addon[row] };
            self.keys.push(u64::from(client[row]) << 32 | u64::from(code << 2 | kind));
        }
        self.items.insert_many(&self.keys, |_| ());
        self.keys.clear();
    }

    fn footprint(&self) -> usize {
        // A flush makes the run beside the tables: sorted ids, items, places.
        let run = self.clients.len() * (16 + 1 + 4 * 4) + self.items.len() * 4;
        self.clients.footprint(BATCH_ROWS) + self.items.footprint(BATCH_ROWS) + 2 * self.texts.memory() + run
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn flush(&mut self) -> Result<MapRun, DatasetError> {
        let partition = partitions_of(&self.clients, &self.texts, &self.partitioner);
        let offsets = bucket_offsets(self.partitioner.partitions(), partition.iter().copied());
        let mut next = offsets.clone();
        let mut columns = ClientColumns::new(self.clients.len());
        let mut place = vec![0u32; self.clients.len()];
        for ((key, &partition), place) in self.clients.iter().zip(&partition).zip(&mut place) {
            let at = &mut next[partition as usize];
            *place = *at;
            *at += 1;
            columns.set(*place as usize, key, 0);
        }
        let total = i32::try_from(self.items.len()).map_err(|_| DatasetError::TooLarge(self.items.len()))?;
        let client_of = |item: u64| place[(item >> 32) as usize];
        let lists = bucket_offsets(self.clients.len() as u32, self.items.iter().map(client_of));
        let mut next = lists.clone();
        let mut items = vec![0u32; total as usize];
        for item in self.items.iter() {
            let at = &mut next[client_of(item) as usize];
            items[*at as usize] = item as u32;
            *at += 1;
        }
        self.clients.clear();
        self.items.clear();
        let lists: Vec<i32> = lists.into_iter().map(|o| o as i32).collect();
        let list = ListArray::new(
            Arc::new(Field::new("item", DataType::UInt32, false)),
            OffsetBuffer::new(ScalarBuffer::from(lists)),
            Arc::new(UInt32Array::from(items)),
            None,
        );
        let [ids, states] = columns.finish();
        let batch = RecordBatch::try_new(schema::addons_partial(), vec![ids, states, Arc::new(list)])
            .map_err(|e| DatasetError::Malformed(e.to_string()))?;
        Ok(MapRun { batch, offsets, dictionary: self.texts.take()? })
    }
}
