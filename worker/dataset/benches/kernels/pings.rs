//! Kernels of `addon_aggregates_v2`: the elements of pings to partials, and these to rows. Items are elements.
//!
//! Clients send three pings with twelve elements each, of which few differ. Not here: the tables of keys (`tables`).

use arrow_array::Array;
use divan::Bencher;
use divan::counter::ItemsCount;
use tally_dataset::addon_aggregates_v2::{AddonAggregatesV2, SAMPLES};
use tally_dataset::{
    BATCH_ROWS, Batch, Bits, Column, Dataset, MapRun, Mapper, Pass, Size, StringDictionary, Width, uuid,
};

use crate::support::{Numbers, count_rows, must};

const PINGS: usize = 3;
const ELEMENTS: usize = 12;

fn bits(rows: usize, of: impl FnMut(usize) -> bool) -> Bits {
    let mut bits = Bits::default();
    (0..rows).map(of).for_each(|bit| bits.push_word(u64::from(bit), 1));
    bits
}

/// A mapper with resolved strings, and the batches of a folder in the order of a file: pings in any order.
struct Folder {
    mapper: Box<dyn Mapper>,
    batches: Vec<Batch>,
}

impl Folder {
    fn new(clients: usize) -> Self {
        let mut numbers = Numbers(1);
        let mut mapper = AddonAggregatesV2::default().mapper(0, SAMPLES, Some(0));
        let mut resolve = |column: usize, texts: &[String]| {
            let refs: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
            let mut codes = vec![0; texts.len()];
            must(mapper.resolve(column, &refs, &mut codes));
            codes
        };
        let text = |id| String::from_utf8_lossy(&uuid::format(id)).into();
        let ids: Vec<String> = numbers.ids(clients).into_iter().map(text).collect();
        let ids = resolve(0, &ids);
        let kinds = [1, 2, 3].map(|column| resolve(column, &["release".into()])[0]);
        let addons: Vec<String> = (0..20_000).map(|at| format!("addon{at}@example.org")).collect();
        let addons = resolve(5, &addons);
        let mut order: Vec<u32> = (0..clients as u32).flat_map(|client| [client; PINGS]).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, numbers.below(last + 1));
        }
        let pings = order.chunks(BATCH_ROWS);
        let batches = pings.map(|pings| batch(pings, &ids, kinds, &addons, &mut numbers)).collect();
        Folder { mapper, batches }
    }

    fn consume(&mut self) {
        for batch in &self.batches {
            self.mapper.consume(batch, &bits(batch.rows, |_| true));
        }
    }
}

fn batch(pings: &[u32], ids: &[u32], kinds: [u32; 3], addons: &[u32], numbers: &mut Numbers) -> Batch {
    let elements = pings.len() * ELEMENTS;
    // The add-ons of a client follow from its number.
    let of = |at: usize| Numbers(u64::from(pings[at / ELEMENTS]) << 8 | (at % ELEMENTS) as u64).next();
    let mut flags = |nulls: usize, shift: u32| Column::Bool {
        valid: bits(elements, |_| numbers.below(nulls) > 0),
        value: bits(elements, |at| of(at) >> shift & 3 == 0),
    };
    let (foreign, system, web) = (flags(2000, 40), flags(2000, 42), flags(100, 44));
    let text = |codes: Vec<u32>| Column::Text { codes };
    let mut columns = vec![text(pings.iter().map(|&client| ids[client as usize]).collect())];
    columns.extend(kinds.map(|code| text(vec![code; pings.len()])));
    let created = pings.iter().map(|&client| 15_000 + i64::from(client) % 2500).collect();
    let valid = bits(pings.len(), |_| numbers.below(100) > 0);
    columns.push(Column::Int { valid, value: created, width: Width::W64 });
    columns.push(text((0..elements).map(|at| addons[of(at) as usize % addons.len()]).collect()));
    columns.extend([foreign, system, web]);
    columns.push(Column::Int {
        valid: bits(elements, |_| numbers.below(1000) > 0),
        value: (0..elements).map(|at| 16_000 + (of(at) >> 50) as i64 % 900).collect(),
        width: Width::W32,
    });
    let ends = (1..=pings.len()).map(|row| (row * ELEMENTS) as u32).collect();
    Batch { rows: pings.len(), columns, ends }
}

const CLIENTS: [usize; 3] = [1_000, 10_000, 100_000];

/// From an empty mapper, with all its growing.
#[divan::bench(args = CLIENTS, sample_count = 10)]
fn map_elements(bencher: Bencher, clients: usize) {
    bencher
        .counter(ItemsCount::new(clients * PINGS * ELEMENTS))
        .with_inputs(|| Folder::new(clients))
        .bench_local_refs(Folder::consume);
}

#[divan::bench(args = CLIENTS, sample_count = 10)]
fn flush_elements(bencher: Bencher, clients: usize) {
    let filled = || {
        let mut folder = Folder::new(clients);
        folder.consume();
        folder
    };
    bencher
        .counter(ItemsCount::new(clients * PINGS * ELEMENTS))
        .with_inputs(filled)
        .bench_local_refs(|folder| must(folder.mapper.flush()));
}

struct Strings(Vec<Vec<u8>>);

impl StringDictionary for Strings {
    fn append(&self, code: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0[code as usize]);
    }

    fn crc32s(&self, codes: &mut [u32]) {
        codes.iter_mut().for_each(|code| *code = crc32fast::hash(&self.0[*code as usize]));
    }
}

#[divan::bench(args = CLIENTS, sample_count = 10)]
fn reduce_elements(bencher: Bencher, clients: usize) {
    let mut folder = Folder::new(clients);
    folder.consume();
    let run: MapRun = must(folder.mapper.flush());
    let strings = Strings(run.dictionary.iter().flatten().map(<[u8]>::to_vec).collect());
    let codes: Vec<u32> = (0..run.dictionary.len() as u32).collect();
    let sizes = [Size { rows: run.batch.num_rows() as u64, items: 0 }];
    bencher.counter(ItemsCount::new(clients * PINGS * ELEMENTS)).bench_local(|| {
        let mut reducer = AddonAggregatesV2::default().reducer(Pass::WHOLE, &sizes);
        must(reducer.merge(0, &run.batch, &codes, &strings));
        let rows = count_rows(&mut *reducer, &strings);
        assert!(rows >= clients);
        rows
    });
}
