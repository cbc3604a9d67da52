//! Outgoing connections: in plain text, or by TLS with the process's own certificate to a process whose certificate has
//! the expected role.
//!
//! Not here: incoming connections (`listen`), which coordinator leads (`discovery::leader`).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::HeaderValue;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, OtherError};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Request, Status};
use tower::Service;

use super::SecurityError;
use super::certificates::Credentials;
use super::identity::Role;
use super::tokens::read_private;
use crate::liveness::{PeerProgress, Watched};
use crate::secrets;

/// The server name for addresses that are not valid names: the role of the certificate is checked, not its host.
const NAMELESS: &str = "tally";
/// The time limit for the server's first bytes after the handshake.
const FIRST_BYTES: Duration = Duration::from_secs(5);

/// The token that is sent with each request, if there is one.
#[derive(Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// The token in a file.
    ///
    /// # Errors
    /// [`SecurityError`]: the file cannot be read, is open to others, or contains no token.
    pub fn read(file: &Path) -> Result<Self, SecurityError> {
        let text = read_private(file)?;
        secrets::register_held(&file.display().to_string(), [text.as_str()]);
        let none =
            |_| SecurityError::file(file, "it contains no token: write one line of printable characters");
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", text.trim()).parse().map_err(none)?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }
}

impl Bearer {
    /// The value of the header `authorization`; `None` without a token.
    pub fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_bytes(self.0.as_ref()?.as_encoded_bytes()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Opens connections. Cheap to clone.
#[derive(Clone, Default)]
pub struct Dialer {
    credentials: Option<Arc<Credentials>>,
    bearer: Bearer,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("tls", &self.credentials.is_some()).finish_non_exhaustive()
    }
}

impl Dialer {
    pub(super) fn new(credentials: Option<Arc<Credentials>>, bearer: Bearer) -> Self {
        Dialer { credentials, bearer }
    }

    /// Connections in plain text.
    pub fn plain() -> Self {
        Dialer::default()
    }

    /// The token that is sent with each request.
    pub fn bearer(&self) -> Bearer {
        self.bearer.clone()
    }

    /// A number that changes with the certificates: open connections should then be replaced.
    pub fn generation(&self) -> u64 {
        self.credentials.as_ref().map_or(0, |credentials| credentials.last().generation)
    }

    /// Connects to a process with this role. The future is boxed, so that the code of HTTP/2 connections is compiled in
    /// this crate and not once more in each crate that connects.
    ///
    /// # Errors
    /// The connection failed; the innermost cause says why.
    pub fn connect<'a>(&self, endpoint: &'a Endpoint, role: Role) -> BoxFuture<'a, Result<Channel, Error>> {
        match self.connector(role) {
            Some(connector) => endpoint.connect_with_connector(connector).boxed(),
            None => endpoint.connect().boxed(),
        }
    }

    /// A channel that connects on first use, and again after each broken connection.
    pub fn connect_lazy(&self, endpoint: &Endpoint, role: Role) -> Channel {
        match self.connector(role) {
            Some(connector) => endpoint.connect_with_connector_lazy(connector),
            None => endpoint.connect_lazy(),
        }
    }

    /// Like [`Dialer::connect_lazy`]. A connection fails if its peer is silent for `limit`, and what arrives is counted
    /// in `progress`.
    pub fn connect_lazy_watched(
        &self,
        endpoint: &Endpoint,
        role: Role,
        progress: &PeerProgress,
        limit: Duration,
    ) -> Channel {
        let (credentials, progress) = (self.credentials.clone(), progress.clone());
        endpoint.connect_with_connector_lazy(WatchedConnector { credentials, role, progress, limit })
    }

    fn connector(&self, role: Role) -> Option<Connector> {
        self.credentials.clone().map(|credentials| Connector { credentials, role })
    }
}

/// Connects by TLS with the current certificates.
#[derive(Clone)]
struct Connector {
    credentials: Arc<Credentials>,
    role: Role,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let config = self.credentials.current().map(|loaded| loaded.client(self.role));
        async move {
            let config = config.map_err(io::Error::other)?;
            let stream = connect(&uri).await?;
            Ok(TokioIo::new(secure(stream, &uri, config).await?))
        }
        .boxed()
    }
}

/// Connects in plain text, or by TLS with the current certificates, and watches the connections.
#[derive(Clone)]
struct WatchedConnector {
    credentials: Option<Arc<Credentials>>,
    role: Role,
    progress: PeerProgress,
    limit: Duration,
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Service<Uri> for WatchedConnector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let current = self.credentials.as_ref().map(|credentials| credentials.current());
        let config = current.transpose().map(|loaded| loaded.map(|loaded| loaded.client(self.role)));
        let (progress, limit) = (self.progress.clone(), self.limit);
        async move {
            let config = config.map_err(io::Error::other)?;
            let stream = Watched::new(connect(&uri).await?, progress, limit);
            let stream: Box<dyn Stream> = match config {
                None => Box::new(stream),
                Some(config) => Box::new(secure(stream, &uri, config).await?),
            };
            Ok(TokioIo::new(stream))
        }
        .boxed()
    }
}

fn no_address(uri: &Uri) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} is not an address"))
}

fn host(uri: &Uri) -> io::Result<&str> {
    Ok(uri.host().ok_or_else(|| no_address(uri))?.trim_matches(['[', ']']))
}

async fn connect(uri: &Uri) -> io::Result<TcpStream> {
    let port = uri.port_u16().ok_or_else(|| no_address(uri))?;
    let stream = TcpStream::connect((host(uri)?, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    uri: &Uri,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<S>> {
    let name = ServerName::try_from(host(uri)?.to_owned());
    let name = name.or_else(|_| ServerName::try_from(NAMELESS)).map_err(|_| no_address(uri))?;
    let mut stream = TlsConnector::from(config).connect(name, stream).await.map_err(plain)?;
    accepted(&mut stream).await?;
    Ok(stream)
}

/// The message of a certificate check, which rustls shows in its debug format.
fn plain(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(said)))) => {
            io::Error::new(error.kind(), said.to_string())
        }
        _ => error,
    }
}

/// Waits for the first bytes of the server, which HTTP/2 servers send at once. In TLS 1.3 only they show the client that
/// the server has accepted its certificate. A request that is sent before a refusal arrives would fail with an unrelated
/// error.
async fn accepted<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut TlsStream<S>) -> io::Result<()> {
    let late =
        |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", FIRST_BYTES.as_secs()));
    let first = timeout(FIRST_BYTES, stream.fill_buf()).await.map_err(late)??;
    match first.is_empty() {
        false => Ok(()),
        true => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed the connection after the handshake",
        )),
    }
}
