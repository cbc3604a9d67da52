//! Logs refused requests of all services: the peer, the method and the status. Lines are limited for each code.
//!
//! Not here: why requests are refused, requests that are refused before a service sees them (`security::guard`), streams
//! that end later.

use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::log_limit::{LogLimit, shorten};
use crate::security::Peer;

/// The number of codes of gRPC.
const CODES: usize = 17;
/// The limits of lines, by code.
static LIMITS: [LogLimit; CODES] = [const { LogLimit::new() }; CODES];

/// Logs the refusals of the services below it.
#[derive(Debug, Clone, Copy)]
pub struct Refusals;

impl<S> Layer<S> for Refusals {
    type Service = Noted<S>;

    fn layer(&self, inner: S) -> Noted<S> {
        Noted { inner }
    }
}

/// Services whose refusals are logged.
#[derive(Debug, Clone)]
pub struct Noted<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Noted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    R: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request.uri().path().to_string();
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // An immediate refusal has its status in the headers.
            if let Some(status) = Status::from_header_map(answer.headers()) {
                note(&method, &peer.map_or_else(String::new, |peer| peer.to_string()), &status);
            }
            Ok(answer)
        })
    }
}

fn note(method: &str, peer: &str, status: &Status) {
    let (code, method, reason) = (status.code(), shorten(method), shorten(status.message()));
    match code {
        Code::Ok => {}
        // Clients that look for the leader ask all coordinators repeatedly.
        Code::FailedPrecondition | Code::Unavailable => {
            tracing::debug!(method, peer, ?code, reason, "a request was refused");
        }
        _ => {
            if let Some(suppressed) = LIMITS.get(code as usize).and_then(LogLimit::admit) {
                tracing::warn!(suppressed, method, peer, ?code, reason, "a request was refused");
            }
        }
    }
}
