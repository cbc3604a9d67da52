//! The data files of a table's day.
//!
//! Names that begin with `_` or `.`, on any level below the day, are no data (markers, checksums,
//! metadata); the levels themselves may be any, or none. Nor are the empty objects by which some
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

/// The data files of `date` in the table rooted at `url`, ordered by path.
///
/// # Errors
/// [`ListError`]; where there are no files it says which days have some.
pub async fn day_files(table: &'static str, url: &str, date: &str) -> Result<Vec<InputFile>, ListError> {
    let (store, root) = urls::open(url)?;
    let folder = date_folder(date);
    let day = root.clone().join(folder.as_str());
    let looked_at = format!("{}/{folder}", url.trim_end_matches('/'));
    let failed = |source| ListError::Store { table, url: looked_at.clone(), source };
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
    if files.is_empty() {
        let days = days(&store, &root, url).await.map_err(failed)?;
        return Err(ListError::Nothing { table, url: looked_at, days });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if local {
        check_complete(table, url, &folder, &files)?;
    }
    Ok(files)
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
            if entry.file_name().as_encoded_bytes().starts_with(b"_")
                || entry.file_name().as_encoded_bytes().starts_with(b".")
            {
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
    below.is_some_and(|mut parts| parts.all(|part| !part.as_ref().starts_with(['_', '.'])))
}

async fn days(store: &Arc<dyn ObjectStore>, root: &Path, url: &str) -> Result<String, object_store::Error> {
    let prefix = date_folder("");
    let listed = store.list_with_delimiter(Some(root)).await?;
    let mut days: Vec<String> = listed
        .common_prefixes
        .iter()
        .filter_map(|path| path.filename()?.strip_prefix(&prefix).map(str::to_string))
        .collect();
    days.sort_unstable();
    Ok(match days.len() {
        0 => format!("there is no {prefix}* folder under {url}: is it the table's root?"),
        n if n <= NAMED_DAYS => format!("the days there are: {}", days.join(", ")),
        n => format!(
            "there are {n} days, from {} to {}, the last ones: {}",
            days[0],
            days[n - 1],
            days[n - NAMED_DAYS..].join(", ")
        ),
    })
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
    }
}
