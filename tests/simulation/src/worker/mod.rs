//! A simulated worker process: the real agent over simulated tasks, outputs and streams. What the real shell does with
//! gRPC, timers and the search for the leader is done here with events.
//!
//! `host` is what it runs and holds, `tasks` what tasks do, `outputs` and `fetch` its data plane. Not here: which
//! processes run (`cluster`).

pub mod fetch;
pub mod host;
pub mod outputs;
mod tasks;

use std::collections::VecDeque;
use std::time::Duration;

use prost::Message as _;
use tally_proto::report::Report;
use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::v1::worker_message::Message as Up;
use tally_proto::{AttemptId, LEADER_METADATA, WorkerId, v1};
use tally_shuffle::flight::MigrationError;
use tally_worker::agent::{AgentConfig, AgentCore, AgentInput, AgentOutput, ShutdownRequest, StreamError};
use tonic::Status;

use self::host::Host;
use crate::cluster::Shared;
use crate::coordinator;
use crate::event::{Done, End, Event, Wire};
use crate::tasks::Owner;
use crate::world::{self, MILLISECOND, Micros, SECOND, say};

/// Messages under way to a coordinator beyond which the others wait.
const WINDOW: usize = 4;
/// How long a coordinator may take to accept a worker.
const WELCOME_TIME: Micros = 10 * SECOND;
/// The pauses between attempts to attach: the first and the longest.
const PAUSES: [Micros; 2] = [100 * MILLISECOND, 2 * SECOND];
/// Bytes of a page of an inventory beside its entries.
const PAGE_HEAD: usize = 2;
/// A number of attempts that no task of a schedule has in one term.
const UNUSED_ATTEMPTS: u32 = 1000;
/// How long the last message may take to be delivered.
const GOODBYE_TIME: Micros = SECOND / 10;

/// A worker process.
pub struct Worker {
    /// This life of the process.
    pub owner: Owner,
    /// What it runs and holds.
    pub host: Host,
    core: AgentCore,
    slots: usize,
    page_bytes: usize,
    started: Micros,
    incarnations: u32,
    /// The stream that it is attached by.
    attached: Option<usize>,
    /// The stream on which it waits for a welcome.
    opening: Option<usize>,
    /// The coordinators of this round that are not tried yet.
    round: Option<VecDeque<usize>>,
    /// The coordinator that accepted the connection.
    found: usize,
    last_leader: Option<usize>,
    pause: Micros,
    tick_at: Micros,
    /// When it exits, however many read its outputs.
    exits_at: Option<Micros>,
}

fn id(owner: Owner, incarnation: u32) -> Option<WorkerId> {
    WorkerId::parse(&format!("w{}-{}-{incarnation}", owner.process, owner.life)).ok()
}

impl Worker {
    /// A worker that starts; `None` if its id is invalid.
    pub fn start(
        owner: Owner,
        slots: usize,
        drain_timeout: Micros,
        page_bytes: usize,
        shared: &mut Shared,
    ) -> Option<Self> {
        let host = Host::new(id(owner, 0)?, owner, slots, fetch::address(owner.process));
        let drain_timeout = Duration::from_micros(drain_timeout);
        let mut it = Worker {
            owner,
            host,
            core: AgentCore::new(AgentConfig { drain_timeout, slots, page_bytes }),
            slots,
            page_bytes,
            started: world::now(),
            incarnations: 0,
            attached: None,
            opening: None,
            round: None,
            found: 0,
            last_leader: None,
            pause: PAUSES[0],
            tick_at: Micros::MAX,
            exits_at: None,
        };
        it.step(AgentInput::Begun, shared);
        Some(it)
    }

    /// Passes an input to the agent, and carries out what it wants.
    pub fn step(&mut self, input: AgentInput, shared: &mut Shared) {
        let mut inputs = VecDeque::from([input]);
        loop {
            while let Some(input) = inputs.pop_front() {
                let now = Duration::from_micros(world::now() - self.started);
                let outputs = self.core.step(now, input, &mut self.host);
                for output in outputs {
                    self.carry_out(output, &mut inputs, shared);
                }
                self.spawn_started(shared);
            }
            let Some(stream) = self.attached else { break };
            if !self.core.wants_to_send() || shared.network.under_way(stream, End::Coordinator) >= WINDOW {
                break;
            }
            inputs.push_back(AgentInput::SendRoom);
        }
        self.plan_tick();
    }

    fn plan_tick(&mut self) {
        let Some(due) = self.core.next_wakeup() else { return };
        let due = self.started + u64::try_from(due.as_micros()).unwrap_or(Micros::MAX >> 1);
        let due = due.max(world::now() + 1000);
        if due < self.tick_at {
            self.tick_at = due;
            world::with(|world| world.at(due, Event::Tick(self.owner)));
        }
    }

    /// What is due at this time.
    pub fn tick(&mut self, shared: &mut Shared) {
        if world::now() >= self.tick_at {
            self.tick_at = Micros::MAX;
            self.step(AgentInput::Tick, shared);
        }
    }

