//! The declaration of a dataset's inputs and output: tables, columns, totals, encodings.
//!
//! Not here: how rows are computed ([`crate::Dataset`]).

use arrow_schema::DataType;
pub use arrow_schema::FieldRef;

/// The name of the type of an output column, as documents have it.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "long".into(),
        DataType::Utf8 => "string".into(),
        other => other.to_string(),
    }
}

/// What a needed column holds, and so how the scan delivers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// Booleans, as two bitmaps.
    Bool,
    /// Signed integers of 64 bits.
    Int64,
    /// Strings, each delivered as the dictionary code that [`crate::Mapper::resolve`] gave for it.
    Text,
    /// A 32-bit integer inside the elements of a list: delivered as the minimum of each row's list.
    ListMinInt32,
    /// Signed integers of 32 or of 64 bits. All files of a day have the same width, which is delivered with the values.
    Int,
    /// A field of the elements of a list: delivered element by element. All such columns of a table are fields of the
    /// same list; [`crate::Batch::ends`] tells which elements are whose.
    Element(ElementKind),
}

/// What a field of a list's elements holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementKind {
    /// As [`ColumnKind::Bool`].
    Bool,
    /// As [`ColumnKind::Int`].
    Int,
    /// As [`ColumnKind::Text`].
    Text,
}

/// What a column means that no file of the day has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The job fails.
    Fails,
    /// The column counts as null, with a warning.
    IsNull,
}

/// One needed leaf of an input table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Field names from the root. The list levels between them, whatever their layout, are not
    /// named.
    pub path: &'static [&'static str],
    /// How it is delivered.
    pub kind: ColumnKind,
    /// Whether the selection needs it: such columns are decoded first, for all rows; the others
    /// only for the selected rows.
    pub filter: bool,
    /// What its absence from every file of the day means.
    pub missing: Missing,
}

/// One input table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// The table's name, in messages and in options.
    pub name: &'static str,
    /// The `--help` text of the option for its root.
    pub help: &'static str,
    /// The columns that are read, in the order of [`crate::Batch::columns`].
    pub columns: Vec<ColumnSpec>,
}

/// A second partition column: inputs and output have folders `COLUMN=N` below the folder of the day. Folders are independent: no
/// output row depends on the rows of two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FolderSpec {
    /// The name of the column.
    pub column: &'static str,
    /// Its values are `0 .. count`; files below other values are ignored. Each value is a partition of the shuffle, and has a
    /// part file even if it has no row.
    pub count: u32,
}

/// Locations of a dataset under one name, so that they need not be given one by one. No location is a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// URLs of the roots of the tables, in the dataset's order.
    pub inputs: &'static [&'static str],
    /// The bucket of the output, unless the environment has another one.
    pub bucket: &'static str,
    /// The folder of the output in that bucket.
    pub output: &'static str,
}

/// A named counter of a job. Its value is the sum of the counters of all partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TotalSpec {
    /// The name in the summary; part files have it in their footer, with the prefix `tally.`. Summary fields
    /// (`rows`, `files`, ...) cannot be names.
    pub name: &'static str,
}

/// How an output column is encoded. Readers see the same values with either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnEncoding {
    /// By the Parquet crate: with a dictionary while that is small.
    Dictionary,
    /// For string columns whose values hardly repeat, except in successive rows: plain values, in which only repetitions
    /// of the value before are compressed.
    PlainRuns,
}
