//! One partition of map outputs that another worker holds, as a reduce reads it: sizes first, then
//! the rows in segments of some megabytes, the next of them fetched while one is merged.
//!
//! A segment is fetched ahead only when all of it has been reserved, so that no stream ever waits
//! for memory that another stream's reader holds; the one in hand is taken message by message.
//! Not here: in which order holders are read (`reduce`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BinaryArray, RecordBatch};
use tally_proto::v1;
use tally_proto::v1::ticket::What;
use tokio::sync::mpsc;

use super::client::{Client, ask};
use super::fetch::{Ask, Fetch, Trouble, wait};
use crate::budget::Reservation;
use crate::error::TaskError;
use crate::peers::{Listed, MapReader, Place, Reading, TakeBatch, Wanted};
use crate::store::join_texts;
use crate::texts::{Claim, Claimed, JobTexts, Translation};

/// Bytes of a segment, unless a single output has more.
const SEGMENT: u64 = 8 << 20;
/// Segments under way at once, with the one in hand.
const AHEAD: usize = 2;
/// Messages of a segment that was not reserved which may wait for the slot.
const UNRESERVED: usize = 1;
/// Bytes of which a message has at least this many, where there are more than one.
const LEAST_MESSAGE: u64 = 1 << 20;
/// How long a slot waits for another's dictionaries before it looks again.
const LOOK: Duration = Duration::from_millis(100);

/// See the module's head.
pub struct RemoteMaps {
    client: Client,
    at: Place,
    reading: Reading,
    outputs: Vec<Wanted>,
    partition: u32,
    sizes: Sizes,
    /// Outputs with rows, in order; by their places in `outputs`.
    segments: Vec<Segment>,
    /// The next segment to be asked for.
    next: usize,
    under_way: VecDeque<UnderWay>,
}

enum Sizes {
    Asked { ask: Ask, answer: mpsc::Receiver<Result<v1::Sizes, Trouble>> },
    Known(Vec<Vec<Listed>>),
}

struct Segment {
    outputs: Vec<usize>,
    bytes: u64,
    messages: usize,
}

struct UnderWay {
    segment: usize,
    fetch: Fetch,
    _held: Option<Reservation>,
}

impl RemoteMaps {
    /// Asks for the sizes at once; they are waited for when they are needed.
    pub fn open(client: Client, at: Place, outputs: Vec<Wanted>, partition: u32, reading: Reading) -> Self {
        let attempts = outputs.iter().map(|wanted| wanted.attempt.clone()).collect();
        let ask = ask(&at, &reading, attempts, Some(What::Partition(partition)));
        let sizes = if outputs.is_empty() {
            Sizes::Known(vec![])
        } else {
            Sizes::Asked { answer: client.sizes(ask.clone(), &reading.io), ask }
        };
        let (segments, under_way) = (vec![], VecDeque::new());
        RemoteMaps { client, at, reading, outputs, partition, sizes, segments, next: 0, under_way }
    }

    fn cut(&mut self, sizes: &v1::Sizes) {
        let mut table = None;
        for (place, output) in sizes.outputs.iter().enumerate() {
            let runs = || output.runs.iter().filter(|run| run.rows > 0);
            let bytes: u64 = runs().map(|run| run.bytes).sum();
            let messages = runs().map(|run| (run.bytes / LEAST_MESSAGE) as usize + 1).sum::<usize>();
            if messages == 0 {
                continue;
            }
            // A stream has one schema, so a segment has outputs of one table.
            let same = table.replace(self.outputs[place].table) == Some(self.outputs[place].table);
            match self.segments.last_mut() {
                Some(last) if same && last.bytes + bytes <= SEGMENT => {
                    last.outputs.push(place);
                    last.bytes += bytes;
                    last.messages += messages;
                }
                _ => self.segments.push(Segment { outputs: vec![place], bytes, messages }),
            }
        }
    }

    /// Asks for the segment in hand, and for those after it that there is room for.
    fn top_up(&mut self) {
        while self.under_way.len() < AHEAD && self.next < self.segments.len() {
            let segment = &self.segments[self.next];
            let bytes = usize::try_from(segment.bytes).unwrap_or(usize::MAX);
            let budget = &self.reading.budget;
            // Half of the budget stays for what cannot do without.
            let roomy = budget.used().saturating_add(segment.bytes) <= budget.limit() / 2;
            let held = if roomy { budget.reserve(bytes) } else { None };
            if held.is_none() && !self.under_way.is_empty() {
                return;
            }
            let attempts = segment.outputs.iter().map(|&o| self.outputs[o].attempt.clone()).collect();
            let ask = ask(&self.at, &self.reading, attempts, Some(What::Partition(self.partition)));
            let ahead = if held.is_some() { segment.messages } else { UNRESERVED };
            let fetch = Fetch::start(&self.client, ask, ahead, &self.reading);
            self.under_way.push_back(UnderWay { segment: self.next, fetch, _held: held });
            self.next += 1;
        }
    }

    /// The segment that an output is in, by its number.
    fn segment_of(&self, output: usize) -> Option<usize> {
        let at = self.segments.partition_point(|s| s.outputs.last().is_some_and(|&last| last < output));
        self.segments.get(at).filter(|segment| segment.outputs.contains(&output)).map(|_| at)
    }

