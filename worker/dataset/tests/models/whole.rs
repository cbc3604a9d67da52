//! Mappers and reducers together, for any division of a day: the rows equal the reference. Their order and passes depend
//! only on the input rows and their shards.

use std::cell::RefCell;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use proptest::prelude::*;
use tally_dataset::addon_aggregates::AddonAggregates;
use tally_dataset::interner::Interner;
use tally_dataset::{Dataset, Pass, Size, StringDictionary, Totals};

use crate::days::{Cut, Day, Output, map};
use crate::numbers::Numbers;
use crate::reference::{Row, aggregate};

/// A process's numbering of strings.
#[derive(Default)]
pub struct Process(RefCell<Interner>);

impl Process {
    /// A numbering that has seen other strings, and those of these outputs in another order.
    pub fn with_history(outputs: &[Output], numbers: &mut Numbers) -> Self {
        let process = Process::default();
        for output in outputs.iter().rev() {
            for run in output.runs.iter().rev() {
                for text in run.dictionary.iter().flatten() {
                    let mut interner = process.0.borrow_mut();
                    match numbers.below(3) {
                        0 => interner.intern(&numbers.next().to_le_bytes()).unwrap(),
                        _ => interner.intern(text).unwrap(),
                    };
                }
            }
        }
        process
    }

    pub fn codes(&self, run: &tally_dataset::MapRun) -> Vec<u32> {
        let mut interner = self.0.borrow_mut();
        run.dictionary.iter().flatten().map(|text| interner.intern(text).unwrap()).collect()
    }
}

impl StringDictionary for Process {
    fn append(&self, code: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.borrow().get(code));
    }

    fn crc32s(&self, codes: &mut [u32]) {
        codes.iter_mut().for_each(|code| *code = self.0.borrow().crc32(*code));
    }
}

/// The rows of each pass over each partition, in order, and the totals.
fn reduce(outputs: &[Output], partitions: u32, passes: u32, texts: &Process) -> (Vec<Vec<Row>>, Totals) {
    let dataset = AddonAggregates::new();
    let (mut all, mut totals) = (vec![], Totals::default());
    for partition in 0..partitions as usize {
        for index in 0..passes {
            let mut reducer = dataset.reducer(Pass { index, of: passes }, &[Size::default(); 2]);
            for output in outputs {
                for run in &output.runs {
                    let (from, to) = (run.offsets[partition] as usize, run.offsets[partition + 1] as usize);
                    let batch = run.batch.slice(from, to - from);
                    reducer.merge(output.table, &batch, &texts.codes(run), texts).unwrap();
                }
            }
            let mut mine = vec![];
            let mut sink = |batch: RecordBatch| {
                rows(&batch, &mut mine);
                Ok(())
            };
            totals += &reducer.finish(texts, &mut sink).unwrap();
            for (id, ..) in &mine {
                assert_eq!(crc32fast::hash(id.as_bytes()) % partitions, partition as u32, "{id}");
            }
            all.push(mine);
        }
    }
    (all, totals)
}

fn rows(batch: &RecordBatch, out: &mut Vec<Row>) {
    let ids = batch.column(0).as_string::<i32>();
    let foreign = batch.column(1).as_boolean();
    let long = |column: usize| batch.column(column).as_primitive::<Int64Type>();
    let day = batch.column(5).as_primitive::<Int32Type>();
    for row in 0..batch.num_rows() {
        out.push((
            ids.value(row).to_owned(),
            foreign.is_valid(row).then(|| foreign.value(row)),
            long(2).value(row),
            long(3).value(row),
            long(4).is_valid(row).then(|| long(4).value(row)),
            day.is_valid(row).then(|| day.value(row)),
            long(6).is_valid(row).then(|| long(6).value(row)),
        ));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_day_is_the_references_and_its_order_no_process_knows(seed: u64) {
        let mut numbers = Numbers(seed);
        let day = Day::random(&mut numbers);
        let cut = Cut::random(&mut numbers);
        let outputs = map(&day, cut);
        let passes = if numbers.one_in(3) { 1 } else { 1 + numbers.below(6) as u32 };
        let (first, totals) = reduce(&outputs, cut.partitions, passes, &Process::default());

        let (expect, clients, custom) = aggregate(&day);
        let mut all: Vec<Row> = first.iter().flatten().cloned().collect();
        all.sort();
        prop_assert_eq!(&all, &expect, "{:?}, {} passes", cut, passes);
        let expect = Totals { rows: expect.len() as u64, counters: vec![clients, custom] };
        prop_assert_eq!(totals, expect);

        let other = Process::with_history(&outputs, &mut numbers);
        prop_assert_eq!(&first, &reduce(&outputs, cut.partitions, passes, &other).0, "other codes, {:?}", cut);
        // Attempts of map tasks on workers with other memory.
        let outputs = map(&day, cut.with_other_flushes(&mut numbers));
        let other = Process::with_history(&outputs, &mut numbers);
        prop_assert_eq!(&first, &reduce(&outputs, cut.partitions, passes, &other).0, "other flushes, {:?}", cut);
    }
}
