//! The settings of a client.
//!
//! Not here: where settings come from (flags, environment, files): the program passes a complete [`Config`].

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::error::{Error, Result};
use crate::token::Token;

/// All settings of a [`Client`](crate::Client). `Config::default()` connects to an agent on this machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://host:port`, `https://host:port`, or `host:port` for the former; a path before `/v1` is kept.
    pub address: String,
    /// Sent as `X-Consul-Token`.
    pub token: Option<Token>,
    /// A file with the token, such as a mounted secret. It replaces `token` and is read again when it changes.
    pub token_file: Option<PathBuf>,
    /// Called with each token before it is used, for programs that redact secrets in their logs.
    pub on_token: Option<fn(&str)>,
    /// The datacenter of requests; by default that of the agent.
    pub datacenter: Option<String>,
    /// The namespace of requests (Consul Enterprise only; other editions refuse it with status 400).
    pub namespace: Option<String>,
    /// The admin partition of requests (Consul Enterprise only; other editions refuse it).
    pub partition: Option<String>,
    /// For `https` addresses.
    pub tls: Tls,
    /// The time limit of a connection attempt.
    pub connect_timeout: Duration,
    /// The time limit of a call, including connection and body. The wait of a blocking query is added.
    pub request_timeout: Duration,
    /// The maximum size of an answer in bytes. A listed KV entry takes 4/3 of its value and about 200 bytes.
    pub max_answer: usize,
}

/// Certificates, as PEM files; read again when they change.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The trusted certificate authorities; by default those of the machine.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate with its chain, for servers that require one.
    pub client_cert: Option<PathBuf>,
    /// The private key of `client_cert`.
    pub client_key: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: "http://127.0.0.1:8500".into(),
            token: None,
            token_file: None,
            on_token: None,
            datacenter: None,
            namespace: None,
            partition: None,
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
        const ELSEWHERE: &str = "give the token as a file, or in CONSUL_HTTP_TOKEN";
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fail(format!("it contains a user or password; {ELSEWHERE}")));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(fail(format!("it has a query or a fragment; {ELSEWHERE}")));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(url)
    }

    /// The address without what may be a password or token: the text before an `@`, and after a `?` or `#`.
    fn shown_address(&self) -> String {
        let address = self.address.split(['?', '#']).next().unwrap_or_default();
        let cut = if address.len() < self.address.len() { "?..." } else { "" };
        match self.address.rsplit_once('@') {
            Some((_, host)) => format!("...@{}", host.split(['?', '#']).next().unwrap_or_default()) + cut,
            None => format!("{address}{cut}"),
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
        check("http://me:pw@host", "`...@host` is not usable: it contains a user");
        check("http://host/?token=s3cret", "`http://host/?...` is not usable: it has a query");
        check("http://me:p?s3cret@host:1", "`...@host:1?...` is not usable");
        check("me:s3cret@host:x/?q", "`...@host:x/?...` is not usable");
    }
}
