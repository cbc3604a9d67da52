//! One worker as the coordinator knows it: its hello, the channel to its stream, its tasks.
//!
//! Not here: which workers are members (`cluster`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tally_proto::limits::{self, TooLarge};
use tally_proto::v1::coordinator_message::Message;
use tally_proto::{ALL_ROW_GROUPS, AttemptId, JobId, WorkerId, v1};
use tokio::sync::mpsc::error::TrySendError;

use super::hello::Hello;
use super::message::{LastBeat, Outbound, Outgoing};
use crate::dispatch::TaskDispatch;
use crate::fleet::DispatchError;

/// The first protocol version in which the inputs of reduce tasks are sent before the tasks.
const SHARED_INPUTS: u32 = 2;
/// The first protocol version whose workers read the footers of small files and report them.
pub(super) const READS_FOOTERS: u32 = 3;
/// The first protocol version whose workers take the options of a job's dataset.
const TAKES_OPTIONS: u32 = 4;

/// Jobs that a worker is told again to drop if its stream breaks: the last ones that it was told of. Earlier messages have
/// arrived.
const MAX_RELEASED: usize = 256;

/// A message that cannot be sent to a worker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The worker is not a member.
    #[error("there is no worker {0}")]
    Unknown(WorkerId),
    /// The worker would not accept a message of this size, and would end its stream.
    #[error("a message for worker {worker} is too large: {excess}")]
    TooLarge {
        /// The worker.
        worker: WorkerId,
        /// The size.
        excess: TooLarge,
    },
    /// The worker does not read its messages: it counts as lost.
    #[error("worker {worker} does not read its messages: {waiting} messages wait")]
    Full {
        /// The worker.
        worker: WorkerId,
        /// Messages that wait.
        waiting: usize,
    },
}

/// Why a worker is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It left after its drain.
    Drained,
    /// Another reason.
    Lost(&'static str),
}

impl Removal {
    /// The reason, as events of jobs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Removal::Drained => "it left after its drain",
            Removal::Lost(why) => why,
        }
    }
}

/// A worker that is attached, or detached a moment ago.
#[derive(Debug)]
pub struct Member {
    /// Its hello.
    pub hello: Hello,
    /// The generation of its latest stream.
    pub generation: u64,
    /// Dispatched attempts whose end it has not reported.
    pub running: BTreeSet<AttemptId>,
    /// Those of them that it was asked to stop. The message may be lost with its stream.
    pub stopped: BTreeSet<AttemptId>,
    /// It takes no further tasks.
    pub draining: bool,
    /// Its last heartbeat.
    pub beat: Arc<Mutex<LastBeat>>,
    /// When the last one was noted, by the driver's time, and its number on its stream.
    heard: (Duration, u64),
    /// Why the worker is about to be removed, for the events of jobs.
    pub removed_because: Option<Removal>,
    /// The driver's scheduler knows it.
    pub joined: bool,
    /// When it counts as lost, by the driver's time. `None` while its channel is open: then the watch of its stream
    /// reports silence.
    pub deadline: Option<Duration>,
    channel: Option<Outgoing>,
    /// The version of each job's reduce inputs that was sent on its stream.
    inputs: BTreeMap<JobId, u64>,
    /// Jobs whose dataset's options were sent on its stream.
    options: BTreeSet<JobId>,
    /// Jobs that it has to drop, and was not told of on its stream.
    unreleased: BTreeSet<JobId>,
    /// Jobs that it was told of on its stream. The messages may be lost with the stream.
    released: VecDeque<JobId>,
}

impl Member {
    pub(super) fn new(hello: Hello, generation: u64, deadline: Duration) -> Self {
        let draining = hello.draining;
        Member {
            hello,
            generation,
            running: BTreeSet::new(),
            stopped: BTreeSet::new(),
            draining,
            beat: Arc::default(),
            heard: (Duration::ZERO, 0),
            removed_because: None,
            joined: false,
            deadline: Some(deadline),
            channel: None,
            inputs: BTreeMap::new(),
            options: BTreeSet::new(),
            unreleased: BTreeSet::new(),
            released: VecDeque::new(),
        }
    }

    /// Whether a hello comes from the same process.
    pub(super) fn same_incarnation(&self, hello: &Hello) -> bool {
        self.hello.slots == hello.slots && self.hello.flight_address == hello.flight_address
    }

