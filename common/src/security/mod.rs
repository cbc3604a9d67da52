//! Authentication and authorization between processes: mutual TLS, roles, bearer tokens, request rates, and refusals.
//!
//! - `certificates` reads certificates and keys, again when their files change (`watched`).
//! - `identity` maps certificates to roles, `tokens` maps tokens to roles, and `rules` says what a role may do.
//! - `listen` accepts connections, `handshake` secures them, `rate` limits their requests, `guard` checks them, and `dial`
//!   connects to others.
//! - `refusals` counts refused connections and requests, and limits their log lines.
//!
//! Not here: TLS to Consul (`consul-api-client`) and to object stores, the keys of jobs (`tally-shuffle`'s tickets),
//! health and metrics over HTTP (`http`).

mod args;
mod certificates;
mod dial;
mod guard;
mod handshake;
mod identity;
mod listen;
mod rate;
mod refusals;
mod rules;
mod tokens;
mod watched;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Page;
pub use args::{ClientArgs, ServerArgs, TlsArgs};
use certificates::{Credentials, Loaded, Valid};
pub use dial::{Bearer, Dialer};
pub(crate) use guard::bearer;
pub use guard::{Guard, Guarded};
pub(crate) use handshake::secure_web;
pub use identity::{Identity, InvalidRoleMap, Role, RoleMap, Roles};
pub use listen::{Connection, Peer, incoming};
pub use rate::{Rate, RateKey};
pub use refusals::{Reason, RefusalCounts};
use tokens::Tokens;

/// Why the security of a process cannot be set up; the text names the file or option.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file of certificates, keys, roles or tokens.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Options contradict each other.
    #[error("{0}")]
    Options(String),
    /// The TLS library rejects the configuration.
    #[error("the TLS configuration cannot be used: {0}")]
    Tls(String),
}

/// The process would serve plain text to other machines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "--listen {listen}: {address} can be reached from other machines, and nothing would be encrypted or \
     authenticated: give --tls-ca, --tls-cert and --tls-key, or --insecure if this network is trusted"
)]
pub struct Exposed {
    listen: String,
    address: SocketAddr,
}

impl SecurityError {
    fn file(path: &Path, reason: impl fmt::Display) -> Self {
        SecurityError::File { path: path.into(), reason: reason.to_string() }
    }
}

/// What a bearer token replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenUse {
    /// A client with a token needs no certificate.
    InsteadOfCertificate,
    /// Connections need a certificate; tokens only allow changes of the log's filter.
    BesidesCertificate,
}

/// The security of a server, shared by all its listeners.
pub struct Security {
    credentials: Option<Arc<Credentials>>,
    tokens: Option<Tokens>,
    insecure: bool,
    rate: Option<Rate>,
    refusals: RefusalCounts,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys and tokens are not shown.
        f.debug_struct("Security").field("tls", &self.credentials.is_some()).finish_non_exhaustive()
    }
}

impl Security {
    /// Plain text without authentication, for listeners on loopback.
    pub fn plain() -> Arc<Self> {
        Arc::new(Security {
            credentials: None,
            tokens: None,
            insecure: false,
            rate: None,
            refusals: RefusalCounts::default(),
        })
    }

    /// Opens the security of the options; reads the files. `tokens` is the file of tokens and their use. `rate` is the
    /// maximum number of requests per second to the public API for each client.
    ///
    /// # Errors
    /// [`SecurityError`].
    pub fn open(
        args: &ServerArgs,
        tokens: Option<(&Path, TokenUse)>,
        rate: Option<u32>,
    ) -> Result<Arc<Self>, SecurityError> {
        let files = args.tls.server_files()?;
        let option = |what: &str| Err(SecurityError::Options(what.into()));
        if files.is_some() && args.insecure {
            return option("give --insecure or --tls-cert, not both");
        }
        if files.is_none() && tokens.is_some() {
            return option(
                "--tokens-file needs --tls-ca, --tls-cert and --tls-key: tokens are sent over TLS only",
            );
        }
        let alone = tokens.is_some_and(|(_, use_of)| use_of == TokenUse::InsteadOfCertificate);
        let tokens = tokens.map(|(file, _)| file);
        let named = |error| args.tls.named(error, ("--tokens-file", tokens));
        let credentials = files.map(|files| Credentials::open(files, alone)).transpose();
        Ok(Arc::new(Security {
            credentials: credentials.map_err(named)?.map(Arc::new),
            tokens: tokens.map(Tokens::open).transpose().map_err(named)?,
            insecure: args.insecure,
            rate: rate.map(Rate::new),
            refusals: RefusalCounts::default(),
        }))
    }

