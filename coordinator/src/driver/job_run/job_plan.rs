//! The plan of a job as it grows with its stages: inputs, part files, totals.

use tally_dataset::{Counts, Totals};
use tally_proto::StageId;
use tally_scheduler::TaskPlan;

use crate::job::{MAP, REDUCE, WRITE};
use crate::plan::InputPlan;
use crate::plan::deferred::Deferred;
use crate::plan::files::{Encoded, FileSizes, PlannedFile};

/// The plan of a job.
#[derive(Default)]
pub(in crate::driver) struct JobPlan {
    /// The map stage.
    pub(in crate::driver) inputs: InputPlan,
    /// What map tasks reported of files that were planned by their size.
    pub(super) deferred: Deferred,
    /// The number of map tasks by input table.
    pub(super) map_tasks: Vec<u32>,
    /// The part files, once the write stage is planned.
    pub(super) files: Vec<PlannedFile>,
    /// The totals of the day, once the write stage is planned.
    pub(super) totals: Totals,
    /// The counts of the objectives of the day, if every reduce task reported its own.
    pub(super) objectives: Option<Counts>,
    /// The checksum of all rows, if every reduce task reported its own.
    pub(super) checksum: Option<u64>,
    /// Nulls by column of the reduced rows, if every reduce task counted its own.
    pub(super) nulls: Option<Vec<u64>>,
    /// Shuffled bytes, and those that reduce tasks received from other workers, once all part files are written.
    pub(super) shuffle_bytes: u64,
    pub(super) network_bytes: u64,
    /// Bytes of outputs that workers wrote to disk, once all part files are written.
    pub(super) spilled_bytes: u64,
}

impl JobPlan {
    /// The plan of a job that is not planned, with that many counters.
    pub(super) fn new(counters: usize) -> Self {
        JobPlan { totals: Totals::zero(counters), ..JobPlan::default() }
    }

    /// The number of tasks of a stage, if it is known.
    pub(in crate::driver) fn tasks(&self, stage: StageId) -> Option<usize> {
        match stage.0 {
            MAP => Some(self.inputs.tasks.len()).filter(|&tasks| tasks > 0),
            REDUCE => Some(self.inputs.partitions as usize).filter(|&tasks| tasks > 0),
            WRITE => Some(self.files.len()).filter(|&tasks| tasks > 0),
            _ => None,
        }
    }

    /// Rows and bytes of the inputs.
    pub(in crate::driver) fn input_size(&self) -> (u64, u64) {
        (self.inputs.rows + self.deferred.rows, self.inputs.bytes)
    }

    /// Sets the plan of the map stage, over that many input tables.
    pub(super) fn set_inputs(&mut self, inputs: InputPlan, tables: usize) {
        self.map_tasks = vec![0; tables];
        for task in &inputs.tasks {
            if let Some(tasks) = self.map_tasks.get_mut(task.work.table as usize) {
                *tasks += 1;
            }
        }
        self.inputs = inputs;
    }

    /// Assigns row groups to part files, and returns the tasks that write them.
    pub(super) fn lay_out_files(&mut self, groups: &[Encoded], sizes: &FileSizes) -> Vec<TaskPlan> {
        self.files = sizes.layout(groups);
        self.files
            .iter()
            .map(|file| TaskPlan { weight: file.rows(), preferred: None, affinity: None })
            .collect()
    }
}
