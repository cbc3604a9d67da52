//! Reduce outputs: an encoded file in memory or on disk, and its writer.
//!
//! Not here: the meaning of the bytes.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use tally_common::budget::Reservation;

use super::{Store, StoreError};
use crate::spill::SpillFile;

/// A reduce task's encoded rows.
pub struct FileOutput {
    bytes: Bytes,
    file: Option<SpillFile>,
    _held: Vec<Reservation>,
}

impl FileOutput {
    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64 + self.file.as_ref().map_or(0, SpillFile::len)
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of it that are on disk.
    pub fn spilled_bytes(&self) -> u64 {
        self.file.as_ref().map_or(0, SpillFile::len)
    }

    /// A range of it.
    ///
    /// # Errors
    /// [`StoreError`]: the read failed.
    pub fn read(&self, at: u64, length: usize) -> Result<Bytes, StoreError> {
        match &self.file {
            Some(file) => Ok(file.read_at(at, length)?),
            None => {
                let start = usize::try_from(at).unwrap_or(usize::MAX).min(self.bytes.len());
                Ok(self.bytes.slice(start..start.saturating_add(length).min(self.bytes.len())))
            }
        }
    }
}

/// Bytes reserved at a time as a file grows in memory.
const GROWTH: usize = 4 << 20;

/// Writes a reduce task's encoded rows: in memory as long as there is room, then completely on disk.
pub struct FileWriter<'a> {
    pub(super) store: &'a Store,
    pub(super) bytes: Vec<u8>,
    pub(super) held: Vec<Reservation>,
    pub(super) file: Option<SpillFile>,
}

impl FileWriter<'_> {
    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64 + self.file.as_ref().map_or(0, SpillFile::len)
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the output and its size in bytes.
    pub fn finish(mut self) -> (Arc<FileOutput>, u64) {
        self.bytes.shrink_to_fit();
        // The reservation is reduced to the actual size. If another task takes the memory in between, less than one
        // step of growth stays unreserved.
        self.held.clear();
        self.held.extend(self.store.budget.try_reserve(self.bytes.len()));
        let output = FileOutput { bytes: self.bytes.into(), file: self.file, _held: self.held };
        let bytes = output.len();
        (Arc::new(output), bytes)
    }
}

impl Write for FileWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.file.is_none() {
            let room = self.held.len() * GROWTH;
            if self.bytes.len() + bytes.len() > room {
                let more = (self.bytes.len() + bytes.len() - room).div_ceil(GROWTH);
                let held: Option<Vec<_>> = (0..more).map(|_| self.store.budget.try_reserve(GROWTH)).collect();
                match held {
                    Some(held) => {
                        self.held.extend(held);
                        self.bytes.reserve_exact(self.held.len() * GROWTH - self.bytes.len());
                    }
                    None => {
                        let mut file = self.store.spill.file().map_err(std::io::Error::other)?;
                        file.append(&std::mem::take(&mut self.bytes)).map_err(std::io::Error::other)?;
                        self.held.clear();
                        self.file = Some(file);
                    }
                }
            }
        }
        match &mut self.file {
            Some(file) => {
                file.append(bytes).map_err(std::io::Error::other)?;
            }
            None => self.bytes.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
