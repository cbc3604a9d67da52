//! What the state machine of an agent receives and returns.
//!
//! Not here: what an input changes (the parent module), how outputs are carried out (`shell`).

use std::time::Duration;

use tally_proto::report::Report;
use tally_proto::{AttemptId, WorkerId, v1};
use tally_shuffle::flight::MigrationError;
use tally_shuffle::peers::OutputLocation;
use tonic::Status;

use super::rules::{ExitReason, ShutdownRequest, Stale};

/// An event. Events of a stream that was closed, and of an incarnation that ended, must not be passed later.
#[derive(Debug)]
pub enum AgentInput {
    /// The host runs a new incarnation. The first input, and the answer to [`AgentOutput::NewIncarnation`].
    Begun,
    /// Answers [`AgentOutput::Pause`]: the pause is over.
    Paused,
    /// Answers [`AgentOutput::FindLeader`]: this coordinator accepts connections, and may lead.
    LeaderFound {
        /// Its address, for messages.
        address: String,
    },
    /// Answers [`AgentOutput::FindLeader`]: no coordinator of the round leads.
    NoLeader {
        /// Why, for the log.
        reason: String,
    },
    /// Answers [`AgentOutput::Open`]: the coordinator has accepted the worker.
    Opened {
        /// The epoch of the welcome message.
        epoch: u64,
        /// The welcome message.
        welcome: v1::Welcome,
    },
    /// Answers [`AgentOutput::Open`]: the coordinator refused, did not answer in time, or the connection broke.
    Refused(Status),
    /// A message of the coordinator on the open stream.
    Message(v1::CoordinatorMessage),
    /// The open stream has room for one message. Pass it while [`AgentCore::wants_to_send`] is true; the answer is at
    /// most one [`AgentOutput::Send`].
    ///
    /// [`AgentCore::wants_to_send`]: super::AgentCore::wants_to_send
    SendRoom,
    /// The open stream ended. [`AgentOutput::Close`] is not needed.
    StreamEnded(StreamError),
    /// An attempt that the host started has ended. Each started attempt ends once.
    Ended(Report),
    /// Answers [`AgentOutput::Migrate`].
    MigrationEnded {
        /// The attempt that made the output.
        attempt: AttemptId,
        /// The receiver.
        to: WorkerId,
        /// Whether the receiver has the output now.
        outcome: Result<(), MigrationError>,
    },
    /// A user, a signal or Consul requests a shutdown.
    Shutdown(ShutdownRequest),
    /// The time of [`AgentCore::next_wakeup`] has come.
    ///
    /// [`AgentCore::next_wakeup`]: super::AgentCore::next_wakeup
    Tick,
}

/// What to do, in this order.
#[derive(Debug)]
pub enum AgentOutput {
    /// Wait between two attempts to attach, then pass [`AgentInput::Paused`].
    Pause,
    /// Find a coordinator that accepts connections, then pass [`AgentInput::LeaderFound`] or [`AgentInput::NoLeader`].
    FindLeader,
    /// Send the hello message to the coordinator that was found, and wait for the answer with a time limit. Then pass
    /// [`AgentInput::Opened`] or [`AgentInput::Refused`].
    Open(v1::Hello),
    /// Send a message on the open stream.
    Send(v1::worker_message::Message),
    /// Close the open stream.
    Close,
    /// Send the last message on the open stream, and wait briefly for its delivery. [`AgentOutput::Exit`] follows.
    Goodbye {
        /// Whether nothing that is needed is lost.
        clean: bool,
    },
    /// The coordinator has declared the worker lost: end the incarnation, begin another one under a new id, and pass
    /// [`AgentInput::Begun`].
    NewIncarnation,
    /// Migrate an output to another worker, then pass [`AgentInput::MigrationEnded`]. Migrations do not end with the
    /// stream.
    Migrate {
        /// The receiver.
        to: OutputLocation,
        /// The attempt that made the output.
        attempt: AttemptId,
    },
    /// End the incarnation, and exit. The last output.
    Exit {
        /// Why.
        outcome: Result<ExitReason, Rejection>,
        /// How long readers of outputs may take to finish.
        streams: Duration,
    },
}

/// A coordinator rejects this worker in a way that a retry does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The coordinator.
    pub address: String,
    /// Its message.
    pub reason: String,
    /// Whether the protocol versions are incompatible, rather than the hello message not accepted.
    pub version: bool,
}

/// Why a stream broke.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A former leader still sends messages.
    #[error("a message of a former leader was rejected: {0}")]
    Stale(#[from] Stale),
    /// The coordinator closed the stream.
    #[error("the coordinator closed the stream")]
    Closed,
    /// The transport or the coordinator reported an error.
    #[error("{}", .0.message())]
    Status(Status),
    /// The timeout expired.
    #[error("the coordinator sent no message before the timeout")]
    Silent,
    /// The connection does not send messages any longer.
    #[error("the coordinator no longer accepts messages")]
    SendClosed,
}
