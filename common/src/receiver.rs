//! Posts JSON to a receiver over HTTP: a webhook, a collector of lineage. A URL may contain secrets anywhere, so only its
//! scheme, host and port are shown.
//!
//! The client follows no redirect, because a redirect must not send the token to another server. Not here: what is sent,
//! retries, queues.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use reqwest::{Certificate, Client};
use tokio::task::spawn_blocking;
use url::Url;

use crate::secrets;
use crate::security::{Bearer, SecurityError};

/// The time limit of a connection attempt.
const CONNECT: Duration = Duration::from_secs(5);
/// The time limit of a request with its answer.
const REQUEST: Duration = Duration::from_secs(10);
/// The minimum length of a part of a path that is treated as a secret, if it contains a digit.
const SECRET_SEGMENT: usize = 16;
/// A request with this key is not a new one if the receiver has seen the key.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The settings of a receiver.
#[derive(Debug, Clone, Default)]
pub struct ReceiverOptions {
    /// The option that sets the URL, for errors.
    pub option: &'static str,
    /// The URL.
    pub url: String,
    /// The path of a URL without one.
    pub default_path: &'static str,
    /// A file with a bearer token; it is read before each request.
    pub token_file: Option<PathBuf>,
    /// Authorities that verify the receiver's certificate, as PEM, instead of those of the system.
    pub ca_file: Option<PathBuf>,
}

/// A receiver that cannot be used; the text names the option, and has no secrets.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// The URL.
    #[error("{option}: {problem}")]
    Url {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The file of the token.
    #[error("the token of {option}: {source}")]
    Token {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        source: SecurityError,
    },
    /// The file of authorities, or the system's.
    #[error("the certificate authorities of {option}: {reason}")]
    Authorities {
        /// The option.
        option: &'static str,
        /// What is wrong with them.
        reason: String,
    },
}

/// A request that the receiver did not accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// It answered with a status that another try does not change.
    #[error("it answered with status {0}")]
    Refused(u16),
    /// Another try may succeed.
    #[error("{0}")]
    Failed(String),
}

impl PostError {
    /// Whether another try may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, PostError::Failed(_))
    }
}

/// A receiver.
#[derive(Debug)]
pub struct Receiver {
    url: Url,
    shown: String,
    token_file: Option<PathBuf>,
    http: Client,
}

impl Receiver {
    /// Checks the settings, and reads their files. Opens no connection.
    ///
    /// # Errors
    /// [`ReceiverError`].
    pub fn open(options: &ReceiverOptions) -> Result<Self, ReceiverError> {
        let ReceiverOptions { token_file, ca_file, .. } = options;
        let option = options.option;
        let url = checked(options)?;
        register_secrets(&url);
        if let Some(file) = token_file {
            Bearer::read(file).map_err(|source| ReceiverError::Token { option, source })?;
        }
        let http =
            client(ca_file.as_deref()).map_err(|reason| ReceiverError::Authorities { option, reason })?;
        Ok(Receiver { shown: shown(&url), url, token_file: token_file.clone(), http })
    }

    /// Scheme, host and port.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Posts a JSON text once. `key` is the same for each try, so that the receiver recognises what it has.
    ///
    /// # Errors
    /// [`PostError`].
    pub async fn post(&self, key: &str, json: String) -> Result<(), PostError> {
        let failed = |error: reqwest::Error| PostError::Failed(causes(&error));
        let mut request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(IDEMPOTENCY_KEY, key)
            .body(json);
        if let Some(file) = self.token_file.clone() {
            let read = spawn_blocking(move || Bearer::read(&file)).await;
            let read = read.map_err(|error| PostError::Failed(error.to_string()))?;
            let bearer = read.map_err(|error| PostError::Failed(error.to_string()))?;
            if let Some(value) = bearer.header() {
                request = request.header(AUTHORIZATION, value);
            }
        }
        let status = request.send().await.map_err(failed)?.status();
        match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Err(PostError::Failed(format!("it answered with status {}", status.as_u16())))
            }
            status if status.is_success() => Ok(()),
            status if status.is_server_error() => {
                Err(PostError::Failed(format!("it answered with status {}", status.as_u16())))
            }
            status => Err(PostError::Refused(status.as_u16())),
        }
    }
}

