//! Task orders: what an attempt is told, made of the job's plan and its results.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tally_dataset::Totals;
use tally_proto::v1::write_work::Target;
use tally_proto::{AttemptId, JobId, WorkerId, v1};
use tally_scheduler::Scheduler;
use tally_worker::order::ReduceInputs;

use super::run::JobRun;
use crate::fleet::{Order, SharedInputs};
use crate::job::{MAP, REDUCE, WRITE};
use crate::plan::files;
use crate::results::{Holders, Winner, checksum_text, winners};

impl JobRun {
    /// The order of an attempt that reads the scheduler's outputs of that version, see
    /// [`Scheduler::inputs_of`]; `address` says where a worker's outputs are reached.
    ///
    /// # Errors
    /// There is no such task, or its inputs are not all there.
    pub(super) fn order(
        &mut self,
        scheduler: &Scheduler,
        attempt: &AttemptId,
        version: u64,
        address: impl Fn(&WorkerId) -> String,
    ) -> Result<Order, String> {
        use v1::task_order::Work;
        let job = &attempt.task.job;
        let index = attempt.task.index as usize;
        let unknown = || format!("{attempt} is not in the plan");
        let mut inputs = None;
        let work = match attempt.task.stage.0 {
            MAP => Work::Map(self.plan.tasks.get(index).ok_or_else(unknown)?.work.clone()),
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
        let (dataset, key) = (self.spec.dataset.clone(), self.key.clone());
        let head = v1::TaskOrder { attempt: Some(attempt.into()), dataset, key, work: Some(work) };
        Ok(Order { head, inputs })
    }

    fn reduce_work(&self, partition: u32, inputs_version: u64) -> v1::ReduceWork {
        let per_row = self.dataset.bytes_per_row();
        v1::ReduceWork {
            partition,
            row_group_rows: files::row_group_rows(self.spec.target_file_size, per_row),
            table_bytes: self.plan.reduce_table_bytes,
            inputs_version,
            map_tasks: self.map_tasks.clone(),
            ..v1::ReduceWork::default()
        }
    }

    /// Where the outputs of all map tasks are. All partitions read the same list, so it is built once for each
    /// version of the outputs.
    fn reduce_inputs(
        &mut self,
        scheduler: &Scheduler,
        job: &JobId,
        version: u64,
        address: impl Fn(&WorkerId) -> String,
    ) -> Result<Arc<SharedInputs>, String> {
        if let Some(inputs) = self.reduce_inputs.as_ref().filter(|inputs| inputs.version() == version) {
            return Ok(inputs.clone());
        }
        let mut holders = Holders::default();
        let mut tables = vec![v1::TableOutputs::default(); self.dataset.tables().len()];
        let mapped = winners(scheduler, job, MAP);
        for winner in &mapped {
            let task = self.plan.tasks.get(winner.attempt.task.index as usize);
            if let Some(input) = task.and_then(|task| tables.get_mut(task.work.table as usize)) {
                input.outputs.push(holders.reference(winner, &address));
            }
        }
        let told: Vec<u64> = tables.iter().map(|table| table.outputs.len() as u64).collect();
        let tasks: Vec<u64> = self.map_tasks.iter().map(|&tasks| tasks.into()).collect();
        if told != tasks {
            return Err(format!("outputs of {told:?} map tasks are there, by input table, of {tasks:?}"));
        }
        let list = ReduceInputs { tables, holders: holders.into_list() };
        let expected = self.results.partition_sums(&mapped, self.plan.partitions);
        let inputs = Arc::new(SharedInputs::new(version, list, expected));
        Ok(self.reduce_inputs.insert(inputs).clone())
    }

    fn write_work(
        &mut self,
        reduced: &[Winner],
        attempt: &AttemptId,
        address: impl Fn(&WorkerId) -> String,
    ) -> Result<v1::WriteWork, String> {
        let mut holders = Holders::default();
        let index = attempt.task.index;
        let file = self.files.get(index as usize).ok_or_else(|| format!("{attempt} is not in the plan"))?;
        let by_task: HashMap<u32, &Winner> = reduced.iter().map(|w| (w.attempt.task.index, w)).collect();
        let mut pieces: Vec<v1::RowGroups> = vec![];
        let mut read = BTreeMap::new();
        let (mut rows, mut checksum) = (0, Some(0u64));
        for group in file {
            let missing = || format!("there is no output of reduce task {}", group.task);
            let winner = by_task.get(&group.task).ok_or_else(missing)?;
            let first = read.insert(group.task, winner.attempt.attempt).is_none();
            if first {
                let output = Some(holders.reference(winner, &address));
                let footer_crc32 = self.results.footer_crc32(&winner.attempt);
                pieces.push(v1::RowGroups { output, footer_crc32, ..v1::RowGroups::default() });
            }
            let told = self.results.row_group(&winner.attempt, group.row_group).ok_or_else(missing)?;
            rows += told.rows;
            checksum = checksum.zip(told.sums).map(|(all, (checksum, _))| all.wrapping_add(checksum));
            if let Some(piece) = pieces.last_mut() {
                piece.row_groups.push(group.row_group);
                piece.rows.push(group.rows);
                if let Some((checksum, crc32)) = told.sums {
                    piece.checksums.push(checksum);
                    piece.crc32s.push(crc32);
                }
            }
        }
        self.read_by.insert(attempt.clone(), read);
        let upload = || self.uploads.get(attempt).cloned().map(Target::Upload);
        let target = self.staging.as_ref().and_then(|staging| staging.target(index, attempt.attempt));
        let target = Some(target.or_else(upload).ok_or_else(|| format!("{attempt} has nowhere to write"))?);
        let metadata = self.footer(rows, checksum);
        let Totals { rows, clients, custom_theme_clients } = self.totals;
        let totals = v1::Totals { rows, clients, custom_theme_clients };
        let (totals, holders) = (Some(totals), holders.into_list());
        Ok(v1::WriteWork { target, pieces, totals, metadata, holders })
    }

    /// What a part file says of itself and of its day.
    fn footer(&self, rows: u64, checksum: Option<u64>) -> HashMap<String, String> {
        let checksums = [("tally.checksum", checksum), ("tally.total_checksum", self.checksum)];
        let checksums = checksums.into_iter().filter_map(|(key, sum)| Some((key, checksum_text(sum?))));
        let entries = [
            ("tally.version", env!("CARGO_PKG_VERSION").to_string()),
            ("tally.job_id", self.spec.id.to_string()),
            ("tally.dataset", self.spec.dataset.clone()),
            ("tally.date", self.spec.date.clone()),
            ("tally.rows", rows.to_string()),
            ("tally.total_rows", self.totals.rows.to_string()),
            ("tally.n_clients", self.totals.clients.to_string()),
            ("tally.n_custom_theme_clients", self.totals.custom_theme_clients.to_string()),
        ];
        entries.into_iter().chain(checksums).map(|(key, value)| (key.to_string(), value)).collect()
    }
}
