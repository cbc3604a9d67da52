//! What an earlier leader left: its live jobs are taken up where the journal and the workers'
//! inventories say they stand; its decisions to publish are carried out.

use std::time::Duration;

use tally_dataset::dataset;
use tally_proto::{JobId, v1};
use tally_worker::urls;

use super::publish::{PUBLISH_AGAIN, PUBLISH_TRIES};
use super::run::JobRun;
use super::{Driver, Ended, Input};
use crate::history::Registry;
use crate::job::JobSpec;
use crate::journal::state::State;
use crate::plan::InputPlan;
use crate::publish::stage::Stage;
use crate::publish::{Commit, Finished};

/// A job of the journal's, with what of it was found on disk.
#[derive(Debug)]
pub struct Resumed {
    spec: JobSpec,
    submitted: v1::JobSubmitted,
    plan: Option<InputPlan>,
    /// A plan was recorded, and cannot be read.
    replanned: bool,
    committed: Option<v1::JobCommitted>,
    cancelled: bool,
    staging: Option<Stage>,
}

impl Resumed {
    /// The live jobs of a journal, for the leader of that epoch. Takes their staging folders over,
    /// before anybody counts them as a dead job's; does I/O and waits for it.
    pub fn all(state: &State, epoch: u64) -> Vec<Resumed> {
        state.live().into_iter().filter_map(|live| Self::one(live, epoch)).collect()
    }

    fn one(live: &v1::LiveJob, epoch: u64) -> Option<Resumed> {
        let submitted = live.submitted.clone()?;
        let recorded = submitted.spec.clone().unwrap_or_default();
        let spec = match JobSpec::recorded(&submitted.job, recorded) {
            Ok(spec) => spec,
            Err(error) => {
                tracing::error!(%error, "a job of the journal cannot be taken up");
                return None;
            }
        };
        let plan = live.planned.clone().map(InputPlan::try_from).transpose();
        let replanned = plan.is_err();
        let plan = plan.unwrap_or_else(|error| {
            tracing::warn!(job = %spec.id, %error, "the recorded plan cannot be read: the job starts over");
            None
        });
        // What is committed is looked for when it is carried out.
        let staging = match &live.committed {
            Some(_) => None,
            None => Stage::adopt(&spec, epoch),
        };
        let (committed, cancelled) = (live.committed.clone(), live.cancelled);
        Some(Resumed { spec, submitted, plan, replanned, committed, cancelled, staging })
    }
}

impl Driver {
    /// Takes up jobs of earlier epochs: they begin after `settle`, when workers had time to say what
    /// they have of them.
    pub fn resume(&mut self, jobs: Vec<Resumed>, settle: Duration) {
        let any = !jobs.is_empty();
        for job in jobs {
            self.take_up(job);
        }
        if any {
            let sender = self.sender.clone();
            tokio::spawn(async move {
                tokio::time::sleep(settle).await;
                let _ = sender.send(Input::Settled).await;
            });
        }
    }

    fn take_up(&mut self, resumed: Resumed) {
        let Resumed { spec, submitted, plan, replanned, committed, cancelled, staging } = resumed;
        let id = spec.id.clone();
        let Some(dataset) = dataset(&spec.dataset) else {
            tracing::error!(job = %id, dataset = spec.dataset, "there is no such dataset: left in the journal");
            return;
        };
        tracing::info!(job = %id, planned = plan.is_some(), committed = committed.is_some(), "a job goes on");
        let mut run = JobRun::new(spec, dataset, submitted.key, submitted.submitted_at);
        run.recorded = true;
        run.cancelled = cancelled;
        run.recorded_plan = plan;
        run.replanned = replanned;
        run.staging = staging;
        run.committing = committed.is_some();
        self.registry.add(&id, run.first_status());
        if let Some(committed) = committed {
            run.committed_summary = Some(committed.summary.clone());
            self.carry_out_commit(&run.spec, committed);
        }
        self.jobs.insert(id, run);
    }

    fn carry_out_commit(&self, spec: &JobSpec, committed: v1::JobCommitted) {
        let (spec, sender, epoch) = (spec.clone(), self.sender.clone(), self.epoch);
        let commit = Commit { device: committed.device, inode: committed.inode, parts: committed.parts };
        tokio::spawn(async move {
            let mut tries = 0;
            let result = loop {
                match Stage::finish_commit(&spec, epoch, commit.clone()).await {
                    Ok(Finished::Done) => break Ok(None),
                    Ok(Finished::Gone) => break Ok(Some(())),
                    // A store that is away comes back; what was decided stands.
                    Err(error) if !urls::is_local(&spec.output) && tries < PUBLISH_TRIES => {
                        tracing::warn!(job = %spec.id, error, "the publish cannot be carried out: tried again");
                        tries += 1;
                        tokio::time::sleep(PUBLISH_AGAIN).await;
                    }
                    Err(error) => break Err(error),
                }
            };
            let _ = sender.send(Input::Recovered(spec.id, result)).await;
        });
    }

    /// Workers had their time: jobs begin.
    pub(super) fn settled(&mut self) {
        let waiting = |(id, run): (&JobId, &JobRun)| {
            (self.scheduler.status(id).is_none() && run.recorded && !run.committing).then(|| id.clone())
        };
        let mut jobs: Vec<(u64, JobId)> =
            self.jobs.iter().filter_map(waiting).map(|id| (self.jobs[&id].submitted_at, id)).collect();
        jobs.sort_unstable();
        for (_, job) in jobs {
            self.begin(&job);
        }
    }

    pub(super) fn recovered(&mut self, job: &JobId, result: Result<Option<()>, String>) {
        match &result {
            Ok(Some(())) => {}
            Ok(None) => self.publish_ended(job, Ok(())),
            Err(reason) => self.publish_ended(job, Err(reason)),
        }
        let Some(run) = self.jobs.get_mut(job) else { return };
        match result {
            Ok(Some(())) => {
                // Neither published nor staged: it is made again.
                tracing::warn!(%job, "the committed day is gone: made again");
                run.committing = false;
                run.committed_summary = None;
                self.begin(job);
                return;
            }
            Ok(None) => {
                let summary = Box::new(run.summary());
                self.end_as(job, Ended::Done(summary));
            }
            Err(reason) => {
                let reason = format!("the output could not be published: {reason}");
                self.end_as(job, Ended::Failed(reason));
            }
        }
        self.fleet.release(job);
        self.jobs.remove(job);
    }
}

/// Fills the registry with jobs that are over.
pub fn show_history(registry: &Registry, state: &State) {
    for status in state.history() {
        if let Ok(job) = JobId::parse(&status.job) {
            registry.add(&job, status.clone());
        }
    }
}
