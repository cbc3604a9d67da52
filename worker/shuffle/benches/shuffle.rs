//! Throughput of reading map outputs from another worker over loopback, and in process: one partition of outputs in
//! memory and on disk, read by one slot. Run it with `cargo bench --bench shuffle`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, FixedSizeBinaryArray, RecordBatch, UInt64Array};
use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use tally_common::budget::Budget;
use tally_common::security::{Dialer, Security};
use tally_dataset::MapRun;
use tally_proto::{AttemptId, JobId, StageId, TaskId, WorkerId, v1};
use tally_shuffle::flight::{Client, ServeConfig, Server, Traffic, serve};
use tally_shuffle::peers::{InProcess, OutputLocation, Peers, ReadContext, Wanted};
use tally_shuffle::spill::SpillDir;
use tally_shuffle::store::{Output, Store};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Map outputs, and rows of each; 24 bytes per row.
const OUTPUTS: u32 = 64;
const ROWS: u32 = 200_000;
const ROW_BYTES: u64 = 24;
const KEY: &[u8] = b"key";

fn main() {
    divan::main();
}

/// A served store.
struct Served {
    runtime: Runtime,
    store: Arc<Store>,
    place: OutputLocation,
    wanted: Vec<Wanted>,
    job: JobId,
    _server: Server,
    _spill: tempfile::TempDir,
}

fn output() -> MapRun {
    let ids = (0..ROWS).map(|row| Some(u128::from(row).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()));
    let ids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids, 16).expect("ids");
    let numbers = UInt64Array::from_iter_values((0..ROWS).map(u64::from));
    let columns: [(&str, ArrayRef); 2] = [("client_id", Arc::new(ids)), ("number", Arc::new(numbers))];
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    MapRun { batch, offsets: vec![0, ROWS], dictionary: BinaryArray::from_iter_values([b"a"]) }
}

impl Served {
    fn new(memory: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let spill = tempfile::tempdir().expect("a folder");
        let folder = SpillDir::create(spill.path(), "w", u64::MAX).expect("a spill folder");
        let store = Arc::new(Store::new(Budget::new(memory), folder));
        let job = JobId::parse("job").expect("an id");
        store.admit(&job, KEY);
        let attempt =
            |index| AttemptId { task: TaskId { job: job.clone(), stage: StageId(0), index }, attempt: 0 };
        let wanted: Vec<Wanted> =
            (0..OUTPUTS).map(|index| Wanted { attempt: attempt(index), table: 0 }).collect();
        for Wanted { attempt, .. } in &wanted {
            let mut writer = store.map_writer();
            writer.push(output(), None).expect("a run");
            store.put(attempt.clone(), Output::Map(writer.finish().0), v1::TaskResult::default());
        }
        let config = ServeConfig { streams: 64, in_flight: 256 << 20 };
        let server = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            serve(store.clone(), listener, config, Arc::new(Traffic::default()), Security::plain())
                .expect("a server")
        });
        let address = server.address().to_string();
        let place = OutputLocation { worker: WorkerId::parse("w").expect("an id"), address };
        Served { runtime, store, place, wanted, job, _server: server, _spill: spill }
    }

    fn read(&self, peers: &dyn Peers) -> usize {
        let reading = ReadContext {
            job: self.job.clone(),
            key: Bytes::from_static(KEY),
            budget: Budget::new(256 << 20),
            cancelled: Default::default(),
            io: self.runtime.handle().clone(),
            received: Default::default(),
        };
        let mut reader = peers.maps(&self.place, self.wanted.clone(), 0, &reading).expect("a reader");
        reader.sizes().expect("sizes");
        let mut rows = 0;
        for output in 0..self.wanted.len() {
            let mut take = |batch: &RecordBatch| {
                rows += batch.num_rows();
                Ok(())
            };
            reader.read(output, 0, &mut take).expect("rows");
        }
        assert_eq!(rows, (OUTPUTS * ROWS) as usize);
        rows
    }
}

fn bench(bencher: Bencher<'_, '_>, memory: u64, peers: impl Fn(&Served) -> Box<dyn Peers> + Sync) {
    let served = Served::new(memory);
    let peers = peers(&served);
    let bytes = u64::from(OUTPUTS) * u64::from(ROWS) * ROW_BYTES;
    bencher.counter(BytesCount::new(bytes)).bench_local(|| served.read(&*peers));
}

fn flight(served: &Served) -> Box<dyn Peers> {
    let _runtime = served.runtime.enter();
    Box::new(Client::new(Arc::new(Traffic::default()), Dialer::plain()))
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn flight_from_memory(bencher: Bencher<'_, '_>) {
    bench(bencher, 4 << 30, flight);
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn flight_from_disk(bencher: Bencher<'_, '_>) {
    bench(bencher, 0, flight);
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn in_process_from_disk(bencher: Bencher<'_, '_>) {
    bench(bencher, 0, |served| {
        let inside = InProcess::default();
        inside.set(HashMap::from([(served.place.worker.clone(), served.store.clone())]));
        Box::new(inside)
    });
}
