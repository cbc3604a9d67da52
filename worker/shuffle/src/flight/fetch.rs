//! One stream of another worker's outputs, received on the runtime and read by the thread of a slot.
//!
//! A stream that breaks is requested again from the position where it broke. A stream that breaks twice, or whose holder
//! is lost, fails with the typed loss of the first output that is not read completely. A slow stream does not fail: the
//! holder is lost only if nothing arrives from it on any stream (`peer`). A stream whose data the slot does not take is
//! closed after a time, because it holds memory of the holder that other readers need, and requested again later. Not
//! here: which streams are opened, which requests are repeated (`retries`).

use std::sync::atomic::Ordering;

use arrow_array::RecordBatch;
use arrow_flight::{FlightData, Ticket};
use bytes::Bytes;
use prost::Message;
use tally_common::waits::{self, WaitKind};
use tally_proto::v1::ticket::What;
use tally_proto::{AttemptId, v1};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::client::{Client, Service};
use super::peer::Peer;
use super::retries::FetchRetries;
use super::ticket::{LOST, Request};
use super::wire::{self, Decoder};
use crate::error::TaskError;
use crate::peers::{OutputLocation, ReadContext};

/// A request to a holder.
#[derive(Clone)]
pub struct OutputQuery {
    /// The holder.
    pub at: OutputLocation,
    /// The requested outputs.
    pub request: Request,
    /// The job's key.
    pub key: Bytes,
}

/// A request of a task for outputs at `at`.
pub(super) fn query(
    at: &OutputLocation,
    reading: &ReadContext,
    outputs: Vec<AttemptId>,
    what: Option<What>,
) -> OutputQuery {
    let request = Request { job: reading.job.clone(), outputs, what, skip: 0 };
    OutputQuery { at: at.clone(), request, key: reading.key.clone() }
}

/// Why a request failed.
#[derive(Debug)]
pub enum FetchError {
    /// The output at this index of the ticket is not available.
    Lost { index: usize, reason: String },
    /// The holder has too many readers.
    Busy(String),
    /// The output can never be sent.
    Impossible(String),
}

impl FetchError {
    pub fn lost(index: usize, reason: impl Into<String>) -> Self {
        FetchError::Lost { index, reason: reason.into() }
    }

    /// The failure of a task that made this request.
    pub fn into_task_error(self, query: &OutputQuery) -> TaskError {
        match self {
            FetchError::Lost { index, reason } => {
                let outputs = &query.request.outputs;
                match outputs.get(index).or_else(|| outputs.last()) {
                    Some(output) => query.at.lost(output, reason),
                    None => TaskError::InvalidTask(format!(
                        "no output of worker {} is requested",
                        query.at.worker
                    )),
                }
            }
            FetchError::Busy(reason) => TaskError::Busy { worker: query.at.worker.clone(), reason },
            FetchError::Impossible(reason) => {
                TaskError::Unsendable { worker: query.at.worker.clone(), reason }
            }
        }
    }

    /// The error for the status of a request whose first output has the index `first`.
    pub fn from_status(status: &Status, first: usize) -> Self {
        let index = status.metadata().get(LOST).and_then(|index| index.to_str().ok()?.parse().ok());
        let reason = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            Code::ResourceExhausted => FetchError::Busy(reason),
            Code::OutOfRange => FetchError::Impossible(reason),
            _ => FetchError::Lost { index: first + index.unwrap_or(0), reason },
        }
    }
}

/// A stream that is being received.
pub struct Fetch {
    query: OutputQuery,
    messages: mpsc::Receiver<Result<FlightData, FetchError>>,
    decoder: Decoder,
}

impl Fetch {
    /// Starts to receive. Up to `ahead` messages are buffered for the slot.
    pub fn start(client: &Client, query: OutputQuery, ahead: usize, reading: &ReadContext) -> Self {
        let (sender, messages) = mpsc::channel(ahead.max(1));
        let receive = StreamReceiver {
            client: client.clone(),
            query: query.clone(),
            sender,
            index: 0,
            passed: 0,
            number: 0,
        };
        reading.io.spawn(receive.run());
        Fetch { query, messages, decoder: Decoder::default() }
    }

    /// The next batch with its metadata; `None` at the end.
    ///
    /// # Errors
    /// [`TaskError::Lost`], [`TaskError::Busy`], or [`TaskError::Cancelled`].
    pub fn next(&mut self, reading: &ReadContext) -> Result<Option<(RecordBatch, v1::BatchMeta)>, TaskError> {
        loop {
            let message = match wait(&mut self.messages, &self.query.at, reading)? {
                None => return Ok(None),
                Some(message) => message.map_err(|error| error.into_task_error(&self.query))?,
            };
            reading.received.fetch_add(sent(&message), Ordering::Relaxed);
            let broken = |e: &dyn std::fmt::Display| {
                FetchError::lost(0, format!("it sent an unreadable message: {e}"))
                    .into_task_error(&self.query)
            };
            if let Some(batch) = self.decoder.take(&message).map_err(|e| broken(&e))? {
                let meta = v1::BatchMeta::decode(message.app_metadata).map_err(|e| broken(&e))?;
                return Ok(Some((batch, meta)));
            }
        }
    }
}

