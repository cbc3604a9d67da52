//! Stores with known outputs, served over loopback, and the two implementations of `Peers` that read them.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, BinaryArray, FixedSizeBinaryArray, ListArray, RecordBatch, UInt8Array};
use bytes::Bytes;
use tally_common::budget::Budget;
use tally_common::security::Security;
use tally_dataset::addon_aggregates::{ADDONS, AddonAggregates};
use tally_dataset::{Dataset, MapRun, StringDictionary};
use tally_proto::{AttemptId, JobId, StageId, TaskId, WorkerId, v1};
use tally_shuffle::error::TaskError;
use tally_shuffle::flight::{Client, ServeConfig, Server, Traffic, serve};
use tally_shuffle::peers::{InProcess, OutputLocation, Peers, ReadContext, Wanted};
use tally_shuffle::spill::SpillDir;
use tally_shuffle::store::{Output, Store};
use tally_shuffle::string_dictionary::TaskDictionary;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub const KEY: &[u8] = b"the key of the job";
pub const PARTITIONS: u32 = 4;

pub fn job() -> JobId {
    JobId::parse("job-1").unwrap()
}

pub fn attempt(stage: u32, index: u32, attempt: u32) -> AttemptId {
    AttemptId { task: TaskId { job: job(), stage: StageId(stage), index }, attempt }
}

/// A run of `rows[p]` rows in partition `p`. `seed` makes its values distinct.
pub fn run(rows: [u32; PARTITIONS as usize], seed: u32) -> MapRun {
    let all: u32 = rows.iter().sum();
    let mut offsets = vec![0];
    rows.iter().for_each(|rows| offsets.push(offsets[offsets.len() - 1] + rows));
    let id = |row: u32| (u128::from(seed) << 64 | u128::from(row)).to_be_bytes();
    let ids = FixedSizeBinaryArray::try_from_sparse_iter_with_size((0..all).map(|row| Some(id(row))), 16);
    let states = UInt8Array::from_iter_values((0..all).map(|row| (row % 7) as u8));
    let items = (0..all).map(|row| Some((0..row % 4).map(|item| Some(seed + item)).collect::<Vec<_>>()));
    let columns: [(&str, ArrayRef); 3] = [
        ("client_id", Arc::new(ids.unwrap())),
        ("state", Arc::new(states)),
        ("items", Arc::new(ListArray::from_iter_primitive::<UInt32Type, _, _>(items))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let words: Vec<String> = (0..seed % 5).map(|word| format!("word-{seed}-{word}")).collect();
    MapRun { batch, offsets, dictionary: BinaryArray::from_iter_values(words.iter().map(String::as_bytes)) }
}

/// A run of another table: its schema differs.
pub fn thin_run(rows: [u32; PARTITIONS as usize], seed: u32) -> MapRun {
    let full = run(rows, seed);
    MapRun { batch: full.batch.project(&[0, 1]).unwrap(), ..full }
}

pub fn map_result(rows: u64) -> v1::TaskResult {
    let result = v1::MapResult { rows, ..v1::MapResult::default() };
    v1::TaskResult { result: Some(v1::task_result::Result::Map(result)), usage: None }
}

pub fn put_map(store: &Store, attempt: &AttemptId, runs: Vec<MapRun>) {
    let mut writer = store.map_writer();
    let rows = runs.iter().map(|run| run.batch.num_rows() as u64).sum();
    for run in runs {
        // Checksums are known only for the rows of one of the two schemas.
        let checksums = AddonAggregates::new().partial_checksums(ADDONS, &run.batch, &run.offsets).ok();
        writer.push(run, checksums).unwrap();
    }
    assert!(store.put(attempt.clone(), Output::Map(writer.finish().0), map_result(rows)));
}

pub fn put_file(store: &Store, attempt: &AttemptId, bytes: &[u8]) {
    let mut writer = store.file_writer();
    writer.write_all(bytes).unwrap();
    let result = v1::ReduceResult { bytes: bytes.len() as u64, ..v1::ReduceResult::default() };
    let result = v1::TaskResult { result: Some(v1::task_result::Result::Reduce(result)), usage: None };
    assert!(store.put(attempt.clone(), Output::File(writer.finish().0), result));
}

pub struct Rig {
    pub runtime: Runtime,
    pub store: Arc<Store>,
    pub traffic: Arc<Traffic>,
    pub received: Arc<Traffic>,
    pub client: Client,
    pub place: OutputLocation,
    server: Option<Server>,
    spill: tempfile::TempDir,
}

impl Rig {
    /// A served store with a memory budget.
    pub fn new(memory: u64) -> Self {
        Self::with(memory, ServeConfig { streams: 8, in_flight: 32 << 20 })
    }

    pub fn with(memory: u64, config: ServeConfig) -> Self {
        Self::secured(memory, config, Security::plain())
    }

    /// A served store whose server and client use `security`.
    pub fn secured(memory: u64, config: ServeConfig, security: Arc<Security>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let spill = tempfile::tempdir().unwrap();
        let store = Store::new(Budget::new(memory), SpillDir::create(spill.path(), "w-1", u64::MAX).unwrap());
        let store = Arc::new(store);
        store.admit(&job(), KEY);
        let (traffic, received) = (Arc::new(Traffic::default()), Arc::new(Traffic::default()));
        let server = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            serve(store.clone(), listener, config, traffic.clone(), security.clone()).unwrap()
        });
        let place =
            OutputLocation { worker: WorkerId::parse("w-1").unwrap(), address: server.address().to_string() };
        let client = Client::new(received.clone(), security.dialer());
        Rig { runtime, store, traffic, received, client, place, server: Some(server), spill }
    }

    pub fn reading(&self) -> ReadContext {
        ReadContext {
            job: job(),
            key: Bytes::from_static(KEY),
            budget: Budget::new(64 << 20),
            cancelled: Default::default(),
            io: self.runtime.handle().clone(),
            received: Default::default(),
        }
    }

    /// Both implementations of `Peers` for the store's outputs, by name.
    pub fn implementations(&self) -> Vec<(&'static str, Box<dyn Peers>)> {
        let inside = InProcess::default();
        inside.set(HashMap::from([(self.place.worker.clone(), self.store.clone())]));
        vec![("in process", Box::new(inside)), ("Flight", Box::new(self.client.clone()))]
    }

    /// Number of output files on disk.
    pub fn spilled_files(&self) -> usize {
        let folders = std::fs::read_dir(self.spill.path()).unwrap();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        files.filter(|file| file.as_ref().unwrap().file_name() != ".lock").count()
    }

    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop(Duration::from_secs(10)));
        }
    }
}

