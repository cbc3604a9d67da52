//! A reduce output at another worker, read in ranges: exact ranges for its footer, and sequential ranges, of which the
//! next one is fetched while one is copied.
//!
//! Not here: the meaning of the bytes (`write`).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tally_proto::v1::Range;
use tally_proto::v1::ticket::What;
use tally_proto::{AttemptId, v1};

use super::FILE_PART;
use super::client::Client;
use super::fetch::{Fetch, FetchError, query, wait};
use super::wire;
use crate::error::TaskError;
use crate::peers::{FileReader, OutputLocation, ReadContext};

/// Number of ranges that are fetched at once, including the current one.
const MAX_PARTS_AHEAD: usize = 2;
/// Messages of a range of up to [`FILE_PART`] bytes: its schema and one batch.
const PART_MESSAGES: usize = 2;

/// See the module documentation.
pub struct RemoteFile {
    client: Client,
    at: OutputLocation,
    output: AttemptId,
    reading: ReadContext,
    length: u64,
    parts: Mutex<VecDeque<FilePart>>,
}

/// A range of the file.
struct FilePart {
    start: u64,
    length: usize,
    state: FilePartState,
}

enum FilePartState {
    Coming(Fetch),
    Here(Bytes),
}

impl RemoteFile {
    /// Requests its size.
    ///
    /// # Errors
    /// [`TaskError::Lost`] if it is not available.
    pub fn open(
        client: Client,
        at: OutputLocation,
        output: &AttemptId,
        reading: ReadContext,
    ) -> Result<Self, TaskError> {
        let query = query(&at, &reading, vec![output.clone()], None);
        let mut answer = client.sizes(query.clone(), &reading.io);
        let no_answer = || Err(FetchError::lost(0, "it did not answer"));
        let sizes: v1::Sizes = wait(&mut answer, &at, &reading)?
            .unwrap_or_else(no_answer)
            .map_err(|error| error.into_task_error(&query))?;
        let length = sizes.outputs.first().map_or(0, |output| output.file_bytes);
        let (output, parts) = (output.clone(), Mutex::default());
        Ok(RemoteFile { client, at, output, reading, length, parts })
    }

    fn fetch(&self, offset: u64, length: usize) -> Fetch {
        let range = What::Range(Range { offset, length: length as u64 });
        let query = query(&self.at, &self.reading, vec![self.output.clone()], Some(range));
        Fetch::start(&self.client, query, PART_MESSAGES, &self.reading)
    }

    fn receive(&self, fetch: &mut Fetch, length: usize) -> Result<Bytes, TaskError> {
        let mut all: Option<Bytes> = None;
        while let Some((batch, _)) = fetch.next(&self.reading)? {
            let bytes = wire::bytes_of(&batch).map_err(|e| self.misread(&e.to_string()))?;
            all = Some(match all {
                None => bytes,
                Some(before) => {
                    let mut joined = BytesMut::with_capacity(length);
                    joined.extend_from_slice(&before);
                    joined.extend_from_slice(&bytes);
                    joined.freeze()
                }
            });
        }
        let all = all.unwrap_or_default();
        if all.len() != length {
            return Err(self.misread("its stream ended early"));
        }
        Ok(all)
    }

    fn misread(&self, what: &str) -> TaskError {
        self.at.lost(&self.output, format!("its data does not match its description: {what}"))
    }
}

impl FileReader for RemoteFile {
    fn len(&self) -> u64 {
        self.length
    }

    fn exact(&self, at: u64, length: usize) -> Result<Bytes, TaskError> {
        self.receive(&mut self.fetch(at, length), length)
    }

    fn next(&self, at: u64) -> Result<Bytes, TaskError> {
        if at >= self.length {
            return Ok(Bytes::new());
        }
        let mut parts = self.parts.lock();
        while parts.front().is_some_and(|part| at < part.start || part.start + part.length as u64 <= at) {
            parts.pop_front();
        }
        while parts.len() < MAX_PARTS_AHEAD {
            let start = parts.back().map_or(at, |part| part.start + part.length as u64);
            let length = self.length.saturating_sub(start).min(FILE_PART as u64) as usize;
            if length == 0 {
                break;
            }
            parts.push_back(FilePart {
                start,
                length,
                state: FilePartState::Coming(self.fetch(start, length)),
            });
        }
        let Some(part) = parts.front_mut() else { return Ok(Bytes::new()) };
        if let FilePartState::Coming(fetch) = &mut part.state {
            part.state = FilePartState::Here(self.receive(fetch, part.length)?);
        }
        match &part.state {
            FilePartState::Here(bytes) => Ok(bytes.slice((at - part.start) as usize..)),
            FilePartState::Coming(_) => Ok(Bytes::new()),
        }
    }
}
