//! The data files of a table's day.
//!
//! As in Spark, some names are not data (markers, checksums, metadata, unfinished copies), on any level below the day:
//! those that begin with `.`, those that begin with `_` and contain no `=`, and those that end in `._COPYING_`. Any number
//! of folder levels is allowed. Empty files are skipped with a warning. Empty objects that stand for folders are skipped,
//! too. The files are sorted, because stores list them in different orders.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use tally_common::counts::counted;
use tally_common::stores::urls::{self, Names, UrlError};
use tally_common::stores::{explain, is_hadoop_marker, list_below, slash_markers};
use tally_scan::InputFile;

use super::local_files::{DataFile, WalkError, data_files, is_hidden};
use crate::dates::parse_date;

/// The number of existing days that an error names.
const NAMED_DAYS: usize = 10;
/// The number of skipped files that a warning names.
const NAMED_FILES: usize = 10;

/// The day's files could not be listed, or do not exist.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The store.
    #[error("{table}: {url} cannot be listed: {}", explain(source))]
    Store {
        /// The table.
        table: &'static str,
        /// What was listed.
        url: String,
        /// The error of the store.
        source: object_store::Error,
    },
    /// A folder of the day cannot be read.
    #[error("{table}: {path} cannot be read: {source}")]
    Read {
        /// The table.
        table: &'static str,
        /// The folder.
        path: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// Something is not a file, or cannot be read as one.
    #[error("{table}: {path} {what}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// Its path.
        path: String,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// Several folders may be the day's.
    #[error(
        "{table}: the day may be stored in any of {folders} under {url} (names match without regard to letter case): move its files into one of them"
    )]
    Ambiguous {
        /// The table.
        table: &'static str,
        /// The table's root.
        url: String,
        /// The folders.
        folders: String,
    },
    /// There are no files.
    #[error("{table}: no data files under {url}; {days}")]
    Nothing {
        /// The table.
        table: &'static str,
        /// The day's URL.
        url: String,
        /// The days that exist.
        days: String,
    },
    /// A bug of the program.
    #[error("listing the inputs panicked; the log says where")]
    Panic,
}

/// The data files of a table's day.
#[derive(Debug)]
pub struct DayFiles {
    /// Ordered by path.
    pub files: Vec<InputFile>,
    /// Their times; `None` if there are no files.
    pub modified: Option<Modified>,
    /// A warning about skipped files.
    pub warning: Option<String>,
}

/// The times of several files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modified {
    /// The first of their last modifications.
    pub first: DateTime<Utc>,
    /// When the last of them was modified, or renamed to its place.
    pub last: DateTime<Utc>,
}

impl Modified {
    fn of(files: &[DataFile]) -> Option<Self> {
        let first = files.iter().map(|data| data.modified).min()?;
        Some(Modified { first, last: files.iter().map(|data| data.arrived).max()? })
    }
}

/// The data files of a day's `folder` in the table rooted at `url`.
///
/// # Errors
/// [`ListError`]. If there are no files, it names days that have some.
pub async fn day_files(table: &'static str, url: &str, folder: &str) -> Result<DayFiles, ListError> {
    let (store, root) = open(url).await?;
    let found = in_folder(table, url, &store, &root, folder).await?;
    if !found.files.is_empty() {
        return Ok(found);
    }
    let day_url = format!("{}/{folder}", url.trim_end_matches('/'));
    let failed = |source| ListError::Store { table, url: day_url.clone(), source };
    if let Some(warning) = found.warning {
        let days = format!("all of them are empty: {warning}");
        return Err(ListError::Nothing { table, url: day_url, days });
    }
    let folders = folders_of(&store, &root).await.map_err(failed)?;
    let mut others = folders.iter().filter(|other| other.to_lowercase() == folder.to_lowercase());
    match (others.next(), others.next()) {
        (Some(one), Some(other)) => {
            let folders = format!("{one} and {other}");
            Err(ListError::Ambiguous { table, url: url.into(), folders })
        }
        (Some(other), None) if other.as_str() != folder => {
            let found = in_folder(table, url, &store, &root, other).await?;
            if found.files.is_empty() {
                return Err(ListError::Nothing { table, url: day_url, days: days(&folders, folder, url) });
            }
            Ok(found)
        }
        _ => Err(ListError::Nothing { table, url: day_url, days: days(&folders, folder, url) }),
    }
}

