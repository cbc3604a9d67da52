//! The streams of `do_get`: outputs are read and encoded on threads that may block, as fast as the reader accepts them,
//! within limits on streams and bytes.
//!
//! A stream waits for a slow reader without a time limit: if the reader is lost, its connection ends, and the stream with
//! it. A stream that ends early for another reason ends with a status. Not here: access control (`ticket`), the limits
//! (`gate`), which readers are lost (`server`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_flight::FlightData;
use arrow_schema::{Schema, SchemaRef};
use futures::Stream;
use parking_lot::Mutex;
use prost::Message;
use tally_proto::v1::ticket::What;
use tally_proto::{AttemptId, v1};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tonic::Status;

use super::gate::{ServingGuard, StreamPermit, UNIT, WAIT_TIMEOUT, busy};
use super::ticket::{Request, ResolvedOutputs};
use super::{FILE_PART, MESSAGE_LIMIT, wire};
use crate::store::{FileOutput, MapOutput, Run, cut, dictionary_schema};

/// How long a read from the spill directory may take before its stream fails. The reader cannot notice a disk that hangs,
/// because this process still answers its pings.
const DISK_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval at which waiting streams check it.
const DISK_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes for headers in addition to a batch's buffers.
const OVERHEAD: usize = 4 << 10;

/// A message with the permit for its bytes.
type Parcel = (FlightData, OwnedSemaphorePermit);

/// The response stream of `do_get`.
pub struct Served {
    parcels: mpsc::Receiver<Result<Parcel, Status>>,
    /// The permit of the last message. It is released when the transport requests the next message.
    last: Option<OwnedSemaphorePermit>,
    disk: Arc<DiskRead>,
    disk_check: Interval,
    serving: ServingGuard,
}

/// The read from the spill directory that a stream waits for: since when.
#[derive(Debug, Default)]
struct DiskRead(Mutex<Option<Instant>>);

impl DiskRead {
    fn run<T>(&self, read: impl FnOnce() -> T) -> T {
        *self.0.lock() = Some(Instant::now());
        let result = read();
        *self.0.lock() = None;
        result
    }

    fn hangs(&self, now: Instant) -> bool {
        self.0.lock().is_some_and(|since| now.duration_since(since) >= DISK_TIMEOUT)
    }
}

impl Stream for Served {
    type Item = Result<FlightData, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.last = None;
        if let Poll::Ready(parcel) = self.parcels.poll_recv(context) {
            return Poll::Ready(parcel.map(|parcel| {
                parcel.map(|(message, counted)| {
                    let bytes = message.data_body.len() + message.data_header.len();
                    self.serving.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
                    self.last = Some(counted);
                    message
                })
            }));
        }
        while let Poll::Ready(now) = self.disk_check.poll_tick(context) {
            if self.disk.hangs(now) {
                let seconds = DISK_TIMEOUT.as_secs();
                let what = format!("the spill directory of this worker did not respond for {seconds} s");
                return Poll::Ready(Some(Err(Status::data_loss(what))));
            }
        }
        Poll::Pending
    }
}

/// Why a stream ends early.
enum StreamEnd {
    /// The reader disconnected.
    Disconnected,
    Failed(Status),
}

