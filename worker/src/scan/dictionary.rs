//! The dictionary page of a text column, kept for its chunk, and the symbols of its values as far
//! as they are known.
//!
//! Not here: pages without a dictionary (`text`).

use bytes::Bytes;
use tally_dataset::Bits;

use super::error::Fault;
use super::page::Pages;
use super::text::{BLOCK, Resolve};
use super::values::{index_beyond, span};
use crate::budget::Reservation;

/// A symbol that no resolver gives, for values not resolved yet.
const UNRESOLVED: u32 = u32::MAX - 1;
/// A value that is being resolved; no resolver gives this either.
const ASKED: u32 = u32::MAX - 2;

/// See the module's head.
#[derive(Default)]
pub(crate) struct TextDictionary {
    bytes: Bytes,
    spans: Vec<(u32, u32)>,
    symbols: Vec<u32>,
    /// For the page, and for places and symbols.
    held: [Option<Reservation>; 2],
}

impl TextDictionary {
    /// Takes the page that was read last, of so many values.
    pub(crate) fn set(&mut self, pages: &mut Pages, values: usize) -> Result<(), Fault> {
        // The one before goes first.
        *self = TextDictionary::default();
        // Each value takes at least its length's four bytes.
        if values > pages.data().len() / 4 {
            return Fault::corrupt("a dictionary of more values than bytes");
        }
        let places = pages.reserve(values * (size_of::<(u32, u32)>() + size_of::<u32>()), "a dictionary")?;
        let (bytes, page) = pages.keep();
        self.held = [page, places];
        let mut at = 0;
        self.spans.reserve_exact(values);
        for _ in 0..values {
            self.spans.push(span(&bytes, &mut at, bytes.len())?);
        }
        self.bytes = bytes;
        self.symbols.resize(values, UNRESOLVED);
        Ok(())
    }

    /// Forgets all symbols.
    pub(crate) fn forget(&mut self) {
        self.symbols.fill(UNRESOLVED);
    }

    /// Puts the symbols of the values at `indices` to their places in `out`; where they are not wanted, it may be anything.
    pub(crate) fn symbols(
        &mut self,
        indices: &[u32],
        wanted: &Bits,
        out: &mut [u32],
        resolve: &mut Resolve<'_>,
    ) -> Result<(), Fault> {
        // Of all of them: to pass over those that are not wanted would take longer.
        let mut unresolved = 0;
        for ((indices, out), wanted) in indices.chunks(64).zip(out.chunks_mut(64)).zip(wanted.words()) {
            let mut unknown = 0u64;
            for (at, (&index, out)) in indices.iter().zip(out).enumerate() {
                let Some(&symbol) = self.symbols.get(index as usize) else { return index_beyond(index) };
                unknown |= u64::from(symbol == UNRESOLVED) << at;
                *out = symbol;
            }
            unresolved |= unknown & wanted;
        }
        if unresolved != 0 {
            self.resolve(wanted.ones(0, indices.len()).map(|at| indices[at]), resolve)?;
            for at in wanted.ones(0, indices.len()) {
                out[at] = self.symbols[indices[at] as usize];
            }
        }
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
            let symbol = &mut self.symbols[index as usize];
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    /// A dictionary of texts "0", "1" and so on.
    fn dictionary(values: usize) -> TextDictionary {
        let texts: Vec<String> = (0..values).map(|k| k.to_string()).collect();
        let mut spans = vec![];
        for text in &texts {
            let from = spans.last().map_or(0, |&(_, to)| to);
            spans.push((from, from + text.len() as u32));
        }
        TextDictionary {
            bytes: texts.concat().into(),
            spans,
            symbols: vec![UNRESOLVED; values],
            held: [None, None],
        }
    }

    fn bits(all: &[bool]) -> Bits {
        let mut bits = Bits::default();
        all.iter().for_each(|&bit| bits.push_word(u64::from(bit), 1));
        bits
    }

    /// Values of a batch and whether each is wanted, and whether all symbols are forgotten before it.
    type Batches = Vec<(bool, Vec<(u32, bool)>)>;

    fn batches() -> impl Strategy<Value = (u32, Batches)> {
        (1..3000u32).prop_flat_map(|values| {
            let rows = prop::collection::vec((0..values, any::<bool>()), 0..1500);
            (Just(values), prop::collection::vec((prop::bool::weighted(0.3), rows), 1..8))
        })
    }

    proptest! {
        /// Against a map: what was resolved since all was forgotten is known, and nothing is asked for twice.
        #[test]
        fn wanted_values_have_their_symbols_and_each_is_asked_for_once((values, batches) in batches()) {
            let mut dictionary = dictionary(values as usize);
            let mut model: HashMap<u32, u32> = HashMap::new();
            let mut ever_wanted = HashSet::new();
            let mut given = 0;
            for (forget, batch) in batches {
                if forget {
                    dictionary.forget();
                    model.clear();
                    ever_wanted.clear();
                }
                let (indices, wanted): (Vec<u32>, Vec<bool>) = batch.into_iter().unzip();
                let mut out = vec![7; indices.len()];
                let mut resolve = |texts: &[&[u8]], symbols: &mut [u32]| {
                    for (text, symbol) in texts.iter().zip(symbols) {
                        let index: u32 = std::str::from_utf8(text).unwrap().parse().unwrap();
                        given += 1;
                        *symbol = given;
                        assert_eq!(model.insert(index, given), None, "{index} was known");
                    }
                    Ok(())
                };
                dictionary.symbols(&indices, &bits(&wanted), &mut out, &mut resolve).unwrap();
                for ((index, wanted), symbol) in indices.into_iter().zip(wanted).zip(out) {
                    prop_assert!(!wanted || model.get(&index) == Some(&symbol));
                    ever_wanted.extend(wanted.then_some(index));
                }
                prop_assert_eq!(model.keys().copied().collect::<HashSet<_>>(), ever_wanted.clone());
                let symbol = |index: &u32| model.get(index).copied().unwrap_or(UNRESOLVED);
                prop_assert!((0..values).all(|index| dictionary.symbols[index as usize] == symbol(&index)));
            }
        }
    }

    #[test]
    fn an_index_beyond_the_dictionary_is_an_error_whoever_wants_it() {
        for wanted in [true, false] {
            let mut out = [0; 2];
            let done = dictionary(2).symbols(&[1, 2], &bits(&[true, wanted]), &mut out, &mut |_, _| Ok(()));
            let Err(Fault::Corrupt(said)) = done else { panic!("{done:?}") };
            assert!(said.contains("the index 2"), "{said}");
        }
    }
}
