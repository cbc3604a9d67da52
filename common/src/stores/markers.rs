//! Lists the objects below a folder of a store, without the empty objects that represent folders: keys that end in `/`,
//! which consoles create, or in `_$folder$`, which Hadoop creates.
//!
//! The client library strips the slash of a key. So the marker of the listed folder has the folder's own path. Only the
//! store knows whether an empty object below is a marker: no object exists under the key without the slash. Not here:
//! which objects are data.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use object_store::path::{self, Path};
use object_store::{Error, ObjectMeta, ObjectStore};

use super::lookup::find;

/// The maximum number of concurrent requests for empty objects.
const CONCURRENT: usize = 16;

/// The objects below a folder, without markers of the folder itself. A marker further down has the path of its folder and
/// no bytes.
///
/// # Errors
/// The store's.
pub async fn list_below(store: &dyn ObjectStore, folder: &Path) -> Result<Vec<ObjectMeta>, Error> {
    let listed = store.list(Some(folder));
    let below = |meta: &ObjectMeta| std::future::ready(meta.location != *folder);
    listed.try_filter(below).try_collect().await
}

/// Whether a listed object is a folder marker of Hadoop.
pub fn is_hadoop_marker(meta: &ObjectMeta) -> bool {
    meta.size == 0 && meta.location.filename().is_some_and(|name| name.ends_with("_$folder$"))
}

/// The listed objects whose keys end in `/`.
///
/// # Errors
/// The store's.
pub async fn slash_markers(store: &dyn ObjectStore, listed: &[ObjectMeta]) -> Result<HashSet<Path>, Error> {
    let empty: Vec<Path> =
        listed.iter().filter(|meta| meta.size == 0).map(|meta| meta.location.clone()).collect();
    let asked = futures::stream::iter(empty).map(|path| async move {
        match find(store, &path).await {
            Ok(None) => Ok(Some(path)),
            // If access is denied it is unknown; an empty file is skipped anyway.
            Ok(Some(_)) | Err(Error::PermissionDenied { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    });
    asked
        .buffer_unordered(CONCURRENT)
        .try_filter_map(|found| std::future::ready(Ok(found)))
        .try_collect()
        .await
}

/// The key that makes a listing fail because it is not a path: it has a part that is empty, `.` or `..`.
pub fn bad_key(error: &Error) -> Option<&str> {
    match error {
        Error::InvalidPath {
            source: path::Error::EmptySegment { path } | path::Error::BadSegment { path, .. },
        } => Some(path),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn the_marker_of_a_folder_is_not_below_it() {
        let store = InMemory::new();
        for key in ["t/day", "t/day/x", "t/day/sub/y"] {
            store.put(&Path::from(key), "".into()).await.unwrap();
        }
        let mut found = list_below(&store, &Path::from("t/day")).await.unwrap();
        found.sort_by(|a, b| a.location.cmp(&b.location));
        let keys: Vec<&str> = found.iter().map(|meta| meta.location.as_ref()).collect();
        assert_eq!(keys, ["t/day/sub/y", "t/day/x"]);
        // A listed object that cannot be read has a slash at the end of its key.
        let marker = ObjectMeta { location: Path::from("t/day/sub"), ..found[0].clone() };
        let markers = slash_markers(&store, &[found[0].clone(), marker]).await.unwrap();
        assert_eq!(markers, HashSet::from([Path::from("t/day/sub")]));
    }

    #[test]
    fn a_key_that_is_no_path_is_named() {
        for key in ["a//b", "a/../b", "a//"] {
            let error = Error::InvalidPath { source: Path::parse(key).unwrap_err() };
            assert_eq!(bad_key(&error), Some(key));
        }
    }
}
