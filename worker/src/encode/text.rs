//! A column of ids: plain values, compressed with Snappy as they are written.
//!
//! An id is random text. It repeats only in consecutive rows (one for each install kind and profile date). Its length
//! precedes it and rarely changes. So the repeats are known: a repeated id is a copy, and so is a repeated length. A
//! search for other repeats gains little (0.94 of the bytes in eight times the time). A null has no value, only a level.

use arrow_array::{Array, StringArray};
use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::Page;
use parquet::errors::{ParquetError, Result};
use parquet::schema::types::ColumnDescPtr;

use super::chunk::Chunk;
use super::snappy::{copy, literal_head, varint};

/// Uncompressed bytes after which a page ends.
const PAGE: usize = 1 << 20;
/// Space before a page's elements for what is known only at its end: the uncompressed length (5 bytes), and the levels
/// as a literal (1 and 4 and 5 and 1), which are more only if there are nulls.
const HEAD: usize = 16;
/// Bytes of a plain value's length.
const LENGTH: usize = 4;

/// A column chunk of strings that is being built.
pub(super) struct TextChunk {
    chunk: Chunk,
    optional: bool,
    page: PageInTheMaking,
}

/// The current page.
struct PageInTheMaking {
    /// Space for the header, then Snappy's elements.
    elements: Vec<u8>,
    /// Values and nulls.
    values: u32,
    levels: Levels,
    /// Bytes of all values with their lengths.
    plain: usize,
    /// Offset of the last value in the elements, and its length.
    last: Option<(usize, usize)>,
    /// Bytes to copy from one value before.
    repeated: usize,
}

/// Which values are not null, as runs of equal levels.
#[derive(Default)]
struct Levels {
    /// The runs before the last one.
    runs: Vec<u8>,
    valid: bool,
    count: u32,
}

impl Levels {
    #[inline]
    fn push(&mut self, valid: bool) {
        if valid != self.valid {
            self.end_run();
            self.valid = valid;
        }
        self.count += 1;
    }

    fn end_run(&mut self) {
        if self.count > 0 {
            varint(u64::from(std::mem::take(&mut self.count)) << 1, &mut self.runs);
            self.runs.push(u8::from(self.valid));
        }
    }

    /// The levels as a page has them.
    fn finish(mut self) -> Vec<u8> {
        self.end_run();
        [&(self.runs.len() as u32).to_le_bytes()[..], &self.runs].concat()
    }
}

impl PageInTheMaking {
    fn new() -> Self {
        let mut elements = Vec::with_capacity(PAGE);
        elements.resize(HEAD, 0);
        PageInTheMaking { elements, values: 0, levels: Levels::default(), plain: 0, last: None, repeated: 0 }
    }

    fn push_null(&mut self) {
        self.values += 1;
        self.levels.push(false);
    }

    fn push(&mut self, value: &[u8]) {
        self.values += 1;
        self.levels.push(true);
        self.plain += LENGTH + value.len();
        if let Some((at, length)) = self.last
            && length == value.len()
        {
            if &self.elements[at..at + length] == value {
                self.repeated += LENGTH + length;
                return;
            }
            self.repeated += LENGTH;
            self.flush();
            literal_head(length, &mut self.elements);
        } else {
            self.flush();
            literal_head(LENGTH + value.len(), &mut self.elements);
            self.elements.extend_from_slice(&(value.len() as u32).to_le_bytes());
        }
        self.last = Some((self.elements.len(), value.len()));
        self.elements.extend_from_slice(value);
    }

    /// Writes pending copies.
    fn flush(&mut self) {
        if let Some((_, length)) = self.last {
            copy((LENGTH + length) as u32, std::mem::take(&mut self.repeated), &mut self.elements);
        }
    }

