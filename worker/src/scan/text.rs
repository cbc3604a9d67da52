//! Reader of a text column: strings become symbols, and only those of selected rows.
//!
//! A dictionary value is resolved once, a plain string where it differs from the one before; both
//! many at a time, so that the resolver's look-ups can overlap. Symbols are found for the values of
//! a stretch, then spread to its rows. Not here: what a symbol means.

use tally_dataset::{Bits, DatasetError, NULL_SYMBOL};

use super::columns::Flat;
use super::delta::Made;
use super::dictionary::TextDictionary;
use super::error::Fault;
use super::page::{DataPage, Page};
use super::runs::Runs;
use super::values::{Spans, TextSource, spans};

/// Strings resolved at a time.
pub(crate) const BLOCK: usize = 128;

/// Turns strings into their symbols.
pub(crate) type Resolve<'a> = dyn FnMut(&[&[u8]], &mut [u32]) -> Result<(), DatasetError> + 'a;

/// Reader of a text column.
pub(crate) struct TextReader {
    flat: Flat,
    source: TextSource,
    dictionary: TextDictionary,
    stretch: Stretch,
}

impl TextReader {
    pub(crate) fn new(flat: Flat) -> Self {
        TextReader {
            flat,
            source: TextSource::None,
            dictionary: TextDictionary::default(),
            stretch: Stretch::default(),
        }
    }

    /// Forgets all symbols: the resolver starts anew.
    pub(crate) fn forget(&mut self) {
        self.dictionary.forget();
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
        let mut made = Made::default();
        while symbol.len() < rows {
            if self.flat.left == 0 {
                match self.flat.next()? {
                    Page::Dictionary { values } => self.dictionary.set(&mut self.flat.pages, values)?,
                    Page::Data(DataPage { encoding, body, .. }) => {
                        let before = std::mem::replace(&mut self.source, TextSource::None);
                        self.source = TextSource::new(self.flat.pages.data(), encoding, &body, before)?;
                    }
                }
                continue;
            }
            let from = symbol.len();
            let take = self.flat.left.min(rows - from);
            let stretch = &mut self.stretch;
            stretch.valid.clear();
            let there = self.flat.validity(take, &mut stretch.valid)?;
            stretch.wanted.clear();
            stretch.wanted.push_where(selected, from, &stretch.valid);
            // What stands there of the stretch before goes to rows that nobody asks for.
            stretch.symbols.resize(there, NULL_SYMBOL);
            let data = self.flat.pages.data();
            match &mut self.source {
                TextSource::Dictionary(hybrid) => {
                    stretch.indices.clear();
                    hybrid.read(data, there, &mut stretch.indices)?;
                    let Stretch { indices, wanted, symbols, .. } = stretch;
                    self.dictionary.symbols(indices, wanted, symbols, resolve)?;
                }
                TextSource::Plain { at, end } => {
                    let reuse = std::mem::take(&mut stretch.spans);
                    let repeats = self.flat.pages.repeats();
                    let spans = spans(data, at, *end, there, repeats, &mut stretch.runs, reuse)?;
                    stretch.resolve_runs(0, |value| spans.get(data, value), resolve)?;
                    if let Spans::Each(spans) = spans {
                        stretch.spans = spans;
                    }
                }
                TextSource::Delta(delta) => {
                    let mut done = 0;
                    while done < there {
                        let texts = delta.read(
                            data,
                            there - done,
                            &mut stretch.runs,
                            (&mut made, self.flat.pages.budget()),
                        )?;
                        stretch.resolve_runs(done, |value| texts.get(value), resolve)?;
                        done += stretch.runs.values();
                    }
                }
                TextSource::None => return Fault::corrupt("values before any page"),
            }
            spread(&stretch.symbols, &stretch.valid, symbol);
        }
        Ok(())
    }
}

/// Values next to each other in one page.
#[derive(Default)]
struct Stretch {
    /// Rows that have a value.
    valid: Bits,
    /// Values whose rows are selected.
    wanted: Bits,
    runs: Runs,
    symbols: Vec<u32>,
    indices: Vec<u32>,
    spans: Vec<(u32, u32)>,
}

impl Stretch {
    /// Resolves strings that come one by one, asking only for one of a run. Runs are of the values from `first` on.
    fn resolve_runs<'a>(
        &mut self,
        first: usize,
        text: impl Fn(usize) -> &'a [u8],
        resolve: &mut Resolve<'_>,
    ) -> Result<(), Fault> {
        let mut texts: [&[u8]; BLOCK] = [&[]; BLOCK];
        let mut runs = [(0, 0); BLOCK];
        let mut count = 0;
        for (start, stop) in self.runs.iter() {
            texts[count] = text(start);
            runs[count] = (first + start, first + stop);
            count += usize::from(self.wanted.any(first + start, first + stop));
            if count == BLOCK {
                resolve_block(&texts, &runs, &mut self.symbols, resolve)?;
                count = 0;
            }
        }
        resolve_block(&texts[..count], &runs[..count], &mut self.symbols, resolve)
    }
}

fn resolve_block(
    texts: &[&[u8]],
    runs: &[(usize, usize)],
    symbols: &mut [u32],
    resolve: &mut Resolve<'_>,
) -> Result<(), Fault> {
    let mut found = [0; BLOCK];
    resolve(texts, &mut found[..texts.len()])?;
    for (&(from, to), &symbol) in runs.iter().zip(&found) {
        symbols[from..to].fill(symbol);
    }
    Ok(())
}

/// Appends the symbols of values to those of rows, with nulls where `valid` has none.
fn spread(values: &[u32], valid: &Bits, out: &mut Vec<u32>) {
    if values.len() == valid.len() {
        out.extend_from_slice(values);
        return;
    }
    let mut rest = values;
    for at in (0..valid.len()).step_by(64) {
        let count = (valid.len() - at).min(64);
        let bits = valid.word_at(at, count);
        let (mine, others) = rest.split_at(bits.count_ones() as usize);
        rest = others;
        if mine.len() == count {
            out.extend_from_slice(mine);
            continue;
        }
        let mut mine = mine.iter();
        out.extend((0..count).map(|bit| match bits >> bit & 1 {
            1 => mine.next().copied().unwrap_or(NULL_SYMBOL),
            _ => NULL_SYMBOL,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn symbols_come_to_the_rows_of_their_values(rows in prop::collection::vec(prop::option::weighted(0.9, 0..9u32), 0..300)) {
            let mut valid = Bits::default();
            rows.iter().for_each(|row| valid.push_word(u64::from(row.is_some()), 1));
            let values: Vec<u32> = rows.iter().copied().flatten().collect();
            let mut out = vec![7];
            spread(&values, &valid, &mut out);
            let expect: Vec<u32> = rows.iter().map(|row| row.unwrap_or(NULL_SYMBOL)).collect();
            prop_assert_eq!(&out[1..], &expect);
        }
    }
}
