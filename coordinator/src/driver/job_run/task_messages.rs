//! Task messages: the work of an attempt, built from the job's plan and results.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tally_proto::dispatch::ReduceInputs;
use tally_proto::v1::write_work::Target;
use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tally_scheduler::Scheduler;

use super::JobRun;
use super::notes::skew;
use crate::dates::{days_since_1970, parse_date};
use crate::dispatch::{SharedInputs, TaskDispatch};
use crate::job::{MAP, REDUCE, WRITE};
use crate::objectives::text_of;
use crate::part_footer::{DayFooter, PartFooter};
use crate::plan::files;
use crate::results::{OutputLocations, Winner, winners};

/// A task message cannot be built.
#[derive(Debug, thiserror::Error)]
pub(in crate::driver) enum TaskMessageError {
    /// The task does not exist.
    #[error("{0} is not in the plan")]
    NotPlanned(AttemptId),
    /// Map outputs are missing.
    #[error("map outputs are missing: the input tables have {present:?} outputs of {expected:?} map tasks")]
    MissingOutputs {
        /// Outputs by input table.
        present: Vec<u64>,
        /// Map tasks by input table.
        expected: Vec<u64>,
    },
    /// The output of a reduce task is missing.
    #[error("there is no output of reduce task {task}")]
    NoOutput {
        /// The task's number.
        task: u32,
    },
    /// A write attempt has neither a path nor an upload.
    #[error("{0} has neither a path nor an upload to write to")]
    NoTarget(AttemptId),
}

impl JobRun {
    /// The task message of an attempt that reads the scheduler's outputs of that version, see [`Scheduler::inputs_of`];
    /// `address` gives the address of a worker's outputs.
    ///
    /// # Errors
    /// [`TaskMessageError`].
    pub(in crate::driver) fn dispatch(
        &mut self,
        scheduler: &Scheduler,
        attempt: &AttemptId,
        version: u64,
        address: impl Fn(&WorkerId) -> String,
    ) -> Result<TaskDispatch, TaskMessageError> {
        use v1::task_dispatch::Work;
        let job = &attempt.task.job;
        let index = attempt.task.index as usize;
        let unknown = || TaskMessageError::NotPlanned(attempt.clone());
        let mut inputs = None;
        let work = match attempt.task.stage.0 {
            MAP => Work::Map(self.plan.inputs.tasks.get(index).ok_or_else(unknown)?.work.clone()),
            REDUCE => {
                let shared = self.reduce_inputs(scheduler, job, version, address)?;
                let expected = shared.expected(attempt.task.index);
                self.results.expect(attempt, expected);
                inputs = Some(shared);
                Work::Reduce(v1::ReduceWork { expected, ..self.reduce_work(attempt.task.index, version) })
            }
            WRITE => {
                let reduced = winners(scheduler, job, REDUCE);
                Work::Write(self.write_work(&reduced, attempt, address)?)
            }
            _ => return Err(unknown()),
        };
        let (dataset, key) = (self.submission.spec.dataset.clone(), self.submission.key.clone());
        let (options, has_options) = (self.options.clone(), self.options.is_some());
        let attempt = Some(attempt.into());
        let head = v1::TaskDispatch { attempt, dataset, key, work: Some(work), has_options };
        Ok(TaskDispatch { head, inputs, options })
    }

    fn reduce_work(&self, partition: u32, inputs_version: u64) -> v1::ReduceWork {
        let per_row = self.submission.dataset.bytes_per_row();
        v1::ReduceWork {
            partition,
            row_group_rows: files::row_group_rows(self.submission.spec.target_file_size, per_row),
            table_bytes: self.plan.inputs.reduce_table_bytes,
            inputs_version,
            map_tasks: self.plan.map_tasks.clone(),
            day: parse_date(&self.submission.spec.date).map(days_since_1970),
            passes: self.results.passes(partition),
            ..v1::ReduceWork::default()
        }
    }

