//! Splits batches so that each piece fits into a message and a read from disk, and rejects rows that never fit.
//!
//! Not here: how pieces are encoded, stored or sent.

use arrow_array::{Array, ArrayRef, BinaryArray, ListArray, RecordBatch};
use tally_dataset::{DatasetError, MAX_ROW_BYTES, MapRun};

/// Minimum rows of a piece, if the maximum bytes allow.
pub const PIECE_ROWS: usize = 64 << 10;
/// Target bytes of a piece.
const PIECE_BYTES: usize = 4 << 20;
/// Maximum bytes of a piece, unless it has a single row.
pub const MAX_PIECE_BYTES: usize = 8 << 20;

/// Bytes of the rows that an array refers to, without the rest of its buffers.
fn array_bytes(array: &dyn Array) -> usize {
    let any = array.as_any();
    let offsets = (array.len() + 1) * 4;
    if let Some(strings) = any.downcast_ref::<BinaryArray>() {
        let ends = strings.value_offsets();
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
        arrow_schema::DataType::FixedSizeBinary(width) => array.len() * *width as usize,
        other => {
            other.primitive_width().map_or_else(|| array.get_array_memory_size(), |width| array.len() * width)
        }
    }
}

/// Bytes of a batch's rows.
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| array_bytes(column)).sum()
}

/// Checks that each row and each string of a run fits into a message.
///
/// # Errors
/// [`DatasetError::LongRow`].
pub fn check_rows(run: &MapRun) -> Result<(), DatasetError> {
    let longest = widest(run.dictionary.value_offsets());
    if longest > MAX_ROW_BYTES {
        return Err(DatasetError::LongRow { bytes: longest });
    }
    // Only values of variable length can be large.
    let of = |column: &ArrayRef| match column.as_any().downcast_ref::<ListArray>() {
        Some(lists) => {
            widest(lists.value_offsets()) * lists.values().data_type().primitive_width().unwrap_or(0)
        }
        None => column.as_any().downcast_ref::<BinaryArray>().map_or(0, |all| widest(all.value_offsets())),
    };
    if run.batch.columns().iter().map(of).sum::<usize>() <= MAX_ROW_BYTES {
        return Ok(());
    }
    // The longest values of several columns may be in different rows.
    let rows = (0..run.batch.num_rows()).map(|row| batch_bytes(&run.batch.slice(row, 1)));
    match rows.max() {
        Some(bytes) if bytes > MAX_ROW_BYTES => Err(DatasetError::LongRow { bytes }),
        _ => Ok(()),
    }
}

fn widest(ends: &[i32]) -> usize {
    ends.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0) as usize
}

/// Splits the batch into pieces, in order: of at least [`PIECE_ROWS`] rows if there are that many, and of at most
/// [`MAX_PIECE_BYTES`] bytes. Nothing is copied. An empty batch has no pieces.
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
    if rows > 1 && batch_bytes(&batch) > MAX_PIECE_BYTES {
        halve(batch.slice(0, rows / 2), out);
        halve(batch.slice(rows / 2, rows - rows / 2), out);
    } else {
        out.push(batch);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::UInt32Type;
    use arrow_array::{ArrayRef, Int64Array};

    use super::*;

    fn check(batch: &RecordBatch) -> Vec<usize> {
        let pieces = pieces(batch);
        let rows: Vec<usize> = pieces.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(arrow_select::concat::concat_batches(&batch.schema(), &pieces).unwrap(), *batch);
        for piece in &pieces {
            assert!(piece.num_rows() == 1 || batch_bytes(piece) <= MAX_PIECE_BYTES, "{}", piece.num_rows());
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
        // For wide rows, the bytes decide. A single row may be too large.
        let lists = (0..40).map(|row| Some(vec![Some(7u32); if row == 20 { 3_000_000 } else { 500_000 }]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<UInt32Type, _, _>(lists));
        let rows = check(&RecordBatch::try_from_iter([("a", lists)]).unwrap());
        assert!(rows.iter().all(|&rows| rows <= 4) && rows.contains(&1), "{rows:?}");
        assert!(pieces(&numbers(0)).is_empty());
    }

    #[test]
    fn rows_and_strings_beyond_the_limit_are_rejected() {
        let run = |lists: &[usize], strings: &[usize]| {
            let lists = lists.iter().map(|&items| Some(vec![Some(7u32); items]));
            let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<UInt32Type, _, _>(lists));
            let batch = RecordBatch::try_from_iter([("a", lists.clone()), ("b", lists)]).unwrap();
            let offsets = vec![0, batch.num_rows() as u32];
            let dictionary = BinaryArray::from_iter_values(strings.iter().map(|&bytes| vec![b'a'; bytes]));
            MapRun { batch, offsets, dictionary }
        };
        // Two columns of lists of four bytes per item, and offsets.
        let items = (MAX_ROW_BYTES - 16) / 8;
        for good in [run(&[], &[]), run(&[1, items, 0, items], &[MAX_ROW_BYTES, 0, MAX_ROW_BYTES])] {
            check_rows(&good).unwrap();
        }
        let long = DatasetError::LongRow { bytes: MAX_ROW_BYTES + 1 };
        assert_eq!(check_rows(&run(&[1], &[1, MAX_ROW_BYTES + 1])).unwrap_err(), long);
        assert!(check_rows(&run(&[1, items + 3], &[])).is_err());
    }
}
