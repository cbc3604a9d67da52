//! The service that workers attach to: hello and inventory, then reports from the worker and tasks to it, with heartbeats
//! both ways.
//!
//! Not here: what a worker's messages mean (`cluster::StreamWatch`, the driver).

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::{WorkerId, v1};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, timeout, timeout_at};
use tonic::{Request, Response, Status, Streaming};

use super::{CoordinatorRole, Leading, Timing, stepping_down};
use crate::cluster::{
    AttachError, Hello, HelloError, OUTBOX, Outbound, StreamInput, StreamWatch, WorkerInput,
};
use crate::driver::DriverInput;

/// The time limit for a worker's hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit of a connection to a worker whose stream broke, and the pause before the next one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// The service.
pub struct ControlService {
    role: Arc<CoordinatorRole>,
    timing: Timing,
}

impl ControlService {
    /// The service of a coordinator in that role.
    pub fn new(role: Arc<CoordinatorRole>, timing: Timing) -> Self {
        ControlService { role, timing }
    }
}

impl ControlService {
    /// Accepts a worker, and answers with the stream of its messages.
    ///
    /// # Errors
    /// The status for the reason for which the worker is not accepted.
    pub async fn attach(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<MessageStream>, Status> {
        let leading = self.role.leading()?;
        let mut inbound = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello was received in time"))??;
        let Some(Up::Hello(hello)) = first.and_then(|message| message.message) else {
            return Err(Status::invalid_argument("the first message of a worker is its hello"));
        };
        let hello = Hello::try_from(hello).map_err(|error| match error {
            HelloError::Protocol(_) => Status::unimplemented(error.to_string()),
            error => Status::invalid_argument(error.to_string()),
        })?;
        let (worker, slots, address) =
            (hello.worker.clone(), hello.slots as usize, hello.flight_address.clone());
        let attached = ask(&leading, |reply| WorkerInput::Hello(hello, reply)).await?;
        let attached = attached.map_err(|error| match error {
            AttachError::NewerEpoch(_) => Status::failed_precondition(error.to_string()),
            AttachError::Removed(_) => Status::already_exists(error.to_string()),
            AttachError::DuplicateId(_) => Status::invalid_argument(error.to_string()),
        })?;
        let (channel, messages) = mpsc::channel(OUTBOX + 2 * slots);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let welcome = v1::Welcome {
            heartbeat_millis: millis(self.timing.heartbeat),
            timeout_millis: millis(self.timing.timeout),
        };
        let epoch = attached.epoch;
        let welcome = v1::CoordinatorMessage { epoch, message: Some(Down::Welcome(welcome)) };
        // The new channel has room.
        let _ = channel.try_send(Outbound::Message(Box::new(welcome)));
        let started = Instant::now();
        let stream = StreamWatch::new(worker, attached, channel, self.timing.timeout, Duration::ZERO);
        let grace = self.timing.grace;
        tokio::spawn(async move {
            let broken = watch(&leading, stream, inbound, started).await;
            if let Some((worker, generation)) = broken
                && timeout(grace, refuses(&address)).await.is_ok()
            {
                let gone = WorkerInput::Gone { worker, generation };
                // A closed inbox means that the driver has ended.
                let _ = leading.sender.send(DriverInput::Worker(Box::new(gone))).await;
            }
        });
        let beats = tokio::time::interval_at(Instant::now() + self.timing.heartbeat, self.timing.heartbeat);
        Ok(Response::new(MessageStream { messages, beats, epoch }))
    }
}

async fn ask<T>(
    leading: &Leading,
    question: impl FnOnce(oneshot::Sender<T>) -> WorkerInput,
) -> Result<T, Status> {
    let (reply, answer) = oneshot::channel();
    let input = DriverInput::Worker(Box::new(question(reply)));
    leading.sender.send(input).await.map_err(|_| stepping_down())?;
    answer.await.map_err(|_| stepping_down())
}

/// The messages to a worker, with a beat in between while there are none.
pub struct MessageStream {
    messages: mpsc::Receiver<Outbound>,
    beats: Interval,
    epoch: u64,
}

impl Stream for MessageStream {
    type Item = Result<Outbound, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(next) = self.messages.poll_recv(cx) {
            return Poll::Ready(next.map(Ok));
        }
        let epoch = self.epoch;
        self.beats.poll_tick(cx).map(|_| {
            let message = Some(Down::Beat(v1::Beat {}));
            Some(Ok(Outbound::Message(Box::new(v1::CoordinatorMessage { epoch, message }))))
        })
    }
}

/// Resolves when the address of a worker refuses connections: no process listens there. A worker that is alive listens at its
/// address, whatever happens to its stream.
async fn refuses(address: &str) {
    loop {
        match timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return std::future::pending().await,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return,
            Ok(Err(_)) | Err(_) => tokio::time::sleep(PROBE_INTERVAL).await,
        }
    }
}

/// Passes what happens on a worker's stream to its watch, and what follows to the driver, until the stream is over. Returns
/// the worker and the generation of a stream that broke.
async fn watch(
    leading: &Leading,
    mut watch: StreamWatch,
    mut inbound: Streaming<v1::WorkerMessage>,
    started: Instant,
) -> Option<(WorkerId, u64)> {
    let mut broken = None;
    while let Some(due) = watch.next_wakeup(started.elapsed()) {
        let input = match timeout_at(started + due, inbound.message()).await {
            Ok(Ok(Some(message))) => StreamInput::Message(Box::new(message)),
            Ok(Ok(None)) => StreamInput::Ended("the worker closed it".into()),
            Ok(Err(status)) => StreamInput::Ended(status.to_string()),
            Err(_) => StreamInput::Tick,
        };
        let Some(input) = watch.step(started.elapsed(), input) else { continue };
        if let WorkerInput::Broken { worker, generation } = &input {
            broken = Some((worker.clone(), *generation));
        }
        // A closed inbox means that the driver has ended.
        leading.sender.send(DriverInput::Worker(Box::new(input))).await.ok()?;
    }
    broken
}
