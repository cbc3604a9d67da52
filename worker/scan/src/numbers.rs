//! Numbers of footers and page headers that cannot be true: each is an error, with little memory.
//!
//! Not here: whole files, and their planning (`tests/hostile`).

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::basic::Compression;
use parquet::data_type::{Int32Type, Int64Type};
use parquet::file::metadata::ParquetMetaDataBuilder;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tally_common::budget::Budget;
use tally_dataset::{
    Batch, Bits, ColumnKind, ColumnSpec, DatasetError, ElementKind, MapRun, Mapper, Missing, TableSpec,
};
use tokio::runtime::Runtime;

use crate::error::Fault;
use crate::footer::Footers;
use crate::shapes::{
    Chunk, DICTIONARY, FLAG, FeedKind, LONG, PLAIN, TEXT, dictionary, header, int, longs, read, texts, v1,
    v1_details, v2_details, with,
};
use crate::{InputFile, OpenFile, RowGroup, ScanContext, ScanError};

const MAX: i64 = i32::MAX as i64;

/// Numbers that no size and no count can have.
const WRONG: [i64; 5] = [-1, i32::MIN as i64, MAX + 1, i64::MIN, i64::MAX];

/// Reads a chunk of three values with little memory. Returns what is damaged.
fn damage(what: &str, chunk: &Chunk, bytes: &[u8]) -> String {
    let mut said = None;
    for feed in [FeedKind::Disk, FeedKind::Windows, FeedKind::Whole] {
        let result = read(chunk, bytes, feed);
        let Err(Fault::Corrupt(why)) = result else { panic!("{what}, {feed:?}: {result:?}") };
        assert!(said.replace(why.clone()).is_none_or(|before| before == why), "{what}, {feed:?}: {why}");
    }
    said.unwrap()
}

#[test]
fn numbers_of_page_headers_that_cannot_be_true_are_errors() {
    let body = longs(&[5, 6, 7]);
    let size = body.len() as i64;
    let page = |sizes, values| [header(0, sizes, &[], v1_details(values, PLAIN)), body.clone()].concat();
    let two = |def: i64, rep: i64| {
        let counts = [int(1, 3), int(1, 0), int(1, 3), int(1, PLAIN), int(1, def), int(1, rep)];
        [header(3, [size; 2], &[], (5, counts.concat())), body.clone()].concat()
    };
    let mut cases = vec![
        ("more bytes than the chunk", page([size, MAX], 3), "extends beyond its column chunk"),
        ("a byte more than the chunk", page([size, size + 1], 3), "extends beyond its column chunk"),
        ("more values than the chunk", page([size; 2], 4), "a page has 4 values where its chunk has 3 more"),
        ("the most values", page([size; 2], MAX), "values where its chunk has 3 more"),
        ("fewer values", page([size; 2], 2), "its pages end with 1 values missing"),
        ("no values", page([size; 2], 0), "its pages end with 3 values missing"),
        ("levels of all bytes", two(size, 1), "levels are longer than their page"),
        ("levels of the most bytes", two(MAX, MAX), "levels are longer than their page"),
    ];
    for wrong in WRONG {
        let said = if i32::try_from(wrong).is_ok() { "a size is negative" } else { "out of range" };
        cases.extend([
            ("an uncompressed size", page([wrong, size], 3), said),
            ("a compressed size", page([size, wrong], 3), said),
            ("a number of values", page([size; 2], wrong), said),
            ("bytes of definition levels", two(wrong, 0), said),
            ("bytes of repetition levels", two(0, wrong), said),
        ]);
    }
    for (what, bytes, expected) in &cases {
        let said = damage(what, &Chunk::of(LONG, 3, bytes), bytes);
        assert!(said.contains(expected), "{what}: {said}");
    }
    // Pages that are not compressed have the size of their bytes.
    let bytes = page([MAX, size], 3);
    let values = read(&Chunk::of(LONG, 3, &bytes), &bytes, FeedKind::Disk).unwrap();
    assert_eq!(values, ["5", "6", "7"].map(|text| Some(text.to_string())));
}

