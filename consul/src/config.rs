//! Where Consul is and how to speak to it. Not here: the environment, files of settings and their order, which are the
//! program's business; it hands a complete [`Config`] over.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::error::{Error, Result};
use crate::token::Token;

/// All settings of a [`Client`](crate::Client). `Config::default()` speaks to an agent on this machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://host:port`, `https://host:port`, or `host:port` for the former; a path before `/v1` is kept.
    pub address: String,
    /// Sent as `X-Consul-Token`.
    pub token: Option<Token>,
    /// The datacenter that is asked; by default the agent's own.
    pub datacenter: Option<String>,
    /// The namespace that is used (Consul Enterprise only; others refuse it with status 400).
    pub namespace: Option<String>,
    /// For `https` addresses.
    pub tls: Tls,
    /// How long the making of a connection may take.
    pub connect_timeout: Duration,
    /// How long a call may take, connection and body included. A blocking query gets its wait on top.
    pub request_timeout: Duration,
    /// The most bytes that are read of one answer. A listed KV entry takes 4/3 of its value and some 200 bytes.
    pub max_answer: usize,
}

/// Certificates, as PEM files, read once when the client is made.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The only authorities that are trusted; by default those that the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate with its chain, for servers that ask for one.
    pub client_cert: Option<PathBuf>,
    /// The private key of `client_cert`.
    pub client_key: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: "http://127.0.0.1:8500".into(),
            token: None,
            datacenter: None,
            namespace: None,
            tls: Tls::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            max_answer: 32 << 20,
        }
    }
}

impl Config {
    /// The defaults with another address.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), ..Self::default() }
    }

    /// The address as a URL without a slash at its end.
    pub(crate) fn url(&self) -> Result<Url> {
        let fail = |reason: String| Error::Address { address: self.shown_address(), reason };
        let text = match self.address.contains("://") {
            true => self.address.clone(),
            false => format!("http://{}", self.address),
        };
        let mut url = Url::parse(&text).map_err(|error| fail(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(fail(format!("the scheme `{}` is neither http nor https", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fail("it holds a user or password".into()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(fail("it has a query or a fragment".into()));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(url)
    }

    /// The address without what may stand before an `@`, which may be a password.
    fn shown_address(&self) -> String {
        match self.address.rsplit_once('@') {
            Some((_, host)) => format!("...@{host}"),
            None => self.address.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_kind() {
        let check = |address: &str, expect: &str| {
            let got = match Config::new(address).url() {
                Ok(url) => url.to_string(),
                Err(error) => format!("error: {error}"),
            };
            assert!(got.contains(expect), "{address}: {got}");
        };
        check("127.0.0.1:8500", "http://127.0.0.1:8500/");
        check("https://consul.example:8501/", "https://consul.example:8501/");
        check("http://gate/consul/", "http://gate/consul");
        check("[::1]:8500", "http://[::1]:8500/");
        check("unix:///run/consul.sock", "neither http nor https");
        check("", "error: the Consul address ``");
        check("http://me:pw@host", "`...@host` is not usable: it holds a user");
    }
}