    /// The locations of all map outputs. All partitions read the same list, so it is built once for each version of the
    /// outputs.
    fn reduce_inputs(
        &mut self,
        scheduler: &Scheduler,
        job: &JobId,
        version: u64,
        address: impl Fn(&WorkerId) -> String,
    ) -> Result<Arc<SharedInputs>, TaskMessageError> {
        if let Some(inputs) = self.reduce_inputs.as_ref().filter(|inputs| inputs.version() == version) {
            return Ok(inputs.clone());
        }
        let mut locations = OutputLocations::default();
        let mut tables = vec![v1::TableOutputs::default(); self.submission.dataset.tables().len()];
        let mapped = winners(scheduler, job, MAP);
        for winner in &mapped {
            let task = self.plan.inputs.tasks.get(winner.attempt.task.index as usize);
            if let Some(input) = task.and_then(|task| tables.get_mut(task.work.table as usize)) {
                input.outputs.push(locations.reference(winner, &address));
            }
        }
        let present: Vec<u64> = tables.iter().map(|table| table.outputs.len() as u64).collect();
        let expected: Vec<u64> = self.plan.map_tasks.iter().map(|&tasks| tasks.into()).collect();
        if present != expected {
            return Err(TaskMessageError::MissingOutputs { present, expected });
        }
        let list = ReduceInputs { tables, locations: locations.into_list() };
        let sums = self.results.partition_sums(&mapped, self.plan.inputs.partitions);
        self.notes.skew = sums.as_deref().and_then(skew);
        let inputs = Arc::new(SharedInputs::new(version, list, sums));
        Ok(self.reduce_inputs.insert(inputs).clone())
    }

    fn write_work(
        &mut self,
        reduced: &[Winner],
        attempt: &AttemptId,
        address: impl Fn(&WorkerId) -> String,
    ) -> Result<v1::WriteWork, TaskMessageError> {
        let mut locations = OutputLocations::default();
        let index = attempt.task.index;
        let file = self.plan.files.get(index as usize);
        let file = file.ok_or_else(|| TaskMessageError::NotPlanned(attempt.clone()))?;
        let by_task: HashMap<u32, &Winner> = reduced.iter().map(|w| (w.attempt.task.index, w)).collect();
        let mut pieces: Vec<v1::RowGroups> = vec![];
        let mut reads = BTreeMap::new();
        let (mut rows, mut checksum) = (0, Some(0u64));
        for group in &file.groups {
            let missing = || TaskMessageError::NoOutput { task: group.task };
            let winner = by_task.get(&group.task).ok_or_else(missing)?;
            let first = reads.insert(group.task, winner.attempt.attempt).is_none();
            if first {
                let output = Some(locations.reference(winner, &address));
                let footer_crc32 = self.results.footer_crc32(&winner.attempt);
                pieces.push(v1::RowGroups { output, footer_crc32, ..v1::RowGroups::default() });
            }
            let reported = self.results.row_group(&winner.attempt, group.row_group).ok_or_else(missing)?;
            rows += reported.rows;
            checksum = checksum.zip(reported.sums).map(|(all, (checksum, _))| all.wrapping_add(checksum));
            if let Some(piece) = pieces.last_mut() {
                piece.row_groups.push(group.row_group);
                piece.rows.push(group.rows);
                if let Some((checksum, crc32)) = reported.sums {
                    piece.checksums.push(checksum);
                    piece.crc32s.push(crc32);
                }
            }
        }
        self.writes.set_reads(attempt, reads);
        let target = self.target(attempt).ok_or_else(|| TaskMessageError::NoTarget(attempt.clone()))?;
        let metadata = self.footer(index, rows, checksum);
        let totals = v1::Totals::new(self.plan.totals.rows, &self.plan.totals.counters);
        let (totals, locations) = (Some(totals), locations.into_list());
        Ok(v1::WriteWork { target: Some(target), pieces, totals, metadata, locations })
    }

    /// The path or upload that a write attempt writes to.
    fn target(&self, attempt: &AttemptId) -> Option<Target> {
        let path =
            self.state.staging().and_then(|staging| staging.target(attempt.task.index, attempt.attempt));
        path.or_else(|| self.writes.upload(attempt).cloned().map(Target::Upload))
    }

    /// The metadata in the footer of the part file with that number.
    fn footer(&self, file: u32, rows: u64, checksum: Option<u64>) -> HashMap<String, String> {
        let (spec, plan) = (&self.submission.spec, &self.plan);
        let day = DayFooter {
            job: spec.id.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            dataset: spec.dataset.clone(),
            date: spec.date.clone(),
            totals: plan.totals.clone(),
            files: Some(plan.files.len() as u64),
            checksum: plan.checksum,
            nulls: plan.nulls.clone(),
            objectives: plan.objectives.as_ref().map(text_of),
        };
        PartFooter { rows, checksum, folder: self.folder_of(file), day }.entries(&*self.submission.dataset)
    }
}

#[cfg(test)]
mod tests {
    use tally_proto::{StageId, TaskId};
    use tally_scheduler::{Command, Config, Event, JobShape, Millis, TaskPlan};

    use super::super::tests::run;
    use super::*;
    use crate::plan::{InputPlan, MapTask};

    fn attempt(stage: u32, number: u32) -> AttemptId {
        let task = TaskId { job: JobId::parse("a").unwrap(), stage: StageId(stage), index: 0 };
        AttemptId { task, attempt: number }
    }

