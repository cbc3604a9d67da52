//! Reader of the smallest value of each row's list, for all list layouts.
//!
//! Some thousand entries are decoded at a time. A row may begin in one page and continue in the next. Not here: lists whose
//! elements are delivered (`lists`).

use parquet::schema::types::ColumnDescPtr;
use tally_dataset::Bits;

use crate::columns::set_int_page;
use crate::entries::{ENTRIES, ElementLevels, Entries};
use crate::error::Fault;
use crate::hybrid::Hybrid;
use crate::page::{Page, Pages};
use crate::values::IntValues;

/// The rows of the current batch.
struct Rows<'a> {
    present: &'a mut Bits,
    valid: &'a mut Bits,
    value: &'a mut Vec<i32>,
}

/// Reader of the smallest value of each row's list of 32-bit integers.
pub(crate) struct ListMinReader {
    pages: Pages,
    values: IntValues<i32>,
    rep: Option<Hybrid>,
    def: Option<Hybrid>,
    levels: ElementLevels,
    /// Entries of the page that are not decoded yet.
    left: usize,
    entries: Entries,
    /// The values of the decoded entries, and the position in them.
    ints: Vec<i32>,
    int_at: usize,
}

impl ListMinReader {
    pub(crate) fn new(pages: Pages, descriptor: ColumnDescPtr, element_def: i16) -> Self {
        let (element, value) = (element_def as u32, descriptor.max_def_level() as u32);
        ListMinReader {
            pages,
            values: IntValues::default(),
            rep: None,
            def: None,
            levels: ElementLevels { element, value, nested: false },
            left: 0,
            entries: Entries::default(),
            ints: vec![],
            int_at: 0,
        }
    }

    /// Decodes more entries. Returns whether there are any.
    fn decode(&mut self) -> Result<bool, Fault> {
        while self.left == 0 {
            match self.pages.next()? {
                None => return Ok(false),
                Some(Page::Data(mut page)) => {
                    self.left = page.values;
                    (self.rep, self.def) = (page.rep.take(), page.def.take());
                    set_int_page(&mut self.values, &self.pages, Page::Data(page))?;
                }
                Some(dictionary) => set_int_page(&mut self.values, &self.pages, dictionary)?,
            }
        }
        let count = self.left.min(ENTRIES);
        self.left -= count;
        let data = self.pages.data();
        self.entries.decode(data, &mut self.rep, &mut self.def, count, self.levels)?;
        self.ints.clear();
        self.values.read(data, self.entries.values.count(), &mut self.ints)?;
        self.int_at = 0;
        Ok(true)
    }

    /// The smallest value of each of the next `rows` rows, whether there is one, and whether the list has any element.
    pub(crate) fn read(
        &mut self,
        rows: usize,
        present: &mut Bits,
        valid: &mut Bits,
        value: &mut Vec<i32>,
    ) -> Result<(), Fault> {
        for bits in [&mut *present, &mut *valid] {
            bits.clear();
            bits.push_run(false, rows);
        }
        value.clear();
        value.resize(rows, 0);
        let mut out = Rows { present, valid, value };
        // Started rows. The last of them may continue in the next entries, even on the next page.
        let mut begun = 0;
        loop {
            if self.entries.is_empty() && !self.decode()? {
                break;
            }
            let end = self.entries.end_of(rows - begun);
            if end == self.entries.at {
                break;
            }
            if begun == 0 && !self.entries.starts.get(self.entries.at) {
                return Fault::corrupt("a list that continues before its row begins");
            }
            begun = self.take(end, begun, &mut out);
            if end < self.entries.starts.len() {
                break;
            }
        }
        if begun < rows {
            return Fault::corrupt("it has fewer rows than its row group");
        }
        Ok(())
    }

    /// Checks that no rows are left.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        match self.entries.is_empty() && !self.decode()? {
            true => Ok(()),
            false => Fault::corrupt("it has more rows than its row group"),
        }
    }

    /// Takes the entries up to `end`, for whose rows there is room. Returns the number of started rows.
    fn take(&mut self, end: usize, mut begun: usize, out: &mut Rows<'_>) -> usize {
        while self.entries.at < end {
            let at = self.entries.at;
            let count = (end - at).min(64);
            let whole = self.entries.values.word_at(at, count).count_ones() as usize == count;
            begun =
                if whole { self.take_values(count, begun, out) } else { self.take_mixed(count, begun, out) };
            self.entries.at += count;
        }
        begun
    }

    /// Takes the next `count` (at most 64) entries, which all have values.
    fn take_values(&mut self, count: usize, begun: usize, out: &mut Rows<'_>) -> usize {
        let ints = &self.ints[self.int_at..][..count];
        self.int_at += count;
        let starts = self.entries.starts.word_at(self.entries.at, count);
        // The continued row, if there is one. It may have had only nulls so far.
        let first = if starts & 1 == 1 { begun } else { begun - 1 };
        let known = first < begun && out.valid.get(first);
        let mut least = if known { out.value[first] } else { i32::MAX };
        let value = &mut out.value[first..];
        let mut row = 0;
        for (bit, &int) in ints.iter().enumerate() {
            // The first entry belongs to the row at 0, whether it starts or continues the row.
            let start = starts >> bit & u64::from(bit > 0) == 1;
            row += usize::from(start);
            least = if start { int } else { least.min(int) };
            value[row] = least;
        }
        let begun = first + row + 1;
        out.present.set_range(first, begun);
        out.valid.set_range(first, begun);
        begun
    }

    /// Takes the next `count` entries, some of which are null or are not elements.
    fn take_mixed(&mut self, count: usize, mut begun: usize, out: &mut Rows<'_>) -> usize {
        for at in self.entries.at..self.entries.at + count {
            begun += usize::from(self.entries.starts.get(at));
            let row = begun - 1;
            if self.entries.elements.get(at) {
                out.present.set(row);
            }
            if self.entries.values.get(at) {
                let int = self.ints[self.int_at];
                self.int_at += 1;
                out.value[row] = if out.valid.get(row) { out.value[row].min(int) } else { int };
                out.valid.set(row);
            }
        }
        begun
    }
}
