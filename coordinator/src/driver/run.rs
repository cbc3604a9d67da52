//! One job as the driver keeps it: its plan, its results, the orders that follow from them.
//!
//! Not here: when anything happens.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use tally_dataset::{Dataset, Totals};
use tally_proto::{AttemptId, WorkerId, v1};
use tally_scheduler::{Scheduler, TaskPlan};
use tokio::sync::oneshot;

use super::Ended;
use crate::job::{JobSpec, MAP, REDUCE, STAGES, WRITE};
use crate::memory::PeakMeter;
use crate::plan::InputPlan;
use crate::plan::files::{self, Encoded};
use crate::publish::Staging;
use crate::results::{Holders, Results, Winner, winners};
use crate::summary::{StageSummary, Summary};

/// A live job.
pub(super) struct JobRun {
    pub(super) spec: JobSpec,
    pub(super) dataset: Arc<dyn Dataset>,
    pub(super) results: Results,
    plan: InputPlan,
    staging: Option<Staging>,
    /// The row groups of each part file, once known, and the totals.
    files: Vec<Vec<Encoded>>,
    totals: Totals,
    shuffle_bytes: u64,
    /// Which attempt of each reduce task a write attempt was told to read.
    read_by: HashMap<AttemptId, BTreeMap<u32, u32>>,
    reply: Option<oneshot::Sender<Ended>>,
    started: Instant,
    stage_started: Instant,
    timings: Vec<StageSummary>,
}

/// The stages as people see them.
const PHASES: [&str; 5] = ["plan", STAGES[0], STAGES[1], STAGES[2], "publish"];

impl JobRun {
    pub(super) fn new(spec: JobSpec, dataset: Arc<dyn Dataset>, reply: oneshot::Sender<Ended>) -> Self {
        let now = Instant::now();
        JobRun {
            spec,
            dataset,
            results: Results::default(),
            plan: InputPlan::default(),
            staging: None,
            files: vec![],
            totals: Totals::default(),
            shuffle_bytes: 0,
            read_by: HashMap::new(),
            reply: Some(reply),
            started: now,
            stage_started: now,
            timings: vec![],
        }
    }

