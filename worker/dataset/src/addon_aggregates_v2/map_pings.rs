//! Rows of `main_summary` to partials: the distinct elements of each ping.
//!
//! A ping is what the identity of an element has from its row: client, channel, version, locale and profile creation date.
//! Rows without elements contribute nothing. A null element is one whose fields are all null. All rows of a mapper belong
//! to one folder, which is the partition of all partials. A ping with very many elements has several rows of partials, so
//! that the size of a row is limited.
//!
//! Not here: merging partials (`reduce_groups`), and packing elements (`packed`).

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, ListArray, RecordBatch, UInt8Array, UInt32Array, UInt64Array};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::elements::ElementSets;
use super::numbered::Numbered;
use super::packed::Packer;
use super::ping_schema::{self, set_width, state};
use super::test_pilots::TestPilots;
use super::{ADDON, CHANNEL, CLIENT, CREATED, LOCALE, VERSION};
use crate::batch::{BATCH_ROWS, Batch, NULL_CODE, Width};
use crate::bits::Bits;
use crate::interner::Interner;
use crate::keys::{Key, KeyTable};
use crate::partials::{KeyColumn, bucket_offsets, malformed, resolve_keys, utf8};
use crate::{DatasetError, MapRun, Mapper};

/// Maximum number of items of a row of partials: 8 MiB.
const MAX_ITEMS: u32 = 1 << 20;
/// Strings and elements after which a run ends: long before codes and offsets have no more bits.
const FULL_STRINGS: usize = 1 << (ping_schema::ADDON_BITS - 1);
const FULL_ELEMENTS: usize = 1 << 30;
/// Elements in a batch, unless there were more already.
const BATCH_ELEMENTS: usize = 16 * BATCH_ROWS;
/// Pings whose elements are prefetched.
const AHEAD: usize = 8;

/// A row with elements.
struct PingRow {
    ping: u32,
    from: u32,
    to: u32,
}

/// Mapper of the table `main_summary`.
pub(super) struct PingsMapper {
    partitions: u32,
    folder: u32,
    clients: KeyTable,
    strings: Interner,
    /// Numbers of (channel, version, locale).
    kinds: HashMap<[u32; 3], u32, RandomState>,
    /// (channel, version, locale) by number.
    kind_codes: Vec<[u32; 3]>,
    /// By client: kind and profile creation date.
    pings: Numbered<(u32, Option<i64>)>,
    elements: ElementSets<u64>,
    packer: Packer,
    rows: Vec<PingRow>,
    /// The width of profile creation dates, once it is known.
    dates: Option<Width>,
    /// The most elements of a batch so far.
    most_elements: usize,
    /// The first error of a batch.
    failed: Option<DatasetError>,
}

impl PingsMapper {
    /// A mapper of the rows of a folder, which is one of the partitions.
    pub(super) fn new(partitions: u32, folder: u32, pilots: Arc<TestPilots>) -> Self {
        PingsMapper {
            partitions,
            folder,
            clients: KeyTable::default(),
            strings: Interner::default(),
            kinds: HashMap::default(),
            kind_codes: vec![],
            pings: Numbered::default(),
            elements: ElementSets::default(),
            packer: Packer::new(pilots),
            rows: vec![],
            dates: None,
            most_elements: BATCH_ELEMENTS,
            failed: None,
        }
    }

    /// Numbers the pings of a batch.
    fn number_pings(&mut self, batch: &Batch, selected: &Bits) -> Result<(), DatasetError> {
        let clients = batch.text(CLIENT);
        let kind_columns = [CHANNEL, VERSION, LOCALE].map(|column| batch.text(column));
        let (dated, created, width) = batch.int(CREATED);
        if dated.count() > 0 {
            set_width(&mut self.dates, width)?;
        }
        // A file without the list may have no ends.
        let end = |row: usize| batch.ends.get(row).copied().unwrap_or(0);
        self.rows.clear();
        clients.iter().for_each(|&client| self.pings.prefetch(client));
        let mut last = ([NULL_CODE; 3], None);
        for row in selected.ones(0, batch.rows) {
            let (from, to) = (if row == 0 { 0 } else { end(row - 1) }, end(row));
            if from == to {
                continue;
            }
            let codes = kind_columns.map(|column| column[row]);
            let kind = match last {
                (same, Some(kind)) if same == codes => kind,
                _ => *self.kinds.entry(codes).or_insert_with(|| {
                    self.kind_codes.push(codes);
                    self.kind_codes.len() as u32 - 1
                }),
            };
            last = (codes, Some(kind));
            let date = dated.get(row).then(|| created[row]);
            let ping = self.pings.number(clients[row], (kind, date))?;
            self.rows.push(PingRow { ping, from, to });
        }
        self.elements.resize(self.pings.len());
        Ok(())
    }

