//! Benchmarks of the scan of one row group: single columns, and all columns as the mappers use them. Items are rows, or
//! elements of lists where these are delivered.
//!
//! Run them with `cargo bench -p tally-scan --bench scan`. The files are in memory. They contain each encoding that is
//! common in the data: dictionary pages, plain pages, and column chunks that change from the first to the second. Not
//! here: the kernels of the tables (the dataset's benchmarks), whole jobs (`tests/bench`).

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, Fields};
use divan::Bencher;
use divan::counter::ItemsCount;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{WriterProperties, WriterVersion};
use tally_common::budget::Budget;
use tally_dataset::addon_aggregates::{ADDONS, AddonAggregates, MAIN_SUMMARY};
use tally_dataset::{
    Batch, Bits, ColumnKind, ColumnSpec, Dataset, DatasetError, ElementKind, MapRun, Mapper, Missing,
    TableSpec, uuid,
};
use tally_scan::footer::Footers;
use tally_scan::{InputFile, OpenFile, RowGroup, ScanContext};
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

const ROWS: usize = 1 << 18;
const CLIENTS: usize = 20_000;
const ADDON_IDS: usize = 20_000;

/// The encoding of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    Dictionary,
    Plain,
    /// The dictionary exceeds its limit within the column chunk.
    Mixed,
}

const ENCODINGS: [Pages; 3] = [Pages::Dictionary, Pages::Plain, Pages::Mixed];

/// Panics on errors, because a wrong result would give a wrong figure.
fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// Random numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 8) as usize % end
    }

    fn flags(&mut self, of_thousand: usize) -> BooleanArray {
        (0..ROWS).map(|_| (self.below(2000) > 0).then(|| self.below(1000) < of_thousand)).collect()
    }
}

/// Client ids, each repeated in `run` consecutive rows, like the rows of a ping.
fn clients(numbers: &mut Numbers, run: usize) -> StringArray {
    let ids: Vec<String> = (0..CLIENTS)
        .map(|at| (at as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
        .map(|id| String::from_utf8_lossy(&uuid::format(id)).into_owned())
        .collect();
    let mut pings = (0..).map(|_| numbers.below(CLIENTS));
    let mut of_ping = 0;
    (0..ROWS)
        .map(|row| {
            if row % run == 0 {
                of_ping = pings.next().unwrap_or(0);
            }
            ids[of_ping].as_str()
        })
        .map(Some)
        .collect()
}

/// Half of the rows have one of eight system add-ons, the rest any add-on.
fn addon_ids(numbers: &mut Numbers) -> StringArray {
    (0..ROWS)
        .map(|_| match numbers.below(2) {
            0 => Some(format!("system{}@mozilla.org", numbers.below(8))),
            _ => Some(format!("addon{}@example.org", numbers.below(ADDON_IDS))),
        })
        .collect()
}

fn addons_table() -> RecordBatch {
    let mut numbers = Numbers(1);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("client_id", Arc::new(clients(&mut numbers, 7))),
        ("addon_id", Arc::new(addon_ids(&mut numbers))),
        ("foreign_install", Arc::new(numbers.flags(220))),
        ("is_system", Arc::new(numbers.flags(500))),
        ("user_disabled", Arc::new(numbers.flags(120))),
        ("app_disabled", Arc::new(numbers.flags(50))),
    ];
    must(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    ))
}

/// Lists of 0 to 13 add-ons, each with its install day, some of them null.
fn active_addons(numbers: &mut Numbers) -> ListArray {
    let lengths: Vec<usize> = (0..ROWS).map(|_| numbers.below(14)).collect();
    let days: Int32Array = (0..lengths.iter().sum())
        .map(|_| (numbers.below(1000) > 0).then(|| 15_000 + numbers.below(2000) as i32))
        .collect();
    let fields = Fields::from(vec![Field::new("install_day", DataType::Int32, true)]);
    let addons = StructArray::new(fields.clone(), vec![Arc::new(days)], None);
    let element = Arc::new(Field::new("element", DataType::Struct(fields), true));
    ListArray::new(element, OffsetBuffer::from_lengths(lengths), Arc::new(addons), None)
}

fn main_table() -> RecordBatch {
    let mut numbers = Numbers(2);
    let dates: Int64Array =
        (0..ROWS).map(|_| (numbers.below(100) > 0).then(|| 15_000 + numbers.below(2000) as i64)).collect();
    let themes: StringArray = (0..ROWS)
        .map(|_| match numbers.below(100) {
            0..3 => None,
            3..88 => Some("{972ce4c6-7e08-4474-a285-3208198ce6fd}".to_string()),
            _ => Some(format!("theme{}@personas.mozilla.org", numbers.below(500))),
        })
        .collect();
    let field = Fields::from(vec![Field::new("addon_id", DataType::Utf8, true)]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("client_id", Arc::new(clients(&mut numbers, 1))),
        ("profile_creation_date", Arc::new(dates)),
        ("active_theme", Arc::new(StructArray::new(field, vec![Arc::new(themes)], None))),
        ("active_addons", Arc::new(active_addons(&mut numbers))),
    ];
    must(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    ))
}

