//! Partials of one partition to its rows: sums are added, and the last time is kept.
//!
//! Not here: the creation of partials (`map`).

use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray, UInt8Array};
use tally_dataset::keys::{Key, KeyTable, pass_of_text, pass_of_uuid};
use tally_dataset::partials::{code_of, column, malformed};
use tally_dataset::{DatasetError, Pass, ReduceError, Reducer, RowSink, StringDictionary, Totals, uuid};

use crate::{EVENTS, TOTALS, reduced_schema, state};

/// Rows in a batch for the sink.
const SINK_ROWS: usize = 4096;

#[derive(Debug, Clone, Copy, Default)]
struct Account {
    seconds: i64,
    last: Option<i64>,
    cents: i64,
    paid: bool,
}

pub(crate) struct AccountsReducer {
    pass: Pass,
    keys: KeyTable,
    accounts: Vec<Account>,
}

/// The columns of a batch of partials.
pub(crate) struct Partials<'a> {
    pub keys: &'a [[u8; 16]],
    pub states: &'a [u8],
    pub sums: &'a [i64],
    pub lasts: &'a [i64],
}

impl<'a> Partials<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<Self, DatasetError> {
        let keys: &FixedSizeBinaryArray = column(batch, "account")?;
        let states: &UInt8Array = column(batch, "state")?;
        let sums: &Int64Array = column(batch, "sum")?;
        let lasts: &Int64Array = column(batch, "last")?;
        let (keys, rest) = keys.value_data().as_chunks::<16>();
        if keys.len() != batch.num_rows() || !rest.is_empty() {
            return Err(malformed("accounts of other than 16 bytes"));
        }
        Ok(Partials { keys, states: states.values(), sums: sums.values(), lasts: lasts.values() })
    }
}

impl AccountsReducer {
    pub(crate) fn new(pass: Pass) -> Self {
        AccountsReducer { pass, keys: KeyTable::default(), accounts: vec![] }
    }

    /// The number of an account; `None` if another pass takes it.
    fn number(
        &mut self,
        id: [u8; 16],
        coded: bool,
        codes: &[u32],
        strings: &dyn StringDictionary,
    ) -> Result<Option<u32>, DatasetError> {
        let passes = self.pass.of;
        let (key, pass) = if coded {
            let code = code_of(codes, u32::from_le_bytes([id[0], id[1], id[2], id[3]]))?;
            let mut crc32 = [code];
            strings.crc32s(&mut crc32);
            (Key::Code(code), pass_of_text(crc32[0], passes))
        } else {
            let id = u128::from_be_bytes(id);
            (Key::Uuid(id), pass_of_uuid(id, passes))
        };
        if pass != self.pass.index {
            return Ok(None);
        }
        let number = self.keys.intern(key)?;
        self.accounts.resize(self.keys.len(), Account::default());
        Ok(Some(number))
    }
}

impl Reducer for AccountsReducer {
    fn merge(
        &mut self,
        table: usize,
        batch: &RecordBatch,
        codes: &[u32],
        strings: &dyn StringDictionary,
    ) -> Result<(), DatasetError> {
        let Partials { keys, states, sums, lasts } = Partials::of(batch)?;
        for row in 0..batch.num_rows() {
            let coded = states[row] & state::CODED != 0;
            let Some(number) = self.number(keys[row], coded, codes, strings)? else { continue };
            let account = &mut self.accounts[number as usize];
            if table == EVENTS {
                account.seconds = account.seconds.wrapping_add(sums[row]);
                account.last = account.last.max((states[row] & state::LAST != 0).then_some(lasts[row]));
            } else {
                account.cents = account.cents.wrapping_add(sums[row]);
                account.paid = true;
            }
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        self.keys.footprint(0) + self.accounts.capacity() * std::mem::size_of::<Account>()
    }

    fn finish(
        &mut self,
        strings: &dyn StringDictionary,
        sink: &mut RowSink<'_>,
    ) -> Result<Totals, ReduceError> {
        let mut totals = Totals::zero(TOTALS.len());
        let keys: Vec<Key> = self.keys.iter().collect();
        for (keys, accounts) in keys.chunks(SINK_ROWS).zip(self.accounts.chunks(SINK_ROWS)) {
            let mut names = vec![];
            for &key in keys {
                let mut name = vec![];
                match key {
                    Key::Uuid(id) => name.extend_from_slice(&uuid::format(id)),
                    Key::Code(code) => strings.append(code, &mut name),
                }
                names.push(String::from_utf8(name).map_err(|e| malformed(e.to_string()))?);
            }
            for account in accounts {
                totals[0] += 1;
                totals[1] += u64::from(account.paid);
                totals[2] = totals[2].wrapping_add(account.seconds.cast_unsigned());
            }
            totals.rows += accounts.len() as u64;
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from(names)),
                Arc::new(Int64Array::from_iter_values(accounts.iter().map(|account| account.seconds))),
                Arc::new(Int64Array::from_iter(accounts.iter().map(|account| account.last))),
                Arc::new(Int64Array::from_iter_values(accounts.iter().map(|account| account.cents))),
            ];
            let batch = RecordBatch::try_new(reduced_schema(), columns);
            sink(batch.map_err(|e| malformed(e.to_string()))?).map_err(ReduceError::Sink)?;
        }
        Ok(totals)
    }
}
