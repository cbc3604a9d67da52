//! The agent as a state machine: which coordinator it attaches to, what it does with each message, what it reports, and
//! when it exits. It does no I/O, and reads no clock and no source of randomness, so that a simulator can run it.
//!
//! `messages` has its inputs and outputs, and `host` is its view of the tasks and outputs of this process. `tasks`,
//! `attached` and `migrations` are parts of its state; `outbox` and `inventory` are what is reported; `rules` has single
//! decisions. Not here: the stream, timers, and everything else that waits (`shell`).

mod attached;
mod host;
mod inventory;
mod messages;
mod migrations;
mod outbox;
mod rules;
mod tasks;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tally_proto::v1::coordinator_message::Message as Down;
use tally_proto::{AttemptId, JobId, v1};
use tonic::Status;

use attached::Attached;
pub use host::{HeldOutputs, TaskHost};
pub use inventory::PAGE_BYTES;
pub use messages::{AgentInput, AgentOutput, Rejection, StreamError};
use migrations::Migrations;
use rules::{DrainState, EpochFence, Verdict, verdict};
pub use rules::{ExitReason, Holdings, ShutdownRequest, Stale};
use tasks::Tasks;

/// Interval of the log message that no coordinator leads.
const NO_LEADER_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of unreported events, in addition to those of the slots' own attempts.
const MAX_UNREPORTED: usize = 8192;

/// The options of the state machine.
#[derive(Debug, Clone, Copy)]
pub struct AgentConfig {
    /// Maximum duration of a drain.
    pub drain_timeout: Duration,
    /// Number of concurrent tasks.
    pub slots: usize,
    /// Maximum bytes of a page of the inventory, unless a single entry is larger: [`PAGE_BYTES`].
    pub page_bytes: usize,
}

/// The state of an agent over all its incarnations. See the module documentation.
///
/// [`AgentCore::step`] takes one input and returns what to do. Pass [`AgentInput::Begun`] first, and
/// [`AgentInput::Tick`] at [`AgentCore::next_wakeup`].
pub struct AgentCore {
    config: AgentConfig,
    fence: EpochFence,
    drain_state: DrainState,
    connection: Connection,
    tasks: Tasks,
    migrations: Migrations,
    /// When the absence of a leader was last logged.
    said: Option<Duration>,
}

/// Where the agent is on its way to a coordinator.
enum Connection {
    /// It waits for the next incarnation.
    Beginning,
    /// It waits between two attempts to attach.
    Pausing(AfterPause),
    /// It waits for a coordinator to try.
    Finding,
    /// It waits for the answer of the coordinator at this address.
    Opening(String),
    /// It is attached.
    Attached(Box<Attached>),
    /// It exited.
    Exited,
}

/// What follows a pause.
#[derive(Clone, Copy)]
enum AfterPause {
    FindLeader,
    NewIncarnation,
}

impl AgentCore {
    /// An agent without an incarnation.
    pub fn new(config: AgentConfig) -> Self {
        AgentCore {
            fence: EpochFence::default(),
            drain_state: DrainState::new(config.drain_timeout),
            connection: Connection::Beginning,
            tasks: Tasks::new(MAX_UNREPORTED + config.slots),
            migrations: Migrations::default(),
            said: None,
            config,
        }
    }

    /// Processes one input at `now`, which is the time since a fixed moment and never decreases. Returns what to do, in
    /// this order. An input that does not fit the state is ignored.
    pub fn step(&mut self, now: Duration, input: AgentInput, host: &mut dyn TaskHost) -> Vec<AgentOutput> {
        let mut outputs = vec![];
        match (input, &mut self.connection) {
            (_, Connection::Exited) => {}
            (AgentInput::Shutdown(request), _) => self.request(now, request),
            (AgentInput::Ended(report), _) => self.tasks.ended(report),
            (AgentInput::MigrationEnded { attempt, to, outcome }, _) => {
                if outcome.is_ok() {
                    host.note_migrated(&attempt);
                }
                let fact = self.migrations.ended(now, &attempt, &to, outcome);
                fact.into_iter().for_each(|fact| self.tasks.outbox.push(fact));
            }
            (AgentInput::StreamEnded(why), Connection::Attached(_)) => self.stream_ended(&why, &mut outputs),
            (input, Connection::Attached(_)) => {
                if let Err(why) = self.attached(now, input, host, &mut outputs) {
                    outputs.push(AgentOutput::Close);
                    self.stream_ended(&why, &mut outputs);
                }
            }
            (input, _) => self.approach(now, input, host, &mut outputs),
        }
        self.settle(now, host, &mut outputs);
        outputs
    }

    /// Whether a message can be sent: pass [`AgentInput::SendRoom`] when the stream has room for one.
    pub fn wants_to_send(&self) -> bool {
        matches!(&self.connection, Connection::Attached(attached) if attached.wants_to_send(&self.tasks.outbox))
    }

