//! An HTTP proxy before a store, on loopback: it notes every request with its bytes, and breaks those that a test names,
//! each rule so often and no more.
//!
//! The client signs for the proxy's address, and heads go through unchanged, so a server that checks signatures takes
//! them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::http::Head;
use crate::wait::wait_for;

/// How long a held request is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the end of a connection whose process is gone may take to be seen.
const SETTLED: Duration = Duration::from_millis(500);
/// A slow answer sends so many bytes at a time.
const TRICKLE: usize = 16 << 10;

/// One request that went through, or was broken.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// GET, PUT, ...
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// The header Range.
    pub range: Option<String>,
    /// The header Authorization, for those who look for secrets.
    pub head: String,
    /// What came back; 0 where nothing did.
    pub status: u16,
    /// Bytes of the request's body.
    pub sent: u64,
    /// Bytes of the answer's body.
    pub received: u64,
}

/// What is done to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answered with this status and S3's code for it; the store hears nothing.
    Refuse(u16, &'static str),
    /// The connection ends before the store hears anything.
    Cut,
    /// The connection ends after so many bytes of the answer's body.
    CutAnswer(usize),
    /// The store does it, and its answer is lost.
    LoseAnswer,
    /// What a listing names comes in the opposite order.
    Reverse,
    /// The request goes on after a pause, and its answer comes in small pieces, with as long a pause before each.
    Slow(Duration),
    /// The request waits here until the proxy lets it go.
    Hold,
    /// The store does it, and the answer waits here until the proxy lets it go.
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
    exchanges: Vec<Exchange>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    held: watch::Sender<usize>,
    /// Raised to let go of all that is held.
    released: watch::Sender<u64>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The fault that a request meets.
    fn fault(&self, method: &str, target: &str) -> Option<Fault> {
        let mut state = self.state();
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

/// The proxy; dropping it ends it.
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
        let shared = Arc::new(Shared {
            server,
            state: Mutex::default(),
            held: watch::Sender::new(0),
            released: watch::Sender::new(0),
        });
        runtime.spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, _runtime: runtime })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks the next `times` requests of that method whose path and query contain `part`, after `skip` others.
    pub fn break_next(&self, method: &str, part: &str, skip: usize, times: usize, fault: Fault) {
        let rule = Rule { method: method.into(), part: part.into(), skip, times, fault };
        self.shared.state().rules.push(rule);
    }

    /// Forgets what was to be broken, and lets go of what is held.
    pub fn heal(&self) {
        self.shared.state().rules.clear();
        self.shared.released.send_modify(|times| *times += 1);
    }

    /// Waits until so many requests are held.
    pub fn wait_held(&self, count: usize) -> Result<()> {
        let mut held = self.shared.held.subscribe();
        wait_for(
            "a request that is held",
            PATIENCE,
            || Ok((*held.borrow_and_update() >= count).then_some(())),
        )
    }

    /// All requests so far, in the order of their ends.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.state().exchanges.clone()
    }

    /// The same, which are then forgotten.
    pub fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.shared.state().exchanges)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // An error of one connection (a client that is gone again) is none of the proxy.
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
        let fault = shared.fault(&method, &target);
        let goes_on = match &fault {
            Some(Fault::Cut) => false,
            Some(Fault::Refuse(status, code)) => {
                exchange.status = *status;
                refuse(&mut client, &method, *status, code).await?;
                true
            }
            fault => {
                if let Some(Fault::Hold) = fault {
                    hold(&shared).await;
                    if gone(&mut client).await {
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
    let mut released = shared.released.subscribe();
    released.mark_unchanged();
    shared.held.send_modify(|held| *held += 1);
    // Fails only without a sender, and `shared` has it.
    let _ = released.changed().await;
    shared.held.send_modify(|held| *held -= 1);
}

/// Whether the client was killed while its request was held: then nobody sent it.
async fn gone(client: &mut BufReader<TcpStream>) -> bool {
    let end = tokio::time::timeout(SETTLED, client.fill_buf()).await;
    end.is_ok_and(|read| read.is_ok_and(<[u8]>::is_empty))
}

/// Sends a request on and its answer back; false where the connection is to end.
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
        // `100 Continue` goes before the answer.
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

/// A page of a listing with its objects in the opposite order; as many bytes as before.
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
) -> std::io::Result<()> {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code} by a test</Message></Error>"
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
