//! One worker as the coordinator knows it: what it said of itself, the way to it, its orders.
//!
//! Not here: who is a member at all (`cluster`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tally_proto::convert::BadMessage;
use tally_proto::{AttemptId, JobId, OLDEST_PROTOCOL, PROTOCOL, WorkerId, v1};
use tokio::sync::mpsc::error::TrySendError;

use super::message::{Outbound, Outgoing};
use crate::fleet::Order;

/// The first version in which the inputs of reduce orders come before them.
const SHARED_INPUTS: u32 = 2;
/// More slots than any machine has.
const MOST_SLOTS: u32 = 4096;
/// Longer texts are no address and no version.
const MOST_TEXT: usize = 256;

/// A worker's first words, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Version of the protocol that it speaks.
    pub protocol: u32,
    /// This life of the worker.
    pub worker: WorkerId,
    /// Version of its program.
    pub version: String,
    /// Attempts at a time.
    pub slots: u32,
    /// Bytes.
    pub memory_limit: u64,
    /// Where other workers reach its outputs, `host:port`.
    pub flight_address: String,
    /// The highest epoch that it was welcomed in.
    pub epoch: u64,
    /// It wants to go.
    pub draining: bool,
    /// Bytes of tables that one of its reduce tasks may use.
    pub reduce_table_bytes: u64,
}

/// A hello that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The versions of the protocol do not fit.
    #[error(
        "the worker speaks version {0} of the protocol, this coordinator {OLDEST_PROTOCOL} to {PROTOCOL}: upgrade the older one"
    )]
    Protocol(u32),
    /// The id.
    #[error("the worker's id: {0}")]
    Id(#[from] BadMessage),
    /// The slots.
    #[error("the worker offers {0} slots: offer 1 to {MOST_SLOTS}")]
    Slots(u32),
    /// The address.
    #[error("the worker's Flight address {0:?} is no host:port")]
    Address(String),
    /// The version's text.
    #[error("the worker's version is longer than {MOST_TEXT} bytes")]
    Version,
}

impl TryFrom<v1::Hello> for Hello {
    type Error = HelloError;

    fn try_from(hello: v1::Hello) -> Result<Self, HelloError> {
        if !(OLDEST_PROTOCOL..=PROTOCOL).contains(&hello.protocol) {
            return Err(HelloError::Protocol(hello.protocol));
        }
        let worker = WorkerId::parse(&hello.worker).map_err(BadMessage::from)?;
        if !(1..=MOST_SLOTS).contains(&hello.slots) {
            return Err(HelloError::Slots(hello.slots));
        }
        if !is_host_port(&hello.flight_address) {
            return Err(HelloError::Address(hello.flight_address.chars().take(80).collect()));
        }
        if hello.version.len() > MOST_TEXT {
            return Err(HelloError::Version);
        }
        Ok(Hello {
            protocol: hello.protocol,
            worker,
            version: hello.version,
            slots: hello.slots,
            memory_limit: hello.memory_limit,
            flight_address: hello.flight_address,
            epoch: hello.epoch,
            draining: hello.draining,
            reduce_table_bytes: hello.reduce_table_bytes,
        })
    }
}

fn is_host_port(text: &str) -> bool {
    if text.len() > MOST_TEXT {
        return false;
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let plain = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    match text.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && plain(host) && port.parse::<u16>().is_ok_and(|p| p != 0),
        None => false,
    }
}

/// A worker that is attached, or broke off a moment ago.
#[derive(Debug)]
pub struct Member {
    /// What it said of itself.
    pub hello: Hello,
    /// Which of its streams is the latest.
    pub generation: u64,
    /// It was ordered these and has not reported their ends.
    pub running: BTreeSet<AttemptId>,
    /// It takes no more tasks.
    pub draining: bool,
    /// Its last heartbeat.
    pub beat: Arc<Mutex<v1::Heartbeat>>,
    /// The driver's scheduler knows it.
    pub joined: bool,
    way: Option<Outgoing>,
    /// The version of each job's reduce inputs that its stream has.
    inputs: BTreeMap<JobId, u64>,
}

impl Member {
    pub(super) fn new(hello: Hello, generation: u64) -> Self {
        let draining = hello.draining;
        Member {
            hello,
            generation,
            running: BTreeSet::new(),
            draining,
            beat: Arc::default(),
            joined: false,
            way: None,
            inputs: BTreeMap::new(),
        }
    }

    /// Whether a hello comes from the same process.
    pub(super) fn same_life(&self, hello: &Hello) -> bool {
        self.hello.slots == hello.slots && self.hello.flight_address == hello.flight_address
    }

    /// Closes the way; the stream of that generation is the one that counts from now on.
    pub fn cut(&mut self, generation: u64) {
        self.way = None;
        self.generation = generation;
    }

    pub(super) fn open(&mut self, way: Outgoing) {
        self.way = Some(way);
        self.inputs.clear();
    }

    /// Bytes of its memory that are not in use, as far as it told.
    pub fn room(&self) -> u64 {
        self.hello.memory_limit.saturating_sub(self.beat.lock().memory_used)
    }

    /// How it stands, for people; what it holds is not known here.
    pub fn status(&self) -> v1::WorkerStatus {
        let beat = *self.beat.lock();
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
        }
    }

    /// Whether it can be told something now.
    pub fn attached(&self) -> bool {
        self.way.is_some()
    }

    /// Sends it an order, and before that what it reads, unless its stream has that already.
    pub(super) fn order(&mut self, epoch: u64, job: &JobId, mut order: Order) -> Result<(), String> {
        if self.hello.protocol >= SHARED_INPUTS
            && let Some(inputs) = order.inputs.take()
            && self.attached()
            && self.inputs.insert(job.clone(), inputs.version()) != Some(inputs.version())
        {
            self.say(Outbound::Inputs { epoch, job: job.clone(), inputs })?;
        }
        self.say(Outbound::Order { epoch, order: Box::new(order) })
    }

    /// Tells it to drop a job.
    pub(super) fn release(&mut self, epoch: u64, job: &JobId) -> Result<(), String> {
        self.inputs.remove(job);
        let message = Some(v1::coordinator_message::Message::Release(job.to_string()));
        self.say(Outbound::Message(Box::new(v1::CoordinatorMessage { epoch, message })))
    }

    /// Sends it something; while it is away that is dropped.
    pub(super) fn say(&mut self, message: Outbound) -> Result<(), String> {
        let Some(way) = &self.way else { return Ok(()) };
        match way.try_send(message) {
            Ok(()) => Ok(()),
            // The stream just ended; its connection will say so.
            Err(TrySendError::Closed(_)) => {
                self.way = None;
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(format!(
                "worker {} does not read what it is told: {} messages wait",
                self.hello.worker,
                way.max_capacity()
            )),
        }
    }
}
