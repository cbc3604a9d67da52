//! The HTTP API: jobs, their events, workers, the cluster and reports as JSON under `/api/v1`, live by server-sent events;
//! the submission and the cancellation of jobs; and the web page that shows them. Each request of the API needs the roles of
//! the method of gRPC that answers it (`jobs`); a report, which opens a URL of the client, those of a submission.
//!
//! `live` streams changes to `followers`, `query`, `report_query` and `submission_body` have the parameters, `problem` is a
//! refused request, `web_guard` refuses pages of other sites, `page` has the files of the web page. Not here: the JSON of
//! jobs, events, workers and reports (`view`), connections and TLS (`tally_common::http`), roles
//! (`tally_common::security`).

mod followers;
mod live;
mod page;
mod problem;
mod query;
mod report_query;
mod submission_body;
mod web_guard;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use futures::future::BoxFuture;
use serde::Serialize;
use tally_common::http::Site;
use tally_common::secrets;
use tally_common::security::{Peer, Reason, Security};
use tally_proto::v1::jobs_server::Jobs;
use tally_proto::{JobId, v1};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{self, Method, StatusCode};

use super::jobs::{JobsService, ask, find, unknown};
use super::{CoordinatorRole, Leading};
use crate::attempt_log::AttemptPage;
use crate::driver::DriverInput;
use crate::objectives::report::Report;
use crate::view;
use followers::Followers;
use live::{JobStream, OverviewStream, Stream};
use problem::Problem;
use query::{JobName, Query};
use report_query::ReportQuery;
use submission_body::SubmissionBody;
pub use web_guard::{HostName, InvalidHostName};
use web_guard::{WebGuard, check_change};