    /// The page's compressed contents, and their uncompressed length.
    fn finish(mut self, optional: bool) -> (Bytes, usize) {
        self.flush();
        let levels = if optional { std::mem::take(&mut self.levels).finish() } else { vec![] };
        let plain = levels.len() + self.plain;
        let mut head = Vec::with_capacity(HEAD);
        varint(plain as u64, &mut head);
        if !levels.is_empty() {
            literal_head(levels.len(), &mut head);
            head.extend_from_slice(&levels);
        }
        let Some(start) = HEAD.checked_sub(head.len()) else {
            head.extend_from_slice(&self.elements[HEAD..]);
            return (Bytes::from(head), plain);
        };
        self.elements[start..HEAD].copy_from_slice(&head);
        (Bytes::from(self.elements).slice(start..), plain)
    }
}

impl TextChunk {
    pub fn new(descriptor: ColumnDescPtr) -> Self {
        let optional = descriptor.max_def_level() > 0;
        TextChunk { chunk: Chunk::new(descriptor), optional, page: PageInTheMaking::new() }
    }

    /// Adds values.
    ///
    /// # Errors
    /// A value of a required column is null, or the page writer fails.
    pub fn write(&mut self, values: &StringArray) -> Result<()> {
        let nulls = values.nulls().filter(|nulls| nulls.null_count() > 0);
        if nulls.is_some() && !self.optional {
            return Err(ParquetError::General("a required value is null".into()));
        }
        let text = values.value_data();
        for (row, ends) in values.value_offsets().windows(2).enumerate() {
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                self.page.push_null();
            } else {
                self.page.push(&text[ends[0] as usize..ends[1] as usize]);
            }
            if self.page.plain >= PAGE {
                self.end_page()?;
            }
        }
        Ok(())
    }

    fn end_page(&mut self) -> Result<()> {
        let page = std::mem::replace(&mut self.page, PageInTheMaking::new());
        let num_values = page.values;
        let (buf, plain) = page.finish(self.optional);
        let page = Page::DataPage {
            buf,
            num_values,
            encoding: Encoding::PLAIN,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        self.chunk.page(page, plain)
    }

    /// # Errors
    /// The error of the page writer.
    pub fn finish(mut self) -> Result<Chunk> {
        if self.page.values > 0 {
            self.end_page()?;
        }
        Ok(self.chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;
    use arrow_array::{ArrayRef, RecordBatch};
    use arrow_schema::{DataType, Field, Schema};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use proptest::prelude::*;
    use std::sync::Arc;
    use tally_dataset::{ColumnEncoding, Fingerprint};

    use crate::encode::Encoder;

    /// Writes the values, and reads them with the Parquet crate.
    fn round_trip(
        values: &[Option<String>],
        nullable: bool,
        row_group_rows: u64,
        batch_rows: usize,
    ) -> (Vec<Option<String>>, usize) {
        let schema = Arc::new(Schema::new(vec![Field::new("client_id", DataType::Utf8, nullable)]));
        let length = |id: Option<&str>| id.map_or(0, |id| id.len() as u64 + 1);
        let count = |rows: &RecordBatch, all: &mut Fingerprint| {
            rows.column(0).as_string::<i32>().iter().for_each(|id| all.add(length(id)));
            Ok(())
        };
        let encoding = |_: &str| ColumnEncoding::PlainRuns;
        let mut encoder = Encoder::new(vec![], schema.clone(), row_group_rows, &encoding, &count).unwrap();
        for values in values.chunks(batch_rows) {
            let ids: ArrayRef = Arc::new(StringArray::from_iter(values));
            encoder.write(&RecordBatch::try_new(schema.clone(), vec![ids]).unwrap()).unwrap();
        }
        let (encoded, file) = encoder.finish().unwrap();
        assert_eq!(encoded.row_groups.iter().map(|group| group.rows).sum::<u64>(), values.len() as u64);
        assert!(encoded.row_groups.iter().rev().skip(1).all(|group| group.rows == row_group_rows));
        let bytes = file.len();
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file.clone())).unwrap();
        // The descriptions of the row groups and the footer are correct.
        let rows = values.chunks(usize::try_from(row_group_rows).unwrap());
        let mut end = 4;
        for ((written, found), rows) in
            encoded.row_groups.iter().zip(reader.metadata().row_groups()).zip(rows)
        {
            assert_eq!(written.checksum, rows.iter().map(|id| length(id.as_deref())).sum::<u64>());
            let columns = found.columns().iter().map(|column| column.compressed_size() as usize);
            let from = end;
            end += columns.sum::<usize>();
            assert_eq!(written.crc32, crc32fast::hash(&file[from..end]));
        }
        assert_eq!(encoded.row_groups.len(), reader.metadata().num_row_groups());
        assert_eq!(encoded.footer_crc32, crc32fast::hash(&file[end..]));
        let reader = reader.build().unwrap();
        let mut read = vec![];
        for batch in reader {
            read.extend(batch.unwrap().column(0).as_string::<i32>().iter().map(|id| id.map(str::to_owned)));
        }
        (read, bytes)
    }

    #[test]
    fn repeated_ids_take_almost_no_space() {
        let id = |i: u128| format!("{:036x}", (i / 4) * 0x9e37_79b9_7f4a_7c15);
        let ids: Vec<Option<String>> = (0..100_000).map(|i| Some(id(i))).collect();
        let (read, bytes) = round_trip(&ids, true, 40_000, 7_000);
        assert_eq!(read, ids);
        assert!(bytes < 25_000 * (36 + 1 + 3 + 3 + 3) + 10_000, "{bytes}");
    }

    #[test]
    fn ids_may_be_longer_than_a_page() {
        let ids: Vec<Option<String>> =
            [70_000, 70_000, 3, 0, 0, 1 << 20, 1 << 20, 5].iter().map(|&n| Some("x".repeat(n))).collect();
        assert_eq!(round_trip(&ids, true, 1_000, 3).0, ids);
        assert_eq!(round_trip(&ids, false, 2, 8).0, ids);
        assert_eq!(round_trip(&[], true, 2, 8).0, vec![]);
    }

    #[test]
    fn nulls_are_no_values() {
        let id = |at: usize| (!at.is_multiple_of(3)).then(|| format!("{:036}", at / 4));
        let ids: Vec<Option<String>> = (0..100_000).map(id).collect();
        assert_eq!(round_trip(&ids, true, 40_000, 7_000).0, ids);
        let few: Vec<Option<String>> =
            (0..3_000_usize).map(|at| (!at.is_multiple_of(1_000)).then(|| at.to_string())).collect();
        assert_eq!(round_trip(&few, true, 2_000, 999).0, few);
        assert_eq!(round_trip(&[None, None, None], true, 2, 2).0, vec![None; 3]);
        let mut required = TextChunk::new(required_column());
        assert!(required.write(&StringArray::from(vec![Some("a")])).is_ok());
        assert!(required.write(&StringArray::from(vec![Some("a"), None])).is_err());
    }

    fn required_column() -> parquet::schema::types::ColumnDescPtr {
        let schema = Schema::new(vec![Field::new("client_id", DataType::Utf8, false)]);
        let schema = parquet::arrow::ArrowSchemaConverter::new().convert(&schema).unwrap();
        schema.column(0)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            ids in prop::collection::vec(prop_oneof!["[ab]{0,2}", "[a-f0-9]{36}", ".{0,70}"], 0..40),
            repeats in prop::collection::vec(1_usize..9, 40),
            nulls in prop::collection::vec(any::<bool>(), 40),
            nullable in any::<bool>(),
            row_group_rows in 1_u64..60,
            batch_rows in 1_usize..60,
        ) {
            let ids: Vec<Option<String>> = ids.into_iter().zip(repeats).zip(nulls)
                .flat_map(|((id, n), null)| std::iter::repeat_n((!(null && nullable)).then_some(id), n))
                .collect();
            prop_assert_eq!(round_trip(&ids, nullable, row_group_rows, batch_rows).0, ids);
        }
    }
}
