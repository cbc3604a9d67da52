//! Listeners under attack, on real sockets: probes beside clients that hold or repeat connections, floods of refused
//! requests and of failed handshakes, and a token that is revoked while its file cannot be used.
//!
//! Not here: which connection is closed (`connections`), the parts of security (`security`), real processes
//! (`tests/tests/cluster_limits.rs`).

#![allow(clippy::unwrap_used)]

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tally_common::http::{self, Observed, Unhealthy};
use tally_common::metrics::Page;
use tally_common::open_files;
use tally_common::refusal_log::Refusals;
use tally_common::security::{
    ClientArgs, Guard, Reason, Role, Security, ServerArgs, TlsArgs, TokenUse, incoming,
};
use tally_tests::certs::replace;
use tally_tests::http::put;
use tally_tests::pki::{OPERATORS_TOKEN, Pki};
use tally_tests::wait::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// The timeout of a readiness probe in the chart.
const PROBE: Duration = Duration::from_secs(5);
const PROBES: usize = 40;
/// So many failed probes in a row make a kubelet act, by the lowest threshold of the chart.
const FAILURES: usize = 3;
/// The most probes that may fail: on a busy machine a request comes so late that its connection was closed for newer ones.
const MAX_FAILED: usize = PROBES / 10;
const ASK: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

struct Healthy;

impl Observed for Healthy {
    fn alive(&self) -> Result<(), Unhealthy> {
        Ok(())
    }

    fn ready(&self) -> Result<(), Unhealthy> {
        Ok(())
    }

    fn metrics(&self, _: &mut Page) {}
}

/// Health and metrics of a process with that security.
fn health(dir: &Path, security: Arc<Security>) -> (http::Server, SocketAddr) {
    let file = dir.join("http");
    let server = http::serve("127.0.0.1:0", Some(&file), Arc::new(Healthy), security, None).unwrap();
    (server, std::fs::read_to_string(file).unwrap().trim().parse().unwrap())
}

async fn connect(to: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// A connection and a request each time, as the kubelet does it.
async fn probe(to: SocketAddr) -> io::Result<String> {
    let mut stream = connect(to, Ipv4Addr::LOCALHOST).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// What clients do that hold connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greed {
    /// They ask again and again on one connection.
    Asks,
    /// They send nothing.
    Silent,
}

/// Holds a connection, and opens another one whenever it is closed.
async fn hold(to: SocketAddr, from: Ipv4Addr, greed: Greed, opened: Arc<AtomicUsize>) {
    loop {
        if let Ok(mut stream) = connect(to, from).await {
            opened.fetch_add(1, Ordering::Relaxed);
            let mut answer = [0; 1024];
            while greed == Greed::Silent || stream.write_all(ASK).await.is_ok() {
                match stream.read(&mut answer).await {
                    Ok(1..) => sleep(Duration::from_millis(300)).await,
                    _ => break,
                }
            }
        }
        sleep(Duration::from_millis(300)).await;
    }
}

/// Probes beside that many greedy connections, from the addresses `from(n)`.
async fn probes_are_answered(connections: usize, greed: Greed, from: fn(usize) -> Ipv4Addr) {
    open_files::raise_limit();
    let dir = tempfile::tempdir().unwrap();
    let (_server, address) = health(dir.path(), Security::plain());
    let opened = Arc::new(AtomicUsize::new(0));
    let crowd: Vec<_> =
        (0..connections).map(|n| tokio::spawn(hold(address, from(n), greed, opened.clone()))).collect();
    eventually("a crowd", || async { Ok((opened.load(Ordering::Relaxed) >= connections).then_some(())) })
        .await
        .unwrap();
    let (mut failed, mut in_a_row) = (0, 0);
    for n in 0..PROBES {
        let answer = timeout(PROBE, probe(address)).await;
        let answered = matches!(&answer, Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200"));
        (failed, in_a_row) = if answered { (failed, 0) } else { (failed + 1, in_a_row + 1) };
        let enough = in_a_row < FAILURES && failed <= MAX_FAILED;
        assert!(enough, "probe {n} of {greed:?}, {failed} failed, {in_a_row} in a row: {answer:?}");
        sleep(Duration::from_millis(20)).await;
    }
    crowd.iter().for_each(tokio::task::JoinHandle::abort);
}

fn many_addresses(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1 + (n / 200) as u8, 1 + (n % 200) as u8)
}

/// As behind a proxy, which the probes use too.
fn one_address(_: usize) -> Ipv4Addr {
    Ipv4Addr::LOCALHOST
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_beside_64_connections_of_one_address() {
    probes_are_answered(64, Greed::Asks, one_address).await;
    probes_are_answered(64, Greed::Silent, one_address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_beside_64_addresses() {
    probes_are_answered(64, Greed::Asks, many_addresses).await;
    probes_are_answered(64, Greed::Silent, many_addresses).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_beside_1000_connections() {
    probes_are_answered(1000, Greed::Asks, many_addresses).await;
    probes_are_answered(1000, Greed::Silent, many_addresses).await;
    probes_are_answered(1000, Greed::Asks, one_address).await;
}

/// The bytes of a log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Takes all lines of this thread from now on.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || to.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn tls(pki: &Pki, name: Option<&str>) -> TlsArgs {
    let file = |end: &str| name.map(|name| pki.dir().join(format!("{name}.{end}")));
    TlsArgs {
        tls_ca: Some(pki.dir().join("ca.pem")),
        tls_cert: file("pem"),
        tls_key: file("key"),
        tls_roles: None,
    }
}

/// The security of a coordinator that accepts tokens and that many requests per second.
fn coordinator(pki: &Pki, rate: u32) -> Arc<Security> {
    let args = ServerArgs { tls: tls(pki, Some("coordinator")), insecure: false };
    Security::open(&args, Some((&pki.tokens(), TokenUse::InsteadOfCertificate)), Some(rate)).unwrap()
}

/// A gRPC server with the health service behind the guard.
async fn serve(security: Arc<Security>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_, service) = tonic_health::server::health_reporter();
    let server = Server::builder().layer(Guard::new(security.clone())).layer(Refusals).add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming(listener, security)));
    address
}

async fn channel(pki: &Pki, name: Option<&str>, address: SocketAddr) -> Channel {
    let dialer = ClientArgs { tls: tls(pki, name), token_file: None }.dialer().unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    dialer.connect(&endpoint, Role::Coordinator).await.unwrap()
}

async fn check(channel: Channel, token: Option<&str>) -> Result<(), Code> {
    let mut request = Request::new(HealthCheckRequest::default());
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    HealthClient::new(channel).check(request).await.map(drop).map_err(|status| status.code())
}

/// One thread, so that all lines of the server are counted.
#[tokio::test]
async fn a_flood_of_unknown_tokens_is_limited_before_they_are_checked_and_logs_little() {
    const REQUESTS: usize = 5000;
    let (log, _guard) = Log::start();
    let pki = Pki::new().unwrap();
    let security = coordinator(&pki, 10);
    let address = serve(security.clone()).await;
    let stranger = channel(&pki, None, address).await;
    let start = Instant::now();
    let mut codes = vec![];
    for _ in 0..REQUESTS / 100 {
        let asked = (0..100).map(|_| check(stranger.clone(), Some("guessed-0123456789abcdef")));
        codes.extend(join_all(asked).await);
    }
    let of = |code| codes.iter().filter(|found| **found == Err(code)).count();
    let (unknown, limited) = (of(Code::Unauthenticated), of(Code::ResourceExhausted));
    assert_eq!(unknown + limited, REQUESTS, "{codes:?}");
    let refusals = |reason| security.refusals().of(reason) as usize;
    assert_eq!((refusals(Reason::Unauthenticated), refusals(Reason::Rate)), (unknown, limited));
    // A burst of two seconds, and the rate.
    assert!(unknown <= 20 + 10 * (1 + start.elapsed().as_secs() as usize), "{unknown} tokens were checked");
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains("was refused")).count();
    // At most a burst for each of two reasons, and a line per second.
    let most = 2 * (100 + 1 + start.elapsed().as_secs() as usize);
    assert!((2..=most).contains(&lines), "{lines} lines: {text}");
    assert!(text.len() < 500 * most, "{} bytes", text.len());
    // A client with a certificate is not affected, although it has the same address.
    let worker = channel(&pki, Some("worker"), address).await;
    assert_ne!(check(worker, None).await, Err(Code::ResourceExhausted));
    // After a second, there is a line with the number of those that were left out.
    sleep(Duration::from_millis(1100)).await;
    for _ in 0..50 {
        let _ = check(stranger.clone(), Some("guessed-0123456789abcdef")).await;
    }
    assert!(log.text().contains("\"suppressed\":"), "{}", log.text());
}

