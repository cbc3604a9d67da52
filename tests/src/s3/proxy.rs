//! An HTTP proxy before a store, on loopback: it records every request with its bytes, and breaks those that a test
//! names, each rule a given number of times.
//!
//! The client signs for the proxy's address, and heads are forwarded unchanged, so a server that checks signatures
//! accepts them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::http::Head;
use crate::wait::wait_for;

/// How long to wait for a held request.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take to notice the closed connection of an ended process.
const SETTLED: Duration = Duration::from_millis(500);
/// A slow response sends so many bytes at a time.
const TRICKLE: usize = 16 << 10;

/// One request that was forwarded, or was broken.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// GET, PUT, ...
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// The header Range.
    pub range: Option<String>,
    /// The header Authorization, for tests that search for secrets.
    pub head: String,
    /// The status of the response; 0 without a response.
    pub status: u16,
    /// Bytes of the request's body.
    pub sent: u64,
    /// Bytes of the response's body.
    pub received: u64,
}

/// What the proxy does with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The proxy answers with this status and S3's code for it; the store gets nothing.
    Refuse(u16, &'static str),
    /// The same, and the response quotes the head of the request, as stores do with signatures that they cannot verify.
    Quote(u16, &'static str),
    /// The connection ends before the store gets anything.
    Cut,
    /// The connection ends after so many bytes of the response's body.
    CutAnswer(usize),
    /// The store executes the request, and its response is lost.
    LoseAnswer,
    /// The entries of a listing are returned in reverse order.
    Reverse,
    /// The request is forwarded after a pause, and the response is sent in small pieces, with the same pause before each.
    Slow(Duration),
    /// The request is held until the proxy releases it.
    Hold,
    /// The store executes the request, and the response is held until the proxy releases it.
    HoldAnswer,
}

#[derive(Debug)]
struct Rule {
    method: String,
    part: String,
    skip: usize,
    times: usize,
    fault: Fault,
}

#[derive(Debug, Default)]
struct State {
    /// Whether session tokens that contain an expiry time are checked.
    expires: bool,
    /// Number of requests held so far.
    holds: u64,
    exchanges: Vec<Exchange>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    /// The held requests, numbered in order of arrival.
    held: watch::Sender<BTreeSet<u64>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The fault that a request meets.
    fn fault(&self, method: &str, target: &str, token: Option<&str>) -> Option<Fault> {
        let mut state = self.state();
        if state.expires && token.is_some_and(is_expired) {
            return Some(Fault::Refuse(400, "ExpiredToken"));
        }
        for rule in &mut state.rules {
            if rule.method != method || !target.contains(&rule.part) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.times > 0 {
                rule.times -= 1;
                return Some(rule.fault.clone());
            }
        }
        None
    }
}

/// Whether a token has expired.
fn is_expired(token: &str) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let until = token.rsplit_once("-until-").and_then(|(_, until)| until.parse::<u128>().ok());
    until.is_some_and(|until| until < now)
}

/// The proxy; dropping it stops it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl Proxy {
    /// A proxy before the server at that address.
    pub fn before(server: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("starting the proxy's runtime")?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { server, state: Mutex::default(), held: watch::Sender::default() });
        runtime.spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, _runtime: runtime })
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks the next `times` requests of that method whose path and query contain `part`, after `skip` others.
    pub fn break_next(&self, method: &str, part: &str, skip: usize, times: usize, fault: Fault) {
        let rule = Rule { method: method.into(), part: part.into(), skip, times, fault };
        self.shared.state().rules.push(rule);
    }

    /// From now on, requests whose session token is `...-until-MILLISECONDS` are refused after that time, as by a store
    /// that checks expiry.
    pub fn refuse_expired(&self) {
        self.shared.state().expires = true;
    }

    /// Removes all rules, and releases all held requests.
    pub fn heal(&self) {
        self.shared.state().rules.clear();
        self.shared.held.send_modify(BTreeSet::clear);
    }

    /// Releases the request that was held first.
    pub fn let_first_go(&self) {
        self.shared.held.send_modify(|held| _ = held.pop_first());
    }

    /// Releases the request that was held last.
    pub fn let_last_go(&self) {
        self.shared.held.send_modify(|held| _ = held.pop_last());
    }

    /// Waits until so many requests are held.
    pub fn wait_held(&self, count: usize) -> Result<()> {
        let mut held = self.shared.held.subscribe();
        wait_for("a request that is held", PATIENCE, || {
            Ok((held.borrow_and_update().len() >= count).then_some(()))
        })
    }

    /// All requests so far, in the order in which they ended.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.state().exchanges.clone()
    }

    /// The same; the list is then cleared.
    pub fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.shared.state().exchanges)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // The proxy ignores an error of one connection, such as a disconnected client.
    loop {
        if let Ok((client, _)) = listener.accept().await {
            tokio::spawn(connection(client, shared.clone()));
        }
    }
}

