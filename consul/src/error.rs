//! What can go wrong between the caller and Consul, as data: a caller decides by the variant, a person reads the text.
//!
//! Not here: "not found", which is `None`, and "somebody else was faster", which is `false`.

use std::path::PathBuf;
use std::time::Duration;

/// The result of every call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call to Consul failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configured address is no URL that the client can use.
    #[error("the Consul address `{address}` is not usable: {reason}; give one like http://127.0.0.1:8500")]
    Address { address: String, reason: String },

    /// A file of the configuration can't be read or holds something else.
    #[error("{what} {}: {reason}", path.display())]
    File { what: &'static str, path: PathBuf, reason: String },

    /// The settings don't fit together.
    #[error("the settings for Consul don't fit together: {0}")]
    Settings(String),

    /// An argument that Consul would refuse, or misunderstand.
    #[error("{operation}: {reason}")]
    Argument { operation: String, reason: String },

    /// The value of a key is larger than Consul takes.
    #[error("put key `{key}`: the value has {size} bytes, Consul takes at most {limit}; store it elsewhere")]
    ValueTooLarge { key: String, size: usize, limit: usize },

    /// No connection, or it broke before the whole answer was there. Whether a write happened is not known.
    #[error("{operation}: can't reach Consul at {address}: {reason}")]
    Unreachable { operation: String, address: String, reason: String },

    /// Connected, but no answer in time. Whether a write happened is not known.
    #[error("{operation}: no answer from Consul at {address} within {:.1} s", after.as_secs_f64())]
    Timeout { operation: String, address: String, after: Duration },

    /// The token may not do that, or there is none.
    #[error("{operation}: permission denied by Consul ({detail}); check the ACL token and its policies")]
    PermissionDenied { operation: String, detail: String },

    /// The session of an acquire or release does not exist (any more): make a new one.
    #[error("{operation}: the session is gone ({detail})")]
    InvalidSession { operation: String, detail: String },

    /// The servers have no leader just now. Nothing was written.
    #[error("{operation}: Consul has no leader at the moment ({detail})")]
    NoLeader { operation: String, detail: String },

    /// Any other answer that is no success, with the beginning of its body.
    #[error("{operation}: Consul answered with status {status}: {body}")]
    Status { operation: String, status: u16, body: String },

    /// The answer is longer than the client is set to read.
    #[error(
        "{operation}: the answer is longer than the limit of {limit} bytes; ask for less or raise the limit"
    )]
    AnswerTooLarge { operation: String, limit: usize },

    /// The answer was a success but says something that the client does not understand.
    #[error("{operation}: can't understand Consul's answer: {reason}")]
    Decode { operation: String, reason: String },
}

impl Error {
    /// May the same call work later without anybody changing anything? True for a Consul that is away, without a
    /// leader, overloaded or slow.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Timeout { .. } | Error::NoLeader { .. } => true,
            Error::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }
}
