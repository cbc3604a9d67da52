//! Readers of booleans and integers, in batches of rows or of elements of lists. A reader walks over a column chunk
//! (`cursor`) and writes values at the positions of their rows or elements. Not here: strings (`text`), the smallest
//! value of a list (`list`).

use tally_dataset::Bits;

use crate::cursor::{Cursor, Step, Wanted};
use crate::error::Fault;
use crate::fixed_ints::Int;
use crate::page::{DataPage, Page, Pages};
use crate::spread::spread;
use crate::values::{BoolValues, IntValues};

/// Reader of a boolean column.
pub(crate) struct BoolReader {
    cursor: Cursor,
    values: Option<BoolValues>,
    packed: Bits,
}

impl BoolReader {
    pub(crate) fn new(cursor: Cursor) -> Self {
        BoolReader { cursor, values: None, packed: Bits::default() }
    }

    pub(crate) fn read(
        &mut self,
        mut wanted: Wanted<'_>,
        valid: &mut Bits,
        value: &mut Bits,
    ) -> Result<(), Fault> {
        valid.clear();
        value.clear();
        loop {
            let from = valid.len();
            let there = match self.cursor.next(&mut wanted, valid)? {
                Step::End => return Ok(()),
                Step::Page(Page::Data(page)) => {
                    self.values = Some(BoolValues::new(&self.cursor.pages, page.encoding, &page.body)?);
                    continue;
                }
                Step::Page(Page::Dictionary { .. }) => return Fault::corrupt("a dictionary of booleans"),
                Step::Values(there) => there,
            };
            let Some(values) = &mut self.values else { return Fault::corrupt("values before any page") };
            let data = self.cursor.pages.data();
            if from + there == valid.len() {
                values.read(data, there, value)?;
            } else {
                self.packed.clear();
                values.read(data, there, &mut self.packed)?;
                value.push_spread(&self.packed, valid, from, valid.len());
            }
        }
    }
}

/// Reader of an integer column. `T` is the format's INT32 or INT64.
pub(crate) struct IntReader<T> {
    cursor: Cursor,
    values: IntValues<T>,
    packed: Vec<T>,
}

impl<T: Int + Into<i64>> IntReader<T> {
    pub(crate) fn new(cursor: Cursor) -> Self {
        IntReader { cursor, values: IntValues::default(), packed: vec![] }
    }

    pub(crate) fn read(
        &mut self,
        mut wanted: Wanted<'_>,
        valid: &mut Bits,
        value: &mut Vec<i64>,
    ) -> Result<(), Fault> {
        valid.clear();
        value.clear();
        loop {
            let from = valid.len();
            let there = match self.cursor.next(&mut wanted, valid)? {
                Step::End => return Ok(()),
                Step::Page(page) => {
                    set_int_page(&mut self.values, &self.cursor.pages, page)?;
                    continue;
                }
                Step::Values(there) => there,
            };
            self.packed.clear();
            self.values.read(self.cursor.pages.data(), there, &mut self.packed)?;
            spread(&self.packed, valid, from, 0, value);
        }
    }
}

pub(crate) fn set_int_page<T: Int>(
    values: &mut IntValues<T>,
    pages: &Pages,
    page: Page,
) -> Result<(), Fault> {
    match page {
        Page::Dictionary { values: count } => values.set_dictionary(pages, count),
        Page::Data(DataPage { encoding, body, .. }) => values.set_page(pages, encoding, &body),
    }
}
