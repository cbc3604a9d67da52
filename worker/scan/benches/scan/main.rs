//! Benchmarks of the scan of one row group: single columns, all columns of a table, and all columns as the mappers use
//! them. Items are rows, or elements of lists where these are delivered. Bytes are those of the needed column chunks,
//! uncompressed.
//!
//! Run them with `cargo bench -p tally-scan --bench scan`. The files are in memory. They contain each encoding that is
//! common in the data: dictionary pages, plain pages, and column chunks that change from the first to the second. Not
//! here: the kernels of the tables (the dataset's benchmarks), whole jobs (`tests/bench`).

mod scene;
mod tables;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use parquet::file::properties::WriterVersion;
use tally_dataset::addon_aggregates::{ADDONS, AddonAggregates, MAIN_SUMMARY};
use tally_dataset::addon_aggregates_v2::{AddonAggregatesV2, SAMPLES};
use tally_dataset::{ColumnKind, ColumnSpec, Dataset, ElementKind, Missing, TableSpec};

use scene::{Nothing, Pages, Scene};
use tables::{ROWS, addons_table, dates_table, main_table, pings_table};

fn main() {
    divan::main();
}

const ENCODINGS: [Pages; 3] = [Pages::Dictionary, Pages::Plain, Pages::Mixed];

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

/// Integers of which so many percent are null.
#[divan::bench(args = [0, 1, 10, 50, 90, 99])]
fn nulls(bencher: Bencher, percent: usize) {
    let scene = Scene::new(&dates_table(percent), Pages::Plain, V1);
    decode(bencher, &scene, &only(MAIN_SUMMARY, "profile_creation_date"));
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
    let (table, elements) = pings_table();
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

/// The tables of both versions, with the same kinds of values: strings, booleans, dates, lists.
#[derive(Debug, Clone, Copy)]
enum Table {
    Addons,
    MainSummary,
    Pings,
}

impl Table {
    const ALL: [Table; 3] = [Table::Addons, Table::MainSummary, Table::Pings];

    fn dataset(self) -> (Box<dyn Dataset>, usize) {
        match self {
            Table::Addons => (Box::new(AddonAggregates::new()), ADDONS),
            Table::MainSummary => (Box::new(AddonAggregates::new()), MAIN_SUMMARY),
            Table::Pings => (Box::<AddonAggregatesV2>::default(), 0),
        }
    }

    /// Its file, and the number of rows or elements.
    fn scene(self, pages: Pages) -> (Scene, usize) {
        let (table, items) = match self {
            Table::Addons => (addons_table(), ROWS),
            Table::MainSummary => (main_table(), ROWS),
            Table::Pings => pings_table(),
        };
        (Scene::new(&table, pages, V1), items)
    }
}

/// Decodes all columns of a table, and does nothing with them.
#[divan::bench(args = Table::ALL, consts = [0, 1, 2])]
fn columns<const PAGES: usize>(bencher: Bencher, table: Table) {
    let ((dataset, number), (scene, items)) = (table.dataset(), table.scene(ENCODINGS[PAGES]));
    let spec = &dataset.tables()[number];
    bencher.counter(ItemsCount::new(items)).counter(BytesCount::new(scene.bytes(spec))).bench_local(|| {
        let mut mapper = Nothing::default();
        scene.scan(spec, &mut mapper);
        assert_eq!(items, mapper.rows.max(mapper.elements));
    });
}

/// Reads all columns into the dataset's mapper, which is empty at the start.
#[divan::bench(args = Table::ALL, consts = [0, 1, 2])]
fn map<const PAGES: usize>(bencher: Bencher, table: Table) {
    let ((dataset, number), (scene, items)) = (table.dataset(), table.scene(ENCODINGS[PAGES]));
    let spec = &dataset.tables()[number];
    let folder = dataset.folders().map(|_| 0);
    bencher.counter(ItemsCount::new(items)).counter(BytesCount::new(scene.bytes(spec))).bench_local(|| {
        let mut mapper = dataset.mapper(number, SAMPLES, folder);
        scene.scan(spec, &mut *mapper);
        assert!(!mapper.is_empty());
        mapper
    });
}
