//! The service that workers attach to: hello, inventory, then reports up and orders down, with
//! signs of life both ways.
//!
//! What a worker says is checked here as far as form goes; nonsense is logged and ignored.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use tally_proto::convert::{BadMessage, required};
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::{AttemptId, Failure, WorkerId, v1};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, timeout};
use tonic::{Request, Response, Status, Streaming};

use super::{Leading, Role, Timing, stepping_down};
use crate::cluster::{Attached, Hello, HelloError, Inventory, OUTBOX, Outbound, Refused, Said, WorkerInput};
use crate::driver::Input;

/// A worker says hello at once.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Outputs and attempts of an inventory, at most.
const MOST_HELD: usize = 1_000_000;
/// A wait that ends so much later than it should was this process's own standstill.
const STANDSTILL: Duration = Duration::from_millis(500);

/// The service.
pub struct ControlService {
    role: Arc<Role>,
    timing: Timing,
}

impl ControlService {
    /// The service of a coordinator in that role.
    pub fn new(role: Arc<Role>, timing: Timing) -> Self {
        ControlService { role, timing }
    }
}

impl ControlService {
    /// Lets a worker in, and answers with its orders.
    ///
    /// # Errors
    /// A status that says why it is not let in.
    pub async fn attach(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<OrderStream>, Status> {
        let leading = self.role.leading()?;
        let mut inbound = request.into_inner();
        let first = timeout(HELLO_TIME, inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Some(Up::Hello(hello)) = first.and_then(|message| message.message) else {
            return Err(Status::invalid_argument("the first message of a worker is its hello"));
        };
        let hello = Hello::try_from(hello).map_err(|error| match error {
            HelloError::Protocol(_) => Status::unimplemented(error.to_string()),
            error => Status::invalid_argument(error.to_string()),
        })?;
        let (worker, slots) = (hello.worker.clone(), hello.slots as usize);
        let attached = ask(&leading, |reply| WorkerInput::Hello(hello, reply)).await?;
        let attached = attached.map_err(|refused| match refused {
            Refused::NewerEpoch(_) => Status::failed_precondition(refused.to_string()),
            Refused::GivenUp(_) => Status::already_exists(refused.to_string()),
            Refused::Twin(_) => Status::invalid_argument(refused.to_string()),
        })?;
        let (way, orders) = mpsc::channel(OUTBOX + 2 * slots);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let welcome = v1::Welcome {
            heartbeat_millis: millis(self.timing.heartbeat),
            timeout_millis: millis(self.timing.timeout),
        };
        let epoch = attached.epoch;
        let welcome = v1::CoordinatorMessage { epoch, message: Some(Down::Welcome(welcome)) };
        // The way is new and empty.
        let _ = way.try_send(Outbound::Message(Box::new(welcome)));
        let connection = Connection { leading, worker, attached, inbound, timing: self.timing };
        tokio::spawn(connection.run(way));
        let beats = tokio::time::interval_at(Instant::now() + self.timing.heartbeat, self.timing.heartbeat);
        Ok(Response::new(OrderStream { orders, beats, epoch }))
    }
}

async fn ask<T>(
    leading: &Leading,
    question: impl FnOnce(oneshot::Sender<T>) -> WorkerInput,
) -> Result<T, Status> {
    let (reply, answer) = oneshot::channel();
    let input = Input::Worker(Box::new(question(reply)));
    leading.sender.send(input).await.map_err(|_| stepping_down())?;
    answer.await.map_err(|_| stepping_down())
}

/// What goes down to a worker: orders as they come, else a beat now and then.
pub struct OrderStream {
    orders: mpsc::Receiver<Outbound>,
    beats: Interval,
    epoch: u64,
}

impl Stream for OrderStream {
    type Item = Result<Outbound, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(next) = self.orders.poll_recv(cx) {
            return Poll::Ready(next.map(Ok));
        }
        let epoch = self.epoch;
        self.beats.poll_tick(cx).map(|_| {
            let message = Some(Down::Beat(v1::Beat {}));
            Some(Ok(Outbound::Message(Box::new(v1::CoordinatorMessage { epoch, message }))))
        })
    }
}

/// Why a connection is over.
enum Over {
    /// The stream ended, or broke.
    Broken,
    /// Nothing came for too long.
    Silent,
    /// The driver is gone, or the worker said goodbye.
    Closed,
}

/// One worker's stream, upwards.
struct Connection {
    leading: Leading,
    worker: WorkerId,
    attached: Attached,
    inbound: Streaming<v1::WorkerMessage>,
    timing: Timing,
}

impl Connection {
    async fn run(mut self, way: mpsc::Sender<Outbound>) {
        let over = match self.listen(way).await {
            Ok(never) => match never {},
            Err(over) => over,
        };
        let (worker, generation) = (self.worker.clone(), self.attached.generation);
        let why = match over {
            Over::Closed => return,
            Over::Silent => "it was silent for too long",
            Over::Broken => {
                let broken = WorkerInput::Broken { worker: worker.clone(), generation };
                if self.tell(broken).await.is_err() {
                    return;
                }
                tokio::time::sleep(self.timing.grace).await;
                "its stream broke and it did not come back"
            }
        };
        // The driver gone means that nobody needs to know.
        let _ = self.tell(WorkerInput::Away { worker, generation, why }).await;
    }