/// The sizes are compared before memory is taken: the budget is much smaller.
#[test]
fn a_page_states_no_more_bytes_than_its_codec_can_give() {
    for (codec, most) in [
        (Compression::SNAPPY, 22),
        (Compression::LZ4_RAW, 256),
        (Compression::ZSTD(Default::default()), 1 << 15),
    ] {
        for stated in [MAX, 50 * most + 1] {
            let bytes = [header(0, [stated, 50], &[], v1_details(3, PLAIN)), vec![7; 50]].concat();
            let mut chunk = Chunk::of(LONG, 3, &bytes);
            chunk.compression = codec;
            let said = damage("", &chunk, &bytes);
            let expected = format!("a page of 50 bytes cannot inflate to the {stated} bytes");
            assert!(said.contains(&expected), "{codec}: {said}");
        }
    }
}

#[test]
fn numbers_of_dictionaries_that_cannot_be_true_are_errors() {
    let indices = v1(3, DICTIONARY, &[1, 6, 0]);
    for values in [2, 3, MAX] {
        let bytes = [dictionary(values, &longs(&[-7])), indices.clone()].concat();
        let said = damage("", &Chunk::of(LONG, 3, &bytes), &bytes);
        assert!(said.contains("more values than bytes"), "{values}: {said}");
        let bytes = [dictionary(values, &texts(&["abc"])), indices.clone()].concat();
        let said = damage("", &Chunk::of(TEXT, 3, &bytes), &bytes);
        assert!(said.contains("more values than bytes") || said.contains("end too soon"), "{values}: {said}");
    }
    for wrong in WRONG {
        let bytes = [dictionary(wrong, &longs(&[-7])), indices.clone()].concat();
        damage("", &Chunk::of(LONG, 3, &bytes), &bytes);
    }
}

/// Lengths and counts within the values of a page.
#[test]
fn numbers_of_values_that_cannot_be_true_are_errors() {
    let most = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let most_long = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    // Blocks of so many values, miniblocks, values; the first value is 0.
    let delta = |block: &[u8], miniblocks: &[u8], values: &[u8]| [block, miniblocks, values, &[0]].concat();
    for (what, column, encoding, body) in [
        ("the length of a string", TEXT, PLAIN, vec![0xff; 4]),
        ("the length of a string, positive as a signed number", TEXT, PLAIN, vec![0xff, 0xff, 0xff, 0x7f]),
        ("a run of indices", TEXT, DICTIONARY, [&[1][..], &most[..]].concat()),
        ("the width of indices", TEXT, DICTIONARY, vec![33, 6, 0]),
        ("a run of booleans", FLAG, 3, [&[6, 0, 0, 0][..], &[0xff; 6]].concat()),
        ("the bytes of booleans", FLAG, 3, vec![0xff, 0xff, 0xff, 0xff, 0xff]),
        ("blocks of deltas", LONG, 5, delta(&most_long, &[1], &[3])),
        ("miniblocks", LONG, 5, delta(&[0x80, 1], &most_long, &[3])),
        ("no miniblocks", LONG, 5, delta(&[0x80, 1], &[0], &[3])),
        ("deltas", LONG, 5, delta(&[0x80, 1], &[4], &most_long)),
        ("the bits of deltas", LONG, 5, [&delta(&[0x80, 1], &[4], &[3])[..], &[0, 65, 0, 0, 0, 9]].concat()),
        ("lengths of strings", TEXT, 6, delta(&[0x80, 1], &[4], &most_long)),
        ("a negative length", TEXT, 6, [&[0x80, 1, 4, 1, 1][..], b"x"].concat()),
        ("a prefix before the first string", TEXT, 7, [0x80, 1, 4, 1, 8, 0x80, 1, 4, 1, 2, b'x'].to_vec()),
    ] {
        let bytes = v1(3, encoding, &body);
        damage(what, &Chunk::of(column, 3, &bytes), &bytes);
        // Without levels, the body is the same in version 2.
        let bytes = with(3, &body, v2_details(3, encoding, 0, &[]));
        damage(what, &Chunk::of(column, 3, &bytes), &bytes);
    }
}

