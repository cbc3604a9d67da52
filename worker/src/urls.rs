//! URLs of inputs and outputs to stores and paths. A plain path is a file URL.
//!
//! The key of an object is taken as it is written: nothing in it is escaped. Not here: how a store
//! is reached, and by whose leave (`stores`).

use std::path::{Component, Path as FsPath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use url::Url;

use crate::stores::{self, Bucket, Service};

/// A URL that names nothing usable.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {what}")]
pub struct UrlError {
    url: String,
    what: String,
}

fn error(url: &str, what: impl Into<String>) -> UrlError {
    UrlError { url: url.into(), what: what.into() }
}

/// A place in a bucket.
struct Remote<'a> {
    service: Service,
    bucket: &'a str,
    key: Path,
}

fn remote(url: &str) -> Result<Option<Remote<'_>>, UrlError> {
    let Some((scheme, rest)) = url.split_once("://") else { return Ok(None) };
    if scheme == "file" {
        return Ok(None);
    }
    let Some(service) = Service::of_scheme(scheme) else {
        let what =
            format!("the scheme {scheme} is not supported: give a path, file://, s3://, gs:// or az://");
        return Err(error(url, what));
    };
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || bucket.contains(['@', ':', '?', '#', ' ']) {
        return Err(error(url, format!("{bucket:?} is no name of a bucket: write {scheme}://BUCKET/FOLDER")));
    }
    let key = Path::parse(key).map_err(|e| error(url, e.to_string()))?;
    Ok(Some(Remote { service, bucket, key }))
}

/// Whether a URL, or the name that [`name_of`] gives, is of a file of this machine.
pub fn is_local(url: &str) -> bool {
    !url.contains("://") || url.starts_with("file://")
}

/// The absolute path of a path or `file://` URL, links and `..` resolved.
///
/// # Errors
/// [`UrlError`] for other schemes.
pub fn local_path(url: &str) -> Result<PathBuf, UrlError> {
    let path = match Url::parse(url) {
        Ok(parsed) if parsed.scheme() == "file" => {
            parsed.to_file_path().map_err(|()| error(url, "not a file URL of this machine"))?
        }
        Ok(parsed) if url.contains("://") => {
            return Err(error(url, format!("{}:// is no path on this machine", parsed.scheme())));
        }
        _ => PathBuf::from(url),
    };
    if path.as_os_str().is_empty() {
        return Err(error(url, "an empty path"));
    }
    real_path(&path).map_err(|e| error(url, e.to_string()))
}

/// The path without links, `.` and `..`, as far as it exists; the rest as it is written.
fn real_path(path: &FsPath) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let parts: Vec<Component<'_>> = absolute.components().collect();
    for there in (1..=parts.len()).rev() {
        let Ok(mut real) = parts[..there].iter().collect::<PathBuf>().canonicalize() else { continue };
        for part in &parts[there..] {
            match part {
                Component::ParentDir => drop(real.pop()),
                other => real.push(other),
            }
        }
        return Ok(real);
    }
    Ok(absolute)
}

/// The one name of a place: an absolute path, or `scheme://bucket/key` without a slash at its end.
///
/// # Errors
/// [`UrlError`] for schemes that are not supported, and paths that are none.
pub fn place(url: &str) -> Result<String, UrlError> {
    match remote(url)? {
        Some(Remote { service, bucket, key }) => Ok(service.name(bucket, &key)),
        None => Ok(local_path(url)?.display().to_string()),
    }
}

/// The store of a URL, and the path in it.
///
/// # Errors
/// [`UrlError`] for schemes that are not supported, paths that are none, and stores whose settings make no sense.
pub fn open(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), UrlError> {
    if let Some((bucket, path)) = open_bucket(url)? {
        return Ok((bucket.objects.clone(), path));
    }
    let local = local_path(url)?;
    let path = Path::from_absolute_path(&local).map_err(|e| error(url, e.to_string()))?;
    Ok((Arc::new(LocalFileSystem::new()), path))
}

/// The bucket of a URL, and the path in it; `None` for files of this machine.
///
/// # Errors
/// As [`open`].
pub fn open_bucket(url: &str) -> Result<Option<(Arc<Bucket>, Path)>, UrlError> {
    let Some(Remote { service, bucket, key }) = remote(url)? else { return Ok(None) };
    let bucket = stores::bucket(service, bucket).map_err(|what| error(url, what))?;
    Ok(Some((bucket, key)))
}

/// What [`open`] opens again for a path in the store of `url`, as people read it.
///
/// # Errors
/// [`UrlError`] where the path has no name on this machine.
pub fn name_of(url: &str, path: &Path) -> Result<String, UrlError> {
    if let Some(Remote { service, bucket, .. }) = remote(url)? {
        return Ok(service.name(bucket, path));
    }
    let local = LocalFileSystem::new().path_to_filesystem(path).map_err(|e| error(url, e.to_string()))?;
    Ok(local.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_urls_are_one_thing() {
        assert_eq!(local_path("/a/b").unwrap(), local_path("file:///a/b").unwrap());
        assert_eq!(open("/a/sub date=1/x").unwrap().1.as_ref(), "a/sub date=1/x");
        assert!(place("ftp://host/x").unwrap_err().to_string().contains("ftp"));
        assert!(local_path("s3://b/x").is_err());
        assert!(local_path("").is_err());
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(local_path("relative").unwrap(), here.join("relative"));
        assert_eq!(local_path("./no/such/../x").unwrap(), here.join("no/x"));
        assert_eq!(local_path("../x").unwrap(), here.parent().unwrap().join("x"));
    }

    #[test]
    fn a_place_in_a_bucket_has_one_name_and_any_key_comes_back() {
        for (given, name) in [
            ("s3://b/a/b/", "s3://b/a/b"),
            ("s3a://b/a", "s3://b/a"),
            ("gs://b", "gs://b"),
            ("az://c/x y#1?%41=ü", "az://c/x y#1?%41=ü"),
        ] {
            assert_eq!(place(given).unwrap(), name);
            assert_eq!(place(name).unwrap(), name);
            assert!(!is_local(name));
        }
        let key = Path::parse("t/day=1/a#1 %41.parquet").unwrap();
        let name = name_of("s3://b/t", &key).unwrap();
        assert_eq!(remote(&name).unwrap().unwrap().key, key);
        for bad in ["s3://", "s3:///x", "s3://user:secret@b/x", "s3://b/a//b", "s3://b/../x"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }
}
