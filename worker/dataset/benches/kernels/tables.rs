//! Ids, tables, partitions, and a mapper's flush and a reducer of `addon_aggregates`. Items are ids, keys or strings.
//!
//! Tables are looked up at sizes that fit the caches and at sizes that do not. Not here: elements (`pings`).

use std::hint::black_box;

use arrow_array::Array;
use divan::Bencher;
use divan::counter::ItemsCount;
use tally_dataset::addon_aggregates::{ADDONS, AddonAggregates};
use tally_dataset::interner::Interner;
use tally_dataset::keys::KeyTable;
use tally_dataset::pair_set::PairSet;
use tally_dataset::partition::Partitioner;
use tally_dataset::{
    BATCH_ROWS, Batch, Bits, Column, Dataset, MapRun, Mapper, Pass, Size, StringDictionary, uuid,
};

use crate::support::{Numbers, count_rows, must};

/// What one call of a kernel takes.
const CALL: usize = 4096;
/// Entries of tables: in the first two levels of cache, in the third, in memory.
const SIZES: [usize; 3] = [4_096, 262_144, 4_194_304];

/// `CALL` of these values, any of them.
fn some<T: Copy>(numbers: &mut Numbers, values: &[T]) -> Vec<T> {
    (0..CALL).map(|_| values[numbers.below(values.len())]).collect()
}

#[divan::bench]
fn uuid_parse(bencher: Bencher) {
    let texts: Vec<_> = Numbers(1).ids(CALL).into_iter().map(uuid::format).collect();
    bencher.counter(ItemsCount::new(CALL)).bench_local(|| {
        texts.iter().filter_map(|text| uuid::parse(black_box(text))).fold(0, |sum, id| sum ^ id)
    });
}

#[divan::bench]
fn uuid_format(bencher: Bencher) {
    let ids = Numbers(2).ids(CALL);
    bencher.counter(ItemsCount::new(CALL)).bench_local(|| {
        for &id in &ids {
            black_box(uuid::format(black_box(id)));
        }
    });
}

/// Look-ups of clients that are there.
#[divan::bench(args = SIZES)]
fn clients_known(bencher: Bencher, size: usize) {
    let mut numbers = Numbers(3);
    let ids = numbers.ids(size);
    let mut table = KeyTable::default();
    let mut found = vec![0; size];
    must(table.intern_uuids(&ids, &mut found));
    let mut found = vec![0; CALL];
    bencher
        .with_inputs(|| some(&mut numbers, &ids))
        .input_counter(|asked| ItemsCount::new(asked.len()))
        .bench_local_refs(|asked| must(table.intern_uuids(asked, &mut found)));
    assert_eq!(table.len(), size);
}

/// A table filled from empty, with all its growing.
#[divan::bench(args = SIZES, max_time = 3)]
fn clients_new(bencher: Bencher, size: usize) {
    let ids = Numbers(4).ids(size);
    let mut found = vec![0; size];
    bencher.counter(ItemsCount::new(size)).bench_local(|| {
        let mut table = KeyTable::default();
        must(table.intern_uuids(&ids, &mut found));
        table.len()
    });
}

fn pairs(numbers: &mut Numbers, size: usize) -> Vec<u64> {
    // As mappers pack them: client, code, kind.
    (0..size)
        .map(|at| (at as u64 / 4) << 32 | (numbers.next() % 20_000) << 2 | (numbers.next() % 3))
        .collect()
}

/// Inserting pairs that are there.
#[divan::bench(args = SIZES)]
fn pairs_known(bencher: Bencher, size: usize) {
    let mut numbers = Numbers(5);
    let keys = pairs(&mut numbers, size);
    let mut set = PairSet::default();
    set.insert_many(&keys, |_| ());
    bencher
        .with_inputs(|| some(&mut numbers, &keys))
        .input_counter(|asked| ItemsCount::new(asked.len()))
        .bench_local_refs(|asked| set.insert_many(asked, |at| panic!("{at} is new")));
}

/// A set filled from empty, with all its growing.
#[divan::bench(args = SIZES, max_time = 3)]
fn pairs_new(bencher: Bencher, size: usize) {
    let keys = pairs(&mut Numbers(6), size);
    bencher.counter(ItemsCount::new(size)).bench_local(|| {
        let mut set = PairSet::default();
        set.insert_many(&keys, |_| ());
        set.len()
    });
}

#[divan::bench]
fn partition_of_uuid(bencher: Bencher) {
    let ids = Numbers(7).ids(CALL);
    let partitioner = Partitioner::new(100);
    bencher
        .counter(ItemsCount::new(CALL))
        .bench_local(|| ids.iter().fold(0, |sum, &id| sum ^ partitioner.of_uuid(black_box(id))));
}

