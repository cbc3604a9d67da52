//! Partials of one partition to its rows: sums are added, and the last time is kept.
//!
//! Not here: the creation of partials (`map`).

use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray, UInt8Array};
use tally_dataset::keys::{Key, KeyTable};
use tally_dataset::output_rows::{append_key, pass_rows};
use tally_dataset::partials::{Dictionary, KeyBits, OTHER_PASS, column, malformed, number_keys};
use tally_dataset::{DatasetError, Pass, ReduceError, Reducer, RowSink, StringDictionary, Totals};

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
    pub keys: &'a FixedSizeBinaryArray,
    pub states: &'a [u8],
    pub sums: &'a [i64],
    pub lasts: &'a [i64],
}

impl<'a> Partials<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<Self, DatasetError> {
        let keys = column(batch, "account")?;
        let states: &UInt8Array = column(batch, "state")?;
        let sums: &Int64Array = column(batch, "sum")?;
        let lasts: &Int64Array = column(batch, "last")?;
        Ok(Partials { keys, states: states.values(), sums: sums.values(), lasts: lasts.values() })
    }
}

impl AccountsReducer {
    pub(crate) fn new(pass: Pass) -> Self {
        AccountsReducer { pass, keys: KeyTable::default(), accounts: vec![] }
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
        let bits = KeyBits { coded: state::CODED, null: 0 };
        let dictionary = Dictionary { codes, strings };
        let numbers = number_keys(&mut self.keys, self.pass, keys, states, bits, dictionary)?;
        self.accounts.resize(self.keys.len(), Account::default());
        for (row, number) in numbers.into_iter().enumerate().filter(|(_, number)| *number != OTHER_PASS) {
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
                append_key(key, strings, &mut name);
                names.push(String::from_utf8(name).map_err(|e| malformed(e.to_string()))?);
            }
            for account in accounts {
                totals[0] += 1;
                totals[1] += u64::from(account.paid);
                totals[2] = totals[2].wrapping_add(account.seconds.cast_unsigned());
            }
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from(names)),
                Arc::new(Int64Array::from_iter_values(accounts.iter().map(|account| account.seconds))),
                Arc::new(Int64Array::from_iter(accounts.iter().map(|account| account.last))),
                Arc::new(Int64Array::from_iter_values(accounts.iter().map(|account| account.cents))),
            ];
            let batch = RecordBatch::try_new(reduced_schema(), columns);
            pass_rows(batch.map_err(|e| malformed(e.to_string()))?, &mut totals, sink)?;
        }
        Ok(totals)
    }
}
