//! Strings of the two delta encodings: with lengths separate from the bytes, and without the prefix shared with the
//! previous string.
//!
//! A page of a few bytes may encode gigabytes of strings. So only some strings are decoded at a time, and the memory of
//! the strings of one batch beyond an allowance comes from the budget.

use std::ops::Range;

use parquet::basic::Encoding;
use tally_common::budget::{Budget, Reservation};

use crate::delta_ints::DeltaInts;
use crate::error::Fault;
use crate::page::ALLOWED_PAGE;
use crate::runs::Runs;

/// Approximate bytes of strings that are decoded at a time.
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
        usize::try_from(length).map_err(|_| Fault::Corrupt(format!("a string has {length} bytes")))
    }
}

/// The strings of a page.
pub(crate) struct DeltaStringDecoder {
    prefixes: Option<Lengths>,
    suffixes: Lengths,
    /// Offset of the next string's own bytes in the page.
    at: usize,
    end: usize,
    /// Decoded strings. Without prefixes, strings stay in the page.
    made: Vec<u8>,
    spans: Vec<(u32, u32)>,
}

/// The distinct strings of one batch of rows: their bytes, and the memory that is reserved for them here and in the
/// resolver.
#[derive(Default)]
pub(crate) struct BatchStrings {
    bytes: usize,
    held: Vec<Reservation>,
}

impl BatchStrings {
    fn grow(&mut self, bytes: usize, budget: &Budget) -> Result<(), Fault> {
        self.bytes = self.bytes.saturating_add(bytes);
        while self.bytes > ALLOWED_PAGE + self.held.len() * GROWTH {
            let more = budget.reserve(GROWTH);
            self.held.push(more.map_err(|why| Fault::Memory("the strings of a batch of rows", why))?);
        }
        Ok(())
    }
}

/// Consecutive strings.
pub(crate) struct DeltaStrings<'a> {
    bytes: &'a [u8],
    spans: &'a [(u32, u32)],
}

impl<'a> DeltaStrings<'a> {
    pub(crate) fn get(&self, at: usize) -> &'a [u8] {
        let (from, to) = self.spans[at];
        &self.bytes[from as usize..to as usize]
    }
}

impl DeltaStringDecoder {
    /// The strings in `data[body]`, of one of the two encodings.
    pub(crate) fn new(data: &[u8], encoding: Encoding, mut body: Range<usize>) -> Result<Self, Fault> {
        let mut stream = || {
            let ints = DeltaInts::new(data, body.clone())?;
            body.start = ints.clone().end(data)?;
            Ok::<_, Fault>(Lengths::new(ints))
        };
        Ok(DeltaStringDecoder {
            prefixes: if encoding == Encoding::DELTA_BYTE_ARRAY { Some(stream()?) } else { None },
            suffixes: stream()?,
            at: body.start,
            end: body.end,
            made: vec![],
            spans: vec![],
        })
    }

    /// Makes this page follow the page of `before`. Its first string may share a prefix with the last string of that
    /// page, because writers before parquet-mr 1.8 did not reset the prefix at a page boundary (PARQUET-246).
    pub(crate) fn follow(&mut self, before: DeltaStringDecoder) {
        let Some(&(from, to)) = before.spans.last() else { return };
        if self.prefixes.is_some() && before.prefixes.is_some() {
            self.made = before.made;
            self.made.copy_within(from as usize..to as usize, 0);
            self.made.truncate((to - from) as usize);
            self.spans = vec![(0, to - from)];
        }
    }