async fn connection(client: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = BufReader::new(client);
    let mut server: Option<BufReader<TcpStream>> = None;
    while let Some(head) = Head::read(&mut client).await? {
        let body = head.body(&mut client, false).await?;
        let (method, target) = match &head.words[..] {
            [method, target, _] => (method.clone(), target.clone()),
            _ => return Ok(()),
        };
        let mut exchange = Exchange {
            range: head.header("range").map(str::to_string),
            head: String::from_utf8_lossy(&head.bytes).into_owned(),
            status: 0,
            sent: body.len() as u64,
            received: 0,
            method: method.clone(),
            target: target.clone(),
        };
        let fault = shared.fault(&method, &target, head.header("x-amz-security-token"));
        let goes_on = match &fault {
            Some(Fault::Cut) => false,
            Some(Fault::Refuse(status, code)) => {
                exchange.status = *status;
                refuse(&mut client, &method, *status, code, "").await?;
                true
            }
            Some(Fault::Quote(status, code)) => {
                exchange.status = *status;
                refuse(&mut client, &method, *status, code, &exchange.head).await?;
                true
            }
            fault => {
                if let Some(Fault::Hold) = fault {
                    hold(&shared).await;
                    if disconnected(&mut client).await {
                        return Ok(());
                    }
                }
                if let Some(Fault::Slow(pause)) = fault {
                    tokio::time::sleep(*pause).await;
                }
                if server.is_none() {
                    let stream = TcpStream::connect(shared.server).await?;
                    stream.set_nodelay(true)?;
                    server = Some(BufReader::new(stream));
                }
                let Some(to) = &mut server else { return Ok(()) };
                forward(&mut client, to, (&head, &body), fault.as_ref(), &shared, &mut exchange).await?
            }
        };
        shared.state().exchanges.push(exchange);
        if !goes_on {
            return Ok(());
        }
    }
    Ok(())
}

async fn hold(shared: &Shared) {
    let number = {
        let mut state = shared.state();
        state.holds += 1;
        state.holds
    };
    shared.held.send_modify(|held| _ = held.insert(number));
    // Fails only without a sender, and `shared` has it.
    let _ = shared.held.subscribe().wait_for(|held| !held.contains(&number)).await;
}

/// Whether the client was killed while its request was held: then the request is dropped.
async fn disconnected(client: &mut BufReader<TcpStream>) -> bool {
    let end = tokio::time::timeout(SETTLED, client.fill_buf()).await;
    end.is_ok_and(|read| read.is_ok_and(<[u8]>::is_empty))
}

/// Forwards a request and returns the response; false if the connection is to end.
async fn forward(
    client: &mut BufReader<TcpStream>,
    server: &mut BufReader<TcpStream>,
    (head, body): (&Head, &[u8]),
    fault: Option<&Fault>,
    shared: &Shared,
    exchange: &mut Exchange,
) -> std::io::Result<bool> {
    server.write_all(&head.bytes).await?;
    server.write_all(body).await?;
    let answer = loop {
        let Some(answer) = Head::read(server).await? else { return Ok(false) };
        // `100 Continue` precedes the response.
        if answer.status() >= 200 {
            break answer;
        }
    };
    let empty = exchange.method == "HEAD" || matches!(answer.status(), 204 | 304);
    let mut body = answer.body(server, empty).await?;
    if let Some(Fault::Reverse) = fault {
        body = reversed(&body);
    }
    (exchange.status, exchange.received) = (answer.status(), body.len() as u64);
    let ends =
        |head: &Head| head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    match fault {
        Some(Fault::LoseAnswer) => return Ok(false),
        Some(Fault::HoldAnswer) => hold(shared).await,
        _ => {}
    }
    client.write_all(&answer.bytes).await?;
    match fault {
        Some(Fault::CutAnswer(bytes)) => {
            client.write_all(&body[..body.len().min(*bytes)]).await?;
            client.flush().await?;
            return Ok(false);
        }
        Some(Fault::Slow(pause)) => {
            for piece in body.chunks(TRICKLE) {
                tokio::time::sleep(*pause).await;
                client.write_all(piece).await?;
            }
        }
        _ => client.write_all(&body).await?,
    }
    client.flush().await?;
    Ok(!ends(head) && !ends(&answer))
}

/// A page of a listing with its objects in reverse order; the size stays the same.
fn reversed(body: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(body);
    let (start, end) = ("<Contents>", "</Contents>");
    let (Some(from), Some(to)) = (text.find(start), text.rfind(end)) else { return body.to_vec() };
    let to = to + end.len();
    let mut objects: Vec<&str> = text[from..to].split_inclusive(end).collect();
    objects.reverse();
    format!("{}{}{}", &text[..from], objects.concat(), &text[to..]).into_bytes()
}

async fn refuse(
    client: &mut BufReader<TcpStream>,
    method: &str,
    status: u16,
    code: &str,
    quoted: &str,
) -> std::io::Result<()> {
    let quoted = match quoted.replace('&', "&amp;").replace('<', "&lt;") {
        none if none.is_empty() => none,
        text => format!("<StringToSign>{text}</StringToSign><CanonicalRequest>{text}</CanonicalRequest>"),
    };
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code} by a test</Message>{quoted}</Error>"
    );
    let head = format!(
        "HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        client.write_all(body.as_bytes()).await?;
    }
    client.flush().await
}
