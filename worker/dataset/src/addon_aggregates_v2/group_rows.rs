//! What is counted of a group, and the columns of the output, filled row by row.
//!
//! Not here: which rows there are (`reduce_groups`).

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};

use super::day_text::DayText;
use super::flags::{self, FOREIGN, FOREIGN_BITS, OWN};
use super::ping_schema::{self, DATES, KEYS, SUMS};
use crate::batch::{NULL_CODE, Width};
use crate::keys::Key;
use crate::output_rows::{SINK_ROWS, SINK_TEXT, append_key, nulls, texts};
use crate::partials::malformed;
use crate::{DatasetError, StringDictionary};

/// What is known of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// In the order of [`SUMS`].
    pub(super) sums: [u64; SUMS.len()],
    /// The first install day of its own elements.
    pub(super) first: DayText,
    /// The least profile creation date.
    pub(super) created: Option<i64>,
}

impl Group {
    pub(super) const EMPTY: Group = Group { sums: [0; SUMS.len()], first: DayText::NONE, created: None };

    #[inline]
    pub(super) fn add(&mut self, flags: u32) {
        let foreign = flags & FOREIGN_BITS;
        let counted = [
            foreign == OWN,
            flags & flags::SHIELD != 0,
            foreign == FOREIGN,
            flags & flags::SYSTEM != 0,
            flags & flags::WEB != 0,
        ];
        self.sums.iter_mut().zip(counted).for_each(|(sum, counted)| *sum += u64::from(counted));
    }
}

/// A column of nullable strings.
#[derive(Default)]
struct TextColumn {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    valid: Vec<bool>,
}

impl TextColumn {
    /// Ends a value, whose bytes were appended, or a null.
    #[inline]
    fn end(&mut self, valid: bool) {
        self.ends.push(self.bytes.len());
        self.valid.push(valid);
    }

    fn finish(self) -> Result<ArrayRef, DatasetError> {
        texts(self.bytes, self.ends, nulls(self.valid))
    }
}

/// Output rows.
pub(super) struct Rows {
    /// The width of profile creation dates.
    dates: Width,
    keys: [TextColumn; KEYS.len()],
    sums: [Vec<i64>; SUMS.len()],
    days: [TextColumn; DATES.len()],
}

impl Rows {
    /// No rows.
    pub(super) fn new(dates: Width) -> Self {
        Rows { dates, keys: Default::default(), sums: Default::default(), days: Default::default() }
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.sums[0].len()
    }

    /// Whether there are enough rows for the sink.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= SINK_ROWS
            || self.keys.iter().map(|column| column.bytes.len()).sum::<usize>() >= SINK_TEXT
    }

    /// Adds a row; `codes` are those of channel, version and locale.
    pub(super) fn push(
        &mut self,
        client: Option<Key>,
        codes: [u32; 3],
        group: &Group,
        strings: &dyn StringDictionary,
    ) {
        let [ids, texts @ ..] = &mut self.keys;
        if let Some(client) = client {
            append_key(client, strings, &mut ids.bytes);
        }
        ids.end(client.is_some());
        for (column, code) in texts.iter_mut().zip(codes) {
            if code != NULL_CODE {
                strings.append(code, &mut column.bytes);
            }
            column.end(code != NULL_CODE);
        }
        self.sums.iter_mut().zip(group.sums).for_each(|(column, sum)| column.push(sum.cast_signed()));
        let created = group.created.map_or(DayText::NONE, |days| DayText::new(days, self.dates));
        for (column, day) in self.days.iter_mut().zip([group.first, created]) {
            let valid = day.append(&mut column.bytes);
            column.end(valid);
        }
    }

    /// The rows as a batch; afterwards there are none.
    pub(super) fn take(&mut self) -> Result<RecordBatch, DatasetError> {
        let none = Rows::new(self.dates);
        let Rows { keys, sums, days, .. } = std::mem::replace(self, none);
        let mut columns = vec![];
        for keys in keys {
            columns.push(keys.finish()?);
        }
        columns.extend(sums.map(|sums| -> ArrayRef { Arc::new(Int64Array::from(sums)) }));
        for days in days {
            columns.push(days.finish()?);
        }
        RecordBatch::try_new(ping_schema::output(), columns).map_err(|e| malformed(e.to_string()))
    }
}
