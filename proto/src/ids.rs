//! The newtypes of all ids. Ids are opaque to all code except their maker. Logs, errors, file names and tickets show
//! their `Display` form, which uses only `[a-z0-9-]` and so is safe in a path.
//!
//! Not here: how ids are made (the coordinator, and the worker's `agent`).

use std::fmt;
use std::sync::Arc;

/// The maximum length of an id, in bytes.
pub const MAX_ID_BYTES: usize = 64;

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid id: use 1 to {MAX_ID_BYTES} characters of a-z, 0-9 and '-'")]
pub struct InvalidId(pub String);

fn checked(text: &str) -> Result<Arc<str>, InvalidId> {
    let fits = !text.is_empty() && text.len() <= MAX_ID_BYTES;
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits && plain { Ok(text.into()) } else { Err(InvalidId(text.chars().take(80).collect())) }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an id.
            ///
            /// # Errors
            /// [`InvalidId`] if the text is empty, too long or not safe in a path.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                checked(text).map(Self)
            }

            /// The id's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// One job over one day, from submit to publish.
    JobId
}
text_id! {
    /// One incarnation of a worker process; a restarted worker has a new id.
    WorkerId
}

/// The index of a stage in its job, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StageId(pub u32);

/// One term of a leader; a higher epoch is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// One unit of work of a stage.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The job that the task belongs to.
    pub job: JobId,
    /// The stage that the task belongs to.
    pub stage: StageId,
    /// The task's number in its stage, from 0.
    pub index: u32,
}

/// The bits of [`AttemptId::attempt`] that count a task's attempts within an epoch; the others are those of the epoch.
pub const ATTEMPT_BITS: u32 = 12;

/// One attempt at a task; a task never uses a number twice.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    /// The task.
    pub task: TaskId,
    /// Identifies the attempt within its task. People see [`attempt_number`].
    pub attempt: u32,
}

/// The number that people see for an [`AttemptId::attempt`]: a task's first attempt is 1. Each leader begins at 1.
pub const fn attempt_number(attempt: u32) -> u32 {
    attempt % (1 << ATTEMPT_BITS) + 1
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-s{}-t{}", self.job, self.stage.0, self.index)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-a{}", self.task, self.attempt)
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_leave_their_folder_are_refused() {
        for bad in ["", "../x", "a/b", "A", "a b", "é", &"a".repeat(MAX_ID_BYTES + 1)] {
            assert!(JobId::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(JobId::parse("20170227-0a").unwrap().as_str(), "20170227-0a");
    }

    #[test]
    fn an_attempt_names_its_task() {
        let task = TaskId { job: JobId::parse("j").unwrap(), stage: StageId(1), index: 7 };
        assert_eq!(AttemptId { task, attempt: 2 }.to_string(), "j-s1-t7-a2");
    }

    #[test]
    fn people_count_the_attempts_of_each_leader_from_1() {
        let fourth_leader = 4 << ATTEMPT_BITS;
        assert_eq!(
            [0, 1, fourth_leader, fourth_leader + 2, u32::MAX].map(attempt_number),
            [1, 2, 1, 3, 4096]
        );
    }
}