    /// The next strings: at least one, and at most `count`. `runs` receives which of them are known to be equal.
    pub(crate) fn read<'a>(
        &'a mut self,
        data: &'a [u8],
        count: usize,
        runs: &mut Runs,
        (made, budget): (&mut BatchStrings, &Budget),
    ) -> Result<DeltaStrings<'a>, Fault> {
        // The next string may share a prefix with the last decoded one.
        let last = self.spans.last().map_or(0..0, |&(from, to)| from as usize..to as usize);
        if self.prefixes.is_some() {
            self.made.copy_within(last.clone(), 0);
            self.made.truncate(last.len());
        }
        let mut last = 0..self.made.len();
        self.spans.clear();
        runs.clear();
        // At least one string is decoded, even if the last one already fills a step.
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
                return Fault::corrupt("a string shares more bytes than the previous string has");
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
        Ok(DeltaStrings { bytes, spans: &self.spans })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoded::{DeltaShape, delta_stream};
    use tally_common::budget::Shortage;

    /// A page of strings, each given by the length of the shared prefix and its own bytes.
    fn page(texts: &[(i64, &str)]) -> Vec<u8> {
        let prefixes: Vec<_> = texts.iter().map(|&(prefix, _)| prefix).collect();
        let suffixes: Vec<_> = texts.iter().map(|(_, suffix)| suffix.len() as i64).collect();
        let bytes: String = texts.iter().map(|&(_, suffix)| suffix).collect();
        let stream = |lengths: &[i64]| delta_stream(lengths, 32, &DeltaShape::USUAL);
        [stream(&prefixes), stream(&suffixes), bytes.into()].concat()
    }

    #[test]
    fn a_page_may_begin_with_the_last_string_of_the_page_before() {
        let budget = Budget::new(0);
        let read = |texts: &mut DeltaStringDecoder, data: &[u8], count| {
            let mut runs = Runs::default();
            let texts = texts.read(data, count, &mut runs, (&mut BatchStrings::default(), &budget))?;
            Ok::<_, Fault>((0..count).map(|at| texts.get(at).to_vec()).collect::<Vec<_>>())
        };
        let first = page(&[(0, "alpha"), (2, "ps"), (4, "")]);
        let mut before = DeltaStringDecoder::new(&first, Encoding::DELTA_BYTE_ARRAY, 0..first.len()).unwrap();
        let expect = [&b"alpha"[..], b"alps", b"alps"];
        assert_eq!(read(&mut before, &first, 3).unwrap(), expect);
        let second = page(&[(3, "haca"), (7, "")]);
        let mut after =
            DeltaStringDecoder::new(&second, Encoding::DELTA_BYTE_ARRAY, 0..second.len()).unwrap();
        assert!(read(&mut after, &second, 2).is_err(), "without a previous page");
        let mut after =
            DeltaStringDecoder::new(&second, Encoding::DELTA_BYTE_ARRAY, 0..second.len()).unwrap();
        after.follow(before);
        assert_eq!(read(&mut after, &second, 2).unwrap(), [b"alphaca", b"alphaca"]);
    }

    #[test]
    fn a_page_of_nulls_may_have_no_streams() {
        for encoding in [Encoding::DELTA_BYTE_ARRAY, Encoding::DELTA_LENGTH_BYTE_ARRAY] {
            let mut texts = DeltaStringDecoder::new(&[7; 3], encoding, 3..3).unwrap();
            let mut runs = Runs::default();
            let budget = Budget::new(0);
            assert!(texts.read(&[7; 3], 1, &mut runs, (&mut BatchStrings::default(), &budget)).is_err());
        }
    }

    #[test]
    fn the_memory_of_strings_is_reserved_up_to_the_budget() {
        let budget = Budget::new(3 << 20);
        let mut made = BatchStrings::default();
        made.grow(ALLOWED_PAGE, &budget).unwrap();
        assert_eq!(budget.used(), 0);
        made.grow(1, &budget).unwrap();
        assert_eq!(budget.used(), 1 << 20);
        made.grow((3 << 20) - 1, &budget).unwrap();
        assert_eq!(budget.used(), 3 << 20);
        let error = made.grow(1, &budget).unwrap_err();
        assert!(matches!(error, Fault::Memory(_, Shortage::Never { .. })), "{error:?}");
    }
}
