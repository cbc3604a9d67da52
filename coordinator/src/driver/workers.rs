//! The driver's workers: the fleet, the drains under way, and write attempts that wait for their upload.
//!
//! Not here: what workers in other processes report (`members`); which task runs where (`tally-scheduler`).

use std::collections::BTreeMap;
use std::time::Duration;

use tally_proto::v1::coordinator_message::Message;
use tally_proto::{AttemptId, JobId, StageId, TaskId, WorkerId, v1};
use tally_scheduler::{FoundTask, Scheduler};

use super::drain::Drains;
use super::job_run::Reports;
use super::live_jobs::LiveJobs;
use crate::cluster::{Member, RemoteFleet};
use crate::dispatch::TaskDispatch;
use crate::fleet::{Capacity, DispatchError, Fleet};
use crate::load::Load;

/// The workers and what the driver noted of them.
pub(super) struct Workers {
    fleet: Box<dyn Fleet>,
    pub(super) drains: Drains,
    /// Write attempts that wait for their upload to begin, and the worker that is to run each.
    waiting_for_upload: BTreeMap<AttemptId, WorkerId>,
}

impl Workers {
    pub(super) fn new(fleet: Box<dyn Fleet>) -> Self {
        Workers { fleet, drains: Drains::default(), waiting_for_upload: BTreeMap::new() }
    }

    /// The fleet of workers in other processes, if it is one.
    pub(super) fn remote(&mut self) -> Option<&mut RemoteFleet> {
        self.fleet.remote()
    }

    pub(super) fn member(&mut self, worker: &WorkerId) -> Option<&mut Member> {
        self.remote()?.member(worker)
    }

    pub(super) fn capacity(&self) -> Capacity {
        self.fleet.capacity()
    }

    /// The address at which other workers fetch this one's outputs.
    pub(super) fn address(&self, worker: &WorkerId) -> String {
        self.fleet.address(worker)
    }

    /// Sends a task to a worker.
    ///
    /// # Errors
    /// [`DispatchError`].
    pub(super) fn start(
        &mut self,
        worker: &WorkerId,
        attempt: &AttemptId,
        dispatch: TaskDispatch,
    ) -> Result<(), DispatchError> {
        self.fleet.start(worker, attempt, dispatch)
    }

    /// Stops an attempt.
    pub(super) fn stop(&mut self, worker: &WorkerId, attempt: &AttemptId) {
        self.fleet.stop(worker, attempt);
    }

    /// Has all workers drop a job's data.
    pub(super) fn release(&mut self, job: &JobId) {
        self.fleet.release(job);
        self.waiting_for_upload.retain(|attempt, _| attempt.task.job != *job);
    }

    /// Notes that an attempt waits for its upload to begin.
    pub(super) fn wait_for_upload(&mut self, attempt: AttemptId, worker: WorkerId) {
        self.waiting_for_upload.insert(attempt, worker);
    }

    /// Whether an attempt waits for its upload to begin.
    pub(super) fn waits_for_upload(&self, attempt: &AttemptId) -> bool {
        self.waiting_for_upload.contains_key(attempt)
    }

    /// Notes which workers sent a heartbeat since the last call.
    pub(super) fn hear(&mut self, now: Duration) {
        let Some(fleet) = self.fleet.remote() else { return };
        fleet.members_mut().for_each(|member| member.hear(now));
    }

    /// Sums up by job what running attempts wait for, and what they have read.
    pub(super) fn show_waits(&mut self, now: Duration, silent_after: Duration, jobs: &mut LiveJobs) {
        let Some(fleet) = self.fleet.remote() else { return };
        let mut all: BTreeMap<JobId, Reports> = BTreeMap::new();
        for (worker, member) in fleet.members() {
            let silent = member.is_silent(now, silent_after);
            let age = member.heartbeat_age(now);
            let mut here: BTreeMap<&JobId, u32> = BTreeMap::new();
            for attempt in &member.running {
                *here.entry(&attempt.task.job).or_default() += 1;
            }
            let resident = member.beat.lock().heartbeat.resident_bytes;
            for job in here.into_keys() {
                let report = all.entry(job.clone()).or_default();
                if silent {
                    report.add_silent(worker);
                }
                report.resident = report.resident.max(resident);
            }
            for attempt in &member.beat.lock().heartbeat.attempts {
                let Some(id) = attempt.attempt.as_ref().and_then(|id| AttemptId::try_from(id).ok()) else {
                    continue;
                };
                if member.running.contains(&id) {
                    all.entry(id.task.job).or_default().add(attempt, age);
                }
            }
        }
        for (job, run) in jobs.iter_mut() {
            run.reports = all.remove(job).unwrap_or_default();
        }
    }

