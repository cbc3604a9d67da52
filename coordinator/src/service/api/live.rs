//! Server-sent events: the state of a job, or of all jobs and workers, whenever it changes.
//!
//! A state is read when the connection has room for it, so that a slow client skips states instead of collecting them. A
//! stream ends after some minutes, and a client connects again with a token that is checked again.
//! Not here: the fields of the JSON (`view`).

use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tally_proto::v1::jobs_server::Jobs;
use tally_proto::{JobId, v1};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;
use tonic::codegen::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tonic::codegen::http::request::Parts;

use super::followers::Follower;
use super::problem::Problem;
use super::{Page, Shared, cluster_of, text};
use crate::history::is_over;
use crate::service::jobs::pause;
use crate::service::{Leading, stepping_down};
use crate::view;

/// The shortest time between two states of a job.
const PACE: Duration = Duration::from_millis(500);
/// The longest time between two states: times pass also while nothing changes. That of all jobs and workers is always this.
const REPEAT: Duration = Duration::from_secs(1);
/// The longest duration of a stream, less than that of a connection.
const MAX_STREAM_DURATION: Duration = Duration::from_secs(240);
/// The newest jobs, and the workers, that the stream of the cluster shows.
const MAX_JOBS: u32 = 50;
const MAX_WORKERS: u32 = 200;
/// The pause of a browser before it connects again, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";

/// A source of events.
pub(super) trait Source: Send + 'static {
    /// Waits for the next state: the text of its events, or `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<String>> + Send;
}

/// The answer that sends the events of a source.
pub(super) fn answer(source: impl Source) -> Response {
    let events = stream::unfold((source, true), |(mut source, first)| async move {
        let text = source.next().await?;
        let text = if first { format!("{RETRY}{text}") } else { text };
        Some((Ok::<_, Infallible>(Bytes::from(text)), (source, false)))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(events)).into_response()
}

/// An event. `data` is one line of JSON with its line break.
fn event(name: &str, id: Option<u64>, data: &str) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n")
}

fn failure(problem: impl Into<Problem>) -> String {
    event("failure", None, &problem.into().text())
}

/// What all streams have.
pub(super) struct Stream {
    shared: Arc<Shared>,
    _place: Follower,
    leading: Leading,
    /// The request. Its permissions are checked again at each state, and shown.
    parts: Parts,
    until: Instant,
    first: bool,
    over: bool,
}

impl Stream {
    /// The stream of a request, if there is a place for it.
    pub(super) fn new(shared: Arc<Shared>, leading: Leading, parts: Parts) -> Result<Self, Problem> {
        let place = shared.followers.admit(&parts)?;
        let until = Instant::now() + MAX_STREAM_DURATION;
        Ok(Stream { shared, _place: place, leading, parts, until, first: true, over: false })
    }

    /// Ends the stream of a client whose token was revoked.
    fn check(&self) -> Result<(), Problem> {
        match self.shared.permits(&self.parts, "Watch") {
            true => Ok(()),
            false => Err(Status::unauthenticated("the token or certificate is no longer accepted").into()),
        }
    }

    /// Waits for `due`, except for the first state. Returns the last event if the stream ends before.
    async fn wait(&mut self, due: impl Future<Output = ()>) -> Result<(), String> {
        if std::mem::take(&mut self.first) {
            return Ok(());
        }
        let end = tokio::select! {
            () = due => return Ok(()),
            () = self.leading.sender.closed() => failure(stepping_down()),
            () = sleep_until(self.until) => ": connect again\n\n".into(),
        };
        self.over = true;
        Err(end)
    }

    /// The events, or the failure, which ends the stream.
    fn shown(&mut self, events: Result<String, Problem>) -> String {
        events.unwrap_or_else(|problem| {
            self.over = true;
            failure(problem)
        })
    }
}

/// The states and the events of a job, until it ends.
pub(super) struct JobStream {
    stream: Stream,
    job: JobId,
    watched: watch::Receiver<v1::JobStatus>,
    /// The numbers of the last event and of the last ended attempt that were sent.
    after: u64,
    after_attempt: u64,
}