/// Pings whose lists have 25 add-ons on average.
fn pings_table(pings: usize) -> (RecordBatch, usize) {
    let mut numbers = Numbers(3);
    let lengths: Vec<usize> = (0..pings).map(|_| numbers.below(51)).collect();
    let elements = lengths.iter().sum();
    let ids: StringArray = (0..elements)
        .map(|_| match numbers.below(3) {
            0 => Some(format!("addon{}@example.org", numbers.below(ADDON_IDS / 10))),
            _ => Some(format!("system{}@mozilla.org", numbers.below(20))),
        })
        .collect();
    let mut flags = |of_thousand: usize| -> ArrayRef {
        let flag = |_| (numbers.below(2000) > 0).then(|| numbers.below(1000) < of_thousand);
        Arc::new((0..elements).map(flag).collect::<BooleanArray>())
    };
    let (foreign, system) = (flags(220), flags(500));
    let days: Int32Array = (0..elements)
        .map(|_| (numbers.below(1000) > 0).then(|| 15_000 + numbers.below(2000) as i32))
        .collect();
    let named: Vec<(&str, ArrayRef)> = vec![
        ("addon_id", Arc::new(ids)),
        ("foreign_install", foreign),
        ("is_system", system),
        ("install_day", Arc::new(days)),
    ];
    let field = |(name, array): (&str, ArrayRef)| (Field::new(name, array.data_type().clone(), true), array);
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = named.into_iter().map(field).unzip();
    let fields = Fields::from(fields);
    let addons = StructArray::new(fields.clone(), arrays, None);
    let element = Arc::new(Field::new("element", DataType::Struct(fields), true));
    let lists = ListArray::new(element, OffsetBuffer::from_lengths(lengths), Arc::new(addons), None);
    let column: (&str, ArrayRef, bool) = ("active_addons", Arc::new(lists), true);
    (must(RecordBatch::try_from_iter_with_nullable([column])), elements)
}

/// A file of one row group in memory, and the context of its scan.
struct Scene {
    runtime: Runtime,
    context: ScanContext,
    file: Arc<OpenFile>,
    metadata: Arc<ParquetMetaData>,
}

impl Scene {
    fn new(table: &RecordBatch, pages: Pages, version: WriterVersion) -> Self {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_writer_version(version)
            .set_max_row_group_row_count(Some(ROWS))
            .set_dictionary_enabled(pages != Pages::Plain)
            .set_dictionary_page_size_limit(if pages == Pages::Mixed { 256 << 10 } else { 16 << 20 })
            .build();
        let mut bytes = Vec::new();
        let mut writer = must(ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties)));
        must(writer.write(table));
        must(writer.close());
        let runtime =
            must(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build());
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("part-0.parquet");
        must(runtime.block_on(store.put(&path, bytes.into())));
        let file = must(runtime.block_on(InputFile::head(store, path, "part-0.parquet".into())));
        let metadata = must(runtime.block_on(Footers::new(1 << 20).get(&file))).metadata;
        assert_eq!(metadata.num_row_groups(), 1);
        let context = ScanContext {
            io: runtime.handle().clone(),
            window: 1 << 20,
            whole: 0,
            budget: Budget::new(256 << 20),
            cancelled: Default::default(),
            counters: Arc::default(),
            fetched: Arc::default(),
            rows: Arc::default(),
        };
        let file = Arc::new(must(OpenFile::open(file)));
        Scene { runtime, context, file, metadata }
    }

    fn scan(&self, table: &TableSpec, mapper: &mut dyn Mapper) {
        let _inside = self.runtime.enter();
        let (file, metadata) = (self.file.clone(), self.metadata.clone());
        let group = must(RowGroup::open(&self.context, file, metadata, 0, 0, table));
        must(group.read(mapper, &mut |_| Ok(false)));
    }
}

/// Consumes rows and keeps nothing, so that only decoding is measured.
#[derive(Default)]
struct Nothing {
    rows: usize,
    elements: usize,
}

impl Mapper for Nothing {
    fn select(&self, _batch: &Batch, _selected: &mut Bits) {}

    fn resolve(&mut self, _column: usize, values: &[&[u8]], symbols: &mut [u32]) -> Result<(), DatasetError> {
        for (value, symbol) in values.iter().zip(symbols) {
            *symbol = value.len() as u32;
        }
        Ok(())
    }

