//! Reads the objectives of a published day from the footer of one of its part files.
//!
//! Not here: the content of the footer's entries (the parent module).

use bytes::Bytes;
use object_store::ObjectStoreExt;
use parquet::errors::ParquetError;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, KeyValue, ParquetMetaDataReader};
use tally_common::stores::explain;
use tally_dataset::Dataset;
use tally_scan::InputFile;

use super::{DayObjectives, from_footer};
use crate::plan::listing::{self, ListError};

/// Bytes read from the end of a part file. The footer is usually shorter.
const FIRST_READ: u64 = 64 << 10;
/// The longest footer that is read, in bytes.
const MAX_FOOTER: u64 = 64 << 20;

/// What the output has of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundDay {
    /// No files.
    Missing,
    /// Part files that do not state objectives: an earlier release or another program wrote them.
    WithoutObjectives,
    /// Part files with objectives.
    Objectives(DayObjectives),
}

/// The objectives of a day cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The day's files.
    #[error(transparent)]
    List(#[from] ListError),
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

/// Reads the objectives of the day in `folder` of the output rooted at `output`.
///
/// # Errors
/// [`ReadError`].
pub async fn read(dataset: &dyn Dataset, output: &str, folder: &str) -> Result<FoundDay, ReadError> {
    let files = match listing::day_files("output", output, folder).await {
        Ok(found) => found.files,
        Err(ListError::Nothing { .. }) => return Ok(FoundDay::Missing),
        Err(error) => return Err(error.into()),
    };
    let Some(file) = files.first() else { return Ok(FoundDay::Missing) };
    let metadata = metadata(file).await?;
    Ok(from_footer(dataset, &metadata).map_or(FoundDay::WithoutObjectives, FoundDay::Objectives))
}

/// The key-value metadata of a Parquet file.
async fn metadata(file: &InputFile) -> Result<Vec<KeyValue>, ReadError> {
    let end = range(file, file.size.saturating_sub(FIRST_READ)).await?;
    let bad = |reason: String| ReadError::NotParquet { file: file.name.clone(), reason };
    let tail = end.last_chunk::<FOOTER_SIZE>().ok_or_else(|| bad(format!("it has {} bytes", file.size)))?;
    let tail = FooterTail::try_new(tail).map_err(|e| bad(e.to_string()))?;
    let length = tail.metadata_length() as u64;
    let start = file.size.checked_sub(length + FOOTER_SIZE as u64).filter(|_| length <= MAX_FOOTER);
    let start = start.ok_or_else(|| bad(format!("its footer has {length} bytes")))?;
    let all = if length + FOOTER_SIZE as u64 <= end.len() as u64 {
        end.slice(end.len() - FOOTER_SIZE - length as usize..)
    } else {
        range(file, start).await?
    };
    decode(all.slice(..all.len().saturating_sub(FOOTER_SIZE))).map_err(bad)
}

/// The bytes of a file from `start` to its end.
async fn range(file: &InputFile, start: u64) -> Result<Bytes, ReadError> {
    let read = file.store.get_range(&file.path, start..file.size).await;
    read.map_err(|source| ReadError::Store { file: file.name.clone(), source })
}

fn decode(footer: Bytes) -> Result<Vec<KeyValue>, String> {
    // The Parquet crate may panic on malicious numbers, and any program may have written the file.
    let decoded = std::panic::catch_unwind(|| ParquetMetaDataReader::decode_metadata(&footer));
    let decoded = decoded.unwrap_or_else(|_| Err(ParquetError::General("its footer is damaged".into())));
    let metadata = decoded.map_err(|error| error.to_string())?;
    Ok(metadata.file_metadata().key_value_metadata().cloned().unwrap_or_default())
}
