//! Registers a process in Consul while it runs: as a service that the agent checks, or as a key that a session holds if
//! there is no agent. Reports when an operator puts the process into maintenance mode.
//!
//! The registration is for people and other programs: the coordinator knows its workers from their streams. Not here:
//! which one leads (`consul`, the coordinator's `election`).

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use consul_api_client::{Behavior, Check, CheckStatus, Error, NewSession, Probe, Service, SessionId};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::discovery::consul::{Consul, ConsulArgs};
use crate::retry::RetryPolicy;

/// The interval between checks of the agent, and so the delay until maintenance mode is noticed.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The interval between probes by the agent, and the time limit of a probe.
const PROBE: Duration = Duration::from_secs(5);
/// The agent removes a service that is critical for this long. Consul accepts no shorter time.
const REMOVE: Duration = Duration::from_secs(60);
/// The TTL of the session that holds the key, and the interval between its renewals.
const TTL: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(5);
/// How requests are repeated while Consul does not answer.
const RETRY: RetryPolicy = RetryPolicy::doubling(Duration::from_secs(1), MAX_PAUSE);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The time limit of the deregistration at exit.
const LEAVE: Duration = Duration::from_secs(2);

/// How a process is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Registration {
    /// As a service of the agent, which checks it
    Agent,
    /// As a key that a session holds
    Kv,
}

/// The options of a process that registers in Consul.
#[derive(Debug, Clone, Default, Args)]
pub struct MemberArgs {
    /// The options of Consul.
    #[command(flatten)]
    pub consul: ConsulArgs,
    /// How it registers in Consul [default: with the agent, if the token may read it]
    #[arg(long, help_heading = "Consul", value_enum, value_name = "HOW")]
    pub consul_register: Option<Registration>,
}

/// The kind of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A coordinator.
    Coordinator,
    /// A worker.
    Worker,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Coordinator => "coordinator",
            Kind::Worker => "worker",
        }
    }
}

/// A process to register.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its kind.
    pub kind: Kind,
    /// The id of this incarnation.
    pub id: String,
    /// Its address, `host:port`, which also serves gRPC health.
    pub address: String,
    /// Metadata; keys of `a-z` and `_`, short values.
    pub facts: BTreeMap<String, String>,
    /// It requires client certificates, which Consul does not have: the check only opens a connection.
    pub tls: bool,
}

