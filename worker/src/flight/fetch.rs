//! One stream of another worker's outputs, received on the runtime and taken by a slot's thread.
//!
//! A stream that breaks is asked for again, from where it broke; one that breaks twice or stalls is given up.
//! Either is the typed loss of the first output not yet read. Not here: which streams there are.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::{FlightData, Ticket};
use bytes::Bytes;
use prost::Message;
use tally_proto::v1;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use super::Traffic;
use super::client::Client;
use super::ticket::{LOST, Request};
use super::wire::{self, Decoder};
use crate::error::TaskError;
use crate::peers::{Place, Reading};

/// How long a holder may send nothing before it is given up.
const STALL: Duration = Duration::from_secs(10);
/// How long a holder may be too busy.
const BUSY: Duration = Duration::from_secs(120);
/// Askings without an answer that are repeated before a holder that cannot be reached is given up.
const UNANSWERED: u32 = 3;
/// Waits between askings.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LAST_BACKOFF: Duration = Duration::from_secs(1);
/// How often a waiting slot looks whether its task is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What is asked of whom.
#[derive(Clone)]
pub struct Ask {
    /// Of whom.
    pub at: Place,
    /// What.
    pub request: Request,
    /// The job's key.
    pub key: Bytes,
}

/// Why an answer did not come, or not whole.
#[derive(Debug)]
pub enum Trouble {
    /// The output at this place of the ticket is not to be had.
    Lost { place: usize, reason: String },
    /// The holder has no time.
    Busy(String),
    /// It can never be sent.
    Impossible(String),
}

impl Trouble {
    pub fn lost(place: usize, reason: impl Into<String>) -> Self {
        Trouble::Lost { place, reason: reason.into() }
    }

    /// The failure of a task that asked this.
    pub fn of(self, ask: &Ask) -> TaskError {
        match self {
            Trouble::Lost { place, reason } => {
                let outputs = &ask.request.outputs;
                match outputs.get(place).or_else(|| outputs.last()) {
                    Some(output) => ask.at.lost(output, reason),
                    None => TaskError::Order(format!("nothing is wanted of worker {}", ask.at.worker)),
                }
            }
            Trouble::Busy(reason) => TaskError::Busy { worker: ask.at.worker.clone(), reason },
            Trouble::Impossible(reason) => TaskError::Order(reason),
        }
    }

    fn from_status(status: &Status, first: usize) -> Self {
        let place = status.metadata().get(LOST).and_then(|place| place.to_str().ok()?.parse().ok());
        let reason = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            Code::ResourceExhausted => Trouble::Busy(reason),
            Code::OutOfRange => Trouble::Impossible(reason),
            _ => Trouble::Lost { place: first + place.unwrap_or(0), reason },
        }
    }
}

/// Whether the way broke, rather than that the holder said no.
fn is_reset(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted
    )
}

fn stalled() -> Status {
    Status::deadline_exceeded(format!("it sent nothing for {} s", STALL.as_secs()))
}

/// Repeats what fails because the holder is busy, or because the way broke: once where an answer was on its way, and
/// until there is an answer again a few times more, as a connection that is broken may be taken for a good one for a
/// moment.
struct Again {
    /// Where repeats are counted.
    traffic: Arc<Traffic>,
    /// Answers that broke off.
    broken: u32,
    /// Whether something came since the last asking.
    answered: bool,
    /// Askings in turn that got no answer.
    unanswered: u32,
    backoff: Duration,
    busy_until: Option<Instant>,
}

impl Again {
    fn new(traffic: Arc<Traffic>) -> Self {
        Again { traffic, broken: 0, answered: false, unanswered: 0, backoff: FIRST_BACKOFF, busy_until: None }
    }

    /// Waits where another try makes sense.
    async fn may_try(&mut self, status: &Status) -> bool {
        let busy = status.code() == Code::ResourceExhausted;
        let may = if busy {
            let now = Instant::now();
            now < *self.busy_until.get_or_insert(now + BUSY)
        } else if std::mem::take(&mut self.answered) {
            self.broken += 1;
            is_reset(status) && self.broken <= 1
        } else {
            self.unanswered += 1;
            is_reset(status) && self.unanswered <= UNANSWERED
        };
        let counts = &self.traffic;
        let count = match (may, busy) {
            (true, true) => &counts.repeats_busy,
            (true, false) => &counts.repeats_broken,
            (false, _) => &counts.given_up,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if may {
            tokio::time::sleep(self.backoff).await;
            self.backoff = (self.backoff * 2).min(LAST_BACKOFF);
        }
        may
    }

    fn progress(&mut self) {
        (self.answered, self.unanswered) = (true, 0);
        (self.backoff, self.busy_until) = (FIRST_BACKOFF, None);
    }
}

/// Calls until there is an answer, or no sense in asking again.
pub async fn patiently<T, F>(traffic: &Arc<Traffic>, call: impl Fn() -> F) -> Result<T, Trouble>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut again = Again::new(traffic.clone());
    loop {
        let answer = timeout(STALL, call()).await.unwrap_or_else(|_| Err(stalled()));
        match answer {
            Ok(answer) => return Ok(answer),
            Err(status) if again.may_try(&status).await => {}
            Err(status) => return Err(Trouble::from_status(&status, 0)),
        }
    }
}

