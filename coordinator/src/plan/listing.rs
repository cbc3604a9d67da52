//! The data files of a table's day.
//!
//! As for Spark, names that begin with `.`, that begin with `_` and have no `=` in them, or that end in `._COPYING_`, are no
//! data (markers, checksums, metadata, copies under way), on any level below the day; the levels themselves may be any, or
//! none. Files without a byte are passed over with a warning. Nor are the empty objects data by which some
//! programs keep folders in a store. Stores list in orders of their own, so it is sorted here.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use tally_worker::scan::InputFile;
use tally_worker::stores::explain;
use tally_worker::urls::{self, UrlError};

use crate::job::date_folder;

/// How many of the days that exist an error names.
const NAMED_DAYS: usize = 10;
/// How many of the files that were passed over a warning names.
const NAMED_FILES: usize = 10;

/// The day's files could not be listed, or there are none.
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
        /// What the store said.
        source: object_store::Error,
    },
    /// A folder of the day cannot be read.
    #[error("{table}: {path} cannot be read: {source}")]
    Read {
        /// The table.
        table: &'static str,
        /// The folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that the store does not list.
    #[error(
        "{table}: {path} is in the day's folder but cannot be read as a file (a link to nothing, or a name like a#1): remove or rename it"
    )]
    Unreadable {
        /// The table.
        table: &'static str,
        /// The file.
        path: String,
    },
    /// Several folders that may be the day's.
    #[error(
        "{table}: the day may lie in any of {folders} under {url} (names match without regard to letter case): move its files into one"
    )]
    Ambiguous {
        /// The table.
        table: &'static str,
        /// The table's root.
        url: String,
        /// The folders.
        folders: String,
    },
    /// Nothing there.
    #[error("{table}: no data files under {url}; {days}")]
    Nothing {
        /// The table.
        table: &'static str,
        /// What was looked at.
        url: String,
        /// Which days there are.
        days: String,
    },
}

/// The data files of a table's day.
#[derive(Debug)]
pub struct DayFiles {
    /// Ordered by path.
    pub files: Vec<InputFile>,
    /// Of files that were passed over.
    pub warning: Option<String>,
}

/// The data files of `date` in the table rooted at `url`.
///
/// # Errors
/// [`ListError`]; where there are no files it says which days have some.
pub async fn day_files(table: &'static str, url: &str, date: &str) -> Result<DayFiles, ListError> {
    let (store, root) = urls::open(url)?;
    let folder = date_folder(date);
    let found = in_folder(table, url, &store, &root, &folder).await?;
    if !found.files.is_empty() {
        return Ok(found);
    }
    let looked_at = format!("{}/{folder}", url.trim_end_matches('/'));
    let failed = |source| ListError::Store { table, url: looked_at.clone(), source };
    if let Some(warning) = found.warning {
        let days = format!("all that are there have no bytes: {warning}");
        return Err(ListError::Nothing { table, url: looked_at, days });
    }
    let folders = folders_of(&store, &root).await.map_err(failed)?;
    let mut others = folders.iter().filter(|other| other.to_lowercase() == folder.to_lowercase());
    match (others.next(), others.next()) {
        (Some(one), Some(other)) => {
            let folders = format!("{one} and {other}");
            Err(ListError::Ambiguous { table, url: url.into(), folders })
        }
        (Some(other), None) if *other != folder => {
            let found = in_folder(table, url, &store, &root, other).await?;
            if found.files.is_empty() {
                return Err(ListError::Nothing { table, url: looked_at, days: days(&folders, url) });
            }
            Ok(found)
        }
        _ => Err(ListError::Nothing { table, url: looked_at, days: days(&folders, url) }),
    }
}

