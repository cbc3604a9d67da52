//! What an output must look like on disk: only part files under the partition, exactly the columns of
//! `addon_aggregates`, and no other files next to it; and exact snapshots of a folder for runs that must change
//! nothing. Not here: the rows (`table`).

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::rows::Row;
use crate::{checksum, objectives, table};

/// Name, physical type and nullability of the columns, in order. `client_id` is a string.
const COLUMNS: [(&str, Physical, Repetition); 9] = [
    ("client_id", Physical::BYTE_ARRAY, Repetition::OPTIONAL),
    ("foreign_install", Physical::BOOLEAN, Repetition::OPTIONAL),
    ("count", Physical::INT64, Repetition::REQUIRED),
    ("user_type", Physical::INT64, Repetition::OPTIONAL),
    ("profile_creation_date", Physical::INT64, Repetition::OPTIONAL),
    ("min_install_day", Physical::INT32, Repetition::OPTIONAL),
    ("has_custom_theme", Physical::INT64, Repetition::OPTIONAL),
    ("n_custom_theme_clients", Physical::INT32, Repetition::REQUIRED),
    ("n_clients", Physical::INT32, Repetition::REQUIRED),
];

/// A new folder with room for an output, a spill folder and other files of a test. It is removed when dropped.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A new empty place.
    pub fn new() -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("tally test ").tempdir().context("making a temporary folder")?;
        std::fs::create_dir(dir.path().join("published"))?;
        std::fs::create_dir(dir.path().join("spill"))?;
        Ok(Self { dir })
    }

    /// The place itself.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A folder that holds only the output, so that anything else in it was left behind.
    pub fn published(&self) -> PathBuf {
        self.dir.path().join("published")
    }

    /// The dataset's root for `--output`.
    pub fn output(&self) -> PathBuf {
        self.published().join("agg/v1")
    }

    /// The partition of `date` under the dataset's root.
    pub fn partition(&self, date: &str) -> PathBuf {
        self.output().join(format!("submission_date_s3={date}"))
    }

    /// The folder for `--spill-dir`.
    pub fn spill(&self) -> PathBuf {
        self.dir.path().join("spill")
    }

    /// Writes an old output of `date` here: two part files with bytes that no job would write.
    pub fn put_old_output(&self, date: &str) -> Result<()> {
        let partition = self.partition(date);
        std::fs::create_dir_all(&partition)?;
        std::fs::write(partition.join("part-00000-old.snappy.parquet"), b"the old day")?;
        std::fs::write(partition.join("part-00001-old.snappy.parquet"), vec![0xA5; 70_000])?;
        Ok(())
    }

    /// Reads the output of `date` after checking its files and what its footers state about its rows: see
    /// [`check_published`], [`check_schema`], [`checksum::verify`] and [`objectives::check`].
    pub fn read_output(&self, date: &str) -> Result<Vec<Row>> {
        check_published(&self.published(), &self.partition(date))?;
        check_no_spill(&self.spill())?;
        for file in table::data_files(&self.partition(date))? {
            check_schema(&file)?;
        }
        // Workers of the previous release may report no checksums.
        if std::env::var_os("TALLY_BEFORE").is_none() {
            checksum::verify(&self.partition(date))?;
        }
        let rows = table::read_aggregates(&self.partition(date))?;
        // Workers of the previous release do not count.
        if std::env::var_os("TALLY_BEFORE").is_none() {
            objectives::check(&self.partition(date), &rows)?;
        }
        Ok(rows)
    }
}

