//! Between the generated messages and the types that decisions are made with.
//!
//! Messages come from outside: a field that must be there is asked for, not assumed.

use crate::ids::{AttemptId, InvalidId, JobId, StageId, TaskId};
use crate::v1;

/// A message that lacks what it must have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// A field is absent.
    #[error("the message lacks its field {0}")]
    Missing(&'static str),
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
}
