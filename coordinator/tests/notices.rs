//! Notices to a real HTTP server: contents, retries, refusals, slow and unreachable receivers, and what the driver is told.
//!
//! Not here: full queues (`notify/queue.rs`), a cluster and the schema of events (`tests/deploy/test_notifications.py`).

// A panic here fails the test.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tally_common::receiver::{PostError, Receiver, ReceiverOptions};
use tally_common::retry::RetryPolicy;
use tally_coordinator::driver::DriverInput;
use tally_coordinator::history::Registry;
use tally_coordinator::notify::delivery::{Content, Deliveries, Sink, Sinks};
use tally_coordinator::notify::lineage::Context;
use tally_proto::{JobId, v1};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// The time limit of each wait.
const DEADLINE: Duration = Duration::from_secs(30);
const QUICK: RetryPolicy = RetryPolicy::fixed(Duration::from_millis(20)).with_max_retries(3);

/// A request: its head in lower case, and its body.
#[derive(Debug, Clone)]
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn has(&self, line: &str) -> bool {
        self.head.lines().any(|found| found == line)
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// An answer: its status and the time before it.
type Answer = (u16, Duration);

/// A server that answers the first requests as it is told, and accepts all others.
#[derive(Clone)]
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Server {
    async fn start(answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server {
            url: format!("http://{}", listener.local_addr().unwrap()),
            requests: Arc::default(),
            answers: Arc::new(Mutex::new(answers.iter().copied().collect())),
        };
        let own = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = own.clone();
                tokio::spawn(async move { server.answer(stream).await });
            }
        });
        server
    }

    async fn answer(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let (mut head, mut line) = (String::new(), String::new());
        while stream.read_line(&mut line).await.unwrap() > 2 {
            head.push_str(&line.trim_end().to_lowercase());
            head.push('\n');
            line.clear();
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        self.requests.lock().push(Request { head, body: String::from_utf8(body).unwrap() });
        let next = self.answers.lock().pop_front();
        let (status, pause) = next.unwrap_or((204, Duration::ZERO));
        sleep(pause).await;
        let answer = format!("HTTP/1.1 {status} x\r\nlocation: /elsewhere\r\nconnection: close\r\n\r\n");
        // The client may have given up.
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    /// The requests, once there are that many.
    async fn after(&self, count: usize) -> Vec<Request> {
        eventually(|| self.requests.lock().len() >= count).await;
        self.requests()
    }
}

async fn eventually(condition: impl Fn() -> bool) {
    let waited = timeout(DEADLINE, async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("in time");
}

fn receiver(url: &str, token_file: Option<std::path::PathBuf>) -> Receiver {
    let options = ReceiverOptions {
        option: "--openlineage-url",
        url: url.into(),
        default_path: "/api/v1/lineage",
        token_file,
        ca_file: None,
    };
    Receiver::open(&options).unwrap()
}

fn sink(content: Content, url: &str) -> Arc<Sink> {
    Arc::new(Sink { content, receiver: receiver(url, None), retry: QUICK })
}

fn lineage(url: &str) -> Arc<Sink> {
    sink(Content::OpenLineage(Context { namespace: "tests".into(), account: None }), url)
}

fn id(number: usize) -> JobId {
    JobId::parse(&format!("20170227-1-1-{number}")).unwrap()
}

fn status(job: &JobId, state: v1::JobState) -> v1::JobStatus {
    let spec = v1::JobSpec {
        dataset: "addon_aggregates".into(),
        date: "20170227".into(),
        inputs: vec!["/day/addons".into(), "/day/main".into()],
        output: "/out".into(),
        ..Default::default()
    };
    let mut status = v1::JobStatus {
        job: job.to_string(),
        spec: Some(spec),
        submitted_at: 1_488_153_600_000,
        ..Default::default()
    };
    status.set_state(state);
    status
}

/// A term with these receivers.
struct Term {
    registry: Arc<Registry>,
    driver: mpsc::Receiver<DriverInput>,
    _deliveries: Deliveries,
}

impl Term {
    fn start(sinks: Vec<Arc<Sink>>) -> Self {
        Self::after(sinks, &[])
    }

    /// A term after another one, which left these ends of jobs.
    fn after(sinks: Vec<Arc<Sink>>, left: &[JobId]) -> Self {
        let registry = Arc::new(Registry::new(100));
        for job in left {
            registry
                .add(job, v1::JobStatus { ended_at: 1_488_153_601_000, ..status(job, v1::JobState::Done) });
        }
        let (sender, driver) = mpsc::channel(16);
        let left = left.to_vec();
        let deliveries = Sinks(sinks).start(&registry, &sender, move |_| left.clone());
        Term { registry, driver, _deliveries: deliveries }
    }

    fn begin(&self, job: &JobId) {
        self.registry.add(job, status(job, v1::JobState::Running));
    }

    fn end(&self, job: &JobId, state: v1::JobState) {
        self.registry.update(job, |shown| {
            shown.set_state(state);
            shown.ended_at = 1_488_153_601_000;
            shown.reason = "why it ended".into();
            true
        });
    }

    /// The next notice that the driver hears of.
    async fn delivered(&mut self) -> (JobId, &'static str) {
        match timeout(DEADLINE, self.driver.recv()).await.expect("in time") {
            Some(DriverInput::Notified(job, receiver)) => (job, receiver),
            _ => panic!("another input"),
        }
    }

    fn has_heard_nothing(&mut self) -> bool {
        self.driver.try_recv().is_err()
    }
}

#[tokio::test]
async fn each_receiver_gets_its_notices_in_order_and_the_driver_hears_of_delivered_ends() {
    let (hook, collector) = (Server::start(&[]).await, Server::start(&[]).await);
    let mut term = Term::start(vec![sink(Content::Webhook, &hook.url), lineage(&collector.url)]);
    assert_eq!(term.registry.receivers(), ["webhook", "openlineage"]);
    let job = id(0);
    term.begin(&job);
    let [start] = &collector.after(1).await[..] else { panic!("one event") };
    assert_eq!(start.json()["eventType"], "START");
    assert!(start.head.starts_with("post /api/v1/lineage http/1.1"), "{}", start.head);
    assert!(term.has_heard_nothing() && hook.requests().is_empty(), "nothing has ended");
    term.end(&job, v1::JobState::Failed);
    let mut heard = [term.delivered().await, term.delivered().await];
    heard.sort();
    assert_eq!(heard, [(job.clone(), "openlineage"), (job.clone(), "webhook")]);
    let events = collector.requests();
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].json()["run"]["facets"]["errorMessage"]["message"], "why it ended");
    assert!(events[1].has(&format!("idempotency-key: {job}:fail")), "{}", events[1].head);
    let [notice] = &hook.requests()[..] else { panic!("one notice") };
    assert!(
        notice.has(&format!("idempotency-key: {job}:failed")) && notice.has("content-type: application/json")
    );
    let body = notice.json();
    assert_eq!((&body["state"], &body["job"]["reason"]), (&"failed".into(), &"why it ended".into()));
    assert_eq!(body["job"]["elapsed_seconds"], 1.0);
}

