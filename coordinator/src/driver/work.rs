//! The I/O of jobs: what the driver wants to have done, and how it is done. Each piece of work ends with one input of the
//! driver.
//!
//! Not here: what follows from a result (`planning`, `publishing`, `resume`, `attempts`); who runs the work (`shell`).

use std::sync::Arc;
use std::time::Duration;

use tally_common::retry::RetryPolicy;
use tally_dataset::Dataset;
use tally_proto::{AttemptId, JobId, v1};
use tally_scan::footer::Footers;
use tokio::time::timeout;

use super::DriverInput;
use super::publish_check::{CheckError, PublishCheck};
use crate::fleet::Capacity;
use crate::job::JobSpec;
use crate::objectives::table::DayTable;
use crate::plan::{self, InputPlan, PlanError};
use crate::publish::commit_log::Manifest;
use crate::publish::file_system::FileSystem;
use crate::publish::staging::{Published, Ready, Staging, StagingError, StoreStaging};
use crate::publish::{Commit, Finished, PublishError, StagedPart};

/// The retries of a publish while the store fails.
const PUBLISH_RETRY: RetryPolicy = RetryPolicy::fixed(Duration::from_secs(5)).with_max_retries(9);
/// The retries of a decided publish of an earlier leader.
const COMMIT_RETRY: RetryPolicy = PUBLISH_RETRY.with_max_retries(10);
/// Time limit for the removal of what an ended job staged.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(30);

/// A piece of work. Its pieces run concurrently, in any order.
pub enum Work {
    /// Plan a job's inputs and prepare its staging. Answer: [`DriverInput::Planned`].
    Plan {
        /// The job.
        spec: Box<JobSpec>,
        /// Its dataset.
        dataset: Arc<dyn Dataset>,
        /// The capacity for which the inputs are cut.
        capacity: Capacity,
        /// The plan that an earlier leader recorded: nothing is planned again.
        recorded: Option<InputPlan>,
        /// The staging that was adopted from an earlier leader: none is prepared.
        adopted: Option<Staging>,
        /// The term.
        epoch: u64,
    },
    /// Begin the upload of a write attempt. Answer: [`DriverInput::UploadBegun`].
    BeginUpload {
        /// The job's staging.
        staging: StoreStaging,
        /// The attempt.
        attempt: AttemptId,
        /// The folder of its part file within the day, for a dataset with folders.
        folder: Option<String>,
    },
    /// Prepare the winners' part files for the publish. Answer: [`DriverInput::Staged`].
    StageDay {
        /// The job.
        job: JobId,
        /// Its staging.
        staging: Staging,
        /// The winners' part files.
        parts: Vec<StagedPart>,
        /// The day's files and inputs.
        manifest: Manifest,
        /// What the day must meet first.
        check: Option<Box<PublishCheck>>,
    },
    /// Make a staged day visible. Answer: [`DriverInput::Published`].
    Publish {
        /// The job.
        spec: Box<JobSpec>,
        /// Its staging.
        staging: Staging,
        /// The day.
        ready: Ready,
    },
    /// Carry out a decision to publish of an earlier leader. Answer: [`DriverInput::Recovered`].
    FinishCommit {
        /// The job.
        spec: Box<JobSpec>,
        /// The decision.
        commit: Commit,
        /// The term.
        epoch: u64,
    },
    /// Remove what an ended job staged. Answer: [`DriverInput::Discarded`].
    Discard {
        /// The job.
        job: JobId,
        /// Its staging.
        staging: Staging,
    },
}

/// A planned job whose output can be staged.
#[derive(Debug)]
pub struct Planned {
    /// The map tasks.
    pub plan: InputPlan,
    /// The staging of the part files.
    pub staging: Staging,
    /// The plan is in the journal already.
    pub recorded: bool,
}

