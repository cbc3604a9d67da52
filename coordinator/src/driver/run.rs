//! One job as the driver keeps it: its plan, its results, what it reports of itself.
//!
//! Not here: when anything happens; task orders (`orders`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_dataset::{Dataset, Totals};
use tally_proto::{AttemptId, StageId, TaskId, WorkerId, v1};
use tally_scheduler::{Found, TaskPlan};
use tokio::sync::oneshot;

use super::{Accepted, Ended, Refusal};
use crate::fleet::SharedInputs;
use crate::job::{JobSpec, MAP, REDUCE, STAGES, WRITE};
use crate::load::Day;
use crate::memory::PeakMeter;
use crate::plan::InputPlan;
use crate::plan::files::{self, Encoded};
use crate::publish::commit_log::{Input, Manifest, Part};
use crate::publish::stage::{Ready, Stage, key_of};
use crate::results::{Results, Winner, checksum_text};
use crate::summary::{StageSummary, Summary};

/// Who asked for a job, and whether it ran by then.
type Asked = (oneshot::Sender<Result<Accepted, Refusal>>, bool);

/// A live job.
pub(super) struct JobRun {
    pub(super) spec: JobSpec,
    pub(super) dataset: Arc<dyn Dataset>,
    /// Who has it may read the job's outputs.
    pub(super) key: Vec<u8>,
    /// Milliseconds since 1970.
    pub(super) submitted_at: u64,
    /// It is on record that the job was asked for.
    pub(super) recorded: bool,
    /// Somebody wants it no more.
    pub(super) cancelled: bool,
    /// All is written; the day is about to be exchanged.
    pub(super) committing: bool,
    /// The summary that an earlier leader put on record with its decision to publish.
    pub(super) committed_summary: Option<String>,
    /// The plan of an earlier leader.
    pub(super) recorded_plan: Option<InputPlan>,
    /// What workers have of earlier terms was cut by a plan that cannot be read any more: none of it goes
    /// together with what this term makes.
    pub(super) replanned: bool,
    pub(super) results: Results,
    pub(super) plan: InputPlan,
    pub(super) staging: Option<Stage>,
    /// What is to be published, once decided.
    pub(super) ready: Option<Ready>,
    /// Uploads that began for write attempts.
    pub(super) uploads: HashMap<AttemptId, v1::Upload>,
    /// Where the map outputs are, for all reduce orders of one version of them.
    pub(super) reduce_inputs: Option<Arc<SharedInputs>>,
    /// How many map tasks there are, by input table.
    pub(super) map_tasks: Vec<u32>,
    /// The row groups of each part file, once known, and the totals.
    pub(super) files: Vec<Vec<Encoded>>,
    pub(super) totals: Totals,
    /// The checksum of all rows, if every reduce task told its own.
    pub(super) checksum: Option<u64>,
    /// Which attempt of each reduce task a write attempt was told to read.
    pub(super) read_by: HashMap<AttemptId, BTreeMap<u32, u32>>,
    /// What workers hold of stages that are not planned.
    found: BTreeMap<StageId, Vec<Found>>,
    shuffle_bytes: u64,
    pub(super) waiting: Vec<oneshot::Sender<Ended>>,
    asked: Vec<Asked>,
    started: Instant,
    stage_started: Instant,
    timings: Vec<StageSummary>,
    /// How long jobs of its kind take, in milliseconds, once that was looked up; see `Registry::usual`.
    pub(super) usual: Option<Option<u64>>,
}

/// Why a day cannot be published.
pub(super) enum Unready {
    /// For good.
    Failed(String),
    /// These part files do not go together with the others.
    Unfit {
        /// Their numbers.
        files: Vec<u32>,
        /// Why, for people.
        reason: String,
    },
}

/// The stages as people see them.
const PHASES: [&str; 5] = ["plan", STAGES[0], STAGES[1], STAGES[2], "publish"];

