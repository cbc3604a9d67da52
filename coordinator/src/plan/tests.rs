//! Plans of a dataset with a second partition column, and the limits of plans.
//!
//! Not here: which folder a path has (`folders`).

use std::collections::BTreeMap;
use std::path::Path as FsPath;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::data_type::{Int32Type, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use prost::Message;
use tally_dataset::addon_aggregates::{ADDONS, AddonAggregates};
use tally_dataset::{
    ColumnKind, ColumnSpec, Dataset, DatasetError, Fingerprint, FolderSpec, Mapper, Missing, Pass, Reducer,
    Size, TableSpec, TotalSpec, Totals,
};
use tally_proto::MESSAGE_BYTES;
use tally_proto::limits::LIST_BYTES;
use tally_scan::InputFile;

use super::*;
use crate::job::check_partitions;
use crate::test_jobs;

/// The folder of the planned day.
const DAY: &str = "submission_date_s3=20180101";

/// A dataset of one table with one column, and a folder per sample.
struct Samples {
    inner: AddonAggregates,
    tables: Vec<TableSpec>,
}

impl Samples {
    fn new() -> Self {
        let column =
            ColumnSpec { path: &["n"], kind: ColumnKind::Int, filter: false, missing: Missing::Fails };
        let table = TableSpec { name: "pings", help: "", columns: vec![column] };
        Samples { inner: AddonAggregates::new(), tables: vec![table] }
    }
}

impl Dataset for Samples {
    fn name(&self) -> &'static str {
        "samples"
    }

    fn tables(&self) -> &[TableSpec] {
        &self.tables
    }

    fn folders(&self) -> Option<FolderSpec> {
        Some(FolderSpec { column: "sample_id", count: 100 })
    }

    fn partition_column(&self) -> &'static str {
        self.inner.partition_column()
    }

    fn key_column(&self) -> &'static str {
        self.inner.key_column()
    }

    fn totals(&self) -> &[TotalSpec] {
        self.inner.totals()
    }

    fn partial_schema(&self, _: usize) -> SchemaRef {
        self.inner.partial_schema(ADDONS)
    }

    fn mapper(&self, _: usize, partitions: u32, folder: Option<u32>) -> Box<dyn Mapper> {
        self.inner.mapper(ADDONS, partitions, folder)
    }

    fn reducer(&self, pass: Pass, sizes: &[Size]) -> Box<dyn Reducer> {
        self.inner.reducer(pass, sizes)
    }

    fn reducer_bytes(&self, sizes: &[Size]) -> u64 {
        self.inner.reducer_bytes(sizes)
    }

    fn partial_checksums(
        &self,
        _: usize,
        batch: &RecordBatch,
        offsets: &[u32],
    ) -> Result<Vec<u64>, DatasetError> {
        self.inner.partial_checksums(ADDONS, batch, offsets)
    }

    fn fingerprint(&self, batch: &RecordBatch, all: &mut Fingerprint) -> Result<(), DatasetError> {
        self.inner.fingerprint(batch, all)
    }

    fn output_schema(&self) -> SchemaRef {
        self.inner.output_schema()
    }

    fn reduced_schema(&self) -> SchemaRef {
        self.inner.reduced_schema()
    }

    fn constants(&self, totals: &Totals) -> Result<Vec<ArrayRef>, DatasetError> {
        self.inner.constants(totals)
    }

    fn bytes_per_row(&self) -> u64 {
        self.inner.bytes_per_row()
    }
}

/// A file of one column, with that many rows.
fn parquet(column: &str, rows: usize) -> Vec<u8> {
    let schema = parse_message_type(&format!("message m {{ required {column}; }}")).unwrap();
    let mut bytes = vec![];
    let mut writer = SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut chunk = group.next_column().unwrap().unwrap();
    if column.starts_with("int32") {
        chunk.typed::<Int32Type>().write_batch(&vec![7; rows], None, None).unwrap();
    } else {
        chunk.typed::<Int64Type>().write_batch(&vec![7; rows], None, None).unwrap();
    }
    chunk.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

fn job(inputs: Vec<String>) -> JobSpec {
    let (dataset, date) = ("samples".into(), "20180101".into());
    JobSpec { dataset, date, day_folder: DAY.into(), inputs, ..test_jobs::job() }
}

/// Plans a day of these files: a path below the day, a column, and rows.
async fn planned(root: &FsPath, files: &[(&str, &str, usize)]) -> Result<InputPlan, PlanError> {
    for &(below, column, rows) in files {
        let path = root.join(DAY).join(below);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, parquet(column, rows)).unwrap();
    }
    let job = job(vec![root.display().to_string()]);
    plan(&job, &Samples::new(), &Arc::new(Footers::new(1 << 20)), 2, true, false).await
}

