//! One stream to a coordinator, from hello to hanging up: orders down, facts and beats up.
//!
//! Not here: which coordinator, and what happens after (`agent`); what is right to do (`rules`).

use std::time::{Duration, Instant};

use tally_proto::v1::control_client::ControlClient;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::{AttemptId, JobId, MESSAGE_BYTES, v1};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::inventory::{self, Pages};
use super::life::Life;
use super::outbox::{Fact, Outbox};
use super::rules::{Course, Highest, Left, Silence, Wish};

/// How long a coordinator may take to welcome a worker.
const WELCOME_TIME: Duration = Duration::from_secs(10);
/// How long the last word may take to get through.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Messages on their way into the stream: few, as they are lost with it.
const IN_FLIGHT: usize = 4;
/// The least interval of beats, whatever a coordinator asks for.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// How a stream ended.
#[derive(Debug)]
pub enum Over {
    /// It broke, for this reason.
    Broken(String),
    /// The worker goes.
    Left(Left),
}

/// A coordinator that has let the worker in.
pub struct Opened {
    inbound: Streaming<v1::CoordinatorMessage>,
    up: mpsc::Sender<v1::WorkerMessage>,
    welcome: v1::Welcome,
    epoch: u64,
}

/// An open stream.
struct Session<'a> {
    life: &'a Life,
    inbound: Streaming<v1::CoordinatorMessage>,
    up: mpsc::Sender<v1::WorkerMessage>,
    outgoing: Outgoing,
    silence: Silence,
    highest: &'a mut Highest,
    course: &'a mut Course,
    wishes: &'a mut watch::Receiver<Wish>,
}

/// What is yet to be said on this stream, beside the facts of the outbox.
struct Outgoing {
    pages: Pages,
    beat: bool,
    draining: bool,
}

impl Outgoing {
    fn is_due(&self, outbox: &Outbox) -> bool {
        !self.pages.ended() || self.beat || self.draining || !outbox.is_empty()
    }

    /// The next thing to say: beats never wait, and nothing else comes before the inventory.
    fn next(&mut self, life: &Life) -> Option<Up> {
        if std::mem::take(&mut self.beat) {
            return Some(Up::Heartbeat(life.heartbeat()));
        }
        if let Some(page) = self.pages.next() {
            return Some(Up::Inventory(page));
        }
        if std::mem::take(&mut self.draining) {
            return Some(Up::Draining(v1::Draining {}));
        }
        life.outbox.take().map(Fact::message)
    }
}

/// Says hello by `channel`, and waits for the welcome.
///
/// # Errors
/// The coordinator's refusal, or what went wrong instead of one.
pub async fn open(hello: v1::Hello, channel: Channel) -> Result<Opened, Status> {
    let late = |_| Status::deadline_exceeded(format!("no welcome within {} s", WELCOME_TIME.as_secs()));
    timeout(WELCOME_TIME, introduce(hello, channel)).await.map_err(late)?
}

async fn introduce(hello: v1::Hello, channel: Channel) -> Result<Opened, Status> {
    let (up, messages) = mpsc::channel(IN_FLIGHT);
    // The way is new and empty.
    let _ = up.try_send(v1::WorkerMessage { message: Some(Up::Hello(hello)) });
    let mut client = ControlClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let mut inbound = client.attach(ReceiverStream::new(messages)).await?.into_inner();
    let first = inbound.message().await?;
    let Some(v1::CoordinatorMessage { epoch, message: Some(Down::Welcome(welcome)) }) = first else {
        return Err(Status::internal("the coordinator's first message was no welcome"));
    };
    Ok(Opened { inbound, up, welcome, epoch })
}

/// Stays attached as long as that goes well.
pub async fn stay(
    life: &Life,
    opened: Opened,
    highest: &mut Highest,
    course: &mut Course,
    wishes: &mut watch::Receiver<Wish>,
) -> Over {
    let Opened { inbound, up, welcome, epoch } = opened;
    if let Err(stale) = highest.hear(epoch) {
        return Over::Broken(format!("it is not obeyed: {stale}"));
    }
    let interval = Duration::from_millis(welcome.heartbeat_millis).max(LEAST_INTERVAL);
    let patience = Duration::from_millis(welcome.timeout_millis).max(2 * interval);
    tracing::info!(worker = %life.worker.id(), epoch, "attached");
    life.forget_inputs();
    let pages = inventory::take(&life.worker, &life.outbox);
    // Said on every stream: what was told before may not have got through.
    let outgoing = Outgoing { pages, beat: false, draining: course.drains() };
    let silence = Silence::new(patience, Instant::now());
    let mut session = Session { life, inbound, up, outgoing, silence, highest, course, wishes };
    match session.run(interval).await {
        Ok(left) => {
            session.goodbye(left).await;
            Over::Left(left)
        }
        Err(why) => Over::Broken(why),
    }
}

