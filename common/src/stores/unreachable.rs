//! Connections to a store that fail whenever they are tried: certificates that are not trusted, a server without TLS, and
//! wrong endpoints. Their requests are not retried.
//!
//! An endpoint that refuses connections is wrong if it has never answered, and if a person waits for this process. A
//! server waits for it: its store may start later. Not here: retries (`settings`), how the error is explained (`explain`).

use std::error::Error;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};

use object_store::client::{HttpError, HttpErrorKind};

/// The text before the cause.
pub(super) const TEXT: &str = "no connection to the store";
/// Texts of failed handshakes, of rustls.
const TLS: [&str; 5] = [
    "invalid peer certificate",
    "UnknownIssuer",
    "received corrupt message",
    "received fatal alert",
    "peer is incompatible",
];
/// Texts of names that do not exist, of the system.
const NO_NAME: [&str; 2] = ["Name or service not known", "No address associated with hostname"];

static A_PERSON_WAITS: AtomicBool = AtomicBool::new(false);

/// From now on, endpoints that never answered are errors at once. For commands that a person waits for.
pub fn fail_fast() {
    A_PERSON_WAITS.store(true, Ordering::Relaxed);
}

/// A connection that fails whenever it is tried.
#[derive(Debug, thiserror::Error)]
#[error("{TEXT}: {}", innermost(.0))]
struct Unreachable(#[source] HttpError);

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// The error of a request, which is not retried if each connection would fail. `answered`: the store has answered before.
pub(super) fn classified(error: HttpError, answered: bool) -> HttpError {
    match is_permanent(&error, answered || !A_PERSON_WAITS.load(Ordering::Relaxed)) {
        true => HttpError::new(HttpErrorKind::Unknown, Unreachable(error)),
        false => error,
    }
}

fn is_permanent(error: &HttpError, may_start_later: bool) -> bool {
    if error.kind() != HttpErrorKind::Connect {
        return false;
    }
    let says = |texts: &[&str]| {
        causes(error).any(|cause| {
            let said = cause.to_string();
            texts.iter().any(|text| said.contains(text))
        })
    };
    let refused = || {
        causes(error).any(|cause| {
            let cause = cause.downcast_ref::<std::io::Error>();
            cause.is_some_and(|cause| cause.kind() == ErrorKind::ConnectionRefused)
        })
    };
    says(&TLS) || !may_start_later && (refused() || says(&NO_NAME))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn error(kind: HttpErrorKind, cause: io::Error) -> HttpError {
        HttpError::new(kind, cause)
    }

    #[test]
    fn certificates_are_permanent_and_refused_connections_only_at_first() {
        let refused = || error(HttpErrorKind::Connect, io::Error::from(ErrorKind::ConnectionRefused));
        assert!(is_permanent(&refused(), false) && !is_permanent(&refused(), true));
        let unknown =
            || error(HttpErrorKind::Connect, io::Error::other("invalid peer certificate: UnknownIssuer"));
        assert!(is_permanent(&unknown(), false) && is_permanent(&unknown(), true));
        let broken =
            error(HttpErrorKind::Interrupted, io::Error::other("received fatal alert: HandshakeFailure"));
        assert!(!is_permanent(&broken, false));
        let reset = error(HttpErrorKind::Connect, io::Error::from(ErrorKind::ConnectionReset));
        assert!(!is_permanent(&reset, false));
        let shown = Unreachable(unknown()).to_string();
        assert_eq!(shown, format!("{TEXT}: invalid peer certificate: UnknownIssuer"));
    }
}