/// The file names of each folder's tasks.
fn names(plan: &InputPlan) -> BTreeMap<u32, Vec<String>> {
    let mut all: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for task in &plan.tasks {
        let names = task.work.pieces.iter().map(|piece| piece.url.rsplit('/').next().unwrap().to_string());
        all.entry(task.work.folder.unwrap()).or_default().extend(names);
    }
    all
}

const LONG: &str = "int64 n";
const INT: &str = "int32 n";

#[tokio::test]
async fn a_shard_has_the_files_of_one_folder() {
    let place = tempfile::tempdir().unwrap();
    let files = [
        ("sample_id=7/a", LONG, 1),
        ("sample_id=07/b", LONG, 2),
        ("sample_id=0/deep/c", LONG, 4),
        ("sample_id=99/d", LONG, 8),
        ("sample_id=99/e", LONG, 16),
        ("sample_id=100/f", INT, 32),
        ("sample_id=__HIVE_DEFAULT_PARTITION__/g", LONG, 64),
    ];
    let plan = planned(place.path(), &files).await.unwrap();
    let expected = [(0, vec!["c"]), (7, vec!["b", "a"]), (99, vec!["d", "e"])];
    let expected: BTreeMap<u32, Vec<String>> =
        expected.into_iter().map(|(at, names)| (at, names.into_iter().map(String::from).collect())).collect();
    assert_eq!(names(&plan), expected);
    assert_eq!((plan.tasks.len(), plan.partitions, plan.files, plan.rows), (3, 100, 7, 31));
    assert!(plan.tasks.iter().all(|task| task.work.partitions == 100));
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert!(plan.warnings[0].contains("sample_id=100/f") && plan.warnings[0].contains("/g"));
    let record = plan.record(&JobId::parse("j").unwrap());
    assert_eq!(names(&InputPlan::try_from(record).unwrap()), expected, "the journal keeps the folders");
}

#[tokio::test]
async fn a_day_of_ignored_files_has_a_task_without_rows() {
    let place = tempfile::tempdir().unwrap();
    let plan =
        planned(place.path(), &[("sample_id=100/a", LONG, 3), ("sample_id=x/b", LONG, 3)]).await.unwrap();
    assert_eq!((plan.tasks.len(), plan.partitions, plan.rows), (1, 100, 0));
    let work = &plan.tasks[0].work;
    assert_eq!((work.folder, work.pieces.len()), (Some(0), 1));
    assert!(work.pieces[0].row_groups.is_empty());
    assert!(!plan.tasks[0].is_deferred());
}