impl Session<'_> {
    /// Gives how to leave, or why the stream is over.
    async fn run(&mut self, between: Duration) -> Result<Left, String> {
        let mut beats = interval(between);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let life = self.life;
        let up = self.up.clone();
        loop {
            if let Some(left) = self.course.goes(Instant::now(), true, life.holdings()) {
                return Ok(left);
            }
            let until = self.course.until();
            let speaks = self.outgoing.is_due(&life.outbox);
            tokio::select! {
                message = self.inbound.message() => match message {
                    Ok(Some(message)) => {
                        if let Some(left) = self.hear(message)? {
                            return Ok(left);
                        }
                    }
                    Ok(None) => return Err("the coordinator ended it".into()),
                    Err(status) => return Err(status.message().into()),
                },
                () = sleep_until(self.silence.until().into()) => {
                    if self.silence.is_over(Instant::now()) {
                        return Err("the coordinator is silent".into());
                    }
                }
                () = sleep_until(until.unwrap_or_else(Instant::now).into()), if until.is_some() => {}
                _ = beats.tick() => self.outgoing.beat = true,
                Ok(()) = self.wishes.changed() => {
                    let wish = *self.wishes.borrow_and_update();
                    self.wish(wish);
                }
                () = life.outbox.news(), if !speaks => {}
                way = up.reserve(), if speaks => {
                    let way = way.map_err(|_| "it takes nothing more")?;
                    if let Some(message) = self.outgoing.next(life) {
                        way.send(v1::WorkerMessage { message: Some(message) });
                    }
                }
            }
        }
    }

    fn wish(&mut self, wish: Wish) {
        if self.course.wish(wish, Instant::now()) {
            self.life.seen.drain();
            tracing::info!("draining: what is needed is handed over first");
            self.outgoing.draining = true;
        }
    }

    /// Does what the coordinator says. Gives how to leave, where it says so.
    fn hear(&mut self, message: v1::CoordinatorMessage) -> Result<Option<Left>, String> {
        self.highest.hear(message.epoch).map_err(|stale| format!("it is not obeyed: {stale}"))?;
        self.silence.heard(Instant::now());
        let life = self.life;
        match message.message {
            Some(Down::Start(order)) => life.start(order),
            Some(Down::Stop(attempt)) => match AttemptId::try_from(&attempt) {
                Ok(attempt) => life.worker.stop(&attempt),
                Err(error) => tracing::warn!(%error, "told to stop what is no attempt"),
            },
            Some(Down::Release(job)) => match JobId::parse(&job) {
                Ok(job) => life.release(&job),
                Err(error) => tracing::warn!(%error, "told to release what is no job"),
            },
            Some(Down::Inputs(inputs)) => life.take_inputs(inputs),
            Some(Down::HandOver(order)) => life.hand_over(order),
            Some(Down::Admit(admit)) => match JobId::parse(&admit.job) {
                Ok(job) => life.admit(&job, &admit.key),
                Err(error) => tracing::warn!(%error, "told to admit what is no job"),
            },
            Some(Down::Drain(_)) => self.wish(Wish::Drain),
            Some(Down::Drained(_)) if self.course.drains() => return Ok(Some(Left::Drained)),
            Some(Down::Drained(_)) => tracing::warn!("told that it is drained, which it did not want to be"),
            Some(Down::Beat(_)) => {}
            Some(Down::Welcome(_)) | None => tracing::warn!("a message of an unexpected kind was ignored"),
        }
        Ok(None)
    }

    /// Says that the worker goes, and waits a little for that to get through.
    async fn goodbye(self, left: Left) {
        let clean = left == Left::Drained;
        let Session { mut inbound, up, .. } = self;
        let said = async {
            let goodbye = Up::Goodbye(v1::Goodbye { clean });
            let _ = up.send(v1::WorkerMessage { message: Some(goodbye) }).await;
            drop(up);
            // The coordinator hangs up when it has understood.
            while let Ok(Some(_)) = inbound.message().await {}
        };
        // One that is not there to hear it sees that the stream breaks.
        let _ = timeout(LAST_WORD, said).await;
    }
}
