//! Decoders of the values in a page: booleans, integers and strings, in every encoding that the
//! format has for them, mixed as they come in one column chunk.
//!
//! Not here: levels and nulls; only non-null values are in a page's body.

use std::ops::Range;

use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type};
use parquet::encodings::decoding::{Decoder, DeltaBitPackDecoder, get_decoder};
use parquet::schema::types::ColumnDescPtr;
use tally_dataset::Bits;

use super::error::Fault;
use super::hybrid::Hybrid;
use super::page::Pages;

fn unsupported<T>(encoding: Encoding, what: &str) -> Result<T, Fault> {
    Fault::corrupt(format!("{what} of encoding {encoding}, which the format does not allow"))
}

/// A dictionary page's indices: one byte of width, then the hybrid.
fn indices(data: &[u8], body: &Range<usize>) -> Result<Hybrid, Fault> {
    match data.get(body.start) {
        Some(&width) => Hybrid::new(body.start + 1..body.end, usize::from(width)),
        // A page of nothing but nulls may have no body at all.
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
            // Four bytes of length, then the hybrid.
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
                out.push_packed(data, *bit, count);
                *bit += count;
                Ok(())
            }
            BoolValues::Rle(hybrid) => hybrid.read_equal(data, count, 1, out),
        }
    }
}

/// Integer values of a column chunk; `T` is the format's INT32 or INT64.
pub(crate) struct IntValues<T: DataType> {
    descriptor: ColumnDescPtr,
    dictionary: Vec<T::T>,
    source: IntSource<T>,
    indices: Vec<u32>,
}

enum IntSource<T: DataType> {
    Dictionary(Hybrid),
    Decoder(Box<dyn Decoder<T>>),
    None,
}

impl<T: DataType> IntValues<T>
where
    T::T: Copy + Default,
{
    pub(crate) fn new(descriptor: ColumnDescPtr) -> Self {
        IntValues { descriptor, dictionary: vec![], source: IntSource::None, indices: vec![] }
    }

    pub(crate) fn set_dictionary(&mut self, pages: &mut Pages, values: usize) -> Result<(), Fault> {
        let all = 0..pages.data().len();
        if values > all.len() {
            return Fault::corrupt("a dictionary of more values than bytes");
        }
        self.dictionary = vec![T::T::default(); values];
        let mut decoder = get_decoder::<T>(self.descriptor.clone(), Encoding::PLAIN)?;
        decoder.set_data(pages.shared(all), values)?;
        read_exact(&mut *decoder, &mut self.dictionary)
    }

    pub(crate) fn set_page(
        &mut self,
        pages: &mut Pages,
        encoding: Encoding,
        body: &Range<usize>,
        values: usize,
    ) -> Result<(), Fault> {
        self.source = match encoding {
            Encoding::RLE_DICTIONARY => IntSource::Dictionary(indices(pages.data(), body)?),
            Encoding::PLAIN | Encoding::DELTA_BINARY_PACKED | Encoding::BYTE_STREAM_SPLIT => {
                let mut decoder = get_decoder::<T>(self.descriptor.clone(), encoding)?;
                decoder.set_data(pages.shared(body.clone()), values)?;
                IntSource::Decoder(decoder)
            }
            other => return unsupported(other, "integers"),
        };
        Ok(())
    }

    /// Appends the next `count` values.
    pub(crate) fn read(&mut self, data: &[u8], count: usize, out: &mut Vec<T::T>) -> Result<(), Fault> {
        match &mut self.source {
            IntSource::Dictionary(hybrid) => {
                self.indices.clear();
                hybrid.read(data, count, &mut self.indices)?;
                let dictionary = self.dictionary.as_slice();
                let start = out.len();
                out.resize(start + count, T::T::default());
                for (slot, &index) in out[start..].iter_mut().zip(&self.indices) {
                    match dictionary.get(index as usize) {
                        Some(&value) => *slot = value,
                        None => return beyond(index),
                    }
                }
                Ok(())
            }
            IntSource::Decoder(decoder) => {
                let start = out.len();
                out.resize(start + count, T::T::default());
                read_exact(&mut **decoder, &mut out[start..])
            }
            IntSource::None => Fault::corrupt("values before any page"),
        }
    }
}

fn beyond<T>(index: u32) -> Result<T, Fault> {
    Fault::corrupt(format!("the index {index}, which is beyond its dictionary"))
}

