//! The columns of a few thousand rows, as the scan delivers them to a mapper.
//!
//! Not here: how they are decoded (`tally-scan`).

use crate::bits::Bits;
use crate::{ColumnKind, ElementKind};

/// Maximum number of rows in a batch. Small enough that a batch's columns stay in the first-level cache.
pub const BATCH_ROWS: usize = 4096;

/// The dictionary code of a null string.
pub const NULL_CODE: u32 = u32::MAX;

/// How wide the integers of a column are in the files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Width {
    /// 32 bits.
    W32,
    /// 64 bits.
    #[default]
    W64,
}

/// One column of a batch: a value per row, or per element for [`ColumnKind::Element`]. Values of null rows are unspecified.
#[derive(Debug, Clone)]
pub enum Column {
    /// Of [`ColumnKind::Bool`].
    Bool {
        /// Rows that are not null.
        valid: Bits,
        /// The values.
        value: Bits,
    },
    /// Of [`ColumnKind::Int64`].
    Int64 {
        /// Rows that are not null.
        valid: Bits,
        /// The values, one per row.
        value: Vec<i64>,
    },
    /// Of [`ColumnKind::Text`].
    Text {
        /// One dictionary code per row, [`NULL_CODE`] for null; unspecified where the row is not selected.
        codes: Vec<u32>,
    },
    /// Of [`ColumnKind::Int`].
    Int {
        /// Rows that are not null.
        valid: Bits,
        /// The values, one per row.
        value: Vec<i64>,
        /// How wide they are in the file.
        width: Width,
    },
    /// Of [`ColumnKind::ListMinInt32`].
    ListMin {
        /// Rows whose list has an element, null or not.
        present: Bits,
        /// Rows whose list has a non-null value.
        valid: Bits,
        /// The minimum of the non-null values of the row's list.
        value: Vec<i32>,
    },
}

impl Column {
    /// An empty column of a kind.
    pub fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Bool | ColumnKind::Element(ElementKind::Bool) => {
                Column::Bool { valid: Bits::default(), value: Bits::default() }
            }
            ColumnKind::Int64 => Column::Int64 { valid: Bits::default(), value: vec![] },
            ColumnKind::Int | ColumnKind::Element(ElementKind::Int) => {
                Column::Int { valid: Bits::default(), value: vec![], width: Width::default() }
            }
            ColumnKind::Text | ColumnKind::Element(ElementKind::Text) => Column::Text { codes: vec![] },
            ColumnKind::ListMinInt32 => {
                Column::ListMin { present: Bits::default(), valid: Bits::default(), value: vec![] }
            }
        }
    }

    /// Makes the column `rows` nulls, for a file without the column.
    pub fn fill_null(&mut self, rows: usize) {
        let nulls = |bits: &mut Bits| {
            bits.clear();
            bits.push_run(false, rows);
        };
        match self {
            Column::Bool { valid, value } => {
                nulls(valid);
                nulls(value);
            }
            Column::Int64 { valid, value } | Column::Int { valid, value, .. } => {
                nulls(valid);
                value.clear();
                value.resize(rows, 0);
            }
            Column::Text { codes } => {
                codes.clear();
                codes.resize(rows, NULL_CODE);
            }
            Column::ListMin { present, valid, value } => {
                nulls(present);
                nulls(valid);
                value.clear();
                value.resize(rows, 0);
            }
        }
    }
}

/// A batch of rows, its columns in the order of the table's specification.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Rows in each column.
    pub rows: usize,
    /// The columns.
    pub columns: Vec<Column>,
    /// The elements of row `r` are `ends[r - 1] .. ends[r]`, from 0 for the first row. A null list has none, and a null element is
    /// one whose fields are all null. Empty if the table has no [`ColumnKind::Element`].
    pub ends: Vec<u32>,
}

impl Batch {
    /// The two bitmaps of a boolean column (not null, value).
    ///
    /// # Panics
    /// If column `at` is of another kind: the specification is the dataset's own.
    pub fn bool(&self, at: usize) -> (&Bits, &Bits) {
        match &self.columns[at] {
            Column::Bool { valid, value } => (valid, value),
            other => wrong_kind(at, other),
        }
    }

    /// The bitmap and values of an integer column. Panics as [`Batch::bool`].
    pub fn int64(&self, at: usize) -> (&Bits, &[i64]) {
        match &self.columns[at] {
            Column::Int64 { valid, value } => (valid, value),
            other => wrong_kind(at, other),
        }
    }

    /// The bitmap, values and width of a column of [`ColumnKind::Int`] or of such elements. Panics as [`Batch::bool`].
    pub fn int(&self, at: usize) -> (&Bits, &[i64], Width) {
        match &self.columns[at] {
            Column::Int { valid, value, width } => (valid, value, *width),
            other => wrong_kind(at, other),
        }
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.ends.last().map_or(0, |&end| end as usize)
    }

    /// The dictionary codes of a text column. Panics as [`Batch::bool`].
    pub fn text(&self, at: usize) -> &[u32] {
        match &self.columns[at] {
            Column::Text { codes } => codes,
            other => wrong_kind(at, other),
        }
    }

    /// Present, valid and value of a list's minimum. Panics as [`Batch::bool`].
    pub fn list_min(&self, at: usize) -> (&Bits, &Bits, &[i32]) {
        match &self.columns[at] {
            Column::ListMin { present, valid, value } => (present, valid, value),
            other => wrong_kind(at, other),
        }
    }
}

fn wrong_kind(at: usize, column: &Column) -> ! {
    unreachable!("column {at} is not of the kind its specification says: {column:?}")
}
