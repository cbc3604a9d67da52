//! Readers of one column chunk each, a batch of rows at a time.
//!
//! A reader walks pages, turns levels into validity, and puts values where their rows are. Text
//! is delivered as symbols and only for selected rows; a list as the least of its values.

use parquet::data_type::{Int32Type, Int64Type};
use parquet::schema::types::ColumnDescPtr;
use tally_dataset::{Bits, DatasetError, NULL_SYMBOL};

use super::error::Fault;
use super::hybrid::Hybrid;
use super::page::{DataPage, Page, Pages};
use super::values::{BoolValues, IntValues, Spans, TextSource, decode_texts, index_beyond, spans};

/// A column without repetition: its pages, and how far the current one is read.
pub(crate) struct Flat {
    pages: Pages,
    left: usize,
    def: Option<Hybrid>,
    max_def: u32,
}

impl Flat {
    pub(crate) fn new(pages: Pages, descriptor: &ColumnDescPtr) -> Self {
        Flat { pages, left: 0, def: None, max_def: descriptor.max_def_level() as u32 }
    }

    /// The next page, which the caller needs because its rows are not there yet.
    fn next(&mut self) -> Result<Page, Fault> {
        let page = self.pages.next()?;
        match page {
            None => Fault::corrupt("it has fewer rows than its row group"),
            Some(Page::Data(mut page)) => {
                self.left = page.values;
                self.def = page.def.take();
                Ok(Page::Data(page))
            }
            Some(dictionary) => Ok(dictionary),
        }
    }

    /// Appends the validity of the next `rows` rows (no more than the page has); gives how many
    /// of them are not null.
    fn validity(&mut self, rows: usize, valid: &mut Bits) -> Result<usize, Fault> {
        self.left -= rows;
        let from = valid.len();
        match &mut self.def {
            None => {
                valid.push_run(true, rows);
                Ok(rows)
            }
            Some(def) => {
                def.read_equal(self.pages.data(), rows, self.max_def, valid)?;
                Ok(valid.count_range(from, from + rows))
            }
        }
    }
}

/// Reader of a boolean column.
pub(crate) struct BoolReader {
    flat: Flat,
    values: Option<BoolValues>,
    packed: Bits,
}

impl BoolReader {
    pub(crate) fn new(flat: Flat) -> Self {
        BoolReader { flat, values: None, packed: Bits::default() }
    }

    pub(crate) fn read(&mut self, rows: usize, valid: &mut Bits, value: &mut Bits) -> Result<(), Fault> {
        valid.clear();
        value.clear();
        while valid.len() < rows {
            if self.flat.left == 0 {
                match self.flat.next()? {
                    Page::Data(page) => {
                        self.values = Some(BoolValues::new(&self.flat.pages, page.encoding, &page.body)?);
                    }
                    Page::Dictionary { .. } => return Fault::corrupt("a dictionary of booleans"),
                }
                continue;
            }
            let from = valid.len();
            let take = self.flat.left.min(rows - from);
            let there = self.flat.validity(take, valid)?;
            let Some(values) = &mut self.values else { return Fault::corrupt("values before any page") };
            if there == take {
                values.read(self.flat.pages.data(), there, value)?;
            } else {
                self.packed.clear();
                values.read(self.flat.pages.data(), there, &mut self.packed)?;
                value.push_spread(&self.packed, valid, from, from + take);
            }
        }
        Ok(())
    }
}

/// Reader of a 64-bit integer column.
pub(crate) struct Int64Reader {
    flat: Flat,
    values: IntValues<Int64Type>,
    packed: Vec<i64>,
}

impl Int64Reader {
    pub(crate) fn new(flat: Flat, descriptor: ColumnDescPtr) -> Self {
        Int64Reader { flat, values: IntValues::new(descriptor), packed: vec![] }
    }

    pub(crate) fn read(&mut self, rows: usize, valid: &mut Bits, value: &mut Vec<i64>) -> Result<(), Fault> {
        valid.clear();
        value.clear();
        while valid.len() < rows {
            if self.flat.left == 0 {
                let page = self.flat.next()?;
                set_int_page(&mut self.values, &mut self.flat.pages, page)?;
                continue;
            }
            let from = valid.len();
            let take = self.flat.left.min(rows - from);
            let there = self.flat.validity(take, valid)?;
            if there == take {
                self.values.read(self.flat.pages.data(), there, value)?;
            } else {
                self.packed.clear();
                self.values.read(self.flat.pages.data(), there, &mut self.packed)?;
                value.resize(from + take, 0);
                for (row, &v) in valid.ones(from, from + take).zip(&self.packed) {
                    value[row] = v;
                }
            }
        }
        Ok(())
    }
}

fn set_int_page<T: parquet::data_type::DataType>(
    values: &mut IntValues<T>,
    pages: &mut Pages,
    page: Page,
) -> Result<(), Fault>
where
    T::T: Copy + Default,
{
    match page {
        Page::Dictionary { values: count } => values.set_dictionary(pages, count),
        Page::Data(DataPage { values: count, encoding, body, .. }) => {
            values.set_page(pages, encoding, &body, count)
        }
    }
}

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

/// Entries of a list column decoded at a time.
const ENTRIES: usize = 4096;

