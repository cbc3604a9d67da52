//! The division of a day into shards, by the bytes of the needed columns and by the size of the task message, and of the
//! shuffle into partitions.
//!
//! Pure. A large file is split by its row groups; small files are combined.

use std::sync::Arc;

use prost::encoding::encoded_len_varint;
use tally_common::size;
use tally_proto::limits::{LIST_BYTES, MAX_TASKS};
use tally_proto::{ALL_ROW_GROUPS, v1};
use tally_scan::{InputFile, excerpt};

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
    /// The row groups.
    pub row_groups: Vec<RowGroupWork>,
    /// The part of the footer about the needed columns in them, encoded (decoded, those of 20,000 files took 700 MiB);
    /// empty for files whose footers workers read.
    pub footer: Vec<u8>,
}

/// The most bytes of footers in a task message; workers fetch the others. A file with a longer footer is split.
const FOOTER_BYTES: usize = 1 << 20;
/// The most bytes of files in a task message, without their footers.
const PIECES_BYTES: usize = LIST_BYTES;
/// The most row groups of a file in a task message. Their numbers take half of its bytes.
const MAX_PIECE_GROUPS: usize = PIECES_BYTES / 2 / 5;
/// The bytes of a file in a task message, beside its texts and the numbers of its row groups.
const PIECE_FIELDS: usize = 48;

impl FileWork {
    /// A whole small file, whose footer the worker reads.
    pub fn deferred(file: InputFile) -> Self {
        let all = RowGroupWork { number: ALL_ROW_GROUPS, bytes: file.size, rows: 0 };
        FileWork { file: Arc::new(file), row_groups: vec![all], footer: vec![] }
    }

    /// Bytes of the needed columns; for a deferred file all of its bytes.
    pub fn bytes(&self) -> u64 {
        self.row_groups.iter().map(|group| group.bytes).sum()
    }

    /// Rows of its row groups, as far as they are known.
    pub fn rows(&self) -> u64 {
        self.row_groups.iter().map(|group| group.rows).fold(0, u64::saturating_add)
    }

    /// The most bytes of its part of a task message, without the footer.
    pub fn piece_bytes(&self) -> usize {
        let numbers = self.row_groups.iter().map(|group| encoded_len_varint(group.number.into()));
        let etag = self.file.etag.as_ref().map_or(0, String::len);
        self.file.name.len() + etag + numbers.sum::<usize>() + PIECE_FIELDS
    }

