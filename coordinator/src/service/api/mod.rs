//! The HTTP API: jobs, their events, workers and the cluster as JSON under `/api/v1`, live by server-sent events, and the
//! cancellation of jobs; and the web page that shows them. Each request of the API needs the roles of the method of gRPC
//! that answers it (`jobs`).
//!
//! `live` streams changes, `problem` is a refused request, `page` has the files of the web page. Not here: the fields of the JSON (`view`), connections and TLS
//! (`tally_common::http`), roles (`tally_common::security`).

mod live;
mod page;
mod problem;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::future::BoxFuture;
use serde::Serialize;
use tally_common::http::{Channel, Site};
use tally_common::secrets;
use tally_common::security::Security;
use tally_proto::v1::jobs_server::Jobs;
use tally_proto::{JobId, v1};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, ORIGIN};
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{self, Method};

use super::jobs::{JobsService, find, unknown};
use super::{CoordinatorRole, Leading, stepping_down};
use crate::attempt_log::AttemptPage;
use crate::driver::DriverInput;
use crate::view;
use live::{JobStream, OverviewStream};
use problem::Problem;

/// The description of the API.
const OPENAPI: &str = include_str!("openapi.json");
/// The most streams at a time, over all clients: half of the connections of the listener.
const FOLLOWERS: usize = 32;
/// The number of the last event that a client of a stream received.
const LAST_EVENT_ID: &str = "last-event-id";
/// Where a browser says which page a request comes from.
const FETCH_SITE: &str = "sec-fetch-site";

/// The API of a coordinator.
pub struct HttpApi {
    router: Router,
}

/// What all requests need.
struct Shared {
    role: Arc<CoordinatorRole>,
    jobs: JobsService,
    security: Arc<Security>,
    followers: Arc<Semaphore>,
}

type Answer = Result<Response, Problem>;

impl HttpApi {
    /// The API of a coordinator in that role.
    pub fn new(role: Arc<CoordinatorRole>, security: Arc<Security>) -> Self {
        let shared = Shared {
            jobs: JobsService::new(role.clone()),
            role,
            security,
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
        };
        let router = Router::new()
            .route("/api/v1/cluster", get(cluster))
            .route("/api/v1/jobs", get(jobs))
            .route("/api/v1/jobs/{job}", get(job))
            .route("/api/v1/jobs/{job}/events", get(events))
            .route("/api/v1/jobs/{job}/attempts", get(attempts))
            .route("/api/v1/jobs/{job}/stream", get(job_stream))
            .route("/api/v1/jobs/{job}/cancel", post(cancel))
            .route("/api/v1/workers", get(workers))
            .route("/api/v1/stream", get(overview_stream))
            .route("/api/v1/openapi.json", get(openapi));
        let router = page::FILES
            .iter()
            .fold(router, |router, file| router.route(file.path, get(move || async move { file.answer() })));
        let router = router
            .method_not_allowed_fallback(|| async { Problem::method() })
            .fallback(|| async { Problem::path() })
            .with_state(Arc::new(shared));
        HttpApi { router }
    }
}

impl Site for HttpApi {
    fn answer(&self, request: http::Request<Body>) -> BoxFuture<'static, http::Response<Body>> {
        let mut router = self.router.clone();
        Box::pin(async move {
            match router.call(request).await {
                Ok(response) => response.map(Body::new),
                Err(never) => match never {},
            }
        })
    }
}

impl Shared {
    /// Checks a request to this method of the service of jobs.
    fn admit(&self, parts: &Parts, method: &str) -> Result<(), Problem> {
        check_channel(parts)?;
        if parts.method == Method::POST && !is_same_origin(&parts.headers) {
            return Err(Problem::forbidden("the request comes from a page of another site"));
        }
        self.security.admit(&parts.extensions, &parts.headers, &path_of(method)).map_err(Problem::from)
    }

    fn permits(&self, parts: &Parts, method: &str) -> bool {
        self.security.permits(&parts.extensions, &parts.headers, &path_of(method))
    }

