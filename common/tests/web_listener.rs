//! Health and metrics beside other pages on one listener: probes while pages stream, compute, or wait for handshakes, and
//! TLS whose first byte is late.
//!
//! Not here: floods of connections (`listeners`), the pages of a coordinator (its `service/api`).

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use hyper::{Request, Response};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use tally_common::http::{self, Observed, Pages, Site, Unhealthy};
use tally_common::metrics::Page;
use tally_common::open_files;
use tally_common::security::{Security, ServerArgs, TlsArgs, TokenUse};
use tally_tests::http::get;
use tally_tests::pki::Pki;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tonic::body::Body;

/// The timeout of a readiness probe in the chart.
const PROBE: Duration = Duration::from_secs(5);
/// A time limit that only a hung test reaches.
const HUNG: Duration = Duration::from_secs(120);
/// The streams that a coordinator permits.
const STREAMS: usize = 32;
/// The first bytes of a handshake, which never goes on.
const STALLED: [u8; 3] = [0x16, 3, 1];

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

/// Pages: `/stream` never ends, `/computes` holds a thread until the test releases it, all others are short.
struct Fake {
    begun: Sender<()>,
    release: Mutex<Receiver<()>>,
}

impl Site for Fake {
    fn answer(&self, request: Request<Body>) -> BoxFuture<'static, Response<Body>> {
        let endless = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"data\n"))), ()))
        });
        let body = match request.uri().path() {
            "/stream" => Body::new(StreamBody::new(endless)),
            "/computes" => {
                self.begun.send(()).unwrap();
                self.release.lock().unwrap().recv_timeout(HUNG).unwrap();
                Body::new(Full::from("computed"))
            }
            _ => Body::new(Full::from("a page")),
        };
        Box::pin(async move { Response::new(body) })
    }
}

/// A listener with certificates, and with pages on a runtime of one thread.
struct Rig {
    address: SocketAddr,
    begun: Receiver<()>,
    release: Sender<()>,
    _server: http::Server,
    runtime: Option<Runtime>,
    _pki: Pki,
}

impl Rig {
    fn new() -> Self {
        open_files::raise_limit();
        let pki = Pki::new().unwrap();
        let file = |name: &str| Some(pki.dir().join(name));
        let (tls_ca, tls_cert, tls_key) = (file("ca.pem"), file("coordinator.pem"), file("coordinator.key"));
        let args =
            ServerArgs { tls: TlsArgs { tls_ca, tls_cert, tls_key, tls_roles: None }, insecure: false };
        let tokens = pki.tokens();
        let security = Security::open(&args, Some((&tokens, TokenUse::InsteadOfCertificate)), None).unwrap();
        let (began, begun) = channel();
        let (release, released) = channel();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let site = Arc::new(Fake { begun: began, release: Mutex::new(released) });
        let pages = Pages { site, runtime: runtime.handle().clone() };
        let file = pki.dir().join("http");
        let server =
            http::serve("127.0.0.1:0", Some(&file), Arc::new(Healthy), security, Some(pages)).unwrap();
        let address = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        Rig { address, begun, release, _server: server, runtime: Some(runtime), _pki: pki }
    }

    /// Sends these bytes on a connection from the address with that number.
    async fn open(&self, number: usize, bytes: &[u8]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        let from = Ipv4Addr::new(127, 0, 1, 1 + u8::try_from(number).unwrap());
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        // The server may have closed it for another one.
        let _ = stream.write_all(bytes).await;
        stream
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A test that fails must not wait for pages.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn probes_are_answered(address: SocketAddr, probes: usize) {
    for n in 0..probes {
        let asked = tokio::task::spawn_blocking(move || get(address, "/healthz"));
        let answer = timeout(PROBE, asked).await;
        let (status, _) = answer.unwrap_or_else(|_| panic!("probe {n} has no answer")).unwrap().unwrap();
        assert_eq!(status, 200, "probe {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_beside_streams_silent_clients_and_stalled_handshakes() {
    let rig = Rig::new();
    let mut open = vec![];
    for number in 0..STREAMS {
        let mut stream = rig.open(number, b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut begin = [0; 12];
        timeout(HUNG, stream.read_exact(&mut begin)).await.unwrap().unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
        open.push(stream);
    }
    for number in STREAMS..STREAMS + 100 {
        open.push(rig.open(number, b"").await);
        open.push(rig.open(number, &STALLED).await);
    }
    probes_are_answered(rig.address, 40).await;
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_while_a_page_computes() {
    let rig = Rig::new();
    let address = rig.address;
    let page = tokio::task::spawn_blocking(move || get(address, "/computes"));
    rig.begun.recv_timeout(HUNG).unwrap();
    // A handshake waits behind it, and takes no time of the thread that answers probes.
    let handshake = rig.open(0, &STALLED).await;
    probes_are_answered(address, 5).await;
    rig.release.send(()).unwrap();
    assert_eq!(page.await.unwrap().unwrap(), (200, "computed".into()));
    drop(handshake);
}

/// Accepts every certificate: only the connection counts here.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The begin of an answer over TLS, to a client that sends the first byte late and alone.
fn slowly(address: SocketAddr, path: &str) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let verifier = Arc::new(AnyServer);
    let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = vec![];
    tls.write_tls(&mut hello).unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HUNG)).unwrap();
    // Another connection is served meanwhile, so that this one is accepted and waits.
    assert_eq!(get(address, "/healthz").unwrap().0, 200);
    stream.write_all(&hello[..1]).unwrap();
    assert_eq!(get(address, "/healthz").unwrap().0, 200);
    stream.write_all(&hello[1..]).unwrap();
    let mut tls = StreamOwned::new(tls, stream);
    tls.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut begin = [0; 12];
    tls.read_exact(&mut begin).unwrap();
    String::from_utf8(begin.to_vec()).unwrap()
}

#[test]
fn the_first_byte_of_a_handshake_may_be_late() {
    let rig = Rig::new();
    for path in ["/page", "/stream", "/healthz"] {
        assert_eq!(slowly(rig.address, path), "HTTP/1.1 200", "{path}");
    }
}