    /// The stream that an output comes in; those before it are done.
    fn stream(&mut self, output: usize) -> Result<&mut Fetch, TaskError> {
        let wanted = self.segment_of(output).ok_or_else(|| self.misread(output, "it has no rows"))?;
        while self.under_way.front().is_some_and(|first| first.segment < wanted) {
            self.under_way.pop_front();
            self.top_up();
        }
        if self.under_way.is_empty() {
            self.next = wanted;
            self.top_up();
        }
        match self.under_way.front_mut() {
            Some(first) if first.segment == wanted => Ok(&mut first.fetch),
            _ => Err(TaskError::Order(format!("outputs of worker {} are read out of order", self.at.worker))),
        }
    }

    fn misread(&self, output: usize, what: &str) -> TaskError {
        self.at.lost(&self.outputs[output].attempt, format!("what it sent is not what it said: {what}"))
    }

    /// Runs of the same number whose dictionaries nobody has or fetches, from `output` on to the
    /// end of its segment.
    fn missing<'a>(
        &self,
        output: usize,
        first: Claimed<'a>,
        texts: &'a JobTexts,
    ) -> Vec<(usize, Claimed<'a>)> {
        let run = first.run().1;
        let mut mine = vec![(output, first)];
        let Sizes::Known(sizes) = &self.sizes else { return mine };
        let segment = self.segment_of(output).and_then(|at| self.segments.get(at));
        for &later in segment.iter().flat_map(|s| &s.outputs).filter(|&&later| later > output) {
            if sizes[later].get(run).is_none_or(|size| size.rows == 0) || !texts.roomy() {
                continue;
            }
            if let Claim::Mine(claimed) = texts.claim((self.outputs[later].attempt.clone(), run)) {
                mine.push((later, claimed));
            }
        }
        mine
    }

    /// Fetches dictionaries and makes their translations; gives the first one's.
    fn translate(
        &self,
        missing: Vec<(usize, Claimed<'_>)>,
        run: usize,
        texts: &JobTexts,
    ) -> Result<Arc<Translation>, TaskError> {
        let attempts = missing.iter().map(|(output, _)| self.outputs[*output].attempt.clone()).collect();
        let ask = ask(&self.at, &self.reading, attempts, Some(What::Dictionary(run as u32)));
        let mut fetch = Fetch::start(&self.client, ask, UNRESERVED, &self.reading);
        let mut first = None;
        let mut ahead = fetch.next(&self.reading)?;
        for (output, claimed) in missing {
            let attempt = &self.outputs[output].attempt;
            let mut pieces: Vec<RecordBatch> = vec![];
            while let Some((batch, meta)) =
                ahead.take_if(|(_, meta)| (meta.index, meta.attempt) == (attempt.task.index, attempt.attempt))
            {
                if meta.run as usize != run {
                    return Err(self.misread(output, "another run's dictionary"));
                }
                pieces.push(batch);
                ahead = fetch.next(&self.reading)?;
            }
            if pieces.is_empty() {
                return Err(self.misread(output, "a dictionary is missing"));
            }
            let dictionary = join_texts(&pieces);
            let dictionary: BinaryArray = dictionary.map_err(|e| self.misread(output, &e.to_string()))?;
            let codes = texts.translate(claimed.run(), &dictionary)?;
            first.get_or_insert(codes);
        }
        first.ok_or_else(|| TaskError::Order("no dictionary was wanted".into()))
    }
}

impl MapReader for RemoteMaps {
    fn sizes(&mut self) -> Result<&[Vec<Listed>], TaskError> {
        if let Sizes::Asked { ask, answer } = &mut self.sizes {
            let gone = || Err(Trouble::lost(0, "it did not answer"));
            let sizes =
                wait(answer, &self.reading)?.unwrap_or_else(gone).map_err(|trouble| trouble.of(ask))?;
            self.cut(&sizes);
            let listed = |run: &v1::RunSize| {
                let checksums = run.checksum.zip(run.dictionary);
                Listed { rows: run.rows, items: run.items, checksums }
            };
            let known = sizes.outputs.iter().map(|output| output.runs.iter().map(listed).collect());
            self.sizes = Sizes::Known(known.collect());
        }
        match &self.sizes {
            Sizes::Known(sizes) => Ok(sizes),
            Sizes::Asked { .. } => Ok(&[]),
        }
    }

    fn lost(&self, output: usize, reason: String) -> TaskError {
        self.at.lost(&self.outputs[output].attempt, reason)
    }

    fn rewind(&mut self) {
        self.under_way.clear();
        self.next = 0;
        self.top_up();
    }

    fn codes(&mut self, output: usize, run: usize, texts: &JobTexts) -> Result<Arc<Translation>, TaskError> {
        let id = (self.outputs[output].attempt.clone(), run);
        loop {
            match texts.claim(id.clone()) {
                Claim::Known(codes) => return Ok(codes),
                Claim::Mine(first) => {
                    let missing = self.missing(output, first, texts);
                    return self.translate(missing, run, texts);
                }
                Claim::Others => {
                    self.reading.check_cancelled()?;
                    texts.wait(LOOK);
                }
            }
        }
    }

    fn read(&mut self, output: usize, run: usize, take: &mut TakeBatch<'_>) -> Result<(), TaskError> {
        let Listed { rows, .. } = self.sizes()?[output][run];
        let attempt = self.outputs[output].attempt.clone();
        let wanted = (attempt.task.index, attempt.attempt, run as u32, self.partition);
        let mut seen = 0;
        while seen < rows {
            let reading = self.reading.clone();
            let Some((batch, meta)) = self.stream(output)?.next(&reading)? else {
                return Err(self.misread(output, "its stream ended early"));
            };
            seen += batch.num_rows() as u64;
            if (meta.index, meta.attempt, meta.run, meta.partition) != wanted || seen > rows {
                return Err(self.misread(output, "rows of something else"));
            }
            take(&batch)?;
        }
        Ok(())
    }
}