fn read_exact<T: DataType>(decoder: &mut dyn Decoder<T>, out: &mut [T::T]) -> Result<(), Fault> {
    let mut done = 0;
    while done < out.len() {
        match decoder.get(&mut out[done..])? {
            0 => return Fault::corrupt("its values end too soon"),
            more => done += more,
        }
    }
    Ok(())
}

/// Where the strings of a page come from.
pub(crate) enum TextSource {
    Dictionary(Hybrid),
    Plain { at: usize, end: usize },
    Decoder(Box<dyn Decoder<ByteArrayType>>),
    None,
}

impl TextSource {
    pub(crate) fn new(
        pages: &mut Pages,
        descriptor: &ColumnDescPtr,
        encoding: Encoding,
        body: &Range<usize>,
        values: usize,
    ) -> Result<Self, Fault> {
        Ok(match encoding {
            Encoding::RLE_DICTIONARY => TextSource::Dictionary(indices(pages.data(), body)?),
            Encoding::PLAIN => TextSource::Plain { at: body.start, end: body.end },
            Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY => {
                check_delta(pages, encoding, body, values)?;
                let mut decoder = get_decoder::<ByteArrayType>(descriptor.clone(), encoding)?;
                decoder.set_data(pages.shared(body.clone()), values)?;
                TextSource::Decoder(decoder)
            }
            other => return unsupported(other, "strings"),
        })
    }
}

/// Checks what a delta-encoded page of strings says of its own lengths before a decoder allocates
/// by it. The lengths are a stream of integers that begins with four variable-length numbers, the
/// third being their count; prefixes, where there are any, are such a stream before it.
fn check_delta(
    pages: &mut Pages,
    encoding: Encoding,
    body: &Range<usize>,
    values: usize,
) -> Result<(), Fault> {
    let bytes = pages.shared(body.clone());
    let mut at = 0;
    if encoding == Encoding::DELTA_BYTE_ARRAY {
        check_count(&bytes, values)?;
        let mut prefixes = DeltaBitPackDecoder::<Int32Type>::new();
        prefixes.set_data(bytes.clone(), values)?;
        let mut lengths = [0; 1024];
        while prefixes.values_left() > 0 && prefixes.get(&mut lengths)? > 0 {}
        at = prefixes.get_offset();
    }
    check_count(bytes.get(at..).unwrap_or_default(), values)
}

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

/// The strings of a stretch of values in plain encoding, as places in the page's data.
pub(crate) enum Spans {
    /// All of one length: value `k` starts `4 + k * (4 + length)` bytes from `start`.
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

/// Whether `count` values from `at` all have `length` bytes. By induction: the first length is
/// read where it must be, and each that is as expected puts the next where it is looked for. No
/// check waits for the one before, which walking would.
fn uniform(data: &[u8], at: usize, end: usize, count: usize, length: usize) -> bool {
    let stride = 4 + length;
    let Some(values) = count.checked_mul(stride).and_then(|all| data[..end].get(at..at.checked_add(all)?))
    else {
        return false;
    };
    let expected = (length as u32).to_le_bytes();
    values
        .chunks(stride * 64)
        .all(|some| some.chunks_exact(stride).fold(true, |same, value| same & (value[..4] == expected)))
}

/// Passes over the next `count` plain strings and tells where they are.
pub(crate) fn spans(
    data: &[u8],
    at: &mut usize,
    end: usize,
    count: usize,
    mut reuse: Vec<(u32, u32)>,
) -> Result<Spans, Fault> {
    let short = || Fault::Corrupt("its strings end too soon".into());
    if count == 0 {
        return Ok(Spans::Each(vec![]));
    }
    let length = length_at(data, *at, end).ok_or_else(short)?;
    if uniform(data, *at, end, count, length) {
        let start = *at;
        *at += count * (4 + length);
        return Ok(Spans::Uniform { start, length });
    }
    reuse.clear();
    for _ in 0..count {
        let length = length_at(data, *at, end).ok_or_else(short)?;
        let from = *at + 4;
        if length > end - from {
            return Err(short());
        }
        *at = from + length;
        reuse.push((from as u32, *at as u32));
    }
    Ok(Spans::Each(reuse))
}

/// The next `count` strings of a rare encoding.
pub(crate) fn decode_texts(
    decoder: &mut dyn Decoder<ByteArrayType>,
    count: usize,
) -> Result<Vec<ByteArray>, Fault> {
    let mut texts = vec![ByteArray::new(); count];
    read_exact(decoder, &mut texts)?;
    Ok(texts)
}

pub(crate) fn index_beyond<T>(index: u32) -> Result<T, Fault> {
    beyond(index)
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
}