/// The data files below a folder of the root.
async fn in_folder(
    table: &'static str,
    url: &str,
    store: &Arc<dyn ObjectStore>,
    root: &Path,
    folder: &str,
) -> Result<DayFiles, ListError> {
    let day = root.clone().join(folder);
    let failed =
        |source| ListError::Store { table, url: format!("{}/{folder}", url.trim_end_matches('/')), source };
    let found: Vec<ObjectMeta> = store.list(Some(&day)).try_collect().await.map_err(failed)?;
    let mut files = vec![];
    let local = urls::is_local(url);
    let folders = if local { HashSet::new() } else { folders(&found) };
    let data = |meta: &ObjectMeta| is_data(&day, &meta.location) && !folders.contains(&meta.location);
    for meta in found.into_iter().filter(data) {
        let name = urls::name_of(url, &meta.location)?;
        files.push(InputFile {
            store: store.clone(),
            path: meta.location,
            name,
            size: meta.size,
            etag: meta.e_tag,
            footer: None,
        });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if local && !files.is_empty() {
        check_complete(table, url, folder, &files)?;
    }
    let (empty, files): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.size == 0);
    Ok(DayFiles { files, warning: passed_over(table, &empty) })
}

/// What somebody should know of files without a byte.
fn passed_over(table: &str, empty: &[InputFile]) -> Option<String> {
    let names: Vec<&str> = empty.iter().take(NAMED_FILES).map(|file| file.name.as_str()).collect();
    let more = empty.len() - names.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = names.join(", ");
    (!empty.is_empty()).then(|| {
        format!(
            "{table}: files without a byte are passed over, as writers that fail leave them: {names}{more}"
        )
    })
}

/// The empty objects that stand for folders: named like a partition, marked as one, or with others
/// below them.
fn folders(found: &[ObjectMeta]) -> HashSet<Path> {
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
        meta.size == 0
            && (partition || name.ends_with("_$folder$") || parents.contains(meta.location.as_ref()))
    };
    found.iter().filter(stands).map(|meta| meta.location.clone()).collect()
}

/// The store leaves out what it cannot name (`a#1`) or open (a link to nothing). A day read without
/// one of its files would be wrong without a word, so each such file is an error.
fn check_complete(
    table: &'static str,
    url: &str,
    folder: &str,
    files: &[InputFile],
) -> Result<(), ListError> {
    let listed: HashSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let mut folders = vec![urls::local_path(url)?.join(folder)];
    while let Some(folder) = folders.pop() {
        let failed = |source| ListError::Read { table, path: folder.display().to_string(), source };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let kind = entry.file_type().map_err(failed)?;
            if is_hidden(entry.file_name().as_encoded_bytes()) {
                continue;
            }
            if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                folders.push(path);
            } else if !listed.contains(path.display().to_string().as_str()) {
                return Err(ListError::Unreadable { table, path: path.display().to_string() });
            }
        }
    }
    Ok(())
}

fn is_data(day: &Path, file: &Path) -> bool {
    let below = file.prefix_match(day);
    below.is_some_and(|mut parts| parts.all(|part| !is_hidden(part.as_ref().as_bytes())))
}

/// Whether files and folders of this name are no data.
fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(b".")
        || (name.starts_with(b"_") && !name.contains(&b'='))
        || name.ends_with(b"._COPYING_")
}

/// The names of the folders of a root.
async fn folders_of(store: &Arc<dyn ObjectStore>, root: &Path) -> Result<Vec<String>, object_store::Error> {
    let listed = store.list_with_delimiter(Some(root)).await?;
    Ok(listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_string)).collect())
}

/// What an error says of the days that there are.
fn days(folders: &[String], url: &str) -> String {
    let prefix = date_folder("");
    let mut days: Vec<&str> = folders.iter().filter_map(|folder| folder.strip_prefix(&prefix)).collect();
    days.sort_unstable();
    match days.len() {
        0 => format!("there is no {prefix}* folder under {url}: is it the table's root?"),
        n if n <= NAMED_DAYS => format!("the days there are: {}", days.join(", ")),
        n => format!(
            "there are {n} days, from {} to {}, the last ones: {}",
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
    fn empty_objects_that_stand_for_folders_are_no_data() {
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
        let mut folders: Vec<String> = folders(&found).iter().map(ToString::to_string).collect();
        folders.sort();
        assert_eq!(folders, ["d/b_$folder$", "d/sample_id=1", "d/sample_id=2", "d/x"]);
    }

    #[test]
    fn markers_on_any_level_are_no_data() {
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
