//! Simulated tasks: they compute the tiny dataset for real, take a while, and may fail in each way that real ones do.
//!
//! Not here: which tasks run (`host`), the data (`dataset`).

use std::collections::BTreeMap;
use std::rc::Rc;

use object_store::multipart::MultipartStore;
use object_store::path::Path;
use tally_proto::dispatch::Dispatch;
use tally_proto::v1::task_dispatch::Work;
use tally_proto::v1::task_result::Result as Done;
use tally_proto::v1::write_work::Target;
use tally_proto::{ALL_ROW_GROUPS, AttemptId, Failure, StageId, TaskId, v1};

use super::fetch::fetch;
use super::host::Started;
use super::outputs::{Group, Held, Output};
use crate::dataset::{self, COLUMNS, Row};
use crate::files::mount::write_part;
use crate::rng::mix;
use crate::signal::{Signal, sleep_unless};
use crate::store::client::{BUCKET, Client};
use crate::store::ops::Call;
use crate::store::{Fail, Request};
use crate::tasks::Owner;
use crate::world::{self, MILLISECOND, Micros, SECOND};

/// The bytes of a reduce output's footer.
const FOOTER: &[u8] = b"footer";

/// Runs an attempt and keeps its output.
pub async fn run(owner: Owner, started: Started) -> (AttemptId, Result<v1::TaskResult, Failure>) {
    let Started { attempt, dispatch, stop } = started;
    let outcome = execute(owner, &attempt, &dispatch, &stop).await;
    let outcome = outcome.map(|(result, output)| {
        let result = v1::TaskResult { result: Some(result), usage: None };
        if let Some(output) = output {
            let held = Held { output: Rc::new(output), result: result.clone(), migrated: false };
            // If the job was released meanwhile, the output is dropped.
            world::with(|world| world.processes[owner.process].outputs.put(attempt.clone(), held));
        }
        result
    });
    (attempt, outcome)
}

fn retryable(reason: impl Into<String>) -> Failure {
    Failure::Retryable { reason: reason.into() }
}

/// Works for a while; fails if the attempt was asked to stop, or by chance.
async fn work(owner: Owner, stop: &Signal) -> Result<(), Failure> {
    let time = world::with(|world| match world.rng.chance(world.rates.slow_task) {
        true => match world.rng.between(5 * SECOND, 40 * SECOND) {
            // Some outlive their job for long if they are not stopped.
            time if time > 28 * SECOND => 5 * time,
            time => time,
        },
        false => world.rng.between(2 * MILLISECOND, world.task_time),
    });
    step(time, stop).await?;
    world::with(|world| {
        if world.now < world.processes[owner.process].full_until {
            return Err(Failure::Refused { reason: "the disk is full".into() });
        }
        match world.rng.chance(world.rates.task_failure) {
            true => Err(retryable("a simulated failure")),
            false => Ok(()),
        }
    })
}

async fn step(time: Micros, stop: &Signal) -> Result<(), Failure> {
    if sleep_unless(time, stop).await { Ok(()) } else { Err(Failure::Cancelled) }
}

async fn execute(
    owner: Owner,
    attempt: &AttemptId,
    dispatch: &Dispatch,
    stop: &Signal,
) -> Result<(Done, Option<Output>), Failure> {
    let invalid = || Failure::Fatal { reason: "the task message is malformed".into() };
    match dispatch.head.work.as_ref().ok_or_else(invalid)? {
        Work::Map(map) => {
            work(owner, stop).await?;
            let (result, output) = self::map(map).await?;
            Ok((Done::Map(result), Some(output)))
        }
        Work::Reduce(reduce) => {
            let tables = check_inputs(attempt, reduce, dispatch)?;
            let rows = read_inputs(owner, reduce.partition, &dispatch.head.key, &tables, dispatch).await?;
            work(owner, stop).await?;
            let (result, output) = self::reduce(reduce, rows)?;
            Ok((Done::Reduce(result), Some(output)))
        }
        Work::Write(write) => {
            let result = self::write(owner, attempt, write, &dispatch.head.key, stop).await?;
            Ok((Done::Write(result), None))
        }
    }
}