    fn spawn_started(&mut self, shared: &mut Shared) {
        let (owner, worker) = (self.owner, self.host.id.clone());
        for started in self.host.started.drain(..) {
            let worker = worker.clone();
            shared.tasks.spawn(owner, async move {
                let (attempt, outcome) = tasks::run(owner, started).await;
                Done::Ended(Box::new(Report { worker, attempt, outcome }))
            });
        }
    }

    fn carry_out(&mut self, output: AgentOutput, inputs: &mut VecDeque<AgentInput>, shared: &mut Shared) {
        let owner = self.owner;
        match output {
            AgentOutput::Pause => {
                self.close(shared);
                let pause = world::draw(|rng| rng.between(self.pause / 2, self.pause));
                self.pause = (self.pause * 2).min(PAUSES[1]);
                world::after(pause, Event::Paused(owner));
            }
            AgentOutput::FindLeader => {
                let latency = world::draw(|rng| rng.between(MILLISECOND, 3 * MILLISECOND));
                world::after(latency, Event::Connected(owner));
            }
            AgentOutput::Open(hello) => {
                let coordinator = shared.owner_of(self.found);
                let stream = shared.network.open(owner, coordinator);
                shared.network.send(stream, End::Coordinator, Wire::Hello(hello));
                self.opening = Some(stream);
                world::after(WELCOME_TIME, Event::NoWelcome(owner, stream));
            }
            AgentOutput::Send(message) => {
                self.check_page(&message);
                if let Some(stream) = self.attached {
                    shared.network.send(stream, End::Coordinator, Wire::Up(message));
                }
            }
            AgentOutput::Close => self.close(shared),
            AgentOutput::Goodbye { clean } => {
                if let Some(stream) = self.attached {
                    let goodbye = Wire::Up(Up::Goodbye(v1::Goodbye { clean }));
                    shared.network.send(stream, End::Coordinator, goodbye);
                    self.close(shared);
                }
            }
            AgentOutput::NewIncarnation => {
                say!("worker {} becomes another incarnation", owner.process);
                shared.tasks.kill(owner);
                self.incarnations += 1;
                if let Some(id) = id(owner, self.incarnations) {
                    self.host = Host::new(id, owner, self.slots, fetch::address(owner.process));
                }
                inputs.push_back(AgentInput::Begun);
            }
            AgentOutput::Migrate { to, attempt } => {
                shared.tasks.spawn(owner, async move {
                    let worker = to.worker.clone();
                    let outcome = fetch::migrate(owner, to, attempt.clone()).await;
                    Done::Migrated(attempt, worker, outcome)
                });
            }
            AgentOutput::Exit { outcome, streams } => {
                say!("worker {} exits: {outcome:?}", owner.process);
                if let Err(rejection) = &outcome {
                    world::violated(|| format!("worker {} was rejected: {rejection:?}", owner.process));
                }
                let streams = u64::try_from(streams.as_micros()).unwrap_or(0);
                self.exits_at = Some(world::now() + GOODBYE_TIME + streams);
                world::after(GOODBYE_TIME, Event::Exit(owner));
            }
        }
    }

    /// A page of an inventory has one entry, or is within the bounds of a message.
    fn check_page(&self, message: &Up) {
        if let Up::Inventory(page) = message
            && page.outputs.len() + page.running.len() > 1
            && page.encoded_len() > self.page_bytes + PAGE_HEAD
        {
            let (bytes, most) = (page.encoded_len(), self.page_bytes);
            world::violated(|| format!("a page of an inventory has {bytes} bytes instead of up to {most}"));
        }
    }

    /// Reports a result of this worker as that of another task, which it was never sent.
    pub fn report_unsolicited(&self, shared: &mut Shared) {
        let held = world::with(|world| {
            let outputs = &world.processes[self.owner.process].outputs;
            outputs.iter().next().map(|(attempt, held)| (attempt.clone(), held.result.clone()))
        });
        let (Some(stream), Some((mut attempt, result))) = (self.attached, held) else { return };
        attempt.task.index ^= 1;
        attempt.attempt += UNUSED_ATTEMPTS;
        say!("worker {} reports {attempt}, which it did not run", self.owner.process);
        let outcome = Some(v1::ended::Outcome::Done(result));
        let ended = v1::Ended { attempt: Some((&attempt).into()), outcome };
        shared.network.send(stream, End::Coordinator, Wire::Up(Up::Ended(ended)));
    }

    /// Whether the process ends now. Readers of its outputs may finish first.
    pub fn may_exit(&self) -> bool {
        let serving = world::with(|world| world.processes[self.owner.process].outputs.serving);
        if serving == 0 || self.exits_at.is_none_or(|at| at <= world::now()) {
            return true;
        }
        world::after(GOODBYE_TIME, Event::Exit(self.owner));
        false
    }

    fn close(&mut self, shared: &mut Shared) {
        for stream in [self.attached.take(), self.opening.take()].into_iter().flatten() {
            shared.network.close(stream, End::Worker);
        }
    }

    /// A pause is over.
    pub fn paused(&mut self, shared: &mut Shared) {
        self.step(AgentInput::Paused, shared);
    }

