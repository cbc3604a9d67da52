//! Who may speak to this process, and how it proves itself to others: mutual TLS, roles, bearer tokens, the rate
//! of requests, and what becomes of those that are refused.
//!
//! `credentials` are certificates and keys, read anew when their files change (`watched`); `identity` says which
//! roles a certificate has, `tokens` which a token has, `rules` what a role may do. `listen` takes connections, `guard`
//! looks at each request on them, `rate` counts them, `dial` connects to others; `refusals` counts who was turned away.
//! Not here: TLS to Consul (`consul-api-client`) and to object stores, the keys of jobs (`flight::ticket`), health
//! and metrics over HTTP.

mod args;
mod credentials;
mod dial;
mod guard;
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

use crate::http::Page;
pub use args::{ClientArgs, ServerArgs, TlsArgs};
use credentials::{Credentials, Loaded, Valid};
pub use dial::{Bearer, Dialer};
pub use guard::{Guard, Guarded};
pub use identity::{Identity, Role, RoleMap, Roles};
pub use listen::{Connection, Peer, incoming};
pub use rate::Rate;
pub use refusals::{Reason, RefusalCounts};
use tokens::Tokens;

/// What makes a process's security unusable; the text names the file or option.
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
    /// Options that make no sense together.
    #[error("{0}")]
    Options(String),
    /// The TLS library.
    #[error("TLS cannot be used as it is set: {0}")]
    Tls(String),
}

impl SecurityError {
    fn file(path: &Path, reason: impl fmt::Display) -> Self {
        SecurityError::File { path: path.into(), reason: reason.to_string() }
    }
}

/// The security of a process that others connect to. One for all its listeners.
pub struct Security {
    credentials: Option<Arc<Credentials>>,
    tokens: Option<Tokens>,
    insecure: bool,
    rate: Option<Rate>,
    refusals: RefusalCounts,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of a key or token.
        f.debug_struct("Security").field("tls", &self.credentials.is_some()).finish_non_exhaustive()
    }
}

impl Security {
    /// Plain text, everything allowed to everybody: for listeners on loopback.
    pub fn plain() -> Arc<Self> {
        Arc::new(Security {
            credentials: None,
            tokens: None,
            insecure: false,
            rate: None,
            refusals: RefusalCounts::default(),
        })
    }

    /// What the options say; reads the files. `tokens` are those that are accepted, `rate` the requests a second
    /// of the public API that each client may make.
    ///
    /// # Errors
    /// [`SecurityError`].
    pub fn open(
        args: &ServerArgs,
        tokens: Option<&Path>,
        rate: Option<u32>,
    ) -> Result<Arc<Self>, SecurityError> {
        let files = args.tls.server_files()?;
        let option = |what: &str| Err(SecurityError::Options(what.into()));
        if files.is_some() && args.insecure {
            return option("give --insecure or --tls-cert, not both");
        }
        if files.is_none() && tokens.is_some() {
            return option("--tokens-file needs --tls-ca, --tls-cert and --tls-key: tokens go over TLS only");
        }
        let named = |error| args.tls.named(error, ("--tokens-file", tokens));
        let credentials = files.map(|files| Credentials::open(files, tokens.is_some())).transpose();
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

    /// Says no to plain text where others could listen, unless the user wants just that.
    ///
    /// # Errors
    /// A sentence for the user, naming the options.
    pub fn check(&self, listen: &str, address: SocketAddr) -> Result<(), String> {
        if self.is_tls() || self.insecure || address.ip().is_loopback() {
            return Ok(());
        }
        Err(format!(
            "--listen {listen}: {address} can be reached from other machines, and nothing would be encrypted or \
             authenticated: give --tls-ca, --tls-cert and --tls-key, or --insecure if this network is trusted"
        ))
    }

    /// How this process connects to others of its cluster.
    pub fn dialer(&self) -> Dialer {
        Dialer::new(self.credentials.clone(), Bearer::default())
    }

    /// Writes its metrics; looks whether files have changed, as each connection does.
    pub fn describe(&self, page: &mut Page) {
        self.refusals.describe(page);
        if let Some(credentials) = &self.credentials {
            let loaded = credentials.current();
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

    /// Who was turned away.
    pub fn refusals(&self) -> &RefusalCounts {
        &self.refusals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_loopback_unless_it_is_wanted() {
        let at = |text: &str| text.parse().unwrap();
        let plain = Security::plain();
        for near in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1"] {
            assert_eq!(plain.check(near, at(near)), Ok(()));
        }
        for far in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
            assert!(plain.check(far, at(far)).unwrap_err().contains("--insecure"), "{far}");
        }
        let args = ServerArgs { insecure: true, ..ServerArgs::default() };
        let insecure = Security::open(&args, None, None).unwrap();
        assert_eq!(insecure.check("0.0.0.0:1", at("0.0.0.0:1")), Ok(()));
    }

    #[test]
    fn options_that_contradict_each_other_are_named() {
        let error = Security::open(&ServerArgs::default(), Some(Path::new("/t")), None).unwrap_err();
        assert!(error.to_string().contains("--tokens-file needs"), "{error}");
        let tls = TlsArgs { tls_cert: Some("/c".into()), ..TlsArgs::default() };
        let error = Security::open(&ServerArgs { tls, insecure: false }, None, None).unwrap_err();
        assert!(error.to_string().contains("--tls-key together"), "{error}");
    }
}
