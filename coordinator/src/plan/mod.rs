//! Looking at a job's inputs and cutting its work: what there is (`listing`), whether it can be
//! read (`schema`), which task reads what (`shards`), which rows go into which part file
//! (`files`).
//!
//! Only the target day's files are looked at, and of those only names and footers.

pub mod files;
pub mod listing;
pub mod schema;
pub mod shards;

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use tally_dataset::{Dataset, TableSpec};
use tally_proto::convert::{BadMessage, required};
use tally_proto::{JobId, v1};
use tally_worker::scan::footer::{Footer, Footers};
use tally_worker::scan::{InputFile, Place, ScanError, excerpt};
use tally_worker::urls;

use crate::job::JobSpec;
use listing::ListError;
use schema::{FileSchema, SchemaError};
use shards::{FileWork, RowGroupWork};

/// Footers read at a time.
const CONCURRENT_FOOTERS: usize = 16;
/// Threads that read footers of this machine's files.
const LOCAL_THREADS: usize = 4;

/// Sums of partitions that a job's map tasks may report in all, of twelve bytes each. Where every task of a job of
/// hundreds of slots has rows for every partition there are more; where the tables are laid out by clients there are few.
const MOST_SUMS: usize = 8 << 20;

/// A job that cannot be planned; the output was not touched.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The day's files.
    #[error(transparent)]
    List(#[from] ListError),
    /// A file that cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The columns.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A fault of the program itself.
    #[error("reading the footers of the inputs panicked; the log says where")]
    Panic,
}

/// A map task to be.
#[derive(Debug, Clone)]
pub struct MapTask {
    /// What it does.
    pub work: v1::MapWork,
    /// Bytes of the needed columns.
    pub bytes: u64,
    /// Rows of its row groups, going by the footers; unknown of plans that an older version recorded.
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
    /// Rows in all tables.
    pub rows: u64,
    /// Bytes of the needed columns.
    pub bytes: u64,
    /// Bytes fetched for the plan (footers).
    pub fetched: u64,
    /// What somebody should look at.
    pub warnings: Vec<String>,
    /// Table bytes of a reduce pass, the same for all attempts: passes decide the order of rows.
    /// 0: as much as the worker has.
    pub reduce_table_bytes: u64,
}

impl InputPlan {
    /// The plan as the journal keeps it.
    pub fn record(&self, job: &JobId) -> v1::JobPlanned {
        let task = |task: &MapTask| {
            let mut work = task.work.clone();
            // Long, and a later leader's workers can fetch it.
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
        })
    }
}

/// Plans the map stage of a job for so many slots.
///
/// # Errors
/// [`PlanError`], naming the table, file, column.
pub async fn plan(
    job: &JobSpec,
    dataset: &dyn Dataset,
    footers: &Arc<Footers>,
    slots: usize,
) -> Result<InputPlan, PlanError> {
    let mut plan = InputPlan::default();
    let mut tables = vec![];
    for (table, url) in dataset.tables().iter().zip(&job.inputs) {
        let listing::DayFiles { files, warning } = listing::day_files(table.name, url, &job.date).await?;
        plan.warnings.extend(warning);
        let mut looked = look_at_all(files, footers, table).await?;
        let schemas: Vec<FileSchema> = looked.iter_mut().map(|(schema, ..)| std::mem::take(schema)).collect();
        plan.warnings.extend(schema::merge(table, &schemas)?);
        let mut work = vec![];
        for (schema, (_, file, fetched)) in schemas.iter().zip(looked) {
            plan.files += 1;
            plan.rows += schema.rows;
            plan.fetched += fetched;
            work.push(file);
        }
        plan.bytes += work.iter().map(FileWork::bytes).sum::<u64>();
        tables.push(work);
    }
    plan.partitions = job.cut.partitions.unwrap_or_else(|| shards::partitions(plan.bytes, slots)).max(1);
    let most = job.cut.shard_bytes.unwrap_or_else(|| shards::shard_bytes(plan.bytes, slots));
    for (table, files) in (0..).zip(tables) {
        for shard in shards::cut(files, most) {
            let bytes = shard.iter().map(FileWork::bytes).sum();
            let rows = Some(shard.iter().map(FileWork::rows).fold(0, u64::saturating_add));
            let (partitions, pieces) = (plan.partitions, shards::pieces(shard));
            let work = v1::MapWork { table, partitions, pieces, most_sums: 0 };
            plan.tasks.push(MapTask { work, bytes, rows });
        }
    }
    let most_sums = u32::try_from(MOST_SUMS / plan.tasks.len().max(1)).unwrap_or(u32::MAX);
    plan.tasks.iter_mut().for_each(|task| task.work.most_sums = most_sums);
    Ok(plan)
}

