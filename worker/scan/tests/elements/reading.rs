//! Reads a file by the scan and by the Arrow reader.
//!
//! Not here: what is in the files (`writing`).

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tally_common::budget::Budget;
use tally_dataset::{
    Batch, Bits, ColumnKind, ColumnSpec, DatasetError, ElementKind, MapRun, Mapper, Missing, NULL_CODE,
    TableSpec, Width,
};
use tally_scan::footer::Footers;
use tally_scan::{InputFile, OpenFile, RowGroup, ScanContext, ScanError, resolve};

use crate::Result;

/// An element's fields, formatted: id, flag, day.
pub type Element = [Option<String>; 3];
/// The row's number, and its elements.
pub type Row = (Option<i64>, Vec<Element>);

fn table(filter: bool) -> TableSpec {
    let column = |path, kind, filter| ColumnSpec { path, kind, filter, missing: Missing::IsNull };
    TableSpec {
        name: "t",
        help: "",
        columns: vec![
            column(&["n"], ColumnKind::Int, filter),
            column(&["addons", "id"], ColumnKind::Element(ElementKind::Text), false),
            column(&["addons", "flag"], ColumnKind::Element(ElementKind::Bool), false),
            column(&["addons", "day"], ColumnKind::Element(ElementKind::Int), false),
        ],
    }
}

/// Collects the selected rows.
#[derive(Default)]
pub struct Collect {
    texts: Vec<String>,
    pub rows: Vec<Row>,
    pub widths: Vec<Width>,
    /// Selects only rows with an even number, and resolves no other strings.
    even: bool,
}

impl Mapper for Collect {
    fn select(&self, batch: &Batch, selected: &mut Bits) {
        if self.even {
            let (valid, value, _) = batch.int(0);
            let kept: Vec<bool> = (0..batch.rows).map(|row| valid.get(row) && value[row] % 2 == 0).collect();
            selected.clear();
            kept.iter().for_each(|&kept| selected.push_run(kept, 1));
        }
    }

    fn resolve(
        &mut self,
        _: usize,
        values: &[&[u8]],
        codes: &mut [u32],
    ) -> std::result::Result<(), DatasetError> {
        for (value, code) in values.iter().zip(codes) {
            *code = self.texts.len() as u32;
            self.texts.push(String::from_utf8_lossy(value).into_owned());
        }
        Ok(())
    }

    fn consume(&mut self, batch: &Batch, selected: &Bits) {
        assert_eq!(batch.ends.len(), batch.rows);
        let elements = batch.elements();
        let (numbered, number, _) = batch.int(0);
        let codes = batch.text(1);
        let (flagged, flag) = batch.bool(2);
        let (dated, day, width) = batch.int(3);
        assert_eq!([codes.len(), flagged.len(), dated.len(), day.len()], [elements; 4]);
        self.widths.push(width);
        let element = |at: usize| -> Element {
            [
                (codes[at] != NULL_CODE).then(|| self.texts[codes[at] as usize].clone()),
                flagged.get(at).then(|| flag.get(at).to_string()),
                dated.get(at).then(|| day[at].to_string()),
            ]
        };
        for row in selected.ones(0, batch.rows) {
            let from = if row > 0 { batch.ends[row - 1] } else { 0 };
            let elements = (from..batch.ends[row]).map(|at| element(at as usize)).collect();
            self.rows.push((numbered.get(row).then(|| number[row]), elements));
        }
    }

    fn footprint(&self) -> usize {
        0
    }

    fn is_empty(&self) -> bool {
        true
    }

    fn flush(&mut self) -> std::result::Result<MapRun, DatasetError> {
        Err(DatasetError::Malformed("it keeps no partials".into()))
    }
}

