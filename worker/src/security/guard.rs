//! Looks at each request before a service does: who asks, whether that one may, and not too often. A refusal is an
//! answer with a sentence, a line in the log with peer and reason, and a count.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::Either;
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::identity::{Identity, Roles};
use super::listen::Peer;
use super::refusals::Reason;
use super::{Security, rules};

/// Puts a [`Guarded`] before services.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Security>);

impl Guard {
    /// One that goes by the process's security.
    pub fn new(security: Arc<Security>) -> Self {
        Guard(security)
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { security: self.0.clone(), inner }
    }
}

/// A service behind a guard.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    security: Arc<Security>,
    inner: S,
}

/// Why a request is refused.
struct Refusal {
    reason: Reason,
    who: String,
    status: Status,
}

impl<S> Guarded<S> {
    fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let path = request.uri().path();
        let peer = request.extensions().get::<Peer>();
        if self.security.is_tls() {
            authorize(&self.security, peer, bearer(request), path)?;
        }
        let Some(rate) = self.security.rate.as_ref().filter(|_| rules::is_public(path)) else {
            return Ok(());
        };
        match peer {
            Some(peer) if !rate.take(peer.address.ip().to_canonical(), Instant::now()) => Err(Refusal {
                reason: Reason::Rate,
                who: name(peer.identity.as_deref()),
                status: Status::resource_exhausted("too many requests: ask less often"),
            }),
            _ => Ok(()),
        }
    }
}

fn name(identity: Option<&Identity>) -> String {
    identity.map_or_else(|| "nobody known".into(), |identity| identity.name.clone())
}

/// The token of a request.
fn bearer<B>(request: &Request<B>) -> Option<&str> {
    request.headers().get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn authorize(
    security: &Security,
    peer: Option<&Peer>,
    token: Option<&str>,
    path: &str,
) -> Result<(), Refusal> {
    let certified = peer.and_then(|peer| peer.identity.as_deref());
    let shown = match (token, &security.tokens) {
        (Some(token), Some(tokens)) => match tokens.identity(token) {
            Some(identity) => Some(identity),
            None => {
                return Err(Refusal {
                    reason: Reason::Unauthenticated,
                    who: name(certified),
                    status: Status::unauthenticated("the bearer token is not known here"),
                });
            }
        },
        _ => None,
    };
    if certified.is_none() && shown.is_none() {
        return Err(Refusal {
            reason: Reason::Unauthenticated,
            who: name(None),
            status: Status::unauthenticated("show a client certificate or a bearer token"),
        });
    }
    let roles = [certified, shown.as_ref()].into_iter().flatten();
    let roles = roles.fold(Roles::default(), |all, identity| all.and(identity.roles));
    let needed = rules::needed(path);
    if roles.meets(needed) {
        return Ok(());
    }
    let who = name(shown.as_ref().or(certified));
    let status = Status::permission_denied(format!("{who} has the role {roles}; this needs {needed}"));
    Err(Refusal { reason: Reason::Forbidden, who, status })
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Err(refusal) = self.check(&request) else { return Either::Left(self.inner.call(request)) };
        let Refusal { reason, who, status } = refusal;
        self.security.refusals().count(reason);
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address.to_string());
        let peer = peer.unwrap_or_default();
        let (path, why) = (request.uri().path(), status.message());
        tracing::warn!(peer, who, path, reason = reason.name(), why, "a request was refused");
        Either::Right(ready(Ok(status.into_http())))
    }
}
