//! The mapper and the reducer of `addon_aggregates_v2` together, for any division of a folder: the rows equal the
//! reference. Their order and passes depend only on the input rows and their shards.

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use proptest::prelude::*;
use tally_dataset::addon_aggregates_v2::{AddonAggregatesV2, SAMPLES};
use tally_dataset::{Dataset, MapRun, Pass, Size, Totals};

use crate::days::{Output, Text};
use crate::groups::{GroupRow, groups};
use crate::numbers::Numbers;
use crate::pings::{FOLDER, Folder, PingCut, map_folder};
use crate::whole::Process;

/// The rows of each pass, in order, and the totals.
fn reduce(runs: &[MapRun], passes: u32, strings: &Process) -> (Vec<Vec<GroupRow>>, Totals) {
    let dataset = AddonAggregatesV2::default();
    let (mut all, mut totals) = (vec![], Totals::default());
    let items = |run: &MapRun| run.batch.column(6).as_list::<i32>().values().len() as u64;
    let rows = runs.iter().map(|run| run.batch.num_rows() as u64).sum();
    let sizes = [Size { rows, items: runs.iter().map(items).sum() }];
    for index in 0..passes {
        let mut reducer = dataset.reducer(Pass { index, of: passes }, &sizes);
        for run in runs {
            let rows = run.batch.num_rows();
            let offsets = (0..=SAMPLES).map(|at| if at > FOLDER { rows as u32 } else { 0 });
            assert_eq!(run.offsets, offsets.collect::<Vec<_>>());
            // As the engine does it: some rows at a time.
            for from in (0..rows).step_by(100) {
                let batch = run.batch.slice(from, 100.min(rows - from));
                reducer.merge(0, &batch, &strings.codes(run), strings).unwrap();
            }
        }
        assert!(passes > 1 || reducer.memory() as u64 <= dataset.reducer_bytes(&sizes) + (64 << 10));
        let mut mine = vec![];
        let mut sink = |batch: RecordBatch| {
            assert_eq!(dataset.impossible_row(&batch).unwrap(), None);
            output(&batch, &mut mine);
            Ok(())
        };
        totals += &reducer.finish(strings, &mut sink).unwrap();
        all.push(mine);
    }
    (all, totals)
}

fn output(batch: &RecordBatch, out: &mut Vec<GroupRow>) {
    let text = |column: usize, row: usize| -> Text {
        let column = batch.column(column).as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    for row in 0..batch.num_rows() {
        let sums = [4, 5, 6, 7, 8].map(|column| {
            let column = batch.column(column).as_primitive::<Int64Type>();
            assert!(column.is_valid(row));
            column.value(row)
        });
        out.push((
            [0, 1, 2, 3].map(|column| text(column, row)),
            sums,
            [9, 10].map(|column| text(column, row)),
        ));
    }
}

/// A client's rows follow one another.
fn check_order(rows: &[GroupRow]) {
    let mut ended = std::collections::HashSet::new();
    for pair in rows.windows(2).filter(|pair| pair[0].0[0] != pair[1].0[0]) {
        assert!(ended.insert(&pair[0].0[0]) && !ended.contains(&pair[1].0[0]), "{:?}", pair[1]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_folder_is_the_references_and_its_order_no_process_knows(seed: u64) {
        let mut numbers = Numbers(seed);
        let folder = Folder::random(&mut numbers);
        let cut = PingCut::random(&mut numbers);
        let runs = map_folder(&folder, cut);
        let passes = if numbers.one_in(3) { 1 } else { 1 + numbers.below(6) as u32 };
        let (first, totals) = reduce(&runs, passes, &Process::default());
        first.iter().for_each(|rows| check_order(rows));

        let (expect, clients) = groups(&folder);
        let mut all: Vec<GroupRow> = first.iter().flatten().cloned().collect();
        all.sort();
        prop_assert_eq!(&all, &expect, "{:?}, {} passes", cut, passes);
        let mut counters = vec![clients];
        counters.extend((0..5).map(|sum| expect.iter().map(|row| row.1[sum] as u64).sum::<u64>()));
        prop_assert_eq!(totals, Totals { rows: expect.len() as u64, counters });

        let history = |runs: &[MapRun]| [Output { table: 0, runs: runs.to_vec() }];
        let other = Process::with_history(&history(&runs), &mut numbers);
        prop_assert_eq!(&first, &reduce(&runs, passes, &other).0, "other codes, {:?}", cut);
        // Attempts of map tasks on workers with other memory.
        let runs = map_folder(&folder, cut.with_other_flushes(&mut numbers));
        let other = Process::with_history(&history(&runs), &mut numbers);
        prop_assert_eq!(&first, &reduce(&runs, passes, &other).0, "other flushes, {:?}", cut);
        // In another order, the rows are the same.
        let mut turned = runs;
        turned.reverse();
        let mut all: Vec<GroupRow> = reduce(&turned, passes, &other).0.into_iter().flatten().collect();
        all.sort();
        prop_assert_eq!(&all, &expect, "another order, {:?}", cut);
    }
}
