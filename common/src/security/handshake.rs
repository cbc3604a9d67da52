//! Secures an accepted connection: waits for its first byte or completes its TLS handshake, and says why one is refused.
//!
//! Not here: which connections are accepted (`listen`), what a request may do (`guard`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext, UnknownIssuer};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::identity::Identity;
use super::refusals::Reason;
use super::{Loaded, Security};

/// The time limit of a TLS handshake, or of the first byte in plain text.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long, and how often, a refused connection is still read.
const LINGER: Duration = Duration::from_secs(1);
const LAST_READS: usize = 64;

/// What carries the bytes of a connection.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Secures a connection of a gRPC listener; `None` if it is refused.
pub(super) async fn secure(
    stream: TcpStream,
    address: SocketAddr,
    security: &Security,
) -> Option<(Transport, Option<Arc<Identity>>)> {
    if security.credentials.is_none() {
        return first_byte(stream, address, security).await.map(|stream| (Transport::Plain(stream), None));
    }
    let (stream, identity) = handshake(stream, address, security, |loaded| loaded.server.clone()).await?;
    Some((Transport::Tls(Box::new(stream)), identity))
}

/// Secures a connection over HTTP/1.1 whose client begins a TLS handshake; `None` if it is refused, or without TLS.
pub(crate) async fn secure_web(
    stream: TcpStream,
    address: SocketAddr,
    security: &Security,
) -> Option<(TlsStream<TcpStream>, Option<Arc<Identity>>)> {
    handshake(stream, address, security, |loaded| loaded.web.clone()).await
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

/// Completes a TLS handshake by one of the server configurations.
async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    security: &Security,
    config: impl FnOnce(&Loaded) -> Option<Arc<ServerConfig>>,
) -> Option<(TlsStream<TcpStream>, Option<Arc<Identity>>)> {
    let loaded = match security.credentials.as_ref()?.current() {
        Ok(loaded) => loaded,
        Err(error) => {
            refused(security, address, Reason::StaleFiles, &error.to_string());
            return None;
        }
    };
    let acceptor = TlsAcceptor::from(config(&loaded)?);
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

#[cfg(test)]
mod tests {
    use super::*;

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
