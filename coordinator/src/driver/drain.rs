//! Workers that want to go: what open stages still read of theirs is handed to others; then they
//! are told that nothing is needed any more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tally_proto::v1::coordinator_message::Message;
use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tally_scheduler::Event;

use super::Driver;
use crate::cluster::Member;

/// A hand-over is ordered anew when nothing was heard of any for so long.
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
    /// When it last said what became of a hand-over.
    heard: Option<Instant>,
    /// How often each other worker did not take what it should.
    failures: BTreeMap<WorkerId, u32>,
    told: bool,
}

impl Drain {
    /// Forgets hand-overs that were not heard of for too long.
    fn expire(&mut self, now: Instant) {
        let heard = self.heard;
        let since = |ordered: Instant| heard.map_or(ordered, |heard| heard.max(ordered));
        self.ordered.retain(|_, (_, ordered)| now.duration_since(since(*ordered)) < PATIENCE);
    }
}

impl Drains {
    /// Forgets a worker, as one that goes and as one that takes over.
    pub(super) fn lost(&mut self, worker: &WorkerId) {
        self.0.remove(worker);
        for drain in self.0.values_mut() {
            drain.ordered.retain(|_, (to, _)| to != worker);
            drain.failures.remove(worker);
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

    /// Notes that another worker has an output now.
    pub(super) fn moved(&mut self, from: WorkerId, attempt: &AttemptId, to: WorkerId) {
        let mut last = false;
        if let Some(drain) = self.drains.0.get_mut(&from) {
            drain.heard = Some(Instant::now());
            last = drain.ordered.remove(attempt).is_some() && drain.ordered.is_empty();
        }
        let task = &attempt.task;
        let (job, stage, index) = (task.job.clone(), task.stage, task.index);
        self.step(Event::OutputMoved { job, stage, index, from, to });
        if last {
            self.drain();
        }
    }

    /// Notes that an output stays where it is; somebody else is asked when drains are next looked at.
    pub(super) fn not_moved(&mut self, from: &WorkerId, attempt: &AttemptId, to: &WorkerId, reason: &str) {
        tracing::warn!(%from, %to, %attempt, reason, "an output was not handed over");
        let Some(drain) = self.drains.0.get_mut(from) else { return };
        drain.heard = Some(Instant::now());
        if drain.ordered.get(attempt).is_some_and(|(ordered, _)| ordered == to) {
            drain.ordered.remove(attempt);
            let failures = drain.failures.entry(to.clone()).or_default();
            *failures = failures.saturating_add(1);
        }
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
        let takers = takers(fleet.members(), &drain.failures);
        if takers.is_empty() {
            // It waits for others to come, as long as it wants to.
            return;
        }
        let now = Instant::now();
        drain.expire(now);
        let room = UNDER_WAY.saturating_sub(drain.ordered.len());
        let open: Vec<AttemptId> =
            needed.into_iter().filter(|attempt| !drain.ordered.contains_key(attempt)).take(room).collect();
        if open.is_empty() {
            return;
        }
        let share = open.len().div_ceil(takers.len()).clamp(1, BATCH);
        for (attempts, (to, address)) in open.chunks(share).zip(takers.iter().cycle()) {
            let jobs: BTreeSet<&JobId> = attempts.iter().map(|attempt| &attempt.task.job).collect();
            for job in jobs {
                let Some(run) = self.jobs.get(job) else { continue };
                let admit = v1::Admit { job: job.to_string(), key: run.key.clone() };
                if let Err(reason) = fleet.say(to, Message::Admit(admit)) {
                    tracing::warn!(worker = %to, reason, "it cannot be told of a job");
                }
            }
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

/// Who may take outputs over, and where: of those that failed least, the half with the most room;
/// the outputs are spread evenly over them.
fn takers(
    members: &BTreeMap<WorkerId, Member>,
    failures: &BTreeMap<WorkerId, u32>,
) -> Vec<(WorkerId, String)> {
    let mut takers: Vec<_> = members
        .iter()
        .filter(|(_, member)| member.joined && member.attached() && !member.draining)
        .map(|(id, member)| (failures.get(id).copied().unwrap_or(0), Reverse(member.room()), id, member))
        .collect();
    takers.sort_unstable_by_key(|&(failed, room, id, _)| (failed, room, id));
    let least = takers.first().map_or(0, |(failed, ..)| *failed);
    takers.retain(|(failed, ..)| *failed == least);
    takers.truncate(takers.len().div_ceil(2));
    takers.into_iter().map(|(_, _, id, member)| (id.clone(), member.hello.flight_address.clone())).collect()
}