impl From<Status> for StreamEnd {
    fn from(status: Status) -> Self {
        StreamEnd::Failed(status)
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> StreamEnd {
    StreamEnd::Failed(Status::data_loss(format!("an output cannot be read: {error}")))
}

/// Starts the response to a ticket.
///
/// # Errors
/// INVALID_ARGUMENT if the outputs do not have the requested part.
pub fn stream(permit: StreamPermit, found: ResolvedOutputs, request: &Request) -> Result<Served, Status> {
    let StreamPermit { stream, bytes, units, serving } = permit;
    let (sender, parcels) = mpsc::channel(1);
    let disk = Arc::new(DiskRead::default());
    let numbers = Numbers::new(request);
    let mut outlet = Outlet { sender, bytes, units, runtime: Handle::current(), disk: disk.clone(), numbers };
    let job = Answer::new(found, request.what)?;
    // Reading spilled runs and encoding may block, so they do not run on the runtime's threads.
    tokio::task::spawn_blocking(move || {
        let _stream = stream;
        if let Err(StreamEnd::Failed(status)) = job.run(&mut outlet) {
            tally_common::warn_limited!(%status, "an output stream ended early");
            outlet.fail(status);
        }
    });
    let mut disk_check = interval(DISK_CHECK_INTERVAL);
    disk_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(Served { parcels, last: None, disk, disk_check, serving })
}

/// Numbers the batches of each output, and skips those that the reader has.
struct Numbers {
    /// Index and attempt of the current output.
    output: Option<(u32, u32)>,
    /// Its last number.
    last: u32,
    skip: u32,
}

impl Numbers {
    fn new(request: &Request) -> Self {
        let first = request.outputs.first().map(|first| (first.task.index, first.attempt));
        Numbers { output: first, last: 0, skip: request.skip }
    }

    /// The metadata of the next batch; `None` if the reader has the batch.
    fn next(&mut self, meta: v1::BatchMeta) -> Option<v1::BatchMeta> {
        let output = Some((meta.index, meta.attempt));
        if self.output != output {
            *self = Numbers { output, last: 0, skip: 0 };
        }
        self.last += 1;
        (self.last > self.skip).then_some(v1::BatchMeta { number: self.last, ..meta })
    }
}

struct Outlet {
    sender: mpsc::Sender<Result<Parcel, Status>>,
    bytes: Arc<Semaphore>,
    units: u32,
    runtime: Handle,
    disk: Arc<DiskRead>,
    numbers: Numbers,
}

impl Outlet {
    /// Sends the batch that `read` reads from the disk, unless the reader has it. Reading needs the `bytes` of the message
    /// again.
    fn stored(
        &mut self,
        bytes: usize,
        meta: v1::BatchMeta,
        read: impl FnOnce() -> Result<RecordBatch, StreamEnd>,
    ) -> Result<(), StreamEnd> {
        let Some(meta) = self.numbers.next(meta) else { return Ok(()) };
        let make = || message(&self.disk.run(read)?, meta);
        self.send(bytes, true, make)
    }

    /// Sends a batch in memory, unless the reader has it.
    fn batch(&mut self, batch: &RecordBatch, meta: v1::BatchMeta) -> Result<(), StreamEnd> {
        let Some(meta) = self.numbers.next(meta) else { return Ok(()) };
        self.send(cut::batch_bytes(batch), false, || message(batch, meta))
    }

    fn schema(&self, schema: &Schema) -> Result<(), StreamEnd> {
        self.send(0, false, || Ok(wire::schema_message(schema)))
    }

    /// Sends the message that `make` creates from `bytes` bytes. With `twice`, `make` needs as much memory again.
    fn send(
        &self,
        bytes: usize,
        twice: bool,
        make: impl FnOnce() -> Result<FlightData, StreamEnd>,
    ) -> Result<(), StreamEnd> {
        let units = ((bytes + OVERHEAD).div_ceil(UNIT) as u32).min(self.units / 2);
        let first = if twice { units * 2 } else { units };
        let wait = timeout(WAIT_TIMEOUT, self.bytes.clone().acquire_many_owned(first));
        let Ok(Ok(mut counted)) = self.runtime.block_on(wait) else {
            return Err(StreamEnd::Failed(busy("has too many bytes in flight")));
        };
        let message = make()?;
        if twice {
            drop(counted.split(units as usize));
        }
        if message.data_body.len() + message.data_header.len() + OVERHEAD > MESSAGE_LIMIT {
            let what =
                format!("a single row of {} bytes is too large for a message", message.data_body.len());
            return Err(StreamEnd::Failed(Status::out_of_range(what)));
        }
        self.runtime.block_on(self.sender.send(Ok((message, counted)))).map_err(|_| StreamEnd::Disconnected)
    }

    fn fail(&self, status: Status) {
        // The reader may have disconnected.
        let _ = self.runtime.block_on(self.sender.send(Err(status)));
    }
}

fn message(batch: &RecordBatch, meta: v1::BatchMeta) -> Result<FlightData, StreamEnd> {
    wire::batch_message(batch, meta.encode_to_vec().into()).map_err(|e| unreadable(&e))
}

/// The contents of a stream.
enum Answer {
    Rows { maps: Maps, schema: SchemaRef, partition: Option<u32> },
    Dictionaries { maps: Maps, run: usize },
    Part { attempt: AttemptId, file: Arc<FileOutput>, offset: u64, length: u64 },
}

type Maps = Vec<(AttemptId, Arc<MapOutput>)>;

impl Answer {
    fn new(found: ResolvedOutputs, what: Option<What>) -> Result<Self, Status> {
        let no = |what: String| Err(Status::invalid_argument(what));
        match (found, what) {
            (ResolvedOutputs::Maps(maps), Some(What::Dictionary(run))) => {
                let run = run as usize;
                match maps.iter().find(|(_, output)| run >= output.runs.len()) {
                    Some((attempt, _)) => no(format!("the output of {attempt} has no run {run}")),
                    None => Ok(Answer::Dictionaries { maps, run }),
                }
            }
            (ResolvedOutputs::Maps(maps), None | Some(What::Partition(_))) => {
                let partition = match what {
                    Some(What::Partition(partition)) => Some(partition),
                    _ => None,
                };
                let mut runs = maps.iter().flat_map(|(_, output)| &output.runs);
                let schema =
                    runs.next().map_or_else(|| Arc::new(Schema::empty()), |run| run.schema().clone());
                if runs.any(|run| *run.schema() != schema) {
                    return no(
                        "the outputs of the ticket belong to different tables: request one table at a time"
                            .into(),
                    );
                }
                Ok(Answer::Rows { maps, schema, partition })
            }
            (ResolvedOutputs::Maps(_), Some(What::Range(_))) => {
                no("a map output has no range of bytes".into())
            }
            (ResolvedOutputs::File(attempt, file), None) => {
                let length = file.len();
                Ok(Answer::Part { attempt, file, offset: 0, length })
            }
            (ResolvedOutputs::File(attempt, file), Some(What::Range(range))) => {
                let end = range.offset.checked_add(range.length);
                if end.is_none_or(|end| end > file.len()) {
                    return no(format!("the output of {attempt} has only {} bytes", file.len()));
                }
                Ok(Answer::Part { attempt, file, offset: range.offset, length: range.length })
            }
            (ResolvedOutputs::File(attempt, _), Some(_)) => no(format!("the output of {attempt} is a file")),
        }
    }

    fn run(&self, outlet: &mut Outlet) -> Result<(), StreamEnd> {
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
    let (index, attempt) = (attempt.task.index, attempt.attempt);
    v1::BatchMeta { index, attempt, run: run as u32, partition, number: 0 }
}

fn rows(
    outlet: &mut Outlet,
    attempt: &AttemptId,
    output: &MapOutput,
    partition: u32,
) -> Result<(), StreamEnd> {
    for (number, run) in output.runs.iter().enumerate() {
        let meta = meta(attempt, number, partition);
        for piece in 0..run.pieces(partition) {
            let read = || run.piece(partition, piece).map_err(|e| unreadable(&e));
            if let Some(bytes) = run.stored(partition, piece) {
                outlet.stored(bytes as usize, meta, read)?;
                continue;
            }
            for batch in cut::pieces(&read()?) {
                outlet.batch(&batch, meta)?;
            }
        }
    }
    Ok(())
}

fn dictionary(
    outlet: &mut Outlet,
    attempt: &AttemptId,
    output: &MapOutput,
    run: usize,
) -> Result<(), StreamEnd> {
    let disk = outlet.disk.clone();
    let strings = disk.run(|| output.runs[run].dictionary()).map_err(|e| unreadable(&e))?;
    let batch = RecordBatch::try_new(dictionary_schema(), vec![Arc::new(strings)]);
    let batch = batch.map_err(|e| unreadable(&e))?;
    let mut pieces = cut::pieces(&batch);
    if pieces.is_empty() {
        // An empty batch tells the reader that the dictionary is empty.
        pieces.push(batch);
    }
    pieces.iter().try_for_each(|piece| outlet.batch(piece, meta(attempt, run, 0)))
}

fn part(
    outlet: &mut Outlet,
    attempt: &AttemptId,
    file: &FileOutput,
    offset: u64,
    length: u64,
) -> Result<(), StreamEnd> {
    outlet.schema(&wire::bytes_schema())?;
    for at in (0..length).step_by(FILE_PART) {
        let take = (length - at).min(FILE_PART as u64) as usize;
        let read = || {
            let bytes = file.read(offset + at, take).map_err(|e| unreadable(&e))?;
            wire::bytes_batch(&bytes).map_err(|e| unreadable(&e))
        };
        outlet.stored(take, meta(attempt, 0, 0), read)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_numbered_by_output_and_those_of_the_first_are_skipped() {
        let of = |index, attempt| v1::BatchMeta { index, attempt, ..v1::BatchMeta::default() };
        let mut numbers = Numbers { output: Some((7, 1)), last: 0, skip: 2 };
        let sent: Vec<_> = [of(7, 1), of(7, 1), of(7, 1), of(3, 1), of(3, 1), of(3, 2)]
            .into_iter()
            .map(|meta| numbers.next(meta).map(|meta| (meta.index, meta.number)))
            .collect();
        assert_eq!(sent, [None, None, Some((7, 3)), Some((3, 1)), Some((3, 2)), Some((3, 1))]);
        // The reader has all of the first output.
        let mut numbers = Numbers { output: Some((7, 1)), last: 0, skip: 2 };
        assert_eq!(numbers.next(of(8, 1)).map(|meta| meta.number), Some(1));
    }

    #[test]
    fn a_read_that_takes_too_long_is_noticed_while_it_runs() {
        let disk = DiskRead::default();
        let start = Instant::now();
        disk.run(|| {
            assert!(!disk.hangs(start + DISK_TIMEOUT / 2));
            assert!(disk.hangs(Instant::now() + DISK_TIMEOUT));
        });
        assert!(!disk.hangs(start + DISK_TIMEOUT * 2));
    }
}