#[tokio::test]
async fn a_notice_is_tried_again_with_the_same_key_until_it_is_accepted() {
    let fails = [500, 503, 429].map(|status| (status, Duration::ZERO));
    let server = Server::start(&fails).await;
    let mut term = Term::start(vec![sink(Content::Webhook, &server.url)]);
    for job in [id(0), id(1)] {
        term.begin(&job);
        term.end(&job, v1::JobState::Done);
    }
    assert_eq!(term.delivered().await, (id(0), "webhook"));
    assert_eq!(term.delivered().await, (id(1), "webhook"));
    let requests = server.requests();
    assert_eq!(requests.len(), 5);
    for request in &requests[..4] {
        assert!(request.has("idempotency-key: 20170227-1-1-0:done"), "{}", request.head);
        assert_eq!(request.body, requests[0].body);
    }
}

#[tokio::test]
async fn a_notice_that_is_refused_or_fails_too_often_is_given_up_and_the_next_one_follows() {
    let refused = [400, 401, 302].map(|status| (status, Duration::ZERO));
    // The first try and all retries.
    let fails = [(500, Duration::ZERO); 4];
    let server = Server::start(&[&refused[..], &fails].concat()).await;
    let mut term = Term::start(vec![sink(Content::Webhook, &server.url)]);
    for number in 0..5 {
        term.begin(&id(number));
        term.end(&id(number), v1::JobState::Cancelled);
    }
    assert_eq!(
        term.delivered().await,
        (id(4), "webhook"),
        "the others stay in the journal for the next leader"
    );
    let requests = server.requests();
    assert_eq!(requests.len(), 8);
    let of = |number: usize| {
        let key = format!("idempotency-key: {}:cancelled", id(number));
        requests.iter().filter(|request| request.has(&key)).count()
    };
    assert_eq!([0, 1, 2, 3, 4].map(of), [1, 1, 1, 4, 1]);
}

