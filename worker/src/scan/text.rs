//! Reader of a text column: strings become symbols, and only those of selected rows.
//!
//! A dictionary value is resolved once, a plain string where it differs from the row before; both
//! many at a time, so that the resolver's look-ups can overlap. Not here: what a symbol means.

use parquet::schema::types::ColumnDescPtr;
use tally_dataset::{Bits, DatasetError, NULL_SYMBOL};

use super::columns::Flat;
use super::error::Fault;
use super::page::{DataPage, Page};
use super::values::{Spans, TextSource, decode_texts, index_beyond, spans};

/// A symbol that no resolver gives, for dictionary values not resolved yet.
const UNRESOLVED: u32 = u32::MAX - 1;

/// A dictionary value that is being resolved; no resolver gives this either.
const ASKED: u32 = u32::MAX - 2;
/// Strings resolved at a time.
const BLOCK: usize = 128;

/// Turns strings into their symbols.
pub(crate) type Resolve<'a> = dyn FnMut(&[&[u8]], &mut [u32]) -> Result<(), DatasetError> + 'a;

/// A dictionary page kept for its chunk, and the symbols of its values as far as known.
#[derive(Default)]
struct TextDictionary {
    bytes: Vec<u8>,
    spans: Vec<(u32, u32)>,
    symbols: Vec<u32>,
}

impl TextDictionary {
    fn set(&mut self, data: &[u8], values: usize) -> Result<(), Fault> {
        self.bytes.clear();
        self.bytes.extend_from_slice(data);
        self.symbols.clear();
        // Each value takes at least its length's four bytes.
        if values > data.len() / 4 {
            return Fault::corrupt("a dictionary of more values than bytes");
        }
        let mut at = 0;
        self.spans = match spans(data, &mut at, data.len(), values, std::mem::take(&mut self.spans))? {
            Spans::Each(spans) => spans,
            Spans::Uniform { start, length } => (0..values)
                .map(|k| (start + 4 + k * (4 + length)) as u32)
                .map(|from| (from, from + length as u32))
                .collect(),
        };
        self.symbols.resize(values, UNRESOLVED);
        Ok(())
    }

    /// Makes the symbols of these values known.
    fn resolve(
        &mut self,
        indices: impl Iterator<Item = u32>,
        resolve: &mut Resolve<'_>,
    ) -> Result<(), Fault> {
        let mut asked = [0u32; BLOCK];
        let mut count = 0;
        for index in indices {
            let Some(symbol) = self.symbols.get_mut(index as usize) else { return index_beyond(index) };
            if *symbol == UNRESOLVED {
                *symbol = ASKED;
                asked[count] = index;
                count += 1;
                if count == BLOCK {
                    self.ask(&asked, resolve)?;
                    count = 0;
                }
            }
        }
        self.ask(&asked[..count], resolve)
    }

    fn ask(&mut self, asked: &[u32], resolve: &mut Resolve<'_>) -> Result<(), Fault> {
        if asked.is_empty() {
            return Ok(());
        }
        let mut texts: [&[u8]; BLOCK] = [&[]; BLOCK];
        for (text, &index) in texts.iter_mut().zip(asked) {
            let (from, to) = self.spans[index as usize];
            *text = &self.bytes[from as usize..to as usize];
        }
        let mut symbols = [0; BLOCK];
        resolve(&texts[..asked.len()], &mut symbols[..asked.len()])?;
        for (&index, &symbol) in asked.iter().zip(&symbols) {
            self.symbols[index as usize] = symbol;
        }
        Ok(())
    }
}

/// Reader of a text column.
pub(crate) struct TextReader {
    flat: Flat,
    descriptor: ColumnDescPtr,
    source: TextSource,
    dictionary: TextDictionary,
    valid: Bits,
    indices: Vec<u32>,
    spans: Vec<(u32, u32)>,
}

impl TextReader {
    pub(crate) fn new(flat: Flat, descriptor: ColumnDescPtr) -> Self {
        TextReader {
            flat,
            descriptor,
            source: TextSource::None,
            dictionary: TextDictionary::default(),
            valid: Bits::default(),
            indices: vec![],
            spans: vec![],
        }
    }

    /// Forgets all symbols: the resolver starts anew.
    pub(crate) fn forget(&mut self) {
        self.dictionary.symbols.fill(UNRESOLVED);
    }