/// The bytes of a message.
fn sent(message: &FlightData) -> u64 {
    (message.data_body.len() + message.data_header.len()) as u64
}

/// Waits on a slot's thread for a message of `from`, which the runtime receives.
///
/// # Errors
/// [`TaskError::Cancelled`].
pub fn wait<T>(
    receiver: &mut mpsc::Receiver<T>,
    from: &OutputLocation,
    reading: &ReadContext,
) -> Result<Option<T>, TaskError> {
    if let Ok(value) = receiver.try_recv() {
        return Ok(Some(value));
    }
    let _waiting = waits::begin(WaitKind::Worker, from.worker.as_str());
    reading.io.block_on(async {
        tokio::select! {
            biased;
            () = reading.cancelled.cancelled() => Err(TaskError::Cancelled),
            value = receiver.recv() => Ok(value),
        }
    })
}

/// The receiver of one stream, on the runtime.
struct StreamReceiver {
    client: Client,
    query: OutputQuery,
    sender: mpsc::Sender<Result<FlightData, FetchError>>,
    /// The output of the last message, by its index in the ticket, and the number of its messages that were passed to
    /// the slot.
    index: usize,
    passed: usize,
    /// The number of the last message among those of its output.
    number: usize,
}

/// How a response ended.
enum ResponseEnd {
    Complete,
    /// The slot did not take its data for a time. Now it does.
    Paused,
}

impl StreamReceiver {
    async fn run(mut self) {
        let sender = self.sender.clone();
        // The slot drops its end if it needs no further messages.
        tokio::select! {
            () = sender.closed() => {}
            error = self.receive() => if let Err(error) = error {
                let _ = sender.send(Err(error)).await;
            }
        }
    }

    async fn receive(&mut self) -> Result<(), FetchError> {
        let mut retries = FetchRetries::new(self.client.traffic().clone());
        loop {
            let (service, peer) =
                self.client.service(&self.query.at.address).map_err(|e| FetchError::from_status(&e, 0))?;
            match self.attempt(service, &peer, &mut retries).await {
                Ok(ResponseEnd::Complete) => return Ok(()),
                Ok(ResponseEnd::Paused) => {
                    self.client.traffic().paused.fetch_add(1, Ordering::Relaxed);
                }
                Err(status) if retries.wait_to_retry(&status, peer.batches()).await => {
                    tracing::info!(worker = %self.query.at.worker, %status, "requesting outputs again");
                }
                Err(status) => return Err(FetchError::from_status(&status, self.index)),
            }
        }
    }

    /// Requests what has not been received, and passes it to the slot.
    async fn attempt(
        &mut self,
        mut service: Service,
        peer: &Peer,
        retries: &mut FetchRetries,
    ) -> Result<ResponseEnd, Status> {
        let request = Request {
            outputs: self.query.request.outputs[self.index..].to_vec(),
            skip: u32::try_from(self.passed).unwrap_or(u32::MAX),
            ..self.query.request.clone()
        };
        let ticket = Ticket::new(request.ticket(self.query.key.clone()).encode_to_vec());
        let mut stream = peer.wait(service.do_get(ticket)).await?.into_inner();
        self.number = 0;
        while let Some(message) = peer.wait(stream.message()).await? {
            retries.answered = true;
            let traffic = &self.client.traffic().received;
            traffic.fetch_add(sent(&message), Ordering::Relaxed);
            if !wire::is_schema(&message) {
                peer.count_batch();
                if !self.is_new(&message)? {
                    continue;
                }
                retries.progress();
            }
            let taken = match timeout(self.client.timing().unread, self.sender.reserve()).await {
                Ok(Ok(room)) => {
                    room.send(Ok(message));
                    continue;
                }
                Ok(Err(_)) => false,
                Err(_) => {
                    // Gives the holder its memory back.
                    drop(stream);
                    // Room for one more message means that the slot has taken this one.
                    self.sender.send(Ok(message)).await.is_ok() && self.sender.reserve().await.is_ok()
                }
            };
            return Ok(if taken { ResponseEnd::Paused } else { ResponseEnd::Complete });
        }
        Ok(ResponseEnd::Complete)
    }

    /// Finds the output that a message belongs to. Returns whether the slot does not have the message yet.
    fn is_new(&mut self, message: &FlightData) -> Result<bool, Status> {
        let meta = v1::BatchMeta::decode(message.app_metadata.clone());
        let meta = meta.map_err(|e| Status::data_loss(format!("a message has unreadable metadata: {e}")))?;
        let mut outputs = self.query.request.outputs[self.index..].iter();
        let further = outputs.position(|o| o.task.index == meta.index && o.attempt == meta.attempt);
        let further = further.ok_or_else(|| Status::data_loss("it sent an output that was not requested"))?;
        if further > 0 {
            self.index += further;
            (self.passed, self.number) = (0, 0);
        }
        // Workers of earlier releases do not number their messages, and send those again that were to be skipped.
        self.number = if meta.number == 0 { self.number + 1 } else { meta.number as usize };
        if self.number > self.passed + 1 {
            return Err(Status::data_loss("it left out a message"));
        }
        let new = self.number > self.passed;
        self.passed = self.passed.max(self.number);
        Ok(new)
    }
}
