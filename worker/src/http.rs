//! Health and metrics of a process over HTTP, for kubelets and Prometheus: `/healthz`, `/readyz`,
//! `/metrics`; and `/log`, what is logged, which who is on this machine may change. On a thread of its own, so that neither tasks nor streams hold an answer up.
//!
//! `page` is the text of the metrics, `pulse` the sign that a runtime turns. Not here: what the process has to say (its [`Observed`]).

mod page;
mod pulse;

use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};

use crate::{logging, port_file};
pub use page::Page;
pub use pulse::{Pulse, stuck};

/// Connections at a time; more wait.
const CONNECTIONS: usize = 64;
/// How long a connection may take to say what it wants.
const HEADERS: Duration = Duration::from_secs(10);
/// How long a connection may last, whatever it does.
const LONGEST: Duration = Duration::from_secs(300);
/// After an accept that failed, for example for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// A process that can be looked at.
pub trait Observed: Send + Sync + 'static {
    /// Whether its loops turn. Work, however much, and a drain are no reason to say no: who does
    /// is killed.
    ///
    /// # Errors
    /// A sentence: what stands still.
    fn alive(&self) -> Result<(), String>;

    /// Whether it does what it is there for.
    ///
    /// # Errors
    /// A sentence: what is missing.
    fn ready(&self) -> Result<(), String>;

    /// Writes its metrics.
    fn metrics(&self, page: &mut Page);
}

/// A listener that answers until it is dropped.
#[derive(Debug)]
pub struct Server {
    _stop: oneshot::Sender<()>,
}

/// Listens on `listen` (host:port; port 0 takes any that is free) and writes the address to
/// `port_file`.
///
/// # Errors
/// A sentence that names the option.
pub fn serve(listen: &str, port_file: Option<&Path>, observed: Arc<dyn Observed>) -> Result<Server, String> {
    let failed = |e| format!("--http-listen {listen}: {e}; give an address that is free here");
    let listener = TcpListener::bind(listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    if let Some(file) = port_file {
        port_file::write(file, address)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                () = accept(listener, observed) => {}
                // It is dropped with the server, which is the word to stop.
                _ = stopped => {}
            }
        });
    };
    std::thread::Builder::new().name("http".into()).spawn(run).map_err(failed)?;
    tracing::info!(%address, "health and metrics are served over HTTP");
    Ok(Server { _stop: stop })
}

async fn accept(listener: TcpListener, observed: Arc<dyn Observed>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "health and metrics cannot be served"),
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let observed = observed.clone();
                tokio::spawn(async move {
                    // A peer that breaks off is nobody's concern.
                    let _ = tokio::time::timeout(LONGEST, converse(stream, peer.ip(), observed)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to health and metrics could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, peer: IpAddr, observed: Arc<dyn Observed>) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let observed = observed.clone();
        async move {
            Ok::<_, Infallible>(match (request.method(), request.uri().path()) {
                (&Method::PUT, "/log") => change_log(peer, request.into_body()).await,
                (method, path) => answer(method, path, observed.as_ref()),
            })
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// Sets the log's filter to the body. Only for those on this machine: in Kubernetes, those who may forward a port.
async fn change_log(peer: IpAddr, body: hyper::body::Incoming) -> Response<Full<Bytes>> {
    if !peer.to_canonical().is_loopback() {
        tracing::warn!(%peer, "a change of the log's filter was refused: it does not come from this machine");
        return text(StatusCode::FORBIDDEN, "only from this machine\n".into());
    }
    let body = Limited::new(body, logging::MOST_FILTER).collect().await.map(|body| body.to_bytes());
    let filter = body.ok().and_then(|body| String::from_utf8(body.to_vec()).ok());
    let changed = filter
        .ok_or_else(|| "that is no filter".to_string())
        .and_then(|filter| logging::set_filter(filter.trim()));
    match changed {
        Ok(()) => text(StatusCode::OK, "ok\n".into()),
        Err(why) => {
            text(StatusCode::BAD_REQUEST, format!("{why}: write for example info,tally_worker=debug\n"))
        }
    }
}

fn answer(method: &Method, path: &str, observed: &dyn Observed) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/healthz" => verdict(observed.alive()),
        "/readyz" => verdict(observed.ready()),
        "/log" => text(StatusCode::OK, format!("{}\n", logging::filter().unwrap_or_default())),
        "/metrics" => {
            let mut page = Page::new();
            observed.metrics(&mut page);
            let mut response = text(StatusCode::OK, page.text());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page::CONTENT_TYPE));
            response
        }
        _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz, /metrics and /log\n".into()),
    }
}

fn verdict(verdict: Result<(), String>) -> Response<Full<Bytes>> {
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

    struct Fake(Result<(), String>);

    impl Observed for Fake {
        fn alive(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Result<(), String> {
            self.0.clone()
        }

        fn metrics(&self, page: &mut Page) {
            page.gauge("tally_x", "An x", 2.0);
        }
    }

    #[test]
    fn each_path_has_its_answer() {
        let observed = Fake(Err("no leader".into()));
        let status = |method, path| answer(&method, path, &observed).status();
        assert_eq!(status(Method::GET, "/healthz"), 200);
        assert_eq!(status(Method::HEAD, "/readyz"), 503);
        assert_eq!(status(Method::GET, "/metrics"), 200);
        assert_eq!(status(Method::GET, "/"), 404);
        assert_eq!(status(Method::POST, "/metrics"), 405);
        assert_eq!(answer(&Method::GET, "/readyz", &Fake(Ok(()))).status(), 200);
    }

    #[test]
    fn an_address_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = serve(&address, None, Arc::new(Fake(Ok(())))).unwrap_err();
        assert!(error.starts_with(&format!("--http-listen {address}: ")), "{error}");
    }
}
