//! Footers: read once a file and kept, so that planning and scanning do not fetch them twice.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader};

use super::error::{Fault, Place, ScanError};
use super::source::InputFile;
use crate::urls;

/// What is fetched of an object's end at first, in bytes: most footers are smaller, and a second request costs more than
/// the bytes.
const FIRST_FETCH: u64 = 64 << 10;
/// The same of a file on this machine, where a second read costs next to nothing.
const FIRST_READ: u64 = 8 << 10;

/// Footers by file and version, up to a number of bytes; the oldest go first.
#[derive(Debug)]
pub struct Footers {
    limit: usize,
    inner: Mutex<Inner>,
}

type Key = (String, Option<String>, u64);

#[derive(Debug, Default)]
struct Inner {
    kept: HashMap<Key, Arc<ParquetMetaData>>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Footers {
    /// A cache of about `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Footers { limit, inner: Mutex::default() }
    }

    /// The footer of a file; also how many bytes were fetched for it.
    ///
    /// # Errors
    /// [`ScanError`], naming the file.
    pub async fn get(&self, file: &InputFile) -> Result<(Arc<ParquetMetaData>, u64), ScanError> {
        let key = (file.name.clone(), file.etag.clone(), file.size);
        if let Some(found) = self.inner.lock().kept.get(&key) {
            return Ok((found.clone(), 0));
        }
        let place = || Place { file: file.name.clone(), ..Place::default() };
        let (metadata, fetched) = read(file).await.map_err(|fault| fault.at(place()))?;
        let metadata = Arc::new(metadata);
        let mut inner = self.inner.lock();
        inner.bytes += metadata.memory_size();
        inner.order.push_back(key.clone());
        inner.kept.insert(key, metadata.clone());
        while inner.bytes > self.limit {
            let Some(oldest) = inner.order.pop_front() else { break };
            if let Some(gone) = inner.kept.remove(&oldest) {
                inner.bytes = inner.bytes.saturating_sub(gone.memory_size());
            }
        }
        Ok((metadata, fetched))
    }
}

async fn read(file: &InputFile) -> Result<(ParquetMetaData, u64), Fault> {
    let no_parquet = |what: &str| Fault::Corrupt(format!("this is no Parquet file: {what}"));
    let tail_size = FOOTER_SIZE as u64;
    if file.size < tail_size + 4 {
        return Err(no_parquet(&format!("it has {} bytes", file.size)));
    }
    let first = if urls::is_local(&file.name) { FIRST_READ } else { FIRST_FETCH };
    let start = file.size.saturating_sub(first);
    let end = file.get(start..file.size).await?;
    let tail = &end[end.len() - FOOTER_SIZE..];
    let tail = FooterTail::try_from(tail).map_err(|e| no_parquet(&e.to_string()))?;
    let length = tail.metadata_length() as u64;
    let body_end = file.size - tail_size;
    let Some(body_start) = body_end.checked_sub(length).filter(|&start| start >= 4) else {
        return Err(no_parquet("its footer is longer than the file; it may be truncated"));
    };
    let (body, more) = if body_start >= start {
        let from = (body_start - start) as usize;
        (end.slice(from..from + length as usize), 0)
    } else {
        (file.get(body_start..body_end).await?, length)
    };
    // The Thrift parser may panic on hostile bytes; a footer is foreign input.
    let decoded = std::panic::catch_unwind(|| ParquetMetaDataReader::decode_metadata(&body));
    let metadata = decoded
        .map_err(|_| Fault::Corrupt("its footer cannot be decoded".into()))?
        .map_err(|e| Fault::Corrupt(format!("its footer cannot be decoded: {e}")))?;
    Ok((metadata, end.len() as u64 + more))
}