/// Reads a file of one row group.
pub fn scan(bytes: &[u8], mapper: &mut Collect, budget: u64) -> Result<std::result::Result<(), ScanError>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("part-7.parquet");
    runtime.block_on(store.put(&path, bytes.to_vec().into()))?;
    let file = runtime.block_on(InputFile::head(store, path, "mem://part-7.parquet".into()))?;
    let footer = runtime.block_on(Footers::new(1 << 20).get(&file))?;
    let (table, metadata) = (table(mapper.even), footer.metadata.clone());
    // As the planner does.
    let found = resolve::lookup(metadata.file_metadata().schema_descr(), &table);
    if let Err(error) = footer.check_readable(&file, found.leaves(&table)) {
        return Ok(Err(error));
    }
    if metadata.num_row_groups() == 0 {
        return Err("no row group".into());
    }
    let file = Arc::new(OpenFile::open(file)?);
    let context = ScanContext {
        io: runtime.handle().clone(),
        window: 1 << 12,
        whole: 0,
        budget: Budget::new(budget),
        cancelled: Default::default(),
        counters: Arc::default(),
        fetched: Arc::default(),
        rows: Arc::default(),
    };
    let done = RowGroup::open(&context, file, metadata, 0, 0, &table).and_then(|group| {
        // Codes are forgotten after every third batch.
        let mut batches = 0;
        group.read(mapper, &mut |_| {
            batches += 1;
            Ok(batches % 3 == 0)
        })
    });
    assert_eq!(context.budget.used(), 0, "reserved memory is released");
    Ok(done)
}

/// A field of a batch or struct, formatted; nulls if there is none.
fn texts(array: Option<&ArrayRef>, len: usize) -> Vec<Option<String>> {
    let Some(array) = array else { return vec![None; len] };
    let text = |at: usize| match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(at).to_string(),
        DataType::Binary => String::from_utf8_lossy(array.as_binary::<i32>().value(at)).into_owned(),
        DataType::Boolean => array.as_boolean().value(at).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(at).to_string(),
        _ => array.as_primitive::<Int64Type>().value(at).to_string(),
    };
    (0..len).map(|at| array.is_valid(at).then(|| text(at))).collect()
}

/// What the Arrow reader finds.
fn oracle(bytes: &[u8]) -> Result<Vec<Row>> {
    let mut rows = vec![];
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::copy_from_slice(bytes))?.build()? {
        let batch = batch?;
        let numbers = texts(batch.column_by_name("n"), batch.num_rows());
        let lists = batch.column_by_name("addons").map(|lists| lists.as_list::<i32>());
        for (row, number) in numbers.into_iter().enumerate() {
            let mut elements: Vec<Element> = vec![];
            if let Some(list) = lists.filter(|lists| lists.is_valid(row)).map(|lists| lists.value(row)) {
                let list = list.as_struct();
                let fields = ["id", "flag", "day"].map(|name| texts(list.column_by_name(name), list.len()));
                elements.extend((0..list.len()).map(|at| {
                    let field = |which: usize| fields[which][at].clone().filter(|_| list.is_valid(at));
                    [field(0), field(1), field(2)]
                }));
            }
            rows.push((number.map(|number| number.parse()).transpose()?, elements));
        }
    }
    Ok(rows)
}

/// Compares what is scanned with the oracle: all rows, and some. Returns the rows.
pub fn check(what: &str, bytes: &[u8]) -> Result<Collect> {
    let expected = oracle(bytes)?;
    for even in [true, false] {
        let mut mapper = Collect { even, ..Collect::default() };
        scan(bytes, &mut mapper, 64 << 20)?.map_err(|error| format!("{what}: {error}"))?;
        let is_kept = |row: &&Row| !even || row.0.is_some_and(|number| number % 2 == 0);
        let kept: Vec<Row> = expected.iter().filter(is_kept).cloned().collect();
        assert_eq!(mapper.rows.len(), kept.len(), "{what}");
        for (row, (found, kept)) in mapper.rows.iter().zip(&kept).enumerate() {
            assert_eq!(found, kept, "{what}, row {row}");
        }
        if !even {
            return Ok(mapper);
        }
    }
    unreachable!("the last round returns");
}
