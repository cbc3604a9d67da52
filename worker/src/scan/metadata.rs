//! A footer's Thrift (`FileMetaData`) to the Parquet crate's metadata, without the crate's own parser: that finds column
//! chunks by their places, and refuses files for what nobody needs of them: lists without elements, text that is not
//! UTF-8, types, annotations, codecs and encodings of later days.
//!
//! A chunk belongs to the column that its `path_in_schema` names; here chunks are put into the order of the schema's
//! columns, so that everybody else may go by place. A chunk that cannot be read for what its footer says of it
//! ([`Unreadable`]) is an error only where its column is needed. Statistics, metadata of people and indexes are passed over.
//!
//! All input is foreign: nothing here trusts a length. Not here: the schema (`schema`), who fetches footers (`footer`).

use std::collections::HashMap;
use std::sync::Arc;

use parquet::basic::CompressionCodec;
use parquet::file::metadata::{ColumnChunkMetaData, FileMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::schema::types::SchemaDescriptor;

use super::error::Fault;
use super::schema::{self, at};
use super::thrift::ThriftError::{self, Malformed};
use super::thrift::{BINARY, I32, I64, Input, LIST, STRUCT};

/// Chunks that may be unreadable in a file: each is some bytes in a footer and more in memory.
const MOST_UNREADABLE: usize = 1 << 16;

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
    /// It is compressed in a way that has this number.
    Codec(i32),
    /// It says that it has so many values.
    Values(i64),
    /// No chunk of the row group names the column.
    Missing,
    /// Several chunks of the row group name the column.
    Twice,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unreadable::Encrypted => write!(f, "it is encrypted, and there is no way to give a key"),
            Unreadable::Codec(number) => write!(f, "it is compressed by an unknown codec (number {number})"),
            Unreadable::Values(values) => write!(f, "its chunk says that it has {values} values"),
            Unreadable::Missing => write!(f, "no column chunk of its row group names it"),
            Unreadable::Twice => write!(f, "several column chunks of its row group name it"),
        }
    }
}

/// The chunks that cannot be read, by row group and column.
pub(super) type Unreadables = HashMap<(usize, usize), Unreadable>;

/// Decodes a footer. Of an unreadable chunk the metadata says that it has -1 values.
///
/// # Errors
/// It is no footer, or contradicts itself.
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
        if unreadable.len() > MOST_UNREADABLE {
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

/// What is needed of a file's metadata, with the list of row groups still to read.
struct File<'a> {
    version: i32,
    schema: Arc<SchemaDescriptor>,
    row_groups: Input<'a>,
    created_by: Option<String>,
}

impl<'a> File<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ThriftError> {
        let (mut version, mut schema, mut rows, mut row_groups, mut created_by) =
            (None, None, None, None, None);
        Input::new(bytes).each_field(|input, field| {
            match (field.id, field.kind) {
                (1, I32) => version = Some(input.int()?),
                (2, LIST) => schema = Some(schema::read(input)?),
                (3, I64) => rows = Some(input.zigzag()?),
                (4, LIST) => {
                    // Read when the schema is known, wherever that stands.
                    row_groups = Some(input.clone());
                    return Ok(false);
                }
                (6, BINARY) => created_by = Some(String::from_utf8_lossy(input.binary()?).into_owned()),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        rows.ok_or(Malformed("it does not say how many rows there are"))?;
        Ok(File {
            version: version.ok_or(Malformed("it does not say its version"))?,
            schema: Arc::new(SchemaDescriptor::new(schema.ok_or(Malformed("it has no schema"))?)),
            row_groups: row_groups.ok_or(Malformed("it has no list of row groups"))?,
            created_by,
        })
    }
}

/// The file's columns, to be found by their paths.
struct Columns {
    schema: Arc<SchemaDescriptor>,
    /// Made when a chunk does not stand where its column does.
    by_path: Option<HashMap<Vec<String>, usize>>,
}

impl Columns {
    /// The column of the chunk at a place: the one of its path, or of its place if it names none.
    fn of(&mut self, place: usize, path: &[&[u8]]) -> Option<usize> {
        let here = self.schema.columns().get(place).map(|column| column.path().parts());
        let same = |parts: &[String]| parts.iter().map(String::as_bytes).eq(path.iter().copied());
        if path.is_empty() || here.is_some_and(same) {
            return Some(place);
        }
        let path: Vec<String> = path.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect();
        // Names that are not UTF-8 are not as they were.
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

/// A row group, its chunks in the order of the columns.
struct Group {
    rows: i64,
    bytes: i64,
    chunks: Vec<ColumnChunkMetaData>,
    unreadable: Vec<(usize, Unreadable)>,
}

impl Group {
    fn read(input: &mut Input<'_>, columns: &mut Columns) -> Result<Self, ThriftError> {
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
        let rows = rows.filter(|&rows| rows >= 0).ok_or(Malformed("it does not say how many rows it has"))?;
        let (chunks, unreadable) = found.ok_or(Malformed("it has no column chunks"))?;
        Ok(Group { rows, bytes, chunks, unreadable })
    }
}

/// The chunks in the order of their columns, and those that cannot be read.
type Chunks = (Vec<ColumnChunkMetaData>, Vec<(usize, Unreadable)>);

fn chunks(input: &mut Input<'_>, columns: &mut Columns) -> Result<Chunks, ThriftError> {
    let count = input.list(STRUCT)?;
    let all = columns.schema.num_columns();
    // Also what bounds the columns that lack.
    if count != all as u64 {
        return Err(Malformed("it has not as many column chunks as its schema has columns"));
    }
    let mut chunks: Vec<(usize, ColumnChunkMetaData)> = Vec::with_capacity(all.min(1024));
    let mut unreadable = vec![];
    let mut path = vec![];
    for place in 0..all {
        path.clear();
        let chunk = Chunk::read(input, &mut path)?;
        // A chunk of no column of the schema is nobody's.
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

/// What stands for a chunk that cannot be read.
fn unread(schema: &SchemaDescriptor, leaf: usize) -> Result<ColumnChunkMetaData, ThriftError> {
    let chunk = ColumnChunkMetaData::builder(schema.column(leaf)).set_num_values(-1).build();
    chunk.map_err(|_| Malformed("a column chunk makes no sense"))
}

/// What is needed of a column chunk.
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
    fn read<'a>(input: &mut Input<'a>, path: &mut Vec<&'a [u8]>) -> Result<Self, ThriftError> {
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

    fn metadata<'a>(&mut self, input: &mut Input<'a>, path: &mut Vec<&'a [u8]>) -> Result<(), ThriftError> {
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

    /// The crate's metadata of a column's chunk.
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
            return Err(Malformed("a column chunk lacks its codec, values, size or place"));
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
        chunk.map(|chunk| (chunk, None)).map_err(|_| Malformed("a column chunk makes no sense"))
    }
}

/// Reads with which key a chunk is encrypted: a column's own names the column.
fn key<'a>(input: &mut Input<'a>, path: &mut Vec<&'a [u8]>) -> Result<(), ThriftError> {
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

fn texts<'a>(input: &mut Input<'a>, out: &mut Vec<&'a [u8]>) -> Result<(), ThriftError> {
    out.clear();
    for _ in 0..input.list(BINARY)? {
        out.push(input.binary()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
