//! Conversions between the generated messages and the types that the code uses. Messages are input: the conversions
//! check that required fields are present.
//!
//! Not here: compact lists of outputs (`packed`).

use crate::failure::Failure;
use crate::ids::{AttemptId, InvalidId, JobId, StageId, TaskId, WorkerId};
use crate::limits::shorten;
use crate::v1;

/// A message that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// A required field is missing.
    #[error("the message has no field {0}")]
    Missing(&'static str),
    /// Fields contradict each other.
    #[error("the message contradicts itself: {0}")]
    Contradiction(&'static str),
    /// A text is not an id.
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// The field's value.
///
/// # Errors
/// [`BadMessage::Missing`].
pub fn required<T>(field: Option<T>, name: &'static str) -> Result<T, BadMessage> {
    field.ok_or(BadMessage::Missing(name))
}

impl From<&AttemptId> for v1::Attempt {
    fn from(id: &AttemptId) -> Self {
        v1::Attempt {
            job: id.task.job.to_string(),
            stage: id.task.stage.0,
            index: id.task.index,
            attempt: id.attempt,
        }
    }
}

impl TryFrom<&v1::Attempt> for AttemptId {
    type Error = BadMessage;

    fn try_from(message: &v1::Attempt) -> Result<Self, BadMessage> {
        let job = JobId::parse(&message.job)?;
        let task = TaskId { job, stage: StageId(message.stage), index: message.index };
        Ok(AttemptId { task, attempt: message.attempt })
    }
}

/// The attempt that a reference in a dispatch of `job` names.
pub fn referred(job: &JobId, reference: &v1::OutputRef) -> AttemptId {
    let task = TaskId { job: job.clone(), stage: StageId(reference.stage), index: reference.index };
    AttemptId { task, attempt: reference.attempt }
}

impl v1::Totals {
    /// The message for these counters, in the dataset's order.
    pub fn new(rows: u64, counters: &[u64]) -> Self {
        let counter = |at| counters.get(at).copied().unwrap_or(0);
        let more_counters = counters.get(2..).unwrap_or_default().to_vec();
        v1::Totals { rows, first_counter: counter(0), second_counter: counter(1), more_counters }
    }

    /// The values of a dataset's `count` counters.
    pub fn counters(&self, count: usize) -> Vec<u64> {
        let mut counters = vec![self.first_counter, self.second_counter];
        counters.extend(&self.more_counters);
        counters.resize(count, 0);
        counters
    }
}

impl From<&Failure> for v1::Failure {
    fn from(failure: &Failure) -> Self {
        use v1::failure::Kind;
        let kind = match failure {
            Failure::FetchLost { worker, task, reason } => Kind::FetchLost(v1::FetchLost {
                worker: worker.to_string(),
                producer: Some((&AttemptId { task: task.clone(), attempt: 0 }).into()),
                reason: bounded(reason),
            }),
            Failure::Retryable { reason } => Kind::Retryable(bounded(reason)),
            Failure::Fatal { reason } => Kind::Fatal(bounded(reason)),
            Failure::Refused { reason } => Kind::Refused(bounded(reason)),
            Failure::Cancelled => Kind::Cancelled(v1::Cancelled {}),
        };
        v1::Failure { kind: Some(kind) }
    }
}

impl TryFrom<&v1::Failure> for Failure {
    type Error = BadMessage;

    fn try_from(message: &v1::Failure) -> Result<Self, BadMessage> {
        use v1::failure::Kind;
        Ok(match required(message.kind.as_ref(), "kind")? {
            Kind::FetchLost(lost) => Failure::FetchLost {
                worker: WorkerId::parse(&lost.worker)?,
                task: AttemptId::try_from(required(lost.producer.as_ref(), "producer")?)?.task,
                reason: bounded(&lost.reason),
            },
            Kind::Retryable(reason) => Failure::Retryable { reason: bounded(reason) },
            Kind::Fatal(reason) => Failure::Fatal { reason: bounded(reason) },
            Kind::Refused(reason) => Failure::Refused { reason: bounded(reason) },
            Kind::Cancelled(_) => Failure::Cancelled,
        })
    }
}

/// The beginning of a reason: it is logged, written to the journal and shown, and a message can be much longer.
fn bounded(reason: &str) -> String {
    shorten(reason).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_survives_the_wire_and_a_bad_id_does_not() {
        let task = TaskId { job: JobId::parse("j-1").unwrap(), stage: StageId(2), index: 3 };
        let id = AttemptId { task, attempt: 4 };
        let mut message = v1::Attempt::from(&id);
        assert_eq!(AttemptId::try_from(&message), Ok(id));
        message.job = "../up".into();
        assert!(matches!(AttemptId::try_from(&message), Err(BadMessage::Id(_))));
    }

    #[test]
    fn counters_of_any_number_survive_the_wire_and_the_first_two_are_where_they_were() {
        use prost::Message;
        for count in 0..5 {
            let counters: Vec<u64> = (10..).take(count).collect();
            let bytes = v1::Totals::new(9, &counters).encode_to_vec();
            assert_eq!(v1::Totals::decode(&bytes[..]).unwrap().counters(count), counters);
        }
        assert_eq!(v1::Totals::new(1, &[2, 3]).encode_to_vec(), [1 << 3, 1, 2 << 3, 2, 3 << 3, 3]);
    }

    #[test]
    fn every_failure_survives_the_wire_as_what_it_is() {
        let task = TaskId { job: JobId::parse("j-1").unwrap(), stage: StageId(0), index: 3 };
        let reason = || "because".to_string();
        let all = [
            Failure::FetchLost { worker: WorkerId::parse("w").unwrap(), task, reason: reason() },
            Failure::Retryable { reason: reason() },
            Failure::Fatal { reason: reason() },
            Failure::Refused { reason: reason() },
            Failure::Cancelled,
        ];
        for failure in all {
            assert_eq!(Failure::try_from(&v1::Failure::from(&failure)), Ok(failure));
        }
        assert!(Failure::try_from(&v1::Failure { kind: None }).is_err());
        // The text of an error may name all columns of a file.
        let long = Failure::Fatal { reason: "because ".repeat(1 << 20) };
        let Failure::Fatal { reason } = Failure::try_from(&v1::Failure::from(&long)).unwrap() else {
            panic!("another kind")
        };
        assert!(reason.len() <= crate::limits::MAX_REASON_BYTES && reason.contains("more bytes"));
    }
}