    fn consume_batch(&mut self, batch: &Batch, selected: &Bits) -> Result<(), DatasetError> {
        self.most_elements = self.most_elements.max(batch.elements());
        self.number_pings(batch, selected)?;
        self.rows.iter().for_each(|row| self.elements.prefetch(row.ping));
        let packed = self.packer.pack(batch, &mut self.strings)?;
        for (at, row) in self.rows.iter().enumerate() {
            if let Some(next) = self.rows.get(at + AHEAD) {
                self.elements.prefetch_elements(next.ping);
            }
            self.elements.insert(row.ping, &packed[row.from as usize..row.to as usize], |_| ());
        }
        Ok(())
    }

    /// The distinct elements of all pings, and how many there are before each ping and in total.
    fn items(&self) -> Result<(Vec<u32>, Vec<u64>), DatasetError> {
        let total = self.elements.len();
        i32::try_from(total).map_err(|_| DatasetError::TooLarge(total))?;
        let pings = self.pings.len() as u32;
        let first = |ping| std::iter::repeat_n(ping, self.elements.first(ping).len());
        let more = self.elements.more().map(|(ping, _)| ping);
        let ends = bucket_offsets(pings, (0..pings).flat_map(first).chain(more));
        let (mut items, mut next) = (vec![0; total], ends.clone());
        for ping in 0..pings {
            let (first, at) = (self.elements.first(ping), &mut next[ping as usize]);
            items[*at as usize..][..first.len()].copy_from_slice(first);
            *at += first.len() as u32;
        }
        for (ping, element) in self.elements.more() {
            let at = &mut next[ping as usize];
            items[*at as usize] = element as u64;
            *at += 1;
        }
        Ok((ends, items))
    }

    /// The columns that are not lists, of rows of these pings.
    fn columns(&self, pings: &[u32]) -> Vec<ArrayRef> {
        let clients: Vec<Key> = self.clients.iter().collect();
        let is_wide = |width, bit| if width == Some(Width::W64) { bit } else { 0 };
        let widths = is_wide(self.dates, state::WIDE_DATES) | is_wide(self.packer.days(), state::WIDE_DAYS);
        let (mut ids, mut states) = (KeyColumn::new(pings.len()), Vec::with_capacity(pings.len()));
        let mut kinds = [(); 3].map(|()| Vec::with_capacity(pings.len()));
        let mut dates = Vec::with_capacity(pings.len());
        for (row, &ping) in pings.iter().enumerate() {
            let (client, (kind, date)) = self.pings.all()[ping as usize];
            let client = match clients.get(client as usize).map(|&key| ids.set(row, key)) {
                None => state::NULL_CLIENT,
                Some(true) => state::CODED,
                Some(false) => 0,
            };
            let dated = if date.is_some() { state::DATED } else { 0 };
            states.push(client | dated | widths);
            kinds.iter_mut().zip(self.kind_codes[kind as usize]).for_each(|(column, code)| column.push(code));
            dates.push(date.unwrap_or(0));
        }
        let mut columns: Vec<ArrayRef> = vec![ids.finish(), Arc::new(UInt8Array::from(states))];
        columns.extend(kinds.map(|codes| -> ArrayRef { Arc::new(UInt32Array::from(codes)) }));
        columns.push(Arc::new(Int64Array::from(dates)));
        columns
    }

    fn clear(&mut self) {
        self.clients.clear();
        self.kinds.clear();
        self.kind_codes.clear();
        self.pings.clear();
        self.elements.clear();
        self.packer.clear();
        self.dates = None;
    }
}

/// The first two code points.
fn cut_version(version: &str) -> &str {
    version.char_indices().nth(2).map_or(version, |(end, _)| &version[..end])
}

