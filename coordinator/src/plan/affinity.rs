//! Affinities: shards whose rows probably belong to the same partitions of the shuffle, by the folders of their files. The
//! scheduler runs the tasks of one affinity on one worker, and their partitions are then reduced there.
//!
//! Only a hint for placement, and for where shards end. No result depends on it: partitions are computed from the rows,
//! whatever a folder is called. Not here: the placement (the scheduler), the cut of files (`shards`).

use std::collections::HashSet;

use tally_proto::v1;

use super::shards::FileWork;

/// Partitions per slot of a co-partitioned day. A partition that is reduced on another worker is then a small part of the
/// day.
const PARTITIONS_PER_SLOT: u64 = 16;
/// A shard has at least this part of the most bytes of a shard if it ends with its affinity. Smaller files are combined,
/// whatever their folders.
const MIN_SHARD_PART: u64 = 16;

/// The last `NAME=VALUE` folder of a file below the day's folder.
fn folder<'a>(name: &'a str, day_folder: &str) -> Option<&'a str> {
    let (folders, _) = name.rsplit_once('/')?;
    let below = folders.split('/').skip_while(|folder| *folder != day_folder).skip(1);
    below.filter(|folder| folder.split_once('=').is_some_and(|(name, _)| !name.is_empty())).last()
}

/// The affinity of a file: the same for files in folders of the same value. Production numbers its folders as the shuffle
/// numbers its partitions, so numbers are taken modulo `partitions`.
pub fn of_file(name: &str, day_folder: &str, partitions: u32) -> Option<u32> {
    let folder = folder(name, day_folder)?;
    let (_, value) = folder.split_once('=')?;
    Some(match value.parse::<u64>() {
        Ok(number) => (number % u64::from(partitions.max(1))) as u32,
        Err(_) => crc32fast::hash(folder.as_bytes()),
    })
}

/// The affinity of a map task: that of its files, if they have the same.
pub fn of_task(work: &v1::MapWork, day_folder: &str) -> Option<u32> {
    let mut files = work.pieces.iter().map(|piece| of_file(&piece.url, day_folder, work.partitions));
    let first = files.next()??;
    files.all(|other| other == Some(first)).then_some(first)
}

/// The least number of partitions for tables with these files, together on `slots`, so that most of a co-partitioned day stays where
/// it is: not more than there are folders.
pub fn partitions<'a>(files: impl Iterator<Item = &'a FileWork>, day_folder: &str, slots: usize) -> u64 {
    let folders: HashSet<_> = files.filter_map(|file| folder(&file.file.name, day_folder)).collect();
    (slots as u64 * PARTITIONS_PER_SLOT).min(folders.len() as u64)
}