    /// The worker said hello again. From now on the stream of that generation counts.
    pub(super) fn attach_again(&mut self, hello: Hello, generation: u64, deadline: Duration) {
        self.cut(deadline);
        self.generation = generation;
        self.draining |= hello.draining;
        self.hello = hello;
    }

    /// Closes the channel. The worker is lost at `deadline`.
    pub(super) fn cut(&mut self, deadline: Duration) {
        self.channel = None;
        self.deadline = Some(deadline);
    }

    /// Whether the receiving end of its channel was dropped.
    pub(super) fn hung_up(&self) -> bool {
        match &self.channel {
            Some(channel) => channel.is_closed(),
            None => self.deadline.is_none(),
        }
    }

    pub(super) fn open(&mut self, channel: Outgoing) {
        self.channel = Some(channel);
        self.deadline = None;
        self.inputs.clear();
        self.options.clear();
        self.unreleased.extend(self.released.drain(..));
    }

    /// Notes the end of a dispatched attempt; false if it was not dispatched.
    pub fn ended(&mut self, attempt: &AttemptId) -> bool {
        self.stopped.remove(attempt);
        self.running.remove(attempt)
    }

    /// Asks the worker to stop an attempt.
    pub(super) fn stop(&mut self, epoch: u64, attempt: &AttemptId) -> Result<(), SendError> {
        if self.running.contains(attempt) {
            self.stopped.insert(attempt.clone());
        }
        let message = Some(Message::Stop(attempt.into()));
        self.send(Outbound::Message(Box::new(v1::CoordinatorMessage { epoch, message })))
    }

    /// Bytes of its memory that are not in use, by its last heartbeat.
    pub fn room(&self) -> u64 {
        self.hello.memory_limit.saturating_sub(self.beat.lock().heartbeat.memory_used)
    }

    /// Its status, without the number of its outputs, which is not known here.
    pub fn status(&self, now: Duration, silent_after: Duration) -> v1::WorkerStatus {
        let last = self.beat.lock();
        let beat = &last.heartbeat;
        let waits = |kind: v1::WaitKind| {
            let waits = beat.attempts.iter().filter_map(|attempt| attempt.wait.as_ref());
            u32::try_from(waits.filter(|wait| wait.kind() == kind).count()).unwrap_or(u32::MAX)
        };
        let state = match (self.attached(), self.draining) {
            (false, _) => "detached",
            (true, true) => "draining",
            (true, false) => "attached",
        };
        v1::WorkerStatus {
            worker: self.hello.worker.to_string(),
            flight_address: self.hello.flight_address.clone(),
            version: self.hello.version.clone(),
            slots: self.hello.slots,
            running: u32::try_from(self.running.len()).unwrap_or(u32::MAX),
            memory_limit: self.hello.memory_limit,
            memory_used: beat.memory_used,
            spilled_bytes: beat.spilled_bytes,
            state: state.into(),
            outputs: 0,
            heartbeat_age_millis: u64::try_from(self.heartbeat_age(now).as_millis()).unwrap_or(u64::MAX),
            silent: self.is_silent(now, silent_after),
            spill_limit: beat.spill_limit,
            spill_used: beat.spill_used,
            resident_bytes: beat.resident_bytes,
            waiting_for_memory: waits(v1::WaitKind::Memory),
            waiting_for_store: waits(v1::WaitKind::Store),
            waiting_for_workers: waits(v1::WaitKind::Worker),
        }
    }

    /// Notes whether the worker sent a heartbeat since the last call.
    pub fn hear(&mut self, now: Duration) {
        let count = self.beat.lock().count;
        if count != self.heard.1 {
            self.heard = (now, count);
        }
    }

    /// The worker attached at this time: its inventory counts as a heartbeat.
    pub fn heard_inventory(&mut self, now: Duration) {
        self.heard = (now, self.beat.lock().count);
    }

