//! Cutting a day into shards by the bytes of the needed columns, and the shuffle into partitions.
//!
//! Pure: one huge file is cut by its row groups, small ones are put together.

use std::sync::Arc;

use tally_proto::v1;
use tally_worker::scan::{InputFile, excerpt};

const MIB: u64 = 1 << 20;

/// A row group, and the bytes of its needed columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowGroupWork {
    /// Its number in the file.
    pub number: u32,
    /// Compressed bytes.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
}

/// Row groups of one file.
#[derive(Debug, Clone)]
pub struct FileWork {
    /// The file.
    pub file: Arc<InputFile>,
    /// What of it.
    pub row_groups: Vec<RowGroupWork>,
    /// What its footer says of the needed columns in them, encoded (decoded, those of 20,000 files took 700 MiB);
    /// empty of files whose footers workers read themselves.
    pub footer: Vec<u8>,
}

/// Bytes of footers in an order, at most; workers fetch the others.
const FOOTER_BYTES: usize = 1 << 20;

impl FileWork {
    /// Bytes of the needed columns.
    pub fn bytes(&self) -> u64 {
        self.row_groups.iter().map(|group| group.bytes).sum()
    }

    /// Rows of its row groups.
    pub fn rows(&self) -> u64 {
        self.row_groups.iter().map(|group| group.rows).fold(0, u64::saturating_add)
    }

    /// What an order says of it, with a footer of at most `room` bytes.
    fn into_piece(self, room: usize) -> v1::InputPiece {
        v1::InputPiece {
            url: self.file.name.clone(),
            size: self.file.size,
            etag: self.file.etag.clone(),
            row_groups: self.row_groups.iter().map(|group| group.number).collect(),
            footer_bytes: self.file.footer.unwrap_or(0),
            footer: if self.footer.len() <= room { self.footer } else { vec![] },
        }
    }
}

/// A shard as orders tell of it.
pub(super) fn pieces(shard: Vec<FileWork>) -> Vec<v1::InputPiece> {
    let mut room = FOOTER_BYTES;
    let piece = |work: FileWork| {
        let piece = work.into_piece(room);
        room -= piece.footer.len();
        piece
    };
    shard.into_iter().map(piece).collect()
}

/// Bytes in a shard, at most, for a day of `bytes` on `slots`: many shards a slot, so that the
/// last ones end together, but none so small that its overhead shows. A file of one sample is better
/// not cut: its clients would be met by each of the parts, and shuffled by each.
pub fn shard_bytes(bytes: u64, slots: usize) -> u64 {
    (bytes / (slots.max(1) as u64 * 32)).clamp(MIB, 256 * MIB)
}

/// Partitions of the shuffle for a day of `bytes` on `slots`: one that divides 100, or is a
/// multiple of it, as the inputs are laid out by `crc32(client_id) % 100`.
pub fn partitions(bytes: u64, slots: usize) -> u32 {
    const FITTING: [u32; 17] =
        [1, 2, 4, 5, 10, 20, 25, 50, 100, 200, 400, 500, 1000, 2000, 4000, 5000, 10_000];
    let wanted = bytes.div_ceil(32 * MIB).max(slots as u64 * 4);
    FITTING.into_iter().find(|&p| u64::from(p) >= wanted).unwrap_or(FITTING[FITTING.len() - 1])
}

/// Cuts a table's files into shards of at most `most` bytes, or one row group.
pub fn cut(files: Vec<FileWork>, most: u64) -> Vec<Vec<FileWork>> {
    let mut shards = vec![];
    let mut small: Vec<FileWork> = vec![];
    let mut small_bytes = 0;
    for file in files {
        let bytes = file.bytes();
        if bytes > most {
            shards.extend(cut_file(&file, most).map(|part| vec![part]));
        } else if bytes >= most / 4 {
            // A file of one sample falls into one partition: worth a shard of its own.
            shards.push(vec![file]);
        } else {
            if small_bytes + bytes > most && !small.is_empty() {
                shards.push(std::mem::take(&mut small));
                small_bytes = 0;
            }
            small_bytes += bytes;
            small.push(file);
        }
    }
    if !small.is_empty() {
        shards.push(small);
    }
    shards
}

fn cut_file(file: &FileWork, most: u64) -> impl Iterator<Item = FileWork> {
    let mut parts: Vec<Vec<RowGroupWork>> = vec![];
    let mut room = 0;
    for &group in &file.row_groups {
        match parts.last_mut() {
            Some(part) if group.bytes <= room => part.push(group),
            _ => {
                parts.push(vec![group]);
                room = most;
            }
        }
        room = room.saturating_sub(group.bytes);
    }
    let source = file.file.clone();
    let whole = (!file.footer.is_empty())
        .then(|| excerpt::decode(file.footer.clone(), &source.name, file.row_groups.len()).ok())
        .flatten();
    parts.into_iter().map(move |row_groups| {
        let numbers: Vec<u32> = row_groups.iter().map(|group| group.number).collect();
        let footer = whole.as_ref().and_then(|whole| excerpt::encode(whole, &numbers).ok());
        FileWork { file: source.clone(), row_groups, footer: footer.unwrap_or_default() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    fn file(sizes: &[u64]) -> FileWork {
        let file = InputFile {
            store: Arc::new(InMemory::new()),
            path: "x".into(),
            name: "x".into(),
            size: 0,
            etag: None,
            footer: None,
        };
        let row_groups =
            (0..).zip(sizes).map(|(number, &bytes)| RowGroupWork { number, bytes, rows: 1 }).collect();
        FileWork { file: Arc::new(file), row_groups, footer: vec![] }
    }

    fn check(files: &[&[u64]], most: u64, expect: &[u64]) {
        let shards = cut(files.iter().map(|sizes| file(sizes)).collect(), most);
        let bytes: Vec<u64> = shards.iter().map(|s| s.iter().map(FileWork::bytes).sum()).collect();
        assert_eq!(bytes, expect);
        let groups: usize = shards.iter().flatten().map(|f| f.row_groups.len()).sum();
        assert_eq!(groups, files.iter().map(|sizes| sizes.len()).sum::<usize>(), "no row group is lost");
    }

    #[test]
    fn one_huge_file_and_many_small_ones_both_balance() {
        check(&[&[40, 40, 40, 40, 10]], 100, &[80, 90]);
        check(&[[1].as_slice(); 1000], 100, &[100; 10]);
        check(&[&[300, 10]], 100, &[300, 10]);
        check(&[&[30], &[30, 20], &[2], &[3]], 100, &[30, 50, 5]);
        check(&[&[0], &[]], 100, &[0]);
    }

    #[test]
    fn partitions_keep_the_inputs_layout() {
        for (bytes, slots) in [(0, 1), (150 * MIB, 2), (2600 * MIB, 2), (30_000 * MIB, 2), (1 << 50, 64)] {
            let p = partitions(bytes, slots);
            assert!(100 % p == 0 || p.is_multiple_of(100), "{p}");
            assert!(u64::from(p) >= (slots as u64 * 4).min(10_000));
        }
        assert_eq!(partitions(2600 * MIB, 2), 100);
    }
}