    /// A connection attempt: to the next coordinator that accepts one.
    pub fn connected(&mut self, shared: &mut Shared) {
        let mut round = self.round.take().unwrap_or_else(|| {
            let mut round: VecDeque<usize> = shared.known_coordinators().into();
            if let Some(last) = self.last_leader {
                // Consul decides which coordinator leads. In a list, the last leader is the most likely one.
                let named = round.front().filter(|_| shared.uses_consul);
                let place = usize::from(named.is_some_and(|named| *named != last));
                round.retain(|one| *one != last);
                round.insert(place.min(round.len()), last);
            }
            round
        });
        while let Some(process) = round.pop_front() {
            if world::with(|world| world.processes[process].alive) {
                (self.found, self.round) = (process, Some(round));
                let address = coordinator::address(process);
                return self.step(AgentInput::LeaderFound { address }, shared);
            }
        }
        self.step(AgentInput::NoLeader { reason: "none leads".into() }, shared);
    }

    /// A coordinator did not answer.
    pub fn no_welcome(&mut self, stream: usize, shared: &mut Shared) {
        if self.opening == Some(stream) {
            self.refused(Status::deadline_exceeded("no welcome"), shared);
        }
    }

    fn refused(&mut self, status: Status, shared: &mut Shared) {
        self.close(shared);
        self.last_leader.take_if(|last| *last == self.found);
        let hint = status.metadata().get(LEADER_METADATA).and_then(|named| named.to_str().ok());
        let hint = hint.and_then(|named| shared.coordinator_at(named)).filter(|hint| *hint != self.found);
        if let (Some(hint), Some(round)) = (hint, &mut self.round) {
            round.retain(|one| *one != hint);
            round.push_front(hint);
        }
        self.step(AgentInput::Refused(status), shared);
    }

    /// A message of a coordinator; `None` at the end of the stream.
    pub fn receive(&mut self, stream: usize, wire: Option<Wire>, shared: &mut Shared) {
        if self.opening == Some(stream) {
            return match wire {
                Some(Wire::Down(v1::CoordinatorMessage { epoch, message: Some(Down::Welcome(welcome)) })) => {
                    (self.attached, self.opening) = (self.opening.take(), None);
                    (self.last_leader, self.round, self.pause) = (Some(self.found), None, PAUSES[0]);
                    self.step(AgentInput::Opened { epoch, welcome }, shared);
                }
                Some(Wire::Refused(status)) => self.refused(status, shared),
                Some(_) => self.refused(Status::internal("the first message was not a welcome"), shared),
                None => self.refused(Status::unavailable("the stream broke"), shared),
            };
        }
        if self.attached != Some(stream) {
            return;
        }
        match wire {
            Some(Wire::Down(message)) => self.message(message, shared),
            Some(_) => {}
            None => {
                self.close(shared);
                self.step(AgentInput::StreamEnded(StreamError::Closed), shared);
            }
        }
    }

    fn message(&mut self, message: v1::CoordinatorMessage, shared: &mut Shared) {
        let (known, spoken) = (self.core.epoch(), message.epoch);
        let starts = matches!(message.message, Some(Down::Start(_)));
        let running = self.host.running().count();
        self.step(AgentInput::Message(message), shared);
        if spoken < known && starts && self.host.running().count() > running {
            world::violated(|| {
                format!("worker {} obeys epoch {spoken} after epoch {known}", self.owner.process)
            });
        }
        if self.core.epoch() < known {
            world::violated(|| format!("worker {} forgot epoch {known}", self.owner.process));
        }
    }

    /// The stream has room for another message.
    pub fn room(&mut self, stream: usize, shared: &mut Shared) {
        if self.attached == Some(stream)
            && self.core.wants_to_send()
            && shared.network.under_way(stream, End::Coordinator) < WINDOW
        {
            self.step(AgentInput::SendRoom, shared);
        }
    }

    /// A migration ended.
    pub fn migrated(
        &mut self,
        attempt: AttemptId,
        to: WorkerId,
        outcome: Result<(), MigrationError>,
        shared: &mut Shared,
    ) {
        say!("worker {}: the output of {attempt} to {to}: {outcome:?}", self.owner.process);
        self.step(AgentInput::MigrationEnded { attempt, to, outcome }, shared);
    }

    /// A task ended.
    pub fn ended(&mut self, report: Report, shared: &mut Shared) {
        say!("worker {}: {} ended: {}", self.owner.process, report.attempt, outcome_text(&report));
        self.host.ended(&report.attempt);
        self.step(AgentInput::Ended(report), shared);
    }

    /// A request to drain or to leave.
    pub fn request(&mut self, at_once: bool, shared: &mut Shared) {
        let request = if at_once { ShutdownRequest::Leave } else { ShutdownRequest::Drain };
        self.step(AgentInput::Shutdown(request), shared);
    }
}

fn outcome_text(report: &Report) -> String {
    match &report.outcome {
        Ok(_) => "done".into(),
        Err(failure) => format!("{failure:?}"),
    }
}
