//! Who was turned away, by reason: for the metrics. The log has each with its peer.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::Page;

/// Why a connection or a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A certificate was asked for, and none was shown.
    NoCertificate,
    /// An authority signed the certificate that is not trusted here.
    UnknownAuthority,
    /// The certificate's time is over, or has not come.
    Expired,
    /// Something else is wrong with the certificate.
    BadCertificate,
    /// What came was not TLS.
    NotTls,
    /// The TLS handshake failed otherwise, took too long, or the other side refused.
    Handshake,
    /// Neither a certificate nor a known token came with the request.
    Unauthenticated,
    /// Whoever asked does not have the role for that.
    Forbidden,
    /// Too many requests in too short a time.
    Rate,
}

impl Reason {
    /// All of them, in the order of their counts.
    pub const ALL: [Reason; 9] = [
        Reason::NoCertificate,
        Reason::UnknownAuthority,
        Reason::Expired,
        Reason::BadCertificate,
        Reason::NotTls,
        Reason::Handshake,
        Reason::Unauthenticated,
        Reason::Forbidden,
        Reason::Rate,
    ];

    /// As a label's value.
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
        }
    }
}

/// The counts of a process.
#[derive(Debug, Default)]
pub struct RefusalCounts([AtomicU64; Reason::ALL.len()]);

impl RefusalCounts {
    /// One more.
    pub fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it happened.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// Writes them all, also those that never happened, so that rates are right at the first one.
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
            refusals.count(reason);
        }
        assert!(Reason::ALL.into_iter().all(|reason| refusals.of(reason) == 1));
    }
}
