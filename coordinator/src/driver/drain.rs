//! Drains: the outputs of a draining worker that open stages still read are migrated to other workers. When no
//! output is needed any more, the worker gets a message that it is drained.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tally_proto::v1::coordinator_message::Message;
use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tally_scheduler::Scheduler;

use super::live_jobs::LiveJobs;
use crate::cluster::{Member, RemoteFleet};

/// A migration is requested again if its worker reported nothing about any migration for this long.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Outputs named in one message.
const BATCH: usize = 1000;
/// Open migrations of one worker. The limit keeps receivers from being flooded.
const MAX_OPEN: usize = 4000;

/// The drains under way.
#[derive(Debug, Default)]
pub(super) struct Drains(BTreeMap<WorkerId, Drain>);

#[derive(Debug, Default)]
struct Drain {
    /// Open migrations: the receiver of each output, and the time of the request since the driver's fixed moment.
    open: BTreeMap<AttemptId, (WorkerId, Duration)>,
    /// When the worker last reported the end of a migration.
    heard: Option<Duration>,
    /// Failed migrations by receiver.
    failures: BTreeMap<WorkerId, u32>,
    /// The worker got the message that it is drained.
    answered: bool,
}

impl Drain {
    /// Drops migrations that timed out.
    fn expire(&mut self, now: Duration) {
        let heard = self.heard;
        let since = |requested: Duration| heard.map_or(requested, |heard| heard.max(requested));
        self.open.retain(|_, (_, requested)| now.saturating_sub(since(*requested)) < MIGRATION_TIMEOUT);
    }
}

impl Drains {
    /// Forgets a lost worker, both as a draining worker and as a receiver.
    pub(super) fn on_worker_lost(&mut self, worker: &WorkerId) {
        self.0.remove(worker);
        for drain in self.0.values_mut() {
            drain.open.retain(|_, (to, _)| to != worker);
            drain.failures.remove(worker);
        }
    }

    /// A worker that asks again to drain did not receive the answer: it is sent again.
    pub(super) fn forget_answer(&mut self, worker: &WorkerId) {
        if let Some(drain) = self.0.get_mut(worker) {
            drain.answered = false;
        }
    }

    /// Notes the end of a migration. True if it was the worker's last open one.
    pub(super) fn migrated(&mut self, now: Duration, from: &WorkerId, attempt: &AttemptId) -> bool {
        let Some(drain) = self.0.get_mut(from) else { return false };
        drain.heard = Some(now);
        drain.open.remove(attempt).is_some() && drain.open.is_empty()
    }

    /// Notes a failed migration: the next round chooses another receiver.
    pub(super) fn migration_failed(
        &mut self,
        now: Duration,
        from: &WorkerId,
        attempt: &AttemptId,
        to: &WorkerId,
    ) {
        let Some(drain) = self.0.get_mut(from) else { return };
        drain.heard = Some(now);
        if drain.open.get(attempt).is_some_and(|(receiver, _)| receiver == to) {
            drain.open.remove(attempt);
            let failures = drain.failures.entry(to.clone()).or_default();
            *failures = failures.saturating_add(1);
        }
    }

    /// Continues the drains of all draining workers.
    pub(super) fn advance(
        &mut self,
        now: Duration,
        fleet: &mut RemoteFleet,
        scheduler: &Scheduler,
        jobs: &LiveJobs,
    ) {
        let draining: Vec<WorkerId> = fleet
            .members()
            .iter()
            .filter(|(_, member)| member.draining && member.joined && member.attached())
            .map(|(id, _)| id.clone())
            .collect();
        self.0.retain(|worker, _| fleet.members().contains_key(worker));
        for worker in draining {
            let needed = scheduler.outputs_needed_from(&worker);
            let drain = self.0.entry(worker.clone()).or_default();
            drain.advance(now, &worker, needed, fleet, jobs);
        }
    }
}

impl Drain {
    /// Requests further migrations of `needed`, or reports the drain as complete.
    fn advance(
        &mut self,
        now: Duration,
        worker: &WorkerId,
        needed: Vec<AttemptId>,
        fleet: &mut RemoteFleet,
        jobs: &LiveJobs,
    ) {
        if needed.is_empty() {
            self.report_complete(worker, fleet);
            return;
        }
        let receivers = receivers(fleet.members(), &self.failures);
        if receivers.is_empty() {
            // The worker waits for others to attach.
            return;
        }
        self.expire(now);
        let room = MAX_OPEN.saturating_sub(self.open.len());
        let pending: Vec<AttemptId> =
            needed.into_iter().filter(|attempt| !self.open.contains_key(attempt)).take(room).collect();
        if pending.is_empty() {
            return;
        }
        let share = pending.len().div_ceil(receivers.len()).clamp(1, BATCH);
        for (attempts, (to, address)) in pending.chunks(share).zip(receivers.iter().cycle()) {
            admit(attempts, to, fleet, jobs);
            let message = v1::MigrateOutputs {
                to: to.to_string(),
                flight_address: address.clone(),
                attempts: attempts.iter().map(v1::Attempt::from).collect(),
            };
            if fleet.send(worker, Message::MigrateOutputs(message)).is_err() {
                return;
            }
            for attempt in attempts {
                self.open.insert(attempt.clone(), (to.clone(), now));
            }
        }
    }

    /// Tells an idle worker, once, that none of its outputs is needed.
    fn report_complete(&mut self, worker: &WorkerId, fleet: &mut RemoteFleet) {
        let idle = |member: &Member| member.running.is_empty() && member.beat.lock().heartbeat.serving == 0;
        if fleet.members().get(worker).is_some_and(idle) && !self.answered {
            tracing::info!(%worker, "a worker is drained");
            self.answered = fleet.send(worker, Message::Drained(v1::Drained {})).is_ok();
        }
    }
}

/// Announces the jobs of these outputs to their receiver.
fn admit(attempts: &[AttemptId], to: &WorkerId, fleet: &mut RemoteFleet, jobs: &LiveJobs) {
    let ids: BTreeSet<&JobId> = attempts.iter().map(|attempt| &attempt.task.job).collect();
    for job in ids {
        let Some(run) = jobs.get(job) else { continue };
        let admit = v1::Admit { job: job.to_string(), key: run.submission.key.clone() };
        if let Err(error) = fleet.send(to, Message::Admit(admit)) {
            tracing::warn!(worker = %to, %error, "cannot announce a job to the worker");
        }
    }
}

/// The workers that may receive outputs, and their addresses: of those with the fewest failures, the half with the
/// most free memory. The outputs are spread evenly over them.
fn receivers(
    members: &BTreeMap<WorkerId, Member>,
    failures: &BTreeMap<WorkerId, u32>,
) -> Vec<(WorkerId, String)> {
    let mut receivers: Vec<_> = members
        .iter()
        .filter(|(_, member)| member.joined && member.attached() && !member.draining)
        .map(|(id, member)| (failures.get(id).copied().unwrap_or(0), Reverse(member.room()), id, member))
        .collect();
    receivers.sort_unstable_by_key(|&(failed, room, id, _)| (failed, room, id));
    let fewest = receivers.first().map_or(0, |(failed, ..)| *failed);
    receivers.retain(|(failed, ..)| *failed == fewest);
    receivers.truncate(receivers.len().div_ceil(2));
    receivers
        .into_iter()
        .map(|(_, _, id, member)| (id.clone(), member.hello.flight_address.clone()))
        .collect()
}