/// The URL with its path.
fn checked(options: &ReceiverOptions) -> Result<Url, ReceiverError> {
    let wrong = |problem| ReceiverError::Url { option: options.option, problem };
    let advice = "it is not a URL of HTTP: write https://HOST/PATH or http://HOST:PORT/PATH";
    let mut url = Url::parse(options.url.trim()).map_err(|_| wrong(advice))?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err(wrong(advice));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("a URL must not contain a password: give a file with a token instead"));
    }
    if url.path() == "/" && url.query().is_none() {
        url.set_path(options.default_path);
    }
    url.set_fragment(None);
    Ok(url)
}

fn shown(url: &Url) -> String {
    let host = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
    url.port().map_or(host.clone(), |port| format!("{host}:{port}"))
}

/// Registers the parts of a URL that may be secrets. Parts that are common words are not replaced in other texts.
fn register_secrets(url: &Url) {
    let segments = url.path_segments().into_iter().flatten();
    let random =
        |segment: &&str| segment.len() >= SECRET_SEGMENT && segment.bytes().any(|b| b.is_ascii_digit());
    segments.filter(random).for_each(secrets::register);
    url.query_pairs().for_each(|(_, value)| secrets::register(&value));
}

fn client(ca_file: Option<&Path>) -> Result<Client, String> {
    // The client uses the TLS provider of the process. An earlier call has installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("tally/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .timeout(REQUEST)
        .redirect(reqwest::redirect::Policy::none());
    let builder = match ca_file {
        None => builder,
        Some(file) => {
            let named = |reason: String| format!("{}: {reason}", file.display());
            let pem = std::fs::read(file).map_err(|error| named(error.to_string()))?;
            let found = Certificate::from_pem_bundle(&pem).map_err(|error| named(causes(&error)))?;
            if found.is_empty() {
                return Err(named("it contains no certificate in PEM".into()));
            }
            builder.tls_certs_only(found)
        }
    };
    builder.build().map_err(|error| causes(&error))
}

/// An error of the HTTP stack with its causes, without the URL and without secrets.
fn causes(error: &reqwest::Error) -> String {
    let what = match error {
        error if error.is_timeout() => "no answer in time",
        error if error.is_connect() => "no connection",
        error if error.is_builder() => "it cannot be used",
        _ => "the connection broke",
    };
    let mut text = what.to_owned();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    secrets::cut(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> ReceiverOptions {
        let default_path = "/api/v1/lineage";
        ReceiverOptions { option: "--openlineage-url", url: url.into(), default_path, ..Default::default() }
    }

    #[test]
    fn a_url_without_a_path_gets_the_default_one() {
        let path = |url: &str| checked(&options(url)).unwrap().to_string();
        assert_eq!(path("http://marquez:5000"), "http://marquez:5000/api/v1/lineage");
        assert_eq!(path(" https://h/ "), "https://h/api/v1/lineage");
        assert_eq!(path("https://h/own?x=1#f"), "https://h/own?x=1");
        assert_eq!(path("https://h/?x=1"), "https://h/?x=1");
    }

    #[test]
    fn a_wrong_url_is_not_repeated() {
        for url in ["unix:///run/secret-word", "secret-word", "http://", "https://me:secret-word@h/x", ""] {
            let error = Receiver::open(&options(url)).unwrap_err().to_string();
            assert!(error.starts_with("--openlineage-url: ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn only_the_host_of_a_url_is_shown_and_its_secrets_are_redacted() {
        let url = "https://hooks.example.org:8443/services/T01234567/xoxb5ecretOfTheWebhook?key=of-the-query";
        let url = checked(&options(url)).unwrap();
        register_secrets(&url);
        assert_eq!(shown(&url), "https://hooks.example.org:8443");
        let text = "to /services/T01234567/xoxb5ecretOfTheWebhook with of-the-query";
        assert_eq!(secrets::cut(text), "to /services/T01234567/[hidden] with [hidden]");
    }

    #[test]
    fn an_unusable_file_is_named_at_the_start() {
        let file = Some(PathBuf::from("/no/such/file"));
        let token = ReceiverOptions { token_file: file.clone(), ..options("https://h") };
        let ca = ReceiverOptions { ca_file: file, ..options("https://h") };
        for options in [token, ca] {
            let error = Receiver::open(&options).unwrap_err().to_string();
            assert!(error.contains("--openlineage-url: /no/such/file: "), "{error}");
        }
    }
}
