//! Files of a day as a job reads them: the planner reads their footers, then every row group is read into a mapper.

use std::cell::RefCell;
use std::sync::Arc;

use arrow_array::RecordBatch;
use tally_common::budget::Budget;
use tally_common::stores::urls;
use tally_coordinator::job::JobSpec;
use tally_coordinator::plan;
use tally_dataset::addon_aggregates::{ADDONS, MAIN_SUMMARY};
use tally_dataset::{Dataset, dataset};
use tally_proto::v1;
use tally_scan::footer::Footers;
use tally_scan::{InputFile, OpenFile, RowGroup, ScanContext};
use tally_tests::scratch::Scratch;
use tokio::runtime::Runtime;

use crate::seeds;

/// Bytes for pages and dictionaries.
pub const BUDGET: u64 = 16 << 20;
/// Bytes per read.
const WINDOW: u64 = 64 << 10;
const DATE: &str = "20170227";

/// A kind of file: a table of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `addons` of `addon_aggregates`.
    Addons,
    /// `main_summary` of `addon_aggregates`.
    MainSummary,
    /// The pings of `addon_aggregates_v2`, whose list elements are read one by one.
    Pings,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 3] = [Kind::Addons, Kind::MainSummary, Kind::Pings];

    /// The beginning of the names of its valid files.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Addons => "addons",
            Kind::MainSummary => "main_summary",
            Kind::Pings => "pings",
        }
    }

    fn dataset(self) -> &'static str {
        if self == Kind::Pings { "addon_aggregates_v2" } else { "addon_aggregates" }
    }

    /// The kinds of the tables of its dataset, in their order.
    fn tables(self) -> &'static [Kind] {
        if self == Kind::Pings { &[Kind::Pings] } else { &[Kind::Addons, Kind::MainSummary] }
    }

    /// The number of its table.
    fn table(self) -> usize {
        match self {
            Kind::Addons => ADDONS,
            Kind::MainSummary => MAIN_SUMMARY,
            Kind::Pings => 0,
        }
    }
}

/// The result of reading a file: the partials of its flushes, and the strings of their codes.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// In file order.
    pub runs: Vec<(RecordBatch, Vec<Vec<u8>>)>,
}

impl Read {
    /// The rows, formatted and sorted, because a mapper gives them in any order.
    pub fn rows(&self) -> Vec<String> {
        let batches = self.runs.iter().map(|(batch, _)| batch);
        let row = |batch: &RecordBatch, at| format!("{:?}", batch.slice(at, 1).columns());
        let mut rows: Vec<_> =
            batches.flat_map(|batch| (0..batch.num_rows()).map(move |at| row(batch, at))).collect();
        rows.sort_unstable();
        rows
    }
}

/// A day on disk. One of its files has untrusted contents.
pub struct Reader {
    kind: Kind,
    folder: Scratch,
    runtime: Runtime,
    dataset: Arc<dyn Dataset>,
    spec: JobSpec,
}