/// Waits for a condition.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "the condition never became true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One run as a reader saw it: its rows, its strings, and the checksums of the holder.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadRun {
    pub output: usize,
    pub run: usize,
    pub checksums: Option<(u64, u64)>,
    pub rows: RecordBatch,
    pub strings: Vec<String>,
}

/// Reads a partition of all outputs twice, like a reduce task of two passes.
pub fn read(
    peers: &dyn Peers,
    place: &OutputLocation,
    outputs: &[Wanted],
    partition: u32,
    reading: &ReadContext,
) -> Result<Vec<ReadRun>, TaskError> {
    let strings = TaskDictionary::new(&Budget::new(16 << 20));
    let mut reader = peers.maps(place, outputs.to_vec(), partition, reading)?;
    let sizes = reader.sizes()?.to_vec();
    assert_eq!(sizes.len(), outputs.len());
    let mut passes = vec![];
    for _ in 0..2 {
        reader.rewind();
        let mut seen = vec![];
        for (output, runs) in sizes.iter().enumerate() {
            for (run, size) in runs.iter().enumerate().filter(|(_, size)| size.rows > 0) {
                let codes = reader.codes(output, run, &strings)?;
                let mut batches = vec![];
                reader.read(output, run, &mut |batch| {
                    batches.push(batch.clone());
                    Ok(())
                })?;
                let rows = arrow_select::concat::concat_batches(&batches[0].schema(), &batches).unwrap();
                assert_eq!(rows.num_rows() as u64, size.rows);
                let text = |&code: &u32| {
                    let mut text = vec![];
                    strings.append(code, &mut text);
                    String::from_utf8(text).unwrap()
                };
                if let Some((_, dictionary)) = size.checksums {
                    assert_eq!(codes.dictionary, dictionary);
                }
                let (checksums, strings) = (size.checksums, codes.iter().map(text).collect());
                seen.push(ReadRun { output, run, checksums, rows, strings });
            }
        }
        passes.push(seen);
    }
    let second = passes.pop().unwrap();
    assert_eq!(passes.pop().unwrap(), second, "a second pass sees the same");
    Ok(second)
}
