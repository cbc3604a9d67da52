//! A reduce output that another worker holds, read in ranges: exact ones for its footer, and one
//! after another, the next fetched while one is copied.
//!
//! Not here: what the bytes mean (`write`).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tally_proto::v1::Range;
use tally_proto::v1::ticket::What;
use tally_proto::{AttemptId, v1};

use super::FILE_PART;
use super::client::{Client, ask};
use super::fetch::{Fetch, Trouble, wait};
use super::wire;
use crate::error::TaskError;
use crate::peers::{FileReader, Place, Reading};

/// Ranges under way at once, with the one in hand.
const AHEAD: usize = 2;

/// See the module's head.
pub struct RemoteFile {
    client: Client,
    at: Place,
    output: AttemptId,
    reading: Reading,
    length: u64,
    parts: Mutex<VecDeque<Part>>,
}

/// One range on its way, then here.
struct Part {
    start: u64,
    length: usize,
    state: PartState,
}

enum PartState {
    Coming(Fetch),
    Here(Bytes),
}

impl RemoteFile {
    /// Asks how long it is.
    ///
    /// # Errors
    /// [`TaskError::Lost`] where it is not to be had.
    pub fn open(client: Client, at: Place, output: &AttemptId, reading: Reading) -> Result<Self, TaskError> {
        let asked = ask(&at, &reading, vec![output.clone()], None);
        let mut answer = client.sizes(asked.clone(), &reading.io);
        let gone = || Err(Trouble::lost(0, "it did not answer"));
        let sizes: v1::Sizes =
            wait(&mut answer, &reading)?.unwrap_or_else(gone).map_err(|trouble| trouble.of(&asked))?;
        let length = sizes.outputs.first().map_or(0, |output| output.file_bytes);
        let (output, parts) = (output.clone(), Mutex::default());
        Ok(RemoteFile { client, at, output, reading, length, parts })
    }

    fn fetch(&self, offset: u64, length: usize) -> Fetch {
        let range = What::Range(Range { offset, length: length as u64 });
        let ask = ask(&self.at, &self.reading, vec![self.output.clone()], Some(range));
        Fetch::start(&self.client, ask, 1, &self.reading)
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
        self.at.lost(&self.output, format!("what it sent is not what it said: {what}"))
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
        while parts.len() < AHEAD {
            let start = parts.back().map_or(at, |part| part.start + part.length as u64);
            let length = self.length.saturating_sub(start).min(FILE_PART as u64) as usize;
            if length == 0 {
                break;
            }
            parts.push_back(Part { start, length, state: PartState::Coming(self.fetch(start, length)) });
        }
        let Some(part) = parts.front_mut() else { return Ok(Bytes::new()) };
        if let PartState::Coming(fetch) = &mut part.state {
            part.state = PartState::Here(self.receive(fetch, part.length)?);
        }
        match &part.state {
            PartState::Here(bytes) => Ok(bytes.slice((at - part.start) as usize..)),
            PartState::Coming(_) => Ok(Bytes::new()),
        }
    }
}
