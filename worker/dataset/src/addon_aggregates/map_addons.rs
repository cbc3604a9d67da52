//! Rows of `addons` to partials: the distinct add-ons of each client and install kind.
//!
//! A row counts if `is_system`, `user_disabled` and `app_disabled` are all false; a null is
//! not false. A null add-on id is another distinct value, and a null `foreign_install` is a kind of its
//! own. Rows of the null client never reach the output and are dropped here. A client with very many add-ons has several
//! rows of partials, so that the size of a row is limited.
//!
//! Not here: merging partials ([`super::reduce`]).

use std::sync::Arc;

use arrow_array::{ArrayRef, ListArray, RecordBatch, UInt8Array, UInt32Array};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field};
use arrow_select::take::take;

use super::schema::{self, NULL_ADDON, install, state};
use crate::batch::{BATCH_ROWS, Batch, NULL_CODE};
use crate::bits::Bits;
use crate::interner::Interner;
use crate::keys::{Key, KeyTable};
use crate::pair_set::PairSet;
use crate::partials::{KeyColumn, bucket_offsets, partitions_of, resolve_keys};
use crate::partition::Partitioner;
use crate::{DatasetError, MapRun, Mapper};

const CLIENT: usize = 0;
const ADDON: usize = 1;
const FOREIGN: usize = 2;
const FILTERS: std::ops::Range<usize> = 3..6;
/// Maximum number of items of a row of partials: 4 MiB.
const MAX_ITEMS: u32 = 1 << 20;

/// Mapper of the table `addons`.
pub struct AddonsMapper {
    clients: KeyTable,
    strings: Interner,
    /// `client << 32 | code << 2 | kind`.
    items: PairSet,
    /// Items of the current batch.
    keys: Vec<u64>,
    partitioner: Partitioner,
}

impl AddonsMapper {
    /// A mapper into `partitions` partitions.
    pub fn new(partitions: u32) -> Self {
        AddonsMapper {
            clients: KeyTable::default(),
            strings: Interner::default(),
            items: PairSet::default(),
            keys: vec![],
            partitioner: Partitioner::new(partitions),
        }
    }
}

/// The columns `client_id` and `state` of partials, filled in any order of rows.
pub(super) struct ClientColumns {
    ids: KeyColumn,
    states: Vec<u8>,
}

impl ClientColumns {
    pub(super) fn new(rows: usize) -> Self {
        ClientColumns { ids: KeyColumn::new(rows), states: vec![0; rows] }
    }

    #[inline]
    pub(super) fn set(&mut self, at: usize, key: Key, state: u8) {
        let coded = self.ids.set(at, key);
        self.states[at] = if coded { state | state::CODED } else { state };
    }

    pub(super) fn finish(self) -> [ArrayRef; 2] {
        [self.ids.finish(), Arc::new(UInt8Array::from(self.states))]
    }
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

    fn resolve(&mut self, column: usize, values: &[&[u8]], codes: &mut [u32]) -> Result<(), DatasetError> {
        if column == CLIENT {
            return resolve_keys(&mut self.clients, &mut self.strings, values, codes);
        }
        for (value, code) in values.iter().zip(codes) {
            *code = self.strings.intern(value)?;
        }
        Ok(())
    }

    fn consume(&mut self, batch: &Batch, selected: &Bits) {
        let (client, addon) = (batch.text(CLIENT), batch.text(ADDON));
        let (known, foreign) = batch.bool(FOREIGN);
        for row in selected.ones(0, batch.rows) {
            if client[row] == NULL_CODE {
                continue;
            }
            let kind = match (known.get(row), foreign.get(row)) {
                (false, _) => install::UNKNOWN,
                (true, true) => install::FOREIGN,
                (true, false) => install::SELF,
            };
            let code = if addon[row] == NULL_CODE { NULL_ADDON } else { addon[row] };
            self.keys.push(u64::from(client[row]) << 32 | u64::from(code << 2 | kind));
        }
        self.items.insert_many(&self.keys, |_| ());
        self.keys.clear();
    }

