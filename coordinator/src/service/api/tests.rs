//! The API on a driver that knows nothing: who may ask, what a refusal looks like, and the streams of ended jobs.
//!
//! Not here: real answers, and TLS (`tests/deploy`).

use std::collections::BTreeSet;

use futures::StreamExt;
use serde_json::Value;
use tally_common::http::Channel;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::cluster::WorkerInput;
use crate::driver::{Accepted, Refusal, Submit};
use crate::election::Standing;
use crate::history::Registry;

/// A coordinator that leads, with a job that is done and a driver that knows no job and no worker.
fn leader() -> Arc<CoordinatorRole> {
    leader_with(v1::JobState::Done).0
}

fn job() -> JobId {
    JobId::parse("20170227-ab").unwrap()
}

/// The answer of the driver to a submission, by its date: the job is new, runs already, or is refused.
fn submitted(submit: Submit) {
    let Submit { spec, accepted, .. } = submit;
    let answer = match spec.date.as_str() {
        "20170227" => Ok(Accepted { job: job(), existing: false }),
        "20170228" => Ok(Accepted { job: job(), existing: true }),
        "20170301" => Err(Refusal::OtherInputs { job: job(), date: spec.date }),
        _ => Err(Refusal::Full(32)),
    };
    drop(accepted.send(answer));
}

/// The same with a job in that state, the list of jobs, and the driver.
fn leader_with(state: v1::JobState) -> (Arc<CoordinatorRole>, Arc<Registry>, JoinHandle<()>) {
    let registry = Arc::new(Registry::new(10));
    let ended_at = if state == v1::JobState::Done { 2 } else { 0 };
    let mut status =
        v1::JobStatus { job: job().to_string(), submitted_at: 1, ended_at, ..Default::default() };
    status.set_state(state);
    registry.add(&job(), status);
    let (sender, mut inbox) = mpsc::channel(8);
    let driver = tokio::spawn(async move {
        while let Some(input) = inbox.recv().await {
            match input {
                DriverInput::Describe(_, reply) => drop(reply.send(None)),
                DriverInput::Events(_, _, reply) => drop(reply.send(None)),
                DriverInput::Attempts(_, _, reply) => drop(reply.send(None)),
                DriverInput::Cancel(_, reply) => drop(reply.send(())),
                DriverInput::Submit(submit) => submitted(*submit),
                DriverInput::Worker(input) => {
                    if let WorkerInput::List(_, _, reply) = *input {
                        drop(reply.send((vec![], false)));
                    }
                }
                _ => {}
            }
        }
    });
    let role = Arc::new(CoordinatorRole::default());
    role.set(Some(Leading { sender, registry: registry.clone(), epoch: 7 }));
    role.note(Standing::Lead);
    (role, registry, driver)
}

fn request(method: &str, path: &str) -> http::request::Builder {
    http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost:9090")
        .extension(Channel::Local)
}

/// The status and the body of an answer.
async fn ask(role: &Arc<CoordinatorRole>, request: http::request::Builder) -> (u16, String) {
    send(role, request, String::new()).await
}

/// The same for a request with a body.
async fn send(role: &Arc<CoordinatorRole>, request: http::request::Builder, body: String) -> (u16, String) {
    let api = HttpApi::new(role.clone(), Security::plain(), vec!["tally.example.org".parse().unwrap()]);
    let response = api.answer(request.body(Body::new(body)).unwrap()).await;
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(axum::body::Body::new(response.into_body()), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// The status and the kind of a problem.
async fn refused(role: &Arc<CoordinatorRole>, request: http::request::Builder) -> (u16, String) {
    let (status, body) = ask(role, request).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    (status, body["error"]["kind"].as_str().unwrap_or_default().into())
}

fn problem(status: u16, kind: &str) -> (u16, String) {
    (status, kind.into())
}

#[tokio::test]
async fn only_the_leader_answers() {
    let standby = Arc::new(CoordinatorRole::default());
    let report = "objectives?output=/none&from=20170227&to=20170227";
    for path in [
        "cluster",
        "jobs",
        "jobs/latest",
        "workers",
        "stream",
        "jobs/latest/stream",
        "jobs/latest/events",
        report,
    ] {
        let asked = request("GET", &format!("/api/v1/{path}"));
        assert_eq!(refused(&standby, asked).await, problem(503, "no_leader"), "{path}");
    }
    assert_eq!(ask(&standby, request("GET", "/api/v1/openapi.json")).await.0, 200);
    let (status, body) = ask(&leader(), request("GET", "/api/v1/cluster")).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["epoch"], &body["permissions"]["cancel"]), (200, &7.into(), &true.into()));
}

