//! Health and metrics of a process over HTTP, for kubelets and Prometheus: `/healthz`, `/readyz` and `/metrics`. `/log`
//! shows the log's filter, which an operator can change with a token. A process can have more pages, its [`Site`]. The
//! server has its own thread, so that tasks, streams and other pages do not delay its answers.
//!
//! `listener` accepts connections, `site` is the interface of more pages, `offload` runs them elsewhere, and `pulse` checks
//! that a runtime makes progress.
//! Not here: the state of the process (its [`Observed`]), the tokens (`security`).

mod listener;
mod offload;
mod pulse;
mod site;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::body::Body;

use crate::connections::Slot;
use crate::logging;
use crate::metrics::{self, Page};
use crate::port_file::{self, PortFileError};
use crate::runtime::block_on;
use crate::security::{Peer, Rate, RateKey, Reason, Security, bearer, secure_web};
pub use offload::Pages;
pub use pulse::{Pulse, Unhealthy, stuck};
pub use site::{Channel, Site};

/// The time limit for the headers of a request.
const HEADERS: Duration = Duration::from_secs(10);
/// The maximum size of a request's headers, in bytes.
const MAX_HEADERS: usize = 16 << 10;
/// The maximum number of changes of the log's filter per second, before their tokens are checked.
const CHANGES_PER_SECOND: u32 = 10;
/// The first byte of a TLS connection: a handshake record. No HTTP request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// The paths that every process serves; others are pages of its site.
const PATHS: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/log"];
/// The interval between checks of the runtime for new data, in polls of its tasks: a new connection is served while many
/// others are.
const EVENT_INTERVAL: u32 = 8;

/// The answer of a process that refuses connections because its certificates are too old.
const STALE: &str = "the files of certificates cannot be used for too long: the log has the reason";

/// A process whose health and metrics are served.
pub trait Observed: Send + Sync + 'static {
    /// Whether its loops make progress. Load or a drain is not a reason to fail: a process that fails this check is
    /// killed.
    ///
    /// # Errors
    /// [`Unhealthy::Stalled`].
    fn alive(&self) -> Result<(), Unhealthy>;

    /// Whether it can do its work.
    ///
    /// # Errors
    /// [`Unhealthy::NotReady`].
    fn ready(&self) -> Result<(), Unhealthy>;

    /// Writes its metrics.
    fn metrics(&self, page: &mut Page);
}

