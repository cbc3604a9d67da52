//! Decodes a footer's Thrift (`FileMetaData`) into the Parquet crate's metadata. The crate's own parser identifies
//! column chunks by position, and rejects files because of contents that are not needed: empty lists, strings that are
//! not UTF-8, and newer types, annotations, codecs and encodings.
//!
//! A chunk belongs to the column that its `path_in_schema` names. Chunks are sorted into the order of the schema's
//! columns, so that other code can identify them by position. A chunk that cannot be read according to its footer
//! ([`Unreadable`]) is an error only if its column is needed. Statistics, key-value metadata and indexes are skipped.
//!
//! All input is untrusted: no length is used without a check. Not here: the schema (`schema`), fetching footers
//! (`footer`).

use std::collections::HashMap;
use std::sync::Arc;

use parquet::basic::CompressionCodec;
use parquet::file::metadata::{ColumnChunkMetaData, FileMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::schema::types::SchemaDescriptor;

use crate::error::Fault;
use crate::schema::at;
use crate::schema_cache;
use crate::thrift::ThriftError::{self, Malformed};
use crate::thrift::{BINARY, I32, I64, LIST, STRUCT, ThriftReader};

/// Maximum number of unreadable chunks in a file. Each takes a few bytes in a footer, and more in memory.
const MAX_UNREADABLE: usize = 1 << 16;

const CODECS: [CompressionCodec; 8] = [
    CompressionCodec::UNCOMPRESSED,
    CompressionCodec::SNAPPY,
    CompressionCodec::GZIP,
    CompressionCodec::LZO,
    CompressionCodec::BROTLI,
    CompressionCodec::LZ4,
    CompressionCodec::ZSTD,
    CompressionCodec::LZ4_RAW,
];

/// Why a column chunk cannot be read, according to its footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is encrypted.
    Encrypted,
    /// Its codec has this unknown number.
    Codec(i32),
    /// It states a negative number of values.
    Values(i64),
    /// No chunk of the row group names the column.
    Missing,
    /// Several chunks of the row group name the column.
    Twice,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unreadable::Encrypted => write!(f, "it is encrypted, and encryption is not supported"),
            Unreadable::Codec(number) => write!(f, "it is compressed by an unknown codec (number {number})"),
            Unreadable::Values(values) => write!(f, "its column chunk states that it has {values} values"),
            Unreadable::Missing => write!(f, "no column chunk of its row group names it"),
            Unreadable::Twice => write!(f, "several column chunks of its row group name it"),
        }
    }
}

/// The chunks that cannot be read, by row group and column.
pub(super) type Unreadables = HashMap<(usize, usize), Unreadable>;

/// Decodes a footer. In the metadata, an unreadable chunk has -1 values.
///
/// # Errors
/// The bytes are not a footer, or are inconsistent.
pub(super) fn decode(bytes: &[u8]) -> Result<(ParquetMetaData, Unreadables), Fault> {
    let undecodable =
        |error: ThriftError| Fault::Corrupt(format!("its footer cannot be decoded: {}", error.what()));
    let mut file = File::read(bytes).map_err(undecodable)?;
    let mut groups = vec![];
    let mut unreadable = HashMap::new();
    let mut columns = Columns { schema: file.schema.clone(), by_path: None };
    let mut rows = 0i64;
    let count = file.row_groups.list(STRUCT).map_err(undecodable)?;
    for number in 0..count {
        let within = |what: &str| {
            Fault::Corrupt(format!("its footer cannot be decoded at row group {number}: {what}"))
        };
        let read = Group::read(&mut file.row_groups, &mut columns);
        let group = read.map_err(|error| within(error.what()))?;
        unreadable.extend(group.unreadable.into_iter().map(|(leaf, why)| ((groups.len(), leaf), why)));
        if unreadable.len() > MAX_UNREADABLE {
            return Err(within("too many column chunks are encrypted or cannot be read for other reasons"));
        }
        rows = rows.checked_add(group.rows).ok_or_else(|| within("more rows than can be counted"))?;
        let built = RowGroupMetaData::builder(columns.schema.clone())
            .set_num_rows(group.rows)
            .set_total_byte_size(group.bytes)
            .set_column_metadata(group.chunks)
            .build();
        groups.push(built.map_err(|error| within(&error.to_string()))?);
    }
    let file = FileMetaData::new(file.version, rows, file.created_by, None, file.schema, None);
    Ok((ParquetMetaData::new(file, groups), unreadable))
}

/// The needed part of a file's metadata. The list of row groups is read later.
struct File<'a> {
    version: i32,
    schema: Arc<SchemaDescriptor>,
    row_groups: ThriftReader<'a>,
    created_by: Option<String>,
}

