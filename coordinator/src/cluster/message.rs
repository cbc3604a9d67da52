//! The messages between connections of workers and the driver. Data only.

use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message;
use tally_proto::limits::field_len;
use tally_proto::{AttemptId, Failure, JobId, WorkerId, v1};
use tokio::sync::{mpsc, oneshot};

use super::hello::Hello;
use crate::dispatch::{SharedInputs, SharedOptions, TaskDispatch, field};

/// The channel to a worker's stream.
pub type Outgoing = mpsc::Sender<Outbound>;

/// A message for a worker's stream.
#[derive(Debug, Clone)]
pub enum Outbound {
    /// A complete message.
    Message(Box<v1::CoordinatorMessage>),
    /// A task. If it has inputs, it is for a worker of protocol 1, which takes them with the task.
    Dispatch {
        /// The sender's term.
        epoch: u64,
        /// The task.
        dispatch: Box<TaskDispatch>,
    },
    /// The inputs of the reduce tasks of a job that follow.
    Inputs {
        /// The sender's term.
        epoch: u64,
        /// The job.
        job: JobId,
        /// The inputs.
        inputs: Arc<SharedInputs>,
    },
    /// The options of the dataset of a job whose tasks follow.
    Options {
        /// The sender's term.
        epoch: u64,
        /// The job.
        job: JobId,
        /// The options.
        options: Arc<SharedOptions>,
    },
}

impl Outbound {
    /// The size of the encoded message.
    pub fn encoded_len(&self) -> usize {
        let epoch_len = |epoch| v1::CoordinatorMessage { epoch, message: None }.encoded_len();
        match self {
            Outbound::Message(message) => message.encoded_len(),
            Outbound::Dispatch { epoch, dispatch } => {
                epoch_len(*epoch) + field_len(field::START, dispatch.encoded_len())
            }
            Outbound::Inputs { epoch, job, inputs } => {
                epoch_len(*epoch) + field_len(field::INPUTS, inputs.packed(job).len())
            }
            Outbound::Options { epoch, job, options } => {
                epoch_len(*epoch) + field_len(field::OPTIONS, options.packed(job).len())
            }
        }
    }
}

/// An accepted worker.
#[derive(Debug, Clone, Copy)]
pub struct Attached {
    /// The generation of this stream.
    pub generation: u64,
    /// The leader's term.
    pub epoch: u64,
}

/// The last heartbeat on a worker's stream.
#[derive(Debug, Default)]
pub struct LastBeat {
    /// Its content.
    pub heartbeat: v1::Heartbeat,
    /// Heartbeats on the stream so far.
    pub count: u64,
}

/// A worker that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// A later leader has welcomed it.
    #[error(
        "the worker was welcomed in epoch {0}, later than this coordinator's: either this coordinator is about to stop, or the worker belongs to another cluster and must be restarted"
    )]
    NewerEpoch(u64),
    /// It counts as lost.
    #[error("worker {0} counts as lost: it must drop everything and attach under a new id")]
    Removed(WorkerId),
    /// Another worker has its id.
    #[error("worker {0} is attached with other slots or another address: start each worker under its own id")]
    DuplicateId(WorkerId),
}

/// What a worker holds and runs.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The outputs of finished tasks, with their results.
    pub outputs: Vec<(AttemptId, v1::TaskResult)>,
    /// Running attempts.
    pub running: Vec<AttemptId>,
}

/// A report of an attached worker.
#[derive(Debug)]
pub enum WorkerUpdate {
    /// An attempt ended.
    Ended(AttemptId, Result<v1::TaskResult, Failure>),
    /// An output was migrated to another worker.
    OutputMigrated(AttemptId, WorkerId),
    /// An output was not migrated to that worker, for the given reason.
    MigrationFailed(AttemptId, WorkerId, String),
    /// The worker wants to drain.
    Draining,
    /// The worker leaves.
    Goodbye {
        /// All needed outputs were migrated.
        clean: bool,
    },
}

/// An input of the driver from a worker's connection, or from a client that asks about workers.
#[derive(Debug)]
pub enum WorkerInput {
    /// A worker sent its hello.
    Hello(Hello, oneshot::Sender<Result<Attached, AttachError>>),
    /// A worker whose inventory is not complete yet sent a part of it, or a heartbeat.
    Attaching {
        /// The worker.
        worker: WorkerId,
        /// Its stream.
        generation: u64,
    },
    /// A worker's inventory is complete: it takes tasks from now on.
    Attached {
        /// The worker.
        worker: WorkerId,
        /// Its stream.
        generation: u64,
        /// The channel to its stream.
        channel: Outgoing,
        /// What it has.
        inventory: Inventory,
        /// Its last heartbeat; the connection updates it.
        beat: Arc<Mutex<LastBeat>>,
    },
    /// A worker sent a report.
    Update {
        /// The worker.
        worker: WorkerId,
        /// Its stream.
        generation: u64,
        /// The report.
        update: WorkerUpdate,
    },
    /// A worker's stream ended.
    Broken {
        /// The worker.
        worker: WorkerId,
        /// Its stream.
        generation: u64,
    },
    /// A worker's stream ended, and its address refuses connections: its process has ended.
    Gone {
        /// The worker.
        worker: WorkerId,
        /// Its stream.
        generation: u64,
    },
    /// A worker was silent for too long.
    Silent {
        /// The worker.
        worker: WorkerId,
        /// Its stream.
        generation: u64,
    },
    /// Lists up to that many workers, after the given id.
    List(Option<WorkerId>, usize, oneshot::Sender<(Vec<v1::WorkerStatus>, bool)>),
    /// Drains a worker. The answer is `None` if the worker is unknown.
    Drain(WorkerId, oneshot::Sender<Option<v1::WorkerStatus>>),
}
