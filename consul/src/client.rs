//! One HTTP exchange with Consul: address, headers, timeouts, a bounded body, and the meaning of status codes.
//!
//! Not here: the requests, which are in the module of each part of the API.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::transport::{Transport, causes};

/// Characters of a path that are not encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~').remove(b'.');
/// Keys are paths, so their slashes are not encoded.
const KEY: &AsciiSet = &SEGMENT.remove(b'/');

/// The maximum number of bytes of an error's body that are read and shown.
const MAX_DETAIL: usize = 512;
/// The maximum number of characters of a name in a message.
const MAX_NAME: usize = 200;

/// A client of one Consul agent or server. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
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
    /// Creates a client. Reads the token and the certificates, so it may block for a moment, and opens no connection yet.
    /// Files are read again when they change, with a delay of at most a second.
    ///
    /// # Errors
    /// The address is not a URL, a file is not usable, or settings contradict each other.
    pub fn new(config: &Config) -> Result<Self> {
        let url = config.url()?;
        let transport = Transport::open(config, url.scheme() == "https")?;
        let part = |name, value: &Option<String>| value.clone().map(|value| (name, value));
        let query = [
            part("dc", &config.datacenter),
            part("ns", &config.namespace),
            part("partition", &config.partition),
        ];
        let inner = Inner {
            transport,
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

    /// How often the token and the certificates were read again. Consul keeps the token of some requests (the catalog
    /// keeps a service with the token that registered it): repeat these requests when this number grows.
    pub fn generation(&self) -> u64 {
        self.inner.transport.generation()
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

    /// Sends a call. The answer must be a success or have the status `call.also`; all other answers are errors.
    pub(crate) async fn call<'a>(&self, call: Call<'a>) -> Result<Answer<'a>> {
        let timeout = self.inner.timeout.saturating_add(call.wait);
        let failed = |error: &reqwest::Error| self.transport_error(call.op, timeout, error);
        let mut request =
            self.inner.transport.http().request(call.method.clone(), self.url(&call)).timeout(timeout);
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
            return Err(self.with_reload_error(refusal(call.op, status, &body)));
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
        self.with_reload_error(Error::Unreachable { operation, address, reason: causes(error) })
    }

    /// Adds that the new credentials cannot be used, if the old ones may be the cause of the error.
    fn with_reload_error(&self, mut error: Error) -> Error {
        if let Error::PermissionDenied { detail: text, .. } | Error::Unreachable { reason: text, .. } =
            &mut error
            && let Some(reason) = self.inner.transport.reload_error()
        {
            text.push_str("; its files changed and cannot be used, so the old credentials stay in use: ");
            text.push_str(&reason);
        }
        error
    }
}

/// The operation and its object, for messages.
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

    /// Accepts the status "not found" as an answer.
    pub(crate) fn or_not_found(mut self) -> Self {
        self.also = Some(StatusCode::NOT_FOUND);
        self
    }

    /// How long the server may delay the answer.
    pub(crate) fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// An answer that is not an error.
pub(crate) struct Answer<'a> {
    op: Op<'a>,
    status: StatusCode,
    /// `X-Consul-Index`, if it was sent.
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
/// The name is empty, `.` or `..`.
pub(crate) fn segment(op: Op<'_>, name: &str) -> Result<String> {
    if matches!(name, "" | "." | "..") {
        return Err(op.argument("a name can't be empty, `.` or `..`"));
    }
    Ok(utf8_percent_encode(name, SEGMENT).to_string())
}

/// `key` as the rest of a path.
///
/// # Errors
/// Consul's HTTP API can't address the key: it would redirect to another key.
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

/// The error of an answer that is not a success.
fn refusal(op: Op<'_>, status: StatusCode, body: &[u8]) -> Error {
    let text = String::from_utf8_lossy(body);
    let body: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let operation = op.to_string();
    // Consul has one status for all internal errors; the text distinguishes them in all its versions.
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
    fn refusals_are_distinguished() {
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
