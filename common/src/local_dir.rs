//! Local directories as arguments: a path or a `file://` URL. The URL of an object store is refused: it would otherwise
//! be a relative path that starts with `s3:`.
//!
//! Not here: URLs of inputs and outputs (`stores::urls`).

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};

use crate::stores::urls::{self, UrlError};

/// An argument that does not name a directory of this machine.
#[derive(Debug, thiserror::Error)]
enum NotLocal {
    #[error("{REMOTE}")]
    Remote,
    #[error("{REMOTE}. {0}")]
    Credentials(UrlError),
    #[error(transparent)]
    Url(#[from] UrlError),
}

const REMOTE: &str = "it is the URL of an object store, and this option takes a local directory: give a path";

/// The parser of an argument that names a local directory.
pub fn parser() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(check)
}

fn check(folder: PathBuf) -> Result<PathBuf, NotLocal> {
    match folder.to_str().filter(|text| text.contains("://")) {
        None => Ok(folder),
        Some(url) if urls::is_local(url) => Ok(urls::local_path(url)?),
        Some(url) => {
            Err(urls::check_no_credentials(url).err().map_or(NotLocal::Remote, NotLocal::Credentials))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_directories_are_accepted() {
        for (given, expect) in [("/a/b", "/a/b"), ("a:b/c", "a:b/c"), ("file:///no/such", "/no/such")] {
            assert_eq!(check(given.into()).unwrap(), PathBuf::from(expect));
        }
        for given in ["s3://b/x", "gs://b/x", "az://c/x", "hdfs://n/x"] {
            assert!(check(given.into()).unwrap_err().to_string().contains("give a path"), "{given}");
        }
        for (given, belongs) in [
            ("s3://AKIAIOSFODNN7EXAMPLE:its/secret@b/x", "AWS_ACCESS_KEY_ID"),
            ("s3://b/x?X-Amz-Signature=its/secret", "AWS_PROFILE"),
            ("az://c/x?sv=2024-11-04&sig=its/secret", "AZURE_STORAGE_SAS_KEY"),
        ] {
            let error = check(given.into()).unwrap_err().to_string();
            for word in ["give a path", "must not contain credentials", belongs] {
                assert!(error.contains(word), "{given} does not say {word}: {error}");
            }
            assert!(!error.contains("secret@") && !error.contains("its/secret"), "{error}");
        }
    }
}
