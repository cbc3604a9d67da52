//! Writes a column chunk of plain pages of version 1 that end at any position, even within a list. The format allows
//! it, older C++ and Rust writers did it, and current writers do not. Not here: any other chunk (`day` uses the parquet
//! crate for those).

use anyhow::Result;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::writer::{SerializedPageWriter, SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use crate::shred::{Leaf, Values};

/// Appends `leaf` to `group` as the next column, with a page for every `page_levels` levels, uncompressed.
pub fn append_split<W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    column: ColumnDescPtr,
    leaf: &Leaf,
    page_levels: usize,
) -> Result<()> {
    let full = column.max_def_level();
    let mut sink = TrackedWrite::new(Vec::new());
    let mut pages = SerializedPageWriter::new(&mut sink);
    let mut next_value = 0;
    let levels = leaf.repetitions.chunks(page_levels).zip(leaf.definitions.chunks(page_levels));
    for (repetitions, definitions) in levels {
        let values = definitions.iter().filter(|level| **level == full).count();
        let mut buf = Vec::new();
        put_levels(&mut buf, repetitions);
        if full > 0 {
            put_levels(&mut buf, definitions);
        }
        put_values(&mut buf, &leaf.values, next_value..next_value + values);
        next_value += values;
        let size = buf.len();
        let page = Page::DataPage {
            buf: Bytes::from(buf),
            num_values: definitions.len() as u32,
            encoding: Encoding::PLAIN,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        pages.write_page(CompressedPage::new(page, size))?;
    }
    let chunk = Bytes::from(sink.into_inner()?);
    let metadata = ColumnChunkMetaData::builder(column)
        .set_compression(Compression::UNCOMPRESSED)
        .set_encodings(vec![Encoding::PLAIN, Encoding::RLE])
        .set_num_values(leaf.definitions.len() as i64)
        .set_total_compressed_size(chunk.len() as i64)
        .set_total_uncompressed_size(chunk.len() as i64)
        .set_data_page_offset(0)
        .build()?;
    let close = ColumnCloseResult {
        bytes_written: chunk.len() as u64,
        rows_written: leaf.repetitions.iter().filter(|level| **level == 0).count() as u64,
        metadata,
        bloom_filter: None,
        column_index: None,
        offset_index: None,
    };
    group.append_column(&chunk, close)?;
    Ok(())
}

/// Levels as runs of the RLE hybrid, preceded by their length. No level here needs more than a byte.
fn put_levels(buf: &mut Vec<u8>, levels: &[i16]) {
    let mut runs = Vec::new();
    for run in levels.chunk_by(|a, b| a == b) {
        let mut header = run.len() << 1;
        while header >= 0x80 {
            runs.push(header as u8 | 0x80);
            header >>= 7;
        }
        runs.extend([header as u8, run[0] as u8]);
    }
    buf.extend((runs.len() as u32).to_le_bytes());
    buf.extend(runs);
}

fn put_values(buf: &mut Vec<u8>, values: &Values, range: std::ops::Range<usize>) {
    match values {
        Values::Text(values) => values[range].iter().for_each(|value| {
            buf.extend((value.len() as u32).to_le_bytes());
            buf.extend(value.data());
        }),
        Values::Int(values) => values[range].iter().for_each(|value| buf.extend(value.to_le_bytes())),
        Values::Long(values) => values[range].iter().for_each(|value| buf.extend(value.to_le_bytes())),
        Values::Flag(values) => {
            buf.extend(values[range].chunks(8).map(|bits| {
                bits.iter().enumerate().fold(0u8, |byte, (at, bit)| byte | (u8::from(*bit) << at))
            }))
        }
    }
}
