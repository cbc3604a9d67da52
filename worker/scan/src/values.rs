//! Decoders of the values in a page: booleans, integers and strings, in every encoding that the format allows. A column
//! chunk may mix encodings.
//!
//! Not here: levels and nulls. The body of a page has only non-null values.

use std::ops::Range;

use parquet::basic::Encoding;
use tally_dataset::Bits;

use crate::delta::DeltaStringDecoder;
use crate::delta_ints::DeltaInts;
use crate::error::Fault;
use crate::fixed_ints::{FixedInts, Int};
use crate::hybrid::Hybrid;
use crate::page::Pages;
use crate::runs::Runs;
use crate::snappy::STRIDE;

fn unsupported<T>(encoding: Encoding, what: &str) -> Result<T, Fault> {
    Fault::corrupt(format!("{what} have the encoding {encoding}, which the format does not allow"))
}

/// The indices of a dictionary-encoded page: one byte of width, then the hybrid encoding.
fn indices(data: &[u8], body: &Range<usize>) -> Result<Hybrid, Fault> {
    match data.get(body.start) {
        Some(&width) => Hybrid::new(body.start + 1..body.end, usize::from(width)),
        // A page that has only nulls, or only one value, may have no body.
        None => Hybrid::new(body.clone(), 0),
    }
}

/// Boolean values of a page.
pub(crate) enum BoolValues {
    Plain { bit: usize, end: usize },
    Rle(Hybrid),
}

impl BoolValues {
    pub(crate) fn new(pages: &Pages, encoding: Encoding, body: &Range<usize>) -> Result<Self, Fault> {
        match encoding {
            Encoding::PLAIN => Ok(BoolValues::Plain { bit: body.start * 8, end: body.end * 8 }),
            // Four bytes of length, then the hybrid encoding.
            Encoding::RLE if body.is_empty() => Hybrid::new(body.clone(), 1).map(BoolValues::Rle),
            Encoding::RLE if body.len() >= 4 => {
                let head = &pages.data()[body.start..body.start + 4];
                let length = u32::from_le_bytes(head.try_into().unwrap_or_default()) as usize;
                let start = body.start + 4;
                Hybrid::new(start..body.end.min(start.saturating_add(length)), 1).map(BoolValues::Rle)
            }
            other => unsupported(other, "booleans"),
        }
    }

    pub(crate) fn read(&mut self, data: &[u8], count: usize, out: &mut Bits) -> Result<(), Fault> {
        match self {
            BoolValues::Plain { bit, end } => {
                if *bit + count > *end {
                    return Fault::corrupt("its values end too soon");
                }
                out.push_packed(data, *bit, count, false);
                *bit += count;
                Ok(())
            }
            BoolValues::Rle(hybrid) => hybrid.read_test(data, count, |value| value == 1, out),
        }
    }
}

/// Integer values of a column chunk. `T` is the format's INT32 or INT64.
#[derive(Default)]
pub(crate) struct IntValues<T> {
    dictionary: Vec<T>,
    source: IntSource,
    indices: Vec<u32>,
}

#[derive(Default)]
enum IntSource {
    Dictionary(Hybrid),
    Delta(DeltaInts),
    Fixed(FixedInts),
    #[default]
    None,
}

impl<T: Int> IntValues<T> {
    pub(crate) fn set_dictionary(&mut self, pages: &Pages, values: usize) -> Result<(), Fault> {
        let data = pages.data();
        if values > data.len() / size_of::<T>() {
            return Fault::corrupt("a dictionary has more values than bytes");
        }
        self.dictionary.clear();
        FixedInts::plain(0..data.len()).read(data, values, &mut self.dictionary)
    }

