//! The plan of a job: its input files (`listing`, `local_files`), their footers (`inspect`), whether they can be read
//! (`schema`), the shard of each map task (`shards`), which shards probably belong together (`affinity`), the rows of each
//! part file (`files`). `folders` reads the second partition column of a dataset. `days` compares the days of inputs and output.
//!
//! The planner reads only the names and footers of the target day's files. Small files of an object store are planned by
//! their size: the workers that fetch them report their footers (`deferred`).

pub mod affinity;
pub mod days;
pub mod deferred;
pub mod files;
pub mod folders;
pub mod inspect;
pub mod listing;
mod local_files;
pub mod schema;
pub mod shards;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use tally_common::counts::counted;
use tally_common::size;
use tally_dataset::Dataset;
use tally_proto::convert::{BadMessage, required};
use tally_proto::{JobId, v1};
use tally_scan::ScanError;
use tally_scan::footer::Footers;

use crate::job::JobSpec;
use folders::{Divided, FolderError, Folders};
use inspect::inspect;
use listing::ListError;
use schema::SchemaError;
use shards::FileWork;

/// The most bytes of all files in a plan, which is one record of the journal.
const MAX_PLAN_BYTES: u64 = 1 << 30;

/// The most sums of partitions that all map tasks of a job together may report, of 16 bytes each. Only jobs with hundreds
/// of slots would have more: the planner combines their shards. A job that asks for smaller shards has more only if its
/// tables are not partitioned by client; its map tasks fail then, because no day is published unchecked.
const MAX_SUMS: usize = 16 << 20;

/// A job cannot be planned. Its output is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The day's files.
    #[error(transparent)]
    List(#[from] ListError),
    /// The folder of a file.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file that cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The columns.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The plan is larger than a record of the journal may be.
    #[error(
        "the plan of {} has {}, and a plan has at most {}: combine small files, or give them shorter names",
        counted(*files, "file"), size::text(*bytes), size::text(MAX_PLAN_BYTES)
    )]
    TooLarge {
        /// Files of the day.
        files: usize,
        /// Bytes of the plan.
        bytes: u64,
    },
    /// A bug of the program.
    #[error("reading the footers of the inputs panicked; the log says where")]
    Panic,
}

/// A planned map task.
#[derive(Debug, Clone)]
pub struct MapTask {
    /// Its part of the task message.
    pub work: v1::MapWork,
    /// Bytes of the needed columns.
    pub bytes: u64,
    /// Rows of its row groups, by the footers that the planner read; unknown in plans that an older version recorded. The
    /// worker reports the rows of deferred files.
    pub rows: Option<u64>,
}

/// The plan of a job's map stage.
#[derive(Debug, Clone, Default)]
pub struct InputPlan {
    /// The map tasks.
    pub tasks: Vec<MapTask>,
    /// Partitions of the shuffle.
    pub partitions: u32,
    /// Files in all tables.
    pub files: usize,
    /// Rows in all tables, without those of deferred files.
    pub rows: u64,
    /// Bytes of the needed columns.
    pub bytes: u64,
    /// Bytes of footers that were fetched for the plan.
    pub fetched: u64,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// Table bytes of a reduce pass. They are the same for all attempts, because passes determine the order of rows.
    /// 0: the worker's own limit.
    pub reduce_table_bytes: u64,
    /// By input table: the columns of the files whose footers the planner read.
    pub presence: Vec<v1::Presence>,
}

impl InputPlan {
    /// The journal's record of the plan.
    pub fn record(&self, job: &JobId) -> v1::JobPlanned {
        let task = |task: &MapTask| {
            let mut work = task.work.clone();
            // Footers are long, and workers can fetch them.
            work.pieces.iter_mut().for_each(|piece| piece.footer.clear());
            v1::PlannedTask { work: Some(work), bytes: task.bytes, rows: task.rows }
        };
        v1::JobPlanned {
            job: job.to_string(),
            partitions: self.partitions,
            tasks: self.tasks.iter().map(task).collect(),
            rows: self.rows,
            bytes: self.bytes,
            files: self.files as u64,
            fetched: self.fetched,
            warnings: self.warnings.clone(),
            reduce_table_bytes: self.reduce_table_bytes,
            presence: self.presence.clone(),
        }
    }
}

impl TryFrom<v1::JobPlanned> for InputPlan {
    type Error = BadMessage;

    fn try_from(record: v1::JobPlanned) -> Result<Self, BadMessage> {
        let task = |task: v1::PlannedTask| {
            Ok(MapTask { work: required(task.work, "work")?, bytes: task.bytes, rows: task.rows })
        };
        Ok(InputPlan {
            tasks: record.tasks.into_iter().map(task).collect::<Result<_, BadMessage>>()?,
            partitions: record.partitions,
            files: usize::try_from(record.files).unwrap_or(usize::MAX),
            rows: record.rows,
            bytes: record.bytes,
            fetched: record.fetched,
            warnings: record.warnings,
            reduce_table_bytes: record.reduce_table_bytes,
            presence: record.presence,
        })
    }
}

