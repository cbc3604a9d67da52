//! Strings of the two delta encodings: lengths apart from bytes, and with what each shares with the
//! one before left out.
//!
//! A page of a few bytes may stand for strings of gigabytes. So strings are made some at a time, and
//! what the strings of one batch of rows take beyond an allowance comes from the budget.

use std::ops::Range;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::data_type::Int32Type;
use parquet::encodings::decoding::{Decoder, DeltaBitPackDecoder};
use tally_dataset::BATCH_ROWS;

use super::error::Fault;
use super::page::{ALLOWED_PAGE, Pages};
use super::runs::Runs;
use crate::budget::{Budget, Reservation};

/// Bytes of strings made at a time, about.
const STEP: usize = 256 << 10;
/// Bytes reserved at a time.
const GROWTH: usize = 1 << 20;

/// A stream of lengths.
struct Lengths {
    decoder: DeltaBitPackDecoder<Int32Type>,
    some: [i32; 256],
    at: usize,
    end: usize,
}

impl Lengths {
    fn new(data: Bytes, values: usize) -> Result<Self, Fault> {
        check_count(&data, values)?;
        let mut decoder = DeltaBitPackDecoder::new();
        decoder.set_data(data, values)?;
        Ok(Lengths { decoder, some: [0; 256], at: 0, end: 0 })
    }

    fn next(&mut self) -> Result<usize, Fault> {
        if self.at == self.end {
            self.end = if self.decoder.values_left() > 0 { self.decoder.get(&mut self.some)? } else { 0 };
            self.at = 0;
            if self.end == 0 {
                return Fault::corrupt("its strings end too soon");
            }
        }
        self.at += 1;
        let length = self.some[self.at - 1];
        usize::try_from(length).map_err(|_| Fault::Corrupt(format!("a string of {length} bytes")))
    }

    /// Bytes that the stream takes of its data.
    fn size(data: &Bytes, values: usize) -> Result<usize, Fault> {
        let mut all = Lengths::new(data.clone(), values)?;
        while all.decoder.values_left() > 0 && all.decoder.get(&mut all.some)? > 0 {}
        Ok(all.decoder.get_offset())
    }
}

/// Checks how many lengths a stream says it has before a decoder allocates by it. It begins with four
/// variable-length numbers, the third being their count.
fn check_count(stream: &[u8], values: usize) -> Result<(), Fault> {
    let mut numbers = [0u64; 3];
    let mut bytes = stream.iter();
    for number in &mut numbers {
        for shift in (0..64).step_by(7) {
            let Some(&byte) = bytes.next() else {
                return Fault::corrupt("its strings' lengths end too soon");
            };
            *number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    // Blocks of more than this many values no writer makes; a decoder sizes its buffers by them.
    if numbers[0] > 1 << 20 || numbers[2] > values as u64 {
        return Fault::corrupt(format!("lengths of {} strings in a page of {values}", numbers[2]));
    }
    Ok(())
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
    pub(crate) fn new(
        pages: &mut Pages,
        encoding: Encoding,
        body: &Range<usize>,
        values: usize,
    ) -> Result<Self, Fault> {
        let bytes = pages.shared(body.clone());
        let mut at = 0;
        let prefixes = match encoding {
            Encoding::DELTA_BYTE_ARRAY => {
                at = Lengths::size(&bytes, values)?;
                Some(Lengths::new(bytes.clone(), values)?)
            }
            _ => None,
        };
        let Some(lengths) = (at <= bytes.len()).then(|| bytes.slice(at..)) else {
            return Fault::corrupt("its strings' lengths end too soon");
        };
        at += Lengths::size(&lengths, values)?;
        Ok(DeltaTexts {
            prefixes,
            suffixes: Lengths::new(lengths, values)?,
            at: body.start.saturating_add(at),
            end: body.end,
            made: vec![],
            spans: vec![],
        })
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
            let suffix = self.suffixes.next()?;
            let Some(own) = self.at.checked_add(suffix).filter(|&to| to <= self.end) else {
                return Fault::corrupt("its strings end too soon");
            };
            let own = std::mem::replace(&mut self.at, own)..own;
            let Some(prefixes) = &mut self.prefixes else {
                runs.begin();
                self.spans.push((own.start as u32, own.end as u32));
                continue;
            };
            let prefix = prefixes.next()?;
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

    #[test]
    fn lengths_of_more_strings_than_the_page_has_are_refused_before_anything_is_allocated() {
        let check = |count: &[u8], fits: bool| {
            let stream = [&[0x80, 0x01, 0x04], count, &[0x00]].concat();
            assert_eq!(check_count(&stream, 50).is_ok(), fits, "{count:?}");
        };
        check(&[50], true);
        check(&[51], false);
        check(&[0x80, 0x94, 0xeb, 0xdc, 0x03], false);
        assert!(check_count(&[0x80], 50).is_err());
        assert!(check_count(&[0xff, 0xff, 0xff, 0x7f, 4, 1, 0], 50).is_err(), "a huge block");
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