#[tokio::test]
async fn a_flood_of_failed_handshakes_logs_little() {
    const CONNECTIONS: usize = 1000;
    let (log, _guard) = Log::start();
    let pki = Pki::new().unwrap();
    let security = coordinator(&pki, 10);
    let address = serve(security.clone()).await;
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut vec![]).await;
    }
    assert_eq!(security.refusals().of(Reason::NotTls) as usize, CONNECTIONS);
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains("a connection was refused")).count();
    assert!((1..CONNECTIONS / 2).contains(&lines), "{lines} lines");
    assert!(text.len() < 500 * lines + 1000, "{} bytes", text.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_although_its_file_was_broken_meanwhile() {
    let pki = Pki::new().unwrap();
    let security = coordinator(&pki, 10);
    let (_server, address) = health(pki.dir(), security);
    // Nothing logs here, so that a permitted change is a bad request.
    let status = |token: &'static str| async move {
        let asked = tokio::task::spawn_blocking(move || put(address, "/log", Some(token), "info"));
        asked.await.unwrap().unwrap().0
    };
    assert_eq!(status(OPERATORS_TOKEN).await, 400);
    let file = pki.tokens();
    let (other, half) = ("others-token-0123456789abc", format!("operator ops {OPERATORS_TOKEN}\noperator"));
    tally_tests::secrets::register(other);
    // Half of a file, and then one that others can read: neither is used.
    replace(&file, &half, 0o600).unwrap();
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(status(OPERATORS_TOKEN).await, 400);
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    let good = format!("operator ops {other}\n");
    std::fs::write(&file, &good).unwrap();
    let handle = std::fs::File::options().write(true).open(&file).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    handle.set_modified(time).unwrap();
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(status(OPERATORS_TOKEN).await, 400);
    // Only the permissions change: time, size, inode and content stay.
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let ended = |token, expect| {
        eventually("a change of tokens", move || async move {
            sleep(Duration::from_millis(200)).await;
            Ok((status(token).await == expect).then_some(()))
        })
    };
    ended(OPERATORS_TOKEN, 401).await.unwrap();
    assert_eq!(status(other).await, 400);
    // The same size and time with another content.
    let before = std::fs::metadata(&file).unwrap();
    std::fs::write(&file, good.replace("others", "newest")).unwrap();
    handle.set_modified(before.modified().unwrap()).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), before.len());
    ended(other, 401).await.unwrap();
}