    /// When to pass [`AgentInput::Tick`] at the latest; `None` if only another input can change something.
    pub fn next_wakeup(&self) -> Option<Duration> {
        let attached = match &self.connection {
            Connection::Attached(attached) => Some(attached.next_wakeup()),
            Connection::Beginning | Connection::Exited => return None,
            _ => None,
        };
        let times = [attached, self.migrations.next_wakeup(), self.drain_state.deadline()];
        times.into_iter().flatten().min()
    }

    /// Whether a coordinator has accepted the worker, and the stream is open.
    pub fn is_attached(&self) -> bool {
        matches!(self.connection, Connection::Attached(_))
    }

    /// Whether the worker drains.
    pub fn is_draining(&self) -> bool {
        self.drain_state.drains()
    }

    /// The highest epoch that was received; 0 before the first message.
    pub fn epoch(&self) -> u64 {
        self.fence.epoch()
    }

    /// What would be lost if the worker exited now.
    pub fn holdings(&self, host: &dyn TaskHost) -> Holdings {
        self.tasks.holdings(host)
    }

    /// Processes an input on the way to a coordinator.
    fn approach(
        &mut self,
        now: Duration,
        input: AgentInput,
        host: &mut dyn TaskHost,
        outputs: &mut Vec<AgentOutput>,
    ) {
        match (input, &mut self.connection) {
            (AgentInput::Begun, Connection::Beginning)
            | (AgentInput::Paused, Connection::Pausing(AfterPause::FindLeader)) => self.find_leader(outputs),
            (AgentInput::Paused, Connection::Pausing(AfterPause::NewIncarnation)) => {
                self.tasks = Tasks::new(MAX_UNREPORTED + self.config.slots);
                self.migrations = Migrations::default();
                self.connection = Connection::Beginning;
                outputs.push(AgentOutput::NewIncarnation);
            }
            (AgentInput::LeaderFound { address }, Connection::Finding) => {
                let (epoch, draining) = (self.fence.epoch(), self.drain_state.drains());
                outputs.push(AgentOutput::Open(v1::Hello { epoch, draining, ..host.hello() }));
                self.connection = Connection::Opening(address);
            }
            (AgentInput::NoLeader { reason }, Connection::Finding) => {
                self.log_no_leader(now, &reason);
                self.pause(AfterPause::FindLeader, outputs);
            }
            (AgentInput::Refused(status), Connection::Opening(address)) => {
                let address = std::mem::take(address);
                self.refused(&status, address, host, outputs);
            }
            (AgentInput::Opened { epoch, welcome }, Connection::Opening(address)) => {
                let address = std::mem::take(address);
                self.opened(now, address, epoch, &welcome, host, outputs);
            }
            (AgentInput::Tick, _) => {}
            (input, _) => tracing::debug!(?input, "an input that does not fit the state was ignored"),
        }
    }

    /// Processes an input of the open stream.
    ///
    /// # Errors
    /// [`StreamError`]: the stream must be closed.
    fn attached(
        &mut self,
        now: Duration,
        input: AgentInput,
        host: &mut dyn TaskHost,
        outputs: &mut Vec<AgentOutput>,
    ) -> Result<(), StreamError> {
        let Connection::Attached(attached) = &mut self.connection else { return Ok(()) };
        match input {
            AgentInput::Message(message) => {
                self.fence.check(message.epoch)?;
                attached.received(now);
                self.message(now, message, host, outputs);
            }
            AgentInput::SendRoom => {
                let message = attached.next_message(&mut self.tasks.outbox, host);
                outputs.extend(message.map(AgentOutput::Send));
            }
            AgentInput::Tick => attached.tick(now)?,
            input => tracing::debug!(?input, "an input that does not fit the state was ignored"),
        }
        Ok(())
    }

    fn find_leader(&mut self, outputs: &mut Vec<AgentOutput>) {
        self.connection = Connection::Finding;
        outputs.push(AgentOutput::FindLeader);
    }

    fn pause(&mut self, next: AfterPause, outputs: &mut Vec<AgentOutput>) {
        self.connection = Connection::Pausing(next);
        outputs.push(AgentOutput::Pause);
    }

    /// Logs that no coordinator leads: at once, then periodically.
    fn log_no_leader(&mut self, now: Duration, reason: &str) {
        if self.said.is_none_or(|said| now.saturating_sub(said) >= NO_LEADER_LOG_INTERVAL) {
            tracing::warn!("{reason}; trying again");
            self.said = Some(now);
        }
    }

    fn refused(
        &mut self,
        status: &Status,
        address: String,
        host: &dyn TaskHost,
        outputs: &mut Vec<AgentOutput>,
    ) {
        let reason = status.message().to_string();
        match verdict(status) {
            Verdict::TryNext => {
                tracing::debug!(address, reason, "this coordinator refuses the worker");
                self.find_leader(outputs);
            }
            Verdict::NewIncarnation => {
                tracing::warn!(worker = %host.id(), reason, "declared lost by the coordinator: all outputs are dropped");
                if self.drain_state.drains() {
                    self.exit(Ok(ExitReason::GivenUp(self.holdings(host))), Duration::ZERO, outputs);
                } else {
                    self.pause(AfterPause::NewIncarnation, outputs);
                }
            }
            verdict @ (Verdict::WrongVersion | Verdict::Unacceptable) => {
                let version = verdict == Verdict::WrongVersion;
                self.exit(Err(Rejection { address, reason, version }), Duration::ZERO, outputs);
            }
        }
    }

