//! One term of a simulated leader: the real driver, and the real watch of each worker's stream.
//!
//! Not here: the driver's I/O (`coordinator`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tally_coordinator::cluster::{
    AttachError, Hello, HelloError, OUTBOX, Outbound, StreamInput, StreamWatch, WorkerInput,
};
use tally_coordinator::driver::{Driver, DriverInput, DriverParts, Output, Resumed};
use tally_coordinator::history::Registry;
use tally_coordinator::publish::staging::Staging;
use tally_proto::v1;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_scan::footer::Footers;
use tally_scheduler::ConfigError;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::{address, now, timing};
use crate::event::{End, Event, Wire};
use crate::network::Network;
use crate::tasks::Owner;
use crate::world::{self, Micros, say};

/// Messages under way to a worker beyond which the others wait in their channel.
const WINDOW: usize = 32;

/// One worker's stream.
struct Served {
    /// `None` once the stream is over for the driver.
    watch: Option<StreamWatch>,
    /// When silence is checked.
    due: Duration,
    messages: mpsc::Receiver<Outbound>,
}

/// A term.
pub struct Term {
    owner: Owner,
    /// The epoch.
    pub epoch: u64,
    /// The statuses of jobs.
    pub registry: Arc<Registry>,
    /// The cache of footers.
    pub footers: Arc<Footers>,
    driver: Driver,
    streams: BTreeMap<usize, Served>,
}

/// The refusal of a coordinator that does not lead.
pub fn not_leading(leader: Option<Owner>) -> Status {
    let mut status = Status::failed_precondition("this coordinator does not lead");
    if let Some(leader) = leader
        && let Ok(named) = address(leader.process).parse()
    {
        status.metadata_mut().insert(tally_proto::LEADER_METADATA, named);
    }
    status
}

/// Refuses a worker.
pub fn refuse(stream: usize, status: Status, network: &mut Network) {
    if network.is_open(stream, End::Coordinator) {
        network.send(stream, End::Worker, Wire::Refused(status));
        network.close(stream, End::Coordinator);
    }
}

fn refusal(error: &AttachError) -> Status {
    match error {
        AttachError::NewerEpoch(_) => Status::failed_precondition(error.to_string()),
        AttachError::Removed(_) => Status::already_exists(error.to_string()),
        AttachError::DuplicateId(_) => Status::invalid_argument(error.to_string()),
    }
}

/// A message for a worker, as it arrives there.
fn message(outbound: Outbound) -> v1::CoordinatorMessage {
    let (epoch, message) = match outbound {
        Outbound::Message(message) => return *message,
        Outbound::Dispatch { epoch, dispatch } => (epoch, Some(Down::Start(dispatch.head))),
        Outbound::Inputs { epoch, job, inputs } => {
            let packed = v1::ReduceInputs::decode(inputs.packed(&job)).unwrap_or_default();
            (epoch, Some(Down::Inputs(packed)))
        }
        Outbound::Options { epoch, job, options } => {
            let packed = v1::JobOptions::decode(options.packed(&job)).unwrap_or_default();
            (epoch, Some(Down::Options(packed)))
        }
    };
    v1::CoordinatorMessage { epoch, message }
}