/// Reads the files of a shard.
async fn map(work: &v1::MapWork) -> Result<(v1::MapResult, Output), Failure> {
    let mut partitions = vec![vec![]; work.partitions as usize];
    let (mut rows, mut deferred) = (0, vec![]);
    for piece in &work.pieces {
        let key = piece.url.strip_prefix(&format!("s3://{BUCKET}/")).unwrap_or(&piece.url);
        Call::new(Request::Get { key: Path::from(key) }).await.map_err(|fail| match fail {
            Fail::NotFound(_) => Failure::Fatal { reason: format!("{} disappeared", piece.url) },
            fail => retryable(format!("{}: {fail:?}", piece.url)),
        })?;
        let found = dataset::rows(&piece.url);
        rows += found.len() as u64;
        if piece.row_groups == [ALL_ROW_GROUPS] {
            deferred.push((piece.size, found.len() as u64));
        }
        for row in found {
            partitions[dataset::partition(row.client, work.partitions)].push(row);
        }
    }
    let columns = COLUMNS.get(work.table as usize).copied().unwrap_or(0);
    let footers = (!deferred.is_empty()).then(|| {
        let column = v1::ColumnPresence { found: deferred.len() as u64, ..Default::default() };
        v1::Footers {
            rows: deferred.iter().map(|(_, rows)| rows).sum(),
            presence: Some(v1::Presence { with_rows: vec![column; columns], without_rows: vec![] }),
            file_bytes: deferred.iter().map(|(size, _)| size).sum(),
        }
    });
    let mut sums = v1::PartitionSums::default();
    for (partition, rows) in (0u32..).zip(&partitions).filter(|(_, rows)| !rows.is_empty()) {
        sums.partitions.push(v1::Run { first: partition, count: 1 });
        sums.rows.push(rows.len() as u64);
        sums.checksums.push(checksum(rows));
    }
    let sums = Some(sums).filter(|sums| sums.rows.len() <= work.most_sums as usize);
    let bytes = rows * 16;
    let result = v1::MapResult {
        rows,
        bytes_read: bytes,
        partials: rows,
        shuffle_bytes: bytes,
        sums,
        footers,
        spilled_bytes: 0,
    };
    Ok((result, Output::Map(partitions)))
}

fn checksum(rows: &[Row]) -> u64 {
    rows.iter().fold(0, |sum: u64, row| sum.wrapping_add(row.hash()))
}

/// The inputs of a reduce attempt by location. They must be one output of each map task of the job.
fn check_inputs(
    attempt: &AttemptId,
    work: &v1::ReduceWork,
    dispatch: &Dispatch,
) -> Result<BTreeMap<u32, Vec<AttemptId>>, Failure> {
    let inputs = dispatch.inputs.as_deref();
    let inputs = inputs.ok_or_else(|| Failure::Fatal { reason: "the task message has no inputs".into() })?;
    let mut found: Vec<u32> =
        inputs.tables.iter().flat_map(|table| &table.outputs).map(|o| o.index).collect();
    found.sort_unstable();
    let files = world::with(|world| world.job_files(&attempt.task.job));
    if found.iter().copied().ne(0..files) {
        world::violated(|| {
            format!(
                "{attempt} was started with the outputs of the map tasks {found:?} instead of 0 to {files}"
            )
        });
    }
    let listed: Vec<u32> = inputs.tables.iter().map(|table| table.outputs.len() as u32).collect();
    if !work.map_tasks.is_empty() && listed != work.map_tasks {
        return Err(retryable("the inputs of the task are not complete"));
    }
    let mut by_location = BTreeMap::<u32, Vec<AttemptId>>::new();
    for output in inputs.tables.iter().flat_map(|table| &table.outputs) {
        let task =
            TaskId { job: attempt.task.job.clone(), stage: StageId(output.stage), index: output.index };
        by_location.entry(output.location).or_default().push(AttemptId { task, attempt: output.attempt });
    }
    Ok(by_location)
}

async fn read_inputs(
    owner: Owner,
    partition: u32,
    key: &[u8],
    by_location: &BTreeMap<u32, Vec<AttemptId>>,
    dispatch: &Dispatch,
) -> Result<Vec<Row>, Failure> {
    let locations = dispatch.inputs.as_deref().map(|inputs| &inputs.locations[..]).unwrap_or_default();
    let mut rows = vec![];
    for (location, attempts) in by_location {
        let location = locations.get(*location as usize);
        let location = location.ok_or_else(|| Failure::Fatal { reason: "no such location".into() })?;
        for output in fetch(owner, location, key, attempts).await? {
            match &*output {
                Output::Map(partitions) => {
                    rows.extend(partitions.get(partition as usize).into_iter().flatten())
                }
                Output::File(_) => return Err(retryable("an input is not a map output")),
            }
        }
    }
    Ok(rows)
}

