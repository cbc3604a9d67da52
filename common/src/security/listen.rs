//! Incoming connections: accepts them, secures them, and passes them to the server with their peer. Handshakes run
//! concurrently and have a time limit. A connection without a certificate must have an accepted request within a minute. A
//! listener has a maximum number of connections; connections without an accepted request make room for new ones.
//!
//! Not here: what a request may do (`guard`), which connections make room (`connections`), outgoing connections (`dial`).

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext, UnknownIssuer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::identity::Identity;
use super::refusals::Reason;
use super::{Loaded, Security};
use crate::connections::{Connections, Place, Policy, Slot};
use crate::open_files::{self, Caller};
use crate::warn_limited;

/// The maximum number of connections of a listener.
const MAX_CONNECTIONS: usize = 4096;
/// The time limit of a TLS handshake, or of the first byte in plain text.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The time limit for the first accepted request of a client without a certificate.
const FIRST_REQUEST: Duration = Duration::from_secs(60);
/// The interval between checks of the files of certificates and tokens, also while no client connects.
const REFRESH: Duration = Duration::from_secs(10);
/// How long, and how often, a refused connection is still read.
const LINGER: Duration = Duration::from_secs(1);
const LAST_READS: usize = 64;
/// The maximum number of connections that wait for the server.
const READY: usize = 64;
/// The pause after a failed accept, for example without free file descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// The pause after a connection that is closed because too many files are open.
const FULL: Duration = Duration::from_millis(10);

/// The other end of a connection. Each request has it in its extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its identity, if it has a certificate.
    pub identity: Option<Arc<Identity>>,
    slot: Arc<Slot>,
}

impl Peer {
    /// The other end of a connection with that slot of its listener.
    pub(crate) fn new(address: SocketAddr, identity: Option<Arc<Identity>>, slot: Arc<Slot>) -> Self {
        Peer { address, identity, slot }
    }

    /// Notes that a request was accepted: the connection no longer makes room for others.
    pub(super) fn note_use(&self) {
        self.slot.note_use();
    }
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    peer: Peer,
    /// The end of the time for the first accepted request, until there is one.
    first_request: Option<Pin<Box<Sleep>>>,
    /// Its place of the listener.
    _place: Place,
}

impl Connection {
    /// A client without an identity must have an accepted request within `limit`.
    fn new(
        (transport, identity): (Transport, Option<Arc<Identity>>),
        address: SocketAddr,
        place: Place,
        limit: Duration,
    ) -> Self {
        let slot = place.slot();
        let first_request = match &identity {
            Some(_) => {
                slot.note_certificate();
                None
            }
            None => Some(Box::pin(sleep(limit))),
        };
        Connection { transport, peer: Peer { address, identity, slot }, first_request, _place: place }
    }

