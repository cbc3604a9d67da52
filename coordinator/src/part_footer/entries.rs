//! Reads the key-value metadata of a part file from its end, without its rows.
//!
//! Not here: what the entries mean (the parent module, `objectives`).

use std::collections::HashMap;

use bytes::Bytes;
use object_store::ObjectStoreExt;
use parquet::errors::ParquetError;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaDataReader};
use tally_common::counts::counted;
use tally_common::stores::explain;
use tally_scan::InputFile;

/// Bytes read from the end of a part file. The footer is usually shorter.
const FIRST_READ: u64 = 64 << 10;
/// The longest footer that is read, in bytes.
const MAX_FOOTER: u64 = 64 << 20;

/// The entries of a file's footer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EntriesError {
    /// The file cannot be read.
    #[error("{file} cannot be read: {}", explain(source))]
    Store {
        /// The part file.
        file: String,
        /// The error of the store.
        source: object_store::Error,
    },
    /// It is not a Parquet file.
    #[error("{file} is not a Parquet file: {reason}")]
    NotParquet {
        /// The part file.
        file: String,
        /// The reason.
        reason: String,
    },
}

/// The key-value metadata of a Parquet file, without keys that have no value.
///
/// # Errors
/// [`EntriesError`].
pub async fn entries(file: &InputFile) -> Result<HashMap<String, String>, EntriesError> {
    let bad = |reason: String| EntriesError::NotParquet { file: file.name.clone(), reason };
    if file.size < FOOTER_SIZE as u64 {
        return Err(bad(format!("it has {}", counted(file.size, "byte"))));
    }
    let end = range(file, file.size.saturating_sub(FIRST_READ)).await?;
    let tail = end.last_chunk::<FOOTER_SIZE>().ok_or_else(|| bad("it was cut meanwhile".into()))?;
    let tail = FooterTail::try_new(tail).map_err(|e| bad(e.to_string()))?;
    let length = tail.metadata_length() as u64;
    let start = file.size.checked_sub(length + FOOTER_SIZE as u64).filter(|_| length <= MAX_FOOTER);
    let start = start.ok_or_else(|| bad(format!("its footer has {}", counted(length, "byte"))))?;
    let all = if length + FOOTER_SIZE as u64 <= end.len() as u64 {
        end.slice(end.len() - FOOTER_SIZE - length as usize..)
    } else {
        range(file, start).await?
    };
    decode(all.slice(..all.len().saturating_sub(FOOTER_SIZE))).map_err(bad)
}

/// The bytes of a file from `start` to its end.
async fn range(file: &InputFile, start: u64) -> Result<Bytes, EntriesError> {
    let read = file.store.get_range(&file.path, start..file.size).await;
    read.map_err(|source| EntriesError::Store { file: file.name.clone(), source })
}

fn decode(footer: Bytes) -> Result<HashMap<String, String>, String> {
    // The Parquet crate may panic on malicious numbers, and any program may have written the file.
    let decoded = std::panic::catch_unwind(|| ParquetMetaDataReader::decode_metadata(&footer));
    let decoded = decoded.unwrap_or_else(|_| Err(ParquetError::General("its footer is damaged".into())));
    let metadata = decoded.map_err(|error| error.to_string())?;
    let entries = metadata.file_metadata().key_value_metadata().cloned().unwrap_or_default();
    Ok(entries.into_iter().filter_map(|entry| Some((entry.key, entry.value?))).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStore, PutPayload};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::KeyValue;
    use tally_dataset::Dataset;
    use tally_dataset::addon_aggregates::AddonAggregates;

    use super::*;

    /// A part file without rows.
    fn part_file() -> Vec<u8> {
        let mut bytes = Vec::new();
        let schema = AddonAggregates::new().reduced_schema();
        let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).unwrap();
        writer.append_key_value_metadata(KeyValue::new("tally.rows".to_string(), "7".to_string()));
        writer.close().unwrap();
        bytes
    }

    async fn read(bytes: Vec<u8>) -> Result<HashMap<String, String>, EntriesError> {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (path, size) = (Path::from("part.parquet"), bytes.len() as u64);
        store.put(&path, PutPayload::from(bytes)).await.unwrap();
        let name = "part.parquet".to_string();
        entries(&InputFile { store, path, name, size, etag: None, footer: None }).await
    }

    #[tokio::test]
    async fn entries_are_read_from_the_end_of_a_file() {
        let found = read(part_file()).await.unwrap();
        assert_eq!(found.get("tally.rows").map(String::as_str), Some("7"));
    }

    /// No other program's file ends the process.
    #[tokio::test]
    async fn a_damaged_footer_is_an_error_and_no_panic() {
        let good = part_file();
        for at in 4..good.len() {
            for bits in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= bits;
                // Not all damage shows, but the file is never anything else than readable or no Parquet file.
                let outcome = read(bad).await;
                assert!(matches!(outcome, Ok(_) | Err(EntriesError::NotParquet { .. })), "{at}: {outcome:?}");
            }
        }
        for length in 0..good.len() {
            let cut = read(good[..length].to_vec()).await.unwrap_err();
            assert!(matches!(cut, EntriesError::NotParquet { .. }), "{length} bytes: {cut}");
        }
    }
}
