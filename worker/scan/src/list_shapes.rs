//! Fields of the elements of lists in pages that are encoded by hand: a page may end anywhere within a row, and levels
//! may be wrong.
//!
//! Not here: whole files of other writers (`tests/files/elements.rs`).

use proptest::prelude::*;
use tally_dataset::Bits;

use crate::columns::BoolReader;
use crate::cursor::{Cursor, Wanted};
use crate::encoded::hybrid_run;
use crate::error::Fault;
use crate::lists::Lists;
use crate::shapes::{Chunk, FeedKind, PLAIN, int, levels, read_pages, v1, with};

const LIST: &str =
    "optional group l (LIST) { repeated group list { optional group element { optional boolean x; } } }";
const ELEMENT_DEF: i16 = 2;
const VALUE: u32 = 4;

/// An entry of a list column: its repetition level, its definition level, its value.
#[derive(Debug, Clone, Copy)]
struct Entry {
    rep: u32,
    def: u32,
    value: bool,
}

/// A null list, or elements; a null element has no value, as a null field.
type Row = Option<Vec<(bool, Option<bool>)>>;

fn entries(rows: &[Row]) -> Vec<Entry> {
    let entry = |rep, def, value| Entry { rep, def, value };
    let mut entries = vec![];
    for row in rows {
        match row.as_deref() {
            None => entries.push(entry(0, 0, false)),
            Some([]) => entries.push(entry(0, 1, false)),
            Some(elements) => entries.extend(elements.iter().enumerate().map(|(at, &(null, value))| {
                let def = match value {
                    Some(_) => VALUE,
                    None if null => 2,
                    None => 3,
                };
                entry(u32::from(at > 0), def, value == Some(true))
            })),
        }
    }
    entries
}

/// The values of the elements of each row.
fn expected(rows: &[Row]) -> Vec<Vec<Option<bool>>> {
    rows.iter().map(|row| row.iter().flatten().map(|(_, value)| *value).collect()).collect()
}

fn hybrid(values: impl Iterator<Item = u32>, width: usize, packed: bool) -> Vec<u8> {
    let values: Vec<u32> = values.collect();
    let mut out = vec![];
    match packed {
        true => hybrid_run(&values, width, true, &mut out),
        false => values.chunk_by(|a, b| a == b).for_each(|run| hybrid_run(run, width, false, &mut out)),
    }
    out
}

/// A page of entries.
fn page(entries: &[Entry], (v2, packed): (bool, bool)) -> Vec<u8> {
    let rep = hybrid(entries.iter().map(|entry| entry.rep), 1, packed);
    let def = hybrid(entries.iter().map(|entry| entry.def), 3, packed);
    let values: Vec<bool> =
        entries.iter().filter(|entry| entry.def == VALUE).map(|entry| entry.value).collect();
    let body: Vec<u8> = values
        .chunks(8)
        .map(|bits| (0..).zip(bits).fold(0, |byte, (at, &bit)| byte | u8::from(bit) << at))
        .collect();
    let count = entries.len() as i64;
    if !v2 {
        return v1(count, PLAIN, &[levels(&rep), levels(&def), body].concat());
    }
    let counts = [int(1, count), int(1, 0), int(1, 1), int(1, PLAIN)].concat();
    let sizes = [int(1, def.len() as i64), int(1, rep.len() as i64), vec![0x12]].concat();
    with(3, &[rep, def, body].concat(), (5, [counts, sizes].concat()))
}

/// The values of all elements, the elements of each row, the entries and elements of each batch.
type Found = (Vec<Option<bool>>, Vec<u32>, Vec<(usize, usize)>);

/// Reads a chunk in batches, as the leaf from which elements are counted, or with the entries and elements of each
/// batch that `lead` counted.
fn read(
    entries: &[Entry],
    bytes: &[u8],
    rows: usize,
    lead: Option<&[(usize, usize)]>,
) -> Result<Found, Fault> {
    let chunk = Chunk::of(LIST, entries.len(), bytes);
    read_pages(&chunk, bytes, FeedKind::Disk, |metadata, pages| {
        let cursor = Cursor::elements(pages, &metadata.column_descr_ptr(), ELEMENT_DEF);
        let mut reader = BoolReader::new(cursor);
        let (mut valid, mut value) = (Bits::default(), Bits::default());
        let (mut all, mut counts, mut batches) = (vec![], vec![], vec![]);
        let mut collect = |valid: &Bits, value: &Bits| {
            assert_eq!(valid.len(), value.len());
            all.extend((0..valid.len()).map(|at| valid.get(at).then(|| value.get(at))));
        };
        if let Some(lead) = lead {
            for &(entries, elements) in lead {
                reader.read(Wanted::Entries(entries), &mut valid, &mut value)?;
                if valid.len() != elements {
                    return Fault::corrupt("other elements");
                }
                collect(&valid, &value);
            }
            return Ok((all, counts, batches));
        }
        let mut lists = Lists::new(1);
        let mut left = rows;
        while left > 0 {
            lists.start(left.min(13), vec![]);
            reader.read(Wanted::Lists(&mut lists), &mut valid, &mut value)?;
            let ends = lists.finish()?;
            left -= ends.len();
            assert_eq!(ends.last().map(|&end| end as usize), Some(lists.elements()));
            assert_eq!(valid.len(), lists.elements());
            let starts = [0].iter().chain(&ends);
            counts.extend(ends.iter().zip(starts).map(|(end, start)| end - start));
            batches.push((lists.entries(), lists.elements()));
            collect(&valid, &value);
        }
        Ok((all, counts, batches))
    })
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let element = (any::<bool>(), prop::option::weighted(0.8, any::<bool>()));
    let row = prop::option::weighted(0.9, prop::collection::vec(element, 0..9));
    let long =
        (1..6000usize, any::<bool>()).prop_map(|(count, value)| Some(vec![(false, Some(value)); count]));
    prop::collection::vec(prop_oneof![50 => row, 1 => long], 1..60)
}

