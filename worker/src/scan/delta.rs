//! Strings of the two delta encodings: lengths apart from bytes, and with what each shares with the
//! one before left out.
//!
//! A page of a few bytes may stand for strings of gigabytes. So strings are made some at a time, and
//! what the strings of one batch of rows take beyond an allowance comes from the budget.

use std::ops::Range;

use parquet::basic::Encoding;
use tally_dataset::BATCH_ROWS;

use super::delta_ints::DeltaInts;
use super::error::Fault;
use super::page::ALLOWED_PAGE;
use super::runs::Runs;
use crate::budget::{Budget, Reservation};

/// Bytes of strings made at a time, about.
const STEP: usize = 256 << 10;
/// Bytes reserved at a time.
const GROWTH: usize = 1 << 20;

/// Lengths decoded at a time.
const LENGTHS: usize = 256;

/// A stream of lengths.
struct Lengths {
    ints: DeltaInts,
    some: Vec<i32>,
    at: usize,
}

impl Lengths {
    fn new(ints: DeltaInts) -> Self {
        Lengths { ints, some: vec![], at: 0 }
    }

    fn next(&mut self, data: &[u8]) -> Result<usize, Fault> {
        if self.at == self.some.len() {
            self.some.clear();
            self.at = 0;
            let count = self.ints.left().clamp(1, LENGTHS as u64);
            self.ints.read(data, count as usize, &mut self.some)?;
        }
        self.at += 1;
        let length = self.some[self.at - 1];
        usize::try_from(length).map_err(|_| Fault::Corrupt(format!("a string of {length} bytes")))
    }
}

/// The strings of a page.
pub(crate) struct DeltaTexts {
    prefixes: Option<Lengths>,
    suffixes: Lengths,
    /// Where the next string's own bytes are in the page.
    at: usize,
    end: usize,
    /// Strings whose beginnings were put together; those without prefixes stay in the page.
    made: Vec<u8>,
    spans: Vec<(u32, u32)>,
}

/// The different strings of one batch of rows: their bytes, and the memory held for them, as made here
/// and as kept by whoever resolves them.
#[derive(Default)]
pub(crate) struct Made {
    bytes: usize,
    held: Vec<Reservation>,
}

impl Made {
    fn grow(&mut self, bytes: usize, budget: &Budget) -> Result<(), Fault> {
        self.bytes = self.bytes.saturating_add(bytes);
        while self.bytes > ALLOWED_PAGE + self.held.len() * GROWTH {
            match budget.reserve(GROWTH) {
                Some(more) => self.held.push(more),
                None => {
                    let what = format!("strings of {} rows or less need {} bytes", BATCH_ROWS, self.bytes);
                    return Err(Fault::Limit(what));
                }
            }
        }
        Ok(())
    }
}

/// Strings in a row.
pub(crate) struct Texts<'a> {
    bytes: &'a [u8],
    spans: &'a [(u32, u32)],
}

impl<'a> Texts<'a> {
    pub(crate) fn get(&self, at: usize) -> &'a [u8] {
        let (from, to) = self.spans[at];
        &self.bytes[from as usize..to as usize]
    }
}

impl DeltaTexts {
    /// Those in `data[body]`, of one of the two encodings.
    pub(crate) fn new(data: &[u8], encoding: Encoding, mut body: Range<usize>) -> Result<Self, Fault> {
        let mut stream = || {
            let ints = DeltaInts::new(data, body.clone())?;
            body.start = ints.clone().end(data)?;
            Ok::<_, Fault>(Lengths::new(ints))
        };
        Ok(DeltaTexts {
            prefixes: if encoding == Encoding::DELTA_BYTE_ARRAY { Some(stream()?) } else { None },
            suffixes: stream()?,
            at: body.start,
            end: body.end,
            made: vec![],
            spans: vec![],
        })
    }

    /// Puts the page behind the one of `before`, the last of whose strings the first of this may begin with: writers
    /// before parquet-mr 1.8 did not begin anew (PARQUET-246).
    pub(crate) fn follow(&mut self, before: DeltaTexts) {
        let Some(&(from, to)) = before.spans.last() else { return };
        if self.prefixes.is_some() && before.prefixes.is_some() {
            self.made = before.made;
            self.made.copy_within(from as usize..to as usize, 0);
            self.made.truncate((to - from) as usize);
            self.spans = vec![(0, to - from)];
        }
    }

