//! Makes a process visible in Consul while it lives: as a service that the agent checks, or, where
//! there is no agent, as a key that a session holds. Tells when somebody puts it into maintenance.
//!
//! Only for people and other programs: the coordinator learns of its workers from their streams.
//! Not here: who leads (`consul`, the coordinator's `election`).

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use consul_api_client::{Behavior, Check, CheckStatus, Error, NewSession, Probe, Service, SessionId};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::consul::{Consul, ConsulArgs};

/// Between two looks at the agent: how late a maintenance is noticed.
const LOOK: Duration = Duration::from_secs(2);
/// Between two probes by the agent, and for the answer to one.
const PROBE: Duration = Duration::from_secs(5);
/// A service that was critical for so long is removed; no less is taken.
const REMOVE: Duration = Duration::from_secs(60);
/// Of the session that holds the key, and between its renewals.
const TTL: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(5);
/// The longest pause while Consul does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// For the last words.
const LEAVE: Duration = Duration::from_secs(2);

/// How a process is made visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Registration {
    /// As a service of the agent, which checks it
    Agent,
    /// As a key that a session holds
    Kv,
}

/// The options of a process that others may see in Consul.
#[derive(Debug, Clone, Default, Args)]
pub struct MemberArgs {
    /// Which Consul.
    #[command(flatten)]
    pub consul: ConsulArgs,
    /// How it registers in Consul [default: with the agent, if the token may read it]
    #[arg(long, help_heading = "Consul", value_enum, value_name = "HOW")]
    pub consul_register: Option<Registration>,
}

/// What kind of process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// May lead.
    Coordinator,
    /// Runs tasks.
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

/// A process as others see it.
#[derive(Debug, Clone)]
pub struct Member {
    /// What it is.
    pub kind: Kind,
    /// This life of it.
    pub id: String,
    /// Where it is reached, `host:port`; its gRPC health service too.
    pub address: String,
    /// More about it; keys of `a-z` and `_`, short values.
    pub facts: BTreeMap<String, String>,
    /// It speaks TLS to those it knows, of whom Consul is none: that it listens is checked, no more.
    pub tls: bool,
}

/// A process that is visible, until it leaves.
#[derive(Debug)]
pub struct Membership {
    maintenance: watch::Receiver<bool>,
    leave: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Membership {
    /// Makes a process visible, and again whenever Consul lost it. Without `how` the agent is asked
    /// first. Must be called on a runtime. Nothing waits for it, and its failures are only logged.
    pub fn join(consul: Consul, member: Member, how: Option<Registration>) -> Self {
        let (sender, maintenance) = watch::channel(false);
        let (leave, left) = oneshot::channel();
        let keeper = Keeper { consul, member, maintenance: sender, session: None };
        Membership { maintenance, leave, task: tokio::spawn(keeper.run(how, left)) }
    }

    /// Whether somebody put it, or its node, into Consul's maintenance mode; where the agent knows it.
    pub fn maintenance(&self) -> watch::Receiver<bool> {
        self.maintenance.clone()
    }

    /// Takes it out of Consul again; takes 2 s at most.
    pub async fn leave(self) {
        let _ = self.leave.send(());
        // It panics nowhere, and one that hangs is not waited for.
        let _ = tokio::time::timeout(LEAVE, self.task).await;
    }
}

struct Keeper {
    consul: Consul,
    member: Member,
    maintenance: watch::Sender<bool>,
    session: Option<SessionId>,
}

impl Keeper {
    async fn run(mut self, mut how: Option<Registration>, mut left: oneshot::Receiver<()>) {
        let mut pause = Duration::ZERO;
        let mut away = false;
        loop {
            tokio::select! {
                // Its sender is dropped with the membership, which is as good as a word.
                _ = &mut left => break,
                () = sleep(pause) => {}
            }
            let kept = async {
                let way = match how {
                    Some(way) => way,
                    None => *how.insert(self.way().await?),
                };
                match way {
                    Registration::Agent => self.keep_service().await.map(|()| LOOK),
                    Registration::Kv => self.keep_key().await.map(|()| RENEW),
                }
            };
            match kept.await {
                Ok(next) => (pause, away) = (next, false),
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%error, "not registered in Consul; trying again");
                    }
                    pause = (pause * 2).clamp(LOOK / 2, LONGEST_PAUSE);
                }
            }
        }
        if let Err(error) = self.leave(how).await {
            tracing::warn!(%error, "could not leave Consul; it notices by itself");
        }
    }

    /// The agent's way where there is one that takes services of this token.
    async fn way(&self) -> Result<Registration, Error> {
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

    fn service(&self) -> Service {
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
            initial: CheckStatus::Critical,
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

    /// Looks whether the agent still knows it: one that was restarted may not.
    async fn keep_service(&mut self) -> Result<(), Error> {
        let agent = self.consul.client().agent();
        let checks = agent.checks(&self.service_id()).await?;
        let own = |id: &str| !id.starts_with('_');
        if !checks.iter().any(|check| own(&check.id)) {
            agent.register(&self.service()).await?;
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
            // A session of before, whose end was not heard of, has it for a while.
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
