//! Decides whether a failed request to a store may succeed later: for all retry loops, and for the failures of tasks.
//!
//! Not here: the retries of single requests, which the client makes for 5xx, 429 and broken connections (`settings`).

use std::error::Error as StdError;
use std::io::ErrorKind;

use object_store::Error;

use super::no_credentials::{NoCredentials, are_renewed};
use super::unreachable;

/// Codes of 4xx answers that a retry may not get: data damaged by the network, and slow requests.
const TRANSIENT_CODES: [&str; 5] =
    ["RequestTimeout", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "OperationAborted"];
/// Codes of 4xx answers that services of credentials give when they are busy, or when they do not reach an identity provider.
const BUSY_CODES: [&str; 4] =
    ["Throttling", "ThrottlingException", "RequestLimitExceeded", "IDPCommunicationError"];
/// Texts of permanent errors that have no status: of single objects in a bulk delete, of certificates, and of connections.
const PERMANENT_TEXTS: [&str; 5] =
    ["AccessDenied", "UnknownIssuer", "invalid peer certificate", "without LOCATION", unreachable::TEXT];
/// Codes of credentials that have expired, or that are not valid yet according to the clock of this machine.
const EXPIRED_CODES: [&str; 5] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "RequestExpired",
];
/// The client's text before the status of an answer.
const STATUS: &str = "non-2xx status code: ";

/// Whether the same request may succeed later. Errors of permissions, credentials, names and all other refusals (4xx) are
/// permanent. So are missing credentials if there were none before.
pub fn is_transient(error: &Error) -> bool {
    is_transient_with(error, are_renewed())
}

/// Whether the error is about credentials that are missing, expired or signed with a wrong clock. Such an error concerns
/// one worker at one time, so the task is retried, on another worker if there is one.
pub fn concerns_credentials(error: &Error) -> bool {
    NoCredentials::of(error).is_some() || has_code(&text_of(error), &EXPIRED_CODES)
}

/// Whether a service of credentials refused a request, so that the same request fails again.
pub(super) fn is_refusal(error: &Error) -> bool {
    let text = text_of(error);
    let refused = |status| (400..500).contains(&status) && !is_transient_status(status);
    status_of(&text).is_some_and(refused)
        && !has_code(&text, &TRANSIENT_CODES)
        && !has_code(&text, &BUSY_CODES)
}

/// An error and its causes.
pub(super) fn causes_of(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(Some(error as &(dyn StdError + 'static)), |&cause| cause.source())
}

fn text_of(error: &Error) -> String {
    causes_of(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn has_code(text: &str, codes: &[&str]) -> bool {
    codes.iter().any(|code| text.contains(&format!("<Code>{code}</Code>")))
}

/// Whether a text contains the status of an answer.
pub(super) fn says_status(text: &str) -> bool {
    text.contains(STATUS)
}

/// The status of an answer that a text contains.
fn status_of(text: &str) -> Option<u16> {
    text.split_once(STATUS).and_then(|(_, rest)| rest.get(..3)?.parse().ok())
}

/// Expired credentials are a transient error if they are `renewed`.
fn is_transient_with(error: &Error, renewed: bool) -> bool {
    if let Some(missing) = NoCredentials::of(error) {
        return !missing.never;
    }
    let text = text_of(error);
    if has_code(&text, &TRANSIENT_CODES) || renewed && has_code(&text, &EXPIRED_CODES) {
        return true;
    }
    match error {
        Error::Generic { .. } => {
            let permanent = PERMANENT_TEXTS.iter().any(|said| text.contains(said))
                || causes_of(error).any(|cause| {
                    cause.is::<object_store::path::Error>()
                        || cause
                            .downcast_ref::<std::io::Error>()
                            .is_some_and(|error| is_permanent(error.kind()))
                });
            !permanent && status_of(&text).is_none_or(is_transient_status)
        }
        Error::JoinError { .. } => true,
        _ => false,
    }
}

/// Whether the status of an answer is a transient error.
pub(super) fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502..=599)
}

/// Whether an error of the file system is permanent.
fn is_permanent(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use object_store::path::Path;

    use super::*;

    fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::Generic { store: "S3", source: source.into() }
    }

    #[test]
    fn only_transient_errors_are_retried() {
        let answered = |status: &str, body: &str| {
            generic(format!("Error performing PUT http://x in 3s - Server returned {STATUS}{status}: {body}"))
        };
        let source = || "refused".into();
        let path = || "k".to_string();
        for (error, expect) in [
            (answered("400 Bad Request", "<Code>InvalidRequest</Code>"), false),
            (answered("400 Bad Request", "<Code>RequestTimeout</Code>"), true),
            (answered("400 Bad Request", "<Code>BadDigest</Code>"), true),
            (answered("405 Method Not Allowed", ""), false),
            (answered("429 Too Many Requests", ""), true),
            (answered("500 Internal Server Error", ""), true),
            (answered("501 Not Implemented", ""), false),
            (answered("503 Service Unavailable", "<Code>SlowDown</Code>"), true),
            (generic("connection reset by peer"), true),
            (generic("DeleteObjects request failed for key k: no (code: AccessDenied)"), false),
            (generic("invalid peer certificate: UnknownIssuer"), false),
            (generic(format!("{}: Connection refused (os error 111)", unreachable::TEXT)), false),
            (generic(Path::parse("a//b").unwrap_err()), false),
            (generic(io::Error::from(ErrorKind::PermissionDenied)), false),
            (generic(io::Error::from(ErrorKind::StorageFull)), true),
            (Error::PermissionDenied { path: path(), source: source() }, false),
            (Error::Unauthenticated { path: path(), source: source() }, false),
            (Error::NotFound { path: path(), source: source() }, false),
            (Error::AlreadyExists { path: path(), source: source() }, false),
            (Error::InvalidPath { source: Path::parse("a//b").unwrap_err() }, false),
            (Error::NotSupported { source: source() }, false),
        ] {
            assert_eq!(is_transient_with(&error, false), expect, "{error}");
        }
    }

    #[test]
    fn refused_requests_for_credentials_are_told_from_busy_services() {
        for (status, code, expect) in [
            ("400 Bad Request", "InvalidIdentityToken", true),
            ("403 Forbidden", "AccessDenied", true),
            ("404 Not Found", "", true),
            ("400 Bad Request", "Throttling", false),
            ("400 Bad Request", "IDPCommunicationError", false),
            ("408 Request Timeout", "", false),
            ("429 Too Many Requests", "", false),
            ("500 Internal Server Error", "", false),
            ("503 Service Unavailable", "", false),
        ] {
            let said = format!("Server returned {STATUS}{status}: <Error><Code>{code}</Code></Error>");
            assert_eq!(is_refusal(&generic(said)), expect, "{status} {code}");
        }
        assert!(!is_refusal(&generic("connection reset by peer")));
    }

    #[test]
    fn expired_credentials_concern_one_worker_at_one_time() {
        for code in EXPIRED_CODES {
            let source = || format!("403 Forbidden: <Error><Code>{code}</Code></Error>").into();
            for error in [generic(source()), Error::PermissionDenied { path: "k".into(), source: source() }] {
                assert!(concerns_credentials(&error), "{error}");
                assert!(is_transient_with(&error, true), "{error}");
            }
            let error = Error::PermissionDenied { path: "k".into(), source: source() };
            assert!(!is_transient_with(&error, false), "keys that are given stay as they are");
        }
        let denied = Error::PermissionDenied { path: "k".into(), source: "<Code>AccessDenied</Code>".into() };
        assert!(!concerns_credentials(&denied) && !is_transient_with(&denied, true));
    }
}
