//! Between the generated messages and the types that decisions are made with.
//!
//! Messages come from outside: a field that must be there is asked for, not assumed.

use crate::failure::Failure;
use crate::ids::{AttemptId, InvalidId, JobId, StageId, TaskId, WorkerId};
use crate::v1;

/// A message that lacks what it must have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// A field is absent.
    #[error("the message lacks its field {0}")]
    Missing(&'static str),
    /// Fields that do not fit each other.
    #[error("the message contradicts itself: {0}")]
    Contradiction(&'static str),
    /// An id is none.
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// The field's value.
///
/// # Errors
/// [`BadMessage::Missing`] where it is absent.
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

/// The attempt that a reference of an order of `job` names.
pub fn referred(job: &JobId, reference: &v1::OutputRef) -> AttemptId {
    let task = TaskId { job: job.clone(), stage: StageId(reference.stage), index: reference.index };
    AttemptId { task, attempt: reference.attempt }
}

impl From<&Failure> for v1::Failure {
    fn from(failure: &Failure) -> Self {
        use v1::failure::Kind;
        let kind = match failure {
            Failure::FetchLost { worker, task, reason } => Kind::FetchLost(v1::FetchLost {
                worker: worker.to_string(),
                producer: Some((&AttemptId { task: task.clone(), attempt: 0 }).into()),
                reason: reason.clone(),
            }),
            Failure::Retryable { reason } => Kind::Retryable(reason.clone()),
            Failure::Fatal { reason } => Kind::Fatal(reason.clone()),
            Failure::Refused { reason } => Kind::Refused(reason.clone()),
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
                reason: lost.reason.clone(),
            },
            Kind::Retryable(reason) => Failure::Retryable { reason: reason.clone() },
            Kind::Fatal(reason) => Failure::Fatal { reason: reason.clone() },
            Kind::Refused(reason) => Failure::Refused { reason: reason.clone() },
            Kind::Cancelled(_) => Failure::Cancelled,
        })
    }
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
    }
}
