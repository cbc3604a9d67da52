//! How this process connects to others: in plain text, or by TLS with its own certificate to somebody whose certificate
//! has the role that is looked for.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, OtherError};
use tokio::io::AsyncBufReadExt;
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
use super::credentials::Credentials;
use super::identity::Role;
use super::tokens::read_private;

/// A name for connections to addresses that are none; the certificate's role is checked, not its host.
const NAMELESS: &str = "tally";
/// For the first word of the other side, once the handshake is done.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// A token that is shown with each request, if there is one.
#[derive(Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// The token in a file.
    ///
    /// # Errors
    /// The file cannot be read, is open to others, or holds no token.
    pub fn read(file: &Path) -> Result<Self, SecurityError> {
        let text = read_private(file)?;
        let none = |_| SecurityError::file(file, "it holds no token: one line of printable characters");
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", text.trim()).parse().map_err(none)?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
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

/// Makes connections. Cheap to clone.
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

    /// What is shown with each request.
    pub fn bearer(&self) -> Bearer {
        self.bearer.clone()
    }

    /// A number that changes when connections that are kept should be made anew: the certificates have changed.
    pub fn generation(&self) -> u64 {
        self.credentials.as_ref().map_or(0, |credentials| credentials.current().generation)
    }

    /// Connects to somebody of that role.
    ///
    /// # Errors
    /// No connection; the innermost cause says why.
    pub async fn connect(&self, endpoint: &Endpoint, role: Role) -> Result<Channel, Error> {
        match self.connector(role) {
            Some(connector) => endpoint.connect_with_connector(connector).await,
            None => endpoint.connect().await,
        }
    }

    /// Connects when it is used first, and again whenever the connection broke.
    pub fn connect_lazy(&self, endpoint: &Endpoint, role: Role) -> Channel {
        match self.connector(role) {
            Some(connector) => endpoint.connect_with_connector_lazy(connector),
            None => endpoint.connect_lazy(),
        }
    }

    fn connector(&self, role: Role) -> Option<Connector> {
        self.credentials.clone().map(|credentials| Connector { credentials, role })
    }
}

/// Connects by TLS, each time with the certificates of that time.
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
        let config = self.credentials.current().client(self.role);
        async move {
            let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} is no address"));
            let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']);
            let port = uri.port_u16().ok_or_else(wrong)?;
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(host.to_owned());
            let name = name.or_else(|_| ServerName::try_from(NAMELESS)).map_err(|_| wrong())?;
            let mut stream = TlsConnector::from(config).connect(name, stream).await.map_err(plain)?;
            accepted(&mut stream).await?;
            Ok(TokioIo::new(stream))
        }
        .boxed()
    }
}

/// What the check of a certificate said, where rustls shows it as code.
fn plain(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(said)))) => {
            io::Error::new(error.kind(), said.to_string())
        }
        _ => error,
    }
}

/// Waits for the other side's first words, which HTTP/2 servers say at once: in TLS 1.3 a client does not know before
/// whether its certificate was good enough, and a request that is under way when the refusal comes fails for who knows
/// what reason.
async fn accepted(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let late =
        |_| io::Error::new(io::ErrorKind::TimedOut, format!("no word within {} s", FIRST_WORD.as_secs()));
    let first = timeout(FIRST_WORD, stream.fill_buf()).await.map_err(late)??;
    match first.is_empty() {
        false => Ok(()),
        true => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side hung up after the handshake"))
        }
    }
}
