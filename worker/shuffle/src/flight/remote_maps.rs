//! One partition of map outputs at another worker, as a reduce task reads it: first the sizes, then the rows in
//! segments of a few megabytes. The next segment is fetched while one is merged.
//!
//! A segment is fetched ahead only if its complete size is reserved, so that no stream waits for memory that is held by
//! the reader of another stream. The current segment is received message by message. Not here: the order in which
//! holders are read (`reduce`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{BinaryArray, RecordBatch};
use tally_common::budget::Reservation;
use tally_common::waits::{self, WaitKind};
use tally_proto::v1;
use tally_proto::v1::ticket::What;
use tokio::sync::mpsc;

use super::client::Client;
use super::fetch::{Fetch, FetchError, OutputQuery, query, wait};
use crate::error::TaskError;
use crate::peers::{ListedRun, MapReader, OutputLocation, ReadContext, TakeBatch, Wanted};
use crate::store::join_strings;
use crate::string_dictionary::{Claim, FetchClaim, TaskDictionary, Translation};

/// Bytes of a segment, unless a single output is larger.
const SEGMENT: u64 = 8 << 20;
/// Number of segments that are fetched at once, including the current one.
const MAX_SEGMENTS_AHEAD: usize = 2;
/// Number of buffered messages of a segment that is not reserved.
const UNRESERVED: usize = 1;
/// Minimum bytes of a message, if a run has more than one.
const MIN_MESSAGE_BYTES: u64 = 1 << 20;
/// Interval at which a slot that waits for another thread's dictionaries checks again.
const CLAIM_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// See the module documentation.
pub struct RemoteMaps {
    client: Client,
    at: OutputLocation,
    reading: ReadContext,
    outputs: Vec<Wanted>,
    partition: u32,
    sizes: Sizes,
    /// The outputs with rows, in order, as indexes of `outputs`.
    segments: Vec<Segment>,
    /// The next segment to request.
    next: usize,
    under_way: VecDeque<UnderWay>,
}

enum Sizes {
    Asked { query: OutputQuery, answer: mpsc::Receiver<Result<v1::Sizes, FetchError>> },
    Known(Vec<Vec<ListedRun>>),
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
    /// Requests the sizes. Later calls wait for them.
    pub fn open(
        client: Client,
        at: OutputLocation,
        outputs: Vec<Wanted>,
        partition: u32,
        reading: ReadContext,
    ) -> Self {
        let attempts = outputs.iter().map(|wanted| wanted.attempt.clone()).collect();
        let query = query(&at, &reading, attempts, Some(What::Partition(partition)));
        let sizes = if outputs.is_empty() {
            Sizes::Known(vec![])
        } else {
            Sizes::Asked { answer: client.sizes(query.clone(), &reading.io), query }
        };
        let (segments, under_way) = (vec![], VecDeque::new());
        RemoteMaps { client, at, reading, outputs, partition, sizes, segments, next: 0, under_way }
    }

    fn cut(&mut self, sizes: &v1::Sizes) {
        let mut table = None;
        for (place, output) in sizes.outputs.iter().enumerate() {
            let runs = || output.runs.iter().filter(|run| run.rows > 0);
            let bytes: u64 = runs().map(|run| run.bytes).sum();
            let messages = runs().map(|run| (run.bytes / MIN_MESSAGE_BYTES) as usize + 1).sum::<usize>();
            if messages == 0 {
                continue;
            }
            // A stream has one schema, so all outputs of a segment belong to one table.
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

    /// Requests the current segment, and the following ones if there is room.
    fn top_up(&mut self) {
        while self.under_way.len() < MAX_SEGMENTS_AHEAD && self.next < self.segments.len() {
            let segment = &self.segments[self.next];
            let bytes = usize::try_from(segment.bytes).unwrap_or(usize::MAX);
            let budget = &self.reading.budget;
            // Half of the budget is kept free for data that is required.
            let roomy = budget.used().saturating_add(segment.bytes) <= budget.limit() / 2;
            let held = if roomy { budget.try_reserve(bytes) } else { None };
            if held.is_none() && !self.under_way.is_empty() {
                return;
            }
            let attempts = segment.outputs.iter().map(|&o| self.outputs[o].attempt.clone()).collect();
            let query = query(&self.at, &self.reading, attempts, Some(What::Partition(self.partition)));
            // All batches of a reserved segment, and their schema.
            let ahead = if held.is_some() { segment.messages + 1 } else { UNRESERVED };
            let fetch = Fetch::start(&self.client, query, ahead, &self.reading);
            self.under_way.push_back(UnderWay { segment: self.next, fetch, _held: held });
            self.next += 1;
        }
    }

    /// The index of the segment that contains an output.
    fn segment_of(&self, output: usize) -> Option<usize> {
        let at = self.segments.partition_point(|s| s.outputs.last().is_some_and(|&last| last < output));
        self.segments.get(at).filter(|segment| segment.outputs.contains(&output)).map(|_| at)
    }

    /// The stream that contains an output. Earlier streams are done.
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
            _ => Err(TaskError::InvalidTask(format!(
                "outputs of worker {} are read out of order",
                self.at.worker
            ))),
        }
    }

