//! What connections tell the driver, and what goes back to a worker. Data only.

use std::sync::Arc;

use parking_lot::Mutex;
use tally_proto::{AttemptId, Failure, JobId, WorkerId, v1};
use tokio::sync::{mpsc, oneshot};

use super::member::Hello;
use crate::fleet::{Order, SharedInputs};

/// The way to a worker's stream.
pub type Outgoing = mpsc::Sender<Outbound>;

/// Something for a worker's stream.
#[derive(Debug, Clone)]
pub enum Outbound {
    /// A message as it is.
    Message(Box<v1::CoordinatorMessage>),
    /// A task order; one with inputs is for a worker of protocol 1, which takes them in the order.
    Order {
        /// The sender's term.
        epoch: u64,
        /// The order.
        order: Box<Order>,
    },
    /// What reduce orders of a job that follow read.
    Inputs {
        /// The sender's term.
        epoch: u64,
        /// The job.
        job: JobId,
        /// What they read.
        inputs: Arc<SharedInputs>,
    },
}

/// A worker that was let in.
#[derive(Debug, Clone, Copy)]
pub struct Attached {
    /// Which of its streams this is.
    pub generation: u64,
    /// The leader's term.
    pub epoch: u64,
}

/// Why a worker is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It was welcomed by a later leader.
    #[error(
        "the worker was welcomed in epoch {0}, later than this coordinator's: either this one is about to stop, or the worker belongs to another cluster and must be started anew"
    )]
    NewerEpoch(u64),
    /// It was lost before.
    #[error("worker {0} was given up: drop everything and come back under a new id")]
    GivenUp(WorkerId),
    /// Another one has its id.
    #[error("worker {0} is attached with other slots or another address: start it under its own id")]
    Twin(WorkerId),
}

/// What a worker holds and runs.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Finished tasks' outputs, with their results.
    pub outputs: Vec<(AttemptId, v1::TaskResult)>,
    /// Attempts that run.
    pub running: Vec<AttemptId>,
}

/// What a worker says while it is attached.
#[derive(Debug)]
pub enum Said {
    /// An attempt is over.
    Ended(AttemptId, Result<v1::TaskResult, Failure>),
    /// An output was taken over by another worker.
    Moved(AttemptId, WorkerId),
    /// It was to be, and was not, for this reason.
    NotMoved(AttemptId, WorkerId, String),
    /// It wants to go.
    Draining,
    /// It goes; whether all that was needed is elsewhere.
    Goodbye {
        /// Everything was handed over.
        clean: bool,
    },
}

/// What connections, and those who ask about workers, tell the driver.
#[derive(Debug)]
pub enum WorkerInput {
    /// A worker said hello.
    Hello(Hello, oneshot::Sender<Result<Attached, Refused>>),
    /// Its inventory is complete: it takes orders by this way from now on.
    Attached {
        /// The worker.
        worker: WorkerId,
        /// Its stream.
        generation: u64,
        /// How it is reached.
        way: Outgoing,
        /// What it has.
        inventory: Inventory,
        /// The last heartbeat, as it comes in.
        beat: Arc<Mutex<v1::Heartbeat>>,
    },
    /// It said something.
    Said {
        /// The worker.
        worker: WorkerId,
        /// Its stream.
        generation: u64,
        /// What.
        said: Said,
    },
    /// Its stream ended.
    Broken {
        /// The worker.
        worker: WorkerId,
        /// Its stream.
        generation: u64,
    },
    /// It was silent for too long, or stayed away for too long after its stream ended.
    Away {
        /// The worker.
        worker: WorkerId,
        /// Its last stream.
        generation: u64,
        /// What was seen.
        why: &'static str,
    },
    /// Somebody asks for workers, from the one after that id on.
    List(Option<WorkerId>, usize, oneshot::Sender<(Vec<v1::WorkerStatus>, bool)>),
    /// Somebody wants a worker to go; `None` is answered where there is no such worker.
    Drain(WorkerId, oneshot::Sender<Option<v1::WorkerStatus>>),
}
