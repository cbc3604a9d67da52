//! Rows of either table to partials: for each account a sum, and for events the time of the last one.
//!
//! Not here: how partials of several shards are merged (`reduce`).

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch, UInt8Array};
use tally_dataset::interner::Interner;
use tally_dataset::keys::{KeyTable, grown};
use tally_dataset::partials::{KeyColumn, bucket_offsets, partitions_of, resolve_keys};
use tally_dataset::partition::Partitioner;
use tally_dataset::{BATCH_ROWS, Batch, Bits, DatasetError, MapRun, Mapper, NULL_CODE};

use crate::{EVENTS, partial_schema, state};

const ACCOUNT: usize = 0;
/// `seconds` of events, `cents` of payments.
const ADDED: usize = 1;
const AT: usize = 2;
const IS_TEST: usize = 3;

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    /// It has a row.
    seen: bool,
    sum: i64,
    last: Option<i64>,
}

pub(crate) struct AccountsMapper {
    events: bool,
    keys: KeyTable,
    strings: Interner,
    /// Indexed by the number of the key.
    records: Vec<Record>,
    seen: usize,
    partitioner: Partitioner,
    /// The folder of all rows. It decides the partition, if there is one.
    folder: Option<u32>,
    excluded: Arc<BTreeSet<String>>,
    /// Whether a key is excluded, by its number.
    is_excluded: Vec<bool>,
}

impl AccountsMapper {
    pub(crate) fn new(
        table: usize,
        partitions: u32,
        folder: Option<u32>,
        excluded: Arc<BTreeSet<String>>,
    ) -> Self {
        AccountsMapper {
            events: table == EVENTS,
            keys: KeyTable::default(),
            strings: Interner::default(),
            records: vec![],
            seen: 0,
            partitioner: Partitioner::new(partitions),
            folder,
            excluded,
            is_excluded: vec![],
        }
    }
}

impl Mapper for AccountsMapper {
    fn select(&self, batch: &Batch, selected: &mut Bits) {
        if self.events {
            let (valid, test) = batch.bool(IS_TEST);
            for ((word, valid), test) in selected.words_mut().iter_mut().zip(valid.words()).zip(test.words())
            {
                *word &= !(valid & test);
            }
        }
    }

    fn resolve(&mut self, _: usize, values: &[&[u8]], codes: &mut [u32]) -> Result<(), DatasetError> {
        resolve_keys(&mut self.keys, &mut self.strings, values, codes)?;
        self.records.resize(self.keys.len(), Record::default());
        self.is_excluded.resize(self.keys.len(), false);
        for (value, &code) in values.iter().zip(&*codes) {
            let value = str::from_utf8(value).unwrap_or_default();
            self.is_excluded[code as usize] = self.excluded.contains(value);
        }
        Ok(())
    }

    fn consume(&mut self, batch: &Batch, selected: &Bits) {
        let accounts = batch.text(ACCOUNT);
        let (known, added) = batch.int64(ADDED);
        let at = self.events.then(|| batch.int64(AT));
        for row in selected.ones(0, batch.rows) {
            if accounts[row] == NULL_CODE || self.is_excluded[accounts[row] as usize] {
                continue;
            }
            let record = &mut self.records[accounts[row] as usize];
            self.seen += usize::from(!record.seen);
            record.seen = true;
            if known.get(row) {
                record.sum = record.sum.wrapping_add(added[row]);
            }
            let at = at.and_then(|(known, at)| known.get(row).then(|| at[row]));
            record.last = record.last.max(at);
        }
    }

    fn footprint(&self) -> usize {
        self.keys.footprint(BATCH_ROWS)
            + grown(&self.records, BATCH_ROWS)
            + grown(&self.is_excluded, BATCH_ROWS)
            + 2 * self.strings.memory()
            + self.keys.len() * 48
    }

    fn is_empty(&self) -> bool {
        self.seen == 0
    }

    fn flush(&mut self) -> Result<MapRun, DatasetError> {
        let partition = match self.folder {
            Some(folder) => vec![folder; self.keys.len()],
            None => partitions_of(&self.keys, &self.strings, &self.partitioner),
        };
        let seen = self.records.iter().zip(&partition).filter(|(record, _)| record.seen);
        let offsets = bucket_offsets(self.partitioner.partitions(), seen.map(|(_, &partition)| partition));
        let mut next = offsets.clone();
        let mut accounts = KeyColumn::new(self.seen);
        let (mut states, mut sums, mut lasts) =
            (vec![0u8; self.seen], vec![0i64; self.seen], vec![0i64; self.seen]);
        for ((key, &partition), record) in self.keys.iter().zip(&partition).zip(&self.records) {
            if !record.seen {
                continue;
            }
            let place = &mut next[partition as usize];
            let at = *place as usize;
            *place += 1;
            let coded = accounts.set(at, key);
            states[at] = if coded { state::CODED } else { 0 } | record.last.map_or(0, |_| state::LAST);
            sums[at] = record.sum;
            lasts[at] = record.last.unwrap_or(0);
        }
        self.keys.clear();
        self.records.clear();
        self.is_excluded.clear();
        self.seen = 0;
        let columns: Vec<arrow_array::ArrayRef> = vec![
            accounts.finish(),
            Arc::new(UInt8Array::from(states)),
            Arc::new(Int64Array::from(sums)),
            Arc::new(Int64Array::from(lasts)),
        ];
        let batch = RecordBatch::try_new(partial_schema(), columns);
        let batch = batch.map_err(|e| DatasetError::Malformed(e.to_string()))?;
        Ok(MapRun { batch, offsets, dictionary: self.strings.take()? })
    }
}