#[tokio::test]
async fn invalid_requests_are_refused() {
    let leader = leader();
    let of = async |method: &str, path: &str| refused(&leader, request(method, path)).await;
    assert_eq!(of("GET", "/api/v1/jobs/none").await, problem(404, "not_found"));
    assert_eq!(of("GET", "/api/v1/jobs/a%20b").await, problem(400, "usage"));
    assert_eq!(of("GET", "/api/v1/jobs?page_size=x").await, problem(400, "usage"));
    assert_eq!(of("GET", "/api/v1/jobs?page_token=x").await, problem(400, "usage"));
    for query in
        ["page_size", "page_size=201", "page_size=1&page_size=1", "pagesize=1", "%00=1", "page_size=%FF"]
    {
        assert_eq!(of("GET", &format!("/api/v1/workers?{query}")).await, problem(400, "usage"), "{query}");
    }
    assert_eq!(ask(&leader, request("GET", "/api/v1/jobs?page%5Fsize=%31&page_token=")).await.0, 200);
    assert_eq!(of("GET", "/api/v1/cluster?verbose=1").await, problem(400, "usage"));
    assert_eq!(of("GET", "/api/v1/jobs/%FF").await, problem(400, "usage"));
    assert_eq!(of("GET", "/api/v1/jobs/%FF/stream").await, problem(400, "usage"));
    assert_eq!(of("GET", "/api/v2").await, problem(404, "not_found"));
    assert_eq!(of("GET", "/api/v1/jobs/latest/cancel").await, problem(405, "usage"));
    assert_eq!(of("DELETE", "/api/v1/jobs/latest").await, problem(405, "usage"));
}

#[tokio::test]
async fn plain_text_is_refused_where_grpc_refuses_it() {
    let leader = leader();
    let exposed = request("GET", "/api/v1/jobs").extension(Channel::Exposed);
    assert_eq!(refused(&leader, exposed).await, problem(403, "forbidden"));
    let trusted =
        http::Request::builder().uri("/api/v1/jobs").header("host", "tally").extension(Channel::Trusted);
    assert_eq!(ask(&leader, trusted).await.0, 200);
}

/// The port of health and metrics is open to clients that cannot reach the port of gRPC.
#[tokio::test]
async fn plain_text_on_a_network_cancels_nothing() {
    let leader = leader();
    let cancel = |channel| request("POST", "/api/v1/jobs/none/cancel").extension(channel);
    for (channel, may) in [(Channel::Trusted, false), (Channel::Local, true), (Channel::Tls, true)] {
        let expected = if may { problem(404, "not_found") } else { problem(403, "forbidden") };
        assert_eq!(refused(&leader, cancel(channel)).await, expected, "{channel:?}");
        let (_, body) = ask(&leader, request("GET", "/api/v1/cluster").extension(channel)).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["permissions"]["cancel"], may, "{channel:?}");
    }
    let (_, body) = ask(&leader, cancel(Channel::Trusted)).await;
    assert!(body.contains("tally cancel"), "{body}");
    // Like every refusal, it is counted.
    let security = Security::plain();
    let api = HttpApi::new(leader, security.clone(), vec![]);
    api.answer(cancel(Channel::Trusted).body(Body::empty()).unwrap()).await;
    assert_eq!(security.refusals().of(Reason::Forbidden), 1);
}

