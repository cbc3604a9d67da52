//! Connections from others: taken, made secure, and handed to the server with their peer. Handshakes run beside each
//! other and have their time; a listener has room for so many connections, further ones wait outside.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext, UnknownIssuer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::identity::Identity;
use super::refusals::Reason;
use super::{Loaded, Security};

/// Connections that a listener has at a time.
const MOST: usize = 4096;
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After a refusal, and how often it is read then.
const LINGER: Duration = Duration::from_secs(1);
const LAST_READS: usize = 64;
/// Connections that are ready and not taken yet.
const READY: usize = 64;
/// After an accept that failed, for example for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Who is at the other end of a connection. Each request has it among its extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where.
    pub address: SocketAddr,
    /// Who, as far as a certificate says.
    pub identity: Option<Arc<Identity>>,
}

#[derive(Debug)]
enum Way {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Connection {
    way: Way,
    peer: Peer,
    /// Its place among those of the listener.
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// The connections to a listener; it is closed when they are dropped. Must be called on a runtime.
pub fn incoming(
    listener: TcpListener,
    security: Arc<Security>,
) -> ReceiverStream<Result<Connection, Infallible>> {
    let (sender, receiver) = mpsc::channel(READY);
    tokio::spawn(accept(listener, security, sender, MOST));
    ReceiverStream::new(receiver)
}

async fn accept(
    listener: TcpListener,
    security: Arc<Security>,
    sender: mpsc::Sender<Result<Connection, Infallible>>,
    most: usize,
) {
    let places = Arc::new(Semaphore::new(most));
    loop {
        let accepted = tokio::select! {
            // Whoever waits at the door when it is closed is not let in.
            () = sender.closed() => return,
            accepted = async {
                // Never closed.
                let place = places.clone().acquire_owned().await.ok();
                (listener.accept().await, place)
            } => accepted,
        };
        let (stream, address, place) = match accepted {
            (Ok((stream, address)), Some(place)) => (stream, address, place),
            (Err(error), _) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            (_, None) => return,
        };
        // Where that cannot be set it is only slower.
        let _ = stream.set_nodelay(true);
        let loaded = security.credentials.as_ref().map(|credentials| credentials.current());
        let (security, sender) = (security.clone(), sender.clone());
        tokio::spawn(async move {
            let secured = async {
                match loaded {
                    None => Some((Way::Plain(stream), None)),
                    Some(loaded) => handshake(stream, address, &loaded, &security).await,
                }
            };
            tokio::select! {
                () = sender.closed() => {}
                secured = secured => {
                    let Some((way, identity)) = secured else { return };
                    let peer = Peer { address, identity };
                    // Nobody serves any more: it is dropped.
                    let _ = sender.send(Ok(Connection { way, peer, _place: place })).await;
                }
            }
        });
    }
}

async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    loaded: &Loaded,
    security: &Security,
) -> Option<(Way, Option<Arc<Identity>>)> {
    // Who serves has a certificate.
    let acceptor = TlsAcceptor::from(loaded.server.clone()?);
    let (reason, error, rest) = match timeout(HANDSHAKE, acceptor.accept(stream).into_fallible()).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates();
            let identity = certificates.and_then(<[_]>::first).map(|first| loaded.roles.identity(first));
            return Some((Way::Tls(Box::new(stream)), identity.map(Arc::new)));
        }
        // Looks whether somebody listens, as Consul does: no attempt at anything.
        Ok(Err((error, _))) if error.kind() == io::ErrorKind::UnexpectedEof => return None,
        Ok(Err((error, stream))) => (reason(&error), error.to_string(), Some(stream)),
        Err(_) => (Reason::Handshake, format!("no handshake within {} s", HANDSHAKE.as_secs()), None),
    };
    security.refusals().count(reason);
    tracing::warn!(peer = %address, reason = reason.name(), error, "a connection was refused");
    if let Some(stream) = rest {
        linger(stream).await;
    }
    None
}

/// Reads on for a moment: closing a connection while something unread has arrived would take back the alert that says
/// why.
async fn linger(mut stream: TcpStream) {
    // Whether the other side still listens is its own affair.
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
        match &mut self.way {
            Way::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Way::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.way {
            Way::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Way::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.way {
            Way::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Way::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.way {
            Way::Plain(stream) => stream.is_write_vectored(),
            Way::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.way {
            Way::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Way::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.way {
            Way::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Way::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_beyond_the_most_wait_until_one_goes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, mut incoming) = mpsc::channel(READY);
        tokio::spawn(accept(listener, Security::plain(), sender, 3));
        let mut others = vec![];
        for _ in 0..5 {
            others.push(TcpStream::connect(address).await.unwrap());
        }
        let mut taken = std::collections::VecDeque::new();
        for _ in 0..3 {
            taken.push_back(incoming.recv().await.unwrap().unwrap());
        }
        for _ in 0..2 {
            let further = timeout(Duration::from_millis(200), incoming.recv()).await;
            assert!(further.is_err(), "a fourth one: {further:?}");
            drop(taken.pop_front());
            taken.push_back(incoming.recv().await.unwrap().unwrap());
        }
    }

    #[test]
    fn handshakes_fail_for_reasons_that_are_told_apart() {
        let of = |error: rustls::Error| reason(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(of(rustls::Error::NoCertificatesPresented), Reason::NoCertificate);
        assert_eq!(of(UnknownIssuer.into()), Reason::UnknownAuthority);
        assert_eq!(of(Expired.into()), Reason::Expired);
        assert_eq!(of(rustls::CertificateError::BadSignature.into()), Reason::BadCertificate);
        assert_eq!(of(rustls::Error::HandshakeNotComplete), Reason::Handshake);
        assert_eq!(reason(&io::Error::other("reset")), Reason::Handshake);
    }
}
