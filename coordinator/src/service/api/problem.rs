//! A request that is refused or fails, as a status and JSON of the same form as the failures of commands.
//!
//! Not here: why (`api`, the methods of gRPC).

use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tally_common::secrets;
use tally_proto::LEADER_METADATA;
use tonic::codegen::http::StatusCode;
use tonic::codegen::http::header::{CONNECTION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use tonic::{Code, Status};

use super::JSON_HEADERS;
use crate::view;

/// Separates a message from what to do about it, as in the messages of commands.
const HINT: &str = "\nhint: ";

/// Why a request has no result.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    kind: &'static str,
    message: String,
    /// The address of the leader for gRPC.
    leader: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    error: Failure<'a>,
}

#[derive(Serialize)]
struct Failure<'a> {
    kind: &'static str,
    message: &'a str,
    hint: Option<&'a str>,
    leader: Option<&'a str>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Problem { status, kind, message: message.into(), leader: None }
    }

    /// A path without a meaning.
    pub(super) fn path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such page: see /api/v1/openapi.json")
    }

    /// A method that the path does not have.
    pub(super) fn method() -> Self {
        let message = "the path does not have this method: see /api/v1/openapi.json";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "usage", message)
    }

    /// A parameter without a meaning.
    pub(super) fn invalid(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "usage", message)
    }

    /// A parameter that is required.
    pub(super) fn missing(name: &str) -> Self {
        Self::invalid(format!("{name}: the parameter is missing"))
    }

    /// A body that is not JSON.
    pub(super) fn media_type(message: String) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "usage", message)
    }

    /// A body that is too large.
    pub(super) fn too_large(message: String) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "usage", message)
    }

    /// A client that may not do this, whatever it sends.
    pub(super) fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// Too many clients or requests.
    pub(super) fn busy(message: String) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
    }

    /// A failure of the coordinator.
    pub(super) fn failed(message: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
    }

    /// What happened.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The JSON of the failure.
    pub(super) fn text(&self) -> String {
        let cut = secrets::cut(&self.message);
        let (message, hint) = match cut.split_once(HINT) {
            Some((message, hint)) => (message, Some(hint)),
            None => (&*cut, None),
        };
        let error = Failure { kind: self.kind, message, hint, leader: self.leader.as_deref() };
        // A value of this type can always be written.
        view::json(&Report { error }).unwrap_or_default()
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let (code, kind) = match status.code() {
            Code::InvalidArgument => (StatusCode::BAD_REQUEST, "usage"),
            Code::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Code::AlreadyExists => (StatusCode::CONFLICT, "conflict"),
            Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Code::PermissionDenied => (StatusCode::FORBIDDEN, "forbidden"),
            Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"),
            // It does not lead, or is stepping down.
            Code::FailedPrecondition | Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "no_leader"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        };
        let leader = status.metadata().get(LEADER_METADATA).and_then(|leader| leader.to_str().ok());
        Problem { leader: leader.map(String::from), ..Problem::new(code, kind, status.message()) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let more: &[(HeaderName, &'static str)] = match self.status {
            StatusCode::UNAUTHORIZED => &[(WWW_AUTHENTICATE, "Bearer")],
            StatusCode::TOO_MANY_REQUESTS => &[(RETRY_AFTER, "1")],
            // A new connection to the same address may reach the leader.
            StatusCode::SERVICE_UNAVAILABLE => &[(RETRY_AFTER, "1"), (CONNECTION, "close")],
            _ => &[],
        };
        let mut response = (self.status, JSON_HEADERS, self.text()).into_response();
        for (name, value) in more {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    #[test]
    fn a_standby_names_the_leader() {
        let mut status = Status::failed_precondition("this coordinator does not lead");
        status.metadata_mut().insert(LEADER_METADATA, MetadataValue::from_static("other:7070"));
        let problem = Problem::from(status);
        assert_eq!(problem.status, StatusCode::SERVICE_UNAVAILABLE);
        let shown: serde_json::Value = serde_json::from_str(&problem.text()).unwrap();
        assert_eq!(shown["error"]["leader"], "other:7070");
        assert_eq!((&shown["error"]["kind"], &shown["schema_version"]), (&"no_leader".into(), &1.into()));
    }

    #[test]
    fn a_hint_is_a_field_of_its_own() {
        let problem = Problem::forbidden("not here\nhint: go there");
        let shown: serde_json::Value = serde_json::from_str(&problem.text()).unwrap();
        assert_eq!(
            (&shown["error"]["message"], &shown["error"]["hint"]),
            (&"not here".into(), &"go there".into())
        );
        assert_eq!(problem.into_response().status(), 403);
        let refused = Problem::from(Status::unauthenticated("send a token")).into_response();
        assert_eq!(refused.headers().get(WWW_AUTHENTICATE).unwrap(), "Bearer");
    }
}