    /// The ended attempts of a job with larger numbers.
    async fn attempts(&self, leading: &Leading, job: &JobId, after: u64) -> Result<AttemptPage, Problem> {
        let (reply, answer) = oneshot::channel();
        let asked = DriverInput::Attempts(job.clone(), after, reply);
        leading.sender.send(asked).await.map_err(|_| stepping_down())?;
        let live = answer.await.map_err(|_| stepping_down())?;
        Ok(live.or_else(|| leading.registry.attempts(job, after)).unwrap_or_default())
    }

    /// A place among the followers.
    fn follow(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.followers.clone().try_acquire_owned().map_err(|_| {
            Problem::busy(format!(
                "{FOLLOWERS} clients follow the cluster, which is the limit: try again later"
            ))
        })
    }
}

/// The path of a method of the service of jobs over gRPC, which names the roles that it needs.
fn path_of(method: &str) -> String {
    format!("/{}/{method}", v1::jobs_server::SERVICE_NAME)
}

/// Refuses plain text where gRPC refuses it. On a listener of this machine alone, a page of a site whose name resolves to
/// this machine must not reach the API through a browser, so that the host must be an address or `localhost`.
fn check_channel(parts: &Parts) -> Result<(), Problem> {
    match parts.extensions.get::<Channel>() {
        Some(Channel::Tls | Channel::Trusted) => Ok(()),
        Some(Channel::Local) if is_local_host(&parts.headers) => Ok(()),
        Some(Channel::Local) => Err(Problem::forbidden(
            "the name of the host is not localhost\nhint: use http://localhost or http://127.0.0.1",
        )),
        Some(Channel::Exposed) | None => Err(Problem::forbidden(
            "plain text is not accepted here\nhint: use https:// if the coordinator has certificates; otherwise start it \
             with --tls-ca, --tls-cert and --tls-key, or with --insecure if this network is trusted",
        )),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_local_host(headers: &HeaderMap) -> bool {
    let Some(host) = header(headers, HOST.as_str()) else { return true };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
}

/// Whether a request comes from a page of this server, or from no page.
fn is_same_origin(headers: &HeaderMap) -> bool {
    if header(headers, FETCH_SITE).is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return false;
    }
    let origin =
        headers.get(ORIGIN).map(|origin| origin.to_str().ok().and_then(|text| text.split_once("://")));
    match origin {
        None => true,
        Some(origin) => origin.is_some_and(|(_, host)| header(headers, HOST.as_str()) == Some(host)),
    }
}

/// The value of a parameter. The parameters of this API are numbers and tokens, which need no escapes.
fn parameter<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    let pairs = parts.uri.query().unwrap_or_default().split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn number<T: std::str::FromStr + Default>(parts: &Parts, name: &str) -> Result<T, Problem> {
    let Some(value) = parameter(parts, name) else { return Ok(T::default()) };
    value.parse().map_err(|_| Problem::invalid(format!("{name}: give a number")))
}

fn list_request(parts: &Parts) -> Result<tonic::Request<v1::ListRequest>, Problem> {
    let page_token = parameter(parts, "page_token").unwrap_or_default().to_string();
    Ok(tonic::Request::new(v1::ListRequest { page_size: number(parts, "page_size")?, page_token }))
}

/// An object, with its version.
fn text(value: &impl Serialize) -> Result<String, Problem> {
    let text = view::json(value).map_err(|error| Problem::internal(&error))?;
    Ok(secrets::cut_output(&text).into_owned())
}

fn json(value: &impl Serialize) -> Answer {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    Ok((headers, text(value)?).into_response())
}

/// The state of the cluster.
#[derive(Serialize)]
struct Cluster {
    version: &'static str,
    epoch: u64,
    accepting_jobs: bool,
    permissions: Permissions,
}

/// What the client may do.
#[derive(Serialize)]
struct Permissions {
    view: bool,
    cancel: bool,
}

fn cluster_of(shared: &Shared, parts: &Parts) -> Result<Cluster, Problem> {
    Ok(Cluster {
        version: env!("CARGO_PKG_VERSION"),
        epoch: shared.role.leading()?.epoch,
        accepting_jobs: shared.role.accepting().is_ok(),
        permissions: Permissions {
            view: shared.permits(parts, "List"),
            cancel: shared.permits(parts, "Cancel"),
        },
    })
}

async fn cluster(State(shared): State<Arc<Shared>>, parts: Parts) -> Answer {
    shared.admit(&parts, "List")?;
    json(&cluster_of(&shared, &parts)?)
}

/// A page of a list.
#[derive(Serialize)]
struct Page<'a, T> {
    #[serde(flatten)]
    entries: T,
    next_page_token: Option<&'a str>,
}