/// The description of the API.
const OPENAPI: &str = include_str!("openapi.json");
/// The number of the last event that a client of a stream received.
const LAST_EVENT_ID: &str = "last-event-id";
/// The headers of JSON: no other site can load it into a page of its own.
const JSON_HEADERS: [(HeaderName, &str); 4] = [
    (CONTENT_TYPE, "application/json"),
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The methods that need a connection over which jobs may be changed.
const GUARDED: [&str; 2] = ["Submit", "Cancel"];
/// The most reports that are read at a time. Each opens up to 16 days at once.
const MAX_REPORTS: usize = 2;

/// A method, a path, and what answers it.
type Route = (Method, &'static str, fn() -> MethodRouter<Arc<Shared>>);

/// All requests of the API.
const ROUTES: [Route; 12] = [
    (Method::GET, "/api/v1/cluster", || get(cluster)),
    (Method::GET, "/api/v1/jobs", || get(jobs)),
    (Method::POST, "/api/v1/jobs", || post(submit)),
    (Method::GET, "/api/v1/jobs/{job}", || get(job)),
    (Method::GET, "/api/v1/jobs/{job}/events", || get(events)),
    (Method::GET, "/api/v1/jobs/{job}/attempts", || get(attempts)),
    (Method::GET, "/api/v1/jobs/{job}/stream", || get(job_stream)),
    (Method::POST, "/api/v1/jobs/{job}/cancel", || post(cancel)),
    (Method::GET, "/api/v1/workers", || get(workers)),
    (Method::GET, "/api/v1/objectives", || get(objectives)),
    (Method::GET, "/api/v1/stream", || get(overview_stream)),
    (Method::GET, "/api/v1/openapi.json", || get(openapi)),
];

/// The API of a coordinator.
pub struct HttpApi {
    router: Router,
}

/// What all requests need.
struct Shared {
    role: Arc<CoordinatorRole>,
    jobs: JobsService,
    security: Arc<Security>,
    guard: WebGuard,
    followers: Followers,
    /// Permits to read reports.
    reports: Semaphore,
}

type Answer = Result<Response, Problem>;

impl HttpApi {
    /// The API of a coordinator in that role, which clients reach by these host names, too.
    pub fn new(role: Arc<CoordinatorRole>, security: Arc<Security>, hosts: Vec<HostName>) -> Self {
        let shared = Shared {
            jobs: JobsService::new(role.clone()),
            role,
            security,
            guard: WebGuard(hosts),
            followers: Followers::default(),
            reports: Semaphore::new(MAX_REPORTS),
        };
        // Methods of one path are merged.
        let router =
            ROUTES.iter().fold(Router::new(), |router, (_, path, handler)| router.route(path, handler()));
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
        let guarded = GUARDED.contains(&method);
        let accepted =
            self.guard.check(parts).and_then(|()| if guarded { check_change(parts) } else { Ok(()) });
        accepted.inspect_err(|problem| self.note_refusal(parts, problem))?;
        self.security.admit(&parts.extensions, &parts.headers, &path_of(method)).map_err(Problem::from)
    }

    /// Counts a request that is refused before its identity is checked, and logs it.
    fn note_refusal(&self, parts: &Parts, problem: &Problem) {
        if let Some(suppressed) = self.security.refusals().count(Reason::Forbidden, 1) {
            let peer =
                parts.extensions.get::<Peer>().map(|peer| peer.address.to_string()).unwrap_or_default();
            let (reason, why) = (Reason::Forbidden.name(), problem.message());
            tracing::warn!(suppressed, peer, reason, why, "a request over HTTP was refused");
        }
    }

    fn permits(&self, parts: &Parts, method: &str) -> bool {
        self.security.permits(&parts.extensions, &parts.headers, &path_of(method))
    }

    /// The ended attempts of a job with larger numbers.
    async fn attempts(&self, leading: &Leading, job: &JobId, after: u64) -> Result<AttemptPage, Problem> {
        let live = ask(leading, |reply| DriverInput::Attempts(job.clone(), after, reply)).await?;
        Ok(live.or_else(|| leading.registry.attempts(job, after)).unwrap_or_default())
    }
}

/// The path of a method of the service of jobs over gRPC, which names the roles that it needs.
fn path_of(method: &str) -> String {
    format!("/{}/{method}", v1::jobs_server::SERVICE_NAME)
}

/// An object, with its version.
fn text(value: &impl Serialize) -> Result<String, Problem> {
    let text = view::json(value).map_err(|error| Problem::failed(error.to_string()))?;
    Ok(secrets::cut_output(&text).into_owned())
}

fn json(value: &impl Serialize) -> Answer {
    Ok((JSON_HEADERS, text(value)?).into_response())
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
    /// Submit jobs, and read reports.
    submit: bool,
    cancel: bool,
}

fn cluster_of(shared: &Shared, parts: &Parts) -> Result<Cluster, Problem> {
    Ok(Cluster {
        version: env!("CARGO_PKG_VERSION"),
        epoch: shared.role.leading()?.epoch,
        accepting_jobs: shared.role.accepting().is_ok(),
        permissions: Permissions {
            view: shared.permits(parts, "List"),
            submit: check_change(parts).is_ok() && shared.permits(parts, "Submit"),
            cancel: check_change(parts).is_ok() && shared.permits(parts, "Cancel"),
        },
    })
}

async fn cluster(State(shared): State<Arc<Shared>>, parts: Parts) -> Answer {
    shared.admit(&parts, "List")?;
    Query::of(&parts, &[])?;
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
    let page = shared.jobs.list(Query::page(&parts)?).await?.into_inner();
    json(&Page::new(view::Jobs::from(&page.jobs[..]), &page.next_page_token))
}

async fn submit(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    shared.admit(&parts, "Submit")?;
    Query::of(&parts, &[])?;
    let spec = SubmissionBody::read(&parts, body).await?.spec()?;
    let asked = tonic::Request::new(v1::SubmitRequest { spec: Some(spec) });
    let v1::SubmitReply { job, existing } = shared.jobs.submit(asked).await?.into_inner();
    let location = [(LOCATION, format!("/api/v1/jobs/{job}"))];
    let status = shared.jobs.get(tonic::Request::new(v1::JobRequest { job })).await?.into_inner();
    let code = if existing { StatusCode::OK } else { StatusCode::CREATED };
    Ok((code, JSON_HEADERS, location, text(&view::Job::from(&status))?).into_response())
}

async fn objectives(State(shared): State<Arc<Shared>>, parts: Parts) -> Answer {
    // The coordinator opens the output with its own credentials, as for a job.
    shared.admit(&parts, "Submit")?;
    let ReportQuery { dataset, output, dates, baseline } = ReportQuery::of(&parts).await?;
    shared.role.leading()?;
    let busy = |_| {
        Problem::busy(format!("{MAX_REPORTS} reports are being read, which is the limit: try again later"))
    };
    let _permit = shared.reports.try_acquire().map_err(busy)?;
    let report = Report::read(&*dataset, &output, &dates, baseline).await;
    let report = report.map_err(|why| Problem::invalid(format!("dataset: {why}")))?;
    json(&view::Report::from(&report))
}

async fn job(State(shared): State<Arc<Shared>>, JobName(job): JobName, parts: Parts) -> Answer {
    shared.admit(&parts, "Get")?;
    Query::of(&parts, &[])?;
    let status = shared.jobs.get(tonic::Request::new(v1::JobRequest { job })).await?.into_inner();
    json(&view::Job::from(&status))
}

async fn events(State(shared): State<Arc<Shared>>, JobName(job): JobName, parts: Parts) -> Answer {
    shared.admit(&parts, "Events")?;
    let asked = v1::EventsRequest { job, after: Query::of(&parts, &["after"])?.number("after")? };
    let page = shared.jobs.events(tonic::Request::new(asked)).await?.into_inner();
    json(&view::Events::from(&page))
}

async fn attempts(State(shared): State<Arc<Shared>>, JobName(job): JobName, parts: Parts) -> Answer {
    shared.admit(&parts, "Events")?;
    let after = Query::of(&parts, &["after"])?.number("after")?;
    let leading = shared.role.leading()?;
    let job = find(&leading, &job)?;
    let page = shared.attempts(&leading, &job, after).await?;
    json(&view::Attempts::new(job.as_str(), &page))
}

async fn cancel(State(shared): State<Arc<Shared>>, JobName(job): JobName, parts: Parts) -> Answer {
    shared.admit(&parts, "Cancel")?;
    Query::of(&parts, &[])?;
    let status = shared.jobs.cancel(tonic::Request::new(v1::JobRequest { job })).await?.into_inner();
    json(&view::Job::from(&status))
}

async fn workers(State(shared): State<Arc<Shared>>, parts: Parts) -> Answer {
    shared.admit(&parts, "ListWorkers")?;
    let page = shared.jobs.list_workers(Query::page(&parts)?).await?.into_inner();
    json(&Page::new(view::Workers::from(&page.workers[..]), &page.next_page_token))
}

async fn job_stream(State(shared): State<Arc<Shared>>, JobName(job): JobName, parts: Parts) -> Answer {
    shared.admit(&parts, "Watch")?;
    Query::of(&parts, &[])?;
    let leading = shared.role.leading()?;
    let job = find(&leading, &job)?;
    let watched = leading.registry.watch(&job).ok_or_else(|| unknown(&job))?;
    let after = parts.headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.parse().ok());
    let stream = Stream::new(shared, leading, parts)?;
    Ok(live::answer(JobStream::new(stream, (job, watched), after.unwrap_or(0))))
}

async fn overview_stream(State(shared): State<Arc<Shared>>, parts: Parts) -> Answer {
    for method in ["Watch", "ListWorkers"] {
        shared.admit(&parts, method)?;
    }
    Query::of(&parts, &[])?;
    let leading = shared.role.leading()?;
    Ok(live::answer(OverviewStream::new(Stream::new(shared, leading, parts)?)))
}

async fn openapi() -> Response {
    (JSON_HEADERS, OPENAPI).into_response()
}

#[cfg(test)]
mod tests;