fn submission(date: &str, output: &str) -> String {
    format!(
        r#"{{"date":"{date}","tables":{{"addons":"/none/a","main_summary":"/none/m"}},"output":"{output}"}}"#
    )
}

fn submit_request() -> http::request::Builder {
    request("POST", "/api/v1/jobs").header("content-type", "application/json")
}

#[tokio::test]
async fn a_submission_is_answered_with_the_job_or_the_reason() {
    let leader = leader();
    let submit = async |body: String| {
        let (status, body) = send(&leader, submit_request(), body).await;
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    for (date, expected) in [("20170227", 201), ("20170228", 200)] {
        let (status, body) = submit(submission(date, "/none/out")).await;
        assert_eq!((status, &body["job_id"]), (expected, &job().to_string().into()), "{body}");
    }
    for (date, output, expected, kind, words) in [
        ("20170301", "/none/out", 409, "conflict", "wait for it, or cancel it"),
        ("20170302", "/none/out", 429, "too_many_requests", "the cluster runs 32 jobs"),
        ("20170230", "/none/out", 400, "usage", "is not a date"),
        ("20170227", "out", 400, "usage", "neither an absolute path nor a URL"),
        ("20170227", "/none/a/out", 400, "usage", "overlap"),
        ("20170227", "s3://user:pass0word@bucket/out", 400, "usage", "credentials"),
    ] {
        let (status, body) = submit(submission(date, output)).await;
        let message = body["error"]["message"].as_str().unwrap();
        assert_eq!((status, &body["error"]["kind"]), (expected, &kind.into()), "{body}");
        assert!(message.contains(words) && !body.to_string().contains("pass0word"), "{body}");
    }
    assert_eq!(submit("{}".into()).await.0, 400);
    assert_eq!(submit(" ".repeat(3 << 20)).await.0, 413);
    // What a form of another site can send.
    let form = request("POST", "/api/v1/jobs").header("content-type", "text/plain");
    assert_eq!(send(&leader, form, submission("20170227", "/none/out")).await.0, 415);
    let with_query = request("POST", "/api/v1/jobs?date=20170227").header("content-type", "application/json");
    assert_eq!(refused(&leader, with_query).await, problem(400, "usage"));
}

/// A report opens a URL of the client, so it needs what a submission needs.
#[tokio::test]
async fn jobs_are_not_submitted_and_outputs_not_opened_in_plain_text_on_a_network() {
    let leader = leader();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().display();
    let path = format!("/api/v1/objectives?output={output}&from=20170227&to=20170228");
    for (channel, may) in [(Channel::Trusted, false), (Channel::Local, true), (Channel::Tls, true)] {
        let submit = submit_request().extension(channel);
        let (status, _) = send(&leader, submit, submission("20170227", "/none/out")).await;
        assert_eq!(status, if may { 201 } else { 403 }, "{channel:?}");
        let (status, body) = ask(&leader, request("GET", &path).extension(channel)).await;
        assert_eq!(status, if may { 200 } else { 403 }, "{channel:?}: {body}");
        let (_, body) = ask(&leader, request("GET", "/api/v1/cluster").extension(channel)).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["permissions"]["submit"], may, "{channel:?}");
    }
    let (_, body) = ask(&leader, request("GET", &path)).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let days = body["days"].as_array().unwrap();
    assert!(days.len() == 2 && days.iter().all(|day| day["state"] == "missing"), "{body}");
    assert_eq!(body["baseline"]["date"], "20170227");
    let second = format!("{path}&dataset=addon_aggregates_v2");
    let (status, body) = ask(&leader, request("GET", &second)).await;
    assert!(status == 400 && body.contains("has no objectives"), "{body}");
    assert_eq!(refused(&leader, request("GET", "/api/v1/objectives")).await, problem(400, "usage"));
}

