//! The assignment of encoded row groups to part files.
//!
//! Pure. The number of files is `ceil(rows * bytes_per_row / target)`, as in the original program, at least one. Row
//! groups are never larger than a file, so there are enough of them. Of a day with folders, each folder is laid out by itself: its
//! files have the rows of one partition, and there is one even if that has no rows.

/// A row group of a reduce task's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// The reduce task.
    pub task: u32,
    /// The number of the row group in the task's output.
    pub row_group: u32,
    /// Its rows.
    pub rows: u64,
}

/// A part file that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// The number of its folder within the day, for a dataset with folders.
    pub folder: Option<u32>,
    /// Its row groups, in order.
    pub groups: Vec<Encoded>,
}

impl PlannedFile {
    /// Its rows.
    pub fn rows(&self) -> u64 {
        rows_of(&self.groups)
    }
}

/// How a day is divided into part files.
#[derive(Debug, Clone, Copy)]
pub struct FileSizes {
    /// The target size of a file, in bytes.
    pub target: u64,
    /// The estimated bytes of a row.
    pub bytes_per_row: u64,
    /// The folders of the day, each with the rows of the reduce task of its number; `None` if the files are in the day's folder.
    pub folders: Option<u32>,
}

impl FileSizes {
    /// The number of part files. The row groups are in the order of their tasks.
    pub fn count(&self, groups: &[Encoded]) -> u64 {
        self.parts(groups).map(|(_, mine)| self.count_of(mine)).fold(0, u64::saturating_add)
    }

    /// The part files, in the order of their folders. The row groups are in the order of their tasks.
    pub fn layout(&self, groups: &[Encoded]) -> Vec<PlannedFile> {
        let laid_out = self.parts(groups).flat_map(|(folder, mine)| {
            let files = usize::try_from(self.count_of(mine)).unwrap_or(usize::MAX);
            layout(mine, files).into_iter().map(move |groups| PlannedFile { folder, groups })
        });
        laid_out.collect()
    }

    fn count_of(&self, groups: &[Encoded]) -> u64 {
        count(rows_of(groups), self.target, self.bytes_per_row)
    }

    /// The row groups that share files, with their folder.
    fn parts<'a>(
        &self,
        groups: &'a [Encoded],
    ) -> Box<dyn Iterator<Item = (Option<u32>, &'a [Encoded])> + 'a> {
        let Some(folders) = self.folders else { return Box::new(std::iter::once((None, groups))) };
        Box::new((0..folders).map(move |folder| {
            let from = groups.partition_point(|group| group.task < folder);
            let to = groups.partition_point(|group| group.task <= folder);
            (Some(folder), &groups[from..to])
        }))
    }
}

fn rows_of(groups: &[Encoded]) -> u64 {
    groups.iter().map(|group| group.rows).fold(0, u64::saturating_add)
}

/// The most rows of a row group.
const MAX_ROW_GROUP_ROWS: u64 = 1 << 20;

/// The most rows of a row group that fits into a file of `target` bytes.
pub fn row_group_rows(target: u64, bytes_per_row: u64) -> u64 {
    (target / bytes_per_row).clamp(1, MAX_ROW_GROUP_ROWS)
}

/// The number of part files for that many rows.
fn count(rows: u64, target: u64, bytes_per_row: u64) -> u64 {
    let bytes = u128::from(rows) * u128::from(bytes_per_row);
    let files = u64::try_from(bytes.div_ceil(u128::from(target.max(1)))).unwrap_or(u64::MAX);
    // Every file has at least one row, even if the target is smaller than a row.
    files.min(rows).max(1)
}

/// Distributes row groups over `files` files, in order and as evenly as possible. Each file gets at least one while
/// there are enough.
fn layout(groups: &[Encoded], files: usize) -> Vec<Vec<Encoded>> {
    let mut left = rows_of(groups);
    let mut rest = groups;
    let mut out = Vec::with_capacity(files);
    for file in 0..files {
        let files_left = files - file;
        let share = left / files_left as u64;
        let max = rest.len().saturating_sub(files_left - 1);
        let mut rows = 0;
        let mut taken = 0;
        while taken < max && (taken == 0 || files_left == 1 || rows + rest[taken].rows / 2 <= share) {
            rows += rest[taken].rows;
            taken += 1;
        }
        let (mine, others) = rest.split_at(taken);
        out.push(mine.to_vec());
        rest = others;
        left -= rows;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_files_is_that_of_the_original_program() {
        assert_eq!(count(0, 280_000_000, 38), 1);
        assert_eq!(count(7_368_421, 280_000_000, 38), 1);
        assert_eq!(count(7_368_422, 280_000_000, 38), 2);
        assert_eq!(count(59_350_013, 280_000_000, 38), 9);
        assert_eq!(count(1_658, 1, 38), 1_658);
    }

    #[test]
    fn every_row_group_is_in_one_file_and_no_file_is_empty() {
        for (groups, target) in [(1, 100), (7, 100), (100, 380), (101, 3_800), (9, 38)] {
            let max = row_group_rows(target, 38);
            let groups: Vec<Encoded> = (0..groups)
                .map(|task| Encoded { task, row_group: 0, rows: 1 + u64::from(task) * 7 % max })
                .collect();
            let rows: u64 = groups.iter().map(|g| g.rows).sum();
            let files = count(rows, target, 38) as usize;
            let layout = layout(&groups, files);
            assert_eq!(layout.len(), files);
            assert!(layout.iter().all(|file| !file.is_empty()), "{layout:?}");
            assert_eq!(layout.concat(), groups);
            let sizes: Vec<u64> = layout.iter().map(|f| f.iter().map(|g| g.rows).sum()).collect();
            assert!(sizes.iter().all(|&size| size <= rows / files as u64 + 2 * max), "{sizes:?}");
        }
        assert_eq!(layout(&[], 1), vec![vec![]]);
    }

    #[test]
    fn folders_do_not_share_files_and_each_has_one() {
        let group = |task, row_group, rows| Encoded { task, row_group, rows };
        // Folder 1 has no rows, folder 3 no row groups.
        let groups = [group(0, 0, 10), group(1, 0, 0), group(2, 0, 60), group(2, 1, 60), group(2, 2, 30)];
        let sizes = FileSizes { target: 100, bytes_per_row: 1, folders: Some(4) };
        let files = sizes.layout(&groups);
        assert_eq!(files.len() as u64, sizes.count(&groups));
        let folders: Vec<_> = files.iter().map(|file| file.folder).collect();
        assert_eq!(folders, [0, 1, 2, 2, 3].map(Some));
        assert_eq!(files.iter().map(PlannedFile::rows).collect::<Vec<_>>(), [10, 0, 60, 90, 0]);
        for file in &files {
            assert!(file.groups.iter().all(|group| Some(group.task) == file.folder), "{file:?}");
        }
        let all: Vec<Encoded> = files.into_iter().flat_map(|file| file.groups).collect();
        assert_eq!(all, groups);
        assert_eq!(FileSizes { folders: None, ..sizes }.count(&groups), 2);
        assert_eq!(sizes.count(&[]), 4);
    }
}
