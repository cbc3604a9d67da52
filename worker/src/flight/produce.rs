//! What `do_get` streams: outputs read and encoded on threads that may block, as fast as the reader
//! takes them, within limits on streams and on bytes.
//!
//! Not here: who may ask (`ticket`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::FlightData;
use futures::Stream;
use prost::Message;
use tally_proto::v1::ticket::What;
use tally_proto::{AttemptId, v1};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tonic::Status;

use super::ticket::Found;
use super::{FILE_PART, MESSAGE_LIMIT, Traffic, wire};
use crate::store::{FileOutput, MapOutput, Run, cut, dictionary_schema};

/// Readers that may wait for others to end.
const MOST_WAITING: usize = 1024;
/// How long one waits before it is told to come back later.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a reader may take nothing before its stream is ended.
const STALL: Duration = Duration::from_secs(30);
/// Bytes are counted in units of this.
const UNIT: usize = 1 << 10;
/// Room for headers beside a batch's buffers.
const OVERHEAD: usize = 4 << 10;

/// The limits that all streams of a server share.
pub struct Gate {
    streams: Arc<Semaphore>,
    waiting: AtomicUsize,
    bytes: Arc<Semaphore>,
    units: u32,
    traffic: Arc<Traffic>,
}

/// A reader's turn.
pub struct Turn {
    _stream: OwnedSemaphorePermit,
    bytes: Arc<Semaphore>,
    units: u32,
    serving: Serving,
}