/// A page of another site can send requests through a browser on this machine.
#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let leader = leader();
    let from = |host: &[u8], channel: Channel| {
        http::Request::builder().uri("/api/v1/jobs").header("host", host).extension(channel)
    };
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1:9090", "[::1]:9090", "[::1]", "Tally.example.org:80"]
    {
        for channel in [Channel::Local, Channel::Trusted] {
            assert_eq!(ask(&leader, from(host.as_bytes(), channel)).await.0, 200, "{host}");
        }
    }
    for host in ["evil.example", "evil.example:9090", "localhost.evil.example:1", "", "\u{e9}"] {
        for channel in [Channel::Local, Channel::Trusted] {
            let answer = refused(&leader, from(host.as_bytes(), channel)).await;
            assert_eq!(answer, problem(403, "forbidden"), "{host}");
        }
    }
    for host in ["tally-coordinator", "tally-web.telemetry.svc:9090", "a.b.svc.cluster.local"] {
        assert_eq!(ask(&leader, from(host.as_bytes(), Channel::Trusted)).await.0, 200, "{host}");
        let answer = refused(&leader, from(host.as_bytes(), Channel::Local)).await;
        assert_eq!(answer, problem(403, "forbidden"), "{host}");
    }
    // Two hosts, of which one is known.
    let two = from(b"localhost", Channel::Local).header("host", "evil.example");
    assert_eq!(refused(&leader, two).await, problem(403, "forbidden"));
    for site in ["cross-site", "same-site"] {
        let read = request("GET", "/api/v1/jobs").header("sec-fetch-site", site);
        assert_eq!(refused(&leader, read).await, problem(403, "forbidden"), "{site}");
    }
    let cancel = || request("POST", "/api/v1/jobs/none/cancel");
    let foreign = [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")];
    for (name, value) in foreign {
        assert_eq!(
            refused(&leader, cancel().header(name, value)).await,
            problem(403, "forbidden"),
            "{value}"
        );
    }
    let own = cancel().header("origin", "http://localhost:9090").header("sec-fetch-site", "same-origin");
    assert_eq!(refused(&leader, own).await, problem(404, "not_found"));
}

#[tokio::test]
async fn the_stream_of_an_ended_job_ends() {
    let (status, body) = ask(&leader(), request("GET", "/api/v1/jobs/latest/stream")).await;
    assert_eq!(status, 200);
    assert!(body.starts_with("retry: 1000\n\nevent: job\ndata: {\"schema_version\":1,"), "{body}");
    assert!(body.ends_with("\n\nevent: end\ndata: {}\n\n"), "{body}");
}

