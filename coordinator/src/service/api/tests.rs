//! The API on a driver that knows nothing: who may ask, what a refusal looks like, and the streams of ended jobs.
//!
//! Not here: real answers, and TLS (`tests/deploy`).

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::cluster::WorkerInput;
use crate::election::Standing;
use crate::history::Registry;

/// A coordinator that leads, with a job that is done and a driver that knows no job and no worker.
fn leader() -> Arc<CoordinatorRole> {
    let registry = Arc::new(Registry::new(10));
    let job = JobId::parse("20170227-ab").unwrap();
    let mut status =
        v1::JobStatus { job: job.to_string(), submitted_at: 1, ended_at: 2, ..Default::default() };
    status.set_state(v1::JobState::Done);
    registry.add(&job, status);
    let (sender, mut inbox) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(input) = inbox.recv().await {
            match input {
                DriverInput::Describe(_, reply) => drop(reply.send(None)),
                DriverInput::Events(_, _, reply) => drop(reply.send(None)),
                DriverInput::Attempts(_, _, reply) => drop(reply.send(None)),
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
    role.set(Some(Leading { sender, registry, epoch: 7 }));
    role.note(Standing::Lead);
    role
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
    let api = HttpApi::new(role.clone(), Security::plain());
    let response = api.answer(request.body(Body::empty()).unwrap()).await;
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
    for path in
        ["cluster", "jobs", "jobs/latest", "workers", "stream", "jobs/latest/stream", "jobs/latest/events"]
    {
        let asked = request("GET", &format!("/api/v1/{path}"));
        assert_eq!(refused(&standby, asked).await, problem(503, "no_leader"), "{path}");
    }
    assert_eq!(ask(&standby, request("GET", "/api/v1/openapi.json")).await.0, 200);
    let (status, body) = ask(&leader(), request("GET", "/api/v1/cluster")).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["epoch"], &body["permissions"]["cancel"]), (200, &7.into(), &true.into()));
}

#[tokio::test]
async fn a_request_that_is_wrong_is_told_so() {
    let leader = leader();
    let of = async |method: &str, path: &str| refused(&leader, request(method, path)).await;
    assert_eq!(of("GET", "/api/v1/jobs/none").await, problem(404, "not_found"));
    assert_eq!(of("GET", "/api/v1/jobs/a%20b").await, problem(400, "usage"));
    assert_eq!(of("GET", "/api/v1/jobs?page_size=x").await, problem(400, "usage"));
    assert_eq!(of("GET", "/api/v1/jobs?page_token=x").await, problem(400, "usage"));
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

/// A page of another site can send requests through a browser on this machine.
#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let leader = leader();
    let from = |host: &str| {
        http::Request::builder().uri("/api/v1/jobs").header("host", host).extension(Channel::Local)
    };
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1:9090", "[::1]:9090", "[::1]"] {
        assert_eq!(ask(&leader, from(host)).await.0, 200, "{host}");
    }
    for host in ["evil.example", "evil.example:9090", "localhost.evil.example:1", ""] {
        assert_eq!(refused(&leader, from(host)).await, problem(403, "forbidden"), "{host}");
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

#[tokio::test]
async fn followers_are_limited() {
    let role = leader();
    let api = HttpApi::new(role, Security::plain());
    let mut open = vec![];
    for _ in 0..FOLLOWERS {
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
    let api = HttpApi::new(standby, Security::plain());
    let response = api.answer(request("GET", "/").body(Body::empty()).unwrap()).await;
    let policy = response.headers().get("content-security-policy").unwrap().to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
}

/// Every path of the description has an answer of its own, and no other.
#[tokio::test]
async fn the_description_has_the_paths_of_the_api() {
    let description: Value = serde_json::from_str(OPENAPI).unwrap();
    let leader = leader();
    let mut found = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace("{job}", "latest");
            let method = method.to_uppercase();
            // The stream of the cluster has no end.
            if path != "/api/v1/stream" {
                let (status, body) = ask(&leader, request(&method, &path)).await;
                assert!(matches!(status, 200 | 503), "{method} {path}: {status} {body}");
            }
            found.insert(path);
        }
    }
    assert_eq!(found.len(), 10, "{found:?}");
}