/// The dates of the day folders in the root `url` of a table, whether they have data files or not. `column` is the partition
/// column; its case does not matter.
///
/// # Errors
/// [`ListError`].
pub async fn dates(table: &'static str, url: &str, column: &str) -> Result<BTreeSet<NaiveDate>, ListError> {
    let (store, root) = open(url).await?;
    let failed = |source| ListError::Store { table, url: url.into(), source };
    let folders = folders_of(&store, &root).await.map_err(failed)?;
    Ok(folders.iter().filter_map(|folder| date_of(folder, column)).collect())
}

/// The date of a day's folder; `None` for other folders.
fn date_of(folder: &str, column: &str) -> Option<NaiveDate> {
    let (name, date) = folder.split_once('=')?;
    parse_date(date).filter(|_| name.to_lowercase() == column.to_lowercase())
}

/// The store of a URL, and the path in it. Only the resolution of a local path blocks.
async fn open(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), ListError> {
    if !urls::is_local(url) {
        return Ok(urls::open(url)?);
    }
    let url = url.to_string();
    blocking(move || Ok(urls::open(&url)?)).await
}

/// Runs work that blocks outside of the runtime, where heartbeats and other jobs would wait for a slow file system.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ListError> + Send + 'static,
) -> Result<T, ListError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ListError::Panic))
}

/// The data files below a folder of the root.
async fn in_folder(
    table: &'static str,
    url: &str,
    store: &Arc<dyn ObjectStore>,
    root: &Path,
    folder: &str,
) -> Result<DayFiles, ListError> {
    let mut files = match urls::is_local(url) {
        true => local(table, url.to_string(), store.clone(), folder.to_string()).await?,
        false => objects(table, url, store, &root.clone().join(folder)).await?,
    };
    files.sort_unstable_by(|a, b| a.file.path.cmp(&b.file.path));
    let empty: Vec<DataFile> = files.extract_if(.., |data| data.file.size == 0).collect();
    let modified = Modified::of(&files);
    let files = files.into_iter().map(|data| data.file).collect();
    Ok(DayFiles { files, modified, warning: skipped(table, &empty) })
}

/// The data files of a local folder.
async fn local(
    table: &'static str,
    url: String,
    store: Arc<dyn ObjectStore>,
    folder: String,
) -> Result<Vec<DataFile>, ListError> {
    blocking(move || {
        let day = urls::local_path(&url)?.join(folder);
        data_files(&store, day).map_err(|error| match error {
            WalkError::Read { path, source } => ListError::Read { table, path, source },
            WalkError::Unreadable { path, what } => ListError::Unreadable { table, path, what },
            WalkError::Name { path, source } => ListError::Store { table, url: path, source },
        })
    })
    .await
}

/// The data files of a day in a store.
async fn objects(
    table: &'static str,
    url: &str,
    store: &Arc<dyn ObjectStore>,
    day: &Path,
) -> Result<Vec<DataFile>, ListError> {
    let names = Names::of(url)?;
    let folder = day.filename().unwrap_or_default();
    let failed =
        |source| ListError::Store { table, url: format!("{}/{folder}", url.trim_end_matches('/')), source };
    let mut found = list_below(&**store, day).await.map_err(failed)?;
    found.retain(|meta| is_data(day, &meta.location));
    let folders = folders(&**store, &found).await.map_err(failed)?;
    let data = found.into_iter().filter(|meta| !folders.contains(&meta.location));
    let file = |meta: ObjectMeta| {
        let file = InputFile {
            name: names.name(&meta.location)?,
            store: store.clone(),
            path: meta.location,
            size: meta.size,
            etag: meta.e_tag,
            footer: None,
        };
        Ok::<_, ListError>(DataFile { file, modified: meta.last_modified, arrived: meta.last_modified })
    };
    data.map(file).collect()
}

/// The warning about empty files.
fn skipped(table: &str, empty: &[DataFile]) -> Option<String> {
    let names: Vec<&str> = empty.iter().take(NAMED_FILES).map(|data| data.file.name.as_str()).collect();
    let more = empty.len() - names.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = names.join(", ");
    (!empty.is_empty())
        .then(|| format!("{table}: empty files are skipped, which failed writers leave: {names}{more}"))
}

/// The empty objects that stand for folders: those whose keys end in `/`, and those of [`named_folders`].
async fn folders(
    store: &dyn ObjectStore,
    found: &[ObjectMeta],
) -> Result<HashSet<Path>, object_store::Error> {
    if found.iter().all(|meta| meta.size > 0) {
        return Ok(HashSet::new());
    }
    let mut folders = named_folders(found);
    let others: Vec<ObjectMeta> =
        found.iter().filter(|meta| meta.size == 0 && !folders.contains(&meta.location)).cloned().collect();
    folders.extend(slash_markers(store, &others).await?);
    Ok(folders)
}

