//! Reads objects that may not exist. If a client may list only below some prefix, S3 denies access to missing keys: then
//! a listing of the folder shows whether the key exists.
//!
//! Not here: listings of whole folders (`markers`).

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt};

use super::transient::{concerns_credentials, is_transient};

/// The metadata of an object; `None` if it does not exist.
///
/// # Errors
/// The store's.
pub async fn find(store: &dyn ObjectStore, key: &Path) -> Result<Option<ObjectMeta>, Error> {
    match store.head(key).await {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(denied @ Error::PermissionDenied { .. }) => {
            listed(store, key).await.map_err(|error| decisive(error, denied))
        }
        Err(error) => Err(error),
    }
}

/// The bytes of an object; `None` if it does not exist.
///
/// # Errors
/// The store's.
pub async fn read(store: &dyn ObjectStore, key: &Path) -> Result<Option<Bytes>, Error> {
    match store.get(key).await {
        Ok(found) => found.bytes().await.map(Some),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(denied @ Error::PermissionDenied { .. }) => match listed(store, key).await {
            Ok(None) => Ok(None),
            Ok(Some(_)) => Err(denied),
            Err(error) => Err(decisive(error, denied)),
        },
        Err(error) => Err(error),
    }
}

/// The error to return if the listing fails too: a transient error says more than a refusal without a body.
fn decisive(of_listing: Error, denied: Error) -> Error {
    if is_transient(&of_listing) || concerns_credentials(&of_listing) { of_listing } else { denied }
}

/// A key in the listing of its folder. A key with a slash at its end is a different one.
async fn listed(store: &dyn ObjectStore, key: &Path) -> Result<Option<ObjectMeta>, Error> {
    let parts: Vec<_> = key.parts().collect();
    let folder: Path = parts[..parts.len().saturating_sub(1)].iter().cloned().collect();
    let found = store.list_with_delimiter(Some(&folder)).await?;
    Ok(found.objects.into_iter().find(|object| object.location == *key))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_listing_finds_the_exact_key() {
        let store = InMemory::new();
        store.put(&Path::from("a/b"), "x".into()).await.unwrap();
        store.put(&Path::from("a/bc/d"), "x".into()).await.unwrap();
        for (key, there) in [("a/b", true), ("a/bc", false), ("a/c", false), ("b", false)] {
            let key = Path::from(key);
            assert_eq!(listed(&store, &key).await.unwrap().is_some(), there, "{key}");
            assert_eq!(find(&store, &key).await.unwrap().is_some(), there, "{key}");
            assert_eq!(read(&store, &key).await.unwrap().is_some(), there, "{key}");
        }
    }
}