    fn worker(name: &str) -> WorkerId {
        WorkerId::parse(name).unwrap()
    }

    /// A scheduler with two workers. The output of the only map task is at `w0`, and attempt 0 of the only reduce task runs
    /// on the worker that is returned.
    fn reducing() -> (Scheduler, WorkerId) {
        let mut scheduler = Scheduler::new(Config { first_attempt: 0, ..Config::default() }).unwrap();
        let job = || JobId::parse("a").unwrap();
        let joined = |name| Event::WorkerJoined { worker: worker(name), slots: 1, draining: false };
        let planned = |stage| {
            let tasks = vec![TaskPlan { weight: 1, preferred: None, affinity: None }];
            Event::StagePlanned { job: job(), stage: StageId(stage), tasks, found: vec![] }
        };
        let mut commands = vec![];
        for event in [
            Event::JobSubmitted { job: job(), shape: JobShape::chain(3).unwrap() },
            joined("w0"),
            planned(MAP),
            Event::AttemptEnded { worker: worker("w0"), attempt: attempt(MAP, 0), outcome: Ok(()) },
            joined("w1"),
            planned(REDUCE),
        ] {
            commands = scheduler.step(Millis(0), event);
        }
        let [Command::Start { worker, attempt: started }] = &commands[..] else { panic!("{commands:?}") };
        assert_eq!(*started, attempt(REDUCE, 0));
        let worker = worker.clone();
        (scheduler, worker)
    }

    /// A job with that many map tasks of the first table.
    fn planned(map_tasks: usize) -> JobRun {
        let mut run = run();
        let tasks = vec![MapTask { work: v1::MapWork::default(), bytes: 1, rows: Some(1) }; map_tasks];
        run.plan.set_inputs(InputPlan { partitions: 1, tasks, ..Default::default() }, 2);
        run
    }

    /// The version that the message of a reduce attempt states, and the holders of its inputs.
    fn inputs(
        run: &mut JobRun,
        scheduler: &Scheduler,
        attempt: &AttemptId,
    ) -> Result<(u64, u64, Vec<String>), TaskMessageError> {
        let version = scheduler.inputs_of(attempt).expect("the inputs are unchanged since the start");
        let message = run.dispatch(scheduler, attempt, version, WorkerId::to_string)?;
        let shared = message.inputs.expect("a reduce task");
        let Some(v1::task_dispatch::Work::Reduce(work)) = message.head.work else { panic!("no reduce task") };
        let holders = shared.list().locations.iter().map(|location| location.worker.clone()).collect();
        Ok((work.inputs_version, shared.version(), holders))
    }

    #[test]
    fn a_message_has_the_inputs_of_the_version_that_its_attempt_started_on() {
        let (mut run, (mut scheduler, on)) = (planned(1), reducing());
        let (stated, listed, holders) = inputs(&mut run, &scheduler, &attempt(REDUCE, 0)).unwrap();
        assert_eq!((stated, holders), (listed, vec!["w0".to_string()]));
        let id = JobId::parse("a").unwrap();
        let (from, to) = (worker("w0"), worker("w1"));
        let migrated = Event::OutputMigrated { job: id, stage: StageId(MAP), index: 0, from, to };
        scheduler.step(Millis(1), migrated);
        assert_eq!(scheduler.inputs_of(&attempt(REDUCE, 0)), None, "they changed");
        scheduler.step(Millis(1), Event::NotStarted { worker: on, attempt: attempt(REDUCE, 0) });
        let later = inputs(&mut run, &scheduler, &attempt(REDUCE, 1)).unwrap();
        assert!(later.0 > stated);
        assert_eq!(later, (later.0, later.0, vec!["w1".to_string()]));
    }

    #[test]
    fn later_attempts_of_a_reduce_task_have_the_passes_of_the_first_one() {
        let mut run = planned(1);
        assert_eq!(run.reduce_work(0, 1).passes, 0);
        for (number, passes) in [(0, 3), (1, 4)] {
            let result = v1::task_result::Result::Reduce(v1::ReduceResult { passes, ..Default::default() });
            let result = v1::TaskResult { result: Some(result), usage: None };
            run.keep(&attempt(REDUCE, number), result).unwrap();
            assert_eq!((run.reduce_work(0, 1).passes, run.reduce_work(1, 1).passes), (3, 0));
        }
    }

    #[test]
    fn a_message_without_all_inputs_is_not_built() {
        let error = inputs(&mut planned(2), &reducing().0, &attempt(REDUCE, 0)).unwrap_err();
        let TaskMessageError::MissingOutputs { present, expected } = error else { panic!("{error}") };
        assert_eq!((present, expected), (vec![1, 0], vec![2, 0]));
    }
}