#[tokio::test]
async fn slow_and_unreachable_receivers_delay_neither_jobs_nor_each_other() {
    let slow = Server::start(&[(200, DEADLINE * 10)]).await;
    let quick = Server::start(&[]).await;
    let mut term = Term::start(vec![sink(Content::Webhook, &slow.url), lineage(&quick.url)]);
    let begun = Instant::now();
    for number in 0..200 {
        term.begin(&id(number));
        term.end(&id(number), v1::JobState::Done);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // The registry keeps 100 ended jobs: only their notices can be built, and all of those are delivered.
    let last = async {
        loop {
            let (job, receiver) = term.delivered().await;
            assert_eq!(receiver, "openlineage");
            if job == id(199) {
                return;
            }
        }
    };
    timeout(DEADLINE, last).await.expect("in time");
    assert_eq!(slow.requests().len(), 1);
    // The end of a term ends the delivery.
    drop(term);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut term =
        Term::start(vec![sink(Content::Webhook, &format!("http://{closed}")), lineage(&quick.url)]);
    term.begin(&id(0));
    term.end(&id(0), v1::JobState::Done);
    assert_eq!(term.delivered().await, (id(0), "openlineage"));
}

#[tokio::test]
async fn the_next_leader_sends_the_ends_that_are_left() {
    let server = Server::start(&[(503, Duration::ZERO)]).await;
    let left = [id(0), id(1)];
    let mut term = Term::after(vec![lineage(&server.url)], &left);
    assert_eq!(term.delivered().await, (id(0), "openlineage"));
    assert_eq!(term.delivered().await, (id(1), "openlineage"));
    let sent: Vec<_> = server.requests().iter().map(|request| request.json()["eventType"].clone()).collect();
    assert_eq!(sent, ["COMPLETE"; 3], "jobs of the history do not begin again");
}

#[tokio::test]
async fn a_token_is_read_before_each_request_and_errors_show_no_secret() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let write = |text: &str| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("first-token-of-the-tests\n");
    let receiver = receiver(&format!("{}/hook/s3cretPartOfThePath?x=1", server.url), Some(file.clone()));
    receiver.post("k", "{}".into()).await.unwrap();
    write("second-token-of-the-tests");
    receiver.post("k", "{}".into()).await.unwrap();
    let requests = server.requests();
    assert!(requests[0].has("authorization: bearer first-token-of-the-tests"), "{}", requests[0].head);
    assert!(requests[1].has("authorization: bearer second-token-of-the-tests"), "{}", requests[1].head);
    assert_eq!(receiver.shown(), server.url);
    std::fs::remove_file(&file).unwrap();
    let error = receiver.post("k", "{}".into()).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("token"), "{error}");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nowhere = self::receiver(&format!("http://{closed}/hook/s3cretPartOfThePath"), None);
    let error = nowhere.post("k", "{}".into()).await.unwrap_err();
    assert!(matches!(&error, PostError::Failed(text) if text.starts_with("no connection")), "{error}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}
