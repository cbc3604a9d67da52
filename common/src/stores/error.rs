//! Why a bucket cannot be used.
//!
//! Not here: what a store's refusal of a single request means (`explain`).

use super::no_credentials::NoCredentials;

/// A bucket cannot be used: a setting is wrong, credentials are missing, or its open uploads cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// Neither of AWS's files has the profile that `AWS_PROFILE` names.
    #[error("AWS_PROFILE {profile}: there is no such profile in {credentials} or {config}")]
    NoProfile {
        /// The profile.
        profile: String,
        /// The path of the credentials file.
        credentials: String,
        /// The path of the configuration file.
        config: String,
    },
    /// The profile that `AWS_PROFILE` names has no keys that can be used.
    #[error("AWS_PROFILE: {0}")]
    Profile(String),
    /// The file of certificate authorities cannot be used.
    #[error("AWS_CA_BUNDLE {file}: {reason}")]
    CaBundle {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No source has credentials.
    #[error(transparent)]
    NoCredentials(#[from] NoCredentials),
    /// The client library rejects the settings.
    #[error(transparent)]
    Client(#[from] object_store::Error),
    /// The open uploads cannot be listed.
    #[error("open uploads cannot be listed: {0}")]
    OpenUploads(String),
}
