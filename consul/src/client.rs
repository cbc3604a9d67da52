//! One HTTP exchange with Consul: address, headers, timeouts, a bounded body, and the meaning of status codes.
//!
//! Not here: what is asked; that is in the module of each part of the API.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::{Agent, Health, Kv, Sessions, tls};

/// What may stand in a path as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~').remove(b'.');
/// Keys are paths of their own: their slashes stay.
const KEY: &AsciiSet = &SEGMENT.remove(b'/');

/// The most bytes of an error's body that are read, and repeated in a message.
const MAX_DETAIL: usize = 512;
/// The most characters of a name that a message repeats.
const MAX_NAME: usize = 200;
/// How long an unused connection is silent before the system asks whether the other side still lives.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A client of one Consul agent or server. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    url: Url,
    address: String,
    query: Vec<(&'static str, String)>,
    timeout: Duration,
    max_answer: usize,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.inner.address).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client. Reads the certificates, so it may block for a moment; connects to nothing yet.
    ///
    /// # Errors
    /// The address is no URL, a file of certificates is not usable, or settings contradict each other.
    pub fn new(config: &Config) -> Result<Self> {
        let url = config.url()?;
        let tls = tls::client_config(url.scheme() == "https", &config.tls)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = &config.token {
            headers.insert(HeaderName::from_static("x-consul-token"), token.header());
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .default_headers(headers)
            .connect_timeout(config.connect_timeout)
            .tcp_keepalive(KEEPALIVE)
            // Consul is next door; a proxy for the outer world does not know it.
            .no_proxy()
            // The token must not follow to another place.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::Settings(causes(&error)))?;
        let part = |name, value: &Option<String>| value.clone().map(|value| (name, value));
        let query = [part("dc", &config.datacenter), part("ns", &config.namespace)];
        let inner = Inner {
            http,
            address: url.as_str().trim_end_matches('/').to_owned(),
            url,
            query: query.into_iter().flatten().collect(),
            timeout: config.request_timeout,
            max_answer: config.max_answer,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The address that all messages name.
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// Keys and values.
    pub fn kv(&self) -> Kv<'_> {
        Kv::new(self)
    }

    /// Sessions, which hold keys.
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions::new(self)
    }

    /// Services of the agent that this client speaks to.
    pub fn agent(&self) -> Agent<'_> {
        Agent::new(self)
    }

    /// Services of the datacenter and their health.
    pub fn health(&self) -> Health<'_> {
        Health::new(self)
    }

    /// The server that leads Consul, as `ip:port` of its RPC; `None` while there is none.
    ///
    /// # Errors
    /// Consul can't be reached or does not answer as expected.
    pub async fn leader(&self) -> Result<Option<String>> {
        let op = Op::new("ask for Consul's leader", "");
        let leader: String = self.call(Call::get(op, "/v1/status/leader".into())).await?.json()?;
        Ok(Some(leader).filter(|leader| !leader.is_empty()))
    }

    /// Sends a call and takes the answer if it is a success or in `call.also`; all else is an error.
    pub(crate) async fn call<'a>(&self, call: Call<'a>) -> Result<Answer<'a>> {
        let timeout = self.inner.timeout.saturating_add(call.wait);
        let failed = |error: &reqwest::Error| self.transport_error(call.op, timeout, error);
        let mut request = self.inner.http.request(call.method.clone(), self.url(&call)).timeout(timeout);
        if let Some(body) = call.body {
            request = request.body(body);
        }
        let mut response = request.send().await.map_err(|error| failed(&error))?;
        let status = response.status();
        let good = status.is_success() || call.also == Some(status);
        let limit = if good { self.inner.max_answer } else { MAX_DETAIL };

        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
            let room = limit - body.len();
            if chunk.len() > room && good {
                return Err(Error::AnswerTooLarge { operation: call.op.to_string(), limit });
            }
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if !good && body.len() == limit {
                break;
            }
        }
        if !good {
            return Err(refusal(call.op, status, &body));
        }
        let index = response.headers().get("x-consul-index");
        let index = index.and_then(|text| text.to_str().ok()).and_then(|text| text.parse().ok());
        Ok(Answer { op: call.op, status, index, body })
    }

    fn url(&self, call: &Call<'_>) -> Url {
        let mut url = self.inner.url.clone();
        let path = format!("{}{}", url.path().trim_end_matches('/'), call.path);
        url.set_path(&path);
        if !(self.inner.query.is_empty() && call.query.is_empty()) {
            let all = self.inner.query.iter().chain(&call.query);
            url.query_pairs_mut().extend_pairs(all.map(|(name, value)| (*name, value)));
        }
        url
    }

    fn transport_error(&self, op: Op<'_>, after: Duration, error: &reqwest::Error) -> Error {
        let (operation, address) = (op.to_string(), self.inner.address.clone());
        if error.is_timeout() && !error.is_connect() {
            return Error::Timeout { operation, address, after };
        }
        Error::Unreachable { operation, address, reason: causes(error) }
    }
}

/// What is being done and to what, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op<'a> {
    verb: &'static str,
    name: &'a str,
}

impl<'a> Op<'a> {
    pub(crate) fn new(verb: &'static str, name: &'a str) -> Self {
        Self { verb, name }
    }

    pub(crate) fn argument(self, reason: impl Into<String>) -> Error {
        Error::Argument { operation: self.to_string(), reason: reason.into() }
    }

    pub(crate) fn decode(self, reason: impl fmt::Display) -> Error {
        Error::Decode { operation: self.to_string(), reason: reason.to_string() }
    }
}

