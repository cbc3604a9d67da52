//! The part files of a job: how the rows of its reduce tasks are divided into them, and the folder of each within the day.
//!
//! Not here: the sizes of files (`plan::files`), what is written (`task_messages`).

use tally_dataset::{Counts, FolderSpec};
use tally_proto::limits::MAX_TASKS;
use tally_scheduler::TaskPlan;

use super::submission::Submission;
use super::{JobRun, StagePlanError};
use crate::output_folder::folder_name;
use crate::plan::files::FileSizes;
use crate::results::Winner;

impl JobRun {
    /// Plans the write stage from the results of all reduce tasks.
    ///
    /// # Errors
    /// [`StagePlanError::MissingResults`], [`StagePlanError::TooManyFiles`], [`StagePlanError::Folders`].
    pub(in crate::driver) fn plan_write(
        &mut self,
        reduced: &[Winner],
    ) -> Result<Vec<TaskPlan>, StagePlanError> {
        let known = reduced.iter().filter(|winner| self.results.reduced(&winner.attempt).is_some()).count();
        let all = self.plan.inputs.partitions;
        if known != all as usize {
            return Err(StagePlanError::MissingResults { known, all });
        }
        self.plan.totals = self.results.totals(reduced, self.submission.dataset.totals().len());
        self.plan.checksum = self.results.checksum(reduced);
        self.plan.objectives =
            self.submission.dataset.objectives().and_then(|spec| {
                Counts::of(spec.counters, &self.results.objectives(reduced, spec.counts())?)
            });
        let columns = self.submission.dataset.reduced_schema().fields().len();
        self.plan.nulls = self.results.nulls(reduced, columns);
        let groups = self.results.row_groups(reduced);
        let sizes = self.file_sizes()?;
        let files = sizes.count(&groups);
        if files > MAX_TASKS as u64 {
            return Err(StagePlanError::TooManyFiles { rows: self.plan.totals.rows, files });
        }
        Ok(self.plan.lay_out_files(&groups, &sizes))
    }

    /// How the day is divided into part files.
    fn file_sizes(&self) -> Result<FileSizes, StagePlanError> {
        let Submission { spec, dataset, .. } = &self.submission;
        let (folders, partitions) = (dataset.folders(), self.plan.inputs.partitions);
        if let Some(FolderSpec { column, count }) = folders.filter(|folders| folders.count != partitions) {
            return Err(StagePlanError::Folders { partitions, column, count });
        }
        Ok(FileSizes {
            target: spec.target_file_size,
            bytes_per_row: dataset.bytes_per_row(),
            folders: folders.map(|folders| folders.count),
        })
    }

    /// The folder of a part file within the day, for a dataset with folders.
    pub(in crate::driver) fn folder_of(&self, file: u32) -> Option<String> {
        let folder = self.plan.files.get(file as usize)?.folder?;
        Some(folder_name(&self.submission.dataset.folders()?, folder))
    }
}
