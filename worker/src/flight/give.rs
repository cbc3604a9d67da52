//! The giving end of a hand-over: an output read from the store and put at another worker.
//!
//! Not here: which outputs go where (the coordinator), what is told afterwards (the agent).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow_flight::{FlightData, FlightDescriptor};
use futures::stream;
use prost::Message;
use tally_proto::v1::hand_over_meta::Part;
use tally_proto::{AttemptId, v1};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::client::Client;
use super::{FILE_PART, wire};
use crate::peers::Place;
use crate::store::{FileOutput, MapOutput, Output, Run, Store, StoreError, cut, dictionary_schema};

/// How long the other end may take nothing.
const STALL: Duration = Duration::from_secs(20);
/// What may be otherwise a moment later: no room or no time, or a job that is not known yet.
const REFUSALS: [Code; 2] = [Code::ResourceExhausted, Code::NotFound];

/// An output was not handed over; the other worker has nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// It is not here: the job was released, or somebody else took it.
    #[error("the output of {0} is not here any more")]
    Gone(AttemptId),
    /// The other has no room for it or no time, or does not know the job: that may change.
    #[error("worker {worker} does not take the output of {attempt}: {reason}")]
    Refused {
        /// Who.
        worker: String,
        /// Whose output.
        attempt: AttemptId,
        /// What it said.
        reason: String,
    },
    /// The way broke, or something is wrong with the output.
    #[error("the output of {attempt} could not be handed over to worker {worker}: {reason}")]
    Failed {
        /// To whom.
        worker: String,
        /// Whose output.
        attempt: AttemptId,
        /// What happened.
        reason: String,
    },
}

impl Client {
    /// Hands the output of `attempt` over to the worker at `to`. When it returns, the other has all
    /// of it; here it stays until it is removed.
    ///
    /// # Errors
    /// [`HandOverError`].
    pub async fn hand_over(
        &self,
        to: &Place,
        store: &Arc<Store>,
        attempt: &AttemptId,
    ) -> Result<(), HandOverError> {
        let gone = || HandOverError::Gone(attempt.clone());
        let (output, result) = store.get_with_result(attempt).ok_or_else(gone)?;
        let key = store.key(&attempt.task.job).ok_or_else(gone)?;
        let worker = || to.worker.to_string();
        let failed =
            |reason: String| HandOverError::Failed { worker: worker(), attempt: attempt.clone(), reason };
        let header = header(attempt, result, &output, &key);
        let put = self.put(to, header, output);
        match put.await {
            Ok(()) => Ok(()),
            Err(status) if REFUSALS.contains(&status.code()) => Err(HandOverError::Refused {
                worker: worker(),
                attempt: attempt.clone(),
                reason: status.message().to_string(),
            }),
            Err(status) => Err(failed(format!("{:?}: {}", status.code(), status.message()))),
        }
    }

    async fn put(&self, to: &Place, header: FlightData, output: Output) -> Result<(), Status> {
        let mut service = self.service(&to.address)?;
        let (sender, messages) = mpsc::channel(1);
        let taken = Arc::new(AtomicU64::new(0));
        let giver = Giver { sender, runtime: Handle::current() };
        // Reading spilled runs and encoding are no work for the runtime's own threads.
        let reading = tokio::task::spawn_blocking(move || giver.give(header, &output));
        let messages = stream::unfold((messages, taken.clone()), |(mut messages, taken)| async move {
            let message = messages.recv().await?;
            taken.fetch_add(1, Ordering::Relaxed);
            Some((message, (messages, taken)))
        });
        let traffic = self.traffic().clone();
        let counted = futures::StreamExt::inspect(messages, move |message: &FlightData| {
            traffic.sent.fetch_add(message.data_body.len() as u64, Ordering::Relaxed);
        });
        let answer = async {
            let mut answer = service.do_put(counted).await?.into_inner();
            let answer = answer.message().await?;
            answer.ok_or_else(|| Status::unknown("it did not confirm the output")).map(|_| ())
        };
        tokio::select! {
            answer = answer => answer?,
            () = stalled(&taken) => {
                return Err(Status::deadline_exceeded(format!("it took nothing for {} s", STALL.as_secs())));
            }
        }
        let read = reading.await.map_err(|e| Status::internal(e.to_string()))?;
        // It has confirmed: what stopped the reading stopped nothing that it needed.
        if let Err(error) = read {
            tracing::debug!(%error, "an output was confirmed before it was all sent");
        }
        Ok(())
    }
}

/// Returns when nothing was taken for too long.
async fn stalled(taken: &AtomicU64) {
    loop {
        let before = taken.load(Ordering::Relaxed);
        tokio::time::sleep(STALL).await;
        if taken.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

fn header(attempt: &AttemptId, result: v1::TaskResult, output: &Output, key: &[u8]) -> FlightData {
    let (runs, file_bytes) = match output {
        Output::Map(output) => {
            let header = |run: &Run| v1::RunHeader {
                offsets: run.offsets().to_vec(),
                items: run.items().to_vec(),
                texts: run.texts(),
                checksums: run.sums().map(|sums| sums.partitions.clone()).unwrap_or_default(),
                dictionary: run.sums().map(|sums| sums.dictionary),
            };
            (output.runs.iter().map(header).collect(), 0)
        }
        Output::File(file) => (vec![], file.len()),
    };
    let header = v1::HandOverHeader {
        attempt: Some(attempt.into()),
        result: Some(result),
        key: key.to_vec(),
        runs,
        file_bytes,
    };
    FlightData::new().with_descriptor(FlightDescriptor::new_cmd(header.encode_to_vec()))
}

/// Why no more is given.
#[derive(Debug, thiserror::Error)]
enum GiveError {
    #[error("the other end takes no more")]
    Gone,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Reads an output and sends it, on a thread that may block. Where reading fails it just ends: the
/// other end sees that something is missing.
struct Giver {
    sender: mpsc::Sender<FlightData>,
    runtime: Handle,
}

impl Giver {
    fn give(&self, header: FlightData, output: &Output) -> Result<(), GiveError> {
        self.send(header)?;
        match output {
            Output::Map(output) => self.map(output),
            Output::File(file) => self.file(file),
        }
    }

    fn send(&self, message: FlightData) -> Result<(), GiveError> {
        let send = self.sender.send_timeout(message, STALL);
        self.runtime.block_on(send).map_err(|_| GiveError::Gone)
    }

    fn batch(&self, batch: &RecordBatch, run: usize, part: Part) -> Result<(), GiveError> {
        let meta = v1::HandOverMeta { run: run as u32, part: Some(part) };
        self.send(wire::batch_message(batch, meta.encode_to_vec().into())?)
    }

    fn map(&self, output: &MapOutput) -> Result<(), GiveError> {
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
            let texts = RecordBatch::try_new(dictionary_schema(), vec![Arc::new(run.dictionary()?)])?;
            for batch in cut::pieces(&texts) {
                self.batch(&batch, number, Part::Dictionary(true))?;
            }
        }
        Ok(())
    }

    fn file(&self, file: &FileOutput) -> Result<(), GiveError> {
        self.send(wire::schema_message(&wire::bytes_schema()))?;
        for at in (0..file.len()).step_by(FILE_PART) {
            let take = (file.len() - at).min(FILE_PART as u64) as usize;
            self.batch(&wire::bytes_batch(&file.read(at, take)?)?, 0, Part::File(true))?;
        }
        Ok(())
    }
}
