//! Building blocks of blocks of rows: named columns, dictionaries, lists of structs. Not here: which columns a table has
//! (`block`, `samples::ping_block`).

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, DictionaryArray, Int32Array, ListArray, RecordBatch, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, Field, Fields, Schema};

/// A block is full when one of its tables, or its elements, have this many rows. A ping is not divided, so a block may have
/// one ping more.
pub(crate) const BLOCK_ROWS: usize = 1 << 16;

/// Columns with their names, in the file's order.
pub(crate) type Columns = Vec<(&'static str, ArrayRef)>;

/// The text of a UUID, which is ASCII.
pub(crate) fn ascii(id: &[u8]) -> &str {
    std::str::from_utf8(id).unwrap_or_default()
}

/// A column of the values with these codes.
pub(crate) fn dictionary(codes: Int32Array, values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(codes, values.clone())?))
}

/// The remainders of codes.
pub(crate) fn modulo(codes: &[i32], by: i32) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(codes.iter().map(|code| code % by)))
}

/// The columns of the day: all, or if it is narrow the ones with these names.
pub(crate) fn keep(mut columns: Columns, narrow: Option<&[&str]>) -> Columns {
    if let Some(names) = narrow {
        columns.retain(|(name, _)| names.contains(name));
    }
    columns
}

/// Splits columns into nullable fields and arrays.
pub(crate) fn fields(columns: Columns) -> (Fields, Vec<ArrayRef>) {
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    (columns.iter().map(field).collect(), columns.into_iter().map(|(_, array)| array).collect())
}

/// A column of lists with these lengths, whose elements are structs of these columns.
pub(crate) fn lists(
    elements: Columns,
    lengths: Vec<usize>,
    valid: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    let (fields, elements) = fields(elements);
    let elements = StructArray::try_new(fields, elements, None)?;
    let element = Arc::new(Field::new("element", elements.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(element, offsets, Arc::new(elements), valid)?))
}

/// The rows of these columns.
pub(crate) fn batch(columns: Columns) -> Result<RecordBatch, ArrowError> {
    let (fields, arrays) = fields(columns);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}
