//! Where a batch is cut so that each piece fits a message and a read of the disk.
//!
//! Not here: how pieces are encoded, kept or sent.

use arrow::array::{Array, BinaryArray, ListArray, RecordBatch};

/// Rows that a piece has at least, where its bytes allow.
pub const PIECE_ROWS: usize = 64 << 10;
/// Bytes that a piece has about.
const PIECE_BYTES: usize = 4 << 20;
/// Bytes that a piece has at most, unless it is a single row.
pub const MOST_PIECE_BYTES: usize = 8 << 20;

/// Bytes of the rows that an array refers to, however much lies behind it.
fn array_bytes(array: &dyn Array) -> usize {
    let any = array.as_any();
    let offsets = (array.len() + 1) * 4;
    if let Some(texts) = any.downcast_ref::<BinaryArray>() {
        let ends = texts.value_offsets();
        let bytes = ends.last().zip(ends.first()).map_or(0, |(last, first)| last - first);
        return offsets + bytes as usize;
    }
    if let Some(lists) = any.downcast_ref::<ListArray>() {
        let ends = lists.value_offsets();
        let items = ends.last().zip(ends.first()).map_or(0, |(last, first)| last - first) as usize;
        let width = lists.values().data_type().primitive_width();
        return offsets + width.map_or_else(|| lists.values().get_array_memory_size(), |width| items * width);
    }
    match array.data_type() {
        arrow::datatypes::DataType::FixedSizeBinary(width) => array.len() * *width as usize,
        other => {
            other.primitive_width().map_or_else(|| array.get_array_memory_size(), |width| array.len() * width)
        }
    }
}

/// Bytes of a batch's rows.
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| array_bytes(column)).sum()
}

/// The batch in pieces, in order: of at least [`PIECE_ROWS`] rows where there are that many, and
/// of at most [`MOST_PIECE_BYTES`] bytes. Nothing is copied; an empty batch has no piece.
pub fn pieces(batch: &RecordBatch) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    if rows == 0 {
        return vec![];
    }
    let wanted = batch_bytes(batch).div_ceil(PIECE_BYTES).max(1);
    let count = wanted.min(rows / PIECE_ROWS).max(1);
    let mut out = Vec::with_capacity(count);
    let length = rows.div_ceil(count);
    for start in (0..rows).step_by(length) {
        halve(batch.slice(start, length.min(rows - start)), &mut out);
    }
    out
}

fn halve(batch: RecordBatch, out: &mut Vec<RecordBatch>) {
    let rows = batch.num_rows();
    if rows > 1 && batch_bytes(&batch) > MOST_PIECE_BYTES {
        halve(batch.slice(0, rows / 2), out);
        halve(batch.slice(rows / 2, rows - rows / 2), out);
    } else {
        out.push(batch);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::UInt32Type;

    use super::*;

    fn check(batch: &RecordBatch) -> Vec<usize> {
        let pieces = pieces(batch);
        let rows: Vec<usize> = pieces.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(arrow::compute::concat_batches(&batch.schema(), &pieces).unwrap(), *batch);
        for piece in &pieces {
            assert!(piece.num_rows() == 1 || batch_bytes(piece) <= MOST_PIECE_BYTES, "{}", piece.num_rows());
        }
        rows
    }

    fn numbers(rows: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        RecordBatch::try_from_iter([("a", column)]).unwrap()
    }

    #[test]
    fn pieces_have_many_rows_and_few_bytes() {
        assert_eq!(check(&numbers(1)), [1]);
        assert_eq!(check(&numbers(100_000)), [100_000]);
        let rows = check(&numbers(3_000_000).slice(7, 2_900_000));
        assert!(rows.len() == 6 && rows.iter().all(|&rows| rows >= PIECE_ROWS), "{rows:?}");
        // Wide rows: the bytes decide; a row alone may be too large.
        let lists = (0..40).map(|row| Some(vec![Some(7u32); if row == 20 { 3_000_000 } else { 500_000 }]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<UInt32Type, _, _>(lists));
        let rows = check(&RecordBatch::try_from_iter([("a", lists)]).unwrap());
        assert!(rows.iter().all(|&rows| rows <= 4) && rows.contains(&1), "{rows:?}");
        assert!(pieces(&numbers(0)).is_empty());
    }
}
