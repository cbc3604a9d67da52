//! Two workers in this process: a holder of outputs, which are all on disk, and a reader.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};
use tally_common::budget::Reservation;
use tally_common::security::{Dialer, Security};
use tally_proto::dispatch::{Dispatch, ReduceInputs};
use tally_proto::report::Report;
use tally_proto::v1::task_dispatch::Work;
use tally_proto::v1::task_result::Result as Done;
use tally_proto::v1::write_work::Target;
use tally_proto::{AttemptId, Failure, JobId, WorkerId, v1};
use tally_scan::footer::Footers;
use tally_shuffle::flight::{Client, ServeConfig, Server, Traffic, serve};
use tally_shuffle::peers::{InProcess, Peers};
use tally_tests::random::{Shape, random_day};
use tally_tests::table;
use tally_worker::runner::Worker;
use tally_worker::shares::WorkerConfig;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const DATE: &str = "20170227";
const KEY: &[u8] = b"the key of the job";
const TABLES: [&str; 2] = ["addons/v2", "main_summary/v3"];

/// How the reader accesses the holder's outputs.
#[derive(Clone, Copy, PartialEq)]
pub enum PeerCarrier {
    InProcess,
    Flight,
}

pub struct Rig {
    dir: TempDir,
    reports: mpsc::Receiver<Report>,
    holder: Worker,
    reader: Worker,
    address: String,
    attempts: u32,
    _server: Server,
    _full: Vec<Reservation>,
    _runtime: Runtime,
}

/// A map output.
#[derive(Clone)]
pub struct Map {
    table: usize,
    index: u32,
    attempt: u32,
    result: v1::MapResult,
}

/// The outcome of a task.
pub type Outcome<T> = Result<T, Failure>;

impl Rig {
    pub fn new(carrier: PeerCarrier) -> Result<Self> {
        Self::limited(carrier, u64::MAX)
    }

