//! The decoded schemas of the last footers. The files of a table have few different schemas. Decoding one takes longer
//! than the rest of a small file's footer, and it is larger in memory.
//!
//! Not here: how a schema is decoded (`schema`).

use std::sync::Arc;

use parking_lot::Mutex;
use parquet::schema::types::SchemaDescriptor;

use crate::schema;
use crate::thrift::{ThriftError, ThriftReader};

/// The schemas that are kept.
const MAX_KEPT: usize = 8;
/// The longest encoded schema that is kept.
const MAX_BYTES: usize = 64 << 10;

/// The schemas of this process.
static SCHEMAS: SchemaCache = SchemaCache(Mutex::new(Vec::new()));

/// An encoded schema, and the same decoded.
type Entry = (Box<[u8]>, Arc<SchemaDescriptor>);

/// Encoded and decoded schemas, the last used one first.
struct SchemaCache(Mutex<Vec<Entry>>);

/// Decodes the list of schema elements at the reader's position. Equal bytes mostly give the same schema in memory.
///
/// # Errors
/// The bytes are not a schema.
pub(crate) fn read(input: &mut ThriftReader<'_>) -> Result<Arc<SchemaDescriptor>, ThriftError> {
    SCHEMAS.read(input)
}

impl SchemaCache {
    fn read(&self, input: &mut ThriftReader<'_>) -> Result<Arc<SchemaDescriptor>, ThriftError> {
        let encoded = input.rest();
        if let Some((length, found)) = self.find(encoded) {
            input.advance(length as u64)?;
            return Ok(found);
        }
        let made = Arc::new(SchemaDescriptor::new(schema::read(input)?));
        let length = encoded.len() - input.rest().len();
        if length <= MAX_BYTES {
            let mut kept = self.0.lock();
            kept.truncate(MAX_KEPT - 1);
            kept.insert(0, (encoded[..length].into(), made.clone()));
        }
        Ok(made)
    }

    /// The kept schema with which `encoded` begins, and its length. The encoding is a list with its length, so no other
    /// schema begins with the same bytes.
    fn find(&self, encoded: &[u8]) -> Option<(usize, Arc<SchemaDescriptor>)> {
        let mut kept = self.0.lock();
        let at = kept.iter().position(|(bytes, _)| encoded.starts_with(bytes))?;
        kept[..=at].rotate_right(1);
        let (bytes, found) = kept.first()?;
        Some((bytes.len(), found.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A schema of one column, followed by other bytes.
    fn encoded(column: &str, more: &[u8]) -> Vec<u8> {
        // A list of two structs: the root (name, number of children), and an optional INT32.
        let mut bytes = vec![0x2c, 0x48, 1, b'm', 0x15, 2, 0, 0x15, 2, 0x25, 2, 0x18];
        let mut length = column.len();
        while length > 0x7f {
            bytes.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend(column.bytes().chain([0]).chain(more.iter().copied()));
        bytes
    }

    fn cache() -> SchemaCache {
        SchemaCache(Mutex::default())
    }

    #[test]
    fn equal_bytes_give_one_schema_and_the_reader_goes_on_behind_it() {
        let cache = cache();
        let read = |column: &str, more: &[u8]| {
            let bytes = encoded(column, more);
            let mut input = ThriftReader::new(&bytes);
            let schema = cache.read(&mut input).unwrap();
            assert_eq!((schema.column(0).name(), input.rest()), (column, more));
            schema
        };
        let first = read("a", b"xyz");
        read("aa", b"xyz");
        assert!(Arc::ptr_eq(&first, &read("a", b"other")));
        let whole = encoded("a", b"");
        for length in 0..whole.len() {
            assert!(cache.read(&mut ThriftReader::new(&whole[..length])).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn few_schemas_and_no_long_ones_are_kept() {
        let cache = cache();
        let kept = || cache.0.lock().len();
        let around = encoded("", b"").len() + 2;
        for (bytes, count) in [(MAX_BYTES - 1, 1), (MAX_BYTES, 2), (MAX_BYTES + 1, 2)] {
            let schema = encoded(&"n".repeat(bytes - around), b"");
            assert_eq!(schema.len(), bytes);
            cache.read(&mut ThriftReader::new(&schema)).unwrap();
            assert_eq!(kept(), count);
        }
        for n in 0..3 * MAX_KEPT {
            let name = format!("column_{n}");
            let schema = cache.read(&mut ThriftReader::new(&encoded(&name, b""))).unwrap();
            assert_eq!(schema.column(0).name(), name);
            assert!(kept() <= MAX_KEPT);
        }
    }
}