/// Health and metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be used, or the server's thread cannot be started.
    #[error("--http-listen {listen}: {source}; give an address that is free on this machine")]
    Listen {
        /// The address.
        listen: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// The file of the address cannot be written.
    #[error(transparent)]
    PortFile(#[from] PortFileError),
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Server {
    _stop: oneshot::Sender<()>,
}

/// Listens on `listen` (host:port, or :port for all addresses; port 0 takes any free port) and writes the address to
/// `port_file`. Operators of `security` may change the log's filter. A client can use TLS for `pages`, if the process has
/// certificates.
///
/// # Errors
/// [`HttpError`].
pub fn serve(
    listen: &str,
    port_file: Option<&Path>,
    observed: Arc<dyn Observed>,
    security: Arc<Security>,
    pages: Option<Pages>,
) -> Result<Server, HttpError> {
    let failed = |source| HttpError::Listen { listen: listen.into(), source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build()
        .map_err(failed)?;
    let listener = {
        let _context = runtime.enter();
        listener::bind(listen).map_err(failed)?
    };
    let address = listener.local_addr().map_err(failed)?;
    if let Some(file) = port_file {
        port_file::write(file, address)?;
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let changes = Rate::new(CHANGES_PER_SECOND);
    let shared = Arc::new(Shared { observed, security: security.clone(), changes, pages, address });
    let run = move || {
        block_on(&runtime, async {
            let serve = |stream, peer, slot| serve_connection(stream, peer, slot, shared.clone());
            tokio::select! {
                () = listener::accept(listener, security, serve) => {}
                // The sender is dropped with the server.
                _ = stopped => {}
            }
        });
    };
    std::thread::Builder::new().name("http".into()).spawn(run).map_err(failed)?;
    tracing::info!(%address, "health and metrics are served over HTTP");
    Ok(Server { _stop: stop })
}

/// What all connections need.
struct Shared {
    observed: Arc<dyn Observed>,
    security: Arc<Security>,
    /// The rate of changes of the log's filter.
    changes: Rate,
    /// The other pages.
    pages: Option<Pages>,
    /// The address of the listener.
    address: SocketAddr,
}

/// Serves a connection, over TLS if the client begins a handshake and the process has other pages.
async fn serve_connection(stream: TcpStream, address: SocketAddr, slot: Arc<Slot>, shared: Arc<Shared>) {
    if let Some(pages) = &shared.pages
        && shared.security.is_tls()
        && begins_handshake(&stream).await
    {
        // Handshakes and encryption must not delay probes, so that all of it leaves this thread.
        let Ok(stream) = stream.into_std() else { return };
        let served = {
            let shared = shared.clone();
            async move {
                let Ok(stream) = TcpStream::from_std(stream) else { return };
                serve_tls(stream, address, slot, shared).await;
            }
        };
        pages.run(served).await;
        return;
    }
    let channel = Channel::plain(&shared.security, shared.address);
    serve_http(stream, (Peer::new(address, None, slot.clone()), channel), slot, shared).await;
}

async fn serve_tls(stream: TcpStream, address: SocketAddr, slot: Arc<Slot>, shared: Arc<Shared>) {
    let Some((stream, identity)) = secure_web(stream, address, &shared.security).await else { return };
    let peer = Peer::new(address, identity, slot.clone());
    serve_http(stream, (peer, Channel::Tls), slot, shared).await;
}

/// Whether the first byte of a client is that of a TLS handshake.
async fn begins_handshake(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(timeout(HEADERS, stream.peek(&mut first)).await, Ok(Ok(1))) && first[0] == TLS_HANDSHAKE
}

async fn serve_http<S>(stream: S, (peer, channel): (Peer, Channel), slot: Arc<Slot>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let address = peer.address.ip();
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        let (shared, slot, peer) = (shared.clone(), slot.clone(), peer.clone());
        async move {
            let path = request.uri().path();
            let pages = shared.pages.as_ref().filter(|_| !PATHS.contains(&path));
            let response = match (request.method(), pages) {
                (_, Some(pages)) => {
                    request.extensions_mut().insert(peer);
                    request.extensions_mut().insert(channel);
                    let request = request.map(Body::new);
                    match channel {
                        // Such a connection is served by the runtime of the pages.
                        Channel::Tls => pages.site.answer(request).await,
                        _ => pages.answer(request).await,
                    }
                }
                (&Method::PUT, None) if path == "/log" => {
                    change_log(address, request, &shared).await.map(Body::new)
                }
                (method, None) => answer(method, path, &shared).map(Body::new),
            };
            slot.note_use();
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(peer = %address, %error, "a connection to health and metrics broke");
    }
}

/// Sets the log's filter to the body of a request with an operator's token. The request must come from this machine
/// because the token is sent in plain text. The address alone proves nothing: behind a proxy or a sidecar all clients
/// have a local address.
async fn change_log(
    peer: IpAddr,
    request: Request<hyper::body::Incoming>,
    shared: &Shared,
) -> Response<Full<Bytes>> {
    let security = &shared.security;
    let refused = |reason: Reason, why: String| {
        if let Some(suppressed) = security.refusals().count(reason, 1) {
            let reason = reason.name();
            tracing::warn!(suppressed, %peer, reason, why, "a change of the log's filter was refused");
        }
        let status = match reason {
            Reason::Unauthenticated | Reason::StaleFiles => StatusCode::UNAUTHORIZED,
            Reason::Rate => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::FORBIDDEN,
        };
        let mut response = text(status, format!("{why}\n"));
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    };
    if !peer.to_canonical().is_loopback() {
        return refused(Reason::Forbidden, "only from this machine".into());
    }
    if !shared.changes.take(RateKey::new(peer, false), Instant::now()) {
        return refused(Reason::Rate, "too many requests: send fewer per second".into());
    }
    let by = match security.operator(bearer(request.headers())) {
        Ok(identity) => identity.name,
        Err((reason, why)) => return refused(reason, why),
    };
    let body = Limited::new(request.into_body(), logging::MAX_FILTER).collect().await;
    let filter = body.ok().and_then(|body| String::from_utf8(body.to_bytes().to_vec()).ok());
    let Some(filter) = filter else { return bad_filter("the body is too long or not UTF-8") };
    match logging::set_filter(filter.trim(), &by) {
        Ok(()) => text(StatusCode::OK, "ok\n".into()),
        Err(error) => bad_filter(&error.to_string()),
    }
}

fn bad_filter(why: &str) -> Response<Full<Bytes>> {
    text(StatusCode::BAD_REQUEST, format!("{why}: write for example info,tally=debug\n"))
}

fn answer(method: &Method, path: &str, shared: &Shared) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let observed = shared.observed.as_ref();
    match path {
        "/healthz" => verdict(observed.alive()),
        "/readyz" if !shared.security.is_ready() => verdict(Err(Unhealthy::NotReady(STALE))),
        "/readyz" => verdict(observed.ready()),
        "/log" => text(StatusCode::OK, format!("{}\n", logging::filter().unwrap_or_default())),
        "/metrics" => {
            let mut page = Page::new();
            observed.metrics(&mut page);
            let mut response = text(StatusCode::OK, page.text());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            response
        }
        _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz, /metrics and /log\n".into()),
    }
}

fn verdict(verdict: Result<(), Unhealthy>) -> Response<Full<Bytes>> {
    match verdict {
        Ok(()) => text(StatusCode::OK, "ok\n".into()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(Result<(), Unhealthy>);

    impl Observed for Fake {
        fn alive(&self) -> Result<(), Unhealthy> {
            Ok(())
        }

        fn ready(&self) -> Result<(), Unhealthy> {
            self.0
        }

        fn metrics(&self, page: &mut Page) {
            page.gauge("tally_x", "An x", 2.0);
        }
    }

    #[test]
    fn each_path_has_its_answer() {
        let shared = |ready| Shared {
            observed: Arc::new(Fake(ready)),
            security: Security::plain(),
            changes: Rate::new(CHANGES_PER_SECOND),
            pages: None,
            address: "127.0.0.1:1".parse().unwrap(),
        };
        let unready = shared(Err(Unhealthy::NotReady("no leader")));
        let status = |method, path| answer(&method, path, &unready).status();
        assert_eq!(status(Method::GET, "/healthz"), 200);
        assert_eq!(status(Method::HEAD, "/readyz"), 503);
        assert_eq!(status(Method::GET, "/metrics"), 200);
        assert_eq!(status(Method::GET, "/"), 404);
        assert_eq!(status(Method::POST, "/metrics"), 405);
        assert_eq!(answer(&Method::GET, "/readyz", &shared(Ok(()))).status(), 200);
    }

    #[test]
    fn an_address_that_is_taken_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error =
            serve(&address, None, Arc::new(Fake(Ok(()))), Security::plain(), None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("--http-listen {address}: ")), "{error}");
    }
}
