//! Incoming connections: accepts them, has them secured, and passes them to the server with their peer. Handshakes run
//! concurrently. A connection without a certificate must have an accepted request within a minute. A listener has a maximum
//! number of connections; connections without an accepted request make room for new ones.
//!
//! Not here: how a connection is secured (`handshake`), what a request may do (`guard`), which connections make room
//! (`connections`), outgoing connections (`dial`).

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::Security;
use super::handshake::{Transport, secure};
use super::identity::Identity;
use super::refusals::Reason;
use crate::connections::{Connections, Place, Policy, Slot};
use crate::open_files::{self, Caller};
use crate::warn_limited;

/// The maximum number of connections of a listener.
const MAX_CONNECTIONS: usize = 4096;
/// The time limit for the first accepted request of a client without a certificate.
const FIRST_REQUEST: Duration = Duration::from_secs(60);
/// The interval between checks of the files of certificates and tokens, also while no client connects.
const REFRESH: Duration = Duration::from_secs(10);
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

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
}