fn cut(entries: &[Entry], cuts: &[prop::sample::Index], style: (bool, bool)) -> Vec<u8> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(entries.len())).collect();
    at.extend([0, entries.len()]);
    at.sort_unstable();
    at.windows(2).flat_map(|pair| page(&entries[pair[0]..pair[1]], style)).collect()
}

proptest! {
    /// Pages of version 1 may begin within a row; those of version 2 should not, but are read, too.
    #[test]
    fn pages_may_end_anywhere_in_a_row(
        rows in rows(),
        cuts in [prop::collection::vec(any::<prop::sample::Index>(), 0..9), prop::collection::vec(any::<prop::sample::Index>(), 0..9)],
        style in any::<(bool, bool)>(),
    ) {
        let entries = entries(&rows);
        let expected = expected(&rows);
        let [first, second] = cuts.map(|cuts| cut(&entries, &cuts, style));
        let (values, counts, batches) = read(&entries, &first, rows.len(), None).unwrap();
        prop_assert_eq!(&values, &expected.concat());
        prop_assert_eq!(counts, expected.iter().map(|row| row.len() as u32).collect::<Vec<_>>());
        // Another leaf of the list, whose pages end elsewhere.
        let (values, ..) = read(&entries, &second, rows.len(), Some(&batches)).unwrap();
        prop_assert_eq!(&values, &expected.concat());
    }

    #[test]
    fn any_levels_give_a_result(
        levels in prop::collection::vec((0..2u32, 0..8u32), 1..200),
        rows in 1..100usize,
        style in any::<(bool, bool)>(),
    ) {
        let entries: Vec<Entry> = levels.into_iter().map(|(rep, def)| Entry { rep, def, value: true }).collect();
        let bytes = page(&entries, style);
        let read_rows = entries.iter().filter(|entry| entry.rep == 0).count();
        let fails = entries[0].rep != 0 || read_rows < rows;
        // Levels above the highest are elements without a value.
        prop_assert_eq!(read(&entries, &bytes, rows, None).is_err(), fails);
    }
}

#[test]
fn a_leaf_that_disagrees_with_the_others_is_corrupt() {
    let element = |count| Some(vec![(false, Some(true)); count]);
    let ours = entries(&[element(2), element(3), None]);
    let (_, _, batches) = read(&ours, &page(&ours, (false, true)), 3, None).unwrap();
    assert_eq!(batches, [(6, 5)]);
    for (other, what) in [
        (entries(&[element(2), element(2), None]), "fewer rows"),
        (entries(&[element(2), element(1), None, None, None]), "other elements"),
        (entries(&[element(2), element(4)]), "other elements"),
    ] {
        let result = read(&other, &page(&other, (false, true)), 3, Some(&batches));
        let Err(Fault::Corrupt(said)) = result else { panic!("{result:?}") };
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn batches_of_long_lists_have_few_rows() {
    let rows: Vec<Row> = [5, 40_000, 1, 0, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 0]
        .map(|count| Some(vec![(false, Some(true)); count]))
        .to_vec();
    let entries = entries(&rows);
    let bytes: Vec<u8> = entries.chunks(9000).flat_map(|part| page(part, (false, false))).collect();
    let (_, counts, batches) = read(&entries, &bytes, rows.len(), None).unwrap();
    assert_eq!(
        counts.iter().map(|&count| count as usize).collect::<Vec<_>>(),
        [5, 40_000, 1, 0, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 3000, 0]
    );
    // The last row of a batch begins within the limit, or in the entries that were decoded when it was reached.
    assert!(batches.len() > 2 && batches.iter().skip(1).all(|batch| batch.1 < 24_000), "{batches:?}");
    assert_eq!(batches.iter().map(|batch| batch.0).sum::<usize>(), entries.len());
}