    fn footprint(&self) -> usize {
        // A flush builds the run while the tables are still held: sorted ids, items, places.
        let run = self.clients.len() * (16 + 1 + 4 * 4) + self.items.len() * 4;
        self.clients.footprint(BATCH_ROWS)
            + self.items.footprint(BATCH_ROWS)
            + 2 * self.strings.memory()
            + run
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn flush(&mut self) -> Result<MapRun, DatasetError> {
        let partition = partitions_of(&self.clients, &self.strings, &self.partitioner);
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
        let columns = columns.finish();
        let (columns, lists, offsets) = match divided(&lists, MAX_ITEMS) {
            None => (columns, lists, offsets),
            Some(rows) => rows.divide(columns, &offsets)?,
        };
        let lists: Vec<i32> = lists.into_iter().map(|o| o as i32).collect();
        let list = ListArray::new(
            Arc::new(Field::new("item", DataType::UInt32, false)),
            OffsetBuffer::new(ScalarBuffer::from(lists)),
            Arc::new(UInt32Array::from(items)),
            None,
        );
        let [ids, states] = columns;
        let batch = RecordBatch::try_new(schema::addons_partial(), vec![ids, states, Arc::new(list)])
            .map_err(|e| DatasetError::Malformed(e.to_string()))?;
        Ok(MapRun { batch, offsets, dictionary: self.strings.take()? })
    }
}

/// Rows of which some are divided into several of the same client, because their lists are too long.
struct DividedRows {
    /// For each new row the old one.
    of: Vec<u32>,
    /// The items before each new row, and in total.
    lists: Vec<u32>,
}

/// Divides rows with lists of more than `max` items. `lists` has the items before each row, and in total. Returns `None`
/// if there are no such rows.
fn divided(lists: &[u32], max: u32) -> Option<DividedRows> {
    lists.windows(2).find(|ends| ends[1] - ends[0] > max)?;
    let mut rows = DividedRows { of: vec![], lists: vec![] };
    for (row, ends) in (0u32..).zip(lists.windows(2)) {
        let mut start = ends[0];
        loop {
            rows.of.push(row);
            rows.lists.push(start);
            if ends[1] - start <= max {
                break;
            }
            start += max;
        }
    }
    rows.lists.extend(lists.last());
    Some(rows)
}

/// The columns of the new rows, the items before each of them, and the new rows before each partition.
type Divided = ([ArrayRef; 2], Vec<u32>, Vec<u32>);

impl DividedRows {
    fn divide(self, columns: [ArrayRef; 2], offsets: &[u32]) -> Result<Divided, DatasetError> {
        let before = |&row: &u32| self.of.partition_point(|&of| of < row) as u32;
        let offsets = offsets.iter().map(before).collect();
        let of = UInt32Array::from(self.of);
        let [ids, states] = columns.map(|column| take(&column, &of, None));
        let malformed = |e: ArrowError| DatasetError::Malformed(e.to_string());
        Ok(([ids.map_err(malformed)?, states.map_err(malformed)?], self.lists, offsets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_long_lists_are_divided_and_keep_their_partitions() {
        // Rows of 3, 0, 7 and 4 items in partitions of 1, 0, 2 and 1 rows.
        let (lists, offsets) = (vec![0, 3, 3, 10, 14], [0, 1, 1, 3, 4]);
        assert!(divided(&lists, 7).is_none());
        let rows = divided(&lists, 3).unwrap();
        let mut columns = ClientColumns::new(4);
        (0..4).for_each(|row| columns.set(row, Key::Uuid(row as u128), row as u8));
        let ([ids, states], lists, offsets) = rows.divide(columns.finish(), &offsets).unwrap();
        assert_eq!(states.as_ref(), &UInt8Array::from(vec![0, 1, 2, 2, 2, 3, 3]));
        assert_eq!(ids.len(), 7);
        assert_eq!(lists, [0, 3, 3, 6, 9, 10, 13, 14]);
        assert_eq!(offsets, [0, 1, 1, 5, 7]);
    }
}