/// Reader of the least value of each row's list of 32-bit integers.
pub(crate) struct ListMinReader {
    pages: Pages,
    values: IntValues<Int32Type>,
    rep: Option<Hybrid>,
    def: Option<Hybrid>,
    max_def: u32,
    /// The definition level from which on the list has an element.
    element_def: u32,
    /// Entries of the page not decoded yet.
    left: usize,
    /// The decoded entries, and how far they are used.
    starts: Bits,
    defs: Vec<u32>,
    ints: Vec<i32>,
    all_valid: bool,
    at: usize,
    int_at: usize,
}

impl ListMinReader {
    pub(crate) fn new(pages: Pages, descriptor: ColumnDescPtr, element_def: i16) -> Self {
        ListMinReader {
            pages,
            max_def: descriptor.max_def_level() as u32,
            element_def: element_def as u32,
            values: IntValues::new(descriptor),
            rep: None,
            def: None,
            left: 0,
            starts: Bits::default(),
            defs: vec![],
            ints: vec![],
            all_valid: true,
            at: 0,
            int_at: 0,
        }
    }

    /// Decodes more entries; whether there were any.
    fn decode(&mut self) -> Result<bool, Fault> {
        while self.left == 0 {
            match self.pages.next()? {
                None => return Ok(false),
                Some(Page::Data(mut page)) => {
                    self.left = page.values;
                    (self.rep, self.def) = (page.rep.take(), page.def.take());
                    set_int_page(&mut self.values, &mut self.pages, Page::Data(page))?;
                }
                Some(dictionary) => set_int_page(&mut self.values, &mut self.pages, dictionary)?,
            }
        }
        let count = self.left.min(ENTRIES);
        self.left -= count;
        let data = self.pages.data();
        self.starts.clear();
        match &mut self.rep {
            Some(rep) => rep.read_equal(data, count, 0, &mut self.starts)?,
            None => self.starts.push_run(true, count),
        }
        self.defs.clear();
        match &mut self.def {
            Some(def) => def.read(data, count, &mut self.defs)?,
            None => self.defs.resize(count, self.max_def),
        }
        let there = self.defs.iter().filter(|&&def| def == self.max_def).count();
        self.all_valid = there == count;
        self.ints.clear();
        self.values.read(data, there, &mut self.ints)?;
        (self.at, self.int_at) = (0, 0);
        Ok(true)
    }

    pub(crate) fn read(
        &mut self,
        rows: usize,
        present: &mut Bits,
        valid: &mut Bits,
        value: &mut Vec<i32>,
    ) -> Result<(), Fault> {
        for bits in [&mut *present, &mut *valid] {
            bits.clear();
            bits.push_run(false, rows);
        }
        value.clear();
        value.resize(rows, 0);
        // Rows begun; the last of them may go on in the next entries, even on the next page.
        let mut begun = 0;
        loop {
            if self.at == self.starts.len() && !self.decode()? {
                break;
            }
            let end = self.end_of(rows - begun);
            if end == self.at {
                break;
            }
            if begun == 0 && !self.starts.get(self.at) {
                return Fault::corrupt("a list that goes on before its row began");
            }
            begun = if self.all_valid {
                self.take_values(end, begun, present, valid, value)
            } else {
                self.take_mixed(end, begun, present, valid, value)
            };
            if end < self.starts.len() {
                break;
            }
        }
        if begun < rows {
            return Fault::corrupt("it has fewer rows than its row group");
        }
        Ok(())
    }

    /// The entry before which `rows` more rows have begun and the next would begin.
    fn end_of(&self, rows: usize) -> usize {
        let starts = self.starts.len();
        if self.starts.count_range(self.at, starts) <= rows {
            return starts;
        }
        self.starts.ones(self.at, starts).nth(rows).unwrap_or(starts)
    }

    /// Entries that all have values.
    fn take_values(
        &mut self,
        end: usize,
        mut begun: usize,
        present: &mut Bits,
        valid: &mut Bits,
        value: &mut [i32],
    ) -> usize {
        let ints = &self.ints[self.int_at..self.int_at + (end - self.at)];
        self.int_at += ints.len();
        let mut from = self.at;
        // A row that goes on may have had nulls alone so far.
        let known = begun > 0 && valid.get(begun - 1);
        let mut least = if known { value[begun - 1] } else { i32::MAX };
        while from < end {
            let count = (end - from).min(64);
            let starts = self.starts.word_at(from, count);
            for (bit, &int) in ints[from - self.at..][..count].iter().enumerate() {
                let start = starts >> bit & 1 == 1;
                begun += usize::from(start);
                least = if start { int } else { least.min(int) };
                value[begun - 1] = least;
            }
            from += count;
        }
        // Rows touched: the one that went on, and those begun.
        let first = begun - self.starts.count_range(self.at, end);
        let first = if self.starts.get(self.at) { first } else { first.saturating_sub(1) };
        for row in first..begun {
            present.set(row);
            valid.set(row);
        }
        self.at = end;
        begun
    }

    /// Entries some of which are null, or stand for no element at all.
    fn take_mixed(
        &mut self,
        end: usize,
        mut begun: usize,
        present: &mut Bits,
        valid: &mut Bits,
        value: &mut [i32],
    ) -> usize {
        for at in self.at..end {
            begun += usize::from(self.starts.get(at));
            let row = begun - 1;
            let def = self.defs[at];
            if def >= self.element_def {
                present.set(row);
            }
            if def == self.max_def {
                let int = self.ints[self.int_at];
                self.int_at += 1;
                value[row] = if valid.get(row) { value[row].min(int) } else { int };
                valid.set(row);
            }
        }
        self.at = end;
        begun
    }
}