/// Counts a stream as long as it lives.
struct Serving(Arc<Traffic>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

fn busy(what: &str) -> Status {
    Status::resource_exhausted(format!("this worker {what}; come back later"))
}

impl Gate {
    /// Lets `streams` streams have `bytes` bytes on the way.
    pub fn new(streams: usize, bytes: usize, traffic: Arc<Traffic>) -> Self {
        // A single message must always fit, with what it is made of.
        let units = (bytes.max(2 * MESSAGE_LIMIT) / UNIT) as u32;
        Gate {
            streams: Arc::new(Semaphore::new(streams.max(1))),
            waiting: AtomicUsize::new(0),
            bytes: Arc::new(Semaphore::new(units as usize)),
            units,
            traffic,
        }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where too many wait, or it takes too long.
    pub async fn enter(&self) -> Result<Turn, Status> {
        let stream = match self.streams.clone().try_acquire_owned() {
            Ok(stream) => stream,
            Err(_) => self.wait().await?,
        };
        self.traffic.serving.fetch_add(1, Ordering::Relaxed);
        let serving = Serving(self.traffic.clone());
        Ok(Turn { _stream: stream, bytes: self.bytes.clone(), units: self.units, serving })
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit, Status> {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= MOST_WAITING {
            return Err(busy("has too many readers waiting"));
        }
        match timeout(PATIENCE, self.streams.clone().acquire_owned()).await {
            Ok(Ok(stream)) => Ok(stream),
            _ => Err(busy("serves as many readers as it can")),
        }
    }
}

/// A message on its way, and the bytes counted for it.
type Parcel = (FlightData, OwnedSemaphorePermit);

/// The stream of an answer.
pub struct Served {
    parcels: mpsc::Receiver<Result<Parcel, Status>>,
    /// Of the message handed over last: freed when the transport asks for the next.
    last: Option<OwnedSemaphorePermit>,
    serving: Serving,
}

impl Stream for Served {
    type Item = Result<FlightData, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.last = None;
        self.parcels.poll_recv(context).map(|parcel| {
            Some(parcel?.map(|(message, counted)| {
                let bytes = message.data_body.len() + message.data_header.len();
                self.serving.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
                self.last = Some(counted);
                message
            }))
        })
    }
}

/// Why no more is produced.
enum Stop {
    /// The reader is gone, or takes nothing.
    Gone,
    Failed(Status),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Stop::Failed(status)
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Stop {
    Stop::Failed(Status::data_loss(format!("an output cannot be read: {error}")))
}

/// Answers a ticket.
///
/// # Errors
/// INVALID_ARGUMENT where the outputs have no such part.
pub fn stream(turn: Turn, found: Found, what: Option<What>) -> Result<Served, Status> {
    let Turn { _stream, bytes, units, serving } = turn;
    let (sender, parcels) = mpsc::channel(1);
    let runtime = Handle::current();
    let outlet = Outlet { sender, bytes, units, runtime };
    let job = Answer::new(found, what)?;
    // Reading spilled runs and encoding are no work for the runtime's own threads.
    tokio::task::spawn_blocking(move || {
        let _stream = _stream;
        if let Err(Stop::Failed(status)) = job.run(&outlet) {
            tracing::warn!(%status, "an output stream ended early");
            outlet.fail(status);
        }
    });
    Ok(Served { parcels, last: None, serving })
}

struct Outlet {
    sender: mpsc::Sender<Result<Parcel, Status>>,
    bytes: Arc<Semaphore>,
    units: u32,
    runtime: Handle,
}

impl Outlet {
    /// Sends what `make` makes of `bytes` bytes; `twice` where it needs as much again meanwhile.
    fn send(
        &self,
        bytes: usize,
        twice: bool,
        make: impl FnOnce() -> Result<FlightData, Stop>,
    ) -> Result<(), Stop> {
        let units = ((bytes + OVERHEAD).div_ceil(UNIT) as u32).min(self.units / 2);
        let first = if twice { units * 2 } else { units };
        let wait = timeout(PATIENCE, self.bytes.clone().acquire_many_owned(first));
        let Ok(Ok(mut counted)) = self.runtime.block_on(wait) else {
            return Err(Stop::Failed(busy("has too many bytes on the way")));
        };
        let message = make()?;
        if twice {
            drop(counted.split(units as usize));
        }
        if message.data_body.len() + message.data_header.len() + OVERHEAD > MESSAGE_LIMIT {
            let what =
                format!("a single row of {} bytes is too large for a message", message.data_body.len());
            return Err(Stop::Failed(Status::out_of_range(what)));
        }
        let send = self.sender.send_timeout(Ok((message, counted)), STALL);
        self.runtime.block_on(send).map_err(|_| Stop::Gone)
    }

    fn schema(&self, schema: &Schema) -> Result<(), Stop> {
        self.send(0, false, || Ok(wire::schema_message(schema)))
    }

    fn batch(&self, batch: &RecordBatch, meta: v1::BatchMeta) -> Result<(), Stop> {
        let make = || wire::batch_message(batch, meta.encode_to_vec().into()).map_err(|e| unreadable(&e));
        self.send(cut::batch_bytes(batch), false, make)
    }

    fn fail(&self, status: Status) {
        let send = self.sender.send_timeout(Err(status), STALL);
        // A reader that is gone needs no reason.
        let _ = self.runtime.block_on(send);
    }
}

/// What is to be sent.
enum Answer {
    Rows { maps: Maps, schema: SchemaRef, partition: Option<u32> },
    Dictionaries { maps: Maps, run: usize },
    Part { attempt: AttemptId, file: Arc<FileOutput>, offset: u64, length: u64 },
}

type Maps = Vec<(AttemptId, Arc<MapOutput>)>;

impl Answer {
    fn new(found: Found, what: Option<What>) -> Result<Self, Status> {
        let no = |what: String| Err(Status::invalid_argument(what));
        match (found, what) {
            (Found::Maps(maps), Some(What::Dictionary(run))) => {
                let run = run as usize;
                match maps.iter().find(|(_, output)| run >= output.runs.len()) {
                    Some((attempt, _)) => no(format!("the output of {attempt} has no run {run}")),
                    None => Ok(Answer::Dictionaries { maps, run }),
                }
            }
            (Found::Maps(maps), None | Some(What::Partition(_))) => {
                let partition = match what {
                    Some(What::Partition(partition)) => Some(partition),
                    _ => None,
                };
                let mut runs = maps.iter().flat_map(|(_, output)| &output.runs);
                let schema =
                    runs.next().map_or_else(|| Arc::new(Schema::empty()), |run| run.schema().clone());
                if runs.any(|run| *run.schema() != schema) {
                    return no("the ticket's outputs are of different tables: ask for one at a time".into());
                }
                Ok(Answer::Rows { maps, schema, partition })
            }
            (Found::Maps(_), Some(What::Range(_))) => no("a map output has no range of bytes".into()),
            (Found::File(attempt, file), None) => {
                let length = file.len();
                Ok(Answer::Part { attempt, file, offset: 0, length })
            }
            (Found::File(attempt, file), Some(What::Range(range))) => {
                let end = range.offset.checked_add(range.length);
                if end.is_none_or(|end| end > file.len()) {
                    return no(format!("the output of {attempt} has only {} bytes", file.len()));
                }
                Ok(Answer::Part { attempt, file, offset: range.offset, length: range.length })
            }
            (Found::File(attempt, _), Some(_)) => no(format!("the output of {attempt} is a file")),
        }
    }

    fn run(&self, outlet: &Outlet) -> Result<(), Stop> {
        match self {
            Answer::Rows { maps, schema, partition } => {
                outlet.schema(schema)?;
                let most = maps.iter().flat_map(|(_, output)| &output.runs).map(Run::partitions).max();
                let partitions = match *partition {
                    Some(partition) => partition..partition.saturating_add(1),
                    None => 0..most.unwrap_or(0),
                };
                for partition in partitions {
                    for (attempt, output) in maps {
                        rows(outlet, attempt, output, partition)?;
                    }
                }
                Ok(())
            }
            Answer::Dictionaries { maps, run } => {
                outlet.schema(&dictionary_schema())?;
                maps.iter().try_for_each(|(attempt, output)| dictionary(outlet, attempt, output, *run))
            }
            Answer::Part { attempt, file, offset, length } => part(outlet, attempt, file, *offset, *length),
        }
    }
}

fn meta(attempt: &AttemptId, run: usize, partition: u32) -> v1::BatchMeta {
    v1::BatchMeta { index: attempt.task.index, attempt: attempt.attempt, run: run as u32, partition }
}

fn rows(outlet: &Outlet, attempt: &AttemptId, output: &MapOutput, partition: u32) -> Result<(), Stop> {
    for (number, run) in output.runs.iter().enumerate() {
        let meta = meta(attempt, number, partition);
        for piece in 0..run.pieces(partition) {
            if let Some(bytes) = run.stored(partition, piece) {
                let make = || {
                    let batch = run.piece(partition, piece).map_err(|e| unreadable(&e))?;
                    wire::batch_message(&batch, meta.encode_to_vec().into()).map_err(|e| unreadable(&e))
                };
                outlet.send(bytes as usize, true, make)?;
                continue;
            }
            let batch = run.piece(partition, piece).map_err(|e| unreadable(&e))?;
            for batch in cut::pieces(&batch) {
                outlet.batch(&batch, meta)?;
            }
        }
    }
    Ok(())
}

fn dictionary(outlet: &Outlet, attempt: &AttemptId, output: &MapOutput, run: usize) -> Result<(), Stop> {
    let texts = output.runs[run].dictionary().map_err(|e| unreadable(&e))?;
    let batch = RecordBatch::try_new(dictionary_schema(), vec![Arc::new(texts)]);
    let batch = batch.map_err(|e| unreadable(&e))?;
    let mut pieces = cut::pieces(&batch);
    if pieces.is_empty() {
        // The reader is told that there is nothing.
        pieces.push(batch);
    }
    pieces.iter().try_for_each(|piece| outlet.batch(piece, meta(attempt, run, 0)))
}

fn part(
    outlet: &Outlet,
    attempt: &AttemptId,
    file: &FileOutput,
    offset: u64,
    length: u64,
) -> Result<(), Stop> {
    outlet.schema(&wire::bytes_schema())?;
    for at in (0..length).step_by(FILE_PART) {
        let take = (length - at).min(FILE_PART as u64) as usize;
        let make = || {
            let bytes = file.read(offset + at, take).map_err(|e| unreadable(&e))?;
            let batch = wire::bytes_batch(&bytes).map_err(|e| unreadable(&e))?;
            let meta = meta(attempt, 0, 0).encode_to_vec();
            wire::batch_message(&batch, meta.into()).map_err(|e| unreadable(&e))
        };
        outlet.send(take, true, make)?;
    }
    Ok(())
}