/// The parts of a stream's body, each read when it is asked for.
async fn stream(role: &Arc<CoordinatorRole>, path: &str) -> impl futures::Stream<Item = String> + Unpin {
    let api = HttpApi::new(role.clone(), Security::plain(), vec![]);
    let response = api.answer(request("GET", path).body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
    let parts = axum::body::Body::new(response.into_body()).into_data_stream();
    parts.map(|part| String::from_utf8(part.unwrap().to_vec()).unwrap())
}

/// States are not collected for a client that does not read.
#[tokio::test]
async fn a_slow_client_skips_states() {
    let (role, registry, _driver) = leader_with(v1::JobState::Running);
    let mut parts = stream(&role, "/api/v1/jobs/latest/stream").await;
    assert_eq!(parts.next().await.unwrap().matches("event: job\n").count(), 1);
    let change = |change: &dyn Fn(&mut v1::JobStatus)| {
        registry.update(&job(), |status| {
            change(status);
            true
        });
    };
    for rows_done in 1..=1000 {
        change(&|status| status.rows_done = rows_done);
        tokio::task::yield_now().await;
    }
    let next = parts.next().await.unwrap();
    assert_eq!(next.matches("event: job\n").count(), 1, "{next}");
    assert!(next.contains("\"rows_done\":1000,"), "{next}");
    change(&|status| status.set_state(v1::JobState::Done));
    let last = parts.next().await.unwrap();
    assert!(last.matches("event: ").count() == 2 && last.ends_with("event: end\ndata: {}\n\n"), "{last}");
    assert_eq!(parts.next().await, None);
}

/// The driver's inbox closes with the term.
#[tokio::test]
async fn a_stream_ends_with_one_failure_when_the_coordinator_steps_down() {
    for path in ["/api/v1/stream", "/api/v1/jobs/latest/stream"] {
        let (role, _registry, driver) = leader_with(v1::JobState::Running);
        let mut parts = stream(&role, path).await;
        assert!(!parts.next().await.unwrap().contains("event: failure"));
        driver.abort();
        let rest: Vec<String> = parts.collect().await;
        let text = rest.concat();
        assert_eq!(text.matches("event: failure\n").count(), 1, "{path}: {text}");
        assert!(rest.last().unwrap().starts_with("event: failure\n"), "{path}: {text}");
        assert!(text.contains("\"kind\":\"no_leader\""), "{path}: {text}");
    }
}

#[tokio::test]
async fn streams_are_limited() {
    let role = leader();
    let api = HttpApi::new(role, Security::plain(), vec![]);
    let mut open = vec![];
    for _ in 0..followers::MAX_STREAMS {
        let asked = request("GET", "/api/v1/stream").body(Body::empty()).unwrap();
        open.push(api.answer(asked).await);
    }
    let more = || request("GET", "/api/v1/stream").body(Body::empty()).unwrap();
    assert!(open.iter().all(|response| response.status() == 200));
    assert_eq!(api.answer(more()).await.status(), 429);
    open.pop();
    assert_eq!(api.answer(more()).await.status(), 200);
}

/// They contain nothing of the cluster, and a browser with a page of plain text must be able to say what is missing.
#[tokio::test]
async fn the_files_of_the_page_are_served_to_all() {
    let standby = Arc::new(CoordinatorRole::default());
    for page::File { path, .. } in &page::FILES {
        let (status, body) = ask(&standby, request("GET", path).extension(Channel::Exposed)).await;
        assert!(status == 200 && !body.is_empty(), "{path}: {status}");
    }
    let api = HttpApi::new(standby, Security::plain(), vec![]);
    let response = api.answer(request("GET", "/").body(Body::empty()).unwrap()).await;
    assert_eq!(
        response.headers()["content-security-policy"],
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
}

/// The description has the paths and methods of the API and no other, and each has an answer.
#[tokio::test]
async fn the_description_has_the_paths_of_the_api() {
    let description: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut described = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        described
            .extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    let routes: BTreeSet<_> =
        ROUTES.iter().map(|(method, path, _)| (method.to_string(), (*path).to_string())).collect();
    assert_eq!(described, routes);
    let api = HttpApi::new(leader(), Security::plain(), vec![]);
    for (method, path) in &routes {
        let named = match path.as_str() {
            "/api/v1/objectives" => format!("{path}?output=/none/out&from=20170227&to=20170227"),
            _ => path.replace("{job}", "latest"),
        };
        let asked = request(method, &named).header("content-type", "application/json");
        let asked = asked.body(Body::new(submission("20170227", "/none/out"))).unwrap();
        let response = api.answer(asked).await;
        let submits = method == "POST" && path == "/api/v1/jobs";
        assert_eq!(response.status(), if submits { 201 } else { 200 }, "{method} {path}");
        let headers = response.headers();
        if headers["content-type"] == "application/json" {
            assert_eq!(headers["cross-origin-resource-policy"], "same-origin", "{method} {path}");
            assert_eq!(headers["x-content-type-options"], "nosniff", "{method} {path}");
        }
    }
}