/// Look-ups of add-on ids, 20,000 distinct.
#[divan::bench]
fn interner_known(bencher: Bencher) {
    let mut numbers = Numbers(8);
    let texts: Vec<String> = (0..20_000).map(|at| format!("addon{at}@example{}.org", at % 97)).collect();
    let mut interner = Interner::default();
    for text in &texts {
        must(interner.intern(text.as_bytes()));
    }
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    bencher
        .with_inputs(|| some(&mut numbers, &refs))
        .input_counter(|asked| ItemsCount::new(asked.len()))
        .bench_local_refs(|asked| {
            asked.iter().fold(0, |sum, text| sum ^ must(interner.intern(text.as_bytes())))
        });
}

/// Values of a column with nulls, put where their rows are.
#[divan::bench(args = [1.0, 0.999, 0.5])]
fn bits_spread(bencher: Bencher, valid: f64) {
    let mut numbers = Numbers(9);
    let mut mask = Bits::default();
    let mut packed = Bits::default();
    for _ in 0..BATCH_ROWS {
        let there = (numbers.next() as f64) < valid * u64::MAX as f64;
        mask.push_run(there, 1);
        if there {
            packed.push_run(numbers.next().is_multiple_of(2), 1);
        }
    }
    let mut out = Bits::default();
    bencher.counter(ItemsCount::new(BATCH_ROWS)).bench_local(|| {
        out.clear();
        out.push_spread(&packed, &mask, 0, BATCH_ROWS);
        out.len()
    });
}

const PARTITIONS: u32 = 10;

/// A mapper of `addons` that has seen each of so many clients with four add-ons of 20,000.
fn filled(clients: usize) -> Box<dyn Mapper> {
    let mut numbers = Numbers(10);
    let mut mapper = AddonAggregates::new().mapper(ADDONS, PARTITIONS, None);
    let texts: Vec<_> = numbers.ids(clients).into_iter().map(uuid::format).collect();
    let addons: Vec<_> = (0..20_000).map(|at| format!("addon{at}@example.org")).collect();
    let mut codes = vec![0; addons.len()];
    let refs: Vec<_> = addons.iter().map(|text| text.as_bytes()).collect();
    must(mapper.resolve(1, &refs, &mut codes));
    for some in texts.chunks(BATCH_ROWS / 4) {
        let refs: Vec<_> = some.iter().map(|text| text.as_slice()).collect();
        let mut ids = vec![0; some.len()];
        must(mapper.resolve(0, &refs, &mut ids));
        let rows = some.len() * 4;
        let client = ids.iter().flat_map(|&id| [id; 4]).collect();
        let addon = (0..rows).map(|_| codes[numbers.below(codes.len())]).collect();
        let mut all = Bits::default();
        all.push_run(true, rows);
        let mut none = Bits::default();
        none.push_run(false, rows);
        let flags = Column::Bool { valid: all.clone(), value: none };
        let mut columns = vec![Column::Text { codes: client }, Column::Text { codes: addon }];
        columns.extend(std::iter::repeat_n(flags, 4));
        mapper.consume(&Batch { rows, columns, ends: vec![] }, &all);
    }
    mapper
}

/// A mapper's partials, put in order. Items are clients.
#[divan::bench(args = [10_000, 100_000], sample_count = 20)]
fn map_flush(bencher: Bencher, clients: usize) {
    bencher
        .counter(ItemsCount::new(clients))
        .with_inputs(|| filled(clients))
        .bench_local_values(|mut mapper| must(mapper.flush()));
}

struct AddonNames;

impl StringDictionary for AddonNames {
    fn append(&self, _code: u32, _out: &mut Vec<u8>) {
        unreachable!("all clients are canonical UUIDs");
    }

    fn crc32s(&self, _codes: &mut [u32]) {
        unreachable!("all clients are canonical UUIDs");
    }
}

/// A partition's partials to rows, from an empty table. Items are clients.
#[divan::bench(args = [10_000, 100_000], sample_count = 20)]
fn reduce(bencher: Bencher, clients: usize) {
    let run: MapRun = must(filled(clients).flush());
    let codes: Vec<u32> = (0..run.dictionary.len() as u32).collect();
    let sizes = [Size { rows: clients as u64, items: clients as u64 * 4 }, Size::default()];
    bencher.counter(ItemsCount::new(clients)).bench_local(|| {
        let mut reducer = AddonAggregates::new().reducer(Pass::WHOLE, &sizes);
        must(reducer.merge(ADDONS, &run.batch, &codes, &AddonNames));
        let rows = count_rows(&mut *reducer, &AddonNames);
        assert_eq!(rows, clients);
        rows
    });
}