    pub(crate) fn set_page(
        &mut self,
        pages: &Pages,
        encoding: Encoding,
        body: &Range<usize>,
    ) -> Result<(), Fault> {
        self.source = match encoding {
            Encoding::RLE_DICTIONARY => IntSource::Dictionary(indices(pages.data(), body)?),
            Encoding::DELTA_BINARY_PACKED => IntSource::Delta(DeltaInts::new(pages.data(), body.clone())?),
            Encoding::PLAIN => IntSource::Fixed(FixedInts::plain(body.clone())),
            Encoding::BYTE_STREAM_SPLIT => IntSource::Fixed(FixedInts::split::<T>(body.clone())),
            other => return unsupported(other, "integers"),
        };
        Ok(())
    }

    /// Appends the next `count` values.
    pub(crate) fn read(&mut self, data: &[u8], count: usize, out: &mut Vec<T>) -> Result<(), Fault> {
        match &mut self.source {
            IntSource::Dictionary(hybrid) => {
                self.indices.clear();
                hybrid.read(data, count, &mut self.indices)?;
                let dictionary = self.dictionary.as_slice();
                let start = out.len();
                out.resize(start + count, T::default());
                for (slot, &index) in out[start..].iter_mut().zip(&self.indices) {
                    match dictionary.get(index as usize) {
                        Some(&value) => *slot = value,
                        None => return beyond(index),
                    }
                }
                Ok(())
            }
            IntSource::Delta(ints) => ints.read(data, count, out),
            IntSource::Fixed(ints) => ints.read(data, count, out),
            IntSource::None => Fault::corrupt("values before any page"),
        }
    }
}

fn beyond<T>(index: u32) -> Result<T, Fault> {
    Fault::corrupt(format!("the index {index} is beyond the dictionary"))
}

/// Where the strings of a page come from.
pub(crate) enum TextSource {
    Dictionary(Hybrid),
    Plain { at: usize, end: usize },
    Delta(Box<DeltaStringDecoder>),
    None,
}

impl TextSource {
    /// The strings in `data[body]`. `before` is the source of the previous page.
    pub(crate) fn new(
        data: &[u8],
        encoding: Encoding,
        body: &Range<usize>,
        before: TextSource,
    ) -> Result<Self, Fault> {
        Ok(match encoding {
            Encoding::RLE_DICTIONARY => TextSource::Dictionary(indices(data, body)?),
            Encoding::PLAIN => TextSource::Plain { at: body.start, end: body.end },
            Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY => {
                let mut texts = DeltaStringDecoder::new(data, encoding, body.clone())?;
                if let TextSource::Delta(before) = before {
                    texts.follow(*before);
                }
                TextSource::Delta(Box::new(texts))
            }
            other => return unsupported(other, "strings"),
        })
    }
}

/// The strings of a stretch of values in plain encoding, as positions in the page's data.
pub(crate) enum Spans {
    /// All have one length: value `k` starts `4 + k * (4 + length)` bytes after `start`.
    Uniform { start: usize, length: usize },
    /// Start and end of each.
    Each(Vec<(u32, u32)>),
}

impl Spans {
    #[inline]
    pub(crate) fn get<'a>(&self, data: &'a [u8], value: usize) -> &'a [u8] {
        match self {
            Spans::Uniform { start, length } => {
                let from = start + 4 + value * (4 + length);
                &data[from..from + length]
            }
            Spans::Each(spans) => {
                let (from, to) = spans[value];
                &data[from as usize..to as usize]
            }
        }
    }
}

fn length_at(data: &[u8], at: usize, end: usize) -> Option<usize> {
    let head = data.get(at..at + 4).filter(|_| at + 4 <= end)?;
    Some(u32::from_le_bytes(head.try_into().ok()?) as usize)
}

/// Skips the plain string at `at`. Returns its position.
pub(crate) fn span(data: &[u8], at: &mut usize, end: usize) -> Result<(u32, u32), Fault> {
    let found = length_at(data, *at, end).map(|length| *at + 4..*at + 4 + length);
    let Some(text) = found.filter(|text| text.end <= end) else {
        return Fault::corrupt("its strings end too soon");
    };
    *at = text.end;
    Ok((text.start as u32, text.end as u32))
}

