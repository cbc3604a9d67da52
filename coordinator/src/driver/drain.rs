//! Workers that want to go: what open stages still read of theirs is handed to others; then they
//! are told that nothing is needed any more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tally_proto::v1::coordinator_message::Message;
use tally_proto::{AttemptId, WorkerId, v1};
use tally_scheduler::Event;

use super::Driver;
use crate::cluster::Member;
use crate::job::MAP;

/// A hand-over that did not happen by then is ordered anew, from somebody else.
const PATIENCE: Duration = Duration::from_secs(30);
/// Outputs named in one message.
const BATCH: usize = 1000;
/// Hand-overs under way of one worker, so that no receiver is flooded.
const UNDER_WAY: usize = 4000;

/// The drains under way.
#[derive(Debug, Default)]
pub(super) struct Drains(BTreeMap<WorkerId, Drain>);

#[derive(Debug, Default)]
struct Drain {
    /// Whom each output was ordered to be given to, and when.
    ordered: BTreeMap<AttemptId, (WorkerId, Instant)>,
    told: bool,
}

impl Drains {
    /// Forgets a worker, as one that goes and as one that takes over.
    pub(super) fn lost(&mut self, worker: &WorkerId) {
        self.0.remove(worker);
        for drain in self.0.values_mut() {
            drain.ordered.retain(|_, (to, _)| to != worker);
        }
    }
}

impl Driver {
    /// Notes that a worker wants to go.
    pub(super) fn begin_drain(&mut self, worker: &WorkerId) {
        let Some(member) = self.fleet.remote().and_then(|fleet| fleet.member(worker)) else { return };
        if !std::mem::replace(&mut member.draining, true) {
            tracing::info!(%worker, "a worker drains");
        }
        // One that says it again was told on a stream that broke, or not at all.
        if let Some(drain) = self.drains.0.get_mut(worker) {
            drain.told = false;
        }
        if member.joined {
            self.step(Event::WorkerDraining { worker: worker.clone() });
        }
        self.drain();
    }

    /// Tells a worker to drain; `None` where there is no such worker.
    pub(super) fn ask_to_drain(&mut self, worker: &WorkerId) -> Option<v1::WorkerStatus> {
        let fleet = self.fleet.remote()?;
        fleet.member(worker)?;
        if let Err(reason) = fleet.say(worker, Message::Drain(v1::Draining {})) {
            tracing::warn!(%worker, reason, "it cannot be told to drain");
        }
        self.begin_drain(worker);
        Some(self.fleet.remote()?.member(worker)?.status())
    }

    pub(super) fn moved(&mut self, from: WorkerId, attempt: &AttemptId, to: WorkerId) {
        if let Some(drain) = self.drains.0.get_mut(&from) {
            drain.ordered.remove(attempt);
        }
        let task = &attempt.task;
        if task.stage.0 == MAP
            && let Some(run) = self.jobs.get_mut(&task.job)
        {
            run.inputs_changed();
        }
        let (job, stage, index) = (task.job.clone(), task.stage, task.index);
        self.step(Event::OutputMoved { job, stage, index, from, to });
    }

    /// Looks after all drains.
    pub(super) fn drain(&mut self) {
        let Some(fleet) = self.fleet.remote() else { return };
        let draining: Vec<WorkerId> = fleet
            .members()
            .iter()
            .filter(|(_, member)| member.draining && member.joined && member.attached())
            .map(|(id, _)| id.clone())
            .collect();
        self.drains.0.retain(|worker, _| fleet.members().contains_key(worker));
        for worker in draining {
            self.drain_one(&worker);
        }
    }

    fn drain_one(&mut self, worker: &WorkerId) {
        let needed = self.scheduler.outputs_needed_from(worker);
        let Some(fleet) = self.fleet.remote() else { return };
        let idle = |member: &Member| member.running.is_empty() && member.beat.lock().serving == 0;
        let idle = fleet.members().get(worker).is_some_and(idle);
        let drain = self.drains.0.entry(worker.clone()).or_default();
        if needed.is_empty() {
            if idle && !drain.told {
                tracing::info!(%worker, "a worker is drained");
                drain.told = fleet.say(worker, Message::Drained(v1::Drained {})).is_ok();
            }
            return;
        }
        let mut takers: Vec<(u64, WorkerId, String)> = fleet
            .members()
            .iter()
            .filter(|(_, member)| member.joined && member.attached() && !member.draining)
            .map(|(id, member)| (member.room(), id.clone(), member.hello.flight_address.clone()))
            .collect();
        if takers.is_empty() {
            // It waits for others to come, as long as it wants to.
            return;
        }
        // Those with most room first; the rest is spread evenly.
        takers.sort_unstable_by(|a, b| b.cmp(a));
        let half = takers.len().div_ceil(2);
        let now = Instant::now();
        drain.ordered.retain(|_, (_, since)| now.duration_since(*since) < PATIENCE);
        let room = UNDER_WAY.saturating_sub(drain.ordered.len());
        let open: Vec<AttemptId> =
            needed.into_iter().filter(|attempt| !drain.ordered.contains_key(attempt)).take(room).collect();
        if open.is_empty() {
            return;
        }
        let share = open.len().div_ceil(half).clamp(1, BATCH);
        for (attempts, (_, to, address)) in open.chunks(share).zip(takers[..half].iter().cycle()) {
            let message = v1::HandOver {
                to: to.to_string(),
                flight_address: address.clone(),
                attempts: attempts.iter().map(v1::Attempt::from).collect(),
            };
            if fleet.say(worker, Message::HandOver(message)).is_err() {
                return;
            }
            for attempt in attempts {
                drain.ordered.insert(attempt.clone(), (to.clone(), now));
            }
        }
    }
}