/// A file of a row group with seven rows, each with a number and a list of one element.
fn file() -> Vec<u8> {
    let message = "message m { required int64 x; repeated group l { required int32 day; } }";
    let schema = Arc::new(parse_message_type(message).unwrap());
    let mut writer = SerializedFileWriter::new(vec![], schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[1; 7], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int32Type>().write_batch(&[1; 7], Some(&[1; 7]), Some(&[0; 7])).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

/// Counts rows.
#[derive(Default)]
struct Rows(usize);

impl Mapper for Rows {
    fn select(&self, _: &Batch, _: &mut Bits) {}

    fn resolve(&mut self, _: usize, _: &[&[u8]], _: &mut [u32]) -> Result<(), DatasetError> {
        Ok(())
    }

    fn consume(&mut self, batch: &Batch, _: &Bits) {
        self.0 += batch.rows;
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

/// Reads the columns of a file whose footer states another number of rows. Returns the number of rows that are read.
fn read_rows(rows: i64, columns: &[ColumnSpec]) -> Result<usize, ScanError> {
    let runtime = Runtime::new().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    runtime.block_on(store.put(&Path::from("x"), file().into())).unwrap();
    let input = runtime.block_on(InputFile::head(store, Path::from("x"), "s3://b/x".into())).unwrap();
    let metadata = runtime.block_on(Footers::new(0).get(&input)).unwrap().metadata;
    let group = metadata.row_group(0).clone().into_builder().set_num_rows(rows).build().unwrap();
    let metadata = ParquetMetaDataBuilder::new(metadata.file_metadata().clone()).add_row_group(group).build();
    let context = ScanContext {
        io: runtime.handle().clone(),
        window: 16,
        whole: 0,
        budget: Budget::new(1 << 20),
        cancelled: Default::default(),
        counters: Arc::default(),
        fetched: Arc::default(),
        rows: Arc::default(),
    };
    let table = TableSpec { name: "t", help: "", columns: columns.to_vec() };
    let open = Arc::new(OpenFile::open(input)?);
    let mut mapper = Rows::default();
    let group = RowGroup::open(&context, open, Arc::new(metadata), 0, 9, &table)?;
    group.read(&mut mapper, &mut |_| Ok(false))?;
    Ok(mapper.0)
}

fn column(path: &'static [&'static str], kind: ColumnKind) -> ColumnSpec {
    ColumnSpec { path, kind, filter: false, missing: Missing::IsNull }
}

fn rows_error(rows: i64, columns: &[ColumnSpec]) -> String {
    let error = read_rows(rows, columns).unwrap_err();
    assert!(matches!(error, ScanError::Corrupt { .. }), "{error}");
    error.to_string()
}

/// Without the needed columns, nothing but the footer tells the rows.
#[test]
fn a_row_group_with_a_negative_number_of_rows_is_damaged_and_not_empty() {
    let missing =
        [column(&["y"], ColumnKind::Int), column(&["k", "z"], ColumnKind::Element(ElementKind::Bool))];
    assert_eq!(read_rows(0, &missing).unwrap(), 0);
    assert_eq!(read_rows(5, &missing).unwrap(), 5);
    for rows in [-1, -7, i64::MIN] {
        for columns in [&[column(&["x"], ColumnKind::Int)][..], &missing] {
            let said = rows_error(rows, columns);
            assert!(said.contains(&format!("s3://b/x, row group 9: it has {rows} rows")), "{said}");
        }
    }
}

#[test]
fn a_column_has_as_many_rows_as_its_row_group() {
    let number = column(&["x"], ColumnKind::Int);
    let lists = [ColumnKind::ListMinInt32, ColumnKind::Element(ElementKind::Int)];
    let lists = lists.map(|kind| column(&["l", "day"], kind));
    for rows in [1, 6, 8, i64::MAX] {
        let said = rows_error(rows, std::slice::from_ref(&number));
        assert!(said.contains(&format!("column x: 7 values in a row group of {rows} rows")), "{said}");
        for list in &lists {
            let said = rows_error(rows, std::slice::from_ref(list));
            let more = if rows < 7 { "more" } else { "fewer" };
            assert!(said.contains(&format!("column l.day: it has {more} rows than its row group")), "{said}");
        }
    }
    for list in lists {
        assert_eq!(read_rows(7, &[number.clone(), list]).unwrap(), 7);
    }
}
