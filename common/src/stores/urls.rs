//! Maps URLs of inputs and outputs to stores and paths. A plain path is a file URL. Object keys are used as they are
//! written, without escaping.
//!
//! Not here: the clients of stores and their credentials (`stores`).

use std::path::{Component, Path as FsPath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use url::Url;

use crate::secrets;
use crate::stores::{self, Bucket, Service};

/// A URL that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {what}")]
pub struct UrlError {
    url: String,
    what: String,
}

fn error(url: &str, what: impl Into<String>) -> UrlError {
    UrlError { url: secrets::cut_url(url).into(), what: what.into() }
}

/// Refuses a URL that contains credentials: URLs are stored and shown in many places.
///
/// # Errors
/// [`UrlError`], which says where to set credentials and does not repeat them.
pub fn check_no_credentials(url: &str) -> Result<(), UrlError> {
    let Some((scheme, _)) = url.split_once("://").filter(|(scheme, _)| *scheme != "file") else {
        return Ok(());
    };
    if !secrets::has_credentials(url) {
        return Ok(());
    }
    let advice = match Service::of_scheme(scheme) {
        Some(Service::Gcs) => {
            "set GOOGLE_SERVICE_ACCOUNT, GOOGLE_APPLICATION_CREDENTIALS or use a workload identity"
        }
        Some(Service::Azure) => {
            "set AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_KEY, or use a managed identity"
        }
        _ => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or use a role of the pod or instance"
        }
    };
    Err(error(url, format!("a URL must not contain credentials or a signature: {advice}")))
}

/// An object or a folder of a bucket.
#[derive(Debug)]
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
    check_no_credentials(url)?;
    let Some(service) = Service::of_scheme(scheme) else {
        let what =
            format!("the scheme {scheme} is not supported: give a path, file://, s3://, gs:// or az://");
        return Err(error(url, what));
    };
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || bucket.contains(['@', ':', '?', '#', ' ']) {
        return Err(error(url, format!("{bucket:?} is not a bucket name: write {scheme}://BUCKET/FOLDER")));
    }
    let key = Path::parse(key).map_err(|e| error(url, e.to_string()))?;
    Ok(Some(Remote { service, bucket, key }))
}

/// Whether a URL, or a name from [`Names`], is a local path.
pub fn is_local(url: &str) -> bool {
    !url.contains("://") || url.starts_with("file://")
}

/// The absolute path of a path or a `file://` URL, with links and `..` resolved.
///
/// # Errors
/// [`UrlError`] for other schemes.
pub fn local_path(url: &str) -> Result<PathBuf, UrlError> {
    let path = match Url::parse(url) {
        Ok(parsed) if parsed.scheme() == "file" => {
            parsed.to_file_path().map_err(|()| error(url, "the URL is not a local path"))?
        }
        Ok(parsed) if url.contains("://") => {
            return Err(error(url, format!("{}:// is not a local path", parsed.scheme())));
        }
        _ => PathBuf::from(url),
    };
    if path.as_os_str().is_empty() {
        return Err(error(url, "the path is empty"));
    }
    real_path(&path).map_err(|e| error(url, e.to_string()))
}

/// The path without links, `.` and `..` as far as it exists, and the rest as it is written.
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

/// The canonical form of a URL: an absolute path, or `scheme://bucket/key` without a slash at the end.
///
/// # Errors
/// [`UrlError`] for unsupported schemes and invalid paths.
pub fn canonical(url: &str) -> Result<String, UrlError> {
    match remote(url)? {
        Some(Remote { service, bucket, key }) => Ok(service.name(bucket, &key)),
        None => Ok(local_path(url)?.display().to_string()),
    }
}

/// The store of a URL, and the path in it.
///
/// # Errors
/// [`UrlError`] for unsupported schemes, invalid paths, and stores whose settings are not valid.
pub fn open(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), UrlError> {
    if let Some((bucket, path)) = open_bucket(url)? {
        return Ok((bucket.objects.clone(), path));
    }
    let local = local_path(url)?;
    let path = Path::from_absolute_path(&local).map_err(|e| error(url, e.to_string()))?;
    Ok((Arc::new(LocalFileSystem::new()), path))
}

