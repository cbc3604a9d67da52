//! One live job of the driver: its submission, state, plan, results and what others wait for.
//!
//! The parts have files of their own: `submission`, `run_state`, `clients`, `job_plan`, `write_attempts`, `takeover`, `phases`.
//! Here are the methods that need several of them; `task_plans` and `part_files` plan stages, `task_messages` builds task
//! messages, `verification` checks a day
//! before it is published. Not here: when anything happens (the driver).

mod clients;
mod job_plan;
pub(super) mod notes;
mod part_files;
mod phases;
mod publication;
mod refusals;
mod reports;
mod run_state;
pub(super) mod submission;
mod takeover;
mod task_messages;
mod task_plans;
mod verification;
mod write_attempts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tally_common::counts::counted;
use tally_proto::limits::MAX_TASKS;
use tally_proto::{AttemptId, JobId, StageId, TaskId, v1};
use tally_scheduler::FoundTask;

use crate::dispatch::{SharedInputs, SharedOptions};
use crate::failures::AttemptError;
use crate::job::{MAP, REDUCE, WRITE};
use crate::plan::InputPlan;
use crate::plan::deferred::DeferredError;
use crate::publish::staging::{Staging, StoreStaging};
use crate::results::{Results, Winner};
use clients::{Clients, PendingAccept};
use job_plan::JobPlan;
use notes::Notes;
use phases::Phases;
use refusals::Refusals;
pub(super) use reports::Reports;
use run_state::RunState;
use submission::Submission;
use takeover::Takeover;
use verification::VerifyError;
use write_attempts::WriteAttempts;

/// A live job.
pub(super) struct JobRun {
    pub(super) submission: Submission,
    pub(super) state: RunState,
    /// A client asked to stop the job.
    pub(super) cancelled: bool,
    pub(super) clients: Clients,
    pub(super) plan: JobPlan,
    results: Results,
    pub(super) writes: WriteAttempts,
    /// The options of the dataset as workers get them.
    options: Option<Arc<SharedOptions>>,
    /// The inputs of all reduce tasks, for one version of the map outputs.
    reduce_inputs: Option<Arc<SharedInputs>>,
    pub(super) takeover: Takeover,
    pub(super) phases: Phases,
    pub(super) refusals: Refusals,
    /// The day does not meet an expectation.
    pub(super) is_unmet: bool,
    /// Notes about its expectations, for the summary.
    pub(super) expectation_notes: Vec<String>,
    /// What people are told of the job.
    pub(super) notes: Notes,
    /// What workers reported of its running attempts.
    pub(super) reports: Reports,
    /// Whether workers in other processes run it.
    pub(super) remote: bool,
    /// The usual duration of such jobs in milliseconds, once it was looked up; see `Registry::usual`.
    pub(super) usual_millis: Option<Option<u64>>,
}

/// A stage could not be planned.
#[derive(Debug, thiserror::Error)]
pub(super) enum StagePlanError {
    /// The footers that workers read show that the inputs are incomplete.
    #[error(transparent)]
    Inputs(#[from] DeferredError),
    /// Results of reduce tasks are missing.
    #[error("the part files cannot be planned: the results of {known} of {} are known", counted(*all, "reduce task"))]
    MissingResults {
        /// Reduce tasks with a result.
        known: usize,
        /// All reduce tasks.
        all: u32,
    },
    /// More part files than a stage may have tasks.
    #[error(
        "the day's {} need {} of the target size, and a job writes at most {MAX_TASKS}: set a larger --target-file-size",
        counted(*rows, "row"), counted(*files, "part file")
    )]
    TooManyFiles {
        /// Rows of the day.
        rows: u64,
        /// Part files.
        files: u64,
    },
    /// The shuffle does not have a partition per folder of the output.
    #[error(
        "the plan has {} instead of {count}, one for each folder of {column}: submit again",
        counted(*partitions, "partition")
    )]
    Folders {
        /// Partitions of the plan.
        partitions: u32,
        /// The column of the folders.
        column: &'static str,
        /// Folders.
        count: u32,
    },
}

/// A day cannot be published.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReady {
    /// The sums of the stages differ.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The staging is missing.
    #[error("there is no staged day")]
    NotStaged,
    /// These part files do not match the others and have to be written again.
    #[error("part files {files:?} do not match the others")]
    Incompatible {
        /// Their numbers.
        files: Vec<u32>,
    },
}

impl JobRun {
    /// A job of the term `epoch`; `remote`: workers in other processes run it.
    pub(super) fn new(submission: Submission, now: Duration, epoch: u64, remote: bool) -> Self {
        let plan = JobPlan::new(submission.dataset.totals().len());
        let options = SharedOptions::new(&submission.spec.options);
        JobRun {
            submission,
            options,
            state: RunState::Submitted,
            cancelled: false,
            clients: Clients::default(),
            plan,
            results: Results::default(),
            writes: WriteAttempts::default(),
            reduce_inputs: None,
            takeover: Takeover::default(),
            phases: Phases::start(now),
            refusals: Refusals::default(),
            is_unmet: false,
            expectation_notes: vec![],
            notes: Notes::new(epoch),
            reports: Reports::default(),
            remote,
            usual_millis: None,
        }
    }

