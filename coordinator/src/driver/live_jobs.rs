//! The driver's jobs: those that run, those whose end is not in the journal yet, and those that the scheduler
//! still has to forget.

use std::collections::BTreeMap;

use tally_proto::{JobId, WorkerId, v1};
use tally_scheduler::Scheduler;
use tokio::sync::oneshot;

use super::answers::{Ended, MAX_SUBMITS, Refusal, Submit};
use super::job_run::JobRun;
use crate::attempt_log::AttemptLog;
use crate::job::JobSpec;
use crate::publish::staging::Staging;

/// A job that ended, until its end is in the journal.
pub(super) struct Ending {
    pub(super) status: v1::JobStatus,
    pub(super) notes: v1::JobNotes,
    pub(super) attempts: AttemptLog,
    pub(super) ended: Ended,
    pub(super) waiting: Vec<oneshot::Sender<Ended>>,
    pub(super) spec: JobSpec,
    /// Submissions of the same day. They begin when the end is in the journal: until then, a later leader would run this
    /// job again, and could publish its day after theirs.
    pub(super) afterwards: Vec<Submit>,
    /// Clients that cancel the job, which is too late.
    pub(super) cancels: Vec<oneshot::Sender<()>>,
    /// The record of the end is on its way to the journal.
    pub(super) recorded: bool,
}

/// All jobs of a driver.
pub(super) struct LiveJobs {
    live: BTreeMap<JobId, JobRun>,
    /// Ended jobs whose end is not in the journal yet.
    ending: BTreeMap<JobId, Ending>,
    /// Clients that wait until the cancellation of a job is in the journal.
    cancels: BTreeMap<JobId, Vec<oneshot::Sender<()>>>,
    /// Jobs that the scheduler forgets as soon as their last attempt ended.
    forgettable: Vec<JobId>,
    max: usize,
}

impl LiveJobs {
    /// No jobs; at most `max` run at a time.
    pub(super) fn new(max: usize) -> Self {
        LiveJobs {
            live: BTreeMap::new(),
            ending: BTreeMap::new(),
            cancels: BTreeMap::new(),
            forgettable: vec![],
            max,
        }
    }

    pub(super) fn get(&self, job: &JobId) -> Option<&JobRun> {
        self.live.get(job)
    }

    pub(super) fn get_mut(&mut self, job: &JobId) -> Option<&mut JobRun> {
        self.live.get_mut(job)
    }

    pub(super) fn contains(&self, job: &JobId) -> bool {
        self.live.contains_key(job)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&JobId, &JobRun)> {
        self.live.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&JobId, &mut JobRun)> {
        self.live.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn insert(&mut self, job: JobId, run: JobRun) {
        self.live.insert(job, run);
    }

    pub(super) fn remove(&mut self, job: &JobId) -> Option<JobRun> {
        self.live.remove(job)
    }

    /// Has a client that cancels a job wait for the record of the job's cancellation or end that is on its way to the
    /// journal. Without such a record, the client is returned.
    pub(super) fn wait_for_record(
        &mut self,
        job: &JobId,
        client: oneshot::Sender<()>,
    ) -> Option<oneshot::Sender<()>> {
        let ending = self.ending.get_mut(job).map(|ending| &mut ending.cancels);
        let Some(waiting) = ending.or_else(|| self.cancels.get_mut(job)) else { return Some(client) };
        waiting.push(client);
        None
    }

    /// Has a submission wait for the end of a job of the same day that is on its way to the journal. Without such a job, the
    /// submission is returned.
    pub(super) fn wait_for_end(&mut self, submit: Submit) -> Option<Submit> {
        let Some(ending) = self.ending.values_mut().find(|ending| ending.spec.same_day(&submit.spec)) else {
            return Some(submit);
        };
        if ending.afterwards.len() < MAX_SUBMITS {
            ending.afterwards.push(submit);
        } else {
            // The client may have hung up.
            let _ = submit.accepted.send(Err(Refusal::BeingCancelled(MAX_SUBMITS)));
        }
        None
    }

    /// The record of a cancellation is on its way to the journal.
    pub(super) fn begin_cancel(&mut self, job: &JobId, client: oneshot::Sender<()>) {
        self.cancels.insert(job.clone(), vec![client]);
    }

    /// The cancellation of a job is in the journal: answers the clients.
    pub(super) fn cancel_recorded(&mut self, job: &JobId) {
        for client in self.cancels.remove(job).into_iter().flatten() {
            // The client may have hung up.
            let _ = client.send(());
        }
    }

    /// The live job that writes the same day of the same output.
    pub(super) fn same_day(&mut self, spec: &JobSpec) -> Option<(&JobId, &mut JobRun)> {
        self.live.iter_mut().find(|(_, run)| run.submission.spec.same_day(spec))
    }

    /// The reason for which a new job cannot be accepted.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        (self.live.len() >= self.max).then_some(Refusal::Full(self.max))
    }

    /// Accepted jobs that the scheduler does not know yet, in the order of their submission.
    pub(super) fn waiting_to_begin(&self, scheduler: &Scheduler) -> Vec<JobId> {
        let waiting = |(id, run): (&JobId, &JobRun)| {
            let waits =
                scheduler.status(id).is_none() && run.state.is_recorded() && !run.state.is_committing();
            waits.then(|| (run.submission.submitted_at, id.clone()))
        };
        let mut jobs: Vec<(u64, JobId)> = self.live.iter().filter_map(waiting).collect();
        jobs.sort_unstable();
        jobs.into_iter().map(|(_, id)| id).collect()
    }

    /// Keeps a job's end until it is in the journal.
    pub(super) fn keep_ending(&mut self, job: &JobId, ending: Ending) {
        self.ending.insert(job.clone(), ending);
    }

    /// The status with which a job ended, and its notes, once: they go to the journal.
    pub(super) fn end_to_record(&mut self, job: &JobId) -> Option<(v1::JobStatus, v1::JobNotes)> {
        let ending = self.ending.get_mut(job)?;
        let first = !std::mem::replace(&mut ending.recorded, true);
        first.then(|| (ending.status.clone(), ending.notes.clone()))
    }

    /// The end of a job that is in the journal now; the scheduler may forget the job.
    pub(super) fn take_ending(&mut self, job: &JobId) -> Option<Ending> {
        let ending = self.ending.remove(job)?;
        self.forgettable.push(job.clone());
        Some(ending)
    }

    /// Has the scheduler forget ended jobs.
    pub(super) fn forget_ended(&mut self, scheduler: &mut Scheduler) {
        self.forgettable.retain(|job| scheduler.status(job).is_some() && !scheduler.forget(job));
    }

    /// Drops what was noted that a worker has of stages that are not planned.
    pub(super) fn forget_worker(&mut self, worker: &WorkerId) {
        self.live.values_mut().for_each(|run| run.takeover.forget_worker(worker));
    }

    /// Ends the term for all live jobs, see [`JobRun::leave`].
    pub(super) fn leave(self, deposed: bool) -> Vec<Staging> {
        self.live.into_values().filter_map(|run| run.leave(deposed)).collect()
    }
}