impl<'a, T> Page<'a, T> {
    fn new(entries: T, token: &'a str) -> Self {
        Page { entries, next_page_token: Some(token).filter(|token| !token.is_empty()) }
    }
}

async fn jobs(State(shared): State<Arc<Shared>>, parts: Parts) -> Answer {
    shared.admit(&parts, "List")?;
    let page = shared.jobs.list(list_request(&parts)?).await?.into_inner();
    json(&Page::new(view::Jobs::from(&page.jobs[..]), &page.next_page_token))
}

async fn job(State(shared): State<Arc<Shared>>, Path(job): Path<String>, parts: Parts) -> Answer {
    shared.admit(&parts, "Get")?;
    let status = shared.jobs.get(tonic::Request::new(v1::JobRequest { job })).await?.into_inner();
    json(&view::Job::from(&status))
}

async fn events(State(shared): State<Arc<Shared>>, Path(job): Path<String>, parts: Parts) -> Answer {
    shared.admit(&parts, "Events")?;
    let asked = v1::EventsRequest { job, after: number(&parts, "after")? };
    let page = shared.jobs.events(tonic::Request::new(asked)).await?.into_inner();
    json(&view::Events::from(&page))
}

async fn attempts(State(shared): State<Arc<Shared>>, Path(job): Path<String>, parts: Parts) -> Answer {
    shared.admit(&parts, "Events")?;
    let leading = shared.role.leading()?;
    let job = find(&leading, &job)?;
    let page = shared.attempts(&leading, &job, number(&parts, "after")?).await?;
    json(&view::Attempts::new(job.as_str(), &page))
}

async fn cancel(State(shared): State<Arc<Shared>>, Path(job): Path<String>, parts: Parts) -> Answer {
    shared.admit(&parts, "Cancel")?;
    let status = shared.jobs.cancel(tonic::Request::new(v1::JobRequest { job })).await?.into_inner();
    json(&view::Job::from(&status))
}

async fn workers(State(shared): State<Arc<Shared>>, parts: Parts) -> Answer {
    shared.admit(&parts, "ListWorkers")?;
    let page = shared.jobs.list_workers(list_request(&parts)?).await?.into_inner();
    json(&Page::new(view::Workers::from(&page.workers[..]), &page.next_page_token))
}

async fn job_stream(State(shared): State<Arc<Shared>>, Path(job): Path<String>, parts: Parts) -> Answer {
    shared.admit(&parts, "Watch")?;
    let leading = shared.role.leading()?;
    let job = find(&leading, &job)?;
    let watched = leading.registry.watch(&job).ok_or_else(|| unknown(&job))?;
    let after = header(&parts.headers, LAST_EVENT_ID).and_then(|id| id.parse().ok());
    let permit = shared.follow()?;
    Ok(live::answer(JobStream::new((shared, permit), leading, (job, watched), after.unwrap_or(0))))
}

async fn overview_stream(State(shared): State<Arc<Shared>>, parts: Parts) -> Answer {
    for method in ["Watch", "ListWorkers"] {
        shared.admit(&parts, method)?;
    }
    let leading = shared.role.leading()?;
    let permit = shared.follow()?;
    Ok(live::answer(OverviewStream::new((shared, permit), leading, parts)))
}

async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

#[cfg(test)]
mod tests;