#[tokio::test]
async fn files_that_do_not_fit_together_are_errors() {
    let place = tempfile::tempdir().unwrap();
    let error = planned(place.path(), &[("sample_id=1/a", LONG, 1), ("b", LONG, 1)]).await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("submission_date_s3=20180101/b is not in a folder sample_id=N"), "{error}");
    let place = tempfile::tempdir().unwrap();
    let error = planned(place.path(), &[("sample_id=1/a", LONG, 1), ("sample_id=1.5/b", LONG, 1)]).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("/b is in the folder sample_id=1.5, which is no whole number"), "{error}");
    let place = tempfile::tempdir().unwrap();
    let files = [("sample_id=1/a", LONG, 1), ("sample_id=2/b", INT, 1)];
    let error = planned(place.path(), &files).await.unwrap_err().to_string();
    for part in ["pings: the column n", "32 bits", "64 bits", "sample_id=1/a", "sample_id=2/b"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_job_may_not_ask_for_other_partitions_than_there_are_folders() {
    for asked in [None, Some(1), Some(100)] {
        assert!(check_partitions(&AddonAggregates::new(), asked).is_ok());
    }
    assert!(check_partitions(&Samples::new(), None).is_ok());
    assert!(check_partitions(&Samples::new(), Some(100)).is_ok());
    let error = check_partitions(&Samples::new(), Some(50)).unwrap_err().to_string();
    assert!(error.contains("samples") && error.contains("100") && error.contains("sample_id"), "{error}");
}

#[tokio::test]
async fn small_files_in_stores_are_planned_by_folder_and_size() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut files = vec![];
    for (at, sample) in [5, 6, 5, 200].into_iter().enumerate() {
        let path = Path::from(format!("submission_date_s3=20180101/sample_id={sample}/{at}"));
        store.put(&path, parquet(LONG, 1).into()).await.unwrap();
        let name = format!("s3://b/{path}");
        files.push(InputFile::head(store.clone(), path, name).await.unwrap());
    }
    let dataset = Samples::new();
    let job = job(vec![]);
    let folders = Folders::of(&job, &dataset, "pings").unwrap();
    let divided = folders.divide(files).unwrap();
    assert_eq!(divided.ignored.len(), 1);
    let footers = Arc::new(Footers::new(1 << 20));
    let inspected = inspect(divided, &footers, &dataset.tables()[0], true).await.unwrap();
    assert!(inspected.deferred);
    let found: Vec<(Option<u32>, usize)> =
        by_folder(Some(folders), inspected.work).map(|(folder, files)| (folder, files.len())).collect();
    assert_eq!(found, [(Some(5), 2), (Some(6), 1)]);
    // Ignored files are never deferred, because workers would read their rows.
    let ignored = Divided { read: vec![], ignored: vec![file_of(&store).await] };
    let inspected = inspect(ignored, &footers, &dataset.tables()[0], true).await.unwrap();
    let groups: Vec<&[shards::RowGroupWork]> =
        inspected.work.iter().map(|work| &work.row_groups[..]).collect();
    assert!(!inspected.deferred && groups.len() == 1 && groups[0].is_empty());
}

async fn file_of(store: &Arc<dyn ObjectStore>) -> InputFile {
    let path = Path::from("submission_date_s3=20180101/sample_id=200/3");
    InputFile::head(store.clone(), path, "s3://b/3".into()).await.unwrap()
}

#[test]
fn a_plan_that_no_journal_record_can_hold_is_refused() {
    for bytes in [0, MAX_PLAN_BYTES - 1, MAX_PLAN_BYTES] {
        assert!(check_size(1, bytes).is_ok());
    }
    let error = check_size(9, MAX_PLAN_BYTES + 1).unwrap_err().to_string();
    assert!(error.contains("9 files") && error.contains("combine small files"), "{error}");
}

#[test]
fn the_sums_of_a_map_task_fit_into_a_message_at_the_limit_of_partitions() {
    let partitions = 10_000u32;
    let run = |first| v1::Run { first, count: 1 };
    let sums = v1::PartitionSums {
        partitions: (0..partitions).map(run).collect(),
        rows: vec![u64::MAX; partitions as usize],
        checksums: vec![u64::MAX; partitions as usize],
    };
    let column = v1::ColumnPresence {
        found: u64::MAX,
        missing: u64::MAX,
        missing_rows: u64::MAX,
        example: "x".repeat(4096),
        unfit: u64::MAX,
        unfit_example: "x".repeat(8192),
        narrow_example: "x".repeat(4096),
        wide_example: "x".repeat(4096),
    };
    let presence = v1::Presence { with_rows: vec![column.clone(); 16], without_rows: vec![column; 16] };
    let footers = v1::Footers { rows: u64::MAX, presence: Some(presence), file_bytes: u64::MAX };
    let result = v1::MapResult { sums: Some(sums), footers: Some(footers), ..Default::default() };
    assert!(result.encoded_len() < LIST_BYTES && LIST_BYTES < MESSAGE_BYTES, "{}", result.encoded_len());
}