    /// The symbols of the next `rows` rows, as far as they are selected.
    pub(crate) fn read(
        &mut self,
        rows: usize,
        selected: &Bits,
        symbol: &mut Vec<u32>,
        resolve: &mut Resolve<'_>,
    ) -> Result<(), Fault> {
        symbol.clear();
        symbol.resize(rows, NULL_SYMBOL);
        let mut from = 0;
        while from < rows {
            if self.flat.left == 0 {
                match self.flat.next()? {
                    Page::Dictionary { values } => self.dictionary.set(self.flat.pages.data(), values)?,
                    Page::Data(DataPage { values, encoding, body, .. }) => {
                        let pages = &mut self.flat.pages;
                        self.source = TextSource::new(pages, &self.descriptor, encoding, &body, values)?;
                    }
                }
                continue;
            }
            let take = self.flat.left.min(rows - from);
            self.valid.clear();
            let there = self.flat.validity(take, &mut self.valid)?;
            let wanted = Wanted { selected, valid: &self.valid, from, take, dense: there == take };
            let data = self.flat.pages.data();
            match &mut self.source {
                TextSource::Dictionary(hybrid) => {
                    self.indices.clear();
                    hybrid.read(data, there, &mut self.indices)?;
                    let (indices, dictionary) = (&self.indices, &mut self.dictionary);
                    dictionary.resolve(wanted.iter().map(|(_, value)| indices[value]), resolve)?;
                    for (row, value) in wanted.iter() {
                        symbol[row] = dictionary.symbols[indices[value] as usize];
                    }
                }
                TextSource::Plain { at, end } => {
                    let spans = spans(data, at, *end, there, std::mem::take(&mut self.spans))?;
                    resolve_runs(&wanted, |value| spans.get(data, value), symbol, resolve)?;
                    if let Spans::Each(spans) = spans {
                        self.spans = spans;
                    }
                }
                TextSource::Decoder(decoder) => {
                    let texts = decode_texts(&mut **decoder, there)?;
                    resolve_runs(&wanted, |value| texts[value].data(), symbol, resolve)?;
                }
                TextSource::None => return Fault::corrupt("values before any page"),
            }
            from += take;
        }
        Ok(())
    }
}

/// Which rows of a stretch are selected and not null.
struct Wanted<'a> {
    selected: &'a Bits,
    /// Validity of the stretch's rows, from 0.
    valid: &'a Bits,
    from: usize,
    take: usize,
    dense: bool,
}

impl Wanted<'_> {
    /// Each such row, and the place of its value in the stretch.
    #[inline]
    fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let (mut counted, mut value) = (0, 0);
        self.selected.ones(self.from, self.from + self.take).filter_map(move |row| {
            let at = row - self.from;
            if self.dense {
                return Some((row, at));
            }
            self.valid.get(at).then(|| {
                value += self.valid.count_range(counted, at);
                counted = at;
                (row, value)
            })
        })
    }
}

/// Resolves strings that come one by one, asking only where a value differs from the one before:
/// the rows of a ping share their client.
fn resolve_runs<'a>(
    wanted: &Wanted<'_>,
    text: impl Fn(usize) -> &'a [u8],
    symbol: &mut [u32],
    resolve: &mut Resolve<'_>,
) -> Result<(), Fault> {
    let mut texts: [&[u8]; BLOCK] = [&[]; BLOCK];
    let mut count = 0;
    // Rows whose place in the block stands in for their symbol until the block is resolved.
    let mut rows = vec![];
    for (row, value) in wanted.iter() {
        let text = text(value);
        if count == 0 || texts[count - 1] != text {
            if count == BLOCK {
                resolve_block(&texts, &mut rows, symbol, resolve)?;
                count = 0;
            }
            texts[count] = text;
            count += 1;
        }
        rows.push((row as u32, count as u32 - 1));
    }
    resolve_block(&texts[..count], &mut rows, symbol, resolve)
}

fn resolve_block(
    texts: &[&[u8]],
    rows: &mut Vec<(u32, u32)>,
    symbol: &mut [u32],
    resolve: &mut Resolve<'_>,
) -> Result<(), Fault> {
    let mut symbols = [0; BLOCK];
    resolve(texts, &mut symbols[..texts.len()])?;
    for (row, place) in rows.drain(..) {
        symbol[row as usize] = symbols[place as usize];
    }
    Ok(())
}
