//! Map task: reads the rows of a shard and keeps their partials in the store.
//!
//! Memory: one mapper per slot. It is flushed to the store whenever it exceeds its share, so a shard may be larger than
//! any table.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tally_common::counts::counted;
use tally_common::stores::urls;
use tally_common::waits::{self, WaitKind};
use tally_dataset::{Dataset, Mapper, TableSpec};
use tally_proto::packed::extend;
use tally_proto::{ALL_ROW_GROUPS, v1};
use tally_scan::footer::{self, Footer};
use tally_scan::resolve;
use tally_scan::{
    AbortOnDrop, FilePosition, InputFile, OpenFile, RowGroup, RowGroups, ScanContext, ScanError, WholeFile,
    excerpt, presence,
};
use tally_shuffle::error::TaskError;
use tally_shuffle::store::{MapOutput, Output, cut, partial_checksum};
use tokio::sync::oneshot;

use crate::task::context::TaskContext;

/// What a slot keeps between map tasks: an empty mapper whose tables are already allocated.
#[derive(Default)]
pub struct Scratch {
    mapper: Option<(MapperKind, Box<dyn Mapper>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MapperKind {
    dataset: &'static str,
    table: usize,
    partitions: u32,
    folder: Option<u32>,
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
    let table = table.ok_or_else(|| TaskError::InvalidTask(format!("there is no input table {number}")))?;
    let share = context.shares.map_table;
    let folder = folder(dataset, work)?;
    let kind = MapperKind { dataset: dataset.name(), table: number, partitions: work.partitions, folder };
    let mut mapper = match scratch.mapper.take() {
        Some((had, mapper)) if had == kind => mapper,
        _ => dataset.mapper(number, work.partitions, folder),
    };
    let mut writer = context.store.map_writer();
    let mut result = v1::MapResult::default();
    let scan = context.scan();
    let mut groups = Groups::new(context, &scan, table, &work.pieces);
    while let Some(group) = groups.next()? {
        let place = FilePosition { file: group.file().name.clone(), ..FilePosition::default() };
        let mut stored = None;
        let mut after = |mapper: &mut dyn Mapper| {
            if mapper.footprint() <= share {
                return Ok(false);
            }
            let fault = |source| ScanError::Dataset { place: place.clone(), source };
            let run = mapper.flush().map_err(fault)?;
            cut::check_rows(&run).map_err(fault)?;
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
    result.footers = groups.footers;
    if !mapper.is_empty() {
        let run = mapper.flush()?;
        cut::check_rows(&run)?;
        result.partials += run.batch.num_rows() as u64;
        let checksums = dataset.partial_checksums(number, &run.batch, &run.offsets)?;
        writer.push(run, Some(checksums))?;
    }
    let (output, bytes) = writer.finish();
    result.shuffle_bytes = bytes;
    result.spilled_bytes = output.spilled_bytes();
    result.sums = sums(&output, work)?;
    result.bytes_read = scan.fetched.load(Ordering::Relaxed);
    scratch.mapper = Some((kind, mapper));
    Ok((result, Output::Map(output)))
}

/// The folder of all rows of the task.
fn folder(dataset: &dyn Dataset, work: &v1::MapWork) -> Result<Option<u32>, TaskError> {
    let Some(spec) = dataset.folders() else { return Ok(None) };
    match work.folder {
        Some(folder) if folder < spec.count && work.partitions == spec.count => Ok(Some(folder)),
        other => Err(TaskError::InvalidTask(format!(
            "{} is {other:?}, with {} instead of {}",
            spec.column,
            counted(work.partitions, "partition"),
            spec.count
        ))),
    }
}

/// The sums of an output per partition. None for a coordinator of an earlier release, which does not ask for them.
///
/// # Errors
/// [`TaskError::SumsLimit`]: there are more than the task message allows.
fn sums(output: &MapOutput, work: &v1::MapWork) -> Result<Option<v1::PartitionSums>, TaskError> {
    let most = work.most_sums as usize;
    if most == 0 {
        return Ok(None);
    }
    let mut sums = v1::PartitionSums::default();
    for partition in 0..work.partitions {
        let (mut rows, mut checksum) = (0, 0u64);
        for run in &output.runs {
            let size = run.size(partition).rows;
            rows += size;
            let Some(checksums) = run.checksums(partition) else { return Ok(None) };
            checksum = checksum.wrapping_add(partial_checksum(checksums, size));
        }
        if rows > 0 {
            extend(&mut sums.partitions, partition, |run| run.first.checked_add(run.count));
            sums.rows.push(rows);
            sums.checksums.push(checksum);
        }
        if sums.rows.len() > most {
            return Err(TaskError::SumsLimit { partitions: work.partitions, most });
        }
    }
    Ok(Some(sums))
}

/// Files and groups of row groups that are fetched ahead.
const MAX_AHEAD: usize = 8;
/// Approximate maximum number of open row groups.
const MAX_OPEN_GROUPS: usize = 128;

/// The row groups of a shard, in order. The next ones are opened before they are needed: while one is decoded, the
/// first bytes of the following one are read from disk, or as many bytes as memory allows are fetched from an object
/// store.
struct Groups<'a> {
    context: &'a TaskContext,
    scan: &'a ScanContext,
    table: &'a TableSpec,
    pieces: std::slice::Iter<'a, v1::InputPiece>,
    /// The next files, with their footers.
    files: VecDeque<(&'a v1::InputPiece, InputFile, FooterSource)>,
    /// The remaining row groups of the current file.
    current: Option<RowGroups<'a>>,
    /// Open row groups. Those that are fetched together are in one list.
    open: VecDeque<VecDeque<RowGroup<'a>>>,
    /// The description of files that were planned without their footers.
    footers: Option<v1::Footers>,
}

/// A footer that was read, and the whole file if it was fetched with it.
type Arrived = Result<(Footer, Option<WholeFile>), ScanError>;

/// The source of a file's footer.
enum FooterSource {
    /// It is in the task message.
    InMessage,
    /// It is being fetched, perhaps with the whole file; with the bytes of the file.
    Requested(oneshot::Receiver<Arrived>, u64, AbortOnDrop),
    /// The file is local, and the footer is read when it is needed.
    Local,
}

impl<'a> Groups<'a> {
    fn new(
        context: &'a TaskContext,
        scan: &'a ScanContext,
        table: &'a TableSpec,
        pieces: &'a [v1::InputPiece],
    ) -> Self {
        let (files, open) = (VecDeque::new(), VecDeque::new());
        Groups { context, scan, table, pieces: pieces.iter(), files, current: None, open, footers: None }
    }

    /// The next row group, after the following ones were opened.
    fn next(&mut self) -> Result<Option<RowGroup<'a>>, TaskError> {
        loop {
            let (ahead, count) = self
                .open
                .iter()
                .flatten()
                .fold((0, 0), |(bytes, count), group| (bytes + group.ahead(), count + 1));
            // A local file or a file in memory fetches nothing, so one more open row group is enough.
            let enough =
                if ahead == 0 { count > 1 } else { self.open.len() > MAX_AHEAD || count > MAX_OPEN_GROUPS };
            if count > 0 && (enough || !self.may_hold_more()) {
                break;
            }
            let opened = self.open_next()?;
            if opened.is_empty() {
                break;
            }
            self.open.push_back(opened);
        }
        let next = self.open.front_mut().and_then(VecDeque::pop_front);
        if self.open.front().is_some_and(VecDeque::is_empty) {
            self.open.pop_front();
        }
        Ok(next)
    }

    /// Whether more may be fetched or kept ahead. Row groups and whole files count together.
    fn may_hold_more(&self) -> bool {
        let groups = self.open.iter().flatten();
        let fetched: u64 = groups.clone().map(RowGroup::ahead).sum();
        let requested: u64 = self.files.iter().map(requested).sum();
        let current = self.current.as_ref().map(RowGroups::open_file);
        let whole = held(groups.map(RowGroup::open_file).chain(current));
        fetched + requested + whole <= 2 * self.scan.whole
    }

    /// Opens the next row groups that are fetched together. Returns none if all were opened.
    fn open_next(&mut self) -> Result<VecDeque<RowGroup<'a>>, TaskError> {
        loop {
            if let Some(current) = &mut self.current {
                let opened = current.open_next()?;
                if !opened.is_empty() {
                    return Ok(opened);
                }
            }
            if !self.next_file()? {
                return Ok(VecDeque::new());
            }
        }
    }

    fn next_file(&mut self) -> Result<bool, TaskError> {
        self.request_ahead()?;
        let Some((piece, file, source)) = self.files.pop_front() else { return Ok(false) };
        let (footer, whole) = match source {
            FooterSource::InMessage => (None, None),
            FooterSource::Local => (Some(self.context.footers.get_local(&file)?), None),
            FooterSource::Requested(arrived, _, _task) => {
                let ended = || {
                    let place = FilePosition { file: file.name.clone(), ..FilePosition::default() };
                    ScanError::Io { place, what: "the fetch of its footer was aborted".into() }
                };
                let _waiting = waits::begin(WaitKind::Store, &file.name);
                let (footer, whole) = self.context.wait(arrived)?.map_err(|_| ended())??;
                (Some(footer), whole)
            }
        };
        let deferred = is_deferred(piece);
        let (metadata, numbers): (_, Box<dyn Iterator<Item = (usize, usize)> + 'a>) = match footer {
            None => {
                let metadata = excerpt::decode(piece.footer.clone(), &file.name, piece.row_groups.len())?;
                let numbers = piece.row_groups.iter().enumerate();
                (metadata, Box::new(numbers.map(|(at, &number)| (number as usize, at))))
            }
            Some(footer) => {
                self.context.counters.bytes.fetch_add(footer.fetched, Ordering::Relaxed);
                if whole.is_some() {
                    self.scan.fetched.fetch_add(footer.fetched, Ordering::Relaxed);
                }
                if deferred {
                    self.report(&file, &footer)?;
                }
                let count = footer.metadata.num_row_groups();
                let numbers = piece.row_groups.iter().map(|&number| number as usize);
                match numbers.clone().find(|&number| number >= count) {
                    _ if deferred => (footer.metadata, Box::new((0..count).map(|number| (number, number)))),
                    None => (footer.metadata, Box::new(numbers.map(|number| (number, number)))),
                    Some(number) => {
                        return Err(TaskError::InvalidTask(format!(
                            "{} has no row group {number}",
                            file.name
                        )));
                    }
                }
            }
        };
        let file = match whole {
            Some(whole) => OpenFile::whole(file, whole),
            None => OpenFile::open(file)?,
        };
        self.current = Some(RowGroups::new(self.scan, self.table, Arc::new(file), metadata, numbers));
        Ok(true)
    }

    /// Requests files or footers before they are needed: the next one, and more as far as memory allows.
    fn request_ahead(&mut self) -> Result<(), TaskError> {
        while self.files.is_empty() || (self.files.len() < MAX_AHEAD && self.may_hold_more()) {
            let Some(piece) = self.pieces.next() else { break };
            let file = input(piece)?;
            let source = if !piece.footer.is_empty() {
                FooterSource::InMessage
            } else if urls::is_local(&file.name) {
                FooterSource::Local
            } else {
                request_footer(self.context, self.scan, file.clone())
            };
            let requested = matches!(source, FooterSource::Requested(..));
            self.files.push_back((piece, file, source));
            if !requested {
                break;
            }
        }
        Ok(())
    }

    /// Checks a file that was planned without its footer like the planner does, and records its description for the
    /// planner.
    fn report(&mut self, file: &InputFile, footer: &Footer) -> Result<(), ScanError> {
        let name = &file.name;
        let schema = footer.metadata.file_metadata().schema_descr();
        let found = resolve::lookup(schema, self.table);
        footer.check_readable(file, found.leaves(self.table))?;
        let groups = footer.metadata.row_groups().iter();
        let rows = groups.map(|group| u64::try_from(group.num_rows()).unwrap_or(0));
        let rows = rows.fold(0, u64::saturating_add);
        let footers = self.footers.get_or_insert_default();
        footers.rows = footers.rows.saturating_add(rows);
        footers.file_bytes = footers.file_bytes.saturating_add(file.size);
        let presence = footers.presence.get_or_insert_default();
        presence::note(presence, self.table, &found.columns, name, rows);
        Ok(())
    }
}

/// Whether the footer of a file was not read by the planner.
fn is_deferred(piece: &v1::InputPiece) -> bool {
    piece.row_groups == [ALL_ROW_GROUPS]
}

/// Bytes of the files that are in memory. The row groups of a file are consecutive.
fn held<'f>(files: impl Iterator<Item = &'f Arc<OpenFile>>) -> u64 {
    let mut last: Option<&Arc<OpenFile>> = None;
    let mut bytes = 0;
    for file in files {
        if !last.is_some_and(|last| Arc::ptr_eq(last, file)) {
            bytes += file.held();
        }
        last = Some(file);
    }
    bytes
}

fn requested((_, _, source): &(&v1::InputPiece, InputFile, FooterSource)) -> u64 {
    if let FooterSource::Requested(_, bytes, _) = source { *bytes } else { 0 }
}

/// Requests a footer; with the whole file if it is small and there is room for it.
fn request_footer(context: &TaskContext, scan: &ScanContext, file: InputFile) -> FooterSource {
    let size = usize::try_from(file.size).ok().filter(|_| file.is_small());
    let held = size.and_then(|size| scan.budget.try_reserve(size));
    let bytes = if held.is_some() { file.size } else { 0 };
    let (sender, arrived) = oneshot::channel();
    let footers = context.footers.clone();
    let task = AbortOnDrop::spawn(&context.io, async move {
        let read = match held {
            None => footers.get(&file).await.map(|footer| (footer, None)),
            Some(held) => {
                let read = footer::read_whole(&file).await;
                read.map(|(footer, bytes)| (footer, Some(WholeFile::new(bytes, held))))
            }
        };
        // The task may have ended.
        let _ = sender.send(read);
    });
    FooterSource::Requested(arrived, bytes, task)
}

fn input(piece: &v1::InputPiece) -> Result<InputFile, TaskError> {
    let (store, path) = urls::open_listed(&piece.url)?;
    let footer = Some(piece.footer_bytes).filter(|&bytes| bytes > 0);
    Ok(InputFile { store, path, name: piece.url.clone(), size: piece.size, etag: piece.etag.clone(), footer })
}