    /// Whether connections to this process are encrypted.
    pub fn is_tls(&self) -> bool {
        self.credentials.is_some()
    }

    /// Refuses plain text on addresses that other machines can reach, unless the user allows it.
    ///
    /// # Errors
    /// [`Exposed`].
    pub fn check(&self, listen: &str, address: SocketAddr) -> Result<(), Exposed> {
        if self.is_tls() || self.insecure || address.ip().is_loopback() {
            return Ok(());
        }
        Err(Exposed { listen: listen.into(), address })
    }

    /// Whether requests in plain text to a listener with this address may do what they may over gRPC.
    pub(crate) fn allows_plain(&self, address: SocketAddr) -> bool {
        !self.is_tls() && self.check("", address).is_ok()
    }

    /// The dialer for the other processes of the cluster.
    pub fn dialer(&self) -> Dialer {
        Dialer::new(self.credentials.clone(), Bearer::default())
    }

    /// Checks for changed files, as each connection and request does.
    pub fn refresh(&self) {
        self.failing();
    }

    /// The kinds of files, and for how long they cannot be used.
    fn failing(&self) -> Vec<(&'static str, Option<Duration>)> {
        let certificates = self.credentials.iter().map(|files| ("certificates", files.failing_for()));
        certificates.chain(self.tokens.iter().map(|file| ("tokens", file.failing_for()))).collect()
    }

    /// Whether connections can be accepted and made: `false` if the files of certificates cannot be used for too long.
    pub fn is_ready(&self) -> bool {
        self.credentials.as_ref().is_none_or(|credentials| credentials.current().is_ok())
    }

    /// Writes its metrics; checks for changed files.
    pub fn describe(&self, page: &mut Page) {
        self.refusals.describe(page);
        let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64();
        let failing = self.failing().into_iter();
        page.gauges(
            "tally_security_files_failing_seconds",
            "For how long changed files of certificates or tokens cannot be used, in seconds; 0 if they can",
            failing.map(|(files, time)| (vec![("files", files.to_string())], seconds(time))),
        );
        if let Some(credentials) = &self.credentials {
            let loaded = credentials.last();
            let loads = loaded.generation + 1;
            page.counter(
                "tally_tls_loads",
                "Times that certificates and keys were read: at the start, and after changes",
                loads as f64,
            );
            type Time = fn(&Valid) -> i64;
            let gauges: [(&str, &str, Time); 2] = [
                ("not_before", "Since when the certificate is valid, in seconds since 1970", |valid| {
                    valid.from
                }),
                ("not_after", "Until when the certificate is valid, in seconds since 1970", |valid| {
                    valid.until
                }),
            ];
            for (end, help, time) in gauges {
                let values = loaded
                    .valid
                    .iter()
                    .map(|(whose, valid)| (vec![("certificate", (*whose).to_string())], time(valid) as f64));
                page.gauges(&format!("tally_tls_certificate_{end}_seconds"), help, values);
            }
        }
    }

    /// The counts of refusals.
    pub fn refusals(&self) -> &RefusalCounts {
        &self.refusals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_loopback_unless_it_is_allowed() {
        let at = |text: &str| text.parse().unwrap();
        let plain = Security::plain();
        for near in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1"] {
            assert_eq!(plain.check(near, at(near)), Ok(()));
        }
        for far in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
            assert!(plain.check(far, at(far)).unwrap_err().to_string().contains("--insecure"), "{far}");
        }
        let args = ServerArgs { insecure: true, ..ServerArgs::default() };
        let insecure = Security::open(&args, None, None).unwrap();
        assert_eq!(insecure.check("0.0.0.0:1", at("0.0.0.0:1")), Ok(()));
    }

    #[test]
    fn contradicting_options_are_named() {
        let error = Security::open(
            &ServerArgs::default(),
            Some((Path::new("/t"), TokenUse::BesidesCertificate)),
            None,
        )
        .unwrap_err();
        assert!(error.to_string().contains("--tokens-file needs"), "{error}");
        let tls = TlsArgs { tls_cert: Some("/c".into()), ..TlsArgs::default() };
        let error = Security::open(&ServerArgs { tls, insecure: false }, None, None).unwrap_err();
        assert!(error.to_string().contains("--tls-key together"), "{error}");
    }
}