    /// The status before any work.
    pub(super) fn first_status(&self) -> v1::JobStatus {
        v1::JobStatus {
            job: self.submission.spec.id.to_string(),
            spec: Some((&self.submission.spec).into()),
            state: v1::JobState::Running.into(),
            phase: self.phases.current().into(),
            submitted_at: self.submission.submitted_at,
            ..v1::JobStatus::default()
        }
    }

    /// Answers the clients that submitted the job, with `asked` among them, as soon as the submission is in the journal.
    pub(super) fn accept(&mut self, asked: Option<PendingAccept>) {
        self.clients.submitted(asked);
        if self.state.is_recorded() {
            self.clients.accept(&self.submission.spec.id);
        }
    }

    /// The staging in which the upload of a write attempt has to begin first; `None` if the attempt needs no upload, or
    /// has one.
    pub(super) fn needs_upload(&self, attempt: &AttemptId) -> Option<StoreStaging> {
        match self.state.staging() {
            Some(Staging::Store(staging))
                if attempt.task.stage.0 == WRITE && !self.writes.has_upload(attempt) =>
            {
                Some(staging.clone())
            }
            _ => None,
        }
    }

    /// The tasks of an earlier term in a stage that is planned now, as far as they match the plan.
    pub(super) fn take_found(&mut self, stage: StageId) -> Vec<FoundTask> {
        let tasks = self.plan.tasks(stage).unwrap_or(0);
        let mut found = self.takeover.take(stage);
        found.retain(|found| (found.index as usize) < tasks);
        if stage.0 == MAP {
            found.retain(|found| !found.done || self.still_fits(found));
        }
        found
    }

    /// Whether the plan can use a map output that was noted before there was a plan. An output without a result cannot be
    /// used: if two workers hold an output that does not match, the first look forgets its result.
    fn still_fits(&mut self, found: &FoundTask) -> bool {
        let job = self.submission.spec.id.clone();
        let task = TaskId { job, stage: StageId(MAP), index: found.index };
        let attempt = AttemptId { task, attempt: found.attempt };
        let Some(result) = self.results.mapped(&attempt) else { return false };
        let Err(what) = self.fits(&attempt, result) else { return true };
        tracing::warn!(%attempt, what, "a map output does not match the plan: its task runs again");
        self.results.forget_read(&attempt);
        false
    }

    /// Keeps a result.
    ///
    /// # Errors
    /// [`AttemptError`]: the result does not match the plan, or see [`Results::keep`].
    pub(super) fn keep(&mut self, attempt: &AttemptId, result: v1::TaskResult) -> Result<(), AttemptError> {
        if let (MAP, Some(v1::task_result::Result::Map(result))) = (attempt.task.stage.0, &result.result) {
            let bad = |what| AttemptError::BadResult { attempt: attempt.clone(), what };
            self.fits(attempt, result).map_err(bad)?;
        }
        self.results.keep(attempt, result)
    }

    /// Drops the results of a done task that do not count any longer; `current` is the attempt that made its output.
    pub(super) fn settle(&mut self, task: &TaskId, current: u32) {
        match task.stage.0 {
            REDUCE => {
                let read = self.writes.read_of(task.index);
                self.results.settle(task, |attempt| attempt == current || read.contains(&attempt));
            }
            stage => {
                self.results.settle(task, |attempt| attempt == current);
                if stage == WRITE {
                    self.writes.settle(task.index, |attempt| attempt == current);
                }
            }
        }
    }

    /// Whether this term has the result of an attempt that it dispatched.
    pub(super) fn knows(&self, attempt: &AttemptId) -> bool {
        self.results.has(attempt)
    }