impl JobRun {
    pub(super) fn new(spec: JobSpec, dataset: Arc<dyn Dataset>, key: Vec<u8>, submitted_at: u64) -> Self {
        let now = Instant::now();
        JobRun {
            spec,
            dataset,
            key,
            submitted_at,
            recorded: false,
            cancelled: false,
            committing: false,
            committed_summary: None,
            recorded_plan: None,
            replanned: false,
            results: Results::default(),
            plan: InputPlan::default(),
            staging: None,
            ready: None,
            uploads: HashMap::new(),
            reduce_inputs: None,
            map_tasks: vec![],
            files: vec![],
            totals: Totals::default(),
            checksum: None,
            read_by: HashMap::new(),
            found: BTreeMap::new(),
            shuffle_bytes: 0,
            waiting: vec![],
            asked: vec![],
            started: now,
            stage_started: now,
            timings: vec![],
            usual: None,
        }
    }

    /// What the journal keeps of the submit.
    pub(super) fn record(&self) -> v1::JobSubmitted {
        v1::JobSubmitted {
            job: self.spec.id.to_string(),
            spec: Some((&self.spec).into()),
            key: self.key.clone(),
            submitted_at: self.submitted_at,
        }
    }

    /// The status before anything happened.
    pub(super) fn first_status(&self) -> v1::JobStatus {
        v1::JobStatus {
            job: self.spec.id.to_string(),
            spec: Some((&self.spec).into()),
            state: v1::JobState::Running.into(),
            phase: self.current_name().into(),
            submitted_at: self.submitted_at,
            ..v1::JobStatus::default()
        }
    }

    /// Answers all who asked for the job, one more perhaps, as soon as it is on record.
    pub(super) fn accept(&mut self, asked: Option<Asked>) {
        self.asked.extend(asked);
        if self.recorded {
            for (reply, existing) in self.asked.drain(..) {
                // Who asked may have gone.
                let _ = reply.send(Ok(Accepted { job: self.spec.id.clone(), existing }));
            }
        }
    }

    /// How many tasks a stage has, if that is known.
    pub(super) fn tasks(&self, stage: StageId) -> Option<usize> {
        match stage.0 {
            MAP => Some(self.plan.tasks.len()).filter(|&tasks| tasks > 0),
            REDUCE => Some(self.plan.partitions as usize).filter(|&tasks| tasks > 0),
            WRITE => Some(self.files.len()).filter(|&tasks| tasks > 0),
            _ => None,
        }
    }

    /// Notes what a worker holds of a stage that is not planned.
    pub(super) fn note_found(&mut self, stage: StageId, found: Found) {
        self.found.entry(stage).or_default().push(found);
    }

    /// Notes that an attempt that was found running is over, and left nothing.
    pub(super) fn found_failed(&mut self, worker: &WorkerId, attempt: &AttemptId) {
        let AttemptId { task, attempt } = attempt;
        if let Some(found) = self.found.get_mut(&task.stage) {
            let same = |f: &Found| (f.index, f.attempt, &f.worker) == (task.index, *attempt, worker);
            found.retain(|found| found.done || !same(found));
        }
    }

    /// What was noted of a stage that is planned now, as far as it exists.
    pub(super) fn take_found(&mut self, stage: StageId) -> Vec<Found> {
        let tasks = self.tasks(stage).unwrap_or(0);
        let mut found = self.found.remove(&stage).unwrap_or_default();
        found.retain(|found| (found.index as usize) < tasks);
        found
    }

    /// Attempts of stages that are not planned, and who runs them; they are noted no more.
    pub(super) fn take_found_running(&mut self) -> Vec<(WorkerId, AttemptId)> {
        let mut running = vec![];
        for (&stage, found) in &mut self.found {
            found.retain(|found| {
                if !found.done {
                    let task = TaskId { job: self.spec.id.clone(), stage, index: found.index };
                    running.push((found.worker.clone(), AttemptId { task, attempt: found.attempt }));
                }
                found.done
            });
        }
        running
    }

    /// Forgets what a lost worker held.
    pub(super) fn worker_lost(&mut self, worker: &WorkerId) {
        self.found.values_mut().for_each(|found| found.retain(|found| found.worker != *worker));
    }

