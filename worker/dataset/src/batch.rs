//! The columns of a few thousand rows, as the scan delivers them to a mapper.
//!
//! Not here: how they are decoded (`tally-scan`).

use crate::ColumnKind;
use crate::bits::Bits;

/// Maximum number of rows in a batch. Small enough that a batch's columns stay in the first-level cache.
pub const BATCH_ROWS: usize = 4096;

/// The dictionary code of a null string.
pub const NULL_CODE: u32 = u32::MAX;

/// One column of a batch. Values of null rows are unspecified.
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
            ColumnKind::Bool => Column::Bool { valid: Bits::default(), value: Bits::default() },
            ColumnKind::Int64 => Column::Int64 { valid: Bits::default(), value: vec![] },
            ColumnKind::Text => Column::Text { codes: vec![] },
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
            Column::Int64 { valid, value } => {
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
