//! Checks each request before a service handles it, over gRPC and over HTTP: rate, identity and role. The rate comes
//! first, so that a client cannot try tokens faster than it allows. A refused request is answered with a reason and counted; the log names its peer, with
//! a limit of lines for each reason.
//!
//! Not here: which method needs which role (`rules`), connections (`listen`).

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::Either;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::http::Extensions;
use hyper::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::identity::{Identity, Role, Roles};
use super::listen::Peer;
use super::rate::RateKey;
use super::refusals::Reason;
use super::{Security, rules};
use crate::log_limit::shorten;

/// The layer that puts a [`Guarded`] before services.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Security>);

impl Guard {
    /// A guard with the process's security.
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

/// The answer while no token is accepted; the log of the process has the reason.
const STALE_TOKENS: &str = "tokens are not accepted, because the file of tokens cannot be read: use a certificate, or tell the operator";

/// Why a request is refused.
struct Refusal {
    reason: Reason,
    who: String,
    status: Status,
}

fn check(security: &Security, peer: Option<&Peer>, token: Option<&str>, path: &str) -> Result<(), Refusal> {
    limit(security, peer, token, path)?;
    if security.is_tls() {
        authorize(security, peer, token, path)?;
    }
    if let Some(peer) = peer {
        peer.note_use();
    }
    Ok(())
}

/// Limits the requests of people and programs: those of the public API and, with TLS, those without a certificate or with a
/// token. The cluster's processes have certificates and send no tokens.
fn limit(security: &Security, peer: Option<&Peer>, token: Option<&str>, path: &str) -> Result<(), Refusal> {
    let (Some(rate), Some(peer)) = (&security.rate, peer) else { return Ok(()) };
    let certified = peer.identity.is_some();
    let counts = rules::is_public(path) || (security.is_tls() && (!certified || token.is_some()));
    if !counts || rate.take(RateKey::new(peer.address.ip(), certified), Instant::now()) {
        return Ok(());
    }
    Err(Refusal {
        reason: Reason::Rate,
        who: name(peer.identity.as_deref()),
        status: Status::resource_exhausted("too many requests: send fewer per second"),
    })
}

fn name(identity: Option<&Identity>) -> String {
    identity.map_or_else(|| "an unknown client".into(), |identity| identity.name.clone())
}

/// The token of a request. The name of the scheme has any case.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

fn authorize(
    security: &Security,
    peer: Option<&Peer>,
    token: Option<&str>,
    path: &str,
) -> Result<(), Refusal> {
    let certified = peer.and_then(|peer| peer.identity.as_deref());
    match (token, &security.tokens) {
        (Some(token), Some(tokens)) => {
            let (reason, why) = match tokens.identity(token) {
                Ok(Some(identity)) => return permit(certified, Some(&identity), path),
                Ok(None) => (Reason::Unauthenticated, "the bearer token is unknown"),
                Err(_) => (Reason::StaleFiles, STALE_TOKENS),
            };
            Err(Refusal { reason, who: name(certified), status: Status::unauthenticated(why) })
        }
        _ => permit(certified, None, path),
    }
}

/// Checks the roles of the certificate and the token together.
fn permit(certified: Option<&Identity>, shown: Option<&Identity>, path: &str) -> Result<(), Refusal> {
    if certified.is_none() && shown.is_none() {
        return Err(Refusal {
            reason: Reason::Unauthenticated,
            who: name(None),
            status: Status::unauthenticated("send a client certificate or a bearer token"),
        });
    }
    let roles = [certified, shown].into_iter().flatten();
    let roles = roles.fold(Roles::default(), |all, identity| all.and(identity.roles));
    let needed = rules::needed(path);
    if roles.meets(needed) {
        return Ok(());
    }
    let who = name(shown.or(certified));
    let status =
        Status::permission_denied(format!("{who} has the role {roles}; this request needs {needed}"));
    Err(Refusal { reason: Reason::Forbidden, who, status })
}

impl Security {
    /// Checks a request to the method of gRPC with this path, or to its equivalent over HTTP, by the request's [`Peer`]
    /// and token. Counts and logs a refusal.
    ///
    /// # Errors
    /// The status that refuses it.
    pub fn admit(&self, extensions: &Extensions, headers: &HeaderMap, path: &str) -> Result<(), Status> {
        let peer = extensions.get::<Peer>();
        let Err(refusal) = check(self, peer, bearer(headers), path) else { return Ok(()) };
        let Refusal { reason, who, status } = refusal;
        if let Some(suppressed) = self.refusals().count(reason, 1) {
            let peer = peer.map(|peer| peer.address.to_string()).unwrap_or_default();
            let (path, why) = (shorten(path), status.message());
            tracing::warn!(suppressed, peer, who, path, reason = reason.name(), why, "a request was refused");
        }
        Err(status)
    }

    /// Whether [`Security::admit`] would accept a request to this method, apart from the rate.
    pub fn permits(&self, extensions: &Extensions, headers: &HeaderMap, path: &str) -> bool {
        !self.is_tls() || authorize(self, extensions.get(), bearer(headers), path).is_ok()
    }

    /// The operator that a token belongs to, for requests outside TLS and gRPC.
    ///
    /// # Errors
    /// Why the request is refused, and a message.
    pub fn operator(&self, token: Option<&str>) -> Result<Identity, (Reason, String)> {
        let Some(tokens) = &self.tokens else {
            let why = "this is disabled: start the process with --tokens-file, whose operators may do it";
            return Err((Reason::Forbidden, why.into()));
        };
        let identity = match token.map(|token| tokens.identity(token)) {
            Some(Err(_)) => return Err((Reason::StaleFiles, STALE_TOKENS.into())),
            Some(Ok(identity)) => identity,
            None => None,
        };
        let Some(identity) = identity else {
            let why = "send an operator's token of --tokens-file in the header `Authorization: Bearer TOKEN`";
            return Err((Reason::Unauthenticated, why.into()));
        };
        match identity.roles.has(Role::Operator) {
            true => Ok(identity),
            false => {
                let why =
                    format!("{} has the role {}; this request needs operator", identity.name, identity.roles);
                Err((Reason::Forbidden, why))
            }
        }
    }
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
        match self.security.admit(request.extensions(), request.headers(), request.uri().path()) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn the_scheme_of_a_token_has_any_case() {
        let of = |text: &'static str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(text))]);
            bearer(&headers).map(String::from)
        };
        for text in ["Bearer token", "bearer token", "BEARER  token"] {
            assert_eq!(of(text).as_deref(), Some("token"), "{text}");
        }
        for text in ["Basic token", "Bearer", "Bearertoken", "token"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