/// Groups of files, in the order of their affinities, so that shards of one group each have one affinity where it has
/// enough bytes: shards have at most `max`. Files without differences stay in one group, in their order.
pub fn groups(mut files: Vec<FileWork>, day_folder: &str, partitions: u32, max: u64) -> Vec<Vec<FileWork>> {
    let affinity = |file: &FileWork| {
        let found = of_file(&file.file.name, day_folder, partitions);
        // Files without an affinity come last.
        found.map_or(u64::MAX, u64::from)
    };
    files.sort_by_cached_key(affinity);
    let mut groups: Vec<Vec<FileWork>> = vec![];
    let (mut bytes, mut last) = (0, None);
    for file in files {
        let this = Some(affinity(&file));
        let ends = last != this && bytes >= max / MIN_SHARD_PART;
        (bytes, last) = (if ends { file.bytes() } else { bytes + file.bytes() }, this);
        match groups.last_mut() {
            Some(group) if !ends => group.push(file),
            _ => groups.push(vec![file]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use tally_scan::InputFile;

    use super::*;
    use crate::plan::shards::RowGroupWork;

    const DAY: &str = "submission_date_s3=20170227";

    fn file(folder: &str, bytes: u64) -> FileWork {
        let file = InputFile {
            store: Arc::new(InMemory::new()),
            path: "x".into(),
            name: format!("s3://lake/addons/v2/{DAY}/{folder}/part-0.parquet"),
            size: bytes,
            etag: None,
            footer: None,
        };
        let row_groups = vec![RowGroupWork { number: 0, bytes, rows: 1 }];
        FileWork { file: Arc::new(file), row_groups, footer: vec![] }
    }

    #[test]
    fn the_last_folder_below_the_day_decides() {
        let of = |name: &str| of_file(name, DAY, 25);
        let day = format!("/data/region=7/addons/{DAY}");
        assert_eq!(of(&format!("{day}/sample_id=42/a.parquet")), Some(17));
        assert_eq!(of(&format!("{day}/hour=3/sample_id=42/x/a.parquet")), Some(17));
        assert_eq!(of(&format!("{day}/bucket=042/a.parquet")), Some(17));
        let text = of(&format!("{day}/bucket=ab/a.parquet"));
        assert!(text.is_some() && text != of(&format!("{day}/bucket=ac/a.parquet")));
        assert_eq!(of(&format!("{day}/sample_id=18446744073709551615/a.parquet")), Some(15));
        for without in ["a.parquet", "sample/a.parquet", "sample_id=1.parquet", "=1/a.parquet"] {
            assert_eq!(of(&format!("{day}/{without}")), None, "{without}");
        }
        assert_eq!(of("/data/sample_id=1/a.parquet"), None, "it is not below the day");
        assert_eq!(of(""), None);
    }

    #[test]
    fn a_task_with_files_of_several_affinities_has_none() {
        let task = |samples: &[&str]| {
            let url = |sample: &&str| format!("/data/{DAY}/{sample}/a.parquet");
            let pieces =
                samples.iter().map(|sample| v1::InputPiece { url: url(sample), ..Default::default() });
            of_task(&v1::MapWork { partitions: 25, pieces: pieces.collect(), ..Default::default() }, DAY)
        };
        assert_eq!(task(&["sample_id=1", "sample_id=26"]), Some(1));
        assert_eq!(task(&["sample_id=1", "sample_id=2"]), None);
        assert_eq!(task(&["sample_id=1", "other"]), None);
        assert_eq!(task(&["other", "sample_id=1"]), None);
        assert_eq!(task(&[]), None);
    }

    /// The sizes of the files of each group.
    fn grouped(files: &[(&str, u64)]) -> Vec<Vec<u64>> {
        let files = files.iter().map(|(folder, bytes)| file(folder, *bytes)).collect();
        let groups = groups(files, DAY, 2, 160);
        groups.iter().map(|group| group.iter().map(FileWork::bytes).collect()).collect()
    }

    #[test]
    fn a_group_ends_with_its_affinity_if_it_is_large_enough() {
        assert_eq!(
            grouped(&[("s=0", 10), ("s=1", 20), ("s=2", 11), ("s=3", 21)]),
            [vec![10, 11], vec![20, 21]]
        );
        assert_eq!(grouped(&[("s=0", 4), ("s=1", 20), ("s=2", 5), ("x", 30)]), [vec![4, 5, 20], vec![30]]);
        assert_eq!(grouped(&[("x", 500), ("y", 1), ("x", 7)]), [vec![500, 1, 7]]);
        assert_eq!(grouped(&[]), Vec::<Vec<u64>>::new());
    }

    #[test]
    fn there_are_not_more_partitions_than_folders() {
        let tables = |samples: u32| {
            let files: Vec<_> = (0..samples).map(|n| file(&format!("sample_id={n}"), 1)).collect();
            [files.clone(), files]
        };
        assert_eq!(partitions(tables(100).iter().flatten(), DAY, 3), 48);
        assert_eq!(partitions(tables(100).iter().flatten(), DAY, 1000), 100);
        assert_eq!(partitions([file("x", 1)].iter(), DAY, 3), 0);
    }
}
