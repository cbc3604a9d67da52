//! The receiving end of a hand-over: an output of another worker, under its own attempt id, with its
//! task's result; kept in memory where there is room, else on disk.
//!
//! It is readable once all of it is here, and not before; a hand-over that breaks leaves nothing.
//! Not here: the giving end (`give`), which outputs go where (the coordinator).

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow_flight::FlightData;
use prost::Message;
use tally_proto::convert::required;
use tally_proto::v1::hand_over_meta::Part as Sent;
use tally_proto::v1::task_result::Result as Done;
use tally_proto::{AttemptId, v1};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::ticket::same_key;
use super::wire::{self, Decoder};
use super::{Traffic, listing};
use crate::store::{FileWriter, Output, Part, Rebuild, RebuildError, RunParts, RunSums, Store, StoreError};

/// Outputs taken over at a time.
pub const AT_ONCE: usize = 4;
/// How long a giver waits for others to end before it is told to come back later; less than it
/// waits for a taker that takes nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the giver may send nothing.
const STALL: Duration = Duration::from_secs(10);

/// What a giver announces, checked.
struct Header {
    attempt: AttemptId,
    result: v1::TaskResult,
    key: Vec<u8>,
    runs: Vec<RunParts>,
    file_bytes: u64,
}

/// What becomes of the messages.
enum Given {
    Message(FlightData),
    /// Nothing follows: without it, the rest is lost.
    End,
}

fn misfit(what: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("the hand-over is malformed: {what}"))
}

fn no_room(error: &dyn std::fmt::Display) -> Status {
    Status::resource_exhausted(format!("this worker has no room for the output: {error}"))
}

impl From<RebuildError> for Status {
    fn from(error: RebuildError) -> Self {
        match error {
            RebuildError::Store(StoreError::Spill(error)) => no_room(&error),
            other => misfit(other),
        }
    }
}

/// Takes one output over.
///
/// # Errors
/// NOT_FOUND where the job is not known (yet), PERMISSION_DENIED, INVALID_ARGUMENT,
/// RESOURCE_EXHAUSTED where there is no room or no time, ABORTED where it broke: in each case nothing
/// is kept.
pub async fn take(
    store: Arc<Store>,
    puts: &Semaphore,
    traffic: Arc<Traffic>,
    mut messages: Streaming<FlightData>,
) -> Result<(), Status> {
    let turn = timeout(PATIENCE, puts.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        let busy = "this worker takes over as many outputs as it can; come back later";
        return Err(Status::resource_exhausted(busy));
    };
    let first = next(&mut messages, &traffic).await?;
    let first = first.ok_or_else(|| misfit("it is empty"))?;
    let header = Header::read(&store, &first)?;
    if store.get(&header.attempt).is_some() {
        tracing::debug!(attempt = %header.attempt, "an output that is here already was handed over again");
        return Ok(());
    }
    let (sender, inbox) = mpsc::channel(1);
    // Decoding and writing to disk are no work for the runtime's own threads.
    let keeping = tokio::task::spawn_blocking(move || keep(&store, header, first, inbox));
    while let Some(message) = next(&mut messages, &traffic).await? {
        if sender.send(Given::Message(message)).await.is_err() {
            break;
        }
    }
    // Where it is gone, it says why.
    let _ = sender.send(Given::End).await;
    keeping.await.map_err(|e| Status::internal(format!("keeping the output failed: {e}")))?
}

async fn next(messages: &mut Streaming<FlightData>, traffic: &Traffic) -> Result<Option<FlightData>, Status> {
    let silent = |_| Status::aborted(format!("the hand-over stopped for {} s", STALL.as_secs()));
    let message = timeout(STALL, messages.message()).await.map_err(silent)?;
    let message = message.map_err(|e| Status::aborted(format!("the hand-over broke: {e}")))?;
    if let Some(message) = &message {
        traffic.received.fetch_add(message.data_body.len() as u64, Ordering::Relaxed);
    }
    Ok(message)
}

