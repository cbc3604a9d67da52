//! A fake coordinator: it passes each attach to the test, which decides the response.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tally_proto::v1;
use tally_proto::v1::control_server::{Control, ControlServer};
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Maximum duration of any wait.
pub const DEADLINE: Duration = Duration::from_secs(60);

type Answer = Result<ReceiverStream<Result<v1::CoordinatorMessage, Status>>, Status>;

/// A worker that tries to attach.
pub struct Knock {
    /// Its hello message.
    pub hello: v1::Hello,
    up: Streaming<v1::WorkerMessage>,
    answer: oneshot::Sender<Answer>,
}

/// An attached worker.
pub struct Attached {
    /// Its hello message.
    pub hello: v1::Hello,
    /// The epoch of this leader's messages.
    pub epoch: u64,
    up: Streaming<v1::WorkerMessage>,
    down: mpsc::Sender<Result<v1::CoordinatorMessage, Status>>,
}

struct Service(mpsc::Sender<Knock>);

#[tonic::async_trait]
impl Control for Service {
    type AttachStream = ReceiverStream<Result<v1::CoordinatorMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut up = request.into_inner();
        let first = up.message().await?.and_then(|first| first.message);
        let Some(Up::Hello(hello)) = first else { return Err(Status::internal("no hello")) };
        let (answer, answered) = oneshot::channel();
        let closed = |_| Status::unavailable("the test is over");
        self.0.send(Knock { hello, up, answer }).await.map_err(|e| closed(e.to_string()))?;
        answered.await.map_err(|e| closed(e.to_string()))?.map(Response::new)
    }
}

/// The server.
pub struct Fake {
    /// Where it listens.
    pub address: String,
    knocks: mpsc::Receiver<Knock>,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    /// Listens on a free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (sender, knocks) = mpsc::channel(8);
        let server = Server::builder().add_service(ControlServer::new(Service(sender)));
        let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Ok(Fake { address, knocks, server })
    }

    /// The next worker that tries to attach.
    pub async fn knock(&mut self) -> Result<Knock> {
        timeout(DEADLINE, self.knocks.recv()).await.context("no worker came")?.context("the server ended")
    }

    /// Accepts the next worker in that epoch, with a timeout that never expires in the test.
    pub async fn let_in(&mut self, epoch: u64) -> Result<Attached> {
        self.knock().await?.let_in(epoch, 20, 60_000).await
    }
}

impl Knock {
    /// Refuses it.
    pub fn refuse(self, status: Status) {
        // The worker may have disconnected.
        let _ = self.answer.send(Err(status));
    }

    /// Accepts it.
    pub async fn let_in(self, epoch: u64, heartbeat_millis: u64, timeout_millis: u64) -> Result<Attached> {
        let (down, messages) = mpsc::channel(16);
        let attached = Attached { hello: self.hello, epoch, up: self.up, down };
        attached.say(Down::Welcome(v1::Welcome { heartbeat_millis, timeout_millis })).await?;
        let _ = self.answer.send(Ok(ReceiverStream::new(messages)));
        Ok(attached)
    }
}

impl Attached {
    /// Sends a message to the worker.
    pub async fn say(&self, message: Down) -> Result<()> {
        let message = v1::CoordinatorMessage { epoch: self.epoch, message: Some(message) };
        self.down.send(Ok(message)).await.context("the worker closed the stream")
    }

    /// The next message; `None` if the worker closed the stream.
    pub async fn next(&mut self) -> Result<Option<Up>> {
        match timeout(DEADLINE, self.up.message()).await.context("the worker sends nothing")? {
            Ok(message) => Ok(message.and_then(|message| message.message)),
            // It disconnected without closing the stream.
            Err(_) => Ok(None),
        }
    }

    /// The next message that is not a heartbeat.
    pub async fn news(&mut self) -> Result<Up> {
        loop {
            match self.next().await? {
                Some(Up::Heartbeat(_)) => {}
                Some(other) => return Ok(other),
                None => bail!("the worker closed the stream"),
            }
        }
    }

    /// The whole inventory.
    pub async fn inventory(&mut self) -> Result<v1::Inventory> {
        let mut all = v1::Inventory::default();
        loop {
            let Up::Inventory(page) = self.news().await? else { bail!("no inventory") };
            all.outputs.extend(page.outputs);
            all.running.extend(page.running);
            if page.last {
                return Ok(all);
            }
        }
    }

    /// The end of an attempt, which must be the next message apart from heartbeats.
    pub async fn ended(&mut self) -> Result<v1::Ended> {
        match self.news().await? {
            Up::Ended(ended) => Ok(ended),
            other => bail!("{other:?} instead of an end"),
        }
    }

    /// Waits until the worker closes the stream.
    pub async fn hung_up(mut self) -> Result<()> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}