impl<'a> File<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ThriftError> {
        let (mut version, mut schema, mut rows, mut row_groups, mut created_by) =
            (None, None, None, None, None);
        ThriftReader::new(bytes).each_field(|input, field| {
            match (field.id, field.kind) {
                (1, I32) => version = Some(input.int()?),
                (2, LIST) => schema = Some(schema_cache::read(input)?),
                (3, I64) => rows = Some(input.zigzag()?),
                (4, LIST) => {
                    // Read when the schema is known, which may follow it.
                    row_groups = Some(input.clone());
                    return Ok(false);
                }
                (6, BINARY) => created_by = Some(String::from_utf8_lossy(input.binary()?).into_owned()),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        rows.ok_or(Malformed("it does not state the number of rows"))?;
        Ok(File {
            version: version.ok_or(Malformed("it does not state its version"))?,
            schema: schema.ok_or(Malformed("it has no schema"))?,
            row_groups: row_groups.ok_or(Malformed("it has no list of row groups"))?,
            created_by,
        })
    }
}

/// The file's columns, with an index by path.
struct Columns {
    schema: Arc<SchemaDescriptor>,
    /// Created when a chunk is not at the position of its column.
    by_path: Option<HashMap<Vec<String>, usize>>,
}

impl Columns {
    /// The column of the chunk at a position: the one that its path names, or the one at the position if it has no
    /// path.
    fn of(&mut self, place: usize, path: &[&[u8]]) -> Option<usize> {
        let here = self.schema.columns().get(place).map(|column| column.path().parts());
        let same = |parts: &[String]| parts.iter().map(String::as_bytes).eq(path.iter().copied());
        if path.is_empty() || here.is_some_and(same) {
            return Some(place);
        }
        let path: Vec<String> = path.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect();
        // Names that are not UTF-8 are compared after conversion.
        if here == Some(&path[..]) {
            return Some(place);
        }
        let columns = self.schema.columns().iter().enumerate().rev();
        let by_path = self.by_path.get_or_insert_with(|| {
            columns.map(|(leaf, column)| (column.path().parts().to_vec(), leaf)).collect()
        });
        by_path.get(&path).copied()
    }
}

/// A row group, with its chunks in the order of the columns.
struct Group {
    rows: i64,
    bytes: i64,
    chunks: Vec<ColumnChunkMetaData>,
    unreadable: Vec<(usize, Unreadable)>,
}

impl Group {
    fn read(input: &mut ThriftReader<'_>, columns: &mut Columns) -> Result<Self, ThriftError> {
        let (mut rows, mut bytes, mut found) = (None, 0, None);
        input.each_field(|input, field| {
            match (field.id, field.kind) {
                (1, LIST) => found = Some(chunks(input, columns)?),
                (2, I64) => bytes = input.zigzag()?,
                (3, I64) => rows = Some(input.zigzag()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let rows = rows.ok_or(Malformed("it does not state the number of its rows"))?;
        if rows < 0 {
            return Err(Malformed("it states a negative number of rows"));
        }
        let (chunks, unreadable) = found.ok_or(Malformed("it has no column chunks"))?;
        Ok(Group { rows, bytes, chunks, unreadable })
    }
}

/// The chunks in the order of their columns, and those that cannot be read.
type Chunks = (Vec<ColumnChunkMetaData>, Vec<(usize, Unreadable)>);

fn chunks(input: &mut ThriftReader<'_>, columns: &mut Columns) -> Result<Chunks, ThriftError> {
    let count = input.list(STRUCT)?;
    let all = columns.schema.num_columns();
    // This check also bounds the number of missing columns.
    if count != all as u64 {
        return Err(Malformed("the number of its column chunks is not that of the columns in its schema"));
    }
    let mut chunks: Vec<(usize, ColumnChunkMetaData)> = Vec::with_capacity(all.min(1024));
    let mut unreadable = vec![];
    let mut path = vec![];
    for place in 0..all {
        path.clear();
        let chunk = Chunk::read(input, &mut path)?;
        // A chunk whose column is not in the schema is ignored.
        let Some(leaf) = columns.of(place, &path) else { continue };
        let (metadata, why) = chunk.build(&columns.schema, leaf)?;
        unreadable.extend(why.map(|why| (leaf, why)));
        chunks.push((leaf, metadata));
    }
    if chunks.len() < all || chunks.iter().enumerate().any(|(place, (leaf, _))| place != *leaf) {
        chunks.sort_by_key(|(leaf, _)| *leaf);
        let mut found = std::mem::take(&mut chunks).into_iter().peekable();
        for leaf in 0..all {
            let chunk = found.next_if(|(next, _)| *next == leaf);
            let more = found.next_if(|(next, _)| *next == leaf).is_some();
            while found.next_if(|(next, _)| *next == leaf).is_some() {}
            let why = if more { Unreadable::Twice } else { Unreadable::Missing };
            if let Some(chunk) = chunk.filter(|_| !more) {
                chunks.push(chunk);
            } else {
                unreadable.push((leaf, why));
                chunks.push((leaf, unread(&columns.schema, leaf)?));
            }
        }
    }
    Ok((chunks.into_iter().map(|(_, chunk)| chunk).collect(), unreadable))
}

/// The placeholder of a chunk that cannot be read.
fn unread(schema: &SchemaDescriptor, leaf: usize) -> Result<ColumnChunkMetaData, ThriftError> {
    let chunk = ColumnChunkMetaData::builder(schema.column(leaf)).set_num_values(-1).build();
    chunk.map_err(|_| Malformed("a column chunk is inconsistent"))
}

/// The needed part of a column chunk.
#[derive(Default)]
struct Chunk {
    encrypted: bool,
    codec: Option<i32>,
    values: Option<i64>,
    uncompressed: i64,
    compressed: Option<i64>,
    data: Option<i64>,
    dictionary: Option<i64>,
}

impl Chunk {
    /// Reads a chunk, and the path of its column into `path`.
    fn read<'a>(input: &mut ThriftReader<'a>, path: &mut Vec<&'a [u8]>) -> Result<Self, ThriftError> {
        let mut chunk = Chunk::default();
        input.each_field(|input, field| {
            match (field.id, field.kind) {
                (3, STRUCT) => chunk.metadata(input, path)?,
                (8, STRUCT) => {
                    chunk.encrypted = true;
                    key(input, path)?;
                }
                (9, BINARY) => {
                    chunk.encrypted = true;
                    return Ok(false);
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(chunk)
    }

    fn metadata<'a>(
        &mut self,
        input: &mut ThriftReader<'a>,
        path: &mut Vec<&'a [u8]>,
    ) -> Result<(), ThriftError> {
        input.each_field(|input, field| {
            match (field.id, field.kind) {
                (3, LIST) => texts(input, path)?,
                (4, I32) => self.codec = Some(input.int()?),
                (5, I64) => self.values = Some(input.zigzag()?),
                (6, I64) => self.uncompressed = input.zigzag()?,
                (7, I64) => self.compressed = Some(input.zigzag()?),
                (9, I64) => self.data = Some(input.zigzag()?),
                (11, I64) => self.dictionary = Some(input.zigzag()?),
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    /// Builds the Parquet crate's metadata of a column's chunk.
    fn build(
        self,
        schema: &SchemaDescriptor,
        leaf: usize,
    ) -> Result<(ColumnChunkMetaData, Option<Unreadable>), ThriftError> {
        if self.encrypted {
            return Ok((unread(schema, leaf)?, Some(Unreadable::Encrypted)));
        }
        let (Some(number), Some(values), Some(compressed), Some(data)) =
            (self.codec, self.values, self.compressed, self.data)
        else {
            return Err(Malformed(
                "a column chunk does not state its codec, number of values, size or offset",
            ));
        };
        if values < 0 {
            return Ok((unread(schema, leaf)?, Some(Unreadable::Values(values))));
        }
        let Some(codec) = at(&CODECS, number) else {
            return Ok((unread(schema, leaf)?, Some(Unreadable::Codec(number))));
        };
        let chunk = ColumnChunkMetaData::builder(schema.column(leaf))
            .set_compression_codec(codec)
            .set_num_values(values)
            .set_total_compressed_size(compressed)
            .set_total_uncompressed_size(self.uncompressed)
            .set_data_page_offset(data)
            .set_dictionary_page_offset(self.dictionary)
            .build();
        chunk.map(|chunk| (chunk, None)).map_err(|_| Malformed("a column chunk is inconsistent"))
    }
}

/// Reads the encryption key metadata. With a key of its own, it contains the path of the column.
fn key<'a>(input: &mut ThriftReader<'a>, path: &mut Vec<&'a [u8]>) -> Result<(), ThriftError> {
    input.each_field(|input, variant| {
        if (variant.id, variant.kind) != (2, STRUCT) {
            return Ok(false);
        }
        input.each_field(|input, field| match (field.id, field.kind) {
            (1, LIST) => texts(input, path).map(|()| true),
            _ => Ok(false),
        })?;
        Ok(true)
    })
}

fn texts<'a>(input: &mut ThriftReader<'a>, out: &mut Vec<&'a [u8]>) -> Result<(), ThriftError> {
    out.clear();
    for _ in 0..input.list(BINARY)? {
        out.push(input.binary()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
