//! URLs of inputs and outputs to stores and paths. A plain path is a file URL.
//!
//! Not here: which schemes need which credentials.

use std::path::{Component, Path as FsPath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use url::Url;

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
            let what = format!("the scheme {} is not supported: give a path or file://", parsed.scheme());
            return Err(error(url, what));
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

/// The store of a URL, and the path in it.
///
/// # Errors
/// [`UrlError`] for schemes that are not supported, and paths that are none.
pub fn open(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), UrlError> {
    let local = local_path(url)?;
    let path = Path::from_absolute_path(&local).map_err(|e| error(url, e.to_string()))?;
    Ok((Arc::new(LocalFileSystem::new()), path))
}

/// What [`open`] opens again for a path in the store of `url`, as people read it.
///
/// # Errors
/// [`UrlError`] where the path has no name on this machine.
pub fn name_of(url: &str, path: &Path) -> Result<String, UrlError> {
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
        assert!(local_path("ftp://host/x").unwrap_err().to_string().contains("ftp"));
        assert!(local_path("").is_err());
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(local_path("relative").unwrap(), here.join("relative"));
        assert_eq!(local_path("./no/such/../x").unwrap(), here.join("no/x"));
        assert_eq!(local_path("../x").unwrap(), here.parent().unwrap().join("x"));
    }
}