impl Reader {
    /// A day with a valid file in each table. The file of `kind` is replaced by untrusted ones.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn new(kind: Kind) -> Result<Self, Box<dyn std::error::Error>> {
        let folder = Scratch::new("tally hostile ")?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
        let dataset = dataset(kind.dataset()).ok_or("no dataset")?;
        let place = |name: &str| folder.path().join(name).display().to_string();
        let asked = v1::JobSpec {
            dataset: dataset.name().into(),
            date: DATE.into(),
            inputs: dataset.tables().iter().map(|table| place(table.name)).collect(),
            output: place("out"),
            target_file_size: 1 << 20,
            shard_bytes: None,
            partitions: dataset.folders().is_none().then_some(4),
            expectations: vec![],
            ready_marker: None,
            options: vec![],
        };
        let reader = Reader { kind, spec: JobSpec::asked(asked)?, folder, runtime, dataset };
        for table in kind.tables() {
            let good = seeds::files(table.name()).into_iter().next().ok_or("no good file")?;
            reader.put(*table, &good)?;
        }
        Ok(reader)
    }

    fn put(&self, kind: Kind, bytes: &[u8]) -> std::io::Result<()> {
        let name = self.dataset.tables()[kind.table()].name;
        let mut day = self.folder.path().join(name).join(format!("submission_date_s3={DATE}"));
        if let Some(folders) = self.dataset.folders() {
            day.push(format!("{}=7", folders.column));
        }
        std::fs::create_dir_all(&day)?;
        std::fs::write(day.join("part-0.parquet"), bytes)
    }

    /// Reads these bytes as the file.
    ///
    /// # Errors
    /// The error of the planner or the scan, which names the file.
    pub fn read(&self, bytes: &[u8]) -> Result<Read, String> {
        let table = self.kind.table();
        self.put(self.kind, bytes).map_err(|error| error.to_string())?;
        let footers = Arc::new(Footers::new(1 << 20));
        let plan = self.runtime.block_on(plan::plan(&self.spec, &*self.dataset, &footers, 1, false, true));
        let plan = plan.map_err(|error| error.to_string())?;
        let context = ScanContext {
            io: self.runtime.handle().clone(),
            window: WINDOW,
            whole: 0,
            budget: Budget::new(BUDGET),
            cancelled: Default::default(),
            counters: Arc::default(),
            fetched: Arc::default(),
            rows: Arc::default(),
        };
        let mut read = Read { runs: vec![] };
        for task in plan.tasks.iter().filter(|task| task.work.table as usize == table) {
            let done = self.map(&context, &footers, &task.work, &mut read);
            assert_eq!(context.budget.used(), 0, "reserved memory is released");
            done?;
        }
        Ok(read)
    }

    fn map(
        &self,
        context: &ScanContext,
        footers: &Footers,
        work: &v1::MapWork,
        read: &mut Read,
    ) -> Result<(), String> {
        let number = work.table as usize;
        let table = &self.dataset.tables()[number];
        let mut mapper = self.dataset.mapper(number, work.partitions, work.folder);
        for piece in &work.pieces {
            let (store, path) = urls::open(&piece.url).map_err(|error| error.to_string())?;
            let (name, etag) = (piece.url.clone(), piece.etag.clone());
            let footer = Some(piece.footer_bytes).filter(|&bytes| bytes > 0);
            let file = InputFile { store, path, name, size: piece.size, etag, footer };
            let metadata =
                self.runtime.block_on(footers.get(&file)).map_err(|error| error.to_string())?.metadata;
            let file = Arc::new(OpenFile::open(file).map_err(|error| error.to_string())?);
            for &group in &piece.row_groups {
                let number = group as usize;
                let group = RowGroup::open(context, file.clone(), metadata.clone(), number, number, table);
                let group = group.map_err(|error| error.to_string())?;
                group.read(&mut *mapper, &mut |_| Ok(false)).map_err(|error| error.to_string())?;
            }
        }
        let run = mapper.flush().map_err(|error| error.to_string())?;
        read.runs.push((run.batch, run.dictionary.iter().flatten().map(<[u8]>::to_vec).collect()));
        Ok(())
    }
}

thread_local! {
    static READERS: RefCell<Vec<Reader>> = const { RefCell::new(vec![]) };
}

fn check(kind: Kind, bytes: &[u8]) {
    READERS.with_borrow_mut(|readers| {
        let at = readers.iter().position(|reader| reader.kind == kind).unwrap_or_else(|| {
            readers.push(Reader::new(kind).expect("a day"));
            readers.len() - 1
        });
        if let Err(error) = readers[at].read(bytes) {
            assert!(error.contains("part-0.parquet"), "it does not name the file: {error}");
        }
    });
}

/// Reads a file of `addons`.
pub fn addons(bytes: &[u8]) {
    check(Kind::Addons, bytes);
}

/// Reads a file of `main_summary`.
pub fn main_summary(bytes: &[u8]) {
    check(Kind::MainSummary, bytes);
}

/// Reads a file of pings.
pub fn pings(bytes: &[u8]) {
    check(Kind::Pings, bytes);
}