    /// The next strings, at most `count` and at least one; `runs` tells which of them are known to be equal.
    pub(crate) fn read<'a>(
        &'a mut self,
        data: &'a [u8],
        count: usize,
        runs: &mut Runs,
        (made, budget): (&mut Made, &Budget),
    ) -> Result<Texts<'a>, Fault> {
        // The last string made is what the next may begin with.
        let last = self.spans.last().map_or(0..0, |&(from, to)| from as usize..to as usize);
        if self.prefixes.is_some() {
            self.made.copy_within(last.clone(), 0);
            self.made.truncate(last.len());
        }
        let mut last = 0..self.made.len();
        self.spans.clear();
        runs.clear();
        // One that is as long as a step would leave no room for the next: there is always one.
        while self.spans.len() < count && (self.spans.is_empty() || self.made.len() < STEP) {
            let suffix = self.suffixes.next(data)?;
            let Some(own) = self.at.checked_add(suffix).filter(|&to| to <= self.end) else {
                return Fault::corrupt("its strings end too soon");
            };
            let own = std::mem::replace(&mut self.at, own)..own;
            let Some(prefixes) = &mut self.prefixes else {
                runs.begin();
                self.spans.push((own.start as u32, own.end as u32));
                continue;
            };
            let prefix = prefixes.next(data)?;
            if prefix > last.len() {
                return Fault::corrupt("a string that shares more than the one before it has");
            }
            if prefix == last.len() && suffix == 0 && !self.spans.is_empty() {
                runs.go_on(1);
                self.spans.push((last.start as u32, last.end as u32));
                continue;
            }
            made.grow(prefix + suffix, budget)?;
            let start = self.made.len();
            self.made.extend_from_within(last.start..last.start + prefix);
            self.made.extend_from_slice(&data[own]);
            last = start..self.made.len();
            runs.begin();
            self.spans.push((last.start as u32, last.end as u32));
        }
        let bytes = if self.prefixes.is_some() { &self.made } else { data };
        Ok(Texts { bytes, spans: &self.spans })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::data_type::Int32Type;
    use parquet::encodings::encoding::{DeltaBitPackEncoder, Encoder};

    /// A page of strings, of which each begins with so many bytes of the one before.
    fn page(texts: &[(i32, &str)]) -> Vec<u8> {
        let stream = |numbers: Vec<i32>| {
            let mut encoder = DeltaBitPackEncoder::<Int32Type>::new();
            encoder.put(&numbers).unwrap();
            encoder.flush_buffer().unwrap().to_vec()
        };
        let prefixes = stream(texts.iter().map(|&(prefix, _)| prefix).collect());
        let suffixes = stream(texts.iter().map(|(_, suffix)| suffix.len() as i32).collect());
        let bytes: String = texts.iter().map(|&(_, suffix)| suffix).collect();
        [prefixes, suffixes, bytes.into()].concat()
    }

    #[test]
    fn a_page_may_begin_with_the_last_string_of_the_page_before() {
        let budget = Budget::new(0);
        let read = |texts: &mut DeltaTexts, data: &[u8], count| {
            let mut runs = Runs::default();
            let texts = texts.read(data, count, &mut runs, (&mut Made::default(), &budget))?;
            Ok::<_, Fault>((0..count).map(|at| texts.get(at).to_vec()).collect::<Vec<_>>())
        };
        let first = page(&[(0, "alpha"), (2, "ps"), (4, "")]);
        let mut before = DeltaTexts::new(&first, Encoding::DELTA_BYTE_ARRAY, 0..first.len()).unwrap();
        let expect = [&b"alpha"[..], b"alps", b"alps"];
        assert_eq!(read(&mut before, &first, 3).unwrap(), expect);
        let second = page(&[(3, "haca"), (7, "")]);
        let mut after = DeltaTexts::new(&second, Encoding::DELTA_BYTE_ARRAY, 0..second.len()).unwrap();
        assert!(read(&mut after, &second, 2).is_err(), "where there is no page before");
        let mut after = DeltaTexts::new(&second, Encoding::DELTA_BYTE_ARRAY, 0..second.len()).unwrap();
        after.follow(before);
        assert_eq!(read(&mut after, &second, 2).unwrap(), [b"alphaca", b"alphaca"]);
    }

    #[test]
    fn a_page_of_nulls_may_have_no_streams() {
        for encoding in [Encoding::DELTA_BYTE_ARRAY, Encoding::DELTA_LENGTH_BYTE_ARRAY] {
            let mut texts = DeltaTexts::new(&[7; 3], encoding, 3..3).unwrap();
            let mut runs = Runs::default();
            let budget = Budget::new(0);
            assert!(texts.read(&[7; 3], 1, &mut runs, (&mut Made::default(), &budget)).is_err());
        }
    }

    #[test]
    fn what_strings_grow_to_is_held_up_to_the_budget() {
        let budget = Budget::new(3 << 20);
        let mut made = Made::default();
        made.grow(ALLOWED_PAGE, &budget).unwrap();
        assert_eq!(budget.used(), 0);
        made.grow(1, &budget).unwrap();
        assert_eq!(budget.used(), 1 << 20);
        made.grow((3 << 20) - 1, &budget).unwrap();
        assert_eq!(budget.used(), 3 << 20);
        let error = made.grow(1, &budget).unwrap_err();
        assert!(matches!(error, Fault::Limit(_)), "{error:?}");
    }
}
