//! The error that no credentials are available, and whether the credentials of this process are renewed.
//!
//! Not here: the sources of credentials (`credentials`).

use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, Ordering};

use object_store::Error;

/// Whether this process has received credentials, by service.
pub(super) static HAD: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];
/// Whether the credentials of S3 are renewed while the process runs, by this process or another one.
pub(super) static S3_RENEWED: AtomicBool = AtomicBool::new(false);

/// Whether expired credentials may be replaced by new ones.
pub(super) fn are_renewed() -> bool {
    S3_RENEWED.load(Ordering::Relaxed) || HAD.iter().any(|had| had.load(Ordering::Relaxed))
}

/// No credentials are available; the text names the sources that were tried.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct NoCredentials {
    pub(super) why: String,
    /// Whether a retry cannot succeed.
    pub(super) never: bool,
}

impl NoCredentials {
    /// The `NoCredentials` among the causes of an error.
    pub(super) fn of(error: &Error) -> Option<&Self> {
        let mut cause = StdError::source(error);
        while let Some(next) = cause {
            if let Some(found) = next.downcast_ref() {
                return Some(found);
            }
            cause = next.source();
        }
        None
    }
}
