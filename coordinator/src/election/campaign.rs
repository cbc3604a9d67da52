//! One coordinator's candidacy in an election through Consul: its session, the leader's key, and what follows when Consul
//! does not answer.
//!
//! The session expires 10 s after its last renewal (Consul may take up to twice that) and then releases the key, without
//! a lock delay. Not here: what a leader does.

use std::time::Duration;

use consul_api_client::{Behavior, Error, NewSession, SessionId};
use tally_common::discovery::consul::{Consul, LeaderRecord, LeaderView};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::Standing;

/// The time to live of the session: the shortest that Consul accepts.
const TTL: Duration = Duration::from_secs(10);
/// The interval of renewals: two may fail before the session expires.
const RENEW: Duration = Duration::from_secs(3);
/// The interval of tries while Consul does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// The time for which a coordinator that stepped down does not try to acquire the key.
const YIELD: Duration = Duration::from_secs(5);

/// A command of the coordinator to its campaign.
#[derive(Debug)]
pub(super) enum LeaderCommand {
    /// Publish the epoch that was claimed.
    Announce(u64),
    /// Step down; answered when the standing has changed.
    StepDown(oneshot::Sender<()>),
    /// End the campaign; answered when Consul has the new state.
    Resign(oneshot::Sender<()>),
}

pub(super) struct Campaign {
    consul: Consul,
    key: String,
    me: LeaderRecord,
    standing: watch::Sender<Standing>,
    session: Option<SessionId>,
    /// This session holds the key, by Consul's last answer.
    holds: bool,
    /// The key is not acquired before this time.
    yields_until: Instant,
    /// Consul did not answer the last request.
    unreachable: bool,
}

impl Campaign {
    pub(super) fn new(consul: Consul, me: LeaderRecord, standing: watch::Sender<Standing>) -> Self {
        let (key, now) = (consul.leader_key(), Instant::now());
        Campaign {
            consul,
            key,
            me,
            standing,
            session: None,
            holds: false,
            yields_until: now,
            unreachable: false,
        }
    }

    /// Creates the first session, so that a refusal is an error at the start.
    pub(super) async fn open(&mut self) -> Result<(), Error> {
        match self.stand().await {
            Err(error) if !error.is_transient() => Err(error),
            outcome => {
                self.conclude(outcome);
                Ok(())
            }
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<LeaderCommand>) {
        let mut leader = self.consul.leader();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(LeaderCommand::Announce(epoch)) => self.announce(epoch).await,
                    Some(LeaderCommand::StepDown(done)) => {
                        self.step_down().await;
                        // The caller may no longer wait.
                        let _ = done.send(());
                        continue;
                    }
                    Some(LeaderCommand::Resign(done)) => {
                        self.resign().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return self.resign().await,
                },
                changed = leader.changed() => {
                    // The watch ends only with the runtime.
                    if changed.is_err() { return }
                    // Nothing is known of the key if the watch failed.
                    if leader.borrow_and_update().error.is_some() { continue }
                }
                () = sleep_until(next) => {}
            }
            let outcome = self.stand().await;
            self.conclude(outcome);
            next = Instant::now() + if self.unreachable { RETRY } else { RENEW };
        }
    }

    /// Renews or creates the session, acquires the key if it is free, and returns the standing.
    async fn stand(&mut self) -> Result<Standing, Error> {
        let client = self.consul.client().clone();
        if let Some(session) = self.session.clone()
            && client.sessions().renew(&session).await?.is_none()
        {
            tracing::warn!("the session in Consul expired: creating another");
            (self.session, self.holds) = (None, false);
        }
        let session = match self.session.clone() {
            Some(session) => session,
            None => {
                let session = client.sessions().create(&self.new_session()).await?;
                self.session.insert(session).clone()
            }
        };
        let view = LeaderView::of(client.kv().get(&self.key).await?);
        self.holds = match &view.holder {
            Some(holder) => *holder == session,
            None if Instant::now() < self.yields_until => false,
            None => match client.kv().acquire(&self.key, self.record(), &session).await {
                // The session expired a moment ago: the next round creates another.
                Err(Error::InvalidSession { .. }) => {
                    self.session = None;
                    false
                }
                taken => taken?,
            },
        };
        match self.holds {
            true => Ok(Standing::Lead),
            false => Ok(Standing::Standby { leader: view.leader.map(|leader| leader.address) }),
        }
    }

    fn new_session(&self) -> NewSession {
        NewSession {
            name: Some(format!("tally coordinator {}", self.me.id)),
            ttl: Some(TTL),
            behavior: Behavior::Release,
            lock_delay: Some(Duration::ZERO),
            // Only the TTL counts: the coordinator outlives a failed agent.
            node_checks: Some(vec![]),
        }
    }

    fn record(&self) -> String {
        let LeaderRecord { id, address, epoch } = &self.me;
        serde_json::json!({ "id": id, "address": address, "epoch": epoch }).to_string()
    }

    fn conclude(&mut self, outcome: Result<Standing, Error>) {
        match outcome {
            Ok(standing) => {
                if std::mem::take(&mut self.unreachable) {
                    tracing::info!("Consul answers again");
                }
                self.set(standing);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.unreachable, true) {
                    tracing::warn!(%error, "the election's request to Consul failed: trying again");
                }
                // Another coordinator may lead by now. Consul's next answer decides.
                let why = format!("whether this coordinator still leads is not known: {error}");
                let leads = *self.standing.borrow() == Standing::Lead;
                leads.then(|| self.set(Standing::Doubt { why }));
            }
        }
    }

    fn set(&self, standing: Standing) {
        self.standing.send_if_modified(|now| {
            let changed = *now != standing;
            if changed {
                tracing::info!(from = ?now, to = ?standing, "standing in the election");
                *now = standing;
            }
            changed
        });
    }

    async fn announce(&mut self, epoch: u64) {
        self.me.epoch = epoch;
        let Some(session) = self.session.clone().filter(|_| self.holds) else { return };
        match self.consul.client().kv().acquire(&self.key, self.record(), &session).await {
            Ok(holds) => self.holds = holds,
            // The next acquire writes the record again. Only people read the epoch in it.
            Err(error) => tracing::warn!(%error, "the epoch could not be announced"),
        }
    }

    async fn release(&mut self) {
        if let Some(session) = self.session.clone().filter(|_| std::mem::take(&mut self.holds))
            && let Err(error) = self.consul.client().kv().release(&self.key, self.record(), &session).await
        {
            tracing::warn!(%error, "the leader's key could not be released; it is released when the session expires");
        }
    }

    async fn step_down(&mut self) {
        self.yields_until = Instant::now() + YIELD;
        self.set(Standing::Standby { leader: None });
        self.release().await;
    }

    async fn resign(&mut self) {
        self.set(Standing::Standby { leader: None });
        self.release().await;
        if let Some(session) = self.session.take()
            && let Err(error) = self.consul.client().sessions().destroy(&session).await
        {
            tracing::warn!(%error, "the session could not be destroyed; it expires by itself");
        }
    }
}
