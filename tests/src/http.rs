//! The subset of HTTP that health and metrics need: one GET or PUT, and a page of metrics as numbers by name and labels.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Timeout of a whole response.
const ANSWER: Duration = Duration::from_secs(20);

/// Status and body of `path`.
///
/// # Errors
/// The server does not answer, or not in HTTP.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    ask(address, "GET", path, None, "")
}

/// The same after a PUT of `body`, with a bearer token or without.
///
/// # Errors
/// The server does not answer, or not in HTTP.
pub fn put(address: SocketAddr, path: &str, token: Option<&str>, body: &str) -> Result<(u16, String)> {
    ask(address, "PUT", path, token, body)
}

fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> Result<(u16, String)> {
    let length = body.len();
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{token}Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no HTTP: {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("no status in {head:?}"))?, body.to_string()))
}

/// All samples of `/metrics`, by name with labels.
///
/// # Errors
/// The server does not answer, or a line is not a sample.
pub fn metrics(address: SocketAddr) -> Result<BTreeMap<String, f64>> {
    let (status, page) = get(address, "/metrics")?;
    ensure!(status == 200 && page.ends_with("# EOF\n"), "{status}: {page}");
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line:?}"))?;
        Ok((name.to_string(), value.parse().with_context(|| format!("no number: {line:?}"))?))
    };
    samples.map(sample).collect()
}