    fn consume(&mut self, batch: &Batch, selected: &Bits) {
        self.rows += batch.rows;
        self.elements += batch.elements();
        divan::black_box(selected.count());
    }

    fn footprint(&self) -> usize {
        0
    }

    fn is_empty(&self) -> bool {
        true
    }

    fn flush(&mut self) -> Result<MapRun, DatasetError> {
        Err(DatasetError::Malformed("it keeps nothing".into()))
    }
}

/// The table's specification with only one column.
fn only(table: usize, column: &str) -> TableSpec {
    let dataset = AddonAggregates::new();
    let mut spec = dataset.tables()[table].clone();
    spec.columns.retain(|found| found.path[0] == column);
    assert_eq!(spec.columns.len(), 1);
    spec
}

fn decode(bencher: Bencher, scene: &Scene, spec: &TableSpec) {
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        let mut mapper = Nothing::default();
        scene.scan(spec, &mut mapper);
        assert_eq!(mapper.rows, ROWS);
    });
}

const V1: WriterVersion = WriterVersion::PARQUET_1_0;

#[divan::bench(args = ENCODINGS)]
fn text_client_id(bencher: Bencher, pages: Pages) {
    decode(bencher, &Scene::new(&addons_table(), pages, V1), &only(ADDONS, "client_id"));
}

#[divan::bench(args = ENCODINGS)]
fn text_addon_id(bencher: Bencher, pages: Pages) {
    decode(bencher, &Scene::new(&addons_table(), pages, V1), &only(ADDONS, "addon_id"));
}

/// Bit-packed values in version 1 of the format, runs in version 2; levels with few nulls.
#[divan::bench(args = [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0])]
fn boolean(bencher: Bencher, version: WriterVersion) {
    decode(bencher, &Scene::new(&addons_table(), Pages::Dictionary, version), &only(ADDONS, "is_system"));
}

#[divan::bench(args = [Pages::Dictionary, Pages::Plain])]
fn date(bencher: Bencher, pages: Pages) {
    decode(bencher, &Scene::new(&main_table(), pages, V1), &only(MAIN_SUMMARY, "profile_creation_date"));
}

#[divan::bench(args = [Pages::Dictionary, Pages::Plain])]
fn list_min(bencher: Bencher, pages: Pages) {
    decode(bencher, &Scene::new(&main_table(), pages, V1), &only(MAIN_SUMMARY, "active_addons"));
}

const ELEMENTS: [(&[&str], ElementKind); 4] = [
    (&["active_addons", "addon_id"], ElementKind::Text),
    (&["active_addons", "foreign_install"], ElementKind::Bool),
    (&["active_addons", "is_system"], ElementKind::Bool),
    (&["active_addons", "install_day"], ElementKind::Int),
];

/// Elements of lists: one field, or all. Fields after the first one need no repetition levels.
#[divan::bench(args = ["addon_id", "is_system", "install_day", "all"], consts = [false, true])]
fn elements<const DICTIONARY: bool>(bencher: Bencher, name: &str) {
    let pages = if DICTIONARY { Pages::Dictionary } else { Pages::Plain };
    let (table, elements) = pings_table(1 << 15);
    let scene = Scene::new(&table, pages, V1);
    let columns = ELEMENTS.iter().filter(|(path, _)| [path[1], "all"].contains(&name));
    let column = |&(path, kind): &(&'static [&'static str], ElementKind)| {
        let kind = ColumnKind::Element(kind);
        ColumnSpec { path, kind, filter: false, missing: Missing::Fails }
    };
    let spec = TableSpec { name: "pings", help: "", columns: columns.map(column).collect() };
    bencher.counter(ItemsCount::new(elements)).bench_local(|| {
        let mut mapper = Nothing::default();
        scene.scan(&spec, &mut mapper);
        assert_eq!(mapper.elements, elements);
    });
}

/// Reads all columns into the dataset's mapper, which is empty at the start.
fn map(bencher: Bencher, scene: &Scene, table: usize) {
    let dataset = AddonAggregates::new();
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        let mut mapper = dataset.mapper(table, 100, None);
        scene.scan(&dataset.tables()[table], &mut *mapper);
        assert!(!mapper.is_empty());
        mapper
    });
}

#[divan::bench(args = ENCODINGS)]
fn map_addons(bencher: Bencher, pages: Pages) {
    map(bencher, &Scene::new(&addons_table(), pages, V1), ADDONS);
}

#[divan::bench(args = ENCODINGS)]
fn map_main_summary(bencher: Bencher, pages: Pages) {
    map(bencher, &Scene::new(&main_table(), pages, V1), MAIN_SUMMARY);
}
