//! One column chunk, built from pages.

use std::io::Write;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// A column chunk that is being built from pages that are already compressed by Snappy.
pub(crate) struct Chunk {
    descriptor: ColumnDescPtr,
    sink: TrackedWrite<Vec<u8>>,
    dictionary_page: Option<i64>,
    data_page: Option<i64>,
    /// Uncompressed bytes of all pages with their headers.
    plain_bytes: u64,
    values: u64,
    encodings: Vec<Encoding>,
    statistics: Option<Statistics>,
}

impl Chunk {
    pub fn new(descriptor: ColumnDescPtr) -> Self {
        Chunk {
            descriptor,
            sink: TrackedWrite::new(vec![]),
            dictionary_page: None,
            data_page: None,
            plain_bytes: 0,
            values: 0,
            encodings: vec![],
            statistics: None,
        }
    }

    /// Adds a page whose compressed contents inflate to `plain_bytes`. A dictionary page comes first.
    ///
    /// # Errors
    /// The page is too large for the format.
    pub fn page(&mut self, page: Page, plain_bytes: usize) -> Result<()> {
        let encoding = page.encoding();
        let mut writer = SerializedPageWriter::new(&mut self.sink);
        let written = writer.write_page(CompressedPage::new(page, plain_bytes))?;
        if written.page_type == PageType::DICTIONARY_PAGE {
            self.dictionary_page = Some(written.offset as i64);
        } else {
            self.data_page.get_or_insert(written.offset as i64);
            self.values += u64::from(written.num_values);
        }
        self.plain_bytes += written.uncompressed_size as u64;
        if !self.encodings.contains(&encoding) {
            self.encodings.push(encoding);
        }
        Ok(())
    }

    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.statistics = Some(statistics);
    }

    /// Adds the chunk as the next column of a row group. The row group must have as many rows as the chunk has values.
    ///
    /// # Errors
    /// The error of the writer.
    pub fn append<W: Write + Send>(self, row_group: &mut SerializedRowGroupWriter<'_, W>) -> Result<()> {
        let bytes = Bytes::from(self.sink.into_inner()?);
        let mut encodings = self.encodings;
        encodings.push(Encoding::RLE);
        let mut metadata = ColumnChunkMetaData::builder(self.descriptor)
            .set_compression(Compression::SNAPPY)
            .set_encodings(encodings)
            .set_num_values(self.values as i64)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(self.plain_bytes as i64)
            .set_dictionary_page_offset(self.dictionary_page)
            .set_data_page_offset(self.data_page.unwrap_or(0));
        if let Some(statistics) = self.statistics {
            metadata = metadata.set_statistics(statistics);
        }
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: self.values,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        row_group.append_column(&bytes, close)
    }
}