    /// Lets go of the job, for another coordinator to go on with it. One that is deposed takes with
    /// it what it staged: the successor staged anew, as this one held the folder; unless the day
    /// may be decided on, which the successor then carries out.
    pub(super) fn leave(mut self, deposed: bool) {
        if let Some(staging) = self.staging.take()
            && (self.committing || !deposed)
        {
            staging.leave();
        }
    }

    /// The phase that runs now, by name.
    pub(super) fn current_name(&self) -> &'static str {
        PHASES.get(self.timings.len()).copied().unwrap_or("done")
    }

    /// Rows and bytes of the inputs.
    pub(super) fn input_size(&self) -> (u64, u64) {
        (self.plan.rows, self.plan.bytes)
    }

    /// Notes that the phase that ran is over.
    pub(super) fn stage_ended(&mut self, memory: &mut PeakMeter) {
        let name = self.current_name();
        self.timings.push(StageSummary {
            name: name.into(),
            tasks: 0,
            rows: 0,
            bytes: 0,
            seconds: self.stage_started.elapsed().as_secs_f64(),
            peak_memory_bytes: memory.take(),
        });
        self.stage_started = Instant::now();
    }

    /// How long the phase that runs does already.
    pub(super) fn stage_took(&self) -> Duration {
        self.stage_started.elapsed()
    }

    pub(super) fn input_planned(&mut self, plan: InputPlan, staging: Stage, memory: &mut PeakMeter) {
        self.map_tasks = vec![0; self.dataset.tables().len()];
        for task in &plan.tasks {
            if let Some(tasks) = self.map_tasks.get_mut(task.work.table as usize) {
                *tasks += 1;
            }
        }
        self.plan = plan;
        self.staging = Some(staging);
        self.stage_ended(memory);
    }

    pub(super) fn plan_reduce(&self) -> Vec<TaskPlan> {
        (0..self.plan.partitions).map(|_| TaskPlan { weight: 1, preferred: None }).collect()
    }

    /// Cuts the write stage, from the results of all reduce tasks.
    ///
    /// # Errors
    /// Some are missing.
    pub(super) fn plan_write(&mut self, reduced: &[Winner]) -> Result<Vec<TaskPlan>, String> {
        let known = reduced.iter().filter(|winner| self.results.reduced(&winner.attempt).is_some()).count();
        if known != self.plan.partitions as usize {
            return Err(format!("the results of {known} of {} reduce tasks are known", self.plan.partitions));
        }
        self.totals = self.results.totals(reduced);
        self.checksum = self.results.checksum(reduced);
        let groups = self.results.row_groups(reduced);
        let per_row = self.dataset.bytes_per_row();
        let count = files::count(self.totals.rows, self.spec.target_file_size, per_row);
        self.files = files::layout(&groups, usize::try_from(count).unwrap_or(usize::MAX));
        let rows = |file: &Vec<Encoded>| file.iter().map(|group| group.rows).sum::<u64>();
        Ok(self.files.iter().map(|file| TaskPlan { weight: rows(file), preferred: None }).collect())
    }

    /// The staged day, if what was written is what was reduced; `outputs` are all stages'.
    pub(super) fn ready_to_publish(&mut self, outputs: &[Vec<Winner>; 3]) -> Result<Stage, Unready> {
        let [mapped, reduced, written] = outputs;
        self.shuffle_bytes = self.results.shuffle_bytes(mapped);
        for (stage, winners) in (0..).zip(outputs) {
            let amount = self.results.amount(stage, winners);
            if let Some(summary) = self.timings.get_mut(stage as usize + 1) {
                summary.tasks = winners.len();
                (summary.rows, summary.bytes) = (amount.rows, amount.bytes);
            }
        }
        let files = self.unfit(reduced, written);
        if !files.is_empty() {
            let reason = "part files were written from attempts of reduce tasks that differ in their order";
            return Err(Unready::Unfit { files, reason: reason.into() });
        }
        self.verify(reduced, written).map_err(Unready::Failed)?;
        self.staging.take().ok_or_else(|| Unready::Failed("there is no staged day".into()))
    }

    /// The part files to be written again, where several read a reduce task's rows in different orders:
    /// row groups of one are no complement to those of the other.
    fn unfit(&self, reduced: &[Winner], written: &[Winner]) -> Vec<u32> {
        let mut read: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
        for winner in written {
            for (&task, &attempt) in self.read_by.get(&winner.attempt).into_iter().flatten() {
                read.entry(task).or_default().push((winner.attempt.task.index, attempt));
            }
        }
        let now: BTreeMap<u32, u32> =
            reduced.iter().map(|winner| (winner.attempt.task.index, winner.attempt.attempt)).collect();
        let mut unfit = BTreeSet::new();
        for (task, readers) in read {
            let differs = |a, b| !self.results.same_order(&self.spec.id, task, a, b);
            let Some(&(_, first)) = readers.first() else { continue };
            if readers.iter().any(|(_, attempt)| differs(first, *attempt)) {
                // What is there now is what those that are written again will read.
                let right = now.get(&task).copied().unwrap_or(first);
                unfit.extend(readers.iter().filter(|(_, a)| differs(right, *a)).map(|(file, _)| *file));
            }
        }
        unfit.into_iter().collect()
    }

    /// The write stage goes on.
    pub(super) fn write_again(&mut self) {
        if let Some(ended) = self.timings.pop() {
            let spent = Duration::from_secs_f64(ended.seconds.max(0.0));
            self.stage_started = self.stage_started.checked_sub(spent).unwrap_or(self.stage_started);
        }
    }

    /// What the day is made of and from; only a store's publish needs the files.
    pub(super) fn manifest(&self, written: &[Winner]) -> Manifest {
        let part = |winner: &Winner| {
            let upload = self.uploads.get(&winner.attempt)?;
            let result = self.results.written(&winner.attempt)?;
            Some(Part {
                key: key_of(upload)?,
                upload: upload.id.clone(),
                parts: result.parts.clone(),
                bytes: result.bytes,
                rows: result.rows,
                crc32: result.crc32,
                checksum: result.checksum.map(checksum_text),
            })
        };
        let pieces = self.plan.tasks.iter().flat_map(|task| &task.work.pieces);
        let mut inputs: Vec<Input> = pieces
            .map(|piece| Input { url: piece.url.clone(), bytes: piece.size, etag: piece.etag.clone() })
            .collect();
        // A large file is read by several tasks.
        inputs.dedup();
        Manifest {
            job: self.spec.id.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            dataset: self.spec.dataset.clone(),
            rows: self.totals.rows,
            checksum: self.checksum.map(checksum_text),
            inputs,
            files: written.iter().filter_map(part).collect(),
        }
    }

    /// The day as it was written, maybe for an earlier leader.
    pub(super) fn written(&self) -> Day {
        let recorded = self.committed_summary.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let summary: Summary = recorded.unwrap_or_else(|| self.summary());
        let write = summary.stages.iter().filter(|stage| stage.name == STAGES[WRITE as usize]);
        Day { files: summary.files as u64, rows: summary.rows, bytes: write.map(|stage| stage.bytes).sum() }
    }

    pub(super) fn summary(&self) -> Summary {
        let mut stages = self.timings.clone();
        if let Some(plan) = stages.first_mut() {
            (plan.tasks, plan.rows, plan.bytes) = (self.plan.files, self.plan.rows, self.plan.fetched);
        }
        Summary {
            job_id: self.spec.id.to_string(),
            date: self.spec.date.clone(),
            rows: self.totals.rows,
            files: self.files.len(),
            n_clients: self.totals.clients,
            n_custom_theme_clients: self.totals.custom_theme_clients,
            bytes_read: stages
                .iter()
                .filter(|s| s.name == "plan" || s.name == STAGES[0])
                .map(|s| s.bytes)
                .sum(),
            shuffle_bytes: self.shuffle_bytes,
            spilled_bytes: 0,
            seconds: self.started.elapsed().as_secs_f64(),
            peak_memory_bytes: stages.iter().map(|stage| stage.peak_memory_bytes).max().unwrap_or(0),
            stages,
            warnings: self.plan.warnings.clone(),
        }
    }
}