    /// The worker of an attempt that no longer waits for its upload; `None` if it did not wait.
    pub(super) fn upload_begun(&mut self, attempt: &AttemptId) -> Option<WorkerId> {
        self.waiting_for_upload.remove(attempt)
    }

    /// Notes attempts that run on workers although this term did not dispatch them.
    pub(super) fn note_running(&mut self, job: &JobId, stage: StageId, found: &[FoundTask]) {
        let Some(fleet) = self.fleet.remote() else { return };
        for found in found.iter().filter(|found| !found.done) {
            let task = TaskId { job: job.clone(), stage, index: found.index };
            if let Some(member) = fleet.member(&found.worker) {
                member.running.insert(AttemptId { task, attempt: found.attempt });
            }
        }
    }

    /// Asks a worker to drain.
    pub(super) fn ask_to_drain(&mut self, worker: &WorkerId) {
        let Some(fleet) = self.fleet.remote() else { return };
        if let Err(error) = fleet.send(worker, Message::Drain(v1::Draining {})) {
            tracing::warn!(%worker, %error, "cannot send the worker a request to drain");
        }
    }

    /// Tells a worker to drop jobs that do not live.
    pub(super) fn release_on(&mut self, worker: &WorkerId, jobs: impl IntoIterator<Item = JobId>) {
        if let Some(fleet) = self.fleet.remote() {
            fleet.release_on(worker, jobs);
        }
    }

    /// Removes a lost worker from the fleet. False for workers of this process, which are never lost.
    pub(super) fn on_worker_lost(&mut self, worker: &WorkerId) -> bool {
        let Some(fleet) = self.fleet.remote() else { return false };
        fleet.give_up(worker);
        self.drains.on_worker_lost(worker);
        self.waiting_for_upload.retain(|_, at| at != worker);
        true
    }

    /// Whether the scheduler knows a worker of another process.
    pub(super) fn has_joined(&mut self, worker: &WorkerId) -> bool {
        self.member(worker).is_some_and(|member| member.joined)
    }

    /// Continues all drains.
    pub(super) fn drain(&mut self, now: Duration, scheduler: &Scheduler, jobs: &LiveJobs) {
        if let Some(fleet) = self.fleet.remote() {
            self.drains.advance(now, fleet, scheduler, jobs);
        }
    }

    /// Up to `max` workers with ids after `after`, and whether there are more.
    pub(super) fn list(
        &mut self,
        scheduler: &Scheduler,
        after: Option<&WorkerId>,
        max: usize,
        (now, silent_after): (Duration, Duration),
    ) -> (Vec<v1::WorkerStatus>, bool) {
        let Some(fleet) = self.fleet.remote() else { return (vec![], false) };
        let mut later = fleet.members().iter().filter(|(id, _)| after.is_none_or(|after| *id > after));
        let status = |(id, member): (&WorkerId, &Member)| {
            let outputs = scheduler.outputs_held_by(id) as u64;
            v1::WorkerStatus { outputs, ..member.status(now, silent_after) }
        };
        let page: Vec<_> = later.by_ref().take(max).map(status).collect();
        (page, later.next().is_some())
    }

    /// Adds the workers of other processes to the load.
    pub(super) fn add_to(&mut self, load: &mut Load) {
        let Some(fleet) = self.fleet.remote() else { return };
        for member in fleet.members().values() {
            let state = match (member.attached(), member.draining) {
                (true, false) => 0,
                (true, true) => 1,
                (false, _) => 2,
            };
            load.workers[state] += 1;
            if state == 0 {
                load.slots += u64::from(member.hello.slots);
            }
        }
    }
}