/// Whether all plain values in `values`, which starts at `start`, have the same length; `runs` receives which are
/// equal. This works by induction: the first length is read at a known position, and each length that is as expected
/// confirms the position of the next one. No check depends on the one before, unlike in a sequential walk.
fn uniform(values: &[u8], length: usize, start: usize, repeats: &[(u32, u32)], runs: &mut Runs) -> bool {
    let expected = (length as u32).to_le_bytes();
    if length + 4 == STRIDE {
        return uniform_uuids(values.as_chunks().0, expected, start, repeats, runs);
    }
    let mut values = values.chunks_exact(4 + length);
    let Some(first) = values.next() else { return true };
    runs.begin();
    first[..4] == expected
        && equal_lengths(first, values, |a, b| a == b, |value| value[..4] == expected, runs)
}

/// The same for UUIDs. Bytes that are known to repeat are not compared.
fn uniform_uuids(
    values: &[[u8; STRIDE]],
    expected: [u8; 4],
    start: usize,
    repeats: &[(u32, u32)],
    runs: &mut Runs,
) -> bool {
    let Some(first) = values.first() else { return true };
    let fits = |value: &[u8; STRIDE]| value[..4] == expected;
    runs.begin();
    let (mut all, mut at) = (fits(first), 1);
    let passed = repeats.partition_point(|&(_, to)| to as usize <= start + STRIDE);
    for &(from, to) in repeats[passed..].iter().chain([&(u32::MAX, u32::MAX)]) {
        // Values that repeat completely.
        let from = (from as usize).saturating_sub(start).div_ceil(STRIDE).clamp(at, values.len());
        let to = ((to as usize).saturating_sub(start) / STRIDE).clamp(from, values.len());
        all &= equal_lengths(&values[at - 1], values[at..from].iter(), equal_uuids, fits, runs);
        runs.go_on(to - from);
        at = to;
        if !all || at == values.len() {
            break;
        }
    }
    all
}

/// Compares a few words, because a function call would cost more than the comparison.
#[inline(always)]
fn equal_uuids(a: &[u8; STRIDE], b: &[u8; STRIDE]) -> bool {
    let pairs = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    pairs.fold(0, |differ, (a, b)| differ | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b))) == 0
}

/// Appends to `runs` whether each of `values` equals the one before; `last` is before the first. Returns whether each
/// value that differs `fits`.
#[inline(always)]
fn equal_lengths<T: Copy>(
    mut last: T,
    mut values: impl ExactSizeIterator<Item = T>,
    equal: impl Fn(T, T) -> bool,
    fits: impl Fn(T) -> bool,
    runs: &mut Runs,
) -> bool {
    let mut all = true;
    while values.len() > 0 && all {
        runs.compare(values.by_ref().take(64), |value| {
            let same = equal(last, value);
            // A value that equals another one of the right length has the right length, too.
            all &= same | fits(value);
            last = value;
            same
        });
    }
    all
}

/// Skips the next `count` plain strings. Returns their positions, and in `runs` which of them are equal. `repeats` are
/// those of `data`.
pub(crate) fn spans(
    data: &[u8],
    at: &mut usize,
    end: usize,
    count: usize,
    repeats: &[(u32, u32)],
    runs: &mut Runs,
    mut reuse: Vec<(u32, u32)>,
) -> Result<Spans, Fault> {
    let short = || Fault::Corrupt("its strings end too soon".into());
    runs.clear();
    if count == 0 {
        return Ok(Spans::Each(reuse));
    }
    let length = length_at(data, *at, end).ok_or_else(short)?;
    let all = count.checked_mul(4 + length).and_then(|all| data[..end].get(*at..at.checked_add(all)?));
    if let Some(values) = all
        && uniform(values, length, *at, repeats, runs)
    {
        let start = *at;
        *at += values.len();
        return Ok(Spans::Uniform { start, length });
    }
    reuse.clear();
    runs.clear();
    let mut last = None;
    for _ in 0..count {
        let (from, to) = span(data, at, end)?;
        let text = &data[from as usize..to as usize];
        runs.compare([text].into_iter(), |text| last.replace(text) == Some(text));
        reuse.push((from, to));
    }
    Ok(Spans::Each(reuse))
}

