//! Map task: a shard's rows to partials, kept in the store.
//!
//! Memory: one mapper a slot, flushed to the store whenever it outgrows its share, so that a
//! shard may be larger than any table.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parquet::file::metadata::ParquetMetaData;
use tally_dataset::{Dataset, Mapper, TableSpec};
use tally_proto::packed::extend;
use tally_proto::v1;
use tokio::sync::oneshot;

use crate::context::TaskContext;
use crate::error::TaskError;
use crate::scan::footer::Footer;
use crate::scan::{InputFile, OpenFile, Place, RowGroup, ScanContext, ScanError, Task, excerpt};
use crate::store::{MapOutput, Output, partial_checksum};
use crate::urls;

/// What a slot keeps between map tasks: an empty mapper whose tables have their size already.
#[derive(Default)]
pub struct Scratch {
    mapper: Option<(MapperKind, Box<dyn Mapper>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MapperKind {
    dataset: &'static str,
    table: usize,
    partitions: u32,
}

/// Runs a map task.
///
/// # Errors
/// [`TaskError`], naming the file.
pub fn run(
    context: &TaskContext,
    dataset: &dyn Dataset,
    work: &v1::MapWork,
    scratch: &mut Scratch,
) -> Result<(v1::MapResult, Output), TaskError> {
    let number = work.table as usize;
    let table = dataset.tables().get(number);
    let table = table.ok_or_else(|| TaskError::Order(format!("there is no input table {number}")))?;
    let share = context.shares.map_table;
    let kind = MapperKind { dataset: dataset.name(), table: number, partitions: work.partitions };
    let mut mapper = match scratch.mapper.take() {
        Some((had, mapper)) if had == kind => mapper,
        _ => dataset.mapper(number, work.partitions),
    };
    let mut writer = context.store.map_writer();
    let mut result = v1::MapResult::default();
    let scan = context.scan();
    let mut groups = Groups::new(context, &scan, table, &work.pieces);
    while let Some(group) = groups.next()? {
        let place = Place { file: group.file().name.clone(), ..Place::default() };
        let mut stored = None;
        let mut after = |mapper: &mut dyn Mapper| {
            if mapper.footprint() <= share {
                return Ok(false);
            }
            let fault = |source| ScanError::Dataset { place: place.clone(), source };
            let run = mapper.flush().map_err(fault)?;
            result.partials += run.batch.num_rows() as u64;
            let checksums = dataset.partial_checksums(number, &run.batch, &run.offsets).map_err(fault)?;
            writer.push(run, Some(checksums)).map_err(|e| {
                stored = Some(e);
                ScanError::Cancelled
            })?;
            Ok(true)
        };
        let done = group.read(&mut *mapper, &mut after);
        if let Some(error) = stored {
            return Err(error.into());
        }
        done?;
    }
    result.rows = scan.rows.load(Ordering::Relaxed);
    if !mapper.is_empty() {
        let run = mapper.flush()?;
        result.partials += run.batch.num_rows() as u64;
        let checksums = dataset.partial_checksums(number, &run.batch, &run.offsets)?;
        writer.push(run, Some(checksums))?;
    }
    let (output, bytes) = writer.finish();
    result.shuffle_bytes = bytes;
    result.sums = sums(&output, work);
    result.bytes_read = scan.fetched.load(Ordering::Relaxed);
    scratch.mapper = Some((kind, mapper));
    Ok((result, Output::Map(output)))
}

/// What an output has in each partition, unless that is more than the order allows to list.
fn sums(output: &MapOutput, work: &v1::MapWork) -> Option<v1::PartitionSums> {
    let mut sums = v1::PartitionSums::default();
    for partition in 0..work.partitions {
        let (mut rows, mut checksum) = (0, 0u64);
        for run in &output.runs {
            let size = run.size(partition).rows;
            rows += size;
            checksum = checksum.wrapping_add(partial_checksum(run.checksums(partition)?, size));
        }
        if rows > 0 {
            extend(&mut sums.partitions, partition, |run| run.first.checked_add(run.count));
            sums.rows.push(rows);
            sums.checksums.push(checksum);
        }
        if sums.rows.len() > work.most_sums as usize {
            return None;
        }
    }
    Some(sums)
}

/// Row groups open at a time, beside the one being decoded, and footers on their way.
const AHEAD: usize = 8;

/// The row groups of a shard, opened one after another, the next ones before they are needed: while
/// one is decoded the first bytes of the one after it come from the disk, or as much as memory has
/// room for from a store.
struct Groups<'a> {
    context: &'a TaskContext,
    scan: &'a ScanContext,
    table: &'a TableSpec,
    pieces: std::slice::Iter<'a, v1::InputPiece>,
    /// Files to come, and their footers.
    files: VecDeque<(&'a v1::InputPiece, InputFile, Coming)>,
    /// The file in hand, and its row groups to come.
    current: Option<Current<'a>>,
    /// Row groups whose bytes are on their way.
    open: VecDeque<RowGroup<'a>>,
}

/// The file in hand.
struct Current<'a> {
    file: Arc<OpenFile>,
    metadata: Arc<ParquetMetaData>,
    /// `metadata` tells only of the row groups of the order.
    excerpt: bool,
    /// Row groups to come, with their places in the order.
    row_groups: std::iter::Enumerate<std::slice::Iter<'a, u32>>,
}

/// Where a file's footer comes from.
enum Coming {
    /// It came with the order.
    Ordered,
    /// It was asked for.
    Asked(oneshot::Receiver<Result<Footer, ScanError>>, Task),
    /// A file on this machine: it is read where it is needed.
    Here,
}

impl<'a> Groups<'a> {
    fn new(
        context: &'a TaskContext,
        scan: &'a ScanContext,
        table: &'a TableSpec,
        pieces: &'a [v1::InputPiece],
    ) -> Self {
        let (files, open) = (VecDeque::new(), VecDeque::new());
        Groups { context, scan, table, pieces: pieces.iter(), files, current: None, open }
    }