/// A job could not be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanningError {
    /// The inputs cannot be planned.
    #[error(transparent)]
    Inputs(#[from] PlanError),
    /// The output cannot be staged.
    #[error(transparent)]
    Output(#[from] StagingError),
}

/// A day that only has to be made visible.
#[derive(Debug)]
pub struct Staged {
    /// Where it is stored.
    pub staging: Staging,
    /// What identifies it.
    pub ready: Ready,
    /// Notes about its expectations.
    pub notes: Vec<String>,
}

/// A day is not prepared for the publish.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// It does not meet its expectations, or they cannot be checked.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The output cannot be staged.
    #[error(transparent)]
    Output(#[from] StagingError),
}

/// The upload of a write attempt, or the reason for which it did not begin.
pub type UploadResult = Result<v1::Upload, PublishError>;

impl Work {
    /// Does the work; returns the answer for the driver. Waits for I/O, and for tokio's clock between retries. Work on
    /// folders runs on threads that may block. `footers` caches the footers of inputs; folders of outputs are in `files`.
    /// When a day is replaced, the objectives table never has another day than the output.
    pub async fn run(self, footers: &Arc<Footers>, files: &Arc<dyn FileSystem>) -> DriverInput {
        let replaces = match &self {
            Work::Publish { spec, .. } | Work::FinishCommit { spec, .. } => Some(spec),
            _ => None,
        };
        let table = replaces.and_then(|spec| DayTable::new(&spec.dataset, &spec.output, &spec.day_folder));
        let Some(table) = table else { return self.run_without_table(footers, files).await };
        table.retract().await;
        let done = self.run_without_table(footers, files).await;
        table.update().await;
        done
    }

    /// The same, without the objectives table.
    pub async fn run_without_table(self, footers: &Arc<Footers>, files: &Arc<dyn FileSystem>) -> DriverInput {
        match self {
            Work::Plan { spec, dataset, capacity, recorded, adopted, epoch } => {
                let plan = async {
                    let (plan, recorded) = match recorded {
                        Some(plan) => (plan, true),
                        None => match plan_inputs(&spec, &*dataset, footers, capacity).await {
                            Ok(plan) => (plan, false),
                            Err(error) => {
                                if let Some(staging) = adopted {
                                    staging.discard().await;
                                }
                                return Err(error.into());
                            }
                        },
                    };
                    let staging = match adopted {
                        Some(staging) => staging,
                        None => Staging::prepare(&spec, epoch, files).await?,
                    };
                    Ok::<_, PlanningError>(Box::new(Planned { plan, staging, recorded }))
                };
                let planned = plan.await;
                DriverInput::Planned(spec.id, planned)
            }
            Work::BeginUpload { staging, attempt, folder } => {
                let upload = staging.begin(folder.as_deref(), attempt.task.index, attempt.attempt).await;
                DriverInput::UploadBegun(attempt, upload)
            }
            Work::StageDay { job, staging, parts, manifest, check } => {
                DriverInput::Staged(job, stage(staging, parts, manifest, check).await)
            }
            Work::Publish { spec, staging, ready } => {
                DriverInput::Published(spec.id, publish(staging, ready).await)
            }
            Work::FinishCommit { spec, commit, epoch } => {
                let finished = finish_commit(&spec, epoch, commit, files).await;
                DriverInput::Recovered(spec.id, finished)
            }
            Work::Discard { job, staging } => {
                if timeout(DISCARD_TIMEOUT, staging.discard()).await.is_err() {
                    tracing::warn!(%job, "the staged files could not be removed in time: run `tally gc` to remove them");
                }
                DriverInput::Discarded(job)
            }
        }
    }
}

async fn plan_inputs(
    spec: &JobSpec,
    dataset: &dyn Dataset,
    footers: &Arc<Footers>,
    capacity: Capacity,
) -> Result<InputPlan, PlanError> {
    let Capacity { slots, reads_footers, reduce_table_bytes, apart } = capacity;
    let mut plan = plan::plan(spec, dataset, footers, slots, reads_footers, apart).await?;
    plan.reduce_table_bytes = reduce_table_bytes;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    Ok(plan)
}

/// Checks the expectations of a day, and prepares its part files.
async fn stage(
    staging: Staging,
    parts: Vec<StagedPart>,
    manifest: Manifest,
    check: Option<Box<PublishCheck>>,
) -> Result<Box<Staged>, StageError> {
    let notes = match check {
        None => vec![],
        Some(check) => match check.run().await {
            Ok(notes) => notes,
            Err(error) => {
                staging.discard().await;
                return Err(error.into());
            }
        },
    };
    let (staging, ready) = staging.ready(parts, manifest).await?;
    Ok(Box::new(Staged { staging, ready, notes }))
}

/// Makes a day visible. A store that fails is tried again.
async fn publish(mut staging: Staging, mut ready: Ready) -> Result<(), StagingError> {
    let mut retries = PUBLISH_RETRY.start();
    loop {
        let (objects, manifest, error) = match staging.publish(ready).await {
            Published::Done => return Ok(()),
            Published::Failed(error) => return Err(error),
            Published::Retry(objects, manifest, error) => (objects, manifest, error),
        };
        let Some(delay) = retries.next() else {
            return Err(StagingError::Abandoned { error, outcome: objects.abandon().await });
        };
        tracing::warn!(%error, "the day cannot be published: trying again");
        tokio::time::sleep(delay).await;
        (staging, ready) = (Staging::Store(objects), Ready::Store(manifest));
    }
}

async fn finish_commit(
    spec: &JobSpec,
    epoch: u64,
    commit: Commit,
    files: &Arc<dyn FileSystem>,
) -> Result<Finished, StagingError> {
    let mut retries = COMMIT_RETRY.start();
    loop {
        let error = match Staging::finish_commit(spec, epoch, commit.clone(), files).await {
            // The decision stands, so an unavailable store is tried again.
            Err(error) if error.is_transient() => error,
            finished => return finished,
        };
        let Some(delay) = retries.next() else { return Err(error) };
        tracing::warn!(job = %spec.id, %error, "the publish cannot be completed: trying again");
        tokio::time::sleep(delay).await;
    }
}
