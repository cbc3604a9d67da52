//! Counts refused connections and requests by reason, for the metrics, and limits their log lines for each reason.
//!
//! Not here: the lines, which name the peer (`listen`, `guard`, `http`).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::log_limit::{LogLimit, Suppressed};
use crate::metrics::Page;

/// Why a connection or a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The client sent no certificate.
    NoCertificate,
    /// An untrusted authority signed the certificate.
    UnknownAuthority,
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// Something else is wrong with the certificate.
    BadCertificate,
    /// The client did not use TLS.
    NotTls,
    /// The TLS handshake failed for another reason, took too long, or the client aborted it.
    Handshake,
    /// The request has neither a certificate nor a known token.
    Unauthenticated,
    /// The client does not have the role for the request.
    Forbidden,
    /// The client exceeds the rate limit.
    Rate,
    /// Too many files are open: the remaining descriptors are reserved for the process itself.
    OpenFiles,
    /// The listener has its maximum number of connections, and this one made room for another.
    Connections,
    /// The files that the client is checked against could not be read for too long.
    StaleFiles,
}

impl Reason {
    /// All reasons, in the order of their counts.
    pub const ALL: [Reason; 12] = [
        Reason::NoCertificate,
        Reason::UnknownAuthority,
        Reason::Expired,
        Reason::BadCertificate,
        Reason::NotTls,
        Reason::Handshake,
        Reason::Unauthenticated,
        Reason::Forbidden,
        Reason::Rate,
        Reason::OpenFiles,
        Reason::Connections,
        Reason::StaleFiles,
    ];

    /// The value of the label.
    pub fn name(self) -> &'static str {
        match self {
            Reason::NoCertificate => "no_certificate",
            Reason::UnknownAuthority => "unknown_authority",
            Reason::Expired => "expired",
            Reason::BadCertificate => "bad_certificate",
            Reason::NotTls => "not_tls",
            Reason::Handshake => "handshake",
            Reason::Unauthenticated => "unauthenticated",
            Reason::Forbidden => "forbidden",
            Reason::Rate => "rate",
            Reason::OpenFiles => "open_files",
            Reason::Connections => "connections",
            Reason::StaleFiles => "stale_files",
        }
    }
}

/// The counts of refusals of a process.
#[derive(Debug, Default)]
pub struct RefusalCounts([(AtomicU64, LogLimit); Reason::ALL.len()]);

impl RefusalCounts {
    /// Counts refusals. Returns whether to log a line about them.
    #[must_use]
    pub fn count(&self, reason: Reason, refusals: usize) -> Option<Suppressed> {
        let (count, limit) = &self.0[reason as usize];
        count.fetch_add(refusals as u64, Ordering::Relaxed);
        limit.admit()
    }

    /// The count of a reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize].0.load(Ordering::Relaxed)
    }

    /// Writes all counts, also zeros, so that rates are right from the first refusal.
    pub fn describe(&self, page: &mut Page) {
        let counts =
            Reason::ALL.map(|reason| (vec![("reason", reason.name().to_string())], self.of(reason) as f64));
        page.counters("tally_refusals", "Connections and requests that were turned away, by reason", counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_count_of_its_own() {
        let refusals = RefusalCounts::default();
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            assert!(refusals.count(reason, 1).is_some());
        }
        assert!(Reason::ALL.into_iter().all(|reason| refusals.of(reason) == 1));
    }
}