impl Term {
    /// Begins a term.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn begin(
        owner: Owner,
        epoch: u64,
        registry: Arc<Registry>,
        parts: DriverParts,
    ) -> Result<Self, ConfigError> {
        let driver = Driver::new(parts, now(owner))?;
        let footers = Arc::new(Footers::new(1 << 20));
        Ok(Term { owner, epoch, registry, footers, driver, streams: BTreeMap::new() })
    }

    /// Takes over the jobs of earlier leaders.
    pub fn resume(&mut self, jobs: Vec<Resumed>, settle: Duration) -> Vec<Output> {
        self.driver.resume(now(self.owner), jobs, settle)
    }

    /// Passes an input to the driver.
    pub fn step(&mut self, input: DriverInput) -> Vec<Output> {
        self.driver.step(now(self.owner), input)
    }

    /// What is due: silence of workers, the driver's timers.
    pub fn tick(&mut self) -> Vec<Output> {
        let now = now(self.owner);
        let mut outputs = vec![];
        for served in self.streams.values_mut().filter(|served| served.due <= now.elapsed) {
            let Some(watch) = &mut served.watch else { continue };
            if let Some(input) = watch.step(now.elapsed, StreamInput::Tick) {
                outputs.extend(self.driver.step(now, DriverInput::Worker(Box::new(input))));
            }
            served.wait(now.elapsed);
        }
        if self.driver.next_wakeup() <= now.elapsed {
            outputs.extend(self.driver.step(now, DriverInput::Tick));
        }
        outputs
    }

    /// When something is due.
    pub fn next_wakeup(&self) -> Micros {
        let watched = self.streams.values().filter(|served| served.watch.is_some());
        let due = watched.map(|served| served.due).fold(self.driver.next_wakeup(), Duration::min);
        u64::try_from(due.as_micros()).unwrap_or(Micros::MAX)
    }

    /// A message of a worker; `None` at the end of its stream.
    pub fn receive(&mut self, stream: usize, wire: Option<Wire>, network: &mut Network) -> Vec<Output> {
        let now = now(self.owner);
        let input = match wire {
            Some(Wire::Hello(hello)) => return self.hello(stream, hello, network),
            Some(Wire::Up(message)) => {
                StreamInput::Message(Box::new(v1::WorkerMessage { message: Some(message) }))
            }
            Some(Wire::Down(_) | Wire::Refused(_)) => return vec![],
            None => StreamInput::Ended("it broke".into()),
        };
        let ended = matches!(input, StreamInput::Ended(_));
        let Some(served) = self.streams.get_mut(&stream) else { return vec![] };
        let told = served.watch.as_mut().and_then(|watch| watch.step(now.elapsed, input));
        served.wait(now.elapsed);
        if ended {
            // The end of the stream drops the channel's receiver.
            self.streams.remove(&stream);
            network.close(stream, End::Coordinator);
        }
        told.map_or_else(Vec::new, |input| self.driver.step(now, DriverInput::Worker(Box::new(input))))
    }

    fn hello(&mut self, stream: usize, hello: v1::Hello, network: &mut Network) -> Vec<Output> {
        let now = now(self.owner);
        let hello = match Hello::try_from(hello) {
            Ok(hello) => hello,
            Err(error) => {
                let status = match error {
                    HelloError::Protocol(_) => Status::unimplemented(error.to_string()),
                    error => Status::invalid_argument(error.to_string()),
                };
                refuse(stream, status, network);
                return vec![];
            }
        };
        let (worker, slots) = (hello.worker.clone(), hello.slots as usize);
        say!("coordinator {} receives the hello of {worker}", self.owner.process);
        let (reply, mut answer) = oneshot::channel();
        let input = WorkerInput::Hello(hello, reply);
        let outputs = self.driver.step(now, DriverInput::Worker(Box::new(input)));
        let attached = match answer.try_recv() {
            Ok(Ok(attached)) => attached,
            Ok(Err(error)) => {
                refuse(stream, refusal(&error), network);
                return outputs;
            }
            Err(_) => {
                world::violated(|| format!("the hello of {worker} was not answered"));
                return outputs;
            }
        };
        let (channel, messages) = mpsc::channel(OUTBOX + 2 * slots);
        let timing = timing();
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let welcome = v1::Welcome {
            heartbeat_millis: millis(timing.heartbeat),
            timeout_millis: millis(timing.timeout),
        };
        let welcome = v1::CoordinatorMessage { epoch: attached.epoch, message: Some(Down::Welcome(welcome)) };
        // The new channel has room.
        let _ = channel.try_send(Outbound::Message(Box::new(welcome)));
        let watch = StreamWatch::new(worker, attached, channel, timing.timeout, now.elapsed);
        let mut served = Served { watch: Some(watch), due: Duration::MAX, messages };
        served.wait(now.elapsed);
        self.streams.insert(stream, served);
        self.next_beat(stream);
        outputs
    }

    fn next_beat(&self, stream: usize) {
        let beat = u64::try_from(timing().heartbeat.as_micros()).unwrap_or(Micros::MAX);
        world::after(beat, Event::Beat(stream));
    }

    /// Sends a beat on a stream.
    pub fn beat(&mut self, stream: usize, network: &mut Network) {
        if !self.streams.contains_key(&stream) {
            return;
        }
        if network.under_way(stream, End::Worker) < WINDOW {
            let message = Some(Down::Beat(v1::Beat {}));
            let beat = v1::CoordinatorMessage { epoch: self.epoch, message };
            network.send(stream, End::Worker, Wire::Down(beat));
        }
        self.next_beat(stream);
    }

    /// Sends what waits in the channels of workers, and closes the streams that the driver closed.
    pub fn send_waiting(&mut self, network: &mut Network) {
        let mut closed = vec![];
        for (&stream, served) in &mut self.streams {
            while network.under_way(stream, End::Worker) < WINDOW {
                match served.messages.try_recv() {
                    Ok(outbound) => network.send(stream, End::Worker, Wire::Down(message(outbound))),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        closed.push(stream);
                        break;
                    }
                }
            }
        }
        for stream in closed {
            self.streams.remove(&stream);
            network.close(stream, End::Coordinator);
        }
    }

    /// Ends the term. Returns what is to be dropped where code may wait for files.
    #[must_use]
    pub fn leave(self, deposed: bool, network: &mut Network) -> Vec<Staging> {
        for stream in self.streams.keys() {
            network.close(*stream, End::Coordinator);
        }
        self.driver.leave(deposed)
    }
}

impl Served {
    /// Waits for the next message.
    fn wait(&mut self, now: Duration) {
        match self.watch.as_mut().and_then(|watch| watch.next_wakeup(now)) {
            Some(due) => self.due = due,
            None => (self.watch, self.due) = (None, Duration::MAX),
        }
    }
}