/// The ping of each row, and the items before each row and in total: pings with many items have several rows.
fn cut_rows(ends: &[u32], max: u32) -> (Vec<u32>, Vec<i32>) {
    let (mut pings, mut starts) = (Vec::with_capacity(ends.len()), Vec::with_capacity(ends.len()));
    for (ping, ends) in (0..).zip(ends.windows(2)) {
        for start in (ends[0]..ends[1]).step_by(max as usize) {
            pings.push(ping);
            starts.push(start as i32);
        }
    }
    starts.push(ends.last().map_or(0, |&end| end as i32));
    (pings, starts)
}

impl Mapper for PingsMapper {
    fn select(&self, _: &Batch, _: &mut Bits) {}

    fn resolve(&mut self, column: usize, values: &[&[u8]], codes: &mut [u32]) -> Result<(), DatasetError> {
        match column {
            CLIENT => {
                resolve_keys(&mut self.clients, &mut self.strings, values, codes)?;
                self.pings.resize(self.clients.len());
            }
            ADDON => self.packer.resolve(&mut self.strings, values, codes)?,
            column => {
                for (value, code) in values.iter().zip(codes) {
                    let text = utf8(value)?;
                    let text = if column == VERSION { cut_version(text) } else { text };
                    *code = self.strings.intern(text.as_bytes())?;
                }
            }
        }
        Ok(())
    }

    fn consume(&mut self, batch: &Batch, selected: &Bits) {
        if self.failed.is_none() {
            self.failed = self.consume_batch(batch, selected).err();
        }
    }

    fn footprint(&self) -> usize {
        let is_full = self.strings.len() >= FULL_STRINGS || self.elements.len() >= FULL_ELEMENTS;
        if is_full || self.failed.is_some() {
            return usize::MAX;
        }
        // A flush builds the run while the tables are still held: keys, columns, places, items.
        let run =
            self.clients.len() * 32 + self.pings.len() * (16 + 1 + 12 + 8 + 16) + self.elements.len() * 8;
        self.clients.footprint(BATCH_ROWS)
            + self.pings.footprint(BATCH_ROWS)
            + self.elements.footprint(BATCH_ROWS, self.most_elements)
            + self.packer.footprint(self.most_elements)
            + 2 * (self.strings.memory() + self.kinds.allocation_size() + self.kind_codes.capacity() * 12)
            + run
    }

    fn is_empty(&self) -> bool {
        self.pings.len() == 0 && self.failed.is_none()
    }

    fn flush(&mut self) -> Result<MapRun, DatasetError> {
        if let Some(failed) = self.failed.take() {
            self.clear();
            self.strings = Interner::default();
            return Err(failed);
        }
        let (ends, items) = self.items()?;
        let (pings, starts) = cut_rows(&ends, MAX_ITEMS);
        let mut columns = self.columns(&pings);
        let list = ListArray::try_new(
            Arc::new(Field::new("item", DataType::UInt64, false)),
            OffsetBuffer::new(ScalarBuffer::from(starts)),
            Arc::new(UInt64Array::from(items)),
            None,
        );
        columns.push(Arc::new(list.map_err(|e| malformed(e.to_string()))?));
        let batch = RecordBatch::try_new(ping_schema::partial(), columns);
        let batch = batch.map_err(|e| malformed(e.to_string()))?;
        let rows = batch.num_rows() as u32;
        let offsets = (0..=self.partitions).map(|at| if at > self.folder { rows } else { 0 }).collect();
        self.clear();
        Ok(MapRun { batch, offsets, dictionary: self.strings.take()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_cut_by_code_points() {
        let cases = [
            ("57.0.1", "57"),
            ("100.0", "10"),
            ("5", "5"),
            ("", ""),
            ("ä5.0", "ä5"),
            ("e\u{301}1", "e\u{301}"),
        ];
        cases.iter().for_each(|(version, expect)| assert_eq!(cut_version(version), *expect));
    }

    #[test]
    fn pings_of_many_items_have_several_rows() {
        let (pings, starts) = cut_rows(&[0, 3, 4, 11, 15], 3);
        assert_eq!(pings, [0, 1, 2, 2, 2, 3, 3]);
        assert_eq!(starts, [0, 3, 4, 7, 10, 11, 14, 15]);
        assert_eq!(cut_rows(&[0], 3), (vec![], vec![0]));
    }
}
