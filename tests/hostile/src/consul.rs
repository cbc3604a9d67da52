//! Responses of Consul: a server of the test sends arbitrary bytes to the real client.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use consul_api_client::{Client, Config, NewSession, SessionId, Which};
use tally_common::discovery::consul::LeaderView;
use tokio::runtime::Runtime;

/// Maximum bytes of a response.
const MAX_BYTES: usize = 1 << 20;

struct Rig {
    runtime: Runtime,
    client: Client,
    answer: Arc<Mutex<Vec<u8>>>,
}

static RIG: LazyLock<Rig> = LazyLock::new(|| Rig::new().expect("a server on loopback"));

impl Rig {
    fn new() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
        let says = answer.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let says = says.clone();
                // Clients may disconnect.
                std::thread::spawn(move || drop(serve(stream, &says)));
            }
        });
        let patience = Duration::from_secs(20);
        let config = Config {
            connect_timeout: patience,
            request_timeout: patience,
            max_answer: MAX_BYTES,
            ..Config::new(url)
        };
        let client = Client::new(&config).map_err(std::io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Rig { runtime, client, answer })
    }
}

/// Answers every request on a connection with the same body.
fn serve(stream: TcpStream, says: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    loop {
        let mut body = 0;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(length) = line.strip_prefix("content-length:") {
                body = length.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                break;
            }
        }
        std::io::copy(&mut std::io::Read::take(&mut requests, body), &mut std::io::sink())?;
        let bytes = says.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let head = format!("HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: {}\r\n\r\n", bytes.len());
        answers.write_all(&[head.as_bytes(), &bytes].concat())?;
    }
}

/// Uses the bytes as the response to each kind of request.
pub fn answer(bytes: &[u8]) {
    let rig = &*RIG;
    bytes.clone_into(&mut rig.answer.lock().unwrap_or_else(PoisonError::into_inner));
    let client = &rig.client;
    let session = SessionId::parse("01234567-89ab-cdef-0123-456789abcdef").expect("a session's id");
    rig.runtime.block_on(async {
        if let Ok(pair) = client.kv().get("tally/leader").await {
            drop(LeaderView::of(pair));
        }
        drop(client.kv().list("tally/").await);
        drop(client.kv().acquire("tally/leader", "me", &session).await);
        drop(client.sessions().create(&NewSession::default()).await);
        drop(client.sessions().renew(&session).await);
        drop(client.health().service("tally-worker", Which::All).await);
        drop(client.agent().node().await);
        drop(client.agent().checks("tally-worker").await);
        drop(client.leader().await);
    });
}
