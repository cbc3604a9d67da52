//! The dictionary page of a text column, kept for its chunk, and the symbols of its values as far
//! as they are known.
//!
//! Not here: pages without a dictionary (`text`).

use bytes::Bytes;
use tally_dataset::Bits;

use super::error::Fault;
use super::page::Pages;
use super::runs::Runs;
use super::text::{BLOCK, Resolve};
use super::values::{Spans, index_beyond, spans};
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
        let (mut at, mut runs) = (0, Runs::default());
        let each = Vec::with_capacity(values);
        self.spans = match spans(&bytes, &mut at, bytes.len(), values, &[], &mut runs, each)? {
            Spans::Each(spans) => spans,
            Spans::Uniform { start, length } => (0..values)
                .map(|k| (start + 4 + k * (4 + length)) as u32)
                .map(|from| (from, from + length as u32))
                .collect(),
        };
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