    /// Its part of a task message, with a footer of at most `room` bytes.
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

/// A shard's part of a task message.
pub(super) fn pieces(shard: Vec<FileWork>) -> Vec<v1::InputPiece> {
    let mut room = FOOTER_BYTES;
    let piece = |work: FileWork| {
        let piece = work.into_piece(room);
        room -= piece.footer.len();
        piece
    };
    shard.into_iter().map(piece).collect()
}

/// The most bytes of a shard, for a day of `bytes` on `slots`. There are many shards per slot, so that the last ones end
/// at about the same time, but no shard is so small that its overhead matters. A file with one sample is better not
/// split: each part would read and shuffle the same clients.
pub fn shard_bytes(bytes: u64, slots: usize) -> u64 {
    (bytes / (slots.max(1) as u64 * 32)).clamp(MIB, 256 * MIB)
}

/// The most bytes of a shard, as the job asks for it or else as [`shard_bytes`], so that a day of that many bytes and row
/// groups has about half of the allowed number of map tasks at most; and a warning if the job asks for smaller shards.
pub fn shard_limit(asked: Option<u64>, bytes: u64, row_groups: usize, slots: usize) -> (u64, Option<String>) {
    // A shard is not smaller than a quarter of this, except for the last ones of a file or table.
    let least = if row_groups > MAX_TASKS { bytes / (MAX_TASKS as u64 / 8) } else { 0 };
    match asked {
        Some(asked) if asked < least => {
            let warning = format!(
                "shards have {} instead of {}, because a job has at most {MAX_TASKS} map tasks",
                size::text(least),
                size::text(asked)
            );
            (least, Some(warning))
        }
        Some(asked) => (asked, None),
        None => (shard_bytes(bytes, slots).max(least), None),
    }
}

/// The number of partitions of the shuffle for a day of `bytes` on `slots`, `least` or more: a divisor or a multiple of 100,
/// because the inputs are partitioned by `crc32(client_id) % 100`.
pub fn partitions(bytes: u64, slots: usize, least: u64) -> u32 {
    const FITTING: [u32; 17] =
        [1, 2, 4, 5, 10, 20, 25, 50, 100, 200, 400, 500, 1000, 2000, 4000, 5000, 10_000];
    let wanted = bytes.div_ceil(32 * MIB).max(slots as u64 * 4).max(least);
    FITTING.into_iter().find(|&p| u64::from(p) >= wanted).unwrap_or(FITTING[FITTING.len() - 1])
}

/// Divides a table's files into shards of at most `max` bytes, or one row group, that fit into a task message.
pub fn cut(files: Vec<FileWork>, max: u64) -> Vec<Vec<FileWork>> {
    let mut shards = vec![];
    let mut small: Vec<FileWork> = vec![];
    let (mut small_bytes, mut small_pieces) = (0, 0);
    for file in files {
        let (bytes, piece) = (file.bytes(), file.piece_bytes());
        let long = file.footer.len() > FOOTER_BYTES || file.row_groups.len() > MAX_PIECE_GROUPS;
        if bytes > max || long {
            shards.extend(cut_file(&file, max).map(|part| vec![part]));
        } else if bytes >= max / 4 {
            // The rows of a file with one sample fall into one partition, which is worth its own shard.
            shards.push(vec![file]);
        } else {
            let full = small_bytes + bytes > max || small_pieces + piece > PIECES_BYTES;
            if full && !small.is_empty() {
                shards.push(std::mem::take(&mut small));
                (small_bytes, small_pieces) = (0, 0);
            }
            small_bytes += bytes;
            small_pieces += piece;
            small.push(file);
        }
    }
    if !small.is_empty() {
        shards.push(small);
    }
    shards
}

/// Combines neighbouring shards of each table, so that all tables together have at most `most` shards, as far as these
/// fit into task messages.
pub fn combine(tables: Vec<Vec<Vec<FileWork>>>, most: usize) -> Vec<Vec<Vec<FileWork>>> {
    let all: usize = tables.iter().map(Vec::len).sum();
    if all <= most {
        return tables;
    }
    // The last shard of each table may have fewer parts.
    let parts = all.div_ceil(most.saturating_sub(tables.len()).max(1));
    tables.into_iter().map(|shards| combine_table(shards, parts)).collect()
}

/// Combines up to `parts` neighbouring shards.
fn combine_table(shards: Vec<Vec<FileWork>>, parts: usize) -> Vec<Vec<FileWork>> {
    let mut combined: Vec<Vec<FileWork>> = vec![];
    let (mut count, mut bytes) = (parts, 0);
    for shard in shards {
        let pieces = shard.iter().map(FileWork::piece_bytes).sum::<usize>();
        match combined.last_mut() {
            Some(last) if count < parts && bytes + pieces <= PIECES_BYTES => {
                last.extend(shard);
                (count, bytes) = (count + 1, bytes + pieces);
            }
            _ => {
                combined.push(shard);
                (count, bytes) = (1, pieces);
            }
        }
    }
    combined
}

fn cut_file(file: &FileWork, max: u64) -> impl Iterator<Item = FileWork> {
    let mut parts: Vec<Vec<RowGroupWork>> = vec![];
    let mut room = 0;
    // The row groups of a file need about the same number of footer bytes each. A tenth of the limit is kept in reserve.
    let max_groups = FOOTER_BYTES / 10 * 9 * file.row_groups.len() / file.footer.len().max(1);
    let max_groups = max_groups.min(MAX_PIECE_GROUPS);
    for &group in &file.row_groups {
        match parts.last_mut() {
            Some(part) if group.bytes <= room && part.len() < max_groups => part.push(group),
            _ => {
                parts.push(vec![group]);
                room = max;
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
    use object_store::memory::InMemory;
    use prost::Message;
    use tally_proto::MESSAGE_BYTES;
    use tally_proto::limits::entry_len;

    use super::*;

    fn file(sizes: &[u64]) -> FileWork {
        named("x", sizes)
    }

    fn named(name: &str, sizes: &[u64]) -> FileWork {
        let file = InputFile {
            store: Arc::new(InMemory::new()),
            path: "x".into(),
            name: name.into(),
            size: 0,
            etag: None,
            footer: None,
        };
        let row_groups =
            (0..).zip(sizes).map(|(number, &bytes)| RowGroupWork { number, bytes, rows: 1 }).collect();
        FileWork { file: Arc::new(file), row_groups, footer: vec![] }
    }

    fn check(files: &[&[u64]], max: u64, expect: &[u64]) {
        let shards = cut(files.iter().map(|sizes| file(sizes)).collect(), max);
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
    fn a_file_with_a_long_footer_is_split_so_that_its_parts_fit_into_task_messages() {
        let mut long = file(&[1; 1000]);
        long.footer = vec![0; 5 * FOOTER_BYTES];
        let shards = cut(vec![long, file(&[1])], 1 << 40);
        let groups: Vec<usize> = shards.iter().flatten().map(|part| part.row_groups.len()).collect();
        assert_eq!(groups, [179, 179, 179, 179, 179, 105, 1]);
    }

    /// The size of the message of a map task.
    fn message(shard: Vec<FileWork>) -> usize {
        let pieces = pieces(shard);
        let work =
            v1::MapWork { table: 1, partitions: 10_000, pieces, most_sums: u32::MAX, folder: Some(99) };
        let attempt = v1::Attempt { job: "j".repeat(64), stage: 0, index: u32::MAX, attempt: u32::MAX };
        let start = v1::TaskDispatch {
            attempt: Some(attempt),
            dataset: "a".repeat(100),
            key: vec![0; 16],
            work: Some(v1::task_dispatch::Work::Map(work)),
            has_options: true,
        };
        let message = v1::coordinator_message::Message::Start(start);
        v1::CoordinatorMessage { epoch: u64::MAX, message: Some(message) }.encoded_len()
    }

    #[test]
    fn the_size_of_a_file_in_a_task_message_is_not_underestimated() {
        for name in [0, 1, 127, 128, 200, 20_000, 3 << 20] {
            for groups in [0, 1, 100, 20_000] {
                let mut work = named(&"x".repeat(name), &vec![1; groups]);
                let mut input = InputFile::clone(&work.file);
                (input.size, input.footer) = (u64::MAX, Some(u64::MAX));
                input.etag = Some("e".repeat(groups));
                work.file = Arc::new(input);
                let bound = work.piece_bytes();
                let size = entry_len(3, &work.into_piece(0));
                assert!(size <= bound && bound <= size + PIECE_FIELDS, "{size} of {bound}");
            }
        }
    }

    #[test]
    fn small_files_are_combined_only_as_far_as_their_names_fit_into_a_message() {
        // Files without bytes, as in the issue, with names of each length around the bounds of a shard.
        for (files, name) in [(30_000, 200), (5_000, 4_000), (3, PIECES_BYTES / 2), (3, PIECES_BYTES)] {
            let name = "x".repeat(name);
            let shards = cut(vec![named(&name, &[0]); files], 1 << 40);
            assert_eq!(shards.iter().map(Vec::len).sum::<usize>(), files, "no file is lost");
            let one = named(&name, &[0]).piece_bytes();
            let fit = (PIECES_BYTES / one).max(1);
            let full = shards.iter().rev().skip(1).all(|shard| shard.len() == fit);
            assert!(full, "{:?}", shards.iter().map(Vec::len).collect::<Vec<_>>());
            for shard in shards {
                let bytes = message(shard);
                assert!(bytes <= PIECES_BYTES.max(one) + 1024, "{bytes}");
            }
        }
    }

    #[test]
    fn a_file_with_very_many_row_groups_is_split_so_that_their_numbers_fit_into_a_message() {
        for (groups, parts) in [
            (MAX_PIECE_GROUPS - 1, vec![MAX_PIECE_GROUPS - 1]),
            (MAX_PIECE_GROUPS, vec![MAX_PIECE_GROUPS]),
            (MAX_PIECE_GROUPS + 1, vec![MAX_PIECE_GROUPS, 1]),
            (5 * MAX_PIECE_GROUPS / 2, vec![MAX_PIECE_GROUPS, MAX_PIECE_GROUPS, MAX_PIECE_GROUPS / 2]),
        ] {
            let mut file = file(&vec![0; groups]);
            file.row_groups.iter_mut().for_each(|group| group.number += u32::MAX - (1 << 20));
            let shards = cut(vec![file], 1 << 40);
            assert_eq!(shards.iter().flatten().map(|part| part.row_groups.len()).collect::<Vec<_>>(), parts);
            assert!(shards.into_iter().all(|shard| message(shard) <= MESSAGE_BYTES / 4));
        }
    }

    #[test]
    fn files_and_footers_together_fit_into_a_message() {
        let mut files = vec![named(&"x".repeat(100), &[0]); 50_000];
        files.iter_mut().for_each(|file| file.footer = vec![7; 1000]);
        for shard in cut(files, 1 << 40) {
            assert!(message(shard) <= MESSAGE_BYTES * 6 / 10);
        }
    }

    #[test]
    fn a_job_that_asks_for_tiny_shards_gets_a_limited_number_of_map_tasks() {
        let files = |count: usize, size| vec![file(&[size]); count];
        for (files, asked) in [
            (files(3 * MAX_TASKS, 7), 1),
            (files(MAX_TASKS + 1, 1000), 999),
            (vec![file(&vec![5; 2 * MAX_TASKS])], 1),
            (files(2 * MAX_TASKS, 3), 4),
        ] {
            let bytes = files.iter().map(FileWork::bytes).sum();
            let row_groups = files.iter().map(|file| file.row_groups.len()).sum();
            let (max, warning) = shard_limit(Some(asked), bytes, row_groups, 2);
            let shards = cut(files, max).len();
            assert!(shards <= MAX_TASKS && shards > MAX_TASKS / 20, "{shards} shards of {max}");
            assert!(warning.is_some_and(|warning| warning.contains("at most 200000 map tasks")));
        }
        for row_groups in [1, MAX_TASKS - 1, MAX_TASKS] {
            assert_eq!(shard_limit(Some(1), 1 << 60, row_groups, 2), (1, None));
        }
        assert_eq!(shard_limit(None, 1000, MAX_TASKS + 1, 2), (MIB, None));
        let (huge, _) = shard_limit(None, 1 << 60, MAX_TASKS + 1, 2);
        assert_eq!(huge, (1 << 60) / (MAX_TASKS as u64 / 8));
    }

    #[test]
    fn shards_are_combined_until_there_are_few_enough() {
        for (counts, most) in [
            (vec![10, 0], 10),
            (vec![11, 0], 10),
            (vec![16_000, 16_000], 4194),
            (vec![30_000, 1], 8388),
            (vec![200_000, 200_000], 1677),
            (vec![1, 5], 3),
        ] {
            let table = |&count: &usize| cut(vec![file(&[100]); count], 100);
            let before: Vec<_> = counts.iter().map(table).collect();
            let combined = combine(before, most);
            let all: usize = combined.iter().map(Vec::len).sum();
            assert!(all <= most && all > most / 4, "{all} of {counts:?}, {most} at most");
            let files: Vec<usize> =
                combined.iter().map(|shards| shards.iter().map(Vec::len).sum::<usize>()).collect();
            assert_eq!(files, counts, "no file is lost");
        }
        // Task messages limit what can be combined.
        let long = "x".repeat(PIECES_BYTES / 3);
        let combined = combine(vec![cut(vec![named(&long, &[100]); 9], 100)], 2);
        assert_eq!(combined[0].iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 2, 1]);
        assert!(combined.into_iter().flatten().all(|shard| message(shard) <= PIECES_BYTES + 1024));
    }

    #[test]
    fn partitions_keep_the_inputs_layout() {
        for (bytes, slots) in [(0, 1), (150 * MIB, 2), (2600 * MIB, 2), (30_000 * MIB, 2), (1 << 50, 64)] {
            let p = partitions(bytes, slots, 0);
            assert!(100 % p == 0 || p.is_multiple_of(100), "{p}");
            assert!(u64::from(p) >= (slots as u64 * 4).min(10_000));
        }
        assert_eq!(partitions(2600 * MIB, 2, 0), 100);
    }
}