impl JobStream {
    /// The stream of a job, with events after that number.
    pub(super) fn new(
        stream: Stream,
        (job, watched): (JobId, watch::Receiver<v1::JobStatus>),
        after: u64,
    ) -> Self {
        JobStream { stream, job, watched, after, after_attempt: 0 }
    }

    async fn read(&mut self) -> Result<String, Problem> {
        self.stream.check()?;
        let service = &self.stream.shared.jobs;
        let name = self.job.to_string();
        // The status first: after the end of a job no event follows.
        self.watched.mark_unchanged();
        let status = service.get(tonic::Request::new(v1::JobRequest { job: name.clone() })).await?;
        let status = status.into_inner();
        let asked = v1::EventsRequest { job: name, after: self.after };
        let page = service.events(tonic::Request::new(asked)).await?.into_inner();
        let mut out = String::new();
        if let Some(last) = page.events.last() {
            self.after = last.number;
            out += &event("events", Some(last.number), &text(&view::Events::from(&page))?);
        }
        let attempts =
            self.stream.shared.attempts(&self.stream.leading, &self.job, self.after_attempt).await?;
        if let Some(last) = attempts.attempts.last() {
            self.after_attempt = last.number;
            out += &event("attempts", None, &text(&view::Attempts::new(self.job.as_str(), &attempts))?);
        }
        out += &event("job", None, &text(&view::Job::from(&status))?);
        if is_over(&status) {
            self.stream.over = true;
            out += &event("end", None, "{}\n");
        }
        Ok(out)
    }
}

impl Source for JobStream {
    async fn next(&mut self) -> Option<String> {
        if self.stream.over {
            return None;
        }
        let watched = &mut self.watched;
        let due = async {
            pause(watched, PACE).await;
            tokio::select! {
                // An error means that the job is no longer known, which the next answer tells.
                _ = watched.changed() => {}
                () = sleep(REPEAT.saturating_sub(PACE)) => {}
            }
        };
        if let Err(end) = self.stream.wait(due).await {
            return Some(end);
        }
        let events = self.read().await;
        Some(self.stream.shown(events))
    }
}

/// The states of the cluster, its newest jobs, and its workers. Lists that are as before are not sent again.
pub(super) struct OverviewStream {
    stream: Stream,
    /// Hashes of the states that were sent last.
    sent: [u64; 3],
}

impl OverviewStream {
    /// The stream of the cluster.
    pub(super) fn new(stream: Stream) -> Self {
        OverviewStream { stream, sent: [0; 3] }
    }

    async fn read(&mut self) -> Result<String, Problem> {
        self.stream.check()?;
        let shared = &self.stream.shared;
        let asked = |page_size| tonic::Request::new(v1::ListRequest { page_size, page_token: String::new() });
        let jobs = shared.jobs.list(asked(MAX_JOBS)).await?.into_inner();
        let workers = shared.jobs.list_workers(asked(MAX_WORKERS)).await?.into_inner();
        let states = [
            ("cluster", text(&cluster_of(shared, &self.stream.parts)?)?),
            ("jobs", text(&Page::new(view::Jobs::from(&jobs.jobs[..]), &jobs.next_page_token))?),
            (
                "workers",
                text(&Page::new(view::Workers::from(&workers.workers[..]), &workers.next_page_token))?,
            ),
        ];
        let mut out = String::new();
        for (sent, (name, state)) in self.sent.iter_mut().zip(&states) {
            let hash = hash(state);
            if std::mem::replace(sent, hash) != hash {
                out += &event(name, None, state);
            }
        }
        // A comment, so that a broken connection is noticed.
        Ok(if out.is_empty() { ":\n\n".into() } else { out })
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl Source for OverviewStream {
    async fn next(&mut self) -> Option<String> {
        if self.stream.over {
            return None;
        }
        if let Err(end) = self.stream.wait(sleep(REPEAT)).await {
            return Some(end);
        }
        let events = self.read().await;
        Some(self.stream.shown(events))
    }
}
