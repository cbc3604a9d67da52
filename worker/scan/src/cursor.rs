//! The position in a column chunk: walks over its pages, and converts levels to the validity of rows, or of the elements
//! of lists.
//!
//! Not here: the values (`columns`, `text`).

use parquet::schema::types::ColumnDescPtr;
use tally_dataset::Bits;

use crate::entries::{ENTRIES, ElementLevels, Entries};
use crate::error::Fault;
use crate::hybrid::Hybrid;
use crate::lists::Lists;
use crate::page::{Page, Pages};

/// The values that are still wanted.
pub(crate) enum Wanted<'a> {
    /// Those of so many entries. An entry is a row, or an element of a list, or a list without elements.
    Entries(usize),
    /// All elements of the rows of a batch.
    Lists(&'a mut Lists),
}

/// What comes next in a chunk.
pub(crate) enum Step {
    /// A page. Its values follow.
    Page(Page),
    /// Values, of which so many are not null.
    Values(usize),
    /// Nothing more is wanted.
    End,
}

/// The position in a column chunk.
pub(crate) struct Cursor {
    pub(crate) pages: Pages,
    /// Entries of the page whose levels are not decoded yet.
    left: usize,
    rep: Option<Hybrid>,
    def: Option<Hybrid>,
    max_def: u32,
    /// For a field of the elements of lists.
    levels: Option<ElementLevels>,
    entries: Entries,
}

impl Cursor {
    /// A position in a column without repetition.
    pub(crate) fn rows(pages: Pages, descriptor: &ColumnDescPtr) -> Self {
        Cursor {
            pages,
            left: 0,
            rep: None,
            def: None,
            max_def: descriptor.max_def_level() as u32,
            levels: None,
            entries: Entries::default(),
        }
    }

    /// A position in a field of the elements of lists, which are elements from a definition level on.
    pub(crate) fn elements(pages: Pages, descriptor: &ColumnDescPtr, element_def: i16) -> Self {
        let value = descriptor.max_def_level() as u32;
        let nested = descriptor.max_rep_level() > 1;
        let levels = ElementLevels { element: element_def as u32, value, nested };
        Cursor { levels: Some(levels), ..Cursor::rows(pages, descriptor) }
    }

    /// The next step. The validity of values is appended to `valid`.
    #[inline]
    pub(crate) fn next(&mut self, wanted: &mut Wanted<'_>, valid: &mut Bits) -> Result<Step, Fault> {
        match wanted {
            Wanted::Entries(0) => Ok(Step::End),
            Wanted::Entries(_) if self.left == 0 => match self.page()? {
                Some(page) => Ok(Step::Page(page)),
                None => Fault::corrupt("it has fewer rows than its row group"),
            },
            Wanted::Entries(wanted) => {
                let count = self.left.min(*wanted).min(ENTRIES);
                *wanted -= count;
                self.left -= count;
                self.validity(count, valid).map(Step::Values)
            }
            Wanted::Lists(lists) => self.next_of_lists(lists, valid),
        }
    }

    fn page(&mut self) -> Result<Option<Page>, Fault> {
        let mut page = self.pages.next()?;
        if let Some(Page::Data(page)) = &mut page {
            self.left = page.values;
            (self.rep, self.def) = (page.rep.take(), page.def.take());
        }
        Ok(page)
    }

    /// Appends the validity of the next `count` entries of the page. Returns how many of them have a value.
    fn validity(&mut self, count: usize, valid: &mut Bits) -> Result<usize, Fault> {
        let Some(def) = &mut self.def else {
            valid.push_run(true, count);
            return Ok(count);
        };
        let data = self.pages.data();
        if let Some(levels) = self.levels {
            return levels.validity(data, def, count, &mut self.entries, valid);
        }
        let (max, from) = (self.max_def, valid.len());
        def.read_test(data, count, |def| def == max, valid)?;
        Ok(valid.count_range(from, from + count))
    }

    fn next_of_lists(&mut self, lists: &mut Lists, valid: &mut Bits) -> Result<Step, Fault> {
        if self.entries.is_empty() {
            if self.left == 0 {
                // The last row ends with the chunk.
                return Ok(self.page()?.map_or(Step::End, Step::Page));
            }
            let Some(levels) = self.levels else { return Fault::corrupt("it is not in a list") };
            let count = self.left.min(ENTRIES);
            self.left -= count;
            let data = self.pages.data();
            self.entries.decode(data, &mut self.rep, &mut self.def, count, levels)?;
        }
        let (from, to) = lists.take(&mut self.entries, &self.pages)?;
        if from == to {
            return Ok(Step::End);
        }
        let Entries { elements, values, .. } = &self.entries;
        let there = values.count_range(from, to);
        let mut at = from;
        while at < to {
            let count = (to - at).min(64);
            valid.push_kept(values.word_at(at, count), elements.word_at(at, count), count);
            at += count;
        }
        Ok(Step::Values(there))
    }

    /// Reads the lists of a batch from the levels alone.
    pub(crate) fn count(&mut self, lists: &mut Lists) -> Result<(), Fault> {
        let mut unneeded = Bits::default();
        while !matches!(self.next_of_lists(lists, &mut unneeded)?, Step::End) {
            unneeded.clear();
        }
        Ok(())
    }
}
