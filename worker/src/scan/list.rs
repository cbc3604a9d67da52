//! Reader of the least value of each row's list, whatever layout the list has.
//!
//! Entries are decoded some thousand at a time; rows may begin in one page and go on in the next.

use parquet::data_type::Int32Type;
use parquet::schema::types::ColumnDescPtr;
use tally_dataset::Bits;

use super::columns::set_int_page;
use super::error::Fault;
use super::hybrid::Hybrid;
use super::page::{Page, Pages};
use super::values::IntValues;

/// Entries of a list column decoded at a time.
const ENTRIES: usize = 4096;

/// The rows of a batch being filled.
struct Rows<'a> {
    present: &'a mut Bits,
    valid: &'a mut Bits,
    value: &'a mut Vec<i32>,
}

/// Reader of the least value of each row's list of 32-bit integers.
pub(crate) struct ListMinReader {
    pages: Pages,
    values: IntValues<Int32Type>,
    rep: Option<Hybrid>,
    def: Option<Hybrid>,
    max_def: u32,
    /// The definition level from which on the list has an element.
    element_def: u32,
    /// Entries of the page not decoded yet.
    left: usize,
    /// The decoded entries, and how far they are used.
    starts: Bits,
    defs: Vec<u32>,
    ints: Vec<i32>,
    all_valid: bool,
    at: usize,
    int_at: usize,
}

impl ListMinReader {
    pub(crate) fn new(pages: Pages, descriptor: ColumnDescPtr, element_def: i16) -> Self {
        ListMinReader {
            pages,
            max_def: descriptor.max_def_level() as u32,
            element_def: element_def as u32,
            values: IntValues::new(descriptor),
            rep: None,
            def: None,
            left: 0,
            starts: Bits::default(),
            defs: vec![],
            ints: vec![],
            all_valid: true,
            at: 0,
            int_at: 0,
        }
    }

    /// Decodes more entries; whether there were any.
    fn decode(&mut self) -> Result<bool, Fault> {
        while self.left == 0 {
            match self.pages.next()? {
                None => return Ok(false),
                Some(Page::Data(mut page)) => {
                    self.left = page.values;
                    (self.rep, self.def) = (page.rep.take(), page.def.take());
                    set_int_page(&mut self.values, &mut self.pages, Page::Data(page))?;
                }
                Some(dictionary) => set_int_page(&mut self.values, &mut self.pages, dictionary)?,
            }
        }
        let count = self.left.min(ENTRIES);
        self.left -= count;
        let data = self.pages.data();
        self.starts.clear();
        match &mut self.rep {
            Some(rep) => rep.read_equal(data, count, 0, &mut self.starts)?,
            None => self.starts.push_run(true, count),
        }
        self.defs.clear();
        match &mut self.def {
            Some(def) => def.read(data, count, &mut self.defs)?,
            None => self.defs.resize(count, self.max_def),
        }
        let there = self.defs.iter().filter(|&&def| def == self.max_def).count();
        self.all_valid = there == count;
        self.ints.clear();
        self.values.read(data, there, &mut self.ints)?;
        (self.at, self.int_at) = (0, 0);
        Ok(true)
    }

    /// The least value of each of the next `rows` rows, whether there is one, and whether the list
    /// has any element.
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
        // Rows begun; the last of them may go on in the next entries, even on the next page.
        let mut begun = 0;
        loop {
            if self.at == self.starts.len() && !self.decode()? {
                break;
            }
            let end = self.end_of(rows - begun);
            if end == self.at {
                break;
            }
            if begun == 0 && !self.starts.get(self.at) {
                return Fault::corrupt("a list that goes on before its row began");
            }
            begun = if self.all_valid {
                self.take_values(end, begun, &mut out)
            } else {
                self.take_mixed(end, begun, &mut out)
            };
            if end < self.starts.len() {
                break;
            }
        }
        if begun < rows {
            return Fault::corrupt("it has fewer rows than its row group");
        }
        Ok(())
    }

    /// The entry before which `rows` more rows have begun and the next would begin.
    fn end_of(&self, rows: usize) -> usize {
        let starts = self.starts.len();
        if self.starts.count_range(self.at, starts) <= rows {
            return starts;
        }
        self.starts.ones(self.at, starts).nth(rows).unwrap_or(starts)
    }

    /// Entries that all have values.
    fn take_values(&mut self, end: usize, mut begun: usize, out: &mut Rows<'_>) -> usize {
        let ints = &self.ints[self.int_at..self.int_at + (end - self.at)];
        self.int_at += ints.len();
        let mut from = self.at;
        // A row that goes on may have had nulls alone so far.
        let known = begun > 0 && out.valid.get(begun - 1);
        let mut least = if known { out.value[begun - 1] } else { i32::MAX };
        while from < end {
            let count = (end - from).min(64);
            let starts = self.starts.word_at(from, count);
            for (bit, &int) in ints[from - self.at..][..count].iter().enumerate() {
                let start = starts >> bit & 1 == 1;
                begun += usize::from(start);
                least = if start { int } else { least.min(int) };
                out.value[begun - 1] = least;
            }
            from += count;
        }
        // Rows touched: the one that went on, and those begun.
        let first = begun - self.starts.count_range(self.at, end);
        let first = if self.starts.get(self.at) { first } else { first.saturating_sub(1) };
        for row in first..begun {
            out.present.set(row);
            out.valid.set(row);
        }
        self.at = end;
        begun
    }

    /// Entries some of which are null, or stand for no element at all.
    fn take_mixed(&mut self, end: usize, mut begun: usize, out: &mut Rows<'_>) -> usize {
        for at in self.at..end {
            begun += usize::from(self.starts.get(at));
            let row = begun - 1;
            let def = self.defs[at];
            if def >= self.element_def {
                out.present.set(row);
            }
            if def == self.max_def {
                let int = self.ints[self.int_at];
                self.int_at += 1;
                out.value[row] = if out.valid.get(row) { out.value[row].min(int) } else { int };
                out.valid.set(row);
            }
        }
        self.at = end;
        begun
    }
}