impl Header {
    fn read(store: &Store, first: &FlightData) -> Result<Self, Status> {
        let descriptor = first.flight_descriptor.as_ref();
        let descriptor = descriptor.ok_or_else(|| misfit("its first message has no descriptor"))?;
        let header = v1::HandOverHeader::decode(descriptor.cmd.clone()).map_err(misfit)?;
        let attempt = required(header.attempt.as_ref(), "attempt").map_err(misfit)?;
        let attempt = AttemptId::try_from(attempt).map_err(misfit)?;
        // Whoever orders a hand-over lets the taker know of the job, which may be under way yet; a
        // job that is over is unknown for good.
        let known = store.key(&attempt.task.job);
        let unknown = || Status::not_found(format!("job {} is not known here", attempt.task.job));
        if !same_key(&known.ok_or_else(unknown)?, &header.key) {
            let what = format!("the hand-over does not show the key of job {}", attempt.task.job);
            return Err(Status::permission_denied(what));
        }
        let result = required(header.result, "result").map_err(misfit)?;
        let parts = |run: v1::RunHeader| {
            let sums = |dictionary| RunSums { partitions: run.checksums, dictionary };
            let sums = run.dictionary.map(sums);
            RunParts { offsets: run.offsets, items: run.items, texts: run.texts, sums }
        };
        let runs = header.runs.into_iter().map(parts).collect();
        Ok(Header { attempt, result, key: header.key, runs, file_bytes: header.file_bytes })
    }
}

/// Puts the output together, on a thread that may block.
fn keep(
    store: &Store,
    header: Header,
    first: FlightData,
    inbox: mpsc::Receiver<Given>,
) -> Result<(), Status> {
    let Header { attempt, result, key, runs, file_bytes } = header;
    let mut parts = Parts { decoder: Decoder::default(), first: Some(first), inbox };
    let output = match &result.result {
        Some(Done::Map(_)) => {
            let mut rebuild = Rebuild::new(store, runs)?;
            while let Some((run, part, batch)) = parts.next()? {
                let part = match part {
                    Sent::Partition(partition) => Part::Partition(partition),
                    Sent::Dictionary(_) => Part::Dictionary,
                    Sent::File(_) => return Err(misfit("a map output has no file")),
                };
                rebuild.take(run, part, batch)?;
            }
            Output::Map(rebuild.finish()?.0)
        }
        Some(Done::Reduce(_)) => {
            let mut writer = store.file_writer();
            while let Some((_, _, batch)) = parts.next()? {
                append(&mut writer, &batch, file_bytes)?;
            }
            let (file, bytes) = writer.finish();
            if bytes != file_bytes {
                return Err(misfit(format!("it has {bytes} bytes instead of {file_bytes}")));
            }
            Output::File(file)
        }
        _ => return Err(misfit("its result is of no task that has an output")),
    };
    let (rows, bytes) = listing::size(&output);
    if !store.put_handed_over(&attempt, output, result, &key) {
        return Err(Status::aborted(format!("job {} was released meanwhile", attempt.task.job)));
    }
    tracing::info!(%attempt, rows, bytes, "took an output over");
    Ok(())
}

fn append(writer: &mut FileWriter<'_>, batch: &arrow::array::RecordBatch, most: u64) -> Result<(), Status> {
    let bytes = wire::bytes_of(batch).map_err(misfit)?;
    if writer.len() + bytes.len() as u64 > most {
        return Err(misfit("more bytes come than were announced"));
    }
    writer.write_all(&bytes).map_err(|e| no_room(&e))
}

/// The batches of a hand-over, decoded one by one.
struct Parts {
    decoder: Decoder,
    first: Option<FlightData>,
    inbox: mpsc::Receiver<Given>,
}

impl Parts {
    /// The next batch; `None` where the giver said that it was the last.
    fn next(&mut self) -> Result<Option<(u32, Sent, arrow::array::RecordBatch)>, Status> {
        loop {
            let message = match self.first.take().map(Given::Message).or_else(|| self.inbox.blocking_recv()) {
                Some(Given::Message(message)) => message,
                Some(Given::End) => return Ok(None),
                None => return Err(Status::aborted("the hand-over broke")),
            };
            // An output without rows or bytes has nothing but its header.
            if message.data_header.is_empty() {
                continue;
            }
            // The message's buffer is larger than what it holds: an output that stays has its own.
            if let Some(batch) = self.decoder.take_copied(&message).map_err(misfit)? {
                let meta = v1::HandOverMeta::decode(message.app_metadata).map_err(misfit)?;
                let part = required(meta.part, "part").map_err(misfit)?;
                return Ok(Some((meta.run, part, batch)));
            }
        }
    }
}
