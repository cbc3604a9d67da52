//! The sending end of an output migration: reads an output from the store and sends it to another worker.
//!
//! Not here: which outputs go where (the coordinator), the report of the result (the agent).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_array::RecordBatch;
use arrow_flight::{FlightData, FlightDescriptor};
use arrow_schema::ArrowError;
use futures::stream;
use prost::Message;
use tally_proto::v1::migration_meta::Part;
use tally_proto::{AttemptId, v1};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::client::Client;
use super::{FILE_PART, wire};
use crate::peers::OutputLocation;
use crate::store::{FileOutput, MapOutput, Output, Run, Store, StoreError, cut, dictionary_schema};

/// Refusals that may be temporary: no room, too many migrations, or a job that is not known yet.
const REFUSALS: [Code; 2] = [Code::ResourceExhausted, Code::NotFound];

/// An output was not migrated. The receiver has kept nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// It no longer exists here: the job was released.
    #[error("the output of {0} no longer exists on this worker")]
    Removed(AttemptId),
    /// The receiver has no room, is busy, or does not know the job. A retry may succeed.
    #[error("worker {worker} refused the output of {attempt}: {reason}")]
    Refused {
        /// The receiver.
        worker: String,
        /// The attempt that made the output.
        attempt: AttemptId,
        /// Its response.
        reason: String,
    },
    /// The connection broke, or the output is invalid.
    #[error("the output of {attempt} could not be migrated to worker {worker}: {reason}")]
    Failed {
        /// The receiver.
        worker: String,
        /// The attempt that made the output.
        attempt: AttemptId,
        /// The error.
        reason: String,
    },
}

impl Client {
    /// Migrates the output of `attempt` to the worker at `to`. When it returns, the receiver has the complete output.
    /// The local output stays until it is removed.
    ///
    /// # Errors
    /// [`MigrationError`].
    pub async fn migrate_out(
        &self,
        to: &OutputLocation,
        store: &Arc<Store>,
        attempt: &AttemptId,
    ) -> Result<(), MigrationError> {
        let removed = || MigrationError::Removed(attempt.clone());
        let (output, result) = store.get_with_result(attempt).ok_or_else(removed)?;
        let key = store.key(&attempt.task.job).ok_or_else(removed)?;
        let worker = || to.worker.to_string();
        let failed =
            |reason: String| MigrationError::Failed { worker: worker(), attempt: attempt.clone(), reason };
        let header = header(attempt, result, &output, &key);
        let put = self.put(to, header, output);
        match put.await {
            Ok(()) => Ok(()),
            Err(status) if REFUSALS.contains(&status.code()) => Err(MigrationError::Refused {
                worker: worker(),
                attempt: attempt.clone(),
                reason: status.message().to_string(),
            }),
            Err(status) => Err(failed(format!("{:?}: {}", status.code(), status.message()))),
        }
    }

    async fn put(&self, to: &OutputLocation, header: FlightData, output: Output) -> Result<(), Status> {
        let (mut service, peer) = self.service(&to.address)?;
        let (sender, messages) = mpsc::channel(1);
        let output_sender = OutputSender { sender, runtime: Handle::current() };
        // Reading spilled runs and encoding may block, so they do not run on the runtime's threads.
        let reading = tokio::task::spawn_blocking(move || output_sender.send_output(header, &output));
        let traffic = self.traffic().clone();
        let counted = stream::unfold((messages, traffic), |(mut messages, traffic)| async move {
            let message: FlightData = messages.recv().await?;
            traffic.sent.fetch_add(message.data_body.len() as u64, Ordering::Relaxed);
            Some((message, (messages, traffic)))
        });
        // A slow receiver is waited for, and one that is lost is not.
        peer.wait(async {
            let mut answer = service.do_put(counted).await?.into_inner();
            let answer = answer.message().await?;
            answer.ok_or_else(|| Status::unknown("it did not confirm the output")).map(|_| ())
        })
        .await?;
        let read = reading.await.map_err(|e| Status::internal(e.to_string()))?;
        // The receiver has confirmed the output, so an error of the sender does not matter.
        if let Err(error) = read {
            tracing::debug!(%error, "an output was confirmed before it was sent completely");
        }
        Ok(())
    }
}

fn header(attempt: &AttemptId, result: v1::TaskResult, output: &Output, key: &[u8]) -> FlightData {
    let (runs, file_bytes) = match output {
        Output::Map(output) => {
            let header = |run: &Run| v1::RunHeader {
                offsets: run.offsets().to_vec(),
                items: run.items().to_vec(),
                texts: run.strings(),
                checksums: run.sums().map(|sums| sums.partitions.clone()).unwrap_or_default(),
                dictionary: run.sums().map(|sums| sums.dictionary),
            };
            (output.runs.iter().map(header).collect(), 0)
        }
        Output::File(file) => (vec![], file.len()),
    };
    let header = v1::MigrationHeader {
        attempt: Some(attempt.into()),
        result: Some(result),
        key: key.to_vec(),
        runs,
        file_bytes,
    };
    FlightData::new().with_descriptor(FlightDescriptor::new_cmd(header.encode_to_vec()))
}

/// Why sending stopped.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the receiver closed the stream")]
    Removed,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Reads an output and sends it, on a thread that may block. If reading fails, the stream ends, and the receiver
/// detects the missing part.
struct OutputSender {
    sender: mpsc::Sender<FlightData>,
    runtime: Handle,
}

impl OutputSender {
    fn send_output(&self, header: FlightData, output: &Output) -> Result<(), SendError> {
        self.send(header)?;
        match output {
            Output::Map(output) => self.map(output),
            Output::File(file) => self.file(file),
        }
    }

    fn send(&self, message: FlightData) -> Result<(), SendError> {
        self.runtime.block_on(self.sender.send(message)).map_err(|_| SendError::Removed)
    }

    fn batch(&self, batch: &RecordBatch, run: usize, part: Part) -> Result<(), SendError> {
        let meta = v1::MigrationMeta { run: run as u32, part: Some(part) };
        self.send(wire::batch_message(batch, meta.encode_to_vec().into())?)
    }

    fn map(&self, output: &MapOutput) -> Result<(), SendError> {
        for (number, run) in output.runs.iter().enumerate() {
            self.send(wire::schema_message(run.schema()))?;
            for partition in 0..run.partitions() {
                for piece in 0..run.pieces(partition) {
                    for batch in cut::pieces(&run.piece(partition, piece)?) {
                        self.batch(&batch, number, Part::Partition(partition))?;
                    }
                }
            }
            self.send(wire::schema_message(&dictionary_schema()))?;
            let strings = RecordBatch::try_new(dictionary_schema(), vec![Arc::new(run.dictionary()?)])?;
            for batch in cut::pieces(&strings) {
                self.batch(&batch, number, Part::Dictionary(true))?;
            }
        }
        Ok(())
    }

    fn file(&self, file: &FileOutput) -> Result<(), SendError> {
        self.send(wire::schema_message(&wire::bytes_schema()))?;
        for at in (0..file.len()).step_by(FILE_PART) {
            let take = (file.len() - at).min(FILE_PART as u64) as usize;
            self.batch(&wire::bytes_batch(&file.read(at, take)?)?, 0, Part::File(true))?;
        }
        Ok(())
    }
}