fn reduce(work: &v1::ReduceWork, read: Vec<Row>) -> Result<(v1::ReduceResult, Output), Failure> {
    let sums = v1::Sums { rows: read.len() as u64, checksum: checksum(&read) };
    if work.expected.is_some_and(|expected| expected != sums) {
        world::violated(|| {
            format!("partition {} was read as {sums:?} instead of {:?}", work.partition, work.expected)
        });
        return Err(retryable("the sums of the task do not agree"));
    }
    let mut rows = dataset::sum(read);
    // The number of passes decides the order of rows, and may differ between attempts.
    if world::with(|world| world.rng.chance(world.rates.other_order)) {
        rows.reverse();
    }
    let most = usize::try_from(work.row_group_rows).unwrap_or(usize::MAX).max(1);
    let groups: Vec<Group> = rows
        .chunks(most)
        .map(|rows| Group {
            rows: rows.into(),
            checksum: checksum(rows),
            crc32: crc32fast::hash(&dataset::encode(rows)),
        })
        .collect();
    let order = rows.iter().fold(1, |order, row| mix(order ^ row.hash()));
    let counters = [rows.len() as u64, rows.iter().map(|row| row.value).sum()];
    let result = v1::ReduceResult {
        totals: Some(v1::Totals::new(rows.len() as u64, &counters)),
        row_group_rows: groups.iter().map(|group| group.rows.len() as u64).collect(),
        bytes: rows.len() as u64 * 16,
        passes: 1,
        read: Some(sums),
        checksums: groups.iter().map(|group| group.checksum).collect(),
        crc32s: groups.iter().map(|group| group.crc32).collect(),
        footer_crc32: crc32fast::hash(FOOTER),
        order: Some(order),
        objectives: vec![],
        nulls: vec![],
        spilled_bytes: 0,
        network_bytes: 0,
    };
    Ok((result, Output::File(groups)))
}

/// Copies row groups into a part file, and uploads it, or writes it to a folder.
async fn write(
    owner: Owner,
    attempt: &AttemptId,
    work: &v1::WriteWork,
    key: &[u8],
    stop: &Signal,
) -> Result<v1::WriteResult, Failure> {
    let (mut rows, mut file, mut sum) = (0u64, vec![], 0u64);
    for piece in &work.pieces {
        let groups = read_piece(owner, attempt, piece, &work.locations, key).await?;
        for group in groups {
            rows += group.rows.len() as u64;
            sum = sum.wrapping_add(group.checksum);
            file.extend(dataset::encode(&group.rows));
        }
    }
    self::work(owner, stop).await?;
    let totals = work.totals.clone().unwrap_or_default();
    file.extend(totals.rows.to_le_bytes());
    let (bytes, crc32) = (file.len() as u64, crc32fast::hash(&file));
    let parts = match &work.target {
        Some(Target::Upload(to)) => upload(to, &file, stop).await?,
        Some(Target::Path(path)) => {
            write_part(owner, path.clone(), file).await?;
            vec![]
        }
        None => return Err(Failure::Fatal { reason: "the task message has no target".into() }),
    };
    Ok(v1::WriteResult { rows, bytes, crc32, parts, checksum: Some(sum) })
}

/// Uploads a part file; returns the names of its parts.
async fn upload(upload: &v1::Upload, file: &[u8], stop: &Signal) -> Result<Vec<String>, Failure> {
    let mut parts = vec![];
    let object = Path::from(upload.url.strip_prefix(&format!("s3://{BUCKET}/")).unwrap_or(&upload.url));
    // Two parts, so that a worker can die between them.
    let (first, second) = file.split_at(file.len() / 2);
    for (number, part) in [first, second].into_iter().enumerate().filter(|(_, part)| !part.is_empty()) {
        if stop.is_set() {
            return Err(Failure::Cancelled);
        }
        let sent = Client.put_part(&object, &upload.id, number, part.to_vec().into()).await;
        let sent = sent.map_err(|error| match error {
            object_store::Error::NotFound { .. } => {
                Failure::Fatal { reason: format!("{}: a part cannot be uploaded: {error}", upload.url) }
            }
            error => retryable(error.to_string()),
        });
        parts.push(sent?.content_id);
    }
    Ok(parts)
}

/// The row groups of one reduce output, as the task message describes them.
async fn read_piece(
    owner: Owner,
    attempt: &AttemptId,
    piece: &v1::RowGroups,
    locations: &[v1::Location],
    key: &[u8],
) -> Result<Vec<Group>, Failure> {
    let invalid = || Failure::Fatal { reason: "the task message is malformed".into() };
    let output = piece.output.as_ref().ok_or_else(invalid)?;
    let location = locations.get(output.location as usize).ok_or_else(invalid)?;
    let task = TaskId { job: attempt.task.job.clone(), stage: StageId(output.stage), index: output.index };
    let made = AttemptId { task, attempt: output.attempt };
    let read = fetch(owner, location, key, std::slice::from_ref(&made)).await?;
    let Some(Output::File(groups)) = read.first().map(|output| &**output) else {
        return Err(retryable("an input is not a reduce output"));
    };
    let mut wanted = vec![];
    for (at, number) in piece.row_groups.iter().enumerate() {
        let group = groups.get(*number as usize).filter(|group| {
            let rows = piece.rows.get(at).is_none_or(|rows| *rows == group.rows.len() as u64);
            let sum = piece.checksums.get(at).is_none_or(|sum| *sum == group.checksum);
            let crc = piece.crc32s.get(at).is_none_or(|crc| *crc == group.crc32);
            rows && sum && crc
        });
        let Some(group) = group else {
            world::violated(|| format!("{attempt} reads {made}, which is not what the coordinator says"));
            return Err(retryable("an input is not what was made"));
        };
        wanted.push(group.clone());
    }
    Ok(wanted)
}
