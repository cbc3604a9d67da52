//! The events of a schedule.
//!
//! Not here: what follows from one (`cluster`).

use std::rc::Rc;

use tally_coordinator::driver::{AfterRecord, DriverInput, Resumed};
use tally_coordinator::journal::JournalError;
use tally_coordinator::journal::log::EpochLog;
use tally_proto::report::Report;
use tally_proto::{AttemptId, WorkerId, v1};
use tally_shuffle::flight::MigrationError;
use tonic::Status;

use crate::faults::Fault;
use crate::signal::Signal;
use crate::store::ops::OpId;
use crate::tasks::Owner;

/// An event.
pub enum Event {
    /// The store applies a request.
    Apply(OpId),
    /// The answer to a request arrives.
    Answer(OpId),
    /// A call of a process on files goes on.
    File(Owner, u64),
    /// Something that a future waits for happens.
    Wake(Rc<Signal>),
    /// A message arrives at one end of a stream.
    Arrive(Box<Arrival>),
    /// One end of a stream learns that the stream is over.
    Ended(usize, End),
    /// A process has something to do at this time.
    Tick(Owner),
    /// A coordinator sends a beat on a stream that was silent.
    Beat(usize),
    /// A worker's connection attempt succeeds or not.
    Connected(Owner),
    /// A worker's pause between two attempts is over.
    Paused(Owner),
    /// A worker gives up on an attach that is not answered.
    NoWelcome(Owner, usize),
    /// A coordinator looks at the election.
    Campaign(Owner),
    /// A session of the election ends.
    Expire(Owner),
    /// A process that was paused continues.
    Resume(usize),
    /// A dead process starts again.
    Start(usize),
    /// A process ends by itself.
    Exit(Owner),
    /// A fault.
    Fault(Fault),
    /// A client does its next step.
    Client(usize),
    /// A client cancels its job.
    Cancel(usize),
    /// Faults end.
    Calm,
}

/// The ends of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The worker.
    Worker,
    /// The coordinator.
    Coordinator,
}

/// A message that arrives.
pub struct Arrival {
    /// The stream.
    pub stream: usize,
    /// The message.
    pub wire: Wire,
}

/// A message on a stream.
#[derive(Debug)]
pub enum Wire {
    /// A worker's first message.
    Hello(v1::Hello),
    /// A worker's message.
    Up(v1::worker_message::Message),
    /// A coordinator's message.
    Down(v1::CoordinatorMessage),
    /// A coordinator's refusal, which ends the stream.
    Refused(Status),
}

/// What a future of a process returns.
pub enum Done {
    /// A coordinator claimed an epoch, or not.
    Claimed(Result<(Box<EpochLog>, Vec<Resumed>), JournalError>),
    /// A record was appended, or not.
    Appended(Box<EpochLog>, AfterRecord, Result<(), JournalError>),
    /// The driver's work in an epoch is done.
    Input(u64, Box<DriverInput>),
    /// A task ended.
    Ended(Box<Report>),
    /// A migration ended.
    Migrated(AttemptId, WorkerId, Result<(), MigrationError>),
    /// The collection of garbage at the end.
    Swept(Vec<String>),
}