/// A file as [`look`] found it.
type Looked = (FileSchema, FileWork, u64);

/// [`look`] at all files, in their order.
async fn look_at_all(
    files: Vec<InputFile>,
    footers: &Arc<Footers>,
    table: &TableSpec,
) -> Result<Vec<Looked>, PlanError> {
    if files.iter().all(|file| urls::is_local(&file.name)) {
        return look_here(files, footers.clone(), table.clone()).await;
    }
    let read = files.into_iter().map(|file| look(file, footers, table));
    futures::stream::iter(read).buffered(CONCURRENT_FOOTERS).try_collect().await
}

/// The same for files of this machine, on a few threads: a way to the runtime's threads for blocking
/// calls and back costs more than the reading of a footer.
async fn look_here(
    files: Vec<InputFile>,
    footers: Arc<Footers>,
    table: TableSpec,
) -> Result<Vec<Looked>, PlanError> {
    let read = move || {
        let look = |file: &InputFile| futures::executor::block_on(look(file.clone(), &footers, &table));
        // Not threads of the runtime: there the store would hand each call to yet another thread.
        std::thread::scope(|scope| {
            let parts = files.chunks(files.len().div_ceil(LOCAL_THREADS).max(1));
            let threads: Vec<_> = parts
                .map(|part| scope.spawn(move || part.iter().map(look).collect::<Result<Vec<_>, _>>()))
                .collect();
            let parts = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(PlanError::Panic)));
            parts.collect::<Result<Vec<_>, _>>()
        })
    };
    let parts = tokio::task::spawn_blocking(read).await.unwrap_or(Err(PlanError::Panic))?;
    Ok(parts.into_iter().flatten().collect())
}

/// What a file has of the table's columns, and what reading it means.
async fn look(mut file: InputFile, footers: &Footers, table: &TableSpec) -> Result<Looked, PlanError> {
    let footer = footers.get(&file).await?;
    let (metadata, fetched) = (&footer.metadata, footer.fetched);
    file.footer = Some(footer.bytes);
    let schema = FileSchema::of(&file.name, metadata, table);
    check_readable(&file, &footer, table, &schema)?;
    let leaves: Vec<usize> = schema.found(table).map(|(_, leaf)| leaf).collect();
    let row_groups = (0..metadata.num_row_groups())
        .map(|number| {
            let columns = metadata.row_group(number).columns();
            let needed = leaves.iter().filter_map(|&leaf| columns.get(leaf));
            let bytes = needed.map(|c| u64::try_from(c.compressed_size()).unwrap_or(0)).sum();
            let rows = u64::try_from(metadata.row_group(number).num_rows()).unwrap_or(0);
            RowGroupWork { number: number as u32, bytes, rows }
        })
        .collect();
    // Of a file that contradicts itself nothing is sent on: whoever scans it says where.
    let footer =
        if urls::is_local(&file.name) { vec![] } else { excerpt::of(metadata, &leaves).unwrap_or_default() };
    let work = FileWork { file: Arc::new(file), row_groups, footer };
    Ok((schema, work, fetched))
}

/// Says no to a file whose footer says that a needed chunk cannot be read.
fn check_readable(
    file: &InputFile,
    footer: &Footer,
    table: &TableSpec,
    schema: &FileSchema,
) -> Result<(), ScanError> {
    let with_rows = (0..).zip(footer.metadata.row_groups()).filter(|(_, group)| group.num_rows() > 0);
    for (number, _) in with_rows {
        for (spec, leaf) in schema.found(table) {
            if let Some(why) = footer.unreadable(number, leaf) {
                let column = Some(spec.path.join("."));
                let place = Place { file: file.name.clone(), row_group: Some(number), column };
                return Err(ScanError::Corrupt { place, what: why.to_string() });
            }
        }
    }
    Ok(())
}
