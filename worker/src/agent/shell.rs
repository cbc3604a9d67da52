//! Runs the state machine of the agent on tokio: the stream to the coordinator, timers, the search for the leader,
//! transfers of outputs, and one incarnation after another.
//!
//! Not here: decisions (`machine`), what runs under one id (`incarnation`).

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tally_common::discovery::leader::{Candidate, Leader};
use tally_proto::v1;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::incarnation::{Incarnation, IncarnationError, Options};
use super::machine::{
    AgentConfig, AgentCore, AgentInput, AgentOutput, ExitReason, PAGE_BYTES, Rejection, ShutdownRequest,
};
use super::session::{self, Session};

/// The agent failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It could not start.
    #[error(transparent)]
    Incarnation(#[from] IncarnationError),
    /// The coordinator has another protocol version.
    #[error("the coordinator at {address} refuses this version of the worker: {reason}")]
    Version {
        /// The coordinator.
        address: String,
        /// Its message.
        reason: String,
    },
    /// The coordinator does not accept the worker's hello message.
    #[error("the coordinator at {address} refuses this worker: {reason}")]
    Refused {
        /// The coordinator.
        address: String,
        /// Its message.
        reason: String,
    },
}

impl From<Rejection> for AgentError {
    fn from(Rejection { address, reason, version }: Rejection) -> Self {
        match version {
            true => AgentError::Version { address, reason },
            false => AgentError::Refused { address, reason },
        }
    }
}

/// Runs until the worker should exit. Shutdown requests arrive through `request` and from Consul.
///
/// # Errors
/// [`AgentError`].
pub async fn run(
    options: Options,
    leader: Leader,
    request: watch::Sender<ShutdownRequest>,
) -> Result<ExitReason, AgentError> {
    let mut requests = request.subscribe();
    // A request that was sent before the agent listened counts, too.
    requests.mark_changed();
    let (drain_timeout, slots) = (options.drain_timeout, options.slots);
    let mut shell = Shell {
        core: AgentCore::new(AgentConfig { drain_timeout, slots, page_bytes: PAGE_BYTES }),
        started: Instant::now(),
        options: Arc::new(options),
        requests,
        step: None,
        leader: Some(leader),
        found: None,
        session: None,
    };
    loop {
        let mut incarnation = Incarnation::begin(shell.options.clone()).await?;
        let drain = request.clone();
        incarnation
            .show(&shell.options, move || drain.send_modify(|now| *now = ShutdownRequest::Drain.max(*now)));
        match shell.live(&mut incarnation).await {
            LifeEnd::NewIncarnation => incarnation.end(Duration::ZERO).await,
            LifeEnd::Exit(outcome, streams) => {
                incarnation.end(streams).await;
                return Ok(outcome?);
            }
        }
    }
}

/// What follows an incarnation.
enum LifeEnd {
    NewIncarnation,
    /// With the time that output streams may take.
    Exit(Result<ExitReason, Rejection>, Duration),
}

/// A step towards a coordinator, which uses the search for the leader and returns it.
type Step = Pin<Box<dyn Future<Output = StepEnd> + Send>>;

struct StepEnd {
    leader: Leader,
    /// The coordinator that was found.
    found: Option<Candidate>,
    session: Option<Session>,
    input: AgentInput,
}

struct Shell {
    core: AgentCore,
    /// The moment that the core's times count from.
    started: Instant,
    options: Arc<Options>,
    requests: watch::Receiver<ShutdownRequest>,
    step: Option<Step>,
    /// The search for the leader, while no step uses it.
    leader: Option<Leader>,
    found: Option<Candidate>,
    session: Option<Session>,
}

impl Shell {
    /// Runs one incarnation.
    async fn live(&mut self, incarnation: &mut Incarnation) -> LifeEnd {
        let mut input = AgentInput::Begun;
        loop {
            let outputs = self.core.step(self.started.elapsed(), input, incarnation);
            incarnation.status.attach(self.core.is_attached());
            if self.core.is_draining() {
                incarnation.status.drain();
            }
            for output in outputs {
                if let Some(end) = self.carry_out(output, incarnation).await {
                    incarnation.status.attach(false);
                    return end;
                }
            }
            input = self.next_input(incarnation).await;
        }
    }

    async fn carry_out(&mut self, output: AgentOutput, incarnation: &mut Incarnation) -> Option<LifeEnd> {
        match output {
            AgentOutput::Pause => {
                self.session = None;
                self.begin(pause);
            }
            AgentOutput::FindLeader => self.begin(find),
            AgentOutput::Open(hello) => {
                if let Some(found) = self.found.take() {
                    self.begin(|leader| open(leader, found, hello));
                }
            }
            AgentOutput::Send(message) => {
                if let Some(session) = &self.session {
                    session.send(message);
                }
            }
            AgentOutput::Close => self.session = None,
            AgentOutput::Goodbye { clean } => {
                if let Some(session) = self.session.take() {
                    session.goodbye(clean).await;
                }
            }
            AgentOutput::Migrate { to, attempt } => incarnation.migrate_out(to, attempt),
            AgentOutput::NewIncarnation => return Some(LifeEnd::NewIncarnation),
            AgentOutput::Exit { outcome, streams } => return Some(LifeEnd::Exit(outcome, streams)),
        }
        None
    }

    /// Begins a step with the search for the leader.
    fn begin<F: Future<Output = StepEnd> + Send + 'static>(&mut self, step: impl FnOnce(Leader) -> F) {
        if let Some(leader) = self.leader.take() {
            self.step = Some(Box::pin(step(leader)));
        }
    }

    /// Waits for the next input.
    async fn next_input(&mut self, incarnation: &mut Incarnation) -> AgentInput {
        let wakeup = self.core.next_wakeup().and_then(|at| self.started.checked_add(at));
        let wants_to_send = self.core.wants_to_send();
        let (step, session) = (&mut self.step, &mut self.session);
        tokio::select! {
            end = async { match step { Some(step) => step.await, None => pending().await } } => {
                let StepEnd { leader, found, session, input } = end;
                self.step = None;
                (self.leader, self.found, self.session) = (Some(leader), found, session);
                input
            }
            input = async {
                match session { Some(session) => session.next(wants_to_send).await, None => pending().await }
            } => input,
            () = sleep_until(wakeup.unwrap_or(self.started)), if wakeup.is_some() => AgentInput::Tick,
            Ok(()) = self.requests.changed() => {
                AgentInput::Shutdown(*self.requests.borrow_and_update())
            }
            input = incarnation.next_input() => input,
        }
    }
}

async fn pause(mut leader: Leader) -> StepEnd {
    leader.pause().await;
    StepEnd { leader, found: None, session: None, input: AgentInput::Paused }
}

async fn find(mut leader: Leader) -> StepEnd {
    let (found, input) = match leader.next().await {
        Ok(found) => {
            let address = found.address.to_string();
            (Some(found), AgentInput::LeaderFound { address })
        }
        Err(none) => (None, AgentInput::NoLeader { reason: none.to_string() }),
    };
    StepEnd { leader, found, session: None, input }
}

async fn open(mut leader: Leader, found: Candidate, hello: v1::Hello) -> StepEnd {
    let open = session::open(hello, found.channel.clone());
    let opened = leader.unless_succeeded(&found, open).await;
    let (session, input) = match opened {
        Ok((session, epoch, welcome)) => {
            leader.leads(&found);
            (Some(session), AgentInput::Opened { epoch, welcome })
        }
        Err(status) => {
            leader.refused(&found, &status);
            (None, AgentInput::Refused(status))
        }
    };
    StepEnd { leader, found: None, session, input }
}