    /// The phase that runs now, by name.
    pub(super) fn current_name(&self) -> &'static str {
        PHASES.get(self.timings.len()).copied().unwrap_or("done")
    }

    /// The stage that runs now, if it is one of tasks.
    pub(super) fn current_stage(&self) -> Option<usize> {
        self.timings.len().checked_sub(1).filter(|&stage| stage < STAGES.len())
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

    pub(super) fn input_planned(&mut self, plan: InputPlan, staging: Staging, memory: &mut PeakMeter) {
        self.plan = plan;
        self.staging = Some(staging);
        self.stage_ended(memory);
    }

    pub(super) fn plan_reduce(&self) -> Vec<TaskPlan> {
        (0..self.plan.partitions).map(|_| TaskPlan { weight: 1, preferred: None }).collect()
    }

    pub(super) fn plan_write(&mut self, reduced: &[Winner]) -> Vec<TaskPlan> {
        self.totals = self.results.totals(reduced);
        let groups = self.results.row_groups(reduced);
        let per_row = self.dataset.bytes_per_row();
        let count = files::count(self.totals.rows, self.spec.target_file_size, per_row);
        self.files = files::layout(&groups, usize::try_from(count).unwrap_or(usize::MAX));
        let rows = |file: &Vec<Encoded>| file.iter().map(|group| group.rows).sum::<u64>();
        self.files.iter().map(|file| TaskPlan { weight: rows(file), preferred: None }).collect()
    }

    /// The order of an attempt.
    pub(super) fn order(
        &mut self,
        scheduler: &Scheduler,
        attempt: &AttemptId,
        address: impl Fn(&WorkerId) -> String,
    ) -> Result<v1::TaskOrder, String> {
        use v1::task_order::Work;
        let job = &attempt.task.job;
        let index = attempt.task.index as usize;
        let unknown = || format!("{attempt} is not in the plan");
        let work = match attempt.task.stage.0 {
            MAP => Work::Map(self.plan.tasks.get(index).ok_or_else(unknown)?.work.clone()),
            REDUCE => {
                Work::Reduce(self.reduce_work(&winners(scheduler, job, MAP), attempt.task.index, address))
            }
            WRITE => {
                let reduced = winners(scheduler, job, REDUCE);
                Work::Write(self.write_work(&reduced, attempt, address).ok_or_else(unknown)?)
            }
            _ => return Err(unknown()),
        };
        let dataset = self.spec.dataset.clone();
        Ok(v1::TaskOrder { attempt: Some(attempt.into()), dataset, key: vec![], work: Some(work) })
    }

    fn reduce_work(
        &self,
        mapped: &[Winner],
        partition: u32,
        address: impl Fn(&WorkerId) -> String,
    ) -> v1::ReduceWork {
        let mut holders = Holders::default();
        let mut inputs = vec![v1::TableOutputs::default(); self.dataset.tables().len()];
        for winner in mapped {
            let task = self.plan.tasks.get(winner.attempt.task.index as usize);
            if let Some(input) = task.and_then(|task| inputs.get_mut(task.work.table as usize)) {
                input.outputs.push(holders.reference(winner, &address));
            }
        }
        let per_row = self.dataset.bytes_per_row();
        let row_group_rows = files::row_group_rows(self.spec.target_file_size, per_row);
        let holders = holders.into_list();
        v1::ReduceWork { partition, inputs, row_group_rows, holders, table_bytes: 0 }
    }

    fn write_work(
        &mut self,
        reduced: &[Winner],
        attempt: &AttemptId,
        address: impl Fn(&WorkerId) -> String,
    ) -> Option<v1::WriteWork> {
        let mut holders = Holders::default();
        let index = attempt.task.index as usize;
        let file = self.files.get(index)?;
        let by_task: HashMap<u32, &Winner> = reduced.iter().map(|w| (w.attempt.task.index, w)).collect();
        let mut pieces: Vec<v1::RowGroups> = vec![];
        let mut read = BTreeMap::new();
        let mut last = None;
        for group in file {
            let winner = by_task.get(&group.task)?;
            read.insert(group.task, winner.attempt.attempt);
            if last.replace(group.task) != Some(group.task) {
                let output = Some(holders.reference(winner, &address));
                pieces.push(v1::RowGroups { output, row_groups: vec![] });
            }
            pieces.last_mut()?.row_groups.push(group.row_group);
        }
        self.read_by.insert(attempt.clone(), read);
        let path = self.staging.as_ref()?.part(index).display().to_string();
        let Totals { rows, clients, custom_theme_clients } = self.totals;
        let totals = v1::Totals { rows, clients, custom_theme_clients };
        let (totals, holders) = (Some(totals), holders.into_list());
        Some(v1::WriteWork { path, pieces, totals, metadata: self.footer(), holders })
    }

    /// What each part file says of itself.
    fn footer(&self) -> HashMap<String, String> {
        let entries = [
            ("tally.version", env!("CARGO_PKG_VERSION").to_string()),
            ("tally.job_id", self.spec.id.to_string()),
            ("tally.dataset", self.spec.dataset.clone()),
            ("tally.date", self.spec.date.clone()),
            ("tally.total_rows", self.totals.rows.to_string()),
            ("tally.n_clients", self.totals.clients.to_string()),
            ("tally.n_custom_theme_clients", self.totals.custom_theme_clients.to_string()),
        ];
        entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
    }

    /// The staged day, if what was written is what was reduced; `outputs` are all stages'.
    pub(super) fn ready_to_publish(&mut self, outputs: &[Vec<Winner>; 3]) -> Result<Staging, String> {
        let [mapped, _, written] = outputs;
        self.shuffle_bytes = self.results.shuffle_bytes(mapped);
        for (stage, winners) in (0..).zip(outputs) {
            let amount = self.results.amount(stage, winners);
            if let Some(summary) = self.timings.get_mut(stage as usize + 1) {
                summary.tasks = winners.len();
                (summary.rows, summary.bytes) = (amount.rows, amount.bytes);
            }
        }
        let rows = self.results.amount(WRITE, written).rows;
        if rows != self.totals.rows {
            return Err(format!("the part files have {rows} rows instead of {}", self.totals.rows));
        }
        // Two attempts of a reduce task may order their rows differently, so that row groups of
        // one are no complement to those of the other.
        let mut read: BTreeMap<u32, u32> = BTreeMap::new();
        for winner in written {
            for (&task, &attempt) in self.read_by.get(&winner.attempt).into_iter().flatten() {
                if *read.entry(task).or_insert(attempt) != attempt {
                    return Err(format!("part files were written from two attempts of reduce task {task}"));
                }
            }
        }
        self.staging.take().ok_or_else(|| "there is no staged day".into())
    }

    /// Answers whoever waits; removes what is still staged.
    pub(super) fn end(&mut self, ended: Ended) {
        self.staging = None;
        if let Some(reply) = self.reply.take() {
            // Whoever waited may have gone.
            let _ = reply.send(ended);
        }
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