/// The empty objects that are named like a partition, marked as a folder, or have other objects below them.
fn named_folders(found: &[ObjectMeta]) -> HashSet<Path> {
    let parents: HashSet<&str> = found
        .iter()
        .flat_map(|meta| {
            let key = meta.location.as_ref();
            key.match_indices('/').map(|(at, _)| &key[..at])
        })
        .collect();
    let stands = |meta: &&ObjectMeta| {
        let name = meta.location.filename().unwrap_or_default();
        let partition = name.contains('=') && !name.contains('.');
        let named = partition || is_hadoop_marker(meta) || parents.contains(meta.location.as_ref());
        meta.size == 0 && named
    };
    found.iter().filter(stands).map(|meta| meta.location.clone()).collect()
}

/// Whether a file of the day is data.
fn is_data(day: &Path, file: &Path) -> bool {
    let below = file.prefix_match(day);
    below.is_some_and(|mut parts| parts.all(|part| !is_hidden(part.as_ref().as_bytes())))
}

/// The names of the folders in a table's root.
async fn folders_of(store: &Arc<dyn ObjectStore>, root: &Path) -> Result<Vec<String>, object_store::Error> {
    let listed = store.list_with_delimiter(Some(root)).await?;
    Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_string)).collect())
}

/// The part of an error that names the existing days: the folders named as `folder`, up to the date.
fn days(folders: &[String], folder: &str, url: &str) -> String {
    let prefix = folder.split_once('=').map_or("", |(column, _)| &folder[..=column.len()]);
    let mut days: Vec<&str> = folders.iter().filter_map(|folder| folder.strip_prefix(prefix)).collect();
    days.sort_unstable();
    match days.len() {
        0 => format!("there is no {prefix}* folder under {url}: is it the table's root?"),
        n if n <= NAMED_DAYS => format!("the existing days are: {}", days.join(", ")),
        n => format!(
            "there are {}, from {} to {}, the last ones: {}",
            counted(n, "day"),
            days[0],
            days[n - 1],
            days[n - NAMED_DAYS..].join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_objects_that_stand_for_folders_are_not_data() {
        let meta = |key: &str, size| ObjectMeta {
            location: key.into(),
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size,
            e_tag: None,
            version: None,
        };
        let found = [
            meta("d/sample_id=1", 0),
            meta("d/sample_id=1/part-0.parquet", 9),
            meta("d/sample_id=2", 0),
            meta("d/b_$folder$", 0),
            meta("d/empty.parquet", 0),
            meta("d/x", 0),
            meta("d/x-y", 5),
            meta("d/x/part-0.parquet", 5),
        ];
        let mut folders: Vec<String> = named_folders(&found).iter().map(ToString::to_string).collect();
        folders.sort();
        assert_eq!(folders, ["d/b_$folder$", "d/sample_id=1", "d/sample_id=2", "d/x"]);
    }

    #[test]
    fn a_folder_of_a_day_is_named_by_its_column_in_any_case() {
        let date = parse_date("20170227");
        assert_eq!(date_of("submission_date_s3=20170227", "submission_date_s3"), date);
        assert_eq!(date_of("Submission_Date_S3=20170227", "submission_date_s3"), date);
        for other in ["submission_date_s3=2017-02-27", "day=20170227", "submission_date_s3", "20170227", "="]
        {
            assert_eq!(date_of(other, "submission_date_s3"), None, "{other}");
        }
    }

    #[test]
    fn markers_on_any_level_are_not_data() {
        let day = Path::from("t/submission_date_s3=20170227");
        let check = |below: &str, expect| {
            let file = Path::from(format!("t/submission_date_s3=20170227/{below}"));
            assert_eq!(is_data(&day, &file), expect, "{below}");
        };
        check("sample_id=1/part-0.parquet", true);
        check("part-0.parquet", true);
        check("sample_id=__HIVE_DEFAULT_PARTITION__/part-0.parquet", true);
        check("sample_id=1/_SUCCESS", false);
        check("sample_id=1/.part-0.parquet.crc", false);
        check("_temporary/0/part-0.parquet", false);
        check(".hidden/part-0.parquet", false);
        check("_metadata", false);
        check("_locality=1/part-0.parquet", true);
        check("_locality=1/_SUCCESS", false);
        check("_a=1.parquet", true);
        check("_locality/part-0.parquet", false);
        check(".a=1/part-0.parquet", false);
        check("part-0.parquet._COPYING_", false);
        check("sample_id=1._COPYING_/part-0.parquet", false);
        check("part-0._COPYING_.parquet", true);
    }
}
