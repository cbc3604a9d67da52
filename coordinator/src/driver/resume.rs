//! Jobs of earlier leaders: live jobs continue from the journal and the workers' inventories; decisions to publish are
//! carried out.

use std::sync::Arc;
use std::time::Duration;

use tally_proto::v1::EventKind;
use tally_proto::{JobId, v1};

use super::job_run::JobRun;
use super::job_run::notes::event;
use super::job_run::submission::Submission;
use super::work::Work;
use super::{Driver, Ended, Now, Output};
use crate::history::Registry;
use crate::job::JobSpec;
use crate::journal::state::State;
use crate::plan::InputPlan;
use crate::publish::file_system::FileSystem;
use crate::publish::staging::{Staging, StagingError};
use crate::publish::{Commit, Finished};

/// A job from the journal, with its staging if that was found on disk.
#[derive(Debug)]
pub struct Resumed {
    spec: JobSpec,
    submitted: v1::JobSubmitted,
    plan: Option<InputPlan>,
    committed: Option<v1::JobCommitted>,
    cancelled: bool,
    notes: Option<v1::JobNotes>,
    staging: Option<Staging>,
}

impl Resumed {
    /// The live jobs of a journal, for the leader of that epoch. Takes over their staging folders, so that no other
    /// job treats them as abandoned. Blocks on I/O.
    pub fn all(state: &State, epoch: u64, files: &Arc<dyn FileSystem>) -> Vec<Resumed> {
        state.live().into_iter().filter_map(|live| Self::one(live, epoch, files)).collect()
    }

    fn one(live: &v1::LiveJob, epoch: u64, files: &Arc<dyn FileSystem>) -> Option<Resumed> {
        let submitted = live.submitted.clone()?;
        let recorded = submitted.spec.clone().unwrap_or_default();
        let spec = match JobSpec::recorded(&submitted.job, recorded) {
            Ok(spec) => spec,
            Err(error) => {
                tracing::error!(job = submitted.job, %error, "a job cannot be resumed: it stays in the journal");
                return None;
            }
        };
        let plan = live.planned.clone().map(InputPlan::try_from).transpose();
        let plan = plan.unwrap_or_else(|error| {
            tracing::warn!(job = %spec.id, %error, "the recorded plan cannot be read: the job starts over");
            None
        });
        // The staging of a committed job is found when the commit is carried out.
        let staging = match &live.committed {
            Some(_) => None,
            None => Staging::adopt(&spec, epoch, files),
        };
        let (committed, cancelled, notes) = (live.committed.clone(), live.cancelled, live.notes.clone());
        Some(Resumed { spec, submitted, plan, committed, cancelled, notes, staging })
    }
}

impl Driver {
    /// Takes over jobs of earlier epochs. They begin after `settle`, when workers had time to report what they have.
    /// Returns what has to be done, like [`Driver::step`].
    pub fn resume(&mut self, now: Now, jobs: Vec<Resumed>, settle: Duration) -> Vec<Output> {
        self.set_now(now);
        if !jobs.is_empty() {
            self.timers.settled = Some(self.now.elapsed.saturating_add(settle));
        }
        for job in jobs {
            self.take_over(job);
        }
        self.outputs.take()
    }

    fn take_over(&mut self, resumed: Resumed) {
        let Resumed { spec, submitted, plan, committed, cancelled, notes, staging } = resumed;
        let id = spec.id.clone();
        let dataset = match spec.configured() {
            Ok(dataset) => dataset,
            Err(error) => {
                tracing::error!(job = %id, %error, "a job cannot be resumed: it stays in the journal");
                return;
            }
        };
        tracing::info!(job = %id, planned = plan.is_some(), committed = committed.is_some(), "a job is resumed");
        let v1::JobSubmitted { key, submitted_at, .. } = submitted;
        let submission = Submission { spec, dataset, key, submitted_at };
        let mut run = JobRun::new(submission, self.now.elapsed, self.epoch, true);
        run.cancelled = cancelled;
        let since = Duration::from_millis(self.now.unix_millis.saturating_sub(submitted_at));
        run.phases.resume(notes.as_ref(), since);
        notes.iter().for_each(|notes| run.notes.resume(notes));
        let text = format!("another coordinator continues the job, in epoch {}", self.epoch);
        run.notes.add(self.now.unix_millis, event(EventKind::TakenOver, text));
        run.takeover.recorded(plan);
        self.metrics.registry.add(&id, run.first_status());
        match committed {
            Some(committed) => {
                let v1::JobCommitted { device, inode, parts, summary, replaces, .. } = committed;
                run.state.resume_commit(summary);
                let spec = Box::new(run.submission.spec.clone());
                let commit = Commit { device, inode, parts, replaces };
                self.outputs.work(Work::FinishCommit { spec, commit, epoch: self.epoch });
            }
            None => run.state.resume(staging),
        }
        self.jobs.insert(id, run);
    }

    /// Workers had time to report what they have: jobs begin.
    pub(super) fn settled(&mut self) {
        for job in self.jobs.waiting_to_begin(&self.scheduler) {
            self.begin(&job);
        }
    }

    /// The decision of an earlier leader was carried out, or not.
    pub(super) fn recovered(&mut self, job: &JobId, finished: Result<Finished, StagingError>) {
        let finished = finished.map_err(|error| error.to_string());
        let Some(run) = self.jobs.get_mut(job) else { return };
        let ended = match finished {
            Ok(Finished::Gone) => {
                tracing::warn!(%job, "the committed day is neither published nor staged: the job runs again");
                run.state.resume(None);
                self.begin(job);
                return;
            }
            Ok(Finished::Done) => {
                self.metrics.count_publish(self.now, job, run, Ok(()));
                Ended::Done(Box::new(run.summary(self.now.elapsed)))
            }
            Err(reason) => {
                self.metrics.count_publish(self.now, job, run, Err(&reason));
                Ended::Failed(format!("the output could not be published: {reason}"))
            }
        };
        self.end_as(job, ended);
        self.release(job);
    }
}

/// Fills the registry with ended jobs.
pub fn show_history(registry: &Registry, state: &State) {
    for (status, notes) in state.history_with_notes() {
        if let Ok(job) = JobId::parse(&status.job) {
            registry.add(&job, status.clone());
            notes.iter().for_each(|notes| registry.keep_notes(&job, (*notes).clone()));
        }
    }
}
