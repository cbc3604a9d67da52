//! Footers, cached so that planning and scanning do not fetch them twice.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::executor::block_on;
use parking_lot::Mutex;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{ColumnChunkMetaData, FooterTail, ParquetMetaData, RowGroupMetaData};
use tally_common::stores::urls;
use tally_common::waits::{self, WaitKind};
use tally_dataset::ColumnSpec;

use crate::chunk_range;
use crate::error::{Fault, FilePosition, ScanError};
pub use crate::metadata::Unreadable;
use crate::metadata::{self, Unreadables};
use crate::source::InputFile;

/// Bytes fetched from the end of the first object. For later objects it is the size of the previous footer and a
/// margin, because the files of a table have footers of similar size and over-reading small files is wasteful.
const FIRST_FETCH: u64 = 4 << 10;
/// Maximum margin.
const MAX_EXTRA_FETCH: u64 = 4 << 10;
/// Minimum bytes that are fetched.
const MIN_FETCH: u64 = 2 << 10;
/// Bytes read from the end of a local file, where a second read is cheap.
const FIRST_READ: u64 = 8 << 10;
/// The longest footer that is read, in bytes. Footers of tables have a few kilobytes.
const MAX_FOOTER: u64 = 64 << 20;
/// The most values of a page.
const MAX_PAGE_VALUES: u64 = i32::MAX as u64;

/// A cache of footers by file and version, limited in bytes. The oldest are dropped first.
#[derive(Debug)]
pub struct Footers {
    limit: usize,
    inner: Mutex<Inner>,
    /// Bytes to fetch from the end of the next object.
    guess: AtomicU64,
}

/// A file's footer.
#[derive(Debug, Clone)]
pub struct Footer {
    /// The decoded footer.
    pub metadata: Arc<ParquetMetaData>,
    unreadable: Arc<Unreadables>,
    /// Its encoded size, with its length and the magic bytes.
    pub bytes: u64,
    /// Bytes that were fetched for it; 0 if it was cached.
    pub fetched: u64,
}

impl Footer {
    /// Why the column chunk of a leaf cannot be read, if the footer describes it as unreadable.
    pub fn unreadable(&self, row_group: usize, leaf: usize) -> Option<Unreadable> {
        self.unreadable.get(&(row_group, leaf)).copied()
    }

    /// Rejects a file whose footer describes the chunk of a needed column, given with its leaf, as unreadable, or states
    /// numbers that cannot be true.
    ///
    /// # Errors
    /// [`ScanError::Corrupt`], naming file, row group and column.
    pub fn check_readable<'a>(
        &self,
        file: &InputFile,
        columns: impl Iterator<Item = (&'a ColumnSpec, usize)> + Clone,
    ) -> Result<(), ScanError> {
        for (number, group) in self.metadata.row_groups().iter().enumerate() {
            let place = |column| FilePosition { file: file.name.clone(), row_group: Some(number), column };
            let needed = columns.clone().filter(|_| group.num_rows() > 0);
            check_rows(group, file.size, needed.clone().next().is_some())
                .map_err(|fault| fault.at(place(None)))?;
            for (spec, leaf) in needed {
                let found = match self.unreadable(number, leaf) {
                    Some(why) => Fault::corrupt(why.to_string()),
                    None => group.columns().get(leaf).map_or(Ok(()), |c| chunk_range(c, file.size).map(drop)),
                };
                found.map_err(|fault| fault.at(place(Some(spec.path.join(".")))))?;
            }
        }
        Ok(())
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
        let key = key(file);
        if let Some(found) = self.kept(&key) {
            return Ok(found);
        }
        let place = || FilePosition { file: file.name.clone(), ..FilePosition::default() };
        let first = match file.footer {
            _ if urls::is_local(&file.name) => FIRST_READ,
            Some(bytes) => bytes,
            None => self.guess.load(Ordering::Relaxed),
        };
        let footer = read(file, first).await.map_err(|fault| fault.at(place()))?;
        let more = (footer.bytes / 8).min(MAX_EXTRA_FETCH);
        let guess = (footer.bytes + more).next_multiple_of(512).max(MIN_FETCH);
        self.guess.store(guess, Ordering::Relaxed);
        self.keep(key, &footer);
        Ok(footer)
    }

    /// The footer of a local file, read on this thread.
    ///
    /// # Errors
    /// [`ScanError`], naming the file.
    pub fn get_local(&self, file: &InputFile) -> Result<Footer, ScanError> {
        let key = key(file);
        if let Some(found) = self.kept(&key) {
            return Ok(found);
        }
        let _waiting = waits::begin(WaitKind::Store, &file.name);
        let end = check_size(file).ok().and_then(|()| file.local_end(FIRST_READ));
        // The store reports why a file cannot be read.
        let Some(end) = end else { return block_on(self.get(file)) };
        let place = || FilePosition { file: file.name.clone(), ..FilePosition::default() };
        let footer = block_on(read_end(file, end)).map_err(|fault| fault.at(place()))?;
        self.keep(key, &footer);
        Ok(footer)
    }

