//! Hashes of keys and of rows, by their values: equal rows have equal hashes, in whatever files they are stored.
//!
//! They exist only while an audit runs. The checksums that part files have are those of the dataset
//! (`tally_dataset::checksum`).

use std::hash::{BuildHasher, Hasher};

use arrow_array::{ArrayRef, RecordBatch};
use arrow_row::{RowConverter, SortField};
use arrow_schema::ArrowError;
use arrow_schema::SchemaRef;
use foldhash::quality::FixedState;

/// Hashes the values of some columns.
pub struct RowHasher {
    /// Places of the columns.
    columns: Vec<usize>,
    converter: RowConverter,
    state: FixedState,
}

impl RowHasher {
    /// A hasher of these columns; those that the schema does not have are left out.
    ///
    /// # Errors
    /// A column has a type that cannot be compared.
    pub fn new<'a>(
        schema: &SchemaRef,
        columns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ArrowError> {
        let columns: Vec<usize> = columns.into_iter().filter_map(|name| schema.index_of(name).ok()).collect();
        let fields = columns.iter().map(|&at| SortField::new(schema.field(at).data_type().clone()));
        let converter = RowConverter::new(fields.collect())?;
        Ok(RowHasher { columns, converter, state: FixedState::default() })
    }

    /// The hash of each row.
    ///
    /// # Errors
    /// The columns have other types than those of the schema.
    pub fn hash(&self, batch: &RecordBatch) -> Result<Vec<u64>, ArrowError> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|&at| batch.column(at).clone()).collect();
        let rows = self.converter.convert_columns(&columns)?;
        let hash = |bytes: &[u8]| {
            let mut hasher = self.state.build_hasher();
            hasher.write(bytes);
            hasher.finish()
        };
        Ok(rows.iter().map(|row| hash(row.data())).collect())
    }
}

/// The hash of a row of a folder within the day: the same row in another folder has another hash.
pub fn in_folder(hash: u64, folder: Option<u32>) -> u64 {
    let Some(folder) = folder else { return hash };
    let mut hasher = FixedState::default().build_hasher();
    hasher.write_u64(hash);
    hasher.write_u32(folder);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray};
    use arrow_schema::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn a_hash_depends_on_the_named_columns_alone_and_null_is_not_zero() {
        let fields = [Field::new("id", DataType::Utf8, true), Field::new("n", DataType::Int64, true)];
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let rows = |ids: [Option<&str>; 3], numbers: [Option<i64>; 3]| {
            let columns: Vec<ArrayRef> =
                vec![Arc::new(StringArray::from_iter(ids)), Arc::new(Int64Array::from_iter(numbers))];
            RecordBatch::try_new(schema.clone(), columns).unwrap()
        };
        let one = rows([Some("a"), Some(""), None], [Some(0), Some(0), None]);
        let other = rows([Some("a"), Some(""), None], [None, Some(0), Some(0)]);
        let ids = RowHasher::new(&schema, ["id"]).unwrap();
        assert_eq!(ids.hash(&one).unwrap(), ids.hash(&other).unwrap());
        let all = RowHasher::new(&schema, ["id", "n", "none"]).unwrap();
        let (one, other) = (all.hash(&one).unwrap(), all.hash(&other).unwrap());
        assert!(one[0] != other[0] && one[1] == other[1] && one[2] != other[2]);
        assert!(one[0] != one[1] && one[1] != one[2]);
        let hashes = [None, Some(0), Some(1), Some(7)].map(|folder| in_folder(one[0], folder));
        assert_eq!(hashes[0], one[0]);
        assert_eq!(hashes.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }
}
