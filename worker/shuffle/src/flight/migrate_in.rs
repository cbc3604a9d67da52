//! The receiving end of an output migration: stores an output of another worker under its attempt id, with the result
//! of its task, in memory if there is room, otherwise on disk.
//!
//! The output becomes readable when it is complete. A failed migration leaves nothing. Not here: the sending end
//! (`migrate_out`), which outputs go where (the coordinator).

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow_flight::FlightData;
use prost::Message;
use tally_proto::convert::required;
use tally_proto::v1::migration_meta::Part as Sent;
use tally_proto::v1::task_result::Result as Done;
use tally_proto::{AttemptId, v1};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::ticket::same_key;
use super::wire::{self, Decoder};
use super::{Traffic, listing};
use crate::store::{
    FileWriter, Output, Rebuild, RebuildError, RunPart, RunParts, RunSums, Store, StoreError,
};

/// Maximum number of concurrent migrations to this worker.
pub const MAX_CONCURRENT: usize = 4;
/// How long a sender waits for other migrations before it is refused and may retry later.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The header of a migration, checked.
struct Header {
    attempt: AttemptId,
    result: v1::TaskResult,
    key: Vec<u8>,
    runs: Vec<RunParts>,
    file_bytes: u64,
}

/// The input of the thread that stores the output.
enum Incoming {
    Message(FlightData),
    /// The stream ended regularly. Without it, the output is incomplete.
    End,
}

fn misfit(what: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("the output migration is malformed: {what}"))
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

/// Receives one output.
///
/// # Errors
/// NOT_FOUND if the job is not known (yet), PERMISSION_DENIED, INVALID_ARGUMENT, RESOURCE_EXHAUSTED if there is no room
/// or too many migrations run, ABORTED if the stream broke. In each case nothing is kept.
pub async fn receive(
    store: Arc<Store>,
    migrations: &Semaphore,
    traffic: Arc<Traffic>,
    mut messages: Streaming<FlightData>,
) -> Result<(), Status> {
    let turn = timeout(WAIT_TIMEOUT, migrations.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        let busy = "this worker receives as many outputs as it can; retry later";
        return Err(Status::resource_exhausted(busy));
    };
    let first = next(&mut messages, &traffic).await?;
    let first = first.ok_or_else(|| misfit("it is empty"))?;
    let header = Header::read(&store, &first)?;
    if store.get(&header.attempt).is_some() {
        tracing::debug!(attempt = %header.attempt, "an output was migrated here again");
        return Ok(());
    }
    let (sender, inbox) = mpsc::channel(1);
    // Decoding and writing to disk may block, so they do not run on the runtime's threads.
    let keeping = tokio::task::spawn_blocking(move || keep(&store, header, first, inbox));
    while let Some(message) = next(&mut messages, &traffic).await? {
        if sender.send(Incoming::Message(message)).await.is_err() {
            break;
        }
    }
    // If the thread has ended, its result has the reason.
    let _ = sender.send(Incoming::End).await;
    keeping.await.map_err(|e| Status::internal(format!("the output could not be kept: {e}")))?
}

async fn next(messages: &mut Streaming<FlightData>, traffic: &Traffic) -> Result<Option<FlightData>, Status> {
    // A slow sender is waited for. The connection of one that is lost ends.
    let message = messages.message().await;
    let message = message.map_err(|e| Status::aborted(format!("the output migration broke: {e}")))?;
    if let Some(message) = &message {
        traffic.received.fetch_add(message.data_body.len() as u64, Ordering::Relaxed);
    }
    Ok(message)
}

impl Header {
    fn read(store: &Store, first: &FlightData) -> Result<Self, Status> {
        let descriptor = first.flight_descriptor.as_ref();
        let descriptor = descriptor.ok_or_else(|| misfit("its first message has no descriptor"))?;
        let header = v1::MigrationHeader::decode(descriptor.cmd.clone()).map_err(misfit)?;
        let attempt = required(header.attempt.as_ref(), "attempt").map_err(misfit)?;
        let attempt = AttemptId::try_from(attempt).map_err(misfit)?;
        // The coordinator that requests a migration also admits the job here. That message may still be in flight; a job
        // that has ended stays unknown.
        let known = store.key(&attempt.task.job);
        let unknown = || Status::not_found(format!("job {} is not known here", attempt.task.job));
        if !same_key(&known.ok_or_else(unknown)?, &header.key) {
            let what = format!("the output migration does not have the key of job {}", attempt.task.job);
            return Err(Status::permission_denied(what));
        }
        let result = required(header.result, "result").map_err(misfit)?;
        let parts = |run: v1::RunHeader| {
            let sums = |dictionary| RunSums { partitions: run.checksums, dictionary };
            let sums = run.dictionary.map(sums);
            RunParts { offsets: run.offsets, items: run.items, strings: run.texts, sums }
        };
        let runs = header.runs.into_iter().map(parts).collect();
        Ok(Header { attempt, result, key: header.key, runs, file_bytes: header.file_bytes })
    }
}

/// Stores the output, on a thread that may block.
fn keep(
    store: &Store,
    header: Header,
    first: FlightData,
    inbox: mpsc::Receiver<Incoming>,
) -> Result<(), Status> {
    let Header { attempt, result, key, runs, file_bytes } = header;
    let mut parts = Parts { decoder: Decoder::default(), first: Some(first), inbox };
    let output = match &result.result {
        Some(Done::Map(_)) => {
            let mut rebuild = Rebuild::new(store, runs)?;
            while let Some((run, part, batch)) = parts.next()? {
                let part = match part {
                    Sent::Partition(partition) => RunPart::Partition(partition),
                    Sent::Dictionary(_) => RunPart::Dictionary,
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
        _ => return Err(misfit("its result is not of a map or reduce task")),
    };
    let (rows, bytes) = listing::size(&output);
    if !store.put_migrated(&attempt, output, result, &key) {
        return Err(Status::aborted(format!("job {} was released meanwhile", attempt.task.job)));
    }
    tracing::info!(%attempt, rows, bytes, "an output was migrated to this worker");
    Ok(())
}

fn append(writer: &mut FileWriter<'_>, batch: &arrow_array::RecordBatch, most: u64) -> Result<(), Status> {
    let bytes = wire::bytes_of(batch).map_err(misfit)?;
    if writer.len() + bytes.len() as u64 > most {
        return Err(misfit("it has more bytes than its header states"));
    }
    writer.write_all(&bytes).map_err(|e| no_room(&e))
}

/// The batches of a migration, decoded one by one.
struct Parts {
    decoder: Decoder,
    first: Option<FlightData>,
    inbox: mpsc::Receiver<Incoming>,
}

impl Parts {
    /// The next batch; `None` at the regular end.
    fn next(&mut self) -> Result<Option<(u32, Sent, arrow_array::RecordBatch)>, Status> {
        loop {
            let message =
                match self.first.take().map(Incoming::Message).or_else(|| self.inbox.blocking_recv()) {
                    Some(Incoming::Message(message)) => message,
                    Some(Incoming::End) => return Ok(None),
                    None => return Err(Status::aborted("the output migration broke")),
                };
            // An output without rows or bytes has only the header.
            if message.data_header.is_empty() {
                continue;
            }
            // The buffer of the message is larger than its contents, so a batch that is kept gets its own.
            if let Some(batch) = self.decoder.take_copied(&message).map_err(misfit)? {
                let meta = v1::MigrationMeta::decode(message.app_metadata).map_err(misfit)?;
                let part = required(meta.part, "part").map_err(misfit)?;
                return Ok(Some((meta.run, part, batch)));
            }
        }
    }
}