/// A stream that is being received.
pub struct Fetch {
    ask: Ask,
    messages: mpsc::Receiver<Result<FlightData, Trouble>>,
    decoder: Decoder,
}

impl Fetch {
    /// Starts to receive; up to `ahead` messages wait for the slot.
    pub fn start(client: &Client, ask: Ask, ahead: usize, reading: &Reading) -> Self {
        let (sender, messages) = mpsc::channel(ahead.max(1));
        let receive = Receive { client: client.clone(), ask: ask.clone(), sender, place: 0, passed: 0 };
        reading.io.spawn(receive.run());
        Fetch { ask, messages, decoder: Decoder::default() }
    }

    /// The next batch, and what it is of; `None` at the end.
    ///
    /// # Errors
    /// [`TaskError::Lost`], [`TaskError::Busy`], or [`TaskError::Cancelled`].
    pub fn next(&mut self, reading: &Reading) -> Result<Option<(RecordBatch, v1::BatchMeta)>, TaskError> {
        loop {
            let message = match wait(&mut self.messages, reading)? {
                None => return Ok(None),
                Some(message) => message.map_err(|trouble| trouble.of(&self.ask))?,
            };
            let broken = |e: &dyn std::fmt::Display| {
                Trouble::lost(0, format!("it sent what cannot be read: {e}")).of(&self.ask)
            };
            if let Some(batch) = self.decoder.take(&message).map_err(|e| broken(&e))? {
                let meta = v1::BatchMeta::decode(message.app_metadata).map_err(|e| broken(&e))?;
                return Ok(Some((batch, meta)));
            }
        }
    }
}

/// Waits on a slot's thread for what the runtime receives.
///
/// # Errors
/// [`TaskError::Cancelled`].
pub fn wait<T>(receiver: &mut mpsc::Receiver<T>, reading: &Reading) -> Result<Option<T>, TaskError> {
    if let Ok(value) = receiver.try_recv() {
        return Ok(Some(value));
    }
    loop {
        reading.check_cancelled()?;
        if let Ok(value) = reading.io.block_on(async { timeout(LOOK, receiver.recv()).await }) {
            return Ok(value);
        }
    }
}

/// Receives one stream, on the runtime.
struct Receive {
    client: Client,
    ask: Ask,
    sender: mpsc::Sender<Result<FlightData, Trouble>>,
    /// The output that came last, by its place in the ticket, and the messages of it that were
    /// passed on.
    place: usize,
    passed: usize,
}

impl Receive {
    async fn run(mut self) {
        let sender = self.sender.clone();
        // A slot that wants no more drops its end.
        tokio::select! {
            () = sender.closed() => {}
            trouble = self.receive() => if let Err(trouble) = trouble {
                let _ = sender.send(Err(trouble)).await;
            }
        }
    }

    async fn receive(&mut self) -> Result<(), Trouble> {
        let mut again = Again::new(self.client.traffic().clone());
        loop {
            match self.attempt(&mut again).await {
                Ok(()) => return Ok(()),
                Err(status) if again.may_try(&status).await => {
                    tracing::info!(worker = %self.ask.at.worker, %status, "asking again for outputs");
                }
                Err(status) => return Err(Trouble::from_status(&status, self.place)),
            }
        }
    }

    /// Asks for what has not come yet, and passes it on.
    async fn attempt(&mut self, again: &mut Again) -> Result<(), Status> {
        let first = self.place;
        let request =
            Request { outputs: self.ask.request.outputs[first..].to_vec(), ..self.ask.request.clone() };
        let ticket = Ticket::new(request.ticket(self.ask.key.clone()).encode_to_vec());
        let mut service = self.client.service(&self.ask.at.address)?;
        let answer = timeout(STALL, service.do_get(ticket)).await.unwrap_or_else(|_| Err(stalled()))?;
        let mut stream = answer.into_inner();
        let mut skip = std::mem::take(&mut self.passed);
        loop {
            let message = timeout(STALL, stream.message()).await.unwrap_or_else(|_| Err(stalled()))?;
            let Some(message) = message else { return Ok(()) };
            again.progress();
            let traffic = &self.client.traffic().received;
            let bytes = message.data_body.len() + message.data_header.len();
            traffic.fetch_add(bytes as u64, Ordering::Relaxed);
            if !wire::is_schema(&message) {
                self.advance(&message)?;
                self.passed += 1;
                if self.place == first && skip > 0 {
                    skip -= 1;
                    continue;
                }
            }
            if self.sender.send(Ok(message)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Notes which output a message is of.
    fn advance(&mut self, message: &FlightData) -> Result<(), Status> {
        let meta = v1::BatchMeta::decode(message.app_metadata.clone());
        let meta = meta.map_err(|e| Status::data_loss(format!("unreadable metadata: {e}")))?;
        let outputs = self.ask.request.outputs[self.place..].iter();
        let found =
            outputs.enumerate().find(|(_, o)| o.task.index == meta.index && o.attempt == meta.attempt);
        match found {
            None => Err(Status::data_loss("it sent what was not asked for")),
            Some((0, _)) => Ok(()),
            Some((further, _)) => {
                self.place += further;
                self.passed = 0;
                Ok(())
            }
        }
    }
}
