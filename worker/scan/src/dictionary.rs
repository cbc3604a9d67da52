//! The dictionary page of a string column, kept for its column chunk, with the resolved codes of its values.
//!
//! Not here: pages without a dictionary (`text`).

use bytes::Bytes;
use tally_common::budget::Reservation;
use tally_dataset::{Bits, DatasetError};

use crate::error::Fault;
use crate::page::Pages;
use crate::values::{index_beyond, span};

/// A code that no resolver returns, for values that are not resolved yet.
const UNRESOLVED: u32 = u32::MAX - 1;
/// A code that no resolver returns, for values that are being resolved.
const RESOLVING: u32 = u32::MAX - 2;

/// Strings resolved per call.
pub(crate) const BLOCK: usize = 128;

/// Resolves strings to dictionary codes.
pub(crate) type Resolve<'a> = dyn FnMut(&[&[u8]], &mut [u32]) -> Result<(), DatasetError> + 'a;

/// See the module's head.
#[derive(Default)]
pub(crate) struct TextDictionary {
    bytes: Bytes,
    spans: Vec<(u32, u32)>,
    codes: Vec<u32>,
    /// Reservations for the page, and for spans and codes.
    held: [Option<Reservation>; 2],
}

impl TextDictionary {
    /// Replaces the dictionary by the page that was read last, which has `values` values.
    pub(crate) fn set(&mut self, pages: &mut Pages, values: usize) -> Result<(), Fault> {
        // The old dictionary is dropped first.
        *self = TextDictionary::default();
        // The length of each value takes four bytes.
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
        self.codes.resize(values, UNRESOLVED);
        Ok(())
    }

    /// Drops all codes.
    pub(crate) fn forget(&mut self) {
        self.codes.fill(UNRESOLVED);
    }

    /// Writes the codes of the values at `indices` to `out`. Unwanted positions may contain any code.
    pub(crate) fn codes(
        &mut self,
        indices: &[u32],
        wanted: &Bits,
        out: &mut [u32],
        resolve: &mut Resolve<'_>,
    ) -> Result<(), Fault> {
        // All values are looked up, because skipping the unwanted ones would take longer.
        let mut unresolved = 0;
        for ((indices, out), wanted) in indices.chunks(64).zip(out.chunks_mut(64)).zip(wanted.words()) {
            let mut unknown = 0u64;
            for (at, (&index, out)) in indices.iter().zip(out).enumerate() {
                let Some(&code) = self.codes.get(index as usize) else { return index_beyond(index) };
                unknown |= u64::from(code == UNRESOLVED) << at;
                *out = code;
            }
            unresolved |= unknown & wanted;
        }
        if unresolved != 0 {
            self.resolve(wanted.ones(0, indices.len()).map(|at| indices[at]), resolve)?;
            for at in wanted.ones(0, indices.len()) {
                out[at] = self.codes[indices[at] as usize];
            }
        }
        Ok(())
    }

    /// Resolves the codes of these values.
    fn resolve(
        &mut self,
        indices: impl Iterator<Item = u32>,
        resolve: &mut Resolve<'_>,
    ) -> Result<(), Fault> {
        let mut pending = [0u32; BLOCK];
        let mut count = 0;
        for index in indices {
            let code = &mut self.codes[index as usize];
            if *code == UNRESOLVED {
                *code = RESOLVING;
                pending[count] = index;
                count += 1;
                if count == BLOCK {
                    self.resolve_pending(&pending, resolve)?;
                    count = 0;
                }
            }
        }
        self.resolve_pending(&pending[..count], resolve)
    }

    fn resolve_pending(&mut self, pending: &[u32], resolve: &mut Resolve<'_>) -> Result<(), Fault> {
        if pending.is_empty() {
            return Ok(());
        }
        let mut texts: [&[u8]; BLOCK] = [&[]; BLOCK];
        for (text, &index) in texts.iter_mut().zip(pending) {
            let (from, to) = self.spans[index as usize];
            *text = &self.bytes[from as usize..to as usize];
        }
        let mut codes = [0; BLOCK];
        resolve(&texts[..pending.len()], &mut codes[..pending.len()])?;
        for (&index, &code) in pending.iter().zip(&codes) {
            self.codes[index as usize] = code;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    /// A dictionary of the strings "0", "1" and so on.
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
            codes: vec![UNRESOLVED; values],
            held: [None, None],
        }
    }

    fn bits(all: &[bool]) -> Bits {
        let mut bits = Bits::default();
        all.iter().for_each(|&bit| bits.push_word(u64::from(bit), 1));
        bits
    }

    /// Values of a batch, with whether each is wanted; and whether all codes are dropped before the batch.
    type Batches = Vec<(bool, Vec<(u32, bool)>)>;

    fn batches() -> impl Strategy<Value = (u32, Batches)> {
        (1..3000u32).prop_flat_map(|values| {
            let rows = prop::collection::vec((0..values, any::<bool>()), 0..1500);
            (Just(values), prop::collection::vec((prop::bool::weighted(0.3), rows), 1..8))
        })
    }

    proptest! {
        /// Compared with a map: codes that were resolved since the last drop are known, and no value is resolved twice.
        #[test]
        fn wanted_values_have_codes_and_each_is_resolved_once((values, batches) in batches()) {
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
                let mut resolve = |texts: &[&[u8]], codes: &mut [u32]| {
                    for (text, code) in texts.iter().zip(codes) {
                        let index: u32 = std::str::from_utf8(text).unwrap().parse().unwrap();
                        given += 1;
                        *code = given;
                        assert_eq!(model.insert(index, given), None, "{index} was known");
                    }
                    Ok(())
                };
                dictionary.codes(&indices, &bits(&wanted), &mut out, &mut resolve).unwrap();
                for ((index, wanted), code) in indices.into_iter().zip(wanted).zip(out) {
                    prop_assert!(!wanted || model.get(&index) == Some(&code));
                    ever_wanted.extend(wanted.then_some(index));
                }
                prop_assert_eq!(model.keys().copied().collect::<HashSet<_>>(), ever_wanted.clone());
                let code = |index: &u32| model.get(index).copied().unwrap_or(UNRESOLVED);
                prop_assert!((0..values).all(|index| dictionary.codes[index as usize] == code(&index)));
            }
        }
    }

    #[test]
    fn an_index_beyond_the_dictionary_is_an_error_even_if_unwanted() {
        for wanted in [true, false] {
            let mut out = [0; 2];
            let done = dictionary(2).codes(&[1, 2], &bits(&[true, wanted]), &mut out, &mut |_, _| Ok(()));
            let Err(Fault::Corrupt(said)) = done else { panic!("{done:?}") };
            assert!(said.contains("the index 2"), "{said}");
        }
    }
}
