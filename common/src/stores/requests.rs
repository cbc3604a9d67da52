//! Sends the requests to object stores and for their credentials, and counts each try.
//!
//! The secrets of each request are registered here, and error answers are reduced here, before they become errors: stores
//! quote the headers and strings that they refuse (`answers`).
//!
//! Not here: retries (`settings`), which errors are not retried (`unreachable`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use http::{Method, StatusCode};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use super::{Service, answers, unreachable};
use crate::metrics::Page;

const SERVICES: [Service; 3] = [Service::S3, Service::Gcs, Service::Azure];
const METHODS: [Method; 5] = [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE];
/// Refused: 4xx. Throttled: 429 and 503. Failed: other 5xx. Broken: no answer.
const OUTCOMES: [&str; 5] = ["ok", "refused", "throttled", "failed", "broken"];

/// Requests of this process by service, method and outcome.
static COUNTS: [[[AtomicU64; OUTCOMES.len()]; METHODS.len()]; SERVICES.len()] =
    [const { [const { [const { AtomicU64::new(0) }; OUTCOMES.len()] }; METHODS.len()] }; SERVICES.len()];

/// Creates clients that count their requests.
#[derive(Debug)]
pub(super) struct Counted(pub Service);

#[derive(Debug)]
struct Client {
    service: Service,
    inner: HttpClient,
    /// The server has answered a request.
    answered: AtomicBool,
}

impl HttpConnector for Counted {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Client { service: self.0, inner, answered: AtomicBool::new(false) }))
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let method = request.method().clone();
        answers::register_secrets(&request);
        let answer = self.inner.execute(request).await;
        count(self.service, &method, answer.as_ref().ok().map(HttpResponse::status));
        match answer {
            Ok(answer) => {
                self.answered.store(true, Ordering::Relaxed);
                Ok(answers::cut(answer).await)
            }
            Err(error) => Err(unreachable::classified(error, self.answered.load(Ordering::Relaxed))),
        }
    }
}

fn outcome(status: Option<StatusCode>) -> usize {
    match status {
        None => 4,
        Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => 2,
        Some(status) if status.is_server_error() => 3,
        Some(status) if status.is_client_error() => 1,
        Some(_) => 0,
    }
}

fn count(service: Service, method: &Method, status: Option<StatusCode>) {
    let service = SERVICES.iter().position(|known| *known == service);
    let method = METHODS.iter().position(|known| known == method);
    if let (Some(service), Some(method)) = (service, method) {
        COUNTS[service][method][outcome(status)].fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes the counts of this process. Zeros are written only for GET, so that rates have a start.
pub fn metrics(page: &mut Page) {
    let mut samples = vec![];
    for (service, methods) in SERVICES.iter().zip(&COUNTS) {
        for (method, outcomes) in METHODS.iter().zip(methods) {
            for (outcome, count) in OUTCOMES.iter().zip(outcomes) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 || *method == Method::GET {
                    let labels = vec![
                        ("service", service.scheme().to_string()),
                        ("method", method.to_string()),
                        ("outcome", (*outcome).to_string()),
                    ];
                    samples.push((labels, count as f64));
                }
            }
        }
    }
    let help = "Requests to object stores, every try, by service, method and outcome";
    page.counters("tally_object_store_requests", help, samples);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_outcome() {
        for (status, expect) in [
            (Some(206), "ok"),
            (Some(404), "refused"),
            (Some(412), "refused"),
            (Some(429), "throttled"),
            (Some(503), "throttled"),
            (Some(500), "failed"),
            (None, "broken"),
        ] {
            let status = status.map(|status| StatusCode::from_u16(status).unwrap());
            assert_eq!(OUTCOMES[outcome(status)], expect, "{status:?}");
        }
    }
}