    fn kept(&self, key: &Key) -> Option<Footer> {
        let inner = self.inner.lock();
        inner.kept.get(key).map(|found| Footer { fetched: 0, ..found.clone() })
    }

    fn keep(&self, key: Key, footer: &Footer) {
        if footer.metadata.num_row_groups() == 0 {
            // Nothing in the file is read.
            return;
        }
        let mut inner = self.inner.lock();
        inner.bytes += footer.memory();
        inner.order.push_back(key.clone());
        inner.kept.insert(key, footer.clone());
        while inner.bytes > self.limit {
            let Some(oldest) = inner.order.pop_front() else { break };
            if let Some(evicted) = inner.kept.remove(&oldest) {
                inner.bytes = inner.bytes.saturating_sub(evicted.memory());
            }
        }
    }
}

fn key(file: &InputFile) -> Key {
    (file.name.clone(), file.etag.clone(), file.size)
}

/// Reads a whole file in one request: its footer and all of its bytes.
///
/// # Errors
/// [`ScanError`], naming the file.
pub async fn read_whole(file: &InputFile) -> Result<(Footer, Bytes), ScanError> {
    let read = async {
        check_size(file)?;
        let bytes = file.get(0..file.size).await?;
        Ok::<_, Fault>((read_end(file, bytes.clone()).await?, bytes))
    };
    read.await.map_err(|fault| fault.at(FilePosition { file: file.name.clone(), ..FilePosition::default() }))
}

/// Reads a footer. The first request reads `first` bytes from the end of the file.
async fn read(file: &InputFile, first: u64) -> Result<Footer, Fault> {
    check_size(file)?;
    let start = file.size.saturating_sub(first.max(FOOTER_SIZE as u64));
    read_end(file, file.get(start..file.size).await?).await
}

fn no_parquet(what: &str) -> Fault {
    Fault::Corrupt(format!(
        "this is not a Parquet file: {what}; if it is not data, move it out of the day's folder: all files in it are data, \
         except those whose names begin with _ or . or end in ._COPYING_"
    ))
}

fn check_size(file: &InputFile) -> Result<(), Fault> {
    let enough = file.size >= FOOTER_SIZE as u64 + 4;
    if enough { Ok(()) } else { Err(no_parquet(&format!("it has {} bytes", file.size))) }
}

/// Reads a footer. `end` is the end of the file, which is already in memory.
async fn read_end(file: &InputFile, end: Bytes) -> Result<Footer, Fault> {
    let tail_size = FOOTER_SIZE as u64;
    let start = file.size - end.len() as u64;
    let tail = &end[end.len() - FOOTER_SIZE..];
    let tail = FooterTail::try_from(tail).map_err(|e| no_parquet(&e.to_string()))?;
    if tail.is_encrypted_footer() {
        return Err(Fault::Corrupt("its footer is encrypted, and encryption is not supported".into()));
    }
    let length = tail.metadata_length() as u64;
    let body_end = file.size - tail_size;
    let Some(body_start) = body_end.checked_sub(length).filter(|&start| start >= 4) else {
        return Err(no_parquet("its footer is longer than the file; it may be truncated"));
    };
    if length > MAX_FOOTER {
        return Err(Fault::Corrupt(format!(
            "its footer has {length} bytes, more than the limit of {MAX_FOOTER}"
        )));
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

/// Checks the number of a row group's rows. `read` says that a needed column is read, which confirms the number.
fn check_rows(group: &RowGroupMetaData, file_size: u64, read: bool) -> Result<(), Fault> {
    let rows = group.num_rows();
    // A page takes at least a byte.
    if u64::try_from(rows).is_ok_and(|rows| rows > file_size.saturating_mul(MAX_PAGE_VALUES)) {
        return Fault::corrupt(format!("{rows} rows are more than a file of {file_size} bytes can have"));
    }
    if read {
        return Ok(());
    }
    // There are no rows, or all of them consist of nulls. A list may have any number of entries.
    let wrong = |chunk: &&ColumnChunkMetaData| {
        let told = rows == 0 || chunk.column_descr().max_rep_level() == 0;
        told && chunk.num_values() >= 0 && chunk.num_values() != rows
    };
    group.columns().iter().find(wrong).map_or(Ok(()), |chunk| {
        let (values, path) = (chunk.num_values(), chunk.column_path().string());
        Fault::corrupt(format!("its footer states {rows} rows, but {values} values of {path}"))
    })
}

/// Decodes a footer.
pub(crate) fn decode(body: &Bytes) -> Result<(ParquetMetaData, Unreadables), Fault> {
    // The Parquet crate may panic on malicious numbers, and a footer is untrusted input.
    let decoded = std::panic::catch_unwind(|| metadata::decode(body));
    decoded.map_err(|_| Fault::Corrupt("its footer cannot be decoded".into()))?
}
