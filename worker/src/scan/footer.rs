//! Footers: read once a file and kept, so that planning and scanning do not fetch them twice.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaData};

use super::error::{Fault, Place, ScanError};
pub use super::metadata::Unreadable;
use super::metadata::{self, Unreadables};
use super::source::InputFile;
use crate::urls;

/// What is fetched of the first object's end at first, in bytes; of the next ones what the footer before had and some
/// more, as files of one table have footers of one size, and days of small files would be fetched in vain.
const FIRST_FETCH: u64 = 4 << 10;
/// The least that is fetched.
const LEAST_FETCH: u64 = 2 << 10;
/// The same of a file on this machine, where a second read costs next to nothing.
const FIRST_READ: u64 = 8 << 10;
/// The longest footer that is read, in bytes; those of tables have some kilobytes.
const MOST_FOOTER: u64 = 64 << 20;

/// Footers by file and version, up to a number of bytes; the oldest go first.
#[derive(Debug)]
pub struct Footers {
    limit: usize,
    inner: Mutex<Inner>,
    /// What to fetch of the next object's end.
    guess: AtomicU64,
}

/// A file's footer.
#[derive(Debug, Clone)]
pub struct Footer {
    /// What it says.
    pub metadata: Arc<ParquetMetaData>,
    unreadable: Arc<Unreadables>,
    /// Its bytes, with its length and the magic.
    pub bytes: u64,
    /// What was fetched for it; 0 where it was kept.
    pub fetched: u64,
}

impl Footer {
    /// Why the column chunk of a leaf cannot be read, where the footer says so.
    pub fn unreadable(&self, row_group: usize, leaf: usize) -> Option<Unreadable> {
        self.unreadable.get(&(row_group, leaf)).copied()
    }

    /// Bytes of memory.
    fn memory(&self) -> usize {
        self.metadata.memory_size() + self.unreadable.capacity() * size_of::<((usize, usize), Unreadable)>()
    }
}

type Key = (String, Option<String>, u64);

#[derive(Debug, Default)]
struct Inner {
    kept: HashMap<Key, Footer>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Footers {
    /// A cache of about `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Footers { limit, inner: Mutex::default(), guess: AtomicU64::new(FIRST_FETCH) }
    }

    /// The footer of a file.
    ///
    /// # Errors
    /// [`ScanError`], naming the file.
    pub async fn get(&self, file: &InputFile) -> Result<Footer, ScanError> {
        let key = (file.name.clone(), file.etag.clone(), file.size);
        if let Some(found) = self.inner.lock().kept.get(&key) {
            return Ok(Footer { fetched: 0, ..found.clone() });
        }
        let place = || Place { file: file.name.clone(), ..Place::default() };
        let first = match file.footer {
            _ if urls::is_local(&file.name) => FIRST_READ,
            Some(bytes) => bytes,
            None => self.guess.load(Ordering::Relaxed),
        };
        let footer = read(file, first).await.map_err(|fault| fault.at(place()))?;
        let guess = (footer.bytes + footer.bytes / 8).next_multiple_of(512).max(LEAST_FETCH);
        self.guess.store(guess, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        inner.bytes += footer.memory();
        inner.order.push_back(key.clone());
        inner.kept.insert(key, footer.clone());
        while inner.bytes > self.limit {
            let Some(oldest) = inner.order.pop_front() else { break };
            if let Some(gone) = inner.kept.remove(&oldest) {
                inner.bytes = inner.bytes.saturating_sub(gone.memory());
            }
        }
        Ok(footer)
    }
}

/// Reads a footer; `first` bytes of the file's end at first.
async fn read(file: &InputFile, first: u64) -> Result<Footer, Fault> {
    let no_parquet = |what: &str| Fault::Corrupt(format!("this is no Parquet file: {what}"));
    let tail_size = FOOTER_SIZE as u64;
    if file.size < tail_size + 4 {
        return Err(no_parquet(&format!("it has {} bytes", file.size)));
    }
    let start = file.size.saturating_sub(first.max(tail_size));
    let end = file.get(start..file.size).await?;
    let tail = &end[end.len() - FOOTER_SIZE..];
    let tail = FooterTail::try_from(tail).map_err(|e| no_parquet(&e.to_string()))?;
    if tail.is_encrypted_footer() {
        return Err(Fault::Corrupt("its footer is encrypted, and there is no way to give a key".into()));
    }
    let length = tail.metadata_length() as u64;
    let body_end = file.size - tail_size;
    let Some(body_start) = body_end.checked_sub(length).filter(|&start| start >= 4) else {
        return Err(no_parquet("its footer is longer than the file; it may be truncated"));
    };
    if length > MOST_FOOTER {
        return Err(Fault::Corrupt(format!("its footer has {length} bytes, more than any is read of")));
    }
    let (body, more) = if body_start >= start {
        let from = (body_start - start) as usize;
        (end.slice(from..from + length as usize), 0)
    } else {
        let missing = file.get(body_start..start).await?;
        let there = end.slice(..end.len() - FOOTER_SIZE);
        ([missing, there].concat().into(), start - body_start)
    };
    let (metadata, unreadable) = decode(&body)?;
    let fetched = end.len() as u64 + more;
    let (metadata, unreadable) = (Arc::new(metadata), Arc::new(unreadable));
    Ok(Footer { metadata, unreadable, bytes: length + tail_size, fetched })
}

/// Decodes a footer.
pub(super) fn decode(body: &Bytes) -> Result<(ParquetMetaData, Unreadables), Fault> {
    // The Parquet crate may panic on hostile numbers; a footer is foreign input.
    let decoded = std::panic::catch_unwind(|| metadata::decode(body));
    decoded.map_err(|_| Fault::Corrupt("its footer cannot be decoded".into()))?
}
