//! The errors of calls to Consul. Callers decide by the variant, and people read the text.
//!
//! Not here: "not found", which is `None`, and a lost race, which is `false`.

use std::path::PathBuf;
use std::time::Duration;

/// The result of every call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call to Consul failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configured address is not a URL that the client can use.
    #[error("the Consul address `{address}` is not usable: {reason}; give one like http://127.0.0.1:8500")]
    Address { address: String, reason: String },

    /// A file of the configuration can't be read or has other content.
    #[error("{what} {}: {reason}", path.display())]
    File { what: &'static str, path: PathBuf, reason: String },

    /// The settings contradict each other or can't be used.
    #[error("the settings for Consul can't be used: {0}")]
    Settings(String),

    /// Consul would refuse or misinterpret an argument.
    #[error("{operation}: {reason}")]
    Argument { operation: String, reason: String },

    /// The value of a key is larger than Consul accepts.
    #[error(
        "put key `{key}`: the value has {size} bytes, and Consul accepts at most {limit}; store it elsewhere"
    )]
    ValueTooLarge { key: String, size: usize, limit: usize },

    /// There is no connection, or it broke before the complete answer arrived. A write may have happened.
    #[error("{operation}: can't reach Consul at {address}: {reason}")]
    Unreachable { operation: String, address: String, reason: String },

    /// There is no answer within the time limit. A write may have happened.
    #[error("{operation}: no answer from Consul at {address} within {:.1} s", after.as_secs_f64())]
    Timeout { operation: String, address: String, after: Duration },

    /// The token has no permission for the call, or there is no token.
    #[error("{operation}: permission denied by Consul ({detail}); check the ACL token and its policies")]
    PermissionDenied { operation: String, detail: String },

    /// The session of an acquire or release does not exist or no longer exists: create a new one.
    #[error("{operation}: the session no longer exists ({detail})")]
    InvalidSession { operation: String, detail: String },

    /// The servers have no leader at the moment. Nothing was written.
    #[error("{operation}: Consul has no leader at the moment ({detail})")]
    NoLeader { operation: String, detail: String },

    /// Any other answer that is not a success, with the beginning of its body.
    #[error("{operation}: Consul answered with status {status}: {body}")]
    Status { operation: String, status: u16, body: String },

    /// The answer is longer than the client's limit.
    #[error(
        "{operation}: the answer is longer than the limit of {limit} bytes; ask for less or raise the limit"
    )]
    AnswerTooLarge { operation: String, limit: usize },

    /// The answer is a success, but the client can't parse it.
    #[error("{operation}: can't parse Consul's answer: {reason}")]
    Decode { operation: String, reason: String },
}

impl Error {
    /// Whether the same call may succeed later: Consul is unreachable, without a leader, overloaded or slow.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Timeout { .. } | Error::NoLeader { .. } => true,
            Error::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }
}