/// [`open`] for the name of a file from a listing. Links in an absolute path are not resolved again, which would take a
/// system call per folder.
///
/// # Errors
/// As [`open`].
pub fn open_listed(name: &str) -> Result<(Arc<dyn ObjectStore>, Path), UrlError> {
    match Path::parse(name) {
        Ok(path) if name.starts_with('/') => Ok((Arc::new(LocalFileSystem::new()), path)),
        _ => open(name),
    }
}

/// The bucket of a URL, and the path in it; `None` for local paths.
///
/// # Errors
/// As [`open`].
pub fn open_bucket(url: &str) -> Result<Option<(Arc<Bucket>, Path)>, UrlError> {
    let Some(Remote { service, bucket, key }) = remote(url)? else { return Ok(None) };
    let bucket = stores::bucket(service, bucket).map_err(|e| error(url, e.to_string()))?;
    Ok(Some((bucket, key)))
}

/// Names the paths in the store of a URL, for display. [`open`] accepts the names.
#[derive(Debug)]
pub struct Names<'a> {
    url: &'a str,
    remote: Option<Remote<'a>>,
}

impl<'a> Names<'a> {
    /// The names in the store of `url`.
    ///
    /// # Errors
    /// As [`open`].
    pub fn of(url: &'a str) -> Result<Self, UrlError> {
        Ok(Names { url, remote: remote(url)? })
    }

    /// The URL or local path of a path.
    ///
    /// # Errors
    /// [`UrlError`] if the path is not valid on this machine.
    pub fn name(&self, path: &Path) -> Result<String, UrlError> {
        if let Some(Remote { service, bucket, .. }) = &self.remote {
            return Ok(service.name(bucket, path));
        }
        let local = LocalFileSystem::new().path_to_filesystem(path);
        Ok(local.map_err(|e| error(self.url, e.to_string()))?.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_urls_are_equivalent() {
        assert_eq!(local_path("/a/b").unwrap(), local_path("file:///a/b").unwrap());
        assert_eq!(open("/a/sub date=1/x").unwrap().1.as_ref(), "a/sub date=1/x");
        assert!(canonical("ftp://host/x").unwrap_err().to_string().contains("ftp"));
        assert!(local_path("s3://b/x").is_err());
        assert!(local_path("").is_err());
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(local_path("relative").unwrap(), here.join("relative"));
        assert_eq!(local_path("./no/such/../x").unwrap(), here.join("no/x"));
        assert_eq!(local_path("../x").unwrap(), here.parent().unwrap().join("x"));
    }

    #[test]
    fn a_url_of_a_bucket_has_one_canonical_form_and_keeps_any_key() {
        for (given, name) in [
            ("s3://b/a/b/", "s3://b/a/b"),
            ("s3a://b/a", "s3://b/a"),
            ("gs://b", "gs://b"),
            ("az://c/x y#1?%41=ü", "az://c/x y#1?%41=ü"),
        ] {
            assert_eq!(canonical(given).unwrap(), name);
            assert_eq!(canonical(name).unwrap(), name);
            assert!(!is_local(name));
        }
        let key = Path::parse("t/day=1/a#1 %41.parquet").unwrap();
        let name = Names::of("s3://b/t").unwrap().name(&key).unwrap();
        assert_eq!(remote(&name).unwrap().unwrap().key, key);
        for (secret, where_to) in [
            ("s3://AKIA:se/cret@b/x", "AWS_PROFILE"),
            ("s3://se:cret", "AWS_PROFILE"),
            ("s3a://b/x?X-Amz-Signature=secret", "AWS_PROFILE"),
            ("gs://b/x?a=1&X-Goog-Signature=secret", "GOOGLE_SERVICE_ACCOUNT"),
            ("az://c/x?sv=1&sig=secret", "AZURE_STORAGE_SAS_KEY"),
            ("https://b.s3.amazonaws.com/x?X-Amz-Signature=secret", "AWS_PROFILE"),
        ] {
            let error = canonical(secret).unwrap_err().to_string();
            assert!(error.contains(where_to) && error.contains("must not contain"), "{error}");
            assert!(!error.contains("cret"), "{error}");
        }
        for bad in ["s3://", "s3:///x", "s3://user:secret@b/x", "s3://b/a//b", "s3://b/../x"] {
            assert!(canonical(bad).is_err(), "{bad}");
        }
    }
}