    fn misread(&self, output: usize, what: &str) -> TaskError {
        self.at
            .lost(&self.outputs[output].attempt, format!("its data does not match its description: {what}"))
    }

    /// Claims the dictionaries of runs with the same number that no thread has or fetches, from `output` to the end of
    /// its segment.
    fn missing<'a>(
        &self,
        output: usize,
        first: FetchClaim<'a>,
        strings: &'a TaskDictionary,
    ) -> Vec<(usize, FetchClaim<'a>)> {
        let run = first.run().1;
        let mut mine = vec![(output, first)];
        let Sizes::Known(sizes) = &self.sizes else { return mine };
        let segment = self.segment_of(output).and_then(|at| self.segments.get(at));
        for &later in segment.iter().flat_map(|s| &s.outputs).filter(|&&later| later > output) {
            if sizes[later].get(run).is_none_or(|size| size.rows == 0) || !strings.roomy() {
                continue;
            }
            if let Claim::Mine(claimed) = strings.claim((self.outputs[later].attempt.clone(), run)) {
                mine.push((later, claimed));
            }
        }
        mine
    }

    /// Fetches dictionaries and translates them. Returns the first translation.
    fn translate(
        &self,
        missing: Vec<(usize, FetchClaim<'_>)>,
        run: usize,
        strings: &TaskDictionary,
    ) -> Result<Arc<Translation>, TaskError> {
        let attempts = missing.iter().map(|(output, _)| self.outputs[*output].attempt.clone()).collect();
        let query = query(&self.at, &self.reading, attempts, Some(What::Dictionary(run as u32)));
        let mut fetch = Fetch::start(&self.client, query, UNRESERVED, &self.reading);
        let mut first = None;
        let mut ahead = fetch.next(&self.reading)?;
        for (output, claimed) in missing {
            let attempt = &self.outputs[output].attempt;
            let mut pieces: Vec<RecordBatch> = vec![];
            while let Some((batch, meta)) =
                ahead.take_if(|(_, meta)| (meta.index, meta.attempt) == (attempt.task.index, attempt.attempt))
            {
                if meta.run as usize != run {
                    return Err(self.misread(output, "it sent the dictionary of another run"));
                }
                pieces.push(batch);
                ahead = fetch.next(&self.reading)?;
            }
            if pieces.is_empty() {
                return Err(self.misread(output, "a dictionary is missing"));
            }
            let dictionary = join_strings(&pieces);
            let dictionary: BinaryArray = dictionary.map_err(|e| self.misread(output, &e.to_string()))?;
            let codes = strings.translate(claimed.run(), &dictionary)?;
            first.get_or_insert(codes);
        }
        first.ok_or_else(|| TaskError::InvalidTask("no dictionary is requested".into()))
    }
}

impl MapReader for RemoteMaps {
    fn sizes(&mut self) -> Result<&[Vec<ListedRun>], TaskError> {
        if let Sizes::Asked { query, answer } = &mut self.sizes {
            let no_answer = || Err(FetchError::lost(0, "it did not answer"));
            let sizes = wait(answer, &self.at, &self.reading)?
                .unwrap_or_else(no_answer)
                .map_err(|error| error.into_task_error(query))?;
            self.cut(&sizes);
            let listed = |run: &v1::RunSize| {
                let checksums = run.checksum.zip(run.dictionary);
                ListedRun { rows: run.rows, items: run.items, checksums }
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

    fn codes(
        &mut self,
        output: usize,
        run: usize,
        strings: &TaskDictionary,
    ) -> Result<Arc<Translation>, TaskError> {
        let id = (self.outputs[output].attempt.clone(), run);
        loop {
            match strings.claim(id.clone()) {
                Claim::Known(codes) => return Ok(codes),
                Claim::Mine(first) => {
                    let missing = self.missing(output, first, strings);
                    let codes = self.translate(missing, run, strings)?;
                    strings.account()?;
                    return Ok(codes);
                }
                Claim::Others => {
                    self.reading.check_cancelled()?;
                    let _waiting = waits::begin(WaitKind::Task, "");
                    strings.wait(CLAIM_CHECK_INTERVAL);
                }
            }
        }
    }

    fn read(&mut self, output: usize, run: usize, take: &mut TakeBatch<'_>) -> Result<(), TaskError> {
        let ListedRun { rows, .. } = self.sizes()?[output][run];
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
                return Err(self.misread(output, "it sent rows that were not requested"));
            }
            take(&batch)?;
        }
        Ok(())
    }
}