/// The registration of a process, until it leaves.
#[derive(Debug)]
pub struct Membership {
    maintenance: watch::Receiver<bool>,
    leave: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Membership {
    /// Registers a process, and registers it again whenever Consul loses it. Without `how` the agent is tried first. Must
    /// be called on a runtime. No work waits for the registration, and its failures are only logged.
    pub fn join(consul: Consul, member: Member, how: Option<Registration>) -> Self {
        let (sender, maintenance) = watch::channel(false);
        let (leave, left) = oneshot::channel();
        let keeper = Keeper { consul, member, maintenance: sender, session: None, registered: 0 };
        Membership { maintenance, leave, task: tokio::spawn(keeper.run(how, left)) }
    }

    /// Whether the service or its node is in Consul's maintenance mode, if the process is registered with the agent.
    pub fn maintenance(&self) -> watch::Receiver<bool> {
        self.maintenance.clone()
    }

    /// Deregisters the process; takes at most 2 s.
    pub async fn leave(self) {
        let _ = self.leave.send(());
        // The task does not panic, and a hung one is abandoned.
        let _ = tokio::time::timeout(LEAVE, self.task).await;
    }
}

struct Keeper {
    consul: Consul,
    member: Member,
    maintenance: watch::Sender<bool>,
    session: Option<SessionId>,
    /// The generation of the credentials with which the service was registered.
    registered: u64,
}

impl Keeper {
    async fn run(mut self, mut how: Option<Registration>, mut left: oneshot::Receiver<()>) {
        let mut pause = Duration::ZERO;
        let mut away = false;
        let mut retries = RETRY.start();
        loop {
            tokio::select! {
                // Also when the membership is dropped.
                _ = &mut left => break,
                () = sleep(pause) => {}
            }
            let kept = async {
                let registration = match how {
                    Some(registration) => registration,
                    None => *how.insert(self.choose().await?),
                };
                match registration {
                    Registration::Agent => self.keep_service().await.map(|()| CHECK_INTERVAL),
                    Registration::Kv => self.keep_key().await.map(|()| RENEW),
                }
            };
            match kept.await {
                Ok(next) => {
                    retries.reset();
                    (pause, away) = (next, false);
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%error, "not registered in Consul; trying again");
                    }
                    pause = retries.next().unwrap_or(MAX_PAUSE);
                }
            }
        }
        if let Err(error) = self.leave(how).await {
            tracing::warn!(%error, "the process could not be deregistered from Consul, which removes it later");
        }
    }

    /// Registration with the agent if there is one that accepts services of this token.
    async fn choose(&self) -> Result<Registration, Error> {
        match self.consul.client().agent().node().await {
            Ok(node) => {
                tracing::info!(node, "registering with Consul's agent");
                Ok(Registration::Agent)
            }
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                tracing::info!(%error, "no agent: registering with a key of a session");
                Ok(Registration::Kv)
            }
        }
    }

    fn service_id(&self) -> String {
        format!("{}-{}", self.service_name(), self.member.id)
    }

    fn service_name(&self) -> String {
        self.consul.key(self.member.kind.name()).replace('/', "-")
    }

    fn service(&self, initial: CheckStatus) -> Service {
        let address = &self.member.address;
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let mut facts = self.member.facts.clone();
        facts.insert("id".into(), self.member.id.clone());
        let target = address.clone();
        let probe = match self.member.tls {
            true => Probe::Tcp { target },
            false => Probe::Grpc { target, tls: false },
        };
        let check = Check {
            interval: PROBE,
            timeout: PROBE,
            deregister_after: Some(REMOVE),
            initial,
            ..Check::new(probe)
        };
        Service {
            id: self.service_id(),
            name: self.service_name(),
            address: host.trim_matches(['[', ']']).into(),
            port: port.parse().unwrap_or_default(),
            meta: facts,
            checks: vec![check],
            ..Service::default()
        }
    }

    /// Registers the service if the agent does not know it, for example after a restart. The agent keeps the service in
    /// the catalog with the token that registered it, so a new token registers the service again.
    async fn keep_service(&mut self) -> Result<(), Error> {
        let client = self.consul.client();
        let (agent, generation) = (client.agent(), client.generation());
        let checks = agent.checks(&self.service_id()).await?;
        let known = checks.iter().find(|check| !check.id.starts_with('_'));
        if generation != self.registered || known.is_none() {
            let initial = known.map_or(CheckStatus::Critical, |check| check.status);
            agent.register(&self.service(initial)).await?;
            self.registered = generation;
        }
        let maintenance = checks.iter().any(|check| check.is_maintenance());
        self.maintenance.send_if_modified(|now| std::mem::replace(now, maintenance) != maintenance);
        Ok(())
    }

    fn key(&self) -> String {
        self.consul.key(&format!("{}s/{}", self.member.kind.name(), self.member.id))
    }

    async fn keep_key(&mut self) -> Result<(), Error> {
        let client = self.consul.client();
        if let Some(session) = &self.session
            && client.sessions().renew(session).await?.is_some()
        {
            return Ok(());
        }
        let session = NewSession {
            name: Some(self.service_id()),
            ttl: Some(TTL),
            behavior: Behavior::Delete,
            lock_delay: Some(Duration::ZERO),
            node_checks: Some(vec![]),
        };
        self.session = None;
        let session = client.sessions().create(&session).await?;
        let mut value = self.member.facts.clone();
        value.insert("id".into(), self.member.id.clone());
        value.insert("address".into(), self.member.address.clone());
        let value = serde_json::json!(value).to_string();
        match client.kv().acquire(&self.key(), value, &session).await? {
            true => self.session = Some(session),
            // An earlier session of this process, which has not expired yet, still holds the key.
            false => client.sessions().destroy(&session).await?,
        }
        Ok(())
    }

    async fn leave(&mut self, how: Option<Registration>) -> Result<(), Error> {
        let client = self.consul.client();
        match (how, self.session.take()) {
            (Some(Registration::Agent), _) => client.agent().deregister(&self.service_id()).await,
            (_, Some(session)) => client.sessions().destroy(&session).await,
            (_, None) => Ok(()),
        }
    }
}
