//! One coordinator's part in an election through Consul: its session, the leader's key, and what to
//! conclude when Consul does not answer.
//!
//! The session lives for 10 s after its last renewal (Consul may take up to twice that) and releases
//! the key when it ends, without a lock delay. Not here: what leading means.

use std::time::Duration;

use consul_api_client::{Behavior, Error, NewSession, SessionId};
use tally_worker::consul::{Consul, LeaderRecord, LeaderView};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::Standing;

/// The shortest that servers take.
const TTL: Duration = Duration::from_secs(10);
/// Between renewals: two may fail before the session ends.
const RENEW: Duration = Duration::from_secs(3);
/// Between tries while Consul does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// How long one that stepped down leaves the key to others.
const YIELD: Duration = Duration::from_secs(5);

/// What the coordinator wants of its campaign.
#[derive(Debug)]
pub(super) enum Order {
    /// This epoch was claimed.
    Announce(u64),
    /// Leave the lead to others; answered when the standing says so.
    StepDown(oneshot::Sender<()>),
    /// The end; answered when Consul knows.
    Resign(oneshot::Sender<()>),
}

pub(super) struct Campaign {
    consul: Consul,
    key: String,
    me: LeaderRecord,
    standing: watch::Sender<Standing>,
    session: Option<SessionId>,
    /// The key is this session's, as far as is known.
    holds: bool,
    /// Not before this is the key asked for.
    patient_until: Instant,
    /// Consul did not answer the last time.
    away: bool,
}

impl Campaign {
    pub(super) fn new(consul: Consul, me: LeaderRecord, standing: watch::Sender<Standing>) -> Self {
        let (key, now) = (consul.leader_key(), Instant::now());
        Campaign { consul, key, me, standing, session: None, holds: false, patient_until: now, away: false }
    }

    /// The first session, so that a refusal is an error at the start.
    pub(super) async fn open(&mut self) -> Result<(), Error> {
        match self.stand().await {
            Err(error) if !error.is_transient() => Err(error),
            outcome => {
                self.conclude(outcome);
                Ok(())
            }
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut leader = self.consul.leader();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Announce(epoch)) => self.announce(epoch).await,
                    Some(Order::StepDown(done)) => {
                        self.step_down().await;
                        // Whoever asked may have gone.
                        let _ = done.send(());
                        continue;
                    }
                    Some(Order::Resign(done)) => {
                        self.resign().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return self.resign().await,
                },
                changed = leader.changed() => {
                    // The watch ends with the runtime only.
                    if changed.is_err() { return }
                    // The key changed hands, unless all that is new is that it can't be watched.
                    if leader.borrow_and_update().trouble.is_some() { continue }
                }
                () = sleep_until(next) => {}
            }
            let outcome = self.stand().await;
            self.conclude(outcome);
            next = Instant::now() + if self.away { RETRY } else { RENEW };
        }
    }

    /// Makes sure of the session and of the key; tells what follows from them.
    async fn stand(&mut self) -> Result<Standing, Error> {
        let client = self.consul.client().clone();
        if let Some(session) = self.session.clone()
            && client.sessions().renew(&session).await?.is_none()
        {
            tracing::warn!("the session in Consul is gone: making another");
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
            None if Instant::now() < self.patient_until => false,
            None => match client.kv().acquire(&self.key, self.record(), &session).await {
                // It ended just now: the next round makes another.
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
            // Only the TTL counts: the agent's own death is not the coordinator's.
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
                if std::mem::take(&mut self.away) {
                    tracing::info!("Consul answers again");
                }
                self.set(standing);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(%error, "Consul does not do what an election needs; trying again");
                }
                // Another may lead by now, or nobody: that is for Consul to say when it is back.
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
            // The record is written again with the next acquire; the epoch in it is for people.
            Err(error) => tracing::warn!(%error, "the epoch could not be announced"),
        }
    }

    async fn release(&mut self) {
        if let Some(session) = self.session.clone().filter(|_| std::mem::take(&mut self.holds))
            && let Err(error) = self.consul.client().kv().release(&self.key, self.record(), &session).await
        {
            tracing::warn!(%error, "the leader's key could not be released; it is when the session ends");
        }
    }

    async fn step_down(&mut self) {
        self.patient_until = Instant::now() + YIELD;
        self.set(Standing::Standby { leader: None });
        self.release().await;
    }

    async fn resign(&mut self) {
        self.set(Standing::Standby { leader: None });
        self.release().await;
        if let Some(session) = self.session.take()
            && let Err(error) = self.consul.client().sessions().destroy(&session).await
        {
            tracing::warn!(%error, "the session could not be destroyed; it ends by itself");
        }
    }
}