    /// The next row group, after those behind it were opened.
    fn next(&mut self) -> Result<Option<RowGroup<'a>>, TaskError> {
        loop {
            let ahead: u64 = self.open.iter().map(RowGroup::ahead).sum();
            // Of a file on this machine nothing is held: one beyond the next is enough.
            let enough = if ahead == 0 { self.open.len() > 1 } else { self.open.len() > AHEAD };
            if enough || ahead > 2 * self.scan.whole {
                break;
            }
            let Some(group) = self.open_next()? else { break };
            self.open.push_back(group);
        }
        Ok(self.open.pop_front())
    }

    fn open_next(&mut self) -> Result<Option<RowGroup<'a>>, TaskError> {
        loop {
            if let Some(current) = &mut self.current
                && let Some((at, &number)) = current.row_groups.next()
            {
                let (file, metadata, number) = (&current.file, &current.metadata, number as usize);
                let at = if current.excerpt { at } else { number };
                if at >= metadata.num_row_groups() {
                    return Err(TaskError::Order(format!("{} has no row group {number}", file.input.name)));
                }
                let group =
                    RowGroup::open(self.scan, file.clone(), metadata.clone(), at, number, self.table)?;
                return Ok(Some(group));
            }
            if !self.next_file()? {
                return Ok(None);
            }
        }
    }

    fn next_file(&mut self) -> Result<bool, TaskError> {
        while self.files.len() < AHEAD
            && let Some(piece) = self.pieces.next()
        {
            let file = input(piece)?;
            let coming = if !piece.footer.is_empty() {
                Coming::Ordered
            } else if urls::is_local(&file.name) {
                Coming::Here
            } else {
                ask(self.context, file.clone())
            };
            let asked = matches!(coming, Coming::Asked(..));
            self.files.push_back((piece, file, coming));
            if !asked {
                break;
            }
        }
        let Some((piece, file, coming)) = self.files.pop_front() else { return Ok(false) };
        let excerpt = matches!(coming, Coming::Ordered);
        let footer = match coming {
            Coming::Ordered => None,
            Coming::Here => Some(self.context.io.block_on(self.context.footers.get(&file))?),
            Coming::Asked(footer, _task) => {
                let ended = || TaskError::Order("the task that fetches a footer ended before it".into());
                Some(self.context.wait(footer)?.map_err(|_| ended())??)
            }
        };
        let metadata = match footer {
            None => excerpt::decode(piece.footer.clone(), &file.name, piece.row_groups.len())?,
            Some(footer) => {
                self.context.counters.bytes.fetch_add(footer.fetched, Ordering::Relaxed);
                footer.metadata
            }
        };
        let file = Arc::new(OpenFile::open(file)?);
        let row_groups = piece.row_groups.iter().enumerate();
        self.current = Some(Current { file, metadata, excerpt, row_groups });
        Ok(true)
    }
}

fn ask(context: &TaskContext, file: InputFile) -> Coming {
    let (sender, footer) = oneshot::channel();
    let footers = context.footers.clone();
    let task = Task::spawn(&context.io, async move {
        // The task gone means that nobody needs it.
        let _ = sender.send(footers.get(&file).await);
    });
    Coming::Asked(footer, task)
}

fn input(piece: &v1::InputPiece) -> Result<InputFile, TaskError> {
    let (store, path) = urls::open(&piece.url).map_err(|e| TaskError::Order(e.to_string()))?;
    let footer = Some(piece.footer_bytes).filter(|&bytes| bytes > 0);
    Ok(InputFile { store, path, name: piece.url.clone(), size: piece.size, etag: piece.etag.clone(), footer })
}