    fn opened(
        &mut self,
        now: Duration,
        address: String,
        epoch: u64,
        welcome: &v1::Welcome,
        host: &mut dyn TaskHost,
        outputs: &mut Vec<AgentOutput>,
    ) {
        self.said = None;
        if let Err(stale) = self.fence.check(epoch) {
            tracing::warn!(coordinator = address, why = %stale, "the stream of a former leader was closed");
            outputs.push(AgentOutput::Close);
            return self.pause(AfterPause::FindLeader, outputs);
        }
        tracing::info!(worker = %host.id(), epoch, "attached");
        let pages = self.tasks.begin_stream(host, self.config.page_bytes);
        let attached = Attached::new(now, address, welcome, pages, self.drain_state.drains());
        self.connection = Connection::Attached(Box::new(attached));
    }

    fn stream_ended(&mut self, why: &StreamError, outputs: &mut Vec<AgentOutput>) {
        if let Connection::Attached(attached) = &self.connection {
            tracing::warn!(coordinator = attached.address, %why, "the stream to the coordinator ended");
        }
        self.pause(AfterPause::FindLeader, outputs);
    }

    /// Takes a shutdown request.
    fn request(&mut self, now: Duration, request: ShutdownRequest) {
        if !self.drain_state.request(request, now) {
            return;
        }
        match &mut self.connection {
            Connection::Attached(attached) => {
                tracing::info!("draining: needed outputs are migrated first");
                attached.drain();
            }
            _ => tracing::info!("draining without a coordinator"),
        }
    }

    /// Handles a message of the coordinator.
    fn message(
        &mut self,
        now: Duration,
        message: v1::CoordinatorMessage,
        host: &mut dyn TaskHost,
        outputs: &mut Vec<AgentOutput>,
    ) {
        match message.message {
            Some(Down::Start(dispatch)) => self.tasks.start(dispatch, host),
            Some(Down::Stop(attempt)) => match AttemptId::try_from(&attempt) {
                Ok(attempt) => self.tasks.stop(&attempt, host),
                Err(error) => tracing::warn!(%error, "an invalid attempt to stop was ignored"),
            },
            Some(Down::Release(job)) => match JobId::parse(&job) {
                Ok(job) => self.tasks.release(&job, host),
                Err(error) => tracing::warn!(%error, "an invalid job to release was ignored"),
            },
            Some(Down::Inputs(inputs)) => self.tasks.take_inputs(inputs),
            Some(Down::Options(options)) => self.tasks.take_options(options),
            Some(Down::MigrateOutputs(request)) => self.migrations.request(request),
            Some(Down::Admit(admit)) => match JobId::parse(&admit.job) {
                Ok(job) => host.admit(&job, &admit.key),
                Err(error) => tracing::warn!(%error, "an invalid job to admit was ignored"),
            },
            Some(Down::Drain(_)) => self.request(now, ShutdownRequest::Drain),
            Some(Down::Drained(_)) if self.drain_state.drains() => {
                self.exit(Ok(ExitReason::Drained), self.time_left(now), outputs);
            }
            Some(Down::Drained(_)) => {
                tracing::warn!("the message that the worker is drained was ignored: it does not drain")
            }
            Some(Down::Beat(_)) => {}
            Some(Down::Welcome(_)) | None => tracing::warn!("a message of an unexpected kind was ignored"),
        }
    }

    /// Does what is due after each input: migrations, then the exit.
    fn settle(&mut self, now: Duration, host: &dyn TaskHost, outputs: &mut Vec<AgentOutput>) {
        if matches!(self.connection, Connection::Beginning | Connection::Exited) {
            return;
        }
        let (transfers, facts) = self.migrations.advance(now);
        outputs.extend(transfers);
        facts.into_iter().for_each(|fact| self.tasks.outbox.push(fact));
        if !self.drain_state.drains() {
            return;
        }
        let holdings = self.holdings(host);
        if let Some(reason) = self.drain_state.exit_reason(now, self.is_attached(), holdings) {
            let streams = if reason == ExitReason::Drained { self.time_left(now) } else { Duration::ZERO };
            self.exit(Ok(reason), streams, outputs);
        }
    }

    /// The time until the deadline of the drain.
    fn time_left(&self, now: Duration) -> Duration {
        self.drain_state.deadline().unwrap_or_default().saturating_sub(now)
    }

    fn exit(
        &mut self,
        outcome: Result<ExitReason, Rejection>,
        streams: Duration,
        outputs: &mut Vec<AgentOutput>,
    ) {
        if self.is_attached() {
            outputs.push(AgentOutput::Goodbye { clean: outcome == Ok(ExitReason::Drained) });
        }
        self.connection = Connection::Exited;
        outputs.push(AgentOutput::Exit { outcome, streams });
    }
}
