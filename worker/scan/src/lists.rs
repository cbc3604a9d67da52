//! The lists of a batch of rows: how many elements each row has, counted from the levels of one leaf of the list.
//!
//! Not here: the values of the elements (`columns`, `text`), the smallest value of a list (`list`).

use tally_common::budget::Reservation;

use crate::entries::Entries;
use crate::error::Fault;
use crate::page::Pages;

/// No row begins in a batch that has so many elements. Few enough that the columns of a batch stay in the second-level
/// cache.
const BATCH_ELEMENTS: usize = 16 << 10;

/// The lists of a batch while they are read.
#[derive(Default)]
pub(crate) struct Lists {
    /// Rows that the batch may have.
    rows: usize,
    /// Rows that began. The last of them may continue in the next entries, even on the next page.
    begun: usize,
    /// Elements of the rows that began.
    elements: usize,
    /// Entries of these rows.
    entries: usize,
    /// The number of elements up to the end of each row, without the last row.
    ends: Vec<u32>,
    /// Bytes of an element in all columns of the batch, and the reservation for the elements of a long row.
    element_bytes: usize,
    held: Option<Reservation>,
    held_elements: usize,
}

impl Lists {
    /// Lists whose elements take at most that many bytes each in a batch.
    pub(crate) fn new(element_bytes: usize) -> Self {
        Lists { element_bytes, ..Lists::default() }
    }

    /// Starts a batch of at most `rows` rows, at least one. `ends` is reused.
    pub(crate) fn start(&mut self, rows: usize, mut ends: Vec<u32>) {
        ends.clear();
        let element_bytes = self.element_bytes;
        *self = Lists { rows, ends, element_bytes, ..Lists::default() };
    }

    /// Elements of the batch.
    pub(crate) fn elements(&self) -> usize {
        self.elements
    }

    /// Entries of the batch.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Whether the batch is so large that its memory is reserved.
    pub(crate) fn is_large(&self) -> bool {
        self.held.is_some()
    }

    /// Ends a batch. Returns the end of each row's elements.
    pub(crate) fn finish(&mut self) -> Result<Vec<u32>, Fault> {
        if self.begun == 0 {
            return Fault::corrupt("it has fewer rows than its row group");
        }
        self.ends.push(self.elements as u32);
        Ok(std::mem::take(&mut self.ends))
    }

    /// Takes the next entries that belong to the batch. Returns their range; it is empty if the batch ends before them.
    pub(crate) fn take(&mut self, entries: &mut Entries, pages: &Pages) -> Result<(usize, usize), Fault> {
        let room = if self.elements >= BATCH_ELEMENTS { 0 } else { self.rows - self.begun };
        let (from, to) = (entries.at, entries.end_of(room));
        if from == to {
            return Ok((from, to));
        }
        if self.begun == 0 && !entries.starts.get(from) {
            return Fault::corrupt("a list that continues before its row begins");
        }
        let all = entries.elements.count_range(from, to) == to - from;
        let mut last = from;
        for start in entries.starts.ones(from, to) {
            self.elements += if all { start - last } else { entries.elements.count_range(last, start) };
            last = start;
            if self.begun > 0 {
                self.ends.push(self.elements as u32);
            }
            self.begun += 1;
        }
        self.elements += if all { to - last } else { entries.elements.count_range(last, to) };
        self.entries += to - from;
        entries.at = to;
        self.reserve(pages)?;
        Ok((from, to))
    }

    /// Reserves memory for the elements of a long row.
    fn reserve(&mut self, pages: &Pages) -> Result<(), Fault> {
        if self.elements <= self.held_elements {
            return Ok(());
        }
        if u32::try_from(self.elements).is_err() {
            return Fault::corrupt("a row has more than 4,294,967,295 elements");
        }
        self.held = None;
        self.held_elements = self.elements.next_power_of_two();
        let bytes = self.held_elements.saturating_mul(self.element_bytes);
        self.held = pages.reserve(bytes, "the elements of a row")?;
        Ok(())
    }
}
