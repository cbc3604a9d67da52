//! Tickets: what is asked for, checked before anything is looked up; who may have it; and the
//! outputs that are meant.
//!
//! Not here: how they are answered (`produce`).

use std::sync::Arc;

use prost::Message;
use tally_proto::v1::ticket::What;
use tally_proto::{AttemptId, JobId, StageId, TaskId, v1};
use tonic::Status;

use crate::store::{FileOutput, MapOutput, Output, Store};

/// Where a refusal says whose output is missing: the output's place in the ticket.
pub const LOST: &str = "tally-lost";

/// A ticket's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose outputs.
    pub job: JobId,
    /// Which, in the order in which they are wanted.
    pub outputs: Vec<AttemptId>,
    /// What of them; everything where nothing is said.
    pub what: Option<What>,
}

/// The outputs that a ticket means, all of one kind.
pub enum Found {
    /// Of map tasks.
    Maps(Vec<(AttemptId, Arc<MapOutput>)>),
    /// Of a reduce task.
    File(AttemptId, Arc<FileOutput>),
}

impl Request {
    /// The ticket that asks this; `key` is empty where it is only shown.
    pub fn ticket(&self, key: bytes::Bytes) -> v1::Ticket {
        let stage = self.outputs.first().map_or(0, |attempt| attempt.task.stage.0);
        let outputs = self.outputs.iter();
        let outputs = outputs.map(|a| v1::TaskAttempt { index: a.task.index, attempt: a.attempt }).collect();
        v1::Ticket { job: self.job.to_string(), stage, outputs, what: self.what, key: key.to_vec() }
    }

    /// Reads a ticket; gives the key that it shows as well.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, saying what is wrong with it.
    pub fn parse(ticket: &[u8]) -> Result<(Self, Vec<u8>), Status> {
        let bad = |what: String| Status::invalid_argument(format!("the ticket is malformed: {what}"));
        let ticket = v1::Ticket::decode(ticket).map_err(|e| bad(e.to_string()))?;
        let job = JobId::parse(&ticket.job).map_err(|e| bad(e.to_string()))?;
        if ticket.outputs.is_empty() {
            return Err(bad("it names no output".into()));
        }
        let stage = StageId(ticket.stage);
        let outputs = ticket.outputs.iter().map(|output| AttemptId {
            task: TaskId { job: job.clone(), stage, index: output.index },
            attempt: output.attempt,
        });
        let outputs = outputs.collect();
        Ok((Request { job, outputs, what: ticket.what }, ticket.key))
    }

    /// Checks the key and finds the outputs.
    ///
    /// # Errors
    /// NOT_FOUND for a job or an output that is not here ([`LOST`] says which), PERMISSION_DENIED for
    /// a wrong key, INVALID_ARGUMENT where the outputs have no such part.
    pub fn resolve(&self, store: &Store, key: &[u8]) -> Result<Found, Status> {
        let Some(expected) = store.key(&self.job) else {
            return Err(lost(0, format!("nothing of job {} is here", self.job)));
        };
        if !same_key(&expected, key) {
            let what = format!("the ticket does not show the key of job {}", self.job);
            return Err(Status::permission_denied(what));
        }
        let mut maps = vec![];
        for (place, attempt) in self.outputs.iter().enumerate() {
            match store.get(attempt) {
                Some(Output::Map(output)) => maps.push((attempt.clone(), output)),
                Some(Output::File(file)) if self.outputs.len() == 1 => {
                    return Ok(Found::File(attempt.clone(), file));
                }
                Some(Output::File(_)) => {
                    return Err(Status::invalid_argument("one ticket asks for one file"));
                }
                None => return Err(lost(place, format!("the output of {attempt} is not here"))),
            }
        }
        Ok(Found::Maps(maps))
    }
}

/// An output that is not here, by its place in the ticket.
pub fn lost(place: usize, what: String) -> Status {
    let mut status = Status::not_found(what);
    status.metadata_mut().insert(LOST, place.into());
    status
}

/// Whether a key is the job's, in a time that does not depend on where they differ. A job without
/// a key (of a single process) is nobody else's.
pub fn same_key(expected: &[u8], shown: &[u8]) -> bool {
    let mut difference = u8::from(expected.is_empty()) | u8::from(expected.len() != shown.len());
    for (at, byte) in shown.iter().enumerate() {
        difference |= byte ^ expected.get(at % expected.len().max(1)).unwrap_or(&0);
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compared_whole() {
        assert!(same_key(b"abc", b"abc"));
        for wrong in [&b""[..], b"ab", b"abd", b"abcabc", b"abca", b"ABC"] {
            assert!(!same_key(b"abc", wrong), "{wrong:?}");
        }
        assert!(!same_key(b"", b""), "a job without a key");
    }

    #[test]
    fn tickets_from_outside_are_checked() {
        let task = |index| TaskId { job: JobId::parse("j").unwrap(), stage: StageId(1), index };
        let outputs = vec![AttemptId { task: task(3), attempt: 7 }, AttemptId { task: task(1), attempt: 0 }];
        let job = JobId::parse("j").unwrap();
        let request = Request { job, outputs, what: Some(What::Partition(5)) };
        let ticket = request.ticket(bytes::Bytes::from_static(b"key"));
        assert_eq!(Request::parse(&ticket.encode_to_vec()).unwrap(), (request, b"key".to_vec()));
        let bad = [
            v1::Ticket { job: "../up".into(), ..ticket.clone() }.encode_to_vec(),
            v1::Ticket { outputs: vec![], ..ticket }.encode_to_vec(),
            vec![],
            b"\xff\xff\xff\xff".to_vec(),
        ];
        for bad in bad {
            let status = Request::parse(&bad).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        }
    }
}