    /// The same with workers that have a spill limit.
    pub fn limited(carrier: PeerCarrier, spill_limit: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let dir = tempfile::tempdir()?;
        // Clients whose ids are UUIDs, and others whose ids are strings.
        let day = random_day(Shape { seed: 4, clients: 25, rows: 4, files: 1, heavy: 0 });
        day.write(&dir.path().join("day"), DATE)?;
        let inside = Arc::new(InProcess::default());
        let traffic = Arc::new(Traffic::default());
        let peers: Arc<dyn Peers> = match carrier {
            PeerCarrier::InProcess => inside.clone(),
            PeerCarrier::Flight => Arc::new(Client::new(traffic.clone(), Dialer::plain())),
        };
        let (sender, reports) = mpsc::channel();
        let start = |id: &str| -> Result<Worker> {
            let config = WorkerConfig {
                id: WorkerId::parse(id)?,
                slots: 1,
                memory_limit: 128 << 20,
                memory_option: 128 << 20,
                spill_dir: dir.path().into(),
                spill_limit,
            };
            let sender = sender.clone();
            let report = Box::new(move |report| sender.send(report).expect("a test that waits"));
            let footers = Arc::new(Footers::new(1 << 20));
            Ok(Worker::start(config, peers.clone(), footers, runtime.handle().clone(), report)?)
        };
        let (holder, reader) = (start("holder")?, start("reader")?);
        let stores = [&holder, &reader].map(|worker| (worker.id().clone(), worker.store().clone()));
        inside.set(HashMap::from(stores));
        let config = ServeConfig { streams: 8, in_flight: 32 << 20 };
        let server = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            Ok::<_, anyhow::Error>(serve(
                holder.store().clone(),
                listener,
                config,
                traffic,
                Security::plain(),
            )?)
        })?;
        // No memory is left for outputs.
        let budget = holder.store().budget();
        let full = std::iter::from_fn(|| {
            let left = budget.limit().saturating_sub(budget.used());
            if left == 0 { None } else { budget.try_reserve(left as usize) }
        });
        let _full = full.collect();
        let address = server.address().to_string();
        Ok(Rig {
            dir,
            reports,
            holder,
            reader,
            address,
            attempts: 0,
            _server: server,
            _full,
            _runtime: runtime,
        })
    }

    fn run(
        &mut self,
        at_reader: bool,
        stage: u32,
        index: u32,
        work: Work,
        inputs: Option<ReduceInputs>,
    ) -> Result<(u32, Outcome<Done>)> {
        self.attempts += 1;
        let attempt = v1::Attempt { job: "job".into(), stage, index, attempt: self.attempts };
        let head = v1::TaskDispatch {
            attempt: Some(attempt),
            dataset: "addon_aggregates".into(),
            key: KEY.to_vec(),
            work: Some(work),
            has_options: false,
        };
        let worker = if at_reader { &self.reader } else { &self.holder };
        ensure!(
            worker.run(Dispatch { head, inputs: inputs.map(Arc::new), options: Default::default() })?,
            "no slot is free"
        );
        let report = self.reports.recv_timeout(Duration::from_secs(60))?;
        ensure!(report.attempt.attempt == self.attempts, "{report:?}");
        let outcome = report.outcome.map(|result| result.result.expect("a result"));
        Ok((self.attempts, outcome))
    }

    fn pieces(&self, table: usize) -> Result<Vec<v1::InputPiece>> {
        let folder = self.dir.path().join("day").join(TABLES[table]);
        let files = table::data_files(&folder.join(format!("submission_date_s3={DATE}")))?;
        let piece = |file: PathBuf| {
            let metadata = SerializedFileReader::new(std::fs::File::open(&file)?)?;
            Ok(v1::InputPiece {
                url: file.to_str().context("the path is not UTF-8")?.into(),
                size: file.metadata()?.len(),
                row_groups: (0..metadata.num_row_groups() as u32).collect(),
                ..v1::InputPiece::default()
            })
        };
        files.into_iter().map(piece).collect()
    }

    /// Maps a table at the holder.
    pub fn map_table(&mut self, table: usize, partitions: u32, most_sums: u32) -> Result<v1::MapResult> {
        Ok(self.map_as(table, table as u32, partitions, most_sums)?.result)
    }

    fn map_as(&mut self, table: usize, index: u32, partitions: u32, most_sums: u32) -> Result<Map> {
        let pieces = self.pieces(table)?;
        let work = v1::MapWork { table: table as u32, partitions, pieces, most_sums, folder: None };
        match self.run(false, 0, index, Work::Map(work), None)? {
            (attempt, Ok(Done::Map(result))) => Ok(Map { table, index, attempt, result }),
            other => bail!("{other:?}"),
        }
    }

    /// Maps both tables at the holder, into one partition.
    pub fn map(&mut self) -> Result<Vec<Map>> {
        (0..TABLES.len()).map(|table| self.map_as(table, table as u32, 1, 1)).collect()
    }

    /// The sums of all map outputs.
    pub fn expected(&self, maps: &[Map]) -> Option<v1::Sums> {
        maps.iter().try_fold(v1::Sums::default(), |all, map| {
            let sums = map.result.sums.as_ref()?;
            let checksum = all.checksum.wrapping_add(*sums.checksums.first()?);
            Some(v1::Sums { rows: all.rows + sums.rows.first()?, checksum })
        })
    }

    fn reduce_at(
        &mut self,
        at_reader: bool,
        maps: &[Map],
        expected: Option<v1::Sums>,
    ) -> Result<(u32, Outcome<v1::ReduceResult>)> {
        let mut tables = vec![v1::TableOutputs::default(); TABLES.len()];
        for map in maps {
            let output = v1::OutputRef { location: 0, stage: 0, index: map.index, attempt: map.attempt };
            tables[map.table].outputs.push(output);
        }
        let inputs = ReduceInputs { tables, locations: vec![self.place()] };
        let work = v1::ReduceWork { row_group_rows: 10, expected, ..v1::ReduceWork::default() };
        let (attempt, outcome) = self.run(at_reader, 1, 0, Work::Reduce(work), Some(inputs))?;
        let result = match outcome {
            Ok(Done::Reduce(result)) => Ok(result),
            Ok(other) => bail!("{other:?}"),
            Err(failure) => Err(failure),
        };
        Ok((attempt, result))
    }

    fn place(&self) -> v1::Location {
        v1::Location { worker: "holder".into(), address: self.address.clone() }
    }

    /// Reduces at the reader, which drops its state afterwards.
    pub fn reduce(&mut self, maps: &[Map], expected: Option<v1::Sums>) -> Result<Outcome<v1::ReduceResult>> {
        let (_, outcome) = self.reduce_at(true, maps, expected)?;
        self.reader.release(&JobId::parse("job")?);
        Ok(outcome)
    }

    /// Reduces at the holder, and returns the outcome.
    pub fn reduce_there(&mut self, maps: &[Map]) -> Result<Outcome<v1::ReduceResult>> {
        Ok(self.reduce_at(false, maps, None)?.1)
    }

    /// Spilled bytes of the holder.
    pub fn spilled_bytes(&self) -> u64 {
        self.holder.store().spill().used()
    }

    /// Reduces at the holder.
    pub fn reduce_and_keep(&mut self, maps: &[Map]) -> Result<v1::ReduceResult> {
        let (attempt, outcome) = self.reduce_at(false, maps, None)?;
        ensure!(attempt == self.attempts, "the last attempt is the one that is kept");
        let result = outcome?;
        ensure!(result.row_group_rows.len() > 1, "more than one row group: {result:?}");
        Ok(result)
    }

    /// Copies all row groups of the holder's reduce output into a part file, at the reader.
    pub fn write(
        &mut self,
        reduced: &v1::ReduceResult,
    ) -> Result<(Outcome<v1::WriteResult>, Option<Vec<u8>>)> {
        let held = self.holder.store().inventory();
        let reduce = |(attempt, _): &&(AttemptId, v1::TaskResult)| attempt.task.stage.0 == 1;
        let (attempt, _) = held.iter().find(reduce).context("no reduce output")?;
        let output = v1::OutputRef { location: 0, stage: 1, index: 0, attempt: attempt.attempt };
        let piece = v1::RowGroups {
            output: Some(output),
            row_groups: (0..reduced.row_group_rows.len() as u32).collect(),
            rows: reduced.row_group_rows.clone(),
            checksums: reduced.checksums.clone(),
            crc32s: reduced.crc32s.clone(),
            footer_crc32: Some(reduced.footer_crc32),
        };
        let path = self.dir.path().join("part.parquet");
        let work = v1::WriteWork {
            target: Some(Target::Path(path.display().to_string())),
            pieces: vec![piece],
            totals: reduced.totals.clone(),
            locations: vec![self.place()],
            ..v1::WriteWork::default()
        };
        let (_, outcome) = self.run(true, 2, 0, Work::Write(work), None)?;
        let result = match outcome {
            Ok(Done::Write(result)) => Ok(result),
            Ok(other) => bail!("{other:?}"),
            Err(failure) => Err(failure),
        };
        Ok((result, std::fs::read(path).ok()))
    }

    /// The holder's spill files, the oldest first.
    pub fn spilled(&self) -> Result<Vec<PathBuf>> {
        let mut files = vec![];
        for folder in std::fs::read_dir(self.dir.path())? {
            let folder = folder?.path();
            if folder.to_string_lossy().ends_with("-holder") {
                for entry in std::fs::read_dir(folder)? {
                    let entry = entry?;
                    if let Ok(number) = entry.file_name().to_string_lossy().parse::<u32>() {
                        files.push((number, entry.path()));
                    }
                }
            }
        }
        files.sort();
        Ok(files.into_iter().map(|(_, path)| path).collect())
    }
}
