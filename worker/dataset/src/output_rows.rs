//! Building blocks for the rows of an output: columns that reducers fill, and columns of rows that are checked.
//!
//! Not here: which columns an output has, and the columns of partials (`partials`).

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use crate::keys::Key;
use crate::partials::malformed;
use crate::{DatasetError, ReduceError, RowSink, StringDictionary, Totals, uuid};

/// Approximate number of rows in a batch for the sink.
pub const SINK_ROWS: usize = 32 * 1024;
/// Approximate number of bytes of text in a batch for the sink.
pub const SINK_TEXT: usize = 4 << 20;

/// Passes rows to the sink and counts them.
///
/// # Errors
/// [`ReduceError::Sink`].
pub fn pass_rows(rows: RecordBatch, totals: &mut Totals, sink: &mut RowSink<'_>) -> Result<(), ReduceError> {
    totals.rows += rows.num_rows() as u64;
    sink(rows).map_err(ReduceError::Sink)
}

/// Appends a key as text.
#[inline]
pub fn append_key(key: Key, strings: &dyn StringDictionary, out: &mut Vec<u8>) {
    match key {
        Key::Uuid(id) => out.extend_from_slice(&uuid::format(id)),
        Key::Code(code) => strings.append(code, out),
    }
}

/// A column of the strings in `bytes` that end at `ends`.
///
/// # Errors
/// [`DatasetError::TooLarge`], or [`DatasetError::Malformed`] if a string is not UTF-8.
pub fn texts(bytes: Vec<u8>, ends: Vec<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef, DatasetError> {
    i32::try_from(bytes.len()).map_err(|_| DatasetError::TooLarge(ends.len()))?;
    let offsets = std::iter::once(0).chain(ends.into_iter().map(|end| end as i32));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets.collect::<Vec<i32>>()));
    let texts = StringArray::try_new(offsets, Buffer::from_vec(bytes), nulls);
    Ok(Arc::new(texts.map_err(|_| malformed("a text that is not UTF-8"))?))
}

/// The nulls of a column whose other values are valid; `None` without nulls.
pub fn nulls(valid: Vec<bool>) -> Option<NullBuffer> {
    Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0)
}

/// The column with that name and type, which may have nulls.
///
/// # Errors
/// [`DatasetError::Malformed`]: there is none.
pub fn named<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, DatasetError> {
    let found = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<T>());
    found.ok_or_else(|| malformed(format!("no column {name} of the right type")))
}