/// The part files of a partition.
pub fn part_files(partition: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(partition).with_context(|| format!("listing {}", partition.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Whether this is the name of a part file.
pub fn is_part_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("part-") && name.ends_with(".snappy.parquet")
}

/// Checks that `published` holds the path down to `partition`, part files in it, and nothing else at any depth: no
/// staging folder, no marker, no hidden file. The objectives table of the day may be beside the output.
pub fn check_published(published: &Path, partition: &Path) -> Result<()> {
    let mut parts = 0;
    let table = objectives::file_of(partition);
    for (name, entry) in snapshot(published)? {
        let path = published.join(&name);
        match entry {
            Entry::Folder => {
                let expected = partition.starts_with(&path) || table.starts_with(&path);
                ensure!(expected, "the folder {} was left behind", path.display())
            }
            Entry::File(_) if path == table => {}
            Entry::File(_) => {
                ensure!(path.parent() == Some(partition), "the file {} was left behind", path.display());
                ensure!(is_part_name(&path), "{} is no part file", path.display());
                parts += 1;
            }
        }
    }
    ensure!(parts > 0, "no part file in {}", partition.display());
    Ok(())
}

/// Checks that a job left nothing in its spill folder.
pub fn check_no_spill(spill: &Path) -> Result<()> {
    if spill.exists() {
        let left: Vec<_> = snapshot(spill)?.into_keys().collect();
        ensure!(left.is_empty(), "the spill folder still holds {left:?}");
    }
    Ok(())
}

/// Checks a part file's columns (name, type, nullability, order) and that every chunk is snappy.
pub fn check_schema(file: &Path) -> Result<()> {
    let reader = SerializedFileReader::new(File::open(file)?)
        .with_context(|| format!("reading {}", file.display()))?;
    let meta = reader.metadata();
    let schema = meta.file_metadata().schema_descr();
    let mut found = Vec::new();
    for column in schema.columns() {
        let info = column.self_type().get_basic_info();
        let is_string = info.logical_type_ref() == Some(&LogicalType::String);
        ensure!(
            is_string == (column.name() == "client_id"),
            "{}: {} has the logical type {:?}",
            file.display(),
            column.name(),
            info.logical_type_ref()
        );
        found.push((column.path().string(), column.physical_type(), info.repetition()));
    }
    let wanted = COLUMNS.map(|(name, physical, repetition)| (name.to_owned(), physical, repetition));
    ensure!(found == wanted, "{}: the columns are {found:?}", file.display());
    for group in meta.row_groups() {
        for chunk in group.columns() {
            let codec = chunk.compression();
            ensure!(codec == Compression::SNAPPY, "{}: a chunk is {codec:?}", file.display());
        }
    }
    Ok(())
}

/// One name in a [`snapshot`].
#[derive(Clone, PartialEq, Eq)]
pub enum Entry {
    Folder,
    /// With its bytes.
    File(Vec<u8>),
}

/// Everything below `root`, by path relative to it.
pub fn snapshot(root: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.strip_prefix(root)?.to_path_buf();
            if path.is_dir() {
                folders.push(path);
                found.insert(name, Entry::Folder);
            } else {
                found.insert(name, Entry::File(std::fs::read(&path)?));
            }
        }
    }
    Ok(found)
}

/// Everything below `root` but what running jobs have staged.
///
/// # Errors
/// Those of [`snapshot`].
pub fn snapshot_without_staging(root: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut found = snapshot(root)?;
    found.retain(|name, _| !name.to_string_lossy().contains(".tally-staging"));
    Ok(found)
}

/// Checks that two snapshots are the same, byte by byte.
///
/// # Errors
/// Names what appeared, disappeared or changed.
pub fn check_unchanged(before: &BTreeMap<PathBuf, Entry>, after: &BTreeMap<PathBuf, Entry>) -> Result<()> {
    let names = before.keys().chain(after.keys());
    let mut changed: Vec<_> = names.filter(|name| before.get(*name) != after.get(*name)).collect();
    changed.dedup();
    ensure!(changed.is_empty(), "these appeared, went or changed: {changed:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "20170227";

    #[test]
    fn anything_but_part_files_is_found() {
        let names = [
            "agg/v1/submission_date_s3=20170227/_SUCCESS",
            "agg/v1/submission_date_s3=20170227/.staging/part-0.snappy.parquet",
            "agg/v1/.staged/part-0.snappy.parquet",
            "agg/staging-1/part-0.snappy.parquet",
            "part-0.snappy.parquet",
        ];
        for name in names {
            let place = Place::new().unwrap();
            place.put_old_output(DATE).unwrap();
            check_published(&place.published(), &place.partition(DATE)).unwrap();
            let path = place.published().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "x").unwrap();
            assert!(check_published(&place.published(), &place.partition(DATE)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_changed_byte_is_found() {
        let place = Place::new().unwrap();
        place.put_old_output(DATE).unwrap();
        let before = snapshot(place.path()).unwrap();
        check_unchanged(&before, &snapshot(place.path()).unwrap()).unwrap();
        std::fs::write(place.partition(DATE).join("part-00000-old.snappy.parquet"), b"the odd day").unwrap();
        assert!(check_unchanged(&before, &snapshot(place.path()).unwrap()).is_err());
    }

    #[test]
    fn spark_wrote_the_schema_that_is_checked_here() {
        for name in crate::golden::CASES {
            check_schema(&crate::golden::Case::new(name).dir.join("expected.parquet")).unwrap();
        }
    }
}
