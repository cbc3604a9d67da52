//! Reader of a string column: converts the strings of selected rows to dictionary codes.
//!
//! A dictionary value is resolved once, and a plain string only if it differs from the one before. Strings are resolved
//! in blocks, so that the lookups of the resolver can overlap. Codes are resolved for the values of a stretch, and then
//! spread to its rows. Not here: the meaning of a code.

use tally_dataset::{Bits, NULL_CODE};

use crate::cursor::{Cursor, Step, Wanted};
use crate::delta::BatchStrings;
use crate::dictionary::{BLOCK, Resolve, TextDictionary};
use crate::error::Fault;
use crate::page::{DataPage, Page};
use crate::runs::Runs;
use crate::spread::spread;
use crate::values::{Spans, TextSource, spans};

/// Reader of a string column.
pub(crate) struct TextReader {
    cursor: Cursor,
    source: TextSource,
    dictionary: TextDictionary,
    stretch: Stretch,
}

impl TextReader {
    pub(crate) fn new(cursor: Cursor) -> Self {
        TextReader {
            cursor,
            source: TextSource::None,
            dictionary: TextDictionary::default(),
            stretch: Stretch::default(),
        }
    }

    /// Drops all codes, because the resolver starts with an empty dictionary.
    pub(crate) fn forget(&mut self) {
        self.dictionary.forget();
    }

    /// The codes of the wanted rows or elements. Only those of selected ones are valid; without `selected` all are.
    pub(crate) fn read(
        &mut self,
        mut wanted: Wanted<'_>,
        selected: Option<&Bits>,
        code: &mut Vec<u32>,
        resolve: &mut Resolve<'_>,
    ) -> Result<(), Fault> {
        code.clear();
        let mut made = BatchStrings::default();
        loop {
            let stretch = &mut self.stretch;
            stretch.valid.clear();
            let there = match self.cursor.next(&mut wanted, &mut stretch.valid)? {
                Step::End => return Ok(()),
                Step::Page(Page::Dictionary { values }) => {
                    self.dictionary.set(&mut self.cursor.pages, values)?;
                    continue;
                }
                Step::Page(Page::Data(DataPage { encoding, body, .. })) => {
                    let before = std::mem::replace(&mut self.source, TextSource::None);
                    self.source = TextSource::new(self.cursor.pages.data(), encoding, &body, before)?;
                    continue;
                }
                Step::Values(there) => there,
            };
            stretch.wanted.clear();
            match selected {
                Some(selected) => stretch.wanted.push_where(selected, code.len(), &stretch.valid),
                None => stretch.wanted.push_run(true, there),
            }
            // Old codes remain for rows that are not selected.
            stretch.codes.resize(there, NULL_CODE);
            let data = self.cursor.pages.data();
            match &mut self.source {
                TextSource::Dictionary(hybrid) => {
                    stretch.indices.clear();
                    hybrid.read(data, there, &mut stretch.indices)?;
                    let Stretch { indices, wanted, codes, .. } = stretch;
                    self.dictionary.codes(indices, wanted, codes, resolve)?;
                }
                TextSource::Plain { at, end } => {
                    let reuse = std::mem::take(&mut stretch.spans);
                    let repeats = self.cursor.pages.repeats();
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
                            (&mut made, self.cursor.pages.budget()),
                        )?;
                        stretch.resolve_runs(done, |value| texts.get(value), resolve)?;
                        done += stretch.runs.values();
                    }
                }
                TextSource::None => return Fault::corrupt("values before any page"),
            }
            spread(&stretch.codes, &stretch.valid, 0, NULL_CODE, code);
        }
    }
}

/// Consecutive values of one page.
#[derive(Default)]
struct Stretch {
    /// Rows that have a value.
    valid: Bits,
    /// Values of selected rows.
    wanted: Bits,
    runs: Runs,
    codes: Vec<u32>,
    indices: Vec<u32>,
    spans: Vec<(u32, u32)>,
}

impl Stretch {
    /// Resolves strings that are read one by one, one string per run. The runs start at value `first`.
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
                resolve_block(&texts, &runs, &mut self.codes, resolve)?;
                count = 0;
            }
        }
        resolve_block(&texts[..count], &runs[..count], &mut self.codes, resolve)
    }
}

fn resolve_block(
    texts: &[&[u8]],
    runs: &[(usize, usize)],
    codes: &mut [u32],
    resolve: &mut Resolve<'_>,
) -> Result<(), Fault> {
    let mut found = [0; BLOCK];
    resolve(texts, &mut found[..texts.len()])?;
    for (&(from, to), &code) in runs.iter().zip(&found) {
        codes[from..to].fill(code);
    }
    Ok(())
}