/// Plans the map stage of a job for that many slots. With `defer`, workers read the footers of small files in object
/// stores. With `apart`, the shuffle crosses a network, so files of one affinity are kept together.
///
/// # Errors
/// [`PlanError`] names the table, file and column.
pub async fn plan(
    job: &JobSpec,
    dataset: &dyn Dataset,
    footers: &Arc<Footers>,
    slots: usize,
    defer: bool,
    apart: bool,
) -> Result<InputPlan, PlanError> {
    let mut plan = InputPlan::default();
    let mut tables = vec![];
    let (mut record_bytes, mut row_groups) = (0, 0);
    for (table, url) in dataset.tables().iter().zip(&job.inputs) {
        let listing::DayFiles { files, warning, .. } =
            listing::day_files(table.name, url, &job.day_folder).await?;
        plan.warnings.extend(warning);
        plan.files += files.len();
        let folders = Folders::of(job, dataset, table.name);
        let divided = match folders {
            None => Divided { read: files, ignored: vec![] },
            Some(folders) => folders.divide(files)?,
        };
        plan.warnings.extend(folders.and_then(|folders| folders.warning(&divided.ignored)));
        let inspected = inspect(divided, footers, table, defer).await?;
        plan.rows = plan.rows.saturating_add(inspected.rows);
        plan.fetched += inspected.fetched;
        let all = !inspected.deferred;
        let presence = inspected.schema.check(all)?;
        if all {
            plan.warnings.extend(schema::check_missing(table, &presence)?);
        }
        plan.presence.push(presence);
        plan.bytes += inspected.work.iter().map(FileWork::bytes).sum::<u64>();
        row_groups += inspected.work.iter().map(|file| file.row_groups.len()).sum::<usize>();
        record_bytes += inspected.work.iter().map(|file| file.piece_bytes() as u64).sum::<u64>();
        tables.push((folders, inspected.work));
    }
    check_size(plan.files, record_bytes)?;
    let files = tables.iter().flat_map(|(_, files)| files);
    let least = if apart { affinity::partitions(files, &job.day_folder, slots) } else { 0 };
    plan.partitions = match dataset.folders() {
        Some(folders) => folders.count,
        None => job.cut.partitions.unwrap_or_else(|| shards::partitions(plan.bytes, slots, least)).max(1),
    };
    let (max, warning) = shards::shard_limit(job.cut.shard_bytes, plan.bytes, row_groups, slots);
    plan.warnings.extend(warning);
    let groups = (0..).zip(tables).flat_map(|(table, (folders, files))| {
        by_folder(folders, files).map(move |(folder, files)| ((table, folder), files))
    });
    let (groups, files): (Vec<_>, Vec<_>) = groups.unzip();
    let mut shards = cut(job, files, plan.partitions, max, apart);
    if job.cut.shard_bytes.is_none() {
        shards = shards::combine(shards, MAX_SUMS / plan.partitions as usize);
    }
    for ((table, folder), shards) in groups.into_iter().zip(shards) {
        for shard in shards {
            let bytes = shard.iter().map(FileWork::bytes).sum();
            let rows = Some(shard.iter().map(FileWork::rows).fold(0, u64::saturating_add));
            let (partitions, pieces) = (plan.partitions, shards::pieces(shard));
            let work = v1::MapWork { table, partitions, pieces, most_sums: 0, folder };
            plan.tasks.push(MapTask { work, bytes, rows });
        }
    }
    let most_sums = u32::try_from(MAX_SUMS / plan.tasks.len().max(1)).unwrap_or(u32::MAX);
    plan.tasks.iter_mut().for_each(|task| task.work.most_sums = most_sums);
    Ok(plan)
}

/// The files of each folder, in order. All files are together if the dataset has no folders. A file whose rows are ignored
/// is in folder 0.
fn by_folder(
    folders: Option<Folders<'_>>,
    files: Vec<FileWork>,
) -> impl Iterator<Item = (Option<u32>, Vec<FileWork>)> {
    let mut all: BTreeMap<Option<u32>, Vec<FileWork>> = BTreeMap::new();
    for work in files {
        let folder = folders.map(|folders| folders.folder(&work.file).unwrap_or(0));
        all.entry(folder).or_default().push(work);
    }
    all.into_iter()
}

/// Cuts each group of files into shards of at most `max` bytes.
fn cut(
    job: &JobSpec,
    groups: Vec<Vec<FileWork>>,
    partitions: u32,
    max: u64,
    apart: bool,
) -> Vec<Vec<Vec<FileWork>>> {
    let cut = |files| {
        let groups = match apart {
            true => affinity::groups(files, &job.day_folder, partitions, max),
            false => vec![files],
        };
        groups.into_iter().flat_map(|group| shards::cut(group, max)).collect()
    };
    groups.into_iter().map(cut).collect()
}

/// Checks the size of the files in a plan.
fn check_size(files: usize, bytes: u64) -> Result<(), PlanError> {
    if bytes > MAX_PLAN_BYTES { Err(PlanError::TooLarge { files, bytes }) } else { Ok(()) }
}