    /// An error if the connection must end.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.peer.slot.poll_closed(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed to make room for another"));
        }
        let Some(first_request) = &mut self.first_request else { return Ok(()) };
        if self.peer.slot.is_trusted() {
            self.first_request = None;
        } else if first_request.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no request was accepted in time"));
        }
        Ok(())
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        match &self.transport {
            Transport::Plain(stream) => stream.as_raw_fd(),
            Transport::Tls(stream) => stream.get_ref().0.as_raw_fd(),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// The connections of a listener, which is closed when the stream is dropped. Must be called on a runtime.
pub fn incoming(
    listener: TcpListener,
    security: Arc<Security>,
) -> ReceiverStream<Result<Connection, Infallible>> {
    let (sender, receiver) = mpsc::channel(READY);
    tokio::spawn(refresh(security.clone(), sender.clone()));
    let connections = Connections::new(MAX_CONNECTIONS, Policy::KeepUsed);
    tokio::spawn(accept(listener, security, sender, connections));
    ReceiverStream::new(receiver)
}

/// Reads changed files until the server ends, so that their state does not depend on when clients connect.
async fn refresh(security: Arc<Security>, sender: mpsc::Sender<Result<Connection, Infallible>>) {
    loop {
        tokio::select! {
            () = sender.closed() => return,
            () = sleep(REFRESH) => {}
        }
        let security = security.clone();
        // It fails only if the runtime ends.
        let _ = tokio::task::spawn_blocking(move || security.refresh()).await;
    }
}

async fn accept(
    listener: TcpListener,
    security: Arc<Security>,
    sender: mpsc::Sender<Result<Connection, Infallible>>,
    connections: Arc<Connections>,
) {
    loop {
        let accepted = tokio::select! {
            // Connections in the backlog are dropped with the listener.
            () = sender.closed() => return,
            accepted = next(&listener, &security, &connections) => accepted,
        };
        let Some((stream, address, place)) = accepted else { continue };
        // Without it the connection is only slower.
        let _ = stream.set_nodelay(true);
        let (security, sender) = (security.clone(), sender.clone());
        tokio::spawn(async move {
            let slot = place.slot();
            tokio::select! {
                () = sender.closed() => {}
                () = slot.closed() => {}
                secured = secure(stream, address, &security) => {
                    let Some(secured) = secured else { return };
                    let connection = Connection::new(secured, address, place, FIRST_REQUEST);
                    // If the server has stopped, the connection is dropped.
                    let _ = sender.send(Ok(connection)).await;
                }
            }
        });
    }
}

/// The next connection, with a place. `None` if it cannot be accepted; then another one can be tried at once.
async fn next(
    listener: &TcpListener,
    security: &Security,
    connections: &Arc<Connections>,
) -> Option<(TcpStream, SocketAddr, Place)> {
    let (stream, address) = match listener.accept().await {
        Ok(accepted) => accepted,
        Err(error) => {
            warn_limited!(%error, "a connection could not be accepted");
            sleep(PAUSE).await;
            return None;
        }
    };
    let full = !open_files::has_room(&stream, Caller::Peer);
    let admitted = connections.admit(address.ip(), full).await;
    let closed = admitted.as_ref().map_or(1, |(_, closed)| *closed);
    let reason = if full { Reason::OpenFiles } else { Reason::Connections };
    if closed > 0
        && let Some(suppressed) = security.refusals().count(reason, closed)
    {
        let (peer, reason) = (address.to_string(), reason.name());
        match full {
            true => tracing::warn!(
                suppressed,
                peer,
                reason,
                "connections are refused: the process has as many open files as its limit allows; raise it (ulimit -n)"
            ),
            false => tracing::warn!(
                suppressed,
                peer,
                reason,
                "connections without an accepted request are closed: the listener has its maximum of connections"
            ),
        }
    }
    let Some((place, _)) = admitted else {
        drop(stream);
        // A client that reconnects at once must not keep a core busy.
        sleep(FULL).await;
        return None;
    };
    Some((stream, address, place))
}

async fn secure(
    stream: TcpStream,
    address: SocketAddr,
    security: &Security,
) -> Option<(Transport, Option<Arc<Identity>>)> {
    let Some(credentials) = &security.credentials else {
        return first_byte(stream, address, security).await.map(|stream| (Transport::Plain(stream), None));
    };
    match credentials.current() {
        Ok(loaded) => {
            let (stream, identity) =
                handshake(stream, address, (loaded.server.clone()?, &loaded), security).await?;
            Some((Transport::Tls(Box::new(stream)), identity))
        }
        Err(error) => {
            refused(security, address, Reason::StaleFiles, &error.to_string());
            None
        }
    }
}

/// Secures a connection over HTTP/1.1 whose client begins a TLS handshake; `None` if it is refused, or without TLS.
pub(crate) async fn secure_web(
    stream: TcpStream,
    address: SocketAddr,
    security: &Security,
) -> Option<(TlsStream<TcpStream>, Option<Arc<Identity>>)> {
    match security.credentials.as_ref()?.current() {
        Ok(loaded) => handshake(stream, address, (loaded.web.clone()?, &loaded), security).await,
        Err(error) => {
            refused(security, address, Reason::StaleFiles, &error.to_string());
            None
        }
    }
}

/// Counts a refused connection, and logs it.
fn refused(security: &Security, address: SocketAddr, reason: Reason, error: &str) {
    if let Some(suppressed) = security.refusals().count(reason, 1) {
        tracing::warn!(suppressed, peer = %address, reason = reason.name(), error, "a connection was refused");
    }
}

/// Waits for the first byte: a silent connection would hold a place that others need.
async fn first_byte(stream: TcpStream, address: SocketAddr, security: &Security) -> Option<TcpStream> {
    match timeout(HANDSHAKE, stream.peek(&mut [0])).await {
        Ok(Ok(1..)) => Some(stream),
        // A port check, not a refusal.
        Ok(_) => None,
        Err(_) => {
            refused(
                security,
                address,
                Reason::Handshake,
                &format!("no data within {} s", HANDSHAKE.as_secs()),
            );
            None
        }
    }
}

async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    (config, loaded): (Arc<ServerConfig>, &Loaded),
    security: &Security,
) -> Option<(TlsStream<TcpStream>, Option<Arc<Identity>>)> {
    let acceptor = TlsAcceptor::from(config);
    let (reason, error, rest) = match timeout(HANDSHAKE, acceptor.accept(stream).into_fallible()).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates();
            let identity = certificates.and_then(<[_]>::first).map(|first| loaded.roles.identity(first));
            return Some((stream, identity.map(Arc::new)));
        }
        // A port check, as Consul does it, not a refusal.
        Ok(Err((error, _))) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
        Ok(Err((error, stream))) => (reason(&error), error.to_string(), Some(stream)),
        Err(_) => (Reason::Handshake, format!("no handshake within {} s", HANDSHAKE.as_secs()), None),
    };
    refused(security, address, reason, &error);
    if let Some(stream) = rest {
        linger(stream).await;
    }
    None
}

