//! Tickets: the requested outputs, which are checked before any lookup; access control; and the lookup of the outputs.
//!
//! Not here: the response (`produce`).

use std::sync::Arc;

use prost::Message;
use tally_proto::v1::ticket::What;
use tally_proto::{AttemptId, JobId, StageId, TaskId, v1};
use tonic::Status;

use crate::store::{FileOutput, MapOutput, Output, Store};

/// The metadata key of a refusal that has the index in the ticket of the missing output.
pub const LOST: &str = "tally-lost";

/// The request of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The job of the outputs.
    pub job: JobId,
    /// The outputs, in the order in which they are sent.
    pub outputs: Vec<AttemptId>,
    /// The requested part of the outputs; `None` for all.
    pub what: Option<What>,
    /// Messages of the first output that the reader already has.
    pub skip: u32,
}

/// The outputs of a ticket, all of one kind.
pub enum ResolvedOutputs {
    /// Of map tasks.
    Maps(Vec<(AttemptId, Arc<MapOutput>)>),
    /// Of a reduce task.
    File(AttemptId, Arc<FileOutput>),
}

impl Request {
    /// The ticket of this request. `key` is empty if the ticket is only listed.
    pub fn ticket(&self, key: bytes::Bytes) -> v1::Ticket {
        let stage = self.outputs.first().map_or(0, |attempt| attempt.task.stage.0);
        let outputs = self.outputs.iter();
        let outputs = outputs.map(|a| v1::TaskAttempt { index: a.task.index, attempt: a.attempt }).collect();
        v1::Ticket {
            job: self.job.to_string(),
            stage,
            outputs,
            what: self.what,
            key: key.to_vec(),
            skip: self.skip,
        }
    }

    /// Parses a ticket. Also returns its key.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with the reason.
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
        Ok((Request { job, outputs, what: ticket.what, skip: ticket.skip }, ticket.key))
    }

    /// Checks the key and looks up the outputs.
    ///
    /// # Errors
    /// NOT_FOUND for a job or an output that is not here ([`LOST`] has its index), PERMISSION_DENIED for a wrong key,
    /// INVALID_ARGUMENT if the outputs do not have the requested part.
    pub fn resolve(&self, store: &Store, key: &[u8]) -> Result<ResolvedOutputs, Status> {
        let Some(expected) = store.key(&self.job) else {
            return Err(lost(0, format!("no output of job {} is here", self.job)));
        };
        if !same_key(&expected, key) {
            let what = format!("the ticket does not have the key of job {}", self.job);
            return Err(Status::permission_denied(what));
        }
        let mut maps = vec![];
        for (place, attempt) in self.outputs.iter().enumerate() {
            match store.get(attempt) {
                Some(Output::Map(output)) => maps.push((attempt.clone(), output)),
                Some(Output::File(file)) if self.outputs.len() == 1 => {
                    return Ok(ResolvedOutputs::File(attempt.clone(), file));
                }
                Some(Output::File(_)) => {
                    return Err(Status::invalid_argument("a ticket can request only one file"));
                }
                None => return Err(lost(place, format!("the output of {attempt} is not here"))),
            }
        }
        Ok(ResolvedOutputs::Maps(maps))
    }
}

/// The status for an output that is not here, with its index in the ticket.
pub fn lost(place: usize, what: String) -> Status {
    let mut status = Status::not_found(what);
    status.metadata_mut().insert(LOST, place.into());
    status
}

/// Compares a key with the job's key, in time that does not depend on the position of a difference. No key matches a
/// job without a key, which runs in a single process.
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
    fn keys_are_compared_completely() {
        assert!(same_key(b"abc", b"abc"));
        for wrong in [&b""[..], b"ab", b"abd", b"abcabc", b"abca", b"ABC"] {
            assert!(!same_key(b"abc", wrong), "{wrong:?}");
        }
        assert!(!same_key(b"", b""), "a job without a key");
    }

    #[test]
    fn invalid_tickets_are_rejected() {
        let task = |index| TaskId { job: JobId::parse("j").unwrap(), stage: StageId(1), index };
        let outputs = vec![AttemptId { task: task(3), attempt: 7 }, AttemptId { task: task(1), attempt: 0 }];
        let job = JobId::parse("j").unwrap();
        let request = Request { job, outputs, what: Some(What::Partition(5)), skip: 3 };
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