impl fmt::Display for Op<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb)?;
        match self.name.char_indices().nth(MAX_NAME) {
            _ if self.name.is_empty() => Ok(()),
            Some((end, _)) => write!(f, " {:?}...", &self.name[..end]),
            None => write!(f, " {:?}", self.name),
        }
    }
}

/// One request.
pub(crate) struct Call<'a> {
    op: Op<'a>,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Bytes>,
    also: Option<StatusCode>,
    wait: Duration,
}

impl<'a> Call<'a> {
    pub(crate) fn new(op: Op<'a>, method: Method, path: String) -> Self {
        Self { op, method, path, query: Vec::new(), body: None, also: None, wait: Duration::ZERO }
    }

    pub(crate) fn get(op: Op<'a>, path: String) -> Self {
        Self::new(op, Method::GET, path)
    }

    pub(crate) fn put(op: Op<'a>, path: String) -> Self {
        Self::new(op, Method::PUT, path)
    }

    pub(crate) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(crate) fn json(self, body: &impl Serialize) -> Result<Self> {
        let bytes = serde_json::to_vec(body).map_err(|error| self.op.argument(error.to_string()))?;
        Ok(self.body(bytes))
    }

    /// "Not found" is an answer too, not an error.
    pub(crate) fn or_not_found(mut self) -> Self {
        self.also = Some(StatusCode::NOT_FOUND);
        self
    }

    /// The server may hold the answer back for so long.
    pub(crate) fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// An answer that is no error.
pub(crate) struct Answer<'a> {
    op: Op<'a>,
    status: StatusCode,
    /// `X-Consul-Index`, where it was sent.
    pub(crate) index: Option<u64>,
    body: Vec<u8>,
}

impl Answer<'_> {
    pub(crate) fn found(&self) -> bool {
        self.status != StatusCode::NOT_FOUND
    }

    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| self.op.decode(error))
    }
}

/// `name` as one segment of a path.
///
/// # Errors
/// An empty name, or one that a URL takes for "here" or "up".
pub(crate) fn segment(op: Op<'_>, name: &str) -> Result<String> {
    if matches!(name, "" | "." | "..") {
        return Err(op.argument("a name can't be empty, `.` or `..`"));
    }
    Ok(utf8_percent_encode(name, SEGMENT).to_string())
}

/// `key` as the rest of a path.
///
/// # Errors
/// A key that Consul's HTTP API can't address: it would answer with a redirect to another key.
pub(crate) fn key_path(op: Op<'_>, key: &str) -> Result<String> {
    let inner = key.strip_suffix('/').unwrap_or(key);
    if inner.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(op.argument("a key's parts between slashes can't be empty, `.` or `..`"));
    }
    if key.chars().any(char::is_control) {
        return Err(op.argument("a key can't have control characters"));
    }
    Ok(format!("/v1/kv/{}", utf8_percent_encode(key, KEY)))
}

/// What an answer that is no success means.
fn refusal(op: Op<'_>, status: StatusCode, body: &[u8]) -> Error {
    let text = String::from_utf8_lossy(body);
    let body: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let operation = op.to_string();
    // Consul has one status for all that went wrong inside it; the text tells these apart in all its versions.
    let says = |what: &str| status == StatusCode::INTERNAL_SERVER_ERROR && body.contains(what);
    if status == StatusCode::FORBIDDEN || says("Permission denied") || says("ACL not found") {
        Error::PermissionDenied { operation, detail: body }
    } else if says("invalid session") {
        Error::InvalidSession { operation, detail: body }
    } else if says("No cluster leader") {
        Error::NoLeader { operation, detail: body }
    } else {
        Error::Status { operation, status: status.as_u16(), body }
    }
}

/// An error of the HTTP stack with all that lies behind it, without the URL, which messages name shorter.
fn causes(error: &reqwest::Error) -> String {
    let mut text = match error.is_connect() {
        true => "no connection".to_owned(),
        false => "the connection broke".to_owned(),
    };
    let mut last = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if cause_text != last {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        last = cause_text;
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const OP: Op<'static> = Op { verb: "get key", name: "k" };

    #[test]
    fn keys_are_encoded_or_refused() {
        let check = |key: &str, expect: &str| {
            let got = key_path(OP, key).unwrap_or_else(|error| error.to_string());
            assert!(got.ends_with(expect), "{key:?}: {got}");
        };
        check("a/b c", "/v1/kv/a/b%20c");
        check("a%2Fb?c#d", "/v1/kv/a%252Fb%3Fc%23d");
        check("\u{2603}", "/v1/kv/%E2%98%83");
        check("folder/", "/v1/kv/folder/");
        check("a..b/.c", "/v1/kv/a..b/.c");
        for bad in ["", "/", "/a", "a//b", "a/../b", "..", "./a", "a//"] {
            check(bad, "can't be empty, `.` or `..`");
        }
        check("a\nb", "can't have control characters");
    }

    #[test]
    fn refusals_are_told_apart() {
        let check = |status: u16, body: &str, expect: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let shown = format!("{:?}", refusal(OP, status, body.as_bytes()));
            assert!(shown.starts_with(expect), "{status} {body}: {shown}");
        };
        check(403, "", "PermissionDenied");
        check(500, "rpc error making call: Permission denied", "PermissionDenied");
        check(500, "invalid session \"x\"", "InvalidSession");
        check(500, "No cluster leader", "NoLeader");
        check(500, "boom", "Status");
        check(400, "invalid session", "Status");
    }

    #[test]
    fn messages_are_bounded_and_on_one_line() {
        let name = "x".repeat(10_000);
        assert!(Op::new("get key", &name).to_string().len() < 300);
        let error = refusal(OP, StatusCode::BAD_GATEWAY, b"<html>\n\x1b[31m");
        assert!(!error.to_string().contains(char::is_control), "{error}");
    }
}