/// Reads for a moment after a refusal: closing a connection with unread data would discard the alert that names the
/// reason.
async fn linger(mut stream: TcpStream) {
    // The client may have closed the connection.
    let _ = stream.shutdown().await;
    let rest = async {
        let mut buffer = [0; 1024];
        for _ in 0..LAST_READS {
            if !matches!(stream.read(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
    };
    let _ = timeout(LINGER, rest).await;
}

fn reason(error: &io::Error) -> Reason {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::NoCertificatesPresented) => Reason::NoCertificate,
        Some(rustls::Error::InvalidMessage(_)) => Reason::NotTls,
        Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
            UnknownIssuer => Reason::UnknownAuthority,
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => Reason::Expired,
            _ => Reason::BadCertificate,
        },
        _ => Reason::Handshake,
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The connections of a listener with that maximum, and its address.
    async fn listen(max: usize) -> (SocketAddr, mpsc::Receiver<Result<Connection, Infallible>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, incoming) = mpsc::channel(READY);
        tokio::spawn(accept(listener, Security::plain(), sender, Connections::new(max, Policy::KeepUsed)));
        (address, incoming)
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(b"P").await.unwrap();
        other
    }

    #[tokio::test]
    async fn connections_beyond_the_maximum_wait_while_all_others_are_in_use() {
        let (address, mut incoming) = listen(3).await;
        let mut others = vec![];
        let mut taken = std::collections::VecDeque::new();
        for _ in 0..3 {
            others.push(connect(address).await);
            let connection = incoming.recv().await.unwrap().unwrap();
            connection.peer.note_use();
            taken.push_back(connection);
        }
        others.push(connect(address).await);
        let further = timeout(Duration::from_millis(200), incoming.recv()).await;
        assert!(further.is_err(), "a fourth one: {further:?}");
        drop(taken.pop_front());
        incoming.recv().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn connections_without_a_request_make_room_for_others() {
        let (address, mut incoming) = listen(3).await;
        let (greedy, mut server) = (connect(address).await, incoming.recv().await.unwrap().unwrap());
        server.peer.note_use();
        // Silent ones that wait for their handshake, and ones that the server serves.
        let mut silent = vec![];
        for _ in 0..100 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut served = vec![];
        for _ in 0..100 {
            silent.push(connect(address).await);
            let mut connection = incoming.recv().await.unwrap().unwrap();
            served.push(tokio::spawn(async move { connection.read_to_end(&mut vec![]).await }));
        }
        let mut closed = 0;
        for read in served.drain(..98) {
            assert_eq!(read.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
            closed += 1;
        }
        assert_eq!(closed, 98);
        // The one with a request is still open.
        drop(greedy);
        assert_eq!(server.read_to_end(&mut vec![]).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_client_without_an_accepted_request_is_disconnected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::new(2, Policy::KeepUsed);
        let mut clients = vec![];
        let mut accepted = vec![];
        for _ in 0..2 {
            clients.push(connect(address).await);
            let (stream, address) = listener.accept().await.unwrap();
            let (place, _) = connections.admit(address.ip(), false).await.unwrap();
            let limit = Duration::from_millis(50);
            accepted.push(Connection::new((Transport::Plain(stream), None), address, place, limit));
        }
        accepted[0].peer.note_use();
        let error = accepted[1].read_to_end(&mut vec![]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let open = timeout(Duration::from_millis(200), accepted[0].read_to_end(&mut vec![])).await;
        assert!(open.is_err(), "{open:?}");
    }

    #[test]
    fn reasons_of_failed_handshakes_are_distinguished() {
        let of = |error: rustls::Error| reason(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(of(rustls::Error::NoCertificatesPresented), Reason::NoCertificate);
        assert_eq!(of(UnknownIssuer.into()), Reason::UnknownAuthority);
        assert_eq!(of(Expired.into()), Reason::Expired);
        assert_eq!(of(rustls::CertificateError::BadSignature.into()), Reason::BadCertificate);
        assert_eq!(of(rustls::Error::HandshakeNotComplete), Reason::Handshake);
        assert_eq!(reason(&io::Error::other("reset")), Reason::Handshake);
    }
}