    /// Compares the result of a map attempt with the plan, if there is one.
    fn fits(&self, attempt: &AttemptId, result: &v1::MapResult) -> Result<(), &'static str> {
        let Some(task) = self.plan.inputs.tasks.get(attempt.task.index as usize) else { return Ok(()) };
        let table = self.submission.dataset.tables().get(task.work.table as usize);
        task.fits(result, table.map_or(0, |table| table.columns.len()))
    }

    /// Ends the term for this job, which another coordinator continues. Returns the staging that a deposed leader removes,
    /// because the next leader prepared its own; but not after the day was staged, because the next leader may find the
    /// decision in the journal and carry it out.
    pub(super) fn leave(mut self, deposed: bool) -> Option<Staging> {
        let committing = self.state.is_committing();
        let staging = self.state.take_staging()?;
        if committing || !deposed {
            staging.leave();
            return None;
        }
        Some(staging)
    }

    /// The map stage is planned.
    pub(super) fn input_planned(&mut self, plan: InputPlan, staging: Staging) {
        self.plan.set_inputs(plan, self.submission.dataset.tables().len());
        self.state.resume(Some(staging));
    }

    /// Verifies the written part files; `outputs` are the winners of all stages. Returns the staging with the day, and
    /// moves the job to the publish.
    ///
    /// # Errors
    /// [`NotReady`].
    pub(super) fn ready_to_publish(&mut self, outputs: &[Vec<Winner>; 3]) -> Result<Staging, NotReady> {
        let [mapped, reduced, written] = outputs;
        self.plan.shuffle_bytes = self.results.shuffle_bytes(mapped);
        self.plan.network_bytes = self.results.network_bytes(reduced);
        self.plan.spilled_bytes = self.results.spilled_bytes(mapped, reduced);
        for (stage, winners) in (0..).zip(outputs) {
            let amount = self.results.amount(stage, winners);
            self.phases.set_amount(stage, winners.len(), amount);
        }
        let files = self.incompatible(reduced, written);
        if !files.is_empty() {
            return Err(NotReady::Incompatible { files });
        }
        self.verify(reduced, written)?;
        self.state.begin_commit().ok_or(NotReady::NotStaged)
    }

    /// The part files to write again: where several files read the rows of one reduce task in different orders, their row
    /// groups do not complement each other.
    fn incompatible(&self, reduced: &[Winner], written: &[Winner]) -> Vec<u32> {
        let job: &JobId = &self.submission.spec.id;
        let current: BTreeMap<u32, u32> =
            reduced.iter().map(|winner| (winner.attempt.task.index, winner.attempt.attempt)).collect();
        let mut incompatible = BTreeSet::new();
        for (task, readers) in self.writes.readers(written) {
            let differs = |a, b| !self.results.same_order(job, task, a, b);
            let Some(&(_, first)) = readers.first() else { continue };
            if readers.iter().any(|(_, attempt)| differs(first, *attempt)) {
                // Files that are written again read the current output.
                let right = current.get(&task).copied().unwrap_or(first);
                incompatible
                    .extend(readers.iter().filter(|(_, a)| differs(right, *a)).map(|(file, _)| *file));
            }
        }
        incompatible.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use tally_dataset::addon_aggregates::AddonAggregates;
    use tally_proto::{ALL_ROW_GROUPS, WorkerId};
    use tally_scheduler::TaskPlan;

    use super::*;
    use crate::job::REDUCE;
    use crate::plan::MapTask;
    use crate::test_jobs::job;

    /// A job that is not planned.
    pub(super) fn run() -> JobRun {
        let dataset = Arc::new(AddonAggregates::new());
        let submission = Submission { spec: job(), dataset, key: vec![], submitted_at: 0 };
        JobRun::new(submission, Duration::ZERO, 0, true)
    }

    /// Two workers hold the attempt of the only map task.
    fn hold_twice(run: &mut JobRun) {
        for worker in ["one", "other"] {
            let worker = WorkerId::parse(worker).unwrap();
            run.takeover.note(StageId(MAP), FoundTask { index: 0, attempt: 3, worker, done: true });
        }
        let task = TaskId { job: run.submission.spec.id.clone(), stage: StageId(MAP), index: 0 };
        let result = v1::task_result::Result::Map(v1::MapResult::default());
        run.keep(&AttemptId { task, attempt: 3 }, v1::TaskResult { result: Some(result), usage: None })
            .unwrap();
    }

    /// Plans the write stage of a day with that many rows, in files of one row each.
    fn plan_write(rows: u64) -> Result<Vec<TaskPlan>, StagePlanError> {
        let mut run = run();
        run.plan.inputs.partitions = 1;
        let task = TaskId { job: run.submission.spec.id.clone(), stage: StageId(REDUCE), index: 0 };
        let attempt = AttemptId { task, attempt: 0 };
        let result = v1::ReduceResult {
            totals: Some(v1::Totals::new(rows, &[])),
            row_group_rows: vec![1; rows as usize],
            ..Default::default()
        };
        let result = v1::task_result::Result::Reduce(result);
        run.keep(&attempt, v1::TaskResult { result: Some(result), usage: None }).unwrap();
        run.plan_write(&[Winner { attempt, worker: WorkerId::parse("w").unwrap() }])
    }

    #[test]
    fn the_write_stage_has_a_limited_number_of_part_files() {
        let most = MAX_TASKS as u64;
        for rows in [most - 1, most] {
            assert_eq!(plan_write(rows).unwrap().len() as u64, rows);
        }
        let error = plan_write(most + 1).unwrap_err().to_string();
        assert!(
            error.contains("200,001 part files") && error.contains("larger --target-file-size"),
            "{error}"
        );
    }

    #[test]
    fn an_output_that_does_not_match_the_plan_is_not_used_from_any_worker() {
        // The first result does not have the footers of the small file that the task reads; the second task reads no footers.
        for (row_groups, kept) in [(vec![ALL_ROW_GROUPS], 0), (vec![0], 2)] {
            let mut run = run();
            hold_twice(&mut run);
            let piece = v1::InputPiece { row_groups, size: 50, ..Default::default() };
            let work = v1::MapWork { pieces: vec![piece], ..Default::default() };
            run.plan.inputs.tasks = vec![MapTask { work, bytes: 1, rows: Some(0) }];
            assert_eq!(run.take_found(StageId(MAP)).len(), kept);
        }
    }
}
