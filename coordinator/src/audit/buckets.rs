//! A multiset of rows in bounded memory: an entry per row, divided into buckets by the hash of its key. Entries that do not
//! fit into memory are stored in a temporary file that has no name, so it disappears with the process. All of it blocks.
//!
//! Not here: what is hashed (`row_hashes`), and what follows from the entries of a bucket.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::AuditError;

/// The number of buckets.
pub const BUCKETS: usize = 256;
/// Bytes of a stored entry.
const ENTRY: usize = 24;

/// What is kept of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Hash of its key.
    pub key: u64,
    /// Hash of the columns that are compared.
    pub row: u64,
    /// Where the row is, and flags; see [`Tag`].
    pub tag: u64,
}

/// The location of a row, and flags: 8 bits of flags, 20 bits for the number of the file, 36 bits for that of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// The number of the file in the list of the day's files.
    pub file: u64,
    /// The number of the row in the file, from 0.
    pub row: u64,
    /// Any flags.
    pub flags: u8,
}

const FILE_BITS: u32 = 20;
const ROW_BITS: u32 = 36;

impl Tag {
    /// The tag as a number. Numbers have the order of files and rows within equal flags.
    pub fn pack(self) -> u64 {
        let Tag { file, row, flags } = self;
        u64::from(flags) << (FILE_BITS + ROW_BITS)
            | (file & ((1 << FILE_BITS) - 1)) << ROW_BITS
            | row & ((1 << ROW_BITS) - 1)
    }

    /// The tag of a number.
    pub fn unpack(number: u64) -> Self {
        Tag {
            file: number >> ROW_BITS & ((1 << FILE_BITS) - 1),
            row: number & ((1 << ROW_BITS) - 1),
            flags: (number >> (FILE_BITS + ROW_BITS)) as u8,
        }
    }
}

/// Consecutive entries of a bucket in the file.
#[derive(Debug, Clone, Copy)]
struct Extent {
    start: u64,
    entries: usize,
}

/// Entries by bucket.
#[derive(Debug)]
pub struct Buckets {
    dir: PathBuf,
    /// Maximum number of entries in memory.
    limit: usize,
    held: usize,
    lists: Vec<Vec<Entry>>,
    file: Option<File>,
    end: u64,
    extents: Vec<Vec<Extent>>,
    all: u64,
}

fn bucket_of(entry: &Entry) -> usize {
    (entry.key >> 56) as usize % BUCKETS
}

impl Buckets {
    /// No entries; at most about `memory` bytes are used, also while a bucket is read. `dir` is the folder for the temporary
    /// file.
    pub fn new(memory: u64, dir: PathBuf) -> Self {
        // A list may have twice the capacity that it uses.
        let limit = usize::try_from(memory / (2 * ENTRY as u64)).unwrap_or(usize::MAX).max(BUCKETS);
        Buckets {
            dir,
            limit,
            held: 0,
            lists: vec![vec![]; BUCKETS],
            file: None,
            end: 0,
            extents: vec![vec![]; BUCKETS],
            all: 0,
        }
    }

    /// All entries.
    pub fn len(&self) -> u64 {
        self.all
    }

    /// Adds entries.
    ///
    /// # Errors
    /// [`AuditError::Spill`].
    pub fn add(&mut self, entries: &[Entry]) -> Result<(), AuditError> {
        for entry in entries {
            self.lists[bucket_of(entry)].push(*entry);
        }
        self.held += entries.len();
        self.all += entries.len() as u64;
        if self.held > self.limit { self.spill().map_err(|e| self.failed(e)) } else { Ok(()) }
    }

    fn failed(&self, source: io::Error) -> AuditError {
        AuditError::Spill { dir: self.dir.clone(), source }
    }

    /// Writes all entries in memory to the file.
    fn spill(&mut self) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile_in(&self.dir)?,
        };
        let mut bytes = vec![];
        for (list, extents) in self.lists.iter_mut().zip(&mut self.extents) {
            bytes.clear();
            for Entry { key, row, tag } in list.iter() {
                [key, row, tag].iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
            }
            file.write_all_at(&bytes, self.end)?;
            extents.push(Extent { start: self.end, entries: list.len() });
            self.end += bytes.len() as u64;
            list.clear();
        }
        self.held = 0;
        self.file = Some(file);
        Ok(())
    }

    /// Takes the entries of a bucket, sorted.
    ///
    /// # Errors
    /// [`AuditError::Spill`]; [`AuditError::Memory`] if they do not fit.
    pub fn take(&mut self, bucket: usize) -> Result<Vec<Entry>, AuditError> {
        let extents = std::mem::take(&mut self.extents[bucket]);
        let mut entries = std::mem::take(&mut self.lists[bucket]);
        let stored: usize = extents.iter().map(|extent| extent.entries).sum();
        if stored > 0 && entries.len() + stored > self.limit {
            return Err(AuditError::Memory { rows: (entries.len() + stored) as u64 });
        }
        entries.reserve_exact(stored);
        for extent in extents {
            self.load(extent, &mut entries).map_err(|e| self.failed(e))?;
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn load(&self, extent: Extent, entries: &mut Vec<Entry>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut bytes = vec![0; extent.entries * ENTRY];
        file.read_exact_at(&mut bytes, extent.start)?;
        let word =
            |piece: &[u8], at: usize| piece[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        entries.extend(bytes.chunks_exact(ENTRY).map(|piece| Entry {
            key: word(piece, 0),
            row: word(piece, 8),
            tag: word(piece, 16),
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entries_come_back_by_bucket_from_memory_and_from_the_file(
            words in prop::collection::vec(any::<[u64; 3]>(), 0..3_000),
            piece in 1..700usize,
            memory in prop_oneof![Just(1u64), Just(20_000), Just(1 << 30)],
        ) {
            let mut entries: Vec<Entry> =
                words.into_iter().map(|[key, row, tag]| Entry { key, row, tag }).collect();
            let mut buckets = Buckets::new(memory, std::env::temp_dir());
            entries.chunks(piece).for_each(|some| buckets.add(some).unwrap());
            prop_assert_eq!(buckets.len(), entries.len() as u64);
            prop_assert!(buckets.held <= buckets.limit);
            let mut found = vec![];
            for bucket in 0..BUCKETS {
                let taken = buckets.take(bucket).unwrap();
                prop_assert!(taken.is_sorted());
                prop_assert!(taken.iter().all(|entry| bucket_of(entry) == bucket));
                found.extend(taken);
            }
            found.sort_unstable();
            entries.sort_unstable();
            prop_assert_eq!(found, entries);
        }

        #[test]
        fn a_tag_has_the_location_and_the_flags(file in 0..1u64 << FILE_BITS, row in 0..1u64 << ROW_BITS, flags: u8) {
            let tag = Tag { file, row, flags };
            prop_assert_eq!(Tag::unpack(tag.pack()), tag);
        }
    }

    #[test]
    fn a_bucket_that_does_not_fit_is_an_error() {
        let mut buckets = Buckets::new(1, std::env::temp_dir());
        let entry = Entry { key: 7, row: 1, tag: 0 };
        (0..3).for_each(|_| buckets.add(&vec![entry; BUCKETS]).unwrap());
        assert!(matches!(buckets.take(0), Err(AuditError::Memory { rows: 768 })));
    }
}