    async fn listen(&mut self, way: mpsc::Sender<Outbound>) -> Result<std::convert::Infallible, Over> {
        let beat = Arc::new(Mutex::new(v1::Heartbeat::default()));
        let (worker, generation) = (self.worker.clone(), self.attached.generation);
        let inventory = self.inventory(&beat).await?;
        let attached =
            WorkerInput::Attached { worker: worker.clone(), generation, way, inventory, beat: beat.clone() };
        self.tell(attached).await?;
        loop {
            let message = self.next().await?;
            let said = match self.said(message, &beat) {
                Ok(Some(said)) => said,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%worker, %error, "a worker's message was ignored");
                    continue;
                }
            };
            let goodbye = matches!(said, Said::Goodbye { .. });
            self.tell(WorkerInput::Said { worker: worker.clone(), generation, said }).await?;
            if goodbye {
                return Err(Over::Closed);
            }
        }
    }

    /// The next message; the end of the stream, or of patience.
    async fn next(&mut self) -> Result<Up, Over> {
        loop {
            let since = Instant::now();
            match timeout(self.timing.timeout, self.inbound.message()).await {
                Ok(Ok(Some(v1::WorkerMessage { message: Some(message) }))) => return Ok(message),
                Ok(Ok(Some(_))) => {
                    tracing::warn!(worker = %self.worker, "a message of an unknown kind was ignored")
                }
                Ok(Ok(None)) => return Err(Over::Broken),
                Ok(Err(status)) => {
                    tracing::info!(worker = %self.worker, %status, "a worker's stream broke");
                    return Err(Over::Broken);
                }
                // It was this process that stood still: what came meanwhile is yet to be read.
                Err(_) if since.elapsed() > self.timing.timeout + STANDSTILL => {}
                Err(_) => return Err(Over::Silent),
            }
        }
    }

    async fn inventory(&mut self, beat: &Mutex<v1::Heartbeat>) -> Result<Inventory, Over> {
        let mut inventory = Inventory::default();
        loop {
            let page = match self.next().await? {
                Up::Inventory(page) => page,
                Up::Heartbeat(heartbeat) => {
                    *beat.lock() = heartbeat;
                    continue;
                }
                other => {
                    tracing::warn!(worker = %self.worker, ?other, "said before the inventory was complete: ignored");
                    continue;
                }
            };
            for held in page.outputs {
                match held_output(held) {
                    Ok(held) => inventory.outputs.push(held),
                    Err(error) => tracing::warn!(worker = %self.worker, %error, "a held output was ignored"),
                }
            }
            for running in &page.running {
                match AttemptId::try_from(running) {
                    Ok(attempt) => inventory.running.push(attempt),
                    Err(error) => tracing::warn!(worker = %self.worker, %error, "an attempt was ignored"),
                }
            }
            if inventory.outputs.len() + inventory.running.len() > MOST_HELD {
                tracing::warn!(worker = %self.worker, "an inventory of more than {MOST_HELD} was cut off");
                return Err(Over::Broken);
            }
            if page.last {
                return Ok(inventory);
            }
        }
    }

    fn said(&self, message: Up, beat: &Mutex<v1::Heartbeat>) -> Result<Option<Said>, BadMessage> {
        Ok(Some(match message {
            Up::Heartbeat(heartbeat) => {
                *beat.lock() = heartbeat;
                return Ok(None);
            }
            Up::Ended(ended) => {
                use v1::ended::Outcome;
                let attempt = AttemptId::try_from(&required(ended.attempt, "attempt")?)?;
                let outcome = match required(ended.outcome, "outcome")? {
                    Outcome::Done(result) => Ok(result),
                    Outcome::Failure(failure) => Err(Failure::try_from(&failure)?),
                };
                Said::Ended(attempt, outcome)
            }
            Up::Moved(moved) => {
                let attempt = AttemptId::try_from(&required(moved.attempt, "attempt")?)?;
                Said::Moved(attempt, WorkerId::parse(&moved.to)?)
            }
            Up::NotMoved(kept) => {
                let attempt = AttemptId::try_from(&required(kept.attempt, "attempt")?)?;
                Said::NotMoved(attempt, WorkerId::parse(&kept.to)?, kept.reason)
            }
            Up::Draining(_) => Said::Draining,
            Up::Goodbye(goodbye) => Said::Goodbye { clean: goodbye.clean },
            Up::Hello(_) | Up::Inventory(_) => {
                tracing::warn!(worker = %self.worker, "a hello or inventory in the middle was ignored");
                return Ok(None);
            }
        }))
    }

    async fn tell(&self, input: WorkerInput) -> Result<(), Over> {
        self.leading.sender.send(Input::Worker(Box::new(input))).await.map_err(|_| Over::Closed)
    }
}

fn held_output(held: v1::HeldOutput) -> Result<(AttemptId, v1::TaskResult), BadMessage> {
    let attempt = AttemptId::try_from(&required(held.attempt, "attempt")?)?;
    Ok((attempt, required(held.result, "result")?))
}