pub(crate) fn index_beyond<T>(index: u32) -> Result<T, Fault> {
    beyond(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snappy::decompress;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn plain_strings_of_any_length_are_found(
            runs in prop::collection::vec(("[0-9a-f]{36}|[a-c]{0,3}|[ -~]{36}", 1..40usize), 1..20),
            uniform in any::<bool>(),
            skip in 0..50usize,
        ) {
            let keep = |text: &String| !uniform || text.len() == 36;
            let texts: Vec<String> = runs.into_iter().filter(|(text, _)| keep(text)).flat_map(|(t, n)| vec![t; n]).collect();
            prop_assume!(!texts.is_empty());
            let skip = skip % texts.len();
            let mut data = vec![];
            for text in &texts {
                data.extend((text.len() as u32).to_le_bytes());
                data.extend(text.as_bytes());
            }
            let mut at = texts[..skip].iter().map(|text| 4 + text.len()).sum();
            let mut runs = Runs::default();
            let mut repeats = vec![];
            let packed = snap::raw::Encoder::new().compress_vec(&data).unwrap();
            decompress(&packed, &mut vec![0; data.len()], &mut repeats).unwrap();
            let found = spans(&data, &mut at, data.len(), texts.len() - skip, &repeats, &mut runs, vec![]).unwrap();
            prop_assert_eq!(at, data.len());
            let texts = &texts[skip..];
            for (k, text) in texts.iter().enumerate() {
                prop_assert_eq!(found.get(&data, k), text.as_bytes());
            }
            let expect: Vec<usize> = (0..texts.len()).filter(|&k| k == 0 || texts[k - 1] != texts[k]).collect();
            prop_assert_eq!(runs.iter().map(|(from, _)| from).collect::<Vec<_>>(), expect);
            prop_assert_eq!(runs.iter().last().map(|(_, to)| to), Some(texts.len()));
        }

        /// Repeats that are split differently than by the decoder, and stretches that end within a repeat.
        #[test]
        fn known_repeats_do_not_change_the_runs(
            lead in prop::collection::vec(any::<u8>(), 0..90),
            changes in prop::collection::vec((prop::collection::vec((4..STRIDE, 0..4u8), 0..3), 1..9usize), 1..30),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..300usize), 0..20),
            counts in prop::collection::vec(1..40usize, 1..30),
        ) {
            let mut value = [b'0'; STRIDE];
            value[..4].copy_from_slice(&(STRIDE as u32 - 4).to_le_bytes());
            let mut values = vec![];
            for (bytes, times) in changes {
                bytes.into_iter().for_each(|(at, byte)| value[at] = byte);
                values.extend(std::iter::repeat_n(value, times));
            }
            let data = [&lead, values.as_flattened()].concat();
            let mut repeats = vec![];
            let mut cuts: Vec<_> = cuts.into_iter().map(|(from, most)| (from.index(data.len()), most)).collect();
            cuts.sort_unstable();
            let mut free = STRIDE;
            for (from, most) in cuts {
                let from = from.max(free);
                let to = (from..data.len()).take(most).find(|&at| data[at] != data[at - STRIDE]);
                let to = to.unwrap_or((from + most).min(data.len()));
                if from < to {
                    repeats.push((from as u32, to as u32));
                    free = to;
                }
            }
            let (mut at, mut done) = (lead.len(), 0);
            let mut runs = Runs::default();
            for count in counts {
                let values = &values[done..(done + count).min(values.len())];
                spans(&data, &mut at, data.len(), values.len(), &repeats, &mut runs, vec![]).unwrap();
                let starts: Vec<usize> = (0..values.len()).filter(|&k| k == 0 || values[k - 1] != values[k]).collect();
                prop_assert_eq!(runs.iter().map(|(from, _)| from).collect::<Vec<_>>(), starts);
                prop_assert_eq!(runs.values(), values.len());
                done += values.len();
            }
        }
    }
}