    /// The time since its last heartbeat.
    pub fn heartbeat_age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard.0)
    }

    /// Whether heartbeats of an attached worker are missing.
    pub fn is_silent(&self, now: Duration, silent_after: Duration) -> bool {
        self.attached() && self.heartbeat_age(now) >= silent_after
    }

    /// Whether its stream is open.
    pub fn attached(&self) -> bool {
        self.channel.is_some()
    }

    /// Checks that the worker's version supports a task.
    ///
    /// # Errors
    /// [`DispatchError::Unsupported`].
    pub(super) fn check_support(&self, dispatch: &TaskDispatch) -> Result<(), DispatchError> {
        if self.hello.protocol < READS_FOOTERS && reads_footers(dispatch) {
            // The job was planned before the worker attached.
            return Err(DispatchError::Unsupported(format!(
                "worker {} speaks protocol version {} and cannot read files that were planned by their size: upgrade it",
                self.hello.worker, self.hello.protocol
            )));
        }
        if self.hello.protocol < TAKES_OPTIONS && dispatch.options.is_some() {
            return Err(DispatchError::Unsupported(format!(
                "worker {} speaks protocol version {}, which has no options of datasets: upgrade it",
                self.hello.worker, self.hello.protocol
            )));
        }
        Ok(())
    }

    /// Sends a task, and before it the options of its dataset and the inputs of a reduce task unless they were sent on this
    /// stream.
    pub(super) fn dispatch(
        &mut self,
        epoch: u64,
        job: &JobId,
        mut dispatch: TaskDispatch,
    ) -> Result<(), SendError> {
        if let Some(options) = dispatch.options.take()
            && self.attached()
            && !self.options.contains(job)
        {
            self.send(Outbound::Options { epoch, job: job.clone(), options })?;
            self.options.insert(job.clone());
        }
        if self.shares_inputs()
            && let Some(inputs) = dispatch.inputs.take()
            && self.attached()
            && self.inputs.get(job) != Some(&inputs.version())
        {
            let version = inputs.version();
            self.send(Outbound::Inputs { epoch, job: job.clone(), inputs })?;
            self.inputs.insert(job.clone(), version);
        }
        self.send(Outbound::Dispatch { epoch, dispatch: Box::new(dispatch) })
    }

    /// Tells the worker to drop a job: at once, or as soon as its stream has room.
    pub(super) fn release(&mut self, epoch: u64, job: JobId) {
        self.inputs.remove(&job);
        self.options.remove(&job);
        self.unreleased.insert(job);
        self.send_releases(epoch);
    }

    /// Tells the worker which jobs to drop, as long as there is room for twice as many messages.
    pub(super) fn send_releases(&mut self, epoch: u64) {
        while let Some(channel) = &self.channel
            && channel.capacity() > channel.max_capacity() / 2
            && let Some(job) = self.unreleased.pop_first()
        {
            let message = Some(Message::Release(job.to_string()));
            let message = Outbound::Message(Box::new(v1::CoordinatorMessage { epoch, message }));
            if let Err(error) = self.send(message) {
                tracing::warn!(worker = %self.hello.worker, %job, %error, "cannot send a request to drop the job");
            }
            self.released.push_back(job);
            if self.released.len() > MAX_RELEASED {
                self.released.pop_front();
            }
        }
    }

    /// Whether the inputs of reduce tasks are sent once per stream, instead of with every task.
    pub(super) fn shares_inputs(&self) -> bool {
        self.hello.protocol >= SHARED_INPUTS
    }

    /// Sends a message. It is dropped while the worker is detached.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] and [`SendError::Full`]. Nothing was sent.
    pub(super) fn send(&mut self, message: Outbound) -> Result<(), SendError> {
        let Some(channel) = &self.channel else { return Ok(()) };
        if let Err(excess) = limits::check(message.encoded_len()) {
            return Err(SendError::TooLarge { worker: self.hello.worker.clone(), excess });
        }
        match channel.try_send(message) {
            Ok(()) => Ok(()),
            // The stream ended. The watch reports that, or the next look at deadlines finds it.
            Err(TrySendError::Closed(_)) => {
                self.channel = None;
                Ok(())
            }
            Err(TrySendError::Full(_)) => {
                let (worker, waiting) = (self.hello.worker.clone(), channel.max_capacity());
                Err(SendError::Full { worker, waiting })
            }
        }
    }
}

/// Whether the worker that runs a task must read footers and report them.
fn reads_footers(dispatch: &TaskDispatch) -> bool {
    let Some(v1::task_dispatch::Work::Map(work)) = &dispatch.head.work else { return false };
    work.pieces.iter().any(|piece| piece.row_groups == [ALL_ROW_GROUPS])
}
