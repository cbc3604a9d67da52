//! The levels of a stretch of entries of a list column: where rows start, which entries are elements, and which of these
//! have a value.
//!
//! A row may begin in one page and continue in the next. Not here: what is made of the entries (`list`, `lists`).

use tally_dataset::Bits;

use crate::error::Fault;
use crate::hybrid::Hybrid;

/// Entries that are decoded at a time.
pub(crate) const ENTRIES: usize = 4096;

/// The levels that tell elements and values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ElementLevels {
    /// The lowest definition level at which the list has an element.
    pub(crate) element: u32,
    /// The definition level of a value.
    pub(crate) value: u32,
    /// Whether an element may have several entries, because the leaf is in a list within the list.
    pub(crate) nested: bool,
}

impl ElementLevels {
    /// Appends whether each of the next elements has a value. Entries that are not elements have no bit. Returns the
    /// number of values.
    pub(crate) fn validity(
        self,
        data: &[u8],
        def: &mut Hybrid,
        count: usize,
        scratch: &mut Entries,
        valid: &mut Bits,
    ) -> Result<usize, Fault> {
        scratch.clear();
        scratch.set_definition(data, def, count, self)?;
        let values = scratch.values.count();
        match values == count {
            true => valid.push_run(true, count),
            false => valid.push_where(&scratch.values, 0, &scratch.elements),
        }
        Ok(values)
    }
}

/// Decoded entries, and the position in them.
#[derive(Default)]
pub(crate) struct Entries {
    /// Entries that are the first of their row.
    pub(crate) starts: Bits,
    pub(crate) elements: Bits,
    pub(crate) values: Bits,
    pub(crate) at: usize,
}

impl Entries {
    /// Whether all entries are taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.starts.len()
    }

    fn clear(&mut self) {
        for bits in [&mut self.starts, &mut self.elements, &mut self.values] {
            bits.clear();
        }
        self.at = 0;
    }

    /// Decodes the next `count` entries of a page.
    pub(crate) fn decode(
        &mut self,
        data: &[u8],
        rep: &mut Option<Hybrid>,
        def: &mut Option<Hybrid>,
        count: usize,
        levels: ElementLevels,
    ) -> Result<(), Fault> {
        self.clear();
        match def {
            Some(def) => self.set_definition(data, def, count, levels)?,
            None => {
                self.elements.push_run(true, count);
                self.values.push_run(true, count);
            }
        }
        let Some(rep) = rep else {
            self.starts.push_run(true, count);
            return Ok(());
        };
        if levels.nested {
            let mut firsts = Bits::default();
            rep.clone().read_test(data, count, |rep| rep <= 1, &mut firsts)?;
            let pairs = self.elements.words_mut().iter_mut().zip(firsts.words());
            pairs.for_each(|(elements, firsts)| *elements &= firsts);
        }
        rep.read_test(data, count, |rep| rep == 0, &mut self.starts)
    }

    fn set_definition(
        &mut self,
        data: &[u8],
        def: &mut Hybrid,
        count: usize,
        levels: ElementLevels,
    ) -> Result<(), Fault> {
        let ElementLevels { element, value, .. } = levels;
        let mut start = def.clone();
        def.read_test(data, count, |def| def == value, &mut self.values)?;
        match self.values.count() == count {
            // A value is in an element.
            true => self.elements.push_run(true, count),
            false => start.read_test(data, count, |def| def >= element, &mut self.elements)?,
        }
        Ok(())
    }

    /// The index of the entry after the next `rows` rows.
    pub(crate) fn end_of(&self, rows: usize) -> usize {
        let starts = self.starts.len();
        if self.starts.count_range(self.at, starts) <= rows {
            return starts;
        }
        self.starts.ones(self.at, starts).nth(rows).unwrap_or(starts)
    }
}
