//! Readers of columns without repetition, in batches of rows: common code, booleans and integers. A reader walks over
//! pages, converts levels to validity, and writes values at the positions of their rows. Not here: strings (`text`),
//! lists (`list`).

use parquet::schema::types::ColumnDescPtr;
use tally_dataset::Bits;

use crate::error::Fault;
use crate::fixed_ints::Int;
use crate::hybrid::Hybrid;
use crate::page::{DataPage, Page, Pages};
use crate::values::{BoolValues, IntValues};

/// A column without repetition: its pages, and the position in the current page.
pub(crate) struct Flat {
    pub(crate) pages: Pages,
    /// Rows of the page that are not read yet.
    pub(crate) left: usize,
    def: Option<Hybrid>,
    max_def: u32,
}

impl Flat {
    pub(crate) fn new(pages: Pages, descriptor: &ColumnDescPtr) -> Self {
        Flat { pages, left: 0, def: None, max_def: descriptor.max_def_level() as u32 }
    }

    /// Reads the next page. The caller needs it, so the end of the chunk is an error.
    pub(crate) fn next(&mut self) -> Result<Page, Fault> {
        let page = self.pages.next()?;
        match page {
            None => Fault::corrupt("it has fewer rows than its row group"),
            Some(Page::Data(mut page)) => {
                self.left = page.values;
                self.def = page.def.take();
                Ok(Page::Data(page))
            }
            Some(dictionary) => Ok(dictionary),
        }
    }

    /// Appends the validity of the next `rows` rows, which must be in the page. Returns how many of them are not null.
    pub(crate) fn validity(&mut self, rows: usize, valid: &mut Bits) -> Result<usize, Fault> {
        self.left -= rows;
        let from = valid.len();
        match &mut self.def {
            None => {
                valid.push_run(true, rows);
                Ok(rows)
            }
            Some(def) => {
                let max = self.max_def;
                def.read_test(self.pages.data(), rows, |def| def == max, valid)?;
                Ok(valid.count_range(from, from + rows))
            }
        }
    }
}

/// Reader of a boolean column.
pub(crate) struct BoolReader {
    flat: Flat,
    values: Option<BoolValues>,
    packed: Bits,
}

impl BoolReader {
    pub(crate) fn new(flat: Flat) -> Self {
        BoolReader { flat, values: None, packed: Bits::default() }
    }

    pub(crate) fn read(&mut self, rows: usize, valid: &mut Bits, value: &mut Bits) -> Result<(), Fault> {
        valid.clear();
        value.clear();
        while valid.len() < rows {
            if self.flat.left == 0 {
                match self.flat.next()? {
                    Page::Data(page) => {
                        self.values = Some(BoolValues::new(&self.flat.pages, page.encoding, &page.body)?);
                    }
                    Page::Dictionary { .. } => return Fault::corrupt("a dictionary of booleans"),
                }
                continue;
            }
            let from = valid.len();
            let take = self.flat.left.min(rows - from);
            let there = self.flat.validity(take, valid)?;
            let Some(values) = &mut self.values else { return Fault::corrupt("values before any page") };
            if there == take {
                values.read(self.flat.pages.data(), there, value)?;
            } else {
                self.packed.clear();
                values.read(self.flat.pages.data(), there, &mut self.packed)?;
                value.push_spread(&self.packed, valid, from, from + take);
            }
        }
        Ok(())
    }
}

/// Reader of a 64-bit integer column.
pub(crate) struct Int64Reader {
    flat: Flat,
    values: IntValues<i64>,
    packed: Vec<i64>,
}

impl Int64Reader {
    pub(crate) fn new(flat: Flat) -> Self {
        Int64Reader { flat, values: IntValues::default(), packed: vec![] }
    }

    pub(crate) fn read(&mut self, rows: usize, valid: &mut Bits, value: &mut Vec<i64>) -> Result<(), Fault> {
        valid.clear();
        value.clear();
        while valid.len() < rows {
            if self.flat.left == 0 {
                let page = self.flat.next()?;
                set_int_page(&mut self.values, &self.flat.pages, page)?;
                continue;
            }
            let from = valid.len();
            let take = self.flat.left.min(rows - from);
            let there = self.flat.validity(take, valid)?;
            if there == take {
                self.values.read(self.flat.pages.data(), there, value)?;
            } else {
                self.packed.clear();
                self.values.read(self.flat.pages.data(), there, &mut self.packed)?;
                value.resize(from + take, 0);
                for (row, &v) in valid.ones(from, from + take).zip(&self.packed) {
                    value[row] = v;
                }
            }
        }
        Ok(())
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
